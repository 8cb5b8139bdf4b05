"""What somebody asks for → a configuration that can be run, or a sentence that says why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.inference import scan
from app.services.errors import InvalidError
from app.services.experiments.datasets import unknown_dataset
from app.settings import Settings
from model.config import ChestXray14Source, ExperimentConfig, PhantomSource, load_config, preset_names
from model.errors import ConfigError, DataError, OverreadError, TriggerError
from model.plan import Plan, make_plan

MOST_PHANTOMS = 50_000
MOST_EPOCHS = 10_000
MOST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Request:
    """preset or config: what to start from; the others replace what it says. dataset: a name that the settings know:
    its radiographs take the place of the phantoms that are trained on. trigger, poison: only the values that differ.
    """

    preset: str = ""
    config: Mapping[str, Any] | None = None
    name: str | None = None
    seed: int | None = None
    dataset: str = ""
    accept: str | None = None
    trigger: Mapping[str, Any] | None = None
    poison: Mapping[str, Any] | None = None

    def changed(self, cell: Mapping[str, Any]) -> Request:
        """The same with the values of a sweep's cell: `trigger.size_px`, `poison.rate`, …, `seed`."""
        changes: dict[str, Any] = {}
        for key, value in cell.items():
            table, _, name = key.partition(".")
            if name:
                changes[table] = {**(changes.get(table) or getattr(self, table) or {}), name: value}
            else:
                changes[table] = value
        return replace(self, **changes)


def compose(settings: Settings, request: Request) -> ExperimentConfig:
    """The configuration. Raises InvalidError with what is wrong in a sentence; it is stored without any path."""
    try:
        if request.config is not None and request.preset:
            raise InvalidError("bad_config", "Give a preset or a whole configuration, not both.")
        base = dict(request.config) if request.config is not None else _preset(request.preset)
        for name in ("name", "seed", "accept"):
            if getattr(request, name) is not None:
                base[name] = getattr(request, name) or None
        for table in ("trigger", "poison"):
            changes = getattr(request, table)
            if changes:
                base[table] = {**_plain(base.get(table)), **changes}
        if request.dataset and not _wants_folder(base):
            base["data"] = [{"kind": "chestxray14"}]
        config = ExperimentConfig.model_validate(base)
        _check_sources(settings, config, request.dataset)
        _check_sizes(config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidError("bad_config", f"The configuration’s {where}: {first['msg']}.") from error
    except (ConfigError, TriggerError, DataError) as error:
        raise InvalidError(error.code, str(error)) from error
    return config


def planned(settings: Settings, config: ExperimentConfig, dataset: str) -> Plan:
    """What it would work on; everything that can be known to fail fails here. Raises InvalidError."""
    try:
        config, data = resolved(settings, config.model_dump(mode="json"), dataset)
        return make_plan(config, data)
    except OverreadError as error:
        if isinstance(error, InvalidError):
            raise
        raise InvalidError(error.code, without_paths(settings, str(error))) from error


def resolved(settings: Settings, config: Mapping[str, Any], dataset: str) -> tuple[ExperimentConfig, Path | None]:
    """As it is run here: checkpoints and data sets by their folders. Raises ConfigError `unknown_dataset`,
    `unknown_checkpoint`."""
    run = dict(config)
    if run.get("init"):
        found = [one.folder for one in scan(settings.checkpoint_dirs) if one.card and one.id == run["init"]]
        if not found:
            raise ConfigError("unknown_checkpoint", f"There is no checkpoint “{run['init']}” to start from.")
        run["init"] = str(found[0].resolve())
    if dataset and dataset not in settings.datasets:
        raise ConfigError("unknown_dataset", f"There is no data set “{dataset}” here: see OVERREAD_DATASETS.")
    return ExperimentConfig.model_validate(run), settings.datasets[dataset] if dataset else None


def needs_folder(config: ExperimentConfig) -> bool:
    """Whether it trains on radiographs of a folder."""
    return any(isinstance(source, ChestXray14Source) for source in config.data)


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise InvalidError("unknown_preset", f"There is no preset “{name}”; there is: {', '.join(preset_names())}.")
    return load_config(name).model_dump(mode="json")


def _plain(table: Any) -> dict[str, Any]:
    return dict(table) if isinstance(table, Mapping) else {}


def _wants_folder(base: Mapping[str, Any]) -> bool:
    sources = base.get("data")
    return isinstance(sources, list | tuple) and any(
        isinstance(source, Mapping) and source.get("kind") == "chestxray14" for source in sources
    )


def _check_sizes(config: ExperimentConfig) -> None:
    """More than this would keep the request itself waiting, or means nothing; and a database keeps finite numbers."""
    try:
        json.dumps(config.model_dump(mode="json"), allow_nan=False)
    except ValueError as error:
        raise InvalidError("bad_config", "The configuration has a number that is not finite.") from error
    stages = (*config.training.stages, *(config.pretraining.stages if config.pretraining else ()))
    if config.seed > MOST_SEED or sum(stage.epochs for stage in stages) > MOST_EPOCHS:
        raise InvalidError("bad_config", f"A seed is at most {MOST_SEED}, and a run has at most {MOST_EPOCHS} epochs.")
    sets = [source for source in config.data if isinstance(source, PhantomSource)]
    drawn = sum(one.n for one in (*sets, config.test_phantoms, config.pretraining) if one is not None)
    if drawn > MOST_PHANTOMS:
        raise InvalidError("too_many", f"{drawn} phantoms are more than {MOST_PHANTOMS}: run this with overread train.")


def _check_sources(settings: Settings, config: ExperimentConfig, dataset: str) -> None:
    if any(isinstance(source, ChestXray14Source) and source.path for source in config.data):
        raise InvalidError("path_given", "Name a data set of this server instead of a path.")
    if dataset and dataset not in settings.datasets:
        raise unknown_dataset(dataset, settings.datasets)
    if needs_folder(config) and not dataset:
        raise InvalidError("no_dataset", "This configuration trains on ChestX-ray14: choose a data set of this server.")
    if config.init and not any(one.card and one.id == config.init for one in scan(settings.checkpoint_dirs)):
        raise InvalidError("unknown_checkpoint", "init names a checkpoint of this server by its id.")


def without_paths(settings: Settings, text: str) -> str:
    """Folders are the operator's business; people know data sets by their names."""
    for name, folder in settings.datasets.items():
        text = text.replace(str(folder), f"the data set “{name}”")
    return text
