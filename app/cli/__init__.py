"""The `overread` command.

Exit codes: 0 done, 1 failed (one line on stderr says what to do), 2 used wrongly, 130 interrupted. Commands import what
is heavy when they run, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import sys

import typer

from app.cli import backup, calibrating, data, experiments, quality, scan, serving, training, users
from model.errors import OverreadError


def build() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(
        name="overread",
        help="A second reading of chest-radiograph AI. Research use, not for diagnosis.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    serving.register(app)
    data.register(app)
    training.register(app)
    experiments.register(app)
    quality.register(app)
    calibrating.register(app)
    scan.register(app)
    users.register(app)
    backup.register(app)
    return app


def main() -> None:
    """Runs the command, and turns what went wrong into one line and an exit code."""
    try:
        build()(prog_name="overread")
    except OverreadError as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{error.strerror or error}{where}.")
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: str) -> None:
    """One line, exit 1."""
    print(f"overread: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
