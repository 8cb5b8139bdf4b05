"""Kills of a worker that trains: `python -m bench.soak_training [--kills 20]`, a part of `make soak`.

The worker is killed with SIGKILL at random moments of an experiment, as a loss of power would. The experiment must end,
nobody's failure may be counted, every kept checkpoint must be whole, and the weights must be those of a run that nobody
interrupted. What is done again after a kill must not be more than what one saved state is behind.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from app.db import Database
from app.jobs import JobState, Ledger
from app.services.experiments.compose import Request
from app.services.experiments.service import Experiment, ExperimentService
from app.services.users import LOCAL
from app.settings import Settings
from bench.soak import worker_process
from model.checkpoint import load_checkpoint
from model.config import ExperimentConfig, load_config
from model.experiment import read_losses, run_experiment

CHECKPOINT_S = 1.0
_EPOCH_STEPS = 9  # of the longer epochs: the state is saved at the end of each, and every CHECKPOINT_S before
_READY_S = 600.0
_BEFORE = ("Preparing", "Training")  # a stage that has trained no step yet


@dataclass(frozen=True)
class TrainingReport:
    """What was counted. kills: all of them; training: those that met a training, the others met something else of the
    run. redone_steps: the most that one kill cost. same_weights: as those of the uninterrupted run.
    """

    kills: int
    training: int
    attempts: int
    failures: int
    finished: bool
    same_weights: bool
    checkpoints: int
    redone_steps: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it is as it must be."""
        return self.finished and self.same_weights and self.failures == 0 and self.redone_steps <= _EPOCH_STEPS


def config(epochs: int) -> dict[str, Any]:
    """Both twins of the smoke preset, longer."""
    smoke = load_config("smoke").model_dump(mode="json")
    stages = [{"size_px": 48, "epochs": epochs, "batch_size": 8}, {"size_px": 64, "epochs": epochs, "batch_size": 8}]
    training = {**smoke["training"], "stages": stages, "checkpoint_s": CHECKPOINT_S}
    return {**smoke, "name": "soak", "training": training, "keep_epochs": [2 * epochs]}


def kill_trainings(settings: Settings, kills: int, epochs: int, longest_s: float, seed: int) -> TrainingReport:
    """longest_s: of the time that an attempt has after it was seen to work."""
    chance, started = random.Random(seed), time.monotonic()
    asked = config(epochs)
    torch.set_num_threads(settings.threads_of_a_training)
    whole = run_experiment(ExperimentConfig.model_validate(asked), settings.data_dir / "whole" / "soak")
    db = Database(settings.resolved_database_url)
    db.migrate()
    service = ExperimentService(db, Ledger(db), settings)
    one = service.start(LOCAL, Request(config=asked))
    done = training = steps = 0
    while done < kills:
        if service.get(one.id).job.state.ended:
            break
        before = service.get(one.id).job.attempt
        with worker_process(settings) as process:
            _wait(service, one, before, training=chance.random() < 0.7)
            time.sleep(chance.random() * longest_s)
            if service.get(one.id).job.state.ended:
                break
            process.kill()
            process.wait()
        done += 1
        behind = _behind(one.run)
        if behind is not None:
            training += 1
            steps = max(steps, behind)
        print(f"kill {done}: {_where(service, one)}; {behind} steps behind", flush=True)
    with worker_process(settings):
        end = time.monotonic() + 10 * _READY_S
        while not service.get(one.id).job.state.ended and time.monotonic() < end:
            time.sleep(0.2)
    job = service.get(one.id).job
    wanted = {twin: figures["weights_sha256"] for twin, figures in whole["twins"].items()}
    kept = [load_checkpoint(card.parent) for card in one.run.rglob("card.json")]
    db.close()
    return TrainingReport(
        kills=done,
        training=training,
        attempts=job.attempt,
        failures=job.failures,
        finished=job.state is JobState.DONE,
        same_weights=(job.result or {}).get("weights") == wanted,
        checkpoints=len(kept),
        redone_steps=steps,
        seconds=round(time.monotonic() - started, 1),
    )


def _wait(service: ExperimentService, one: Experiment, before: int, training: bool) -> None:
    """Until the next attempt works on the run, or it is over. training: until it has trained a step, if it trains."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        now = service.get(one.id)
        if now.job.state.ended:
            return
        live = service.live(now) if now.job.attempt > before and _fresh(now) else None
        if live is not None and (not training or live.step is not None or not live.stage.startswith(_BEFORE)):
            return
        time.sleep(0.1)


def _fresh(one: Experiment) -> bool:
    """Whether the present attempt has written what `live` reads: not the one before."""
    live, begun = one.run.parent / "live.json", one.job.started_at
    return begun is not None and live.is_file() and live.stat().st_mtime > begun.timestamp()


def _behind(run: Path) -> int | None:
    """Steps that the saved state is behind what was trained; None where no twin was in training."""
    for twin in ("clean", "backdoored"):
        state, trace = run / twin / "state.pt", run / twin / "losses.csv"
        if state.is_file() and trace.is_file() and not (run / twin / "checkpoint").is_dir():
            saved = int(torch.load(state, map_location="cpu", weights_only=True)["step"])
            reached = max((step for step, _ in read_losses(trace)), default=0)
            return max(0, reached - saved)
    return None


def _where(service: ExperimentService, one: Experiment) -> str:
    live = service.live(service.get(one.id))
    if live is None:
        return "between two attempts"
    return live.stage + (f", step {live.step} of {live.steps}" if live.step else "")


def main() -> None:
    """Prints the report, and fails where it is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10, help="of each of the two stages")
    parser.add_argument("--longest-s", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overread-soak-") as folder:
        settings = Settings(data_dir=Path(folder), device="cpu", database_url="")
        report = kill_trainings(settings, given.kills, given.epochs, given.longest_s, given.seed)
    print(json.dumps(asdict(report)))
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
