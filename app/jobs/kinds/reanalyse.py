"""Reading again what the present pair has not read: after the pair, its weights or the code have changed.

The job loads the checkpoints itself, in its own process at low priority and with one thread: the server's engine
belongs to the people who wait for an answer, and the ledger must be worked off also where no server runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch

from app.db import Database
from app.inference import InferenceEngine
from app.jobs.analysing import analysing
from app.jobs.context import Context, JobCancelled
from app.jobs.kinds import examine
from app.jobs.ledger import Job, Ledger, new_sweep
from app.services.errors import BusyError, passes
from app.services.unread import readers, unread
from model.errors import OverreadError

KIND = "reanalyse"
ROWS = 256
STEP = 8


def request(ledger: Ledger, engine: InferenceEngine, pair: tuple[str, str], *, seen: bool | None = None) -> list[Job]:
    """Queues what is on the worklist and not read by the pair as it is now, in jobs of 256; none when all is read.

    seen: as for `unread`. What waits or runs already is not queued twice, and its jobs are given back with the others.
    """
    by = readers(engine, pair)
    fingerprints = list(by.values())
    jobs = [job for job in ledger.active(KIND) if job.spec.get("fingerprints") == fingerprints]
    queued = {instance for job in jobs for instance in job.spec["instances"]}
    left = unread(ledger.db, fingerprints, seen=seen, without=queued)
    sweep = new_sweep()
    for start in range(0, len(left), ROWS):
        rows = left[start : start + ROWS]
        spec = {"checkpoints": list(by), "fingerprints": fingerprints, "instances": rows}
        key = f"{KIND}:" + hashlib.sha256("\n".join([*fingerprints, *rows]).encode()).hexdigest()
        jobs.append(ledger.enqueue(KIND, spec, unique_key=key, sweep_id=sweep))
    return jobs


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: checkpoints, instances (ids); fingerprints, for `request`. Result: read, refused (instance → why).

    Raises BusyError `not_all_read` for what the machine had trouble with, twice: the next attempt reads it.
    """
    torch.set_num_threads(1)
    instances: list[str] = list(spec["instances"])
    state: dict[str, Any] = {"next": 0, "refused": {}, "later": {}, **(ctx.resumed or {})}
    with (
        closing(Database(ctx.settings.resolved_database_url)) as db,
        analysing(ctx.settings, db, spec["checkpoints"]) as service,
    ):
        for checkpoint_id in spec["checkpoints"]:
            service.engine.require(checkpoint_id)
        refused: dict[str, str] = dict(state["refused"])
        later: dict[str, str] = dict(state["later"])

        def read(instance: str) -> None:
            if ctx.cancelled():
                raise JobCancelled
            later.pop(instance, None)
            try:
                service.analyse(instance, spec["checkpoints"])
            except OverreadError as error:  # of this radiograph alone: the others go on
                (later if passes(error) else refused)[instance] = str(error)

        for position in range(state["next"], len(instances)):
            ctx.report(position, len(instances), "radiographs")
            read(instances[position])
            if (position + 1) % STEP == 0:
                ctx.checkpoint({"next": position + 1, "refused": refused, "later": later})
        for instance in list(later):
            read(instance)
        if later:
            ctx.checkpoint({"next": len(instances), "refused": refused, "later": later})
            why = next(iter(later.values()))
            raise BusyError("not_all_read", f"{len(later)} of {len(instances)} could not be read for now: {why}")
        ctx.report(len(instances), len(instances), "radiographs")
        examine.request_waiting(Ledger(db), readers(service.engine, service.pair).values())
        return {"read": len(instances) - len(refused), "refused": refused}
