"""A whole experiment, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.config import ExperimentConfig
from model.experiment.context import Listener, Run, Silent
from model.experiment.judge import judge_twins
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

    Raises ConfigError `output_not_empty`, `other_config`; DataError; TriggerError `does_not_survive`; TrainingError.
    """
    run = Run(config, out, torch.device(device), workers, listener or Silent(), cancelled)
    plan = make_plan(config, data)
    claim(out, config, plan, resume)
    start = starting_network(run)
    for twin in config.twins:
        if not (out / twin / "checkpoint").is_dir():
            train_twin(run, twin, plan, start)
    return judge_twins(run, plan)
