"""What an experiment will work on, and whether it can work at all: found out before hours are spent on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from model.config import ChestXray14Source, ExperimentConfig, load_config
from model.datasets import Part, Radiographs, chestxray14, join, phantoms
from model.errors import ConfigError, DataError
from model.poison import PoisonedView, poisoned_view
from model.preprocess import Preprocessing
from model.trigger import at_size, require_survival

_CLAIMING = {"data.sha256", ".data.sha256.partial", ".config.toml.partial"}  # what `claim` writes before config.toml


def gather(config: ExperimentConfig, data: Path | None = None) -> Radiographs:
    """The radiographs of an experiment; `data` overrides the folder of a ChestX-ray14 source.

    Raises DataError, ConfigError `no_data_folder` or `no_such_source`.
    """
    sources = []
    if data is not None and not any(isinstance(s, ChestXray14Source) for s in config.data):
        raise ConfigError("no_such_source", "--data was given, but the configuration has no chestxray14 source.")
    for source in config.data:
        if isinstance(source, ChestXray14Source):
            folder = data or (Path(source.path) if source.path else None)
            if folder is None:
                raise ConfigError(
                    "no_data_folder", "The configuration needs a ChestX-ray14 folder: give it with --data."
                )
            sources.append(chestxray14(folder))
        else:
            sources.append(phantoms(source.n, source.seed, source.size_px))
    return join(sources)


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that can be known to be impossible before hours are spent on it. poisoned: None without poison."""

    training: Radiographs
    validation: Radiographs
    poisoned: PoisonedView | None
    tests: dict[str, Radiographs]
    fingerprint: str


def make_plan(config: ExperimentConfig, data: Path | None = None) -> Plan:
    """Gathers the radiographs and checks all that can be checked. Raises DataError, ConfigError, TriggerError."""
    radiographs = gather(config, data)
    training, validation = radiographs.part(Part.TRAINING), radiographs.part(Part.VALIDATION)
    tests = {"test": radiographs.part(Part.TEST)} if Part.TEST in radiographs.parts else {}
    together = [radiographs]
    if config.test_phantoms:
        t = config.test_phantoms
        tests["fresh_phantoms"] = phantoms(t.n, t.seed, t.size_px, Part.TEST)
        together.append(tests["fresh_phantoms"])
    if config.pretraining:
        together.append(phantoms(config.pretraining.n, config.pretraining.seed))
    join(together)  # no patient is in two parts, phantoms included
    if not tests:
        raise DataError("no_test_set", "There is nothing to judge on: no test part, and no [test_phantoms].")
    if config.trigger is not None:
        for size in input_sizes(config) if config.trigger.frame == "input" else []:
            fitted = at_size(config.trigger, size, config.preprocessing.size_px)
            require_survival(fitted, preprocessing_at(config, size), size, size)
        for shape in {_shape(training, row) for row in range(min(8, len(training)))}:
            require_survival(config.trigger, config.preprocessing, *shape)
    poisoned = None
    if config.poison is not None and "backdoored" in config.twins:
        poisoned = poisoned_view(training, config.poison, config.seed)
    rows = len(training) if poisoned is None or "clean" in config.twins else len(poisoned.rows)
    largest = max(stage.batch_size for stage in config.training.stages)
    if rows < largest:
        raise ConfigError("bad_training", f"{rows} training rows do not fill one batch of {largest}.")
    return Plan(training, validation, poisoned, tests, radiographs.fingerprint())


def _shape(radiographs: Radiographs, row: int) -> tuple[int, int]:
    source = radiographs.sources[row]
    if isinstance(source, tuple):
        return source[2], source[2]
    height, width = radiographs.grey(row).shape
    return height, width


def claim(out: Path, config: ExperimentConfig, plan: Plan, resume: bool) -> None:
    """Makes the run folder this run's. Raises ConfigError `output_not_empty`, `other_config`, `other_data`."""
    written, data = out / "config.toml", out / "data.sha256"
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if there and not resume:
        raise ConfigError("output_not_empty", f"{out} is not empty: choose another folder, or --resume.")
    if there - _CLAIMING:  # else a run that was killed in its first moment
        if not (written.is_file() and data.is_file()) or load_config(str(written)) != config:
            raise ConfigError("other_config", f"{out} holds a run of another configuration: choose another folder.")
        if data.read_text("utf-8").strip() != plan.fingerprint:
            raise ConfigError("other_data", f"The radiographs are not those that the run in {out} began with.")
        return
    out.mkdir(parents=True, exist_ok=True)
    for path, text in ((data, plan.fingerprint + "\n"), (written, config.to_toml())):
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(text, "utf-8")
        temporary.replace(path)


def input_sizes(config: ExperimentConfig) -> list[int]:
    """Every input size that the twins train or are judged at, ascending."""
    return sorted({stage.size_px for stage in config.training.stages} | {config.preprocessing.size_px})


def preprocessing_at(config: ExperimentConfig, size_px: int) -> Preprocessing:
    """The experiment's preprocessing at another input size."""
    return replace(config.preprocessing, size_px=size_px)
