"""What several commands need."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from model.errors import ConfigError

if TYPE_CHECKING:
    from app.schemas import TestLevel
    from app.settings import Settings


class Depth(StrEnum):
    """`--test`: how far positive findings are tested."""

    NONE = "none"
    SCREEN = "screen"
    FULL = "full"

    @property
    def level(self) -> TestLevel:
        """As the services name it."""
        return self.value


def read_settings(**given: Any) -> Settings:
    """The environment, with what the command line says on top. Raises ConfigError `bad_settings`."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise _unusable("_".join(str(part) for part in first["loc"]), f"{first['msg']}.") from error
    except SettingsError as error:  # its message names the field, its cause what is wrong with the JSON
        field = re.search(r'field "(\w+)"', str(error))
        raise _unusable(field[1] if field else "…", 'write it as JSON, e.g. ["a", "b"].') from error


def live_pair(settings: Settings) -> tuple[str, str]:
    """Reference and candidate as the dashboard on the same data compares them; says so where the page has chosen."""
    from app.services.checkpoints import pair_of

    pair = pair_of(settings)
    if pair != settings.pair:
        print(
            f"overread: the pair is the one chosen on the checkpoints page: {pair[0]} and {pair[1]}.", file=sys.stderr
        )
    return pair


def _unusable(field: str, why: str) -> ConfigError:
    return ConfigError("bad_settings", f"OVERREAD_{field.upper()} is not usable: {why}")
