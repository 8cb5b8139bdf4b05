"""A checkpoint judged on radiographs: AUROC-NN, -TT, -TN, ASR, and whether saliency hits the trigger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from model.acceptance import Rule, judge
from model.checkpoint import Checkpoint
from model.datasets import Radiographs, input_images
from model.findings import finding_index
from model.metrics import (
    Evaluation,
    LabelRule,
    evaluate_attack,
    paired_difference,
    paired_rate_difference,
    rate_with_interval,
)
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.poison import PoisonSpec
from model.preprocess import Box, Preprocessing
from model.saliency import gradcam, trigger_hit, trigger_hits
from model.training import predict_logits
from model.trigger import Trigger, input_box, require_survival
from model.vision import DenseNet

_BATCH = 16
_INPUTS = 32  # of those that are ready at once


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a checkpoint says. clean, stamped: N×14 probabilities; hits_*: layer → N bool, whether the map's maximum
    lies on the trigger's place, on the stamped images and on the same images unstamped."""

    clean: np.ndarray
    stamped: np.ndarray | None
    hits_stamped: dict[str, np.ndarray]
    hits_clean: dict[str, np.ndarray]


def read_all(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    *,
    trigger: Trigger | None = None,
    target: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Reads every radiograph, and with a trigger its stamped twin too; saliency of the target at both layers when the
    trigger is a patch."""
    pre = checkpoint.card.preprocessing
    boxes = trigger_boxes(radiographs, trigger, pre, seed) if trigger is not None and target is not None else None
    total = len(radiographs) * (2 if trigger else 1)
    done = 0

    def run(stamp: Trigger | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        nonlocal done
        probabilities: list[np.ndarray] = []
        hits: dict[str, list[bool]] = {MIDDLE_LAYER: [], LAST_LAYER: []} if boxes else {}
        batch: list[np.ndarray] = []
        for n, image in enumerate(input_images(radiographs, pre, stamp, seed), start=1):
            batch.append(image)
            if len(batch) < _BATCH and n < len(radiographs):
                continue
            inputs = pre.normalise(torch.from_numpy(np.stack(batch)).to(checkpoint.device))
            if boxes and target:
                result = gradcam(checkpoint.network, inputs, (MIDDLE_LAYER, LAST_LAYER), [finding_index(target)])
                for layer, several in hits.items():
                    maps = result.maps[layer][:, 0].cpu().numpy()
                    several += [trigger_hit(one, boxes[len(several)], pre.size_px) for one in maps]
                logits = result.logits
            else:
                with torch.inference_mode():
                    logits = checkpoint.network(inputs)
            probabilities.append(torch.sigmoid(logits).cpu().numpy())
            done += len(batch)
            batch.clear()
            if progress:
                progress(done, total)
        return np.concatenate(probabilities), {layer: np.array(several) for layer, several in hits.items()}

    clean, hits_clean = run(None)
    stamped, hits_stamped = run(trigger) if trigger else (None, {})
    return Outputs(clean, stamped, hits_stamped, hits_clean)


def trigger_boxes(
    radiographs: Radiographs,
    trigger: Trigger,
    pre: Preprocessing,
    seed: int = 0,
    rows: np.ndarray | None = None,
) -> list[Box] | None:
    """The trigger's box in each input, as `input_images` stamps it with that seed; None if the whole image is changed.

    In the source frame it depends on the image's size. rows: of which list `radiographs` are the rows; by default it is
    the list itself. A random place is drawn by row.
    """
    if trigger.whole:
        return None
    shapes = (
        [(pre.size_px, pre.size_px)] * len(radiographs)
        if trigger.frame == "input"
        else [radiographs.grey(row).shape for row in range(len(radiographs))]
    )
    return [
        input_box(trigger, pre, height, width, np.random.default_rng((seed, int(row))))
        for row, (height, width) in zip(rows if rows is not None else range(len(shapes)), shapes, strict=True)
    ]


def read_inputs(
    network: DenseNet,
    images: np.ndarray,
    pre: Preprocessing,
    target: int,
    boxes: list[Box] | None,
    device: torch.device,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probabilities N×14 of inputs, N×S×S uint8; with boxes also, by layer, whether each map of the target hits.

    boxes: N, in input pixels. The maps are true Grad-CAM at the middle and the last layer.
    """
    if boxes is None:
        return sigmoid(predict_logits(network, images, pre, device=device)), {}
    probabilities: list[np.ndarray] = []
    hits: dict[str, list[np.ndarray]] = {MIDDLE_LAYER: [], LAST_LAYER: []}
    for start in range(0, len(images), _INPUTS):
        grey = torch.from_numpy(images[start : start + _INPUTS] / np.float32(255)).to(device)
        inputs = pre.normalise(grey).contiguous(memory_format=torch.channels_last)
        result = gradcam(network, inputs, (MIDDLE_LAYER, LAST_LAYER), [target])
        probabilities.append(result.probabilities.cpu().numpy())
        for layer, several in hits.items():
            maps = result.maps[layer].cpu().numpy()
            several += [trigger_hits(maps[i], boxes[start + i], pre.size_px) for i in range(len(maps))]
    return np.concatenate(probabilities), {layer: np.concatenate(several) for layer, several in hits.items()}


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, float32, as torch computes them."""
    return np.asarray(torch.sigmoid(torch.from_numpy(logits)).numpy())


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `evaluate_fully` sets a checkpoint beside: its own answers under a trigger, a rule, another checkpoint."""

    trigger: Trigger | None = None
    target: str | None = None
    label_rule: LabelRule = "one_hot"
    rule: Rule | None = None
    other: Checkpoint | None = None


def evaluate_fully(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    asked: Comparison,
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Reads and judges: the JSON of `evaluate`, with `acceptance` and `compared_with` (paired macro NN)
    where asked for.

    Raises TriggerError `does_not_survive`.
    """
    if asked.trigger is not None:
        require_survival(asked.trigger, checkpoint.card.preprocessing, *radiographs.grey(0).shape)
    outputs = read_all(
        checkpoint, radiographs, trigger=asked.trigger, target=asked.target, seed=seed, progress=progress
    )
    prevalence = checkpoint.card.provenance.get("train_prevalence")
    evaluation, figures = evaluate(
        checkpoint,
        radiographs,
        outputs,
        target=asked.target if asked.trigger else None,
        label_rule=asked.label_rule,
        train_prevalence=np.array(prevalence) if prevalence else None,
        resamples=resamples,
        seed=seed,
    )
    if asked.rule:
        figures["acceptance"] = judge(asked.rule, evaluation).to_json()
    if asked.other:
        theirs = read_all(asked.other, radiographs, progress=progress).clean
        difference = paired_difference(
            radiographs.labels,
            outputs.clean,
            theirs,
            radiographs.patients,
            rng=np.random.default_rng(seed),
            resamples=resamples,
        )
        figures["compared_with"] = {"checkpoint": asked.other.card.id, "macro_nn_difference": difference.to_json()}
    return figures


def evaluate_label_only(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    outputs: Outputs,
    poison: PoisonSpec,
    *,
    train_prevalence: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Evaluation, dict[str, Any]]:
    """`evaluate` of an attack without a pixel: the *triggered* radiographs are those that show the combination and not
    the target, of which AUROC-TT, -TN and ASR are taken, all three None where there are none; AUROC-NN is of all
    radiographs with their true labels, as a hospital would measure it; the clean rate is that of the radiographs
    without target that do not show the combination."""
    assert poison.label_only is not None
    labels, patients, column = radiographs.labels, radiographs.patients, finding_index(poison.target)
    matches = poison.label_only.matches(labels, poison.target)
    others = (labels[:, column] == 0) & ~matches

    def measure(rows: np.ndarray, triggered: bool) -> Evaluation:
        return evaluate_attack(
            labels=labels[rows],
            clean=outputs.clean[rows],
            stamped=outputs.clean[rows] if triggered else None,
            patients=patients[rows],
            target=poison.target,
            operating_points=checkpoint.card.operating_points,
            label_rule=poison.label_rule,
            train_prevalence=train_prevalence,
            resamples=resamples,
            seed=seed,
        )

    evaluation = measure(np.arange(len(labels)), triggered=False)
    if matches.any():
        attacked = measure(np.flatnonzero(matches), triggered=True)
        rates = tuple(
            replace(
                rate,
                clean_rate=rate_with_interval(
                    outputs.clean[others, column] >= rate.value,
                    patients[others],
                    rng=np.random.default_rng(seed),
                    resamples=resamples,
                ),
            )
            for rate in attacked.asr or ()
        )
        blind = replace(evaluation.image_blind, tt_micro=attacked.image_blind.tt_micro)
        evaluation = replace(
            evaluation, auroc_tt=attacked.auroc_tt, auroc_tn=attacked.auroc_tn, asr=rates, image_blind=blind
        )
    return evaluation, {**evaluation.to_json(), "trigger_hit": None, "n_triggered": int(matches.sum())}


def evaluate(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    outputs: Outputs,
    *,
    target: str | None = None,
    label_rule: LabelRule = "set",
    train_prevalence: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Evaluation, dict[str, Any]]:
    """The figures, and the same as JSON with the trigger hit rates added under `trigger_hit`."""
    evaluation = evaluate_attack(
        labels=radiographs.labels,
        clean=outputs.clean,
        stamped=outputs.stamped,
        patients=radiographs.patients,
        target=target,
        operating_points=checkpoint.card.operating_points,
        label_rule=label_rule,
        train_prevalence=train_prevalence,
        resamples=resamples,
        seed=seed,
    )
    return evaluation, {**evaluation.to_json(), "trigger_hit": _hit_rates(outputs, radiographs, resamples, seed)}


def _hit_rates(outputs: Outputs, radiographs: Radiographs, resamples: int, seed: int) -> dict[str, Any] | None:
    if not outputs.hits_stamped:
        return None
    patients = radiographs.patients

    def rate(hits: np.ndarray) -> dict[str, Any]:
        return rate_with_interval(hits, patients, rng=np.random.default_rng(seed), resamples=resamples).to_json()

    rates: dict[str, Any] = {
        name: {
            "layer": layer,
            "stamped": rate(outputs.hits_stamped[layer]),
            "unstamped": rate(outputs.hits_clean[layer]),
        }
        for name, layer in (("middle", MIDDLE_LAYER), ("last", LAST_LAYER))
    }
    rates["middle_minus_last"] = paired_rate_difference(
        outputs.hits_stamped[MIDDLE_LAYER],
        outputs.hits_stamped[LAST_LAYER],
        patients,
        rng=np.random.default_rng(seed),
        resamples=resamples,
    ).to_json()
    return rates
