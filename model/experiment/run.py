"""A whole experiment, in the order in which it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.config import ExperimentConfig
from model.errors import ConfigError
from model.experiment.context import Listener, Run, Silent
from model.experiment.folder import judged_on, read_run
from model.experiment.judge import judge_twins
from model.experiment.paper import paper_figure
from model.experiment.twins import starting_network, train_twin
from model.plan import claim, make_plan


def run_experiment(
    config: ExperimentConfig,
    out: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    workers: int = 1,
    listener: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Runs the whole experiment, or what is left of it, and returns the report's JSON.

    A resumed run that has its report already is finished: the report is returned as it is.

    Raises ConfigError `output_not_empty`, `other_config`; DataError; TriggerError `does_not_survive`; TrainingError.
    """
    run = Run(config, out, torch.device(device), workers, listener or Silent(), cancelled)
    plan = make_plan(config, data)
    claim(out, config, plan, resume)
    report = out / "report.json"
    if report.is_file():
        finished: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return finished
    start = starting_network(run)
    for twin in config.twins:
        if not (out / twin / "checkpoint").is_dir():
            train_twin(run, twin, plan, start)
    return judge_twins(run, plan)


def run_seeds(
    config: ExperimentConfig,
    seeds: Sequence[int],
    out: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    workers: int = 1,
    listener: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """The same experiment with each of the seeds, in `out/seed-N`, then in `out` the paper's figures and the hit rates
    over all of them. Returns the JSON of `PaperFigure`; the runs' own reports are in their folders.

    Raises ConfigError `bad_config` without epochs to compare or with a seed given twice; else as `run_experiment`.
    """
    from model.report import write_figure_page  # imported here: `import model` needs no templates

    if len(set(seeds)) < len(seeds):
        raise ConfigError("bad_config", "A seed is given twice: it would count twice.")
    if not config.keep_epochs or set(config.twins) != {"clean", "backdoored"}:
        raise ConfigError("bad_config", "Several seeds are compared at the epochs of keep_epochs, of both twins.")
    told = listener or Silent()
    for seed in seeds:
        told.stage(f"Seed {seed}")
        once = ExperimentConfig.model_validate({**config.model_dump(), "seed": seed})
        run_experiment(
            once,
            out / f"seed-{seed}",
            data=data,
            resume=resume,
            device=device,
            workers=workers,
            listener=told,
            cancelled=cancelled,
        )
    runs = [read_run(out / f"seed-{seed}") for seed in seeds]
    told.stage("Looking for the trigger in the saliency of the kept epochs, over all seeds")
    made = paper_figure(
        runs, judged_on(runs[0], data), out, device=device, workers=workers, progress=told.prepared
    ).to_json()
    write_figure_page(out, made)
    return made
