"""What the services refuse, beside the core's own errors. No HTTP here: app/errors.py maps them."""

from __future__ import annotations

from model.errors import OverreadError

_PASSING = {"decoder_killed"}


class NotFoundError(OverreadError):
    """Something named that is not there."""


class BusyError(OverreadError):
    """The device cannot take more now; `retry_after_s` says when to come back."""

    def __init__(self, code: str, message: str, retry_after_s: int = 5) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class ConflictError(OverreadError):
    """Something that contradicts what is there already."""


class InvalidError(OverreadError):
    """A value that makes no sense where it was given."""


class CredentialsError(OverreadError):
    """Nobody is signed in, or the name and the password do not go together."""


class TooManyAttemptsError(OverreadError):
    """Somebody guesses; `retry_after_s` says when to come back."""

    def __init__(self, code: str, message: str, retry_after_s: int = 60) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class UnavailableError(OverreadError):
    """Something that is listed but cannot be used, until somebody mends it."""


def busy() -> BusyError:
    """What whoever comes to a full queue is told."""
    return BusyError("busy", "Too many radiographs are waiting; try again in a few seconds.")


def shutting_down() -> BusyError:
    """What whoever waits while the server stops is told."""
    return BusyError("stopping", "The server is shutting down; try again in a moment.")


def passes(error: Exception) -> bool:
    """Whether the trouble was the machine's, not the file's: the same may go well later, and is no outcome."""
    if isinstance(error, OverreadError):
        return isinstance(error, BusyError) or error.code in _PASSING
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
