"""backup, restore."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import read_settings

if TYPE_CHECKING:
    from app.services.backup import Copied

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Where studies, checkpoints and database live.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    out: Annotated[Path, typer.Option(help="The folder for the copy; one that has a copy gets what is new.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy everything that was stored, while the server runs, and compare every file with its hash."""
    from app.services.backup import back_up

    _print(back_up(read_settings(data_dir=data_dir), out), out, "pg_dump", as_json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="What `overread backup` made.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Fill an empty data folder from a backup, and compare every file with its hash."""
    from app.services.backup import restore as put_back

    settings = read_settings(data_dir=data_dir)
    _print(put_back(source, settings), settings.data_dir, "pg_restore", as_json)


def _print(copied: Copied, folder: Path, tool: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(copied)))
        return
    size = f"{copied.size_bytes / 2**20:.1f} MiB"
    print(f"{folder}: {copied.blobs} files, {size}, {copied.new} of them new; every hash is right.")
    if not copied.database:
        print(f"The database is PostgreSQL's: {tool} is the tool for it (docs/operations.md).")
