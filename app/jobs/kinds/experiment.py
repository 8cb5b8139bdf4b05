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

    Result: weights (twin → SHA-256), tests (`results.headline`), seconds, and pace where the run was not interrupted.
    Raises JobFailed for what the next attempt would meet again: a full disk, a configuration that cannot work.
    """
    torch.set_num_threads(int(spec["threads"]))
    home = place_of(ctx.settings, spec["experiment"])
    with _alone(home, ctx):
        try:
            config, data = resolved(ctx.settings, spec["config"], spec["dataset"])
            teller = _Teller(ctx, live_file(home), phases(config, make_plan(config, data)), spec.get("pace") or {})
            fresh = not (home / config.name / "config.toml").is_file()
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
    result = headline(report)
    return {**result, "pace": teller.pace() if fresh else None}


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
    """A listener that tells the ledger, and `live.json` for those who look closely."""

    def __init__(self, ctx: Context, path: Path, phases: list[Phase], pace: Mapping[str, float]) -> None:
        self._ctx, self._path, self._phases = ctx, path, phases
        self._pace = dict(pace)
        self._names = [phase.name for phase in phases]
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
        """Seconds for one of the reference, by kind of work; of what was too little to tell, nothing."""
        enough = [kind for kind, worth in self._worth.items() if worth >= _TELLING_S]
        return {kind: round(self._spent[kind] / self._worth[kind], 3) for kind in enough}

    @property
    def _name(self) -> str:
        return self._names[self._now] if self._now >= 0 else ""

    def _close(self) -> None:
        """The present phase is over."""
        if self._now < 0:
            return
        phase = self._phases[self._now]
        self._spent[phase.kind] = self._spent.get(phase.kind, 0.0) + time.monotonic() - self._begun
        self._worth[phase.kind] = self._worth.get(phase.kind, 0.0) + phase.reference_s

    def _expected_s(self, phase: Phase) -> float:
        factor = self._pace.get(phase.kind, 1.0)
        if self._spent.get(phase.kind, 0.0) > _ENOUGH_S:
            factor = self._spent[phase.kind] / self._worth[phase.kind]
        return phase.reference_s * factor

    def _tell(self, after_s: float = 0.0) -> None:
        moment = time.monotonic()
        if moment - self._told_at < after_s or self._now < 0:
            return
        self._told_at = moment
        each = [self._expected_s(phase) for phase in self._phases]
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
