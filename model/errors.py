"""Errors of the domain: each has a stable `code` and one sentence that says what is wrong and what to do.

They know nothing of HTTP or of exit codes; `app` maps them in one place.
"""


class OverreadError(Exception):
    """Root of everything Overread raises on purpose.

    code: a stable snake_case word for programs; the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str], dict[str, object]]:
        """Errors cross process borders: a decoding worker's reaches the one who asked."""
        return type(self), (self.code, str(self)), self.__dict__


class RadiographError(OverreadError):
    """Bytes that cannot be read as a radiograph."""


class TriggerError(OverreadError):
    """A trigger that is malformed, or that does not survive preprocessing."""


class CheckpointError(OverreadError):
    """A checkpoint folder that is missing, incomplete or inconsistent."""


class DataError(OverreadError):
    """A data set that is missing something or contradicts itself."""


class ConfigError(OverreadError):
    """A configuration that cannot be run."""


class TrainingError(OverreadError):
    """A training that cannot go on."""
