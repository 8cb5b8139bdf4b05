"""What a run will do, phase by phase, and how long that takes: known before it begins.

A phase's name is what `Listener.stage` is told when it begins. Its seconds are those of a reference machine, one core
with one thread; a machine is faster or slower by a factor for each kind of work, which a run measures as it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from model.config import ExperimentConfig
from model.datasets import VALIDATION_SHARE, Radiographs
from model.experiment.curve import read_at_most
from model.plan import Plan, input_sizes
from model.training import Stage

Kind = Literal["prepare", "train", "read"]
KINDS: tuple[Kind, ...] = ("prepare", "train", "read")
_TRAIN_S = 4.3  # for a million pixels of input: forwards, backwards, AdamW
_READ_S = 1.25  # forwards
_EXPLAIN_S = 2.0  # forwards, with both layers' maps of one finding
_DRAW_S = 0.008  # for a phantom, and for each million of its pixels:
_DRAW_MPX_S = 0.105
_DECODE_S = 0.035  # for a file of ChestX-ray14, 1024×1024
_FIGURE_S = 6.0
_CHECKPOINT_MB = 15.0
_STATE_MB = 86.0
_PRETRAINED_MB = 29.0


@dataclass(frozen=True)
class Phase:
    """name: as the listener is told. reference_s: on the reference machine."""

    name: str
    kind: Kind
    reference_s: float


@dataclass(frozen=True)
class Estimate:
    """seconds: of the whole run. disk_mb: of its folder when it is finished; peak_mb: while it trains."""

    seconds: float
    disk_mb: float
    peak_mb: float
    phases: tuple[Phase, ...]


def drawing(n: int) -> str:
    return f"Drawing {n} phantoms to pretrain on"


def pretraining() -> str:
    return "Pretraining on phantoms"


def preparing(twin: str) -> str:
    return f"Preparing the images of the {twin} twin"


def training_of(twin: str) -> str:
    return f"Training the {twin} twin"


def evaluating(twin: str, n: int, name: str) -> str:
    return f"Evaluating the {twin} twin on {n} radiographs ({name})"


def looking(name: str) -> str:
    return f"Looking for the trigger in the saliency of the kept epochs ({name})"


def estimate(config: ExperimentConfig, plan: Plan, pace: Mapping[str, float] | None = None) -> Estimate:
    """What the run will take. pace: of this machine, kind → seconds for one of the reference; 1 where it says nothing.

    Within about a third where the pace was measured by a run before; a guess where it was not.
    """
    work = phases(config, plan)
    factors = pace or {}
    seconds = sum(phase.reference_s * factors.get(phase.kind, 1.0) for phase in work)
    images, kept = _images_mb(config, plan), len(config.keep_epochs) + 1
    disk = images + len(config.twins) * kept * _CHECKPOINT_MB + (_PRETRAINED_MB if config.pretraining else 0)
    return Estimate(seconds, disk + 1, disk + 1 + 2 * _STATE_MB, tuple(work))


def phases(config: ExperimentConfig, plan: Plan) -> list[Phase]:
    """In their order; those of a run that is resumed and has them behind it included."""
    found: list[Phase] = []
    training, validation = plan.training, plan.validation
    if config.pretraining:
        p = config.pretraining
        seen = round(p.n * (1 - VALIDATION_SHARE))
        found.append(Phase(drawing(p.n), "prepare", p.n * _draw_s(p.size_px)))
        curve = _curve_s(p.stages, seen, p.n - seen, False)
        found.append(Phase(pretraining(), "train", _train_s(p.stages, seen) + curve))
    source = config.trigger is not None and config.trigger.frame == "source"
    stages, sizes = config.training.stages, input_sizes(config)
    for place, twin in enumerate(config.twins):
        seconds = 0.0
        if place == 0:
            seconds += _sources_s(training) + _sources_s(validation) * (1 + len(sizes) * (config.trigger is not None))
        if twin == "backdoored" and source:
            seconds += _sources_s(training) * len(sizes)
        found.append(Phase(preparing(twin), "prepare", seconds + 0.5))
        rows = len(plan.poisoned.rows) if twin == "backdoored" and plan.poisoned else len(training)
        curve = _curve_s(stages, rows, len(validation), config.trigger is not None)
        found.append(Phase(training_of(twin), "train", _train_s(stages, rows) + curve + 1))
    side = config.preprocessing.size_px
    for twin in config.twins:
        for name, test in plan.tests.items():
            times = 2 if config.trigger is not None else 1
            seconds = times * (_sources_s(test) + len(test) * side**2 / 1e6 * _EXPLAIN_S) + 2
            found.append(Phase(evaluating(twin, len(test), name), "read", seconds))
    if config.keep_epochs and set(config.twins) == {"clean", "backdoored"}:
        name, test = next(iter(plan.tests.items()))
        kept = len(config.keep_epochs)
        seconds = kept * 4 * len(test) * side**2 / 1e6 * _EXPLAIN_S + 2 * len(sizes) * _sources_s(test) + _FIGURE_S
        found.append(Phase(looking(name), "read", seconds))
    return found


def _draw_s(size_px: int) -> float:
    return _DRAW_S + _DRAW_MPX_S * size_px**2 / 1e6


def _sources_s(radiographs: Radiographs) -> float:
    """To have the pixels of each once."""
    return sum(_draw_s(source[2]) if isinstance(source, tuple) else _DECODE_S for source in radiographs.sources)


def _train_s(stages: Sequence[Stage], rows: int) -> float:
    return sum(s.epochs * (rows // s.batch_size) * s.batch_size * s.size_px**2 for s in stages) / 1e6 * _TRAIN_S


def _curve_s(stages: Sequence[Stage], rows: int, held: int, stamped: bool) -> float:
    """What the epochs' figures on the validation part take."""
    n = min(held, read_at_most(rows))
    each = _READ_S + (_EXPLAIN_S if stamped else 0)
    return sum(s.epochs * n * s.size_px**2 for s in stages) / 1e6 * each


def _images_mb(config: ExperimentConfig, plan: Plan) -> float:
    """The cache of decoded inputs."""
    area = sum(size**2 for size in input_sizes(config))
    stamped = config.trigger is not None
    pixels = (len(plan.training) + len(plan.validation) * (1 + stamped)) * area
    if config.trigger is not None and config.trigger.frame == "source":
        pixels += len(plan.training) * area
    if config.pretraining:
        pixels += config.pretraining.n * sum({s.size_px**2 for s in config.pretraining.stages})
    if config.keep_epochs and plan.tests:
        pixels += 2 * len(next(iter(plan.tests.values()))) * area
    return pixels / 1e6
