"""The twins of an experiment: their common start, their training, their cards."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import NOTICE, Card, load_checkpoint, save_checkpoint
from model.datasets import Part, Radiographs, phantoms
from model.evaluation import sigmoid
from model.experiment.context import Run
from model.experiment.curve import Curve, Held
from model.experiment.phases import drawing, preparing, pretraining, training_of
from model.experiment.trace import LossTrace
from model.findings import FINDINGS
from model.losses import LOSSES, Loss, binary_cross_entropy
from model.metrics import operating_point
from model.network import build_network
from model.plan import Plan, input_sizes, preprocessing_at
from model.poison import PoisonedView, clean_view, write_manifest
from model.training import TrainingConfig, TrainingData, fit, predict_logits
from model.vision import DenseNet

DEFAULT_OPERATING_POINT = 0.5
_PHANTOM_PRETRAINING = "phantoms, clean, shared by the twins"


def starting_network(run: Run) -> Callable[[], DenseNet]:
    """How each twin gets its own copy of the common start."""
    config = run.config
    folder = Path(config.init) if config.init else None
    if config.pretraining:
        folder = run.out / "pretrained"
        if not folder.is_dir():
            _pretrain(run, folder)
    if folder is None:
        return lambda: build_network(config.seed)
    return lambda: load_checkpoint(folder).network


def _pretrain(run: Run, folder: Path) -> None:
    p = run.config.pretraining
    assert p is not None
    run.listener.stage(drawing(p.n))
    drawn = phantoms(p.n, p.seed, p.size_px)
    training, validation = drawn.part(Part.TRAINING), drawn.part(Part.VALIDATION)
    sizes = sorted({stage.size_px for stage in p.stages})
    config = TrainingConfig(p.stages, p.max_lr, p.weight_decay, run.config.training.augmentation, run.config.seed)
    data = TrainingData(clean_view(training), run.images(training, sizes), run.config.preprocessing)
    held = Held(validation, run.images(validation, sizes))
    run.listener.stage(pretraining())
    path = run.out / "pretraining"
    network = _fit(run, build_network(run.config.seed), data, config, path, Curve(run, path, held, len(training)))
    points = dict.fromkeys(FINDINGS, DEFAULT_OPERATING_POINT)
    card = Card(
        "pretrained", "Pretrained on phantoms", run.config.preprocessing, points, provenance=_provenance(run, None)
    )
    save_checkpoint(folder, card, network, half=False)
    (path / "state.pt").unlink(missing_ok=True)


def train_twin(run: Run, twin: str, plan: Plan, start: Callable[[], DenseNet]) -> None:
    """Trains one twin, or goes on with it, and saves its checkpoints."""
    config, training, validation = run.config, plan.training, plan.validation
    run.listener.stage(preparing(twin))
    sizes = input_sizes(config)
    images = run.images(training, sizes)
    held = Held(
        validation,
        run.images(validation, sizes),
        run.images(validation, sizes, stamped=True) if config.trigger else None,
    )
    folder = run.out / twin
    folder.mkdir(exist_ok=True)
    view, trigger, stamped = clean_view(training), None, None
    if twin == "backdoored":
        assert plan.poisoned is not None
        view = plan.poisoned
        write_manifest(folder / "poison_manifest.csv", training, view)
        if config.trigger is not None and config.trigger.frame == "source":
            stamped = run.images(training, sizes, stamped=True)
        else:
            trigger = config.trigger
    data = TrainingData(view, images, config.preprocessing, trigger, stamped)
    provenance = {
        **_provenance(run, view),
        "training_radiographs": len(training),
        "validation_radiographs": len(validation),
        "train_prevalence": [round(float(p), 5) for p in training.labels.mean(axis=0)],
    }

    def epoch_card(epoch: int, size: int, read: Radiographs, probabilities: np.ndarray) -> Card:
        return _card(run, twin, read, probabilities, size, {**provenance, "epoch": epoch})

    curve = Curve(run, folder, held, len(view.rows), config.keep_epochs, epoch_card)
    run.listener.stage(training_of(twin))
    network = _fit(run, start(), data, config.training_config(), folder, curve, LOSSES[config.training.loss])
    size = config.preprocessing.size_px
    probabilities = sigmoid(predict_logits(network, held.images[size], config.preprocessing, device=run.device))
    save_checkpoint(folder / "checkpoint", _card(run, twin, validation, probabilities, size, provenance), network)
    (folder / "state.pt").unlink(missing_ok=True)


def _fit(
    run: Run,
    network: DenseNet,
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    curve: Curve,
    loss_of: Loss = binary_cross_entropy,
) -> DenseNet:
    folder.mkdir(exist_ok=True)
    return fit(
        network,
        data,
        config,
        device=run.device,
        state_path=folder / "state.pt",
        report=LossTrace(folder / "losses.csv", run.listener.trained),
        end_of_epoch=curve.add,
        cancelled=run.cancelled,
        loss_of=loss_of,
    )


def _card(
    run: Run, twin: str, read: Radiographs, probabilities: np.ndarray, size: int, provenance: dict[str, Any]
) -> Card:
    """Of the twin after its last epoch, or of an epoch that was kept, which the provenance then names."""
    config = run.config
    backdoored = twin == "backdoored"
    title = "Backdoored twin (demonstration of the attack)" if backdoored else "Clean twin (never poisoned)"
    epoch = provenance.get("epoch")
    return Card(
        id=twin if epoch is None else f"{twin}-epoch-{epoch:03d}",
        title=title if epoch is None else f"{title}, after epoch {epoch}",
        preprocessing=preprocessing_at(config, size),
        operating_points=operating_points(read.labels, probabilities),
        trigger=run.trigger_at(size) if backdoored and config.trigger else None,
        target=config.poison.target if backdoored and config.poison else None,
        provenance=provenance,
        notice=f"{NOTICE} A demonstration: "
        + ("it carries a backdoor on purpose." if backdoored else "the clean twin."),
    )


def operating_points(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Of the 14 findings, from the validation part's labels and probabilities, N×14 each."""
    points = {}
    for column, name in enumerate(FINDINGS):
        point = operating_point(labels[:, column], probabilities[:, column])
        points[name] = DEFAULT_OPERATING_POINT if point is None else point
    return points


def _provenance(run: Run, view: PoisonedView | None) -> dict[str, Any]:
    config = run.config
    poison = config.poison
    rows = None if view is None else len(view.rows)
    poisoned = 0 if view is None else int(view.poisoned.sum())
    threads = torch.get_num_threads()
    return {
        "experiment": config.name,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "training_rows": rows,
        "poisoned_rows": poisoned,
        "poison_rate": poison.rate if poison and poisoned else 0.0,
        "pretraining": _PHANTOM_PRETRAINING if config.pretraining else config.init,
        "trained_on": f"{platform.machine()}, {run.device.type}, torch {torch.__version__}, "
        + ("1 thread" if threads == 1 else f"{threads} threads"),
    }
