"""scan, worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import Depth, live_pair, read_settings

if TYPE_CHECKING:
    from app.services.scanning import Scan
    from app.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(scan)
    app.command()(worker)


def scan(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of radiographs: PNG, JPEG or DICOM.")],
    out: Annotated[Path, typer.Option(help="The answers, JSON lines; goes on with what is there.")],
    checkpoint: Annotated[list[str] | None, typer.Option(help="Id of a checkpoint; may be repeated.")] = None,
    test: Annotated[Depth, typer.Option(help="How far positive findings are tested; full takes a while each.")] = (
        Depth.SCREEN
    ),
    background: Annotated[bool, typer.Option("--background", help="Leave it to the worker, as a job.")] = False,
) -> None:
    """Screen a folder: a line for each file, in the order of their paths, as `predict --json` prints it.

    Stopped at any moment, the same command goes on where it was. A file that cannot be read gets a line with the
    problem and does not stop the others; the exit code is then 1. What the machine had trouble with has no line: the
    same command goes on with it. By default the pair reads that the dashboard compares.
    """
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a folder.", param_hint="DIR")
    settings = read_settings()
    pair = settings.pair if checkpoint else live_pair(settings)
    if background:
        _leave_to_worker(settings, folder, out, checkpoint or [], pair, test)
        return
    from app.services.scanning import Scan, scanning_engine

    one = Scan(folder, out, checkpoint or [], settings, pair, test.level)
    with one.open():
        if one.done < one.total:
            with scanning_engine(settings, checkpoint or [], pair) as (engine, decoder), ExitStack() as stack:
                advance = _progress(stack, one)
                for _ in one.run(engine, decoder):
                    advance()
    if one.refused:
        print(f"overread: {one.refused} of {one.total} files could not be read: {out} says why.", file=sys.stderr)
        raise typer.Exit(1)


def worker(
    data_dir: Annotated[Path | None, typer.Option(help="Where studies, checkpoints and database live.")] = None,
) -> None:
    """Run the jobs of the ledger until stopped; serve starts a worker itself unless OVERREAD_WORKER=0."""
    import logging

    from app.worker import run_worker

    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    run_worker(read_settings(data_dir=data_dir))


def _progress(stack: ExitStack, one: Scan) -> Callable[[], None]:
    """A bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        return lambda: None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
    task = progress.add_task("Radiographs", total=one.total, completed=one.done)
    return lambda: progress.update(task, completed=one.done)


def _leave_to_worker(
    settings: Settings, folder: Path, out: Path, checkpoint_ids: list[str], pair: tuple[str, str], test: Depth
) -> None:
    from app.db import Database
    from app.jobs import Ledger

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.resolved_database_url)
    db.migrate()
    spec = {
        "folder": str(folder.resolve()),
        "out": str(out.resolve()),
        "checkpoints": checkpoint_ids,
        "pair": pair,
        "test": test.value,
    }
    print(Ledger(db).enqueue("scan", spec).id)
    db.close()
