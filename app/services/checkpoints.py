"""The registry as people and programs see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from sqlalchemy import inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.inference import LAYERS, InferenceEngine, Listed, State, scan
from app.schemas import CheckpointInfo, StageInfo
from app.services.errors import InvalidError, NotFoundError, UnavailableError
from app.settings import Settings
from app.tables import SettingRow
from model.checkpoint import sha256_file
from model.errors import ConfigError
from model.network import stages

PairRole = Literal["reference", "candidate"]
_PAIR = "pair"


class PairChoice:
    """Which two checkpoints are compared: what was chosen on the checkpoints page, or else what the settings say.

    Kept in the database, so that every process of one installation compares the same.
    """

    def __init__(self, db: Database, fallback: tuple[str, str]) -> None:
        self._db = db
        self._fallback = fallback

    def __call__(self) -> tuple[str, str]:
        """Ids of the reference and the candidate."""
        with self._db.read() as session:
            row = session.get(SettingRow, _PAIR)
        match row.value if row else None:
            case {"reference": str(reference), "candidate": str(candidate)}:
                return reference, candidate
        return self._fallback

    def choose(self, engine: InferenceEngine, reference: str, candidate: str) -> None:
        """Makes these two the live pair. What the former pair read stays.

        Raises NotFoundError `unknown_checkpoint`, InvalidError `same_checkpoint`.
        """
        for one in (reference, candidate):
            engine.find(one)
        if reference == candidate:
            raise InvalidError("same_checkpoint", "Choose two different checkpoints: one is compared with the other.")
        value = {"reference": reference, "candidate": candidate}
        self._db.write_again(lambda session: session.merge(SettingRow(key=_PAIR, value=value)))


def pair_of(settings: Settings) -> tuple[str, str]:
    """The live pair of the installation that these settings are of, without a server: reference and candidate.

    What was chosen on its page, or what the settings say where nothing was, or where there is no database yet; none is
    made. Raises ConfigError `bad_database`.
    """
    url = settings.resolved_database_url
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        return settings.pair
    db = Database(url)
    try:
        if not inspect(db.engine).has_table(SettingRow.__tablename__):
            return settings.pair
        return PairChoice(db, settings.pair)()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(
            "bad_database",
            f"The database cannot be asked which pair was chosen ({reason}): see OVERREAD_DATABASE_URL and "
            "OVERREAD_DATA_DIR.",
        ) from error
    finally:
        db.close()


def describe(listed: Listed, pair: tuple[str, str]) -> CheckpointInfo:
    """One entry. pair: ids of the reference and the candidate."""
    role: PairRole | None = "reference" if listed.id == pair[0] else "candidate" if listed.id == pair[1] else None
    card = listed.card
    return CheckpointInfo(
        id=listed.id,
        state=listed.state.value,
        role=role,
        title=card.title if card else None,
        weights_sha256=card.weights_sha256 if card else None,
        error=listed.error or None,
        card=card.to_json() if card else None,
        layers=LAYERS,
    )


def list_checkpoints(engine: InferenceEngine, pair: tuple[str, str]) -> list[CheckpointInfo]:
    """Every checkpoint, usable or not."""
    return _describe_all(engine.checkpoints(), pair)


def show_checkpoint(engine: InferenceEngine, pair: tuple[str, str], checkpoint_id: str) -> CheckpointInfo:
    """One checkpoint, with the stages of its network. Raises NotFoundError `unknown_checkpoint`."""
    return with_stages(describe(engine.find(checkpoint_id), pair))


def offline_registry(folders: Sequence[Path], pair: tuple[str, str]) -> list[CheckpointInfo]:
    """The registry without a server: cards are read and weights hashed, nothing is loaded."""
    return _describe_all([_checked(listed) for listed in scan(folders)], pair)


def usable_pair(engine: InferenceEngine, pair: tuple[str, str]) -> list[str]:
    """The pair without what is missing or failed: a broken one must not hide the other's reading.

    Raises UnavailableError `no_pair`.
    """
    usable = [checkpoint_id for checkpoint_id in pair if _is_usable(engine, checkpoint_id)]
    if not usable:
        raise UnavailableError(
            "no_pair",
            f"Neither “{pair[0]}” nor “{pair[1]}” can be used: they are missing or broken, see the page's foot.",
        )
    return usable


def with_stages(info: CheckpointInfo) -> CheckpointInfo:
    """The same entry with the stages of its network at its input size, where its card can be read."""
    if info.card is None:
        return info
    return info.model_copy(update={"stages": list(stages_at(info.card["preprocessing"]["size_px"]))})


@cache
def stages_at(input_size_px: int) -> tuple[StageInfo, ...]:
    """Every stage, with its grid at that input size."""
    roles = {name: role for role, name in LAYERS.items()}
    return tuple(
        StageInfo(name=one.name, grid=one.grid, channels=one.channels, depth=one.depth, role=roles.get(one.name))
        for one in stages(input_size_px)
    )


def _describe_all(registry: Sequence[Listed], pair: tuple[str, str]) -> list[CheckpointInfo]:
    """A folder whose name is another one's id must not pass for a part of the pair."""
    ids = [listed.id for listed in registry]
    return [describe(one, pair if one.id not in ids[:i] else ("", "")) for i, one in enumerate(registry)]


def _is_usable(engine: InferenceEngine, checkpoint_id: str) -> bool:
    try:
        return engine.find(checkpoint_id).state is not State.FAILED
    except NotFoundError:
        return False


def _checked(listed: Listed) -> Listed:
    if listed.state is State.FAILED or listed.card is None:
        return listed
    weights = listed.folder / "weights.safetensors"
    if not weights.is_file():
        return replace(listed, state=State.FAILED, error=f"{listed.folder} holds no weights.safetensors.")
    if sha256_file(weights) != listed.card.weights_sha256:
        return replace(listed, state=State.FAILED, error="The weights are not those that the card names.")
    return replace(listed, state=State.READY)
