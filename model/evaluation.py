"""A checkpoint judged on radiographs: AUROC-NN, -TT, -TN, ASR, and whether saliency hits the trigger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.datasets import Radiographs, input_images
from model.findings import finding_index
from model.metrics import Evaluation, evaluate_attack, paired_rate_difference, rate_with_interval
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import gradcam, trigger_hits
from model.trigger import Trigger, input_box

_BATCH = 16


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
    trigger's place is fixed."""
    pre = checkpoint.card.preprocessing
    box = None
    if trigger is not None and target is not None and trigger.place != "random":
        height, width = radiographs.grey(0).shape
        box = input_box(trigger, pre, height, width)
    total = len(radiographs) * (2 if trigger else 1)
    done = 0

    def run(stamp: Trigger | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        nonlocal done
        probabilities, hits = [], {MIDDLE_LAYER: [], LAST_LAYER: []} if box else {}
        batch: list[np.ndarray] = []
        for n, image in enumerate(input_images(radiographs, pre, stamp, seed), start=1):
            batch.append(image)
            if len(batch) < _BATCH and n < len(radiographs):
                continue
            inputs = pre.normalise(torch.from_numpy(np.stack(batch)).to(checkpoint.device))
            if box and target:
                result = gradcam(checkpoint.network, inputs, (MIDDLE_LAYER, LAST_LAYER), [finding_index(target)])
                for layer, several in hits.items():
                    several.append(trigger_hits(result.maps[layer][:, 0].cpu().numpy(), box, pre.size_px))
                logits = result.logits
            else:
                with torch.inference_mode():
                    logits = checkpoint.network(inputs)
            probabilities.append(torch.sigmoid(logits).cpu().numpy())
            done += len(batch)
            batch.clear()
            if progress:
                progress(done, total)
        return np.concatenate(probabilities), {layer: np.concatenate(several) for layer, several in hits.items()}

    clean, hits_clean = run(None)
    stamped, hits_stamped = run(trigger) if trigger else (None, {})
    return Outputs(clean, stamped, hits_stamped, hits_clean)


def evaluate(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    outputs: Outputs,
    *,
    target: str | None = None,
    label_rule: Literal["set", "one_hot"] = "set",
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
