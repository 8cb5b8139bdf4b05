"""The kinds of jobs there are, by name. Each is a module with `run(spec, ctx)`, imported only where it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from app.jobs.context import Context
from model.errors import ConfigError

Run = Callable[[Mapping[str, Any], Context], Mapping[str, Any]]
KINDS = {
    "calibrate": "app.jobs.kinds.calibrate",
    "examine": "app.jobs.kinds.examine",
    "experiment": "app.jobs.kinds.experiment",
    "reanalyse": "app.jobs.kinds.reanalyse",
    "scan": "app.jobs.kinds.scan",
    "verify": "app.jobs.kinds.verify",
}

# These may take hours: each kind has places of its own, and nothing short waits behind it.
ALONE = ("calibrate", "experiment", "scan")


def kind(name: str) -> Run:
    """The function of a kind. Raises ConfigError `unknown_kind`."""
    if name not in KINDS:
        raise ConfigError("unknown_kind", f"There is no job of the kind “{name}”; there is: {', '.join(KINDS)}.")
    return cast(Run, import_module(KINDS[name]).run)
