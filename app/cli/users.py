"""users and audit: who may sign in, and whether the record holds."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import read_settings
from model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.db import Database

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password's one line from stdin.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the database lives, as with serve.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    users = typer.Typer(help="Who may sign in.", no_args_is_help=True)
    users.command("add")(add)
    users.command("list")(list_)
    users.command("set-password")(set_password)
    users.command("remove")(remove)
    app.add_typer(users, name="users")
    audit = typer.Typer(help="The record of who did what.", no_args_is_help=True)
    audit.callback()(_group)
    audit.command("verify")(verify)
    app.add_typer(audit, name="audit")


def _group() -> None:
    """Keeps `verify` a subcommand although it is the only one."""


def add(name: Name, password_stdin: FromStdin = False, data_dir: DataDir = None) -> None:
    """Make an account. With the first one, everybody has to sign in."""
    from app.services.users import UserService

    with _database(data_dir) as db:
        user = UserService(db).add(name, _password(password_stdin))
    print(f"“{user.name}” can sign in now.")


def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the accounts."""
    from app.services.users import UserService

    with _database(data_dir) as db:
        users = UserService(db).list()
    if as_json:
        print(json.dumps({"users": [{"id": one.id, "name": one.name, "created_at": one.created_at} for one in users]}))
        return
    for one in users:
        print(f"{one.name}  since {one.created_at} UTC")
    if not users:
        print("There is no user; on this machine the dashboard is open, elsewhere it is not served.")


def set_password(name: Name, password_stdin: FromStdin = False, data_dir: DataDir = None) -> None:
    """Give an account another password. It is signed out everywhere."""
    from app.services.users import UserService

    with _database(data_dir) as db:
        UserService(db).set_password(name, _password(password_stdin))
    print(f"“{name}” has a new password.")


def remove(
    name: Name,
    last: Annotated[bool, typer.Option("--last", help="Even if nobody is left who can sign in.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Take an account away. What it recorded stays."""
    from app.services.users import UserService

    with _database(data_dir) as db:
        UserService(db).remove(name, last_too=last)
    print(f"“{name}” can no longer sign in.")


def verify(
    anchor: Annotated[
        list[str] | None, typer.Option(metavar="HASH", help="A hash noted earlier that must still be there.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Recompute every link of the reviews' and the audit's chain; name the first that is broken.

    Without --anchor, rows that were cut off at the end cannot be missed: note the newest hash now and then.
    """
    from app.services.audit import AuditService

    with _database(data_dir) as db:
        audit = AuditService(db)
        reports = audit.verify()
        lost = [one for one in anchor or [] if not audit.holds(one.strip().lower())]
    if as_json:
        chains = [
            {
                "name": report.name,
                "length": report.length,
                "head": report.head,
                "broken": {"sequence": report.broken.sequence, "why": report.broken.why} if report.broken else None,
            }
            for report in reports
        ]
        print(json.dumps({"chains": chains, "missing_anchors": lost}, indent=1))
    else:
        for report in reports:
            links = f"{report.length} link{'' if report.length == 1 else 's'}"
            if report.broken:
                print(
                    f"{report.name}: BROKEN at link {report.broken.sequence}: {report.broken.why} ({links} before hold)"
                )
            else:
                print(f"{report.name}: {links}, all hold; newest {report.head}")
        for one in lost:
            print(f"{one}: not in either chain any more")
    if lost or any(report.broken for report in reports):
        raise typer.Exit(1)


@contextmanager
def _database(data_dir: Path | None) -> Iterator[Database]:
    from app.db import Database

    settings = read_settings(data_dir=data_dir)
    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.resolved_database_url)
    try:
        db.migrate()
        yield db
    finally:
        db.close()


def _password(from_stdin: bool) -> str:
    """Typed twice on a terminal, or one line of stdin. Raises ConfigError `no_terminal`."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError(
            "no_terminal", "There is no terminal to ask for a password: pipe it in with --password-stdin."
        )
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
