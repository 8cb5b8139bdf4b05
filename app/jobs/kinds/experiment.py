"""An experiment in the background: what `overread train` runs, in a folder of its own, with few threads.

Where it goes on from is the run folder itself: the twins' saved states. What was done within the last saved state is
done again, with the same random numbers, so that the weights are those of a run that nobody interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from app.jobs.context import Context, JobCancelled, JobFailed
from app.services.errors import BusyError
from app.services.experiments.compose import resolved
from app.services.experiments.places import live_file, place_of
from app.services.experiments.results import headline
from app.services.experiments.watch import live
from model.errors import ConfigError, DataError, OverreadError, TrainingError, TriggerError
from model.experiment import Phase, phases, run_experiment
from model.network import resolve_device
from model.plan import make_plan
from model.training import Progress

KIND = "experiment"
_ALONE_S = 20.0  # for the attempt before to leave the folder
_TELL_S = 1.0
_ENOUGH_S = 3.0  # of a kind of work, before its pace is believed for the time left
_TELLING_S = 20.0  # of the reference's work, before its pace is believed for other runs


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: experiment (its id), config, dataset (a name, or empty), threads, pace (kind of work → factor).

    Result: weights (twin → SHA-256), tests (`results.headline`), seconds, pace (of what the last attempt did itself).
    Raises JobFailed for what the next attempt would meet again: a full disk, a configuration that cannot work.
    """
    torch.set_num_threads(int(spec["threads"]))
    home = place_of(ctx.settings, spec["experiment"])
    with _alone(home, ctx):
        try:
            config, data = resolved(ctx.settings, spec["config"], spec["dataset"])
            resumed = (home / config.name / "config.toml").is_file()
            teller = _Teller(ctx, home, phases(config, make_plan(config, data)), spec.get("pace") or {}, resumed)
            report = run_experiment(
                config,
                home / config.name,
                data=data,
                resume=True,
                device=resolve_device(ctx.settings.device),
                workers=int(spec["threads"]),
                listener=teller,
                cancelled=ctx.cancelled,
            )
        except TrainingError as error:
            if error.code == "cancelled":
                raise JobCancelled from error
            raise _failed(error, home) from error
        except (ConfigError, DataError, TriggerError) as error:
            raise _failed(error, home) from error
    teller.end()
    return {**headline(report), "pace": teller.pace()}


def _failed(error: OverreadError, home: Path) -> JobFailed:
    """For people who know runs by their pages, not by their folders."""
    return JobFailed(error.code, str(error).replace(str(home), "the run's folder"))


@contextmanager
def _alone(home: Path, ctx: Context) -> Iterator[None]:
    """Keeps the folder to this process. Raises BusyError `still_there` where the attempt before does not leave."""
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + _ALONE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if ctx.cancelled():
                    raise JobCancelled from None
                if time.monotonic() > end:
                    raise BusyError("still_there", "Another process still works in the run's folder.") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


class _Teller:
    """A listener that tells the ledger, and `live.json` for those who look closely.

    The pace is that of what this attempt did itself: what an earlier one left, cached images say, takes no time now.
    """

    def __init__(self, ctx: Context, home: Path, phases: list[Phase], pace: Mapping[str, float], resumed: bool) -> None:
        self._ctx, self._path, self._phases = ctx, live_file(home), phases
        self._pace = dict(pace)
        self._names = [phase.name for phase in phases]
        self._reached = self._reached_before(home) if resumed else -1
        self._now = -1
        self._share = 0.0
        self._begun = self._told_at = time.monotonic()
        self._spent: dict[str, float] = {}
        self._worth: dict[str, float] = {}
        self._training: Progress | None = None

    def stage(self, name: str) -> None:
        self._close()
        self._now = self._names.index(name) if name in self._names else self._now
        self._share, self._training, self._begun = 0.0, None, time.monotonic()
        self._tell()

    def prepared(self, done: int, total: int) -> None:
        self._share = done / max(1, total)
        self._tell(after_s=_TELL_S)

    def trained(self, progress: Progress) -> None:
        self._share, self._training = progress.step / progress.steps, progress
        self._tell(after_s=_TELL_S)

    def epoch(self, record: dict[str, Any]) -> None:
        self._ctx.checkpoint({"stage": self._name, "epoch": record["epoch"]})
        self._tell()

    def end(self) -> None:
        """Nothing more comes."""
        self._close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def pace(self) -> dict[str, float]:
        """Seconds for one of the reference, by kind of work; of what was too little to tell, nothing. After `end`."""
        enough = [kind for kind, worth in self._worth.items() if worth >= _TELLING_S]
        return {kind: round(self._spent[kind] / self._worth[kind], 3) for kind in enough}

    @property
    def _name(self) -> str:
        return self._names[self._now] if self._now >= 0 else ""

    def _reached_before(self, home: Path) -> int:
        """The phase in which the attempt before was interrupted, the last one where nothing says which."""
        before = live(home)
        known = before is not None and before.stage in self._names
        return self._names.index(before.stage) if before and known else len(self._names) - 1

    def _close(self) -> None:
        """The present phase is over."""
        if self._now < 0:
            return
        kind = self._phases[self._now].kind
        spent, worth = self._here(over=True)
        self._spent[kind] = self._spent.get(kind, 0.0) + spent
        self._worth[kind] = self._worth.get(kind, 0.0) + worth

    def _here(self, over: bool = False) -> tuple[float, float]:
        """Seconds that the present phase has taken, and what they would have been on the reference; (0, 0) where that
        cannot be said: of a training it always can, of the others once they are over, if no attempt was in them before.
        """
        phase, seconds = self._phases[self._now], time.monotonic() - self._begun
        if phase.kind == "train":
            worked = self._training.worked if self._training else 0.0
            return (seconds, phase.reference_s * worked) if worked else (0.0, 0.0)
        return (seconds, phase.reference_s) if over and self._now > self._reached else (0.0, 0.0)

    def _factors(self) -> dict[str, float]:
        """Seconds for one of the reference: as far as this attempt tells it, else as runs before have."""
        factors = dict(self._pace)
        here, (seconds, reference) = self._phases[self._now].kind, self._here()
        for kind in {*self._spent, here}:
            spent = self._spent.get(kind, 0.0) + (seconds if kind == here else 0.0)
            worth = self._worth.get(kind, 0.0) + (reference if kind == here else 0.0)
            if spent > _ENOUGH_S and worth > 0:
                factors[kind] = spent / worth
        return factors

    def _tell(self, after_s: float = 0.0) -> None:
        moment = time.monotonic()
        if moment - self._told_at < after_s or self._now < 0:
            return
        self._told_at = moment
        factors = self._factors()
        each = [phase.reference_s * factors.get(phase.kind, 1.0) for phase in self._phases]
        here = each[self._now]
        left = self._training.eta_s if self._training else here * (1 - self._share)
        if not self._training and self._share > 0.1:
            left = (moment - self._begun) / self._share * (1 - self._share)
        left += sum(each[self._now + 1 :])
        done = sum(each[: self._now]) + self._share * here
        share = done / max(sum(each), 1e-9)
        at = self._training
        epoch = f", epoch {at.epoch} of {at.epochs}" if at else ""
        self._ctx.report(int(100 * share), 100, f"% · {self._name}{epoch}")
        self._write(
            {
                "stage": self._name,
                "share": round(share, 4),
                "left_s": round(left, 1),
                "epoch": at.epoch if at else None,
                "epochs": at.epochs if at else None,
                "step": at.step if at else None,
                "steps": at.steps if at else None,
                "loss": round(at.loss, 5) if at else None,
                "images_per_s": round(at.images_per_s, 2) if at else None,
            }
        )

    def _write(self, told: dict[str, Any]) -> None:
        """For people alone: what goes wrong here is no failure of the run."""
        temporary = self._path.with_suffix(".partial")
        with suppress(OSError):
            temporary.write_text(json.dumps(told), "utf-8")
            temporary.replace(self._path)
