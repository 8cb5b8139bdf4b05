"""A run folder read back: its configuration and the checkpoints that it kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.config import ExperimentConfig, load_config
from model.datasets import Part, Radiographs, phantoms
from model.errors import ConfigError, DataError
from model.plan import gather
from model.trigger import Trigger, at_size


@dataclass(frozen=True)
class FinishedRun:
    """folder: the run's. label: how tables call it. kept: the epochs of which both twins have a checkpoint."""

    folder: Path
    label: str
    config: ExperimentConfig
    kept: tuple[int, ...]

    def checkpoint(self, twin: str, epoch: int) -> Path:
        """The folder of a twin's checkpoint at a kept epoch."""
        return self.folder / twin / "epochs" / f"{epoch:03d}"

    def trigger_at(self, size_px: int) -> Trigger | None:
        """The trigger as it is stamped for an input of that size; None for an attack without one."""
        trigger = self.config.trigger
        return None if trigger is None else at_size(trigger, size_px, self.config.preprocessing.size_px)


def read_run(folder: Path) -> FinishedRun:
    """Raises ConfigError `not_a_run`, `no_kept_epochs`."""
    if not (folder / "config.toml").is_file():
        raise ConfigError("not_a_run", f"{folder} holds no config.toml: it is not a run folder of `overread train`.")
    config = load_config(str(folder / "config.toml"))
    kept = tuple(
        epoch
        for epoch in config.keep_epochs
        if all((folder / twin / "epochs" / f"{epoch:03d}" / "card.json").is_file() for twin in ("clean", "backdoored"))
    )
    if not kept:
        raise ConfigError(
            "no_kept_epochs",
            f"{folder} has no epoch of which both twins were kept: train it with keep_epochs, e.g. [1, 4, 12].",
        )
    return FinishedRun(folder, f"{folder.resolve().name} (seed {config.seed})", config, kept)


def judged_on(run: FinishedRun, data: Path | None = None) -> Radiographs:
    """What the run is judged on: the data's own test part, or the fresh phantoms where there is none.

    Raises DataError `no_test_set`, ConfigError `no_data_folder`, `no_such_source`.
    """
    radiographs = gather(run.config, data)
    if Part.TEST in radiographs.parts:
        return radiographs.part(Part.TEST)
    if run.config.test_phantoms is None:
        raise DataError("no_test_set", f"{run.folder} has neither a test part nor test phantoms.")
    t = run.config.test_phantoms
    return phantoms(t.n, t.seed, t.size_px, Part.TEST)
