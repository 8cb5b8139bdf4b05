"""Where an experiment's files are, and which of them may be had."""

from __future__ import annotations

import re
from pathlib import Path

from app.services.errors import NotFoundError
from app.services.ids import is_id
from app.settings import Settings

_FILES = re.compile(
    r"report\.(html|md|json)|config\.toml|data\.sha256|figure\.(png|svg)|hit_rates\.(csv|json)"
    r"|(clean|backdoored)/(epochs\.jsonl|losses\.csv|poison_manifest\.csv)"
    r"|((clean|backdoored)/(checkpoint|epochs/\d{3})|pretrained)/(card\.json|MODEL_CARD\.md|weights\.safetensors)"
)
TRASH = ".trash-"


def experiments_dir(settings: Settings) -> Path:
    """The parent of every experiment's folder."""
    return settings.data_dir / "experiments"


def place_of(settings: Settings, experiment_id: str) -> Path:
    """The folder of one; its run folder lies in it, under the configuration's name. Raises NotFoundError."""
    if not is_id(experiment_id):
        raise NotFoundError("unknown_experiment", "There is no such experiment here.")
    return experiments_dir(settings) / experiment_id


def live_file(home: Path) -> Path:
    """What its process says of the present moment, while there is one."""
    return home / "live.json"


def files_of(run: Path) -> list[str]:
    """What can be downloaded of a run folder, by its path in it: reports first, weights last."""
    if not run.is_dir():
        return []
    names = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    return sorted((name for name in names if _FILES.fullmatch(name)), key=lambda name: (name.count("/"), name))


def file_of(run: Path, name: str) -> Path:
    """One of them. Raises NotFoundError `unknown_file`."""
    if not _FILES.fullmatch(name) or not (run / name).is_file():
        raise NotFoundError("unknown_file", "This run has no such file.")
    return run / name
