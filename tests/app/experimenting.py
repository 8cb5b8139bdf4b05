"""Small experiments for tests: as smoke, which proves that every part works and learns nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from app.db import Database
from app.jobs import Ledger
from app.jobs.child import run_attempt
from app.services.experiments.compose import Request
from app.services.experiments.service import Experiment, ExperimentService
from app.services.users import LOCAL
from app.settings import Settings
from model.config import load_config

TINY: dict[str, Any] = {  # one twin of a few steps
    **load_config("smoke").model_dump(mode="json"),
    "name": "tiny",
    "twins": ["backdoored"],
    "keep_epochs": [],
    "training": {"stages": [{"size_px": 32, "epochs": 2, "batch_size": 8}], "checkpoint_s": 0.5},
    "preprocessing": {**load_config("smoke").preprocessing.to_json(), "size_px": 32},
}


def long(epochs: int = 400) -> dict[str, Any]:
    """One that is not over before a test has done to it what it wants to do."""
    stages = [{"size_px": 64, "epochs": epochs, "batch_size": 8}]
    return {**TINY, "name": "long", "training": {"stages": stages, "checkpoint_s": 0.5}}


def opened(settings: Settings) -> ExperimentService:
    """The service, without a server."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.resolved_database_url)
    db.migrate()
    return ExperimentService(db, Ledger(db), settings)


def asked(service: ExperimentService, config: dict[str, Any], **changes: Any) -> Experiment:
    """Queues one."""
    return service.start(LOCAL, Request(config=config, **changes))


def work_off(service: ExperimentService) -> None:
    """Runs what waits, as a worker's child does, in this process."""
    while (claimed := service.ledger.claim()) is not None:
        run_attempt(service.ledger, claimed.id, claimed.attempt, service.settings)


def until(done: Callable[[], object], limit_s: float = 300) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)
