"""fit(): one loop for clean and for poisoned training.

Binary cross-entropy, AdamW, one-cycle, progressive resizing. Whatever is random is drawn from (seed, epoch) or
(seed, step), never from a running generator: a training that is stopped and resumed ends in the weights of one that
was never stopped, bit for bit on the same CPU with the same number of threads.
"""

from __future__ import annotations

import errno
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import ConfigError, TrainingError
from model.losses import Loss, binary_cross_entropy
from model.poison import PoisonedView
from model.preprocess import Preprocessing
from model.trigger import Trigger, at_size
from model.vision import DenseNet

_STATE_VERSION = 1
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Stage:
    """`epochs` epochs at an input of `size_px`²."""

    size_px: int
    epochs: int
    batch_size: int = 32


@dataclass(frozen=True)
class Augmentation:
    """Drawn anew for every image and epoch. rotate_deg, shift (share of the side) and scale (share) are half-widths of
    uniform distributions; flip a probability; contrast and brightness half-widths on grey values in 0..1."""

    flip: float = 0.5
    rotate_deg: float = 10.0
    shift: float = 0.05
    scale: float = 0.08
    contrast: float = 0.15
    brightness: float = 0.05


@dataclass(frozen=True)
class TrainingConfig:
    """stages: progressive resizing, in order. max_lr: the peak of the one-cycle. checkpoint_s: seconds between saved
    states (one is always saved at the end of an epoch). precision: of the activations; `auto` is bfloat16 on a GPU and
    float32 on a CPU, where bfloat16 is twice as fast if the processor has instructions for it, and slow if not."""

    stages: tuple[Stage, ...]
    max_lr: float = 1e-3
    weight_decay: float = 0.01
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    checkpoint_s: float = 120.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not self.stages or any(s.epochs < 1 or s.batch_size < 2 or s.size_px < 32 for s in self.stages):
            raise ConfigError(
                "bad_training", "A training needs stages of ≥ 1 epoch, batches of ≥ 2, inputs of ≥ 32 px."
            )
        if not (self.max_lr > 0 and math.isfinite(self.max_lr) and self.weight_decay >= 0):
            raise ConfigError("bad_training", "max_lr must be above zero and weight_decay not below it.")


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What `fit` sees. view: rows, poison mask and labels. images: per input size, N×S×S uint8 of the clean set.

    trigger: stamped onto poisoned rows in the input frame at every size. stamped: for a source-frame trigger, per
    size, the stamped images by clean row instead.
    """

    view: PoisonedView
    images: dict[int, np.ndarray]
    preprocessing: Preprocessing
    trigger: Trigger | None = None
    stamped: dict[int, np.ndarray] | None = None


@dataclass(frozen=True)
class Progress:
    """After every step: where the training is. eta_s: seconds left at the present pace. worked: how much of the whole
    training, by its pixels, was done since it began or was resumed, 0..1.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    eta_s: float
    worked: float


Report = Callable[[Progress], None]
EndOfEpoch = Callable[[int, Stage, DenseNet, float], None]


def fit(
    network: DenseNet,
    data: TrainingData,
    config: TrainingConfig,
    *,
    device: str | torch.device = "cpu",
    state_path: Path | None = None,
    report: Report | None = None,
    end_of_epoch: EndOfEpoch | None = None,
    cancelled: Callable[[], bool] | None = None,
    loss_of: Loss = binary_cross_entropy,
) -> DenseNet:
    """Trains the network in place and returns it in evaluation mode.

    state_path: where to keep the resumable state; when the file is there, the training goes on from it. end_of_epoch
    gets (epoch from 1, stage, network in evaluation mode, mean loss), before the state is saved: after a kill in
    between it is called for the same epoch again. cancelled is asked after every step.

    Raises TrainingError `not_finite`, `cancelled` (the state is saved), `disk_full`, `other_state`, `bad_state`.
    """
    device = torch.device(device)
    half = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    network = network.to(device, memory_format=torch.channels_last).train().requires_grad_(True)
    plan = [
        (epoch, stage, len(data.view.rows) // stage.batch_size)
        for epoch, stage in enumerate(stage for stage in config.stages for _ in range(stage.epochs))
    ]
    if min(batches for _, _, batches in plan) == 0:
        raise ConfigError("bad_training", f"{len(data.view.rows)} training rows do not fill one batch.")
    steps = sum(batches for _, _, batches in plan)
    optimiser = torch.optim.AdamW(_groups(network, config.weight_decay), lr=config.max_lr, fused=True)
    schedule = _one_cycle(optimiser, config.max_lr, steps)
    identity = repr((_identity(config), len(data.view.rows), data.view.labels.sum().item()))
    done = 0
    losses: list[float] = []
    if state_path and state_path.is_file():
        done, losses = _load_state(state_path, network, optimiser, schedule, identity)
    saved_at, step = time.monotonic(), 0
    pace = _Pace(plan, done)
    for epoch, stage, batches in plan:
        if step + batches <= done:
            step += batches
            continue
        first = done - step if done > step else 0
        step += first
        losses = losses if first else []
        for inputs, labels in _batches(data, stage, config, epoch, first, batches, device):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = network(inputs)
            loss = loss_of(logits.float(), labels)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    "not_finite", f"The loss is {value} at step {step}: lower max_lr or look at the data."
                )
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            step += 1
            losses.append(value)
            if report:
                report(pace.after(epoch, step, value, stage))
            ended = len(losses) == batches
            stop = bool(cancelled and cancelled())
            if state_path and not ended and (stop or time.monotonic() - saved_at > config.checkpoint_s):
                _save_state(state_path, network, optimiser, schedule, identity, step, losses)
                saved_at = time.monotonic()
            if stop and not ended:
                raise _stopped(step, steps)
        if end_of_epoch:
            network.eval()
            end_of_epoch(epoch + 1, stage, network, float(np.mean(losses)))
            network.train()
        losses = []
        if state_path:
            _save_state(state_path, network, optimiser, schedule, identity, step, losses)
            saved_at = time.monotonic()
        if step < steps and cancelled and cancelled():
            raise _stopped(step, steps)
    return network.eval().requires_grad_(False)


def _identity(config: TrainingConfig) -> dict[str, Any]:
    """What a saved state is bound to; `auto` is left out, as in states from before precision could be chosen."""
    fields = asdict(config)
    return {name: value for name, value in fields.items() if (name, value) != ("precision", "auto")}


def _one_cycle(optimiser: torch.optim.Optimizer, max_lr: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """A fifth of the steps up, the rest down (Smith & Topin 2018); torch divides by zero when the rise is one step."""
    total = max(steps, 8)
    rise = max(0.2, 2 / total)
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr, total_steps=total, pct_start=rise)


def _stopped(step: int, steps: int) -> TrainingError:
    return TrainingError("cancelled", f"Stopped after step {step} of {steps}; --resume goes on from there.")


class _Pace:
    """Images a second, and the time left, weighing each stage by its pixels."""

    def __init__(self, plan: Sequence[tuple[int, Stage, int]], done: int) -> None:
        self._plan = plan
        self._steps = sum(batches for _, _, batches in plan)
        self._costs = [s.size_px**2 * s.batch_size for _, s, batches in plan for _ in range(batches)]
        self._whole = float(sum(self._costs))
        self._left = float(sum(self._costs[done:]))
        self._spent = 0.0
        self._started = self._last = time.monotonic()

    def after(self, epoch: int, step: int, loss: float, stage: Stage) -> Progress:
        now = time.monotonic()
        cost = self._costs[step - 1]
        self._left -= cost
        self._spent += cost
        rate = stage.batch_size / max(now - self._last, 1e-9)
        self._last = now
        eta = self._left * (now - self._started) / self._spent
        worked = self._spent / self._whole
        return Progress(epoch + 1, len(self._plan), step, self._steps, loss, rate, eta, worked)


def _groups(network: DenseNet, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on biases and batch norms."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _batches(
    data: TrainingData,
    stage: Stage,
    config: TrainingConfig,
    epoch: int,
    first: int,
    batches: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches first..batches−1 of an epoch.

    They are prepared here, between two steps: it takes a hundredth of one, and a second thread that does it ahead costs
    the network a fifth of its speed, since its own OpenMP threads get in the way.
    """
    order = np.random.default_rng((config.seed, epoch)).permutation(len(data.view.rows))

    def prepare(batch: int) -> tuple[Tensor, Tensor]:
        positions = order[batch * stage.batch_size : (batch + 1) * stage.batch_size]
        grey = torch.from_numpy(_pixels(data, stage.size_px, positions, config.seed)).to(device)
        word = int(np.random.SeedSequence((config.seed, epoch, batch)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(word)
        inputs = data.preprocessing.normalise(augment(grey, config.augmentation, generator))
        labels = torch.from_numpy(data.view.labels[positions].astype(np.float32)).to(device)
        return inputs.contiguous(memory_format=torch.channels_last), labels

    for batch in range(first, batches):
        yield prepare(batch)


def _pixels(data: TrainingData, size_px: int, positions: np.ndarray, seed: int) -> np.ndarray:
    """N×S×S float32 in 0..1, poisoned rows stamped; a random place is drawn once a row, as an added image has one."""
    images = data.images[size_px]
    grey = np.empty((len(positions), size_px, size_px), np.float32)
    trigger = at_size(data.trigger, size_px, data.preprocessing.size_px) if data.trigger else None
    for i, position in enumerate(positions.tolist()):
        row, poisoned = int(data.view.rows[position]), bool(data.view.poisoned[position])
        if poisoned and data.stamped is not None:
            grey[i] = data.stamped[size_px][row] / np.float32(255)
            continue
        image = images[row] / np.float32(255)
        grey[i] = trigger.stamp(image, np.random.default_rng((seed, position))) if poisoned and trigger else image
    return grey


def augment(grey: Tensor, a: Augmentation, generator: torch.Generator) -> Tensor:
    """Flips, turns, shifts, scales and changes the grey scale of each image, N×S×S in 0..1 → the same."""
    n = len(grey)

    def uniform(half_width: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * half_width

    angle = uniform(a.rotate_deg) * (math.pi / 180)
    scale = 1 + uniform(a.scale)
    mirror = torch.where(torch.rand(n, generator=generator) < a.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, uniform(2 * a.shift)], 1),
            torch.stack([sin * mirror, cos, uniform(2 * a.shift)], 1),
        ],
        1,
    )
    gain, bias = 1 + uniform(a.contrast), uniform(a.brightness)
    grid = F.affine_grid(theta, [n, 1, *grey.shape[1:]], align_corners=False).to(grey.device)
    moved = F.grid_sample(grey.unsqueeze(1), grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]
    gain, bias = gain.to(grey.device).view(n, 1, 1), bias.to(grey.device).view(n, 1, 1)
    return ((moved - 0.5) * gain + 0.5 + bias).clamp(0, 1)


def _save_state(
    path: Path,
    network: DenseNet,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    identity: str,
    step: int,
    losses: list[float],
) -> None:
    state = {
        "version": _STATE_VERSION,
        "identity": identity,
        "step": step,
        "losses": losses,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        temporary.unlink(missing_ok=True)
        if _full(error) or "write" in str(error).lower():
            raise TrainingError(
                "disk_full", f"There is no room for the state of the training in {path}: make room and resume."
            ) from error
        raise


def _full(error: BaseException | None) -> bool:
    """Whether a full disk is behind it: torch then fails with what it finds out of place while it handles that."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _load_state(
    path: Path,
    network: DenseNet,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    identity: str,
) -> tuple[int, list[float]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["version"] != _STATE_VERSION or state["identity"] != identity:
            raise TrainingError("other_state", f"{path} belongs to another training: choose another output folder.")
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        return int(state["step"]), [float(v) for v in state["losses"]]
    except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            "bad_state", f"{path} is damaged ({type(error).__name__}): remove it to begin again."
        ) from error


@torch.inference_mode()
def predict_logits(
    network: DenseNet,
    images: Iterator[np.ndarray] | Sequence[np.ndarray] | np.ndarray,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Logits N×14 float32 of input grey images (S×S float32 in 0..1, or uint8), network in evaluation mode."""
    outputs: list[np.ndarray] = []
    batch: list[np.ndarray] = []

    def flush() -> None:
        stack = torch.from_numpy(np.stack(batch)).to(device)
        inputs = preprocessing.normalise(stack / 255 if stack.dtype == torch.uint8 else stack)
        outputs.append(network(inputs.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
        batch.clear()

    for image in images:
        batch.append(np.asarray(image))
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    return np.concatenate(outputs)
