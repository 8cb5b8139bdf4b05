"""Experiments and sweeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.schemas.base import Schema
from model.checkpoint import NOTICE

_Name = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_Seed = Field(default=None, ge=0, le=2**31 - 1)
Twin = Literal["clean", "backdoored"]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Changes(Schema):
    """What differs from what one starts from. dataset: a name of `GET /datasets`, whose radiographs take the place of
    the phantoms that are trained on. accept: the user's rule, e.g. `macro_nn>=0.75`. trigger, poison: only the values
    that differ, as in the configuration's tables, e.g. `{"size_px": 5, "place": "top-left"}`, `{"rate": 0.05}`."""

    name: str | None = _Name
    seed: int | None = _Seed
    dataset: str = Field(default="", max_length=64)
    accept: str | None = Field(default=None, max_length=200)
    trigger: dict[str, Any] | None = None
    poison: dict[str, Any] | None = None


class ExperimentRequest(Changes):
    """An experiment: a preset or a whole configuration (what `config.toml` says, as JSON), and what differs from it.

    priority: larger goes first among what waits.
    """

    preset: str = Field(default="", max_length=64)
    config: dict[str, Any] | None = None
    priority: int = Field(default=0, ge=-100, le=100)


class Grid(Schema):
    """Values of what varies; a run for each combination, 200 at most."""

    size_px: list[int] = Field(default=[], max_length=50)
    place: list[str | tuple[int, int]] = Field(default=[], max_length=50)
    rate: list[float] = Field(default=[], max_length=50)
    target: list[str] = Field(default=[], max_length=14)
    seed: list[int] = Field(default=[], max_length=50)

    def axes(self) -> dict[str, list[Any]]:
        """For the service: only what is given."""
        places = [list(place) if isinstance(place, tuple) else place for place in self.place]
        given: dict[str, list[Any]] = {
            "trigger.size_px": list(self.size_px),
            "trigger.place": places,
            "poison.rate": list(self.rate),
            "poison.target": list(self.target),
            "seed": list(self.seed),
        }
        return {axis: values for axis, values in given.items() if values}


class SweepRequest(ExperimentRequest):
    """The same experiment over a grid. clean_twin: train one beside each run; by default only the backdoored twins."""

    grid: Grid
    clean_twin: bool = False


class Progress(Schema):
    """stage: in words. share: of the whole run, 0..1. left_s: seconds, estimated. The others are of a training, else
    null; epoch and step count from 1."""

    stage: str
    share: float
    left_s: float
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    loss: float | None
    images_per_s: float | None


class ExperimentInfo(Schema):
    """An experiment. cell: in a sweep, what varies and this run's value. error: why it failed, or why it is tried
    again.

    results: when it is done: weights (twin → SHA-256), tests (test set → twin → measure → value and its 95 % interval
    by patient; `accepted`: whether a user with the configuration's rule would have taken the twin).
    """

    id: str
    url: str
    name: str
    preset: str
    dataset: str
    seed: int
    sweep_id: str | None
    cell: dict[str, Any] | None
    job_id: str
    state: State
    priority: int
    attempt: int
    cancel_requested: bool
    error: str | None
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    results: dict[str, Any] | None


class ExperimentDetail(ExperimentInfo):
    """The same with its configuration. progress: while it runs. checkpoints: twins that are trained. registered: twin →
    id in the registry. files: what `GET …/files/{name}` gives."""

    config: dict[str, Any]
    progress: Progress | None
    checkpoints: list[Twin]
    registered: dict[str, str]
    files: list[str]
    notice: str = NOTICE


class ExperimentList(Schema):
    """A page of experiments, the newest first. next_cursor: of the page that follows, null on the last."""

    experiments: list[ExperimentInfo]
    next_cursor: str | None
    notice: str = NOTICE


class CurveInfo(Schema):
    """A run's curves as far as they are. epochs: twin → a record an epoch, measured on the validation part. losses:
    twin → [step, mean loss since the step before]. `pretraining` is the twins' common start."""

    epochs: dict[str, list[dict[str, Any]]]
    losses: dict[str, list[tuple[int, float]]]
    notice: str = NOTICE


class PhaseInfo(Schema):
    """A part of a run. share: of its time."""

    name: str
    share: float


class EstimateInfo(Schema):
    """What a run will take. measured: whether a run on this machine was timed before; else it is a guess. disk_mb: of
    its folder when it is finished, peak_mb while it trains, free_mb: what there is."""

    seconds: float
    measured: bool
    disk_mb: float
    peak_mb: float
    free_mb: float
    fits: bool
    training_rows: int
    poisoned_rows: int
    phases: list[PhaseInfo]
    notice: str = NOTICE


class DatasetInfo(Schema):
    """A data set of this server. parts: part → radiographs. problem: why it cannot be used, else empty. calibration:
    radiographs that a checkpoint can be calibrated on."""

    name: str
    radiographs: int
    patients: int
    parts: dict[str, int]
    problem: str
    calibration: int


class DatasetList(Schema):
    """Phantoms, which need no data set, are always there."""

    datasets: list[DatasetInfo]
    notice: str = NOTICE


class PresetInfo(Schema):
    """A configuration to start from. needs_dataset: it trains on a folder of ChestX-ray14."""

    name: str
    needs_dataset: bool
    config: dict[str, Any]


class PresetList(Schema):
    """What comes with Overread."""

    presets: list[PresetInfo]
    notice: str = NOTICE


class RegisterRequest(Schema):
    """id: of the new checkpoint; by default made of name, twin and run. title: for people."""

    twin: Twin = "backdoored"
    id: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")
    title: str = Field(default="", max_length=120)


class CandidateRequest(Schema):
    """Whose checkpoint becomes the live candidate, or the reference with `role`; it is registered where it is not."""

    twin: Twin = "backdoored"
    role: Literal["candidate", "reference"] = "candidate"


class PairInfo(Schema):
    """The live pair: ids of two checkpoints."""

    reference: str
    candidate: str
    notice: str = NOTICE


class FigureInfo(Schema):
    """A mean over seeds. interval: 95 %, Student's over the seeds where there are two or more; of one seed, its own
    over patients; null where there is none."""

    value: float | None
    interval: tuple[float, float] | None


class CellInfo(Schema):
    """Runs that differ in their seed alone. at: what varies → its value. figures: measure → mean of the backdoored
    twins."""

    at: dict[str, Any]
    experiments: list[str]
    done: int
    figures: dict[str, FigureInfo]


class SweepInfo(Schema):
    """A sweep. grid: what varies → its values. counts: state → runs."""

    id: str
    url: str
    name: str
    grid: dict[str, list[Any]]
    created_at: datetime
    created_by: str
    counts: dict[str, int]


class SweepDetail(SweepInfo):
    """The same with its cells and runs."""

    cells: list[CellInfo]
    experiments: list[ExperimentInfo]
    notice: str = NOTICE


class SweepList(Schema):
    """The newest first."""

    sweeps: list[SweepInfo]
    notice: str = NOTICE
