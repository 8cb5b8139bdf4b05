"""What a job sees of the world while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from app.settings import Settings
from model.errors import OverreadError


class JobCancelled(Exception):
    """Somebody does not want the result any more."""


class JobFailed(OverreadError):
    """Another attempt would end the same way: there is none, until somebody mends the cause and asks for it."""


class StaleAttempt(Exception):
    """Another attempt has taken over; this one must stop, and may not write."""


class Context(Protocol):
    """A job kind is a function `run(spec, ctx)` that uses nothing else: the same function runs in a child process,
    under torchrun and on a cluster.

    resumed: what the last attempt's checkpoint said, None at the first. settings: where the application's data is.
    """

    @property
    def resumed(self) -> Mapping[str, Any] | None: ...

    @property
    def settings(self) -> Settings: ...

    def report(self, done: int, total: int, note: str = "") -> None:
        """Progress, for people. Cheap: it is written with the next heartbeat."""

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Makes durable where to go on from, once, with an event in the ledger. Raises StaleAttempt."""

    def cancelled(self) -> bool:
        """Whether to stop: then raise JobCancelled, at a moment that suits."""
