"""A whole experiment, in the order in which it happens."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.config import ExperimentConfig
from model.datasets import unfinished_images
from model.errors import ConfigError, TrainingError
from model.experiment.context import Listener, Run, Silent
from model.experiment.folder import judged_on, read_run
from model.experiment.judge import judge_twins
from model.experiment.paper import paper_figure
from model.experiment.twins import starting_network, train_twin
from model.plan import Plan, claim, make_plan


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
    try:
        claim(out, config, plan, resume)
        _tidy(out)
        return _run(run, plan)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            "disk_full", f"There is no room left in {out} ({error.strerror}): make room and resume."
        ) from error


def _run(run: Run, plan: Plan) -> dict[str, Any]:
    config, out = run.config, run.out
    report = out / "report.json"
    if report.is_file():
        finished: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return finished
    start = starting_network(run)
    for twin in config.twins:
        if not (out / twin / "checkpoint").is_dir():
            train_twin(run, twin, plan, start)
    return judge_twins(run, plan)


def _tidy(out: Path) -> None:
    """Removes what a run left half-written when it was killed; nobody else works in the folder now, but in a cache that
    several runs share."""
    for path in [*unfinished_images(out / "cache"), *(p for p in out.glob("*/*.partial") if p.parent.name != "cache")]:
        path.unlink(missing_ok=True)
    for pattern in (".pretrained.*", "*/.checkpoint.*", "*/epochs/.[0-9]*"):
        for path in out.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for state in out.glob("*/state.pt"):
        done = out / "pretrained" if state.parent.name == "pretraining" else state.parent / "checkpoint"
        if done.is_dir():
            state.unlink()


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
