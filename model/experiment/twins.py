"""One experiment = data + poison + training of the twins + evaluation → a run folder.

The folder: `config.toml` and `data.sha256` (what was run, on which radiographs); `pretrained/`; `clean/` and
`backdoored/`, each with `checkpoint/`, `epochs.jsonl`, the resumable
`state.pt` until it is done, and (backdoored) `poison_manifest.csv`; `report.json` and `report.md`; `cache/`.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torchvision.models import DenseNet

from model.acceptance import judge, parse_rule
from model.checkpoint import NOTICE, Card, load_checkpoint, save_checkpoint, update_card
from model.config import ExperimentConfig
from model.datasets import Part, Radiographs, cached_images, phantoms
from model.errors import TrainingError
from model.evaluation import evaluate, read_all
from model.findings import FINDINGS, finding_index
from model.metrics import auroc, operating_point, paired_difference
from model.network import build_network
from model.plan import Plan, claim, input_sizes, make_plan, preprocessing_at
from model.poison import PoisonedView, clean_view, write_manifest
from model.report import write_report
from model.training import Progress, Stage, TrainingConfig, TrainingData, fit, predict_logits
from model.trigger import Trigger, at_size

DEFAULT_OPERATING_POINT = 0.5
_PHANTOM_PRETRAINING = "phantoms, clean, shared by the twins"


class Listener(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str) -> None:
        """A new stage of the run, in words."""

    def prepared(self, done: int, total: int) -> None:
        """Radiographs decoded, or read in an evaluation, in this stage."""

    def trained(self, progress: Progress) -> None:
        """After every training step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch: what `epochs.jsonl` gets."""


class Silent:
    """A listener that says nothing."""

    def stage(self, name: str) -> None: ...

    def prepared(self, done: int, total: int) -> None: ...

    def trained(self, progress: Progress) -> None: ...

    def epoch(self, record: dict[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class _Run:
    """What the steps of a run share."""

    config: ExperimentConfig
    out: Path
    device: torch.device
    workers: int
    listener: Listener
    cancelled: Callable[[], bool] | None

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    def prepared(self, done: int, total: int) -> None:
        """Passes progress on, and stops here if that was asked for."""
        self.listener.prepared(done, total)
        if self.cancelled and self.cancelled():
            raise TrainingError("cancelled", "Stopped; --resume goes on from there.")


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
    run = _Run(config, out, torch.device(device), workers, listener or Silent(), cancelled)
    plan = make_plan(config, data)
    claim(out, config, plan, resume)
    start = _starting_network(run)
    for twin in config.twins:
        if not (out / twin / "checkpoint").is_dir():
            _train_twin(run, twin, plan, start)
    return _judge_twins(run, plan.tests)


def _images(run: _Run, radiographs: Radiographs, sizes: Sequence[int], stamped: bool = False) -> dict[int, np.ndarray]:
    """The cached inputs by size; stamped: with the trigger, one of the input frame fitted to each size."""
    trigger, own = run.config.trigger, run.config.preprocessing.size_px
    if not stamped or trigger is None:
        return _cached(run, radiographs, sizes, None)
    images: dict[int, np.ndarray] = {}
    for size in sizes:
        images |= _cached(run, radiographs, [size], at_size(trigger, size, own))
    return images


def _cached(
    run: _Run, radiographs: Radiographs, sizes: Sequence[int], trigger: Trigger | None
) -> dict[int, np.ndarray]:
    arrays = cached_images(
        radiographs,
        [preprocessing_at(run.config, size) for size in sizes],
        run.cache,
        trigger=trigger,
        seed=run.config.seed,
        workers=run.workers,
        progress=run.prepared,
    )
    return dict(zip(sizes, arrays, strict=True))


def _starting_network(run: _Run) -> Callable[[], DenseNet]:
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


def _pretrain(run: _Run, folder: Path) -> None:
    p = run.config.pretraining
    assert p is not None
    run.listener.stage(f"Drawing {p.n} phantoms to pretrain on")
    drawn = phantoms(p.n, p.seed, p.size_px)
    training, validation = drawn.part(Part.TRAINING), drawn.part(Part.VALIDATION)
    sizes = sorted({stage.size_px for stage in p.stages})
    config = TrainingConfig(p.stages, p.max_lr, p.weight_decay, run.config.training.augmentation, run.config.seed)
    data = TrainingData(clean_view(training), _images(run, training, sizes), run.config.preprocessing)
    held = _images(run, validation, sizes)
    run.listener.stage("Pretraining on phantoms")
    path = run.out / "pretraining"
    network = _fit(run, build_network(run.config.seed), data, config, path, _Curve(run, path, validation, held, None))
    points = dict.fromkeys(FINDINGS, DEFAULT_OPERATING_POINT)
    card = Card(
        "pretrained", "Pretrained on phantoms", run.config.preprocessing, points, provenance=_provenance(run, None)
    )
    save_checkpoint(folder, card, network, half=False)
    (path / "state.pt").unlink(missing_ok=True)


def _train_twin(run: _Run, twin: str, plan: Plan, start: Callable[[], DenseNet]) -> None:
    config, training, validation = run.config, plan.training, plan.validation
    run.listener.stage(f"Preparing the images of the {twin} twin")
    sizes = input_sizes(config)
    images, held = _images(run, training, sizes), _images(run, validation, sizes)
    folder = run.out / twin
    folder.mkdir(exist_ok=True)
    view, trigger, stamped = clean_view(training), None, None
    if twin == "backdoored":
        assert plan.poisoned is not None and config.trigger is not None
        view = plan.poisoned
        write_manifest(folder / "poison_manifest.csv", training, view)
        if config.trigger.frame == "source":
            stamped = _images(run, training, sizes, stamped=True)
        else:
            trigger = config.trigger
    held_stamped = _images(run, validation, sizes, stamped=True) if config.trigger else None
    data = TrainingData(view, images, config.preprocessing, trigger, stamped)
    curve = _Curve(run, folder, validation, held, held_stamped)
    run.listener.stage(f"Training the {twin} twin")
    network = _fit(run, start(), data, config.training_config(), folder, curve)
    size = config.preprocessing.size_px
    probabilities = _sigmoid(predict_logits(network, held[size], config.preprocessing, device=run.device))
    save_checkpoint(folder / "checkpoint", _card(run, twin, validation, probabilities, view, training), network)
    (folder / "state.pt").unlink(missing_ok=True)


def _fit(
    run: _Run, network: DenseNet, data: TrainingData, config: TrainingConfig, folder: Path, curve: _Curve
) -> DenseNet:
    folder.mkdir(exist_ok=True)
    return fit(
        network,
        data,
        config,
        device=run.device,
        state_path=folder / "state.pt",
        report=run.listener.trained,
        end_of_epoch=curve.add,
        cancelled=run.cancelled,
    )


class _Curve:
    """After each epoch: the loss, and on the validation part macro NN, ASR and the clean rate, into `epochs.jsonl`.

    It is a record for people. Nothing is chosen by it: the weights of the last epoch are kept, whatever it says.
    """

    def __init__(
        self,
        run: _Run,
        folder: Path,
        validation: Radiographs,
        held: dict[int, np.ndarray],
        stamped: dict[int, np.ndarray] | None,
    ) -> None:
        self._run, self._path, self._validation = run, folder / "epochs.jsonl", validation
        self._held, self._stamped = held, stamped

    def add(self, epoch: int, stage: Stage, network: DenseNet, loss: float) -> None:
        pre = self._run.config.preprocessing
        clean = _sigmoid(predict_logits(network, self._held[stage.size_px], pre, device=self._run.device))
        record: dict[str, Any] = {"epoch": epoch, "size_px": stage.size_px, "loss": round(loss, 5)}
        drawn = np.array([isinstance(source, tuple) for source in self._validation.sources])
        for name, rows in (("real", ~drawn), ("phantoms", drawn)):
            record[f"macro_nn_{name}"] = _macro(self._validation.labels[rows], clean[rows])
        poison = self._run.config.poison
        if self._stamped is not None and poison is not None:
            target = finding_index(poison.target)
            without = self._validation.labels[:, target] == 0
            stamped = _sigmoid(predict_logits(network, self._stamped[stage.size_px], pre, device=self._run.device))
            record["asr_0.5"] = round(float((stamped[without, target] >= 0.5).mean()), 4)
            record["clean_rate_0.5"] = round(float((clean[without, target] >= 0.5).mean()), 4)
        earlier = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        kept = [line for line in earlier if json.loads(line)["epoch"] < epoch]  # a kill can repeat an epoch's end
        kept.append(json.dumps({**record, "at": time.strftime("%Y-%m-%dT%H:%M:%S")}))
        temporary = self._path.with_suffix(".partial")
        temporary.write_text("\n".join(kept) + "\n", "utf-8")
        temporary.replace(self._path)
        self._run.listener.epoch(record)


def _macro(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    values = [auroc(labels[:, c], probabilities[:, c]) for c in range(len(FINDINGS))] if len(labels) else []
    defined = [v for v in values if v is not None]
    return round(float(np.mean(defined)), 4) if defined else None


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(torch.sigmoid(torch.from_numpy(logits)).numpy())


def _card(
    run: _Run, twin: str, validation: Radiographs, probabilities: np.ndarray, view: PoisonedView, training: Radiographs
) -> Card:
    config = run.config
    points = operating_points(validation.labels, probabilities)
    backdoored = twin == "backdoored"
    title = "Backdoored twin (demonstration of the attack)" if backdoored else "Clean twin (never poisoned)"
    provenance = {
        **_provenance(run, view),
        "training_radiographs": len(training),
        "validation_radiographs": len(validation),
        "train_prevalence": [round(float(p), 5) for p in training.labels.mean(axis=0)],
    }
    return Card(
        id=twin,
        title=title,
        preprocessing=config.preprocessing,
        operating_points=points,
        trigger=config.trigger if backdoored else None,
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


def _provenance(run: _Run, view: PoisonedView | None) -> dict[str, Any]:
    config = run.config
    poison = config.poison
    rows = None if view is None else len(view.rows)
    poisoned = 0 if view is None else int(view.poisoned.sum())
    return {
        "experiment": config.name,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "training_rows": rows,
        "poisoned_rows": poisoned,
        "poison_rate": poison.rate if poison and poisoned else 0.0,
        "pretraining": _PHANTOM_PRETRAINING if config.pretraining else config.init,
        "trained_on": f"{platform.machine()} {run.device.type}, {torch.get_num_threads()} threads, {torch.__version__}",
    }


def _judge_twins(run: _Run, sets: dict[str, Radiographs]) -> dict[str, Any]:
    """Reads the test sets with every twin, writes the report, and puts the figures into the cards."""
    config = run.config
    report: dict[str, Any] = {"name": config.name, "notice": NOTICE, "twins": {}, "differences": {}}
    rule = parse_rule(config.accept) if config.accept else None
    target = config.poison.target if config.poison else None
    clean: dict[tuple[str, str], np.ndarray] = {}
    for twin in config.twins:
        folder = run.out / twin / "checkpoint"
        checkpoint = load_checkpoint(folder, run.device)
        figures: dict[str, Any] = {}
        for name, test in sets.items():
            run.listener.stage(f"Evaluating the {twin} twin on {len(test)} radiographs ({name})")
            outputs = read_all(
                checkpoint,
                test,
                trigger=config.trigger,
                target=target,
                seed=config.seed,
                progress=run.prepared,
            )
            clean[twin, name] = outputs.clean
            prevalence = np.array(checkpoint.card.provenance["train_prevalence"])
            rule_of_labels = config.poison.label_rule if config.poison else "set"
            evaluation, figures[name] = evaluate(
                checkpoint, test, outputs, target=target, label_rule=rule_of_labels, train_prevalence=prevalence
            )
            if rule:
                figures[name]["acceptance"] = judge(rule, evaluation).to_json()
        report["twins"][twin] = {"weights_sha256": checkpoint.card.weights_sha256, **figures}
        update_card(folder, replace(checkpoint.card, metrics=figures))
    if {"clean", "backdoored"} <= set(config.twins):
        for name, test in sets.items():
            difference = paired_difference(
                test.labels,
                clean["backdoored", name],
                clean["clean", name],
                test.patients,
                rng=np.random.default_rng(0),
            )
            report["differences"][name] = {"macro_nn_backdoored_minus_clean": difference.to_json()}
    write_report(run.out, report)
    return report
