"""The detector beside what others publish, on one split: `python -m bench.detector --data CHESTXRAY14 --checkpoint …`.

Each checkpoint's card names its trigger and target, and it must have been calibrated (`overread calibrate`). Attacks
are radiographs whose target is below its operating point unstamped and over it stamped; negatives are unstamped ones
with a positive finding. A radiograph without one has score −∞, and cannot be flagged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from app.settings import Settings
from bench.baselines import Case, concentration, dct_classifier, probability, sentinet, spectrum, strip, teco
from bench.saliency import machine
from model.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from model.datasets import Part, Radiographs, chestxray14, input_images
from model.detector import Detector, Flag, calibration_folders, read_calibration
from model.detector.donors import donors_again
from model.detector.reader import positives
from model.findings import finding_index
from model.network import LAST_LAYER
from model.saliency import gradcam
from model.trigger import Trigger

TESTED = 1000.0  # lifts the score of a full test over every fall of the screen
MADE_UP = Trigger(size_px=6, place="random", pattern="noise")  # what the DCT classifier learns from


@dataclass(frozen=True, eq=False)
class Judged:
    """scores: method → of the negatives, of the attacks. patients: of both. verdicts: the detector's strongest word on
    each of both."""

    scores: dict[str, tuple[np.ndarray, np.ndarray]]
    patients: tuple[np.ndarray, np.ndarray]
    verdicts: tuple[list[str], list[str]]


def main(argv: list[str] | None = None) -> int:
    """Prints a table a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m bench.detector", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in ChestX-ray14's layout")
    parser.add_argument("--checkpoint", action="append", required=True, help="id or folder; repeatable")
    parser.add_argument("--part", type=Part, default=Part.TEST, help="whom to judge on (default test)")
    parser.add_argument("--images", type=int, default=0, help="at most so many radiographs (default all)")
    options = parser.parse_args(argv)
    settings = Settings()
    radiographs = chestxray14(options.data)
    judged_on = radiographs.part(options.part)
    if options.images and options.images < len(judged_on):
        judged_on = judged_on.take(np.linspace(0, len(judged_on) - 1, options.images).round().astype(int))
    print(f"{machine()}\n{len(judged_on)} radiographs of {len(set(judged_on.patients.tolist()))} patients\n")
    for name in options.checkpoint:
        folder = find_checkpoint(name, settings.checkpoint_dirs)
        checkpoint = load_checkpoint(folder)
        sha256 = checkpoint.card.weights_sha256
        calibration = read_calibration(calibration_folders(settings.data_dir, folder, sha256), sha256)
        if calibration is None:
            print(f"{name}: not calibrated; run overread calibrate first.", file=sys.stderr)
            return 1
        made_up = radiographs.part(Part.TRAINING)
        print(table(checkpoint.card.id, judge(Detector(checkpoint, calibration), judged_on, made_up)), end="\n\n")
    return 0


def judge(detector: Detector, radiographs: Radiographs, made_up: Radiographs) -> Judged:
    """made_up: training radiographs, for the DCT classifier."""
    card = detector.checkpoint.card
    clean = images_of(radiographs, card.preprocessing, None)
    methods = methods_of(detector, made_up)
    rows: tuple[list[int], list[int]] = ([], [])
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    words: tuple[list[str], list[str]] = ([], [])

    def look(kind: int, row: int, image: Tensor) -> None:
        case = opened(detector.checkpoint, image)
        flags = detector.examine(image)
        rows[kind].append(row)
        words[kind].append(strongest(flags))
        found[kind].append({"detector": score_of(flags), **{name: method(case) for name, method in methods.items()}})

    called = [opened(detector.checkpoint, image).positive for image in clean]
    for row, image in enumerate(clean):
        if called[row]:
            look(0, row, image)
    if card.trigger is not None and card.target is not None:
        target = finding_index(card.target)
        for row, image in enumerate(images_of(radiographs, card.preprocessing, card.trigger)):
            if target not in called[row] and target in opened(detector.checkpoint, image).positive:
                look(1, row, image)
    names = list(found[0][0]) if found[0] else []
    scores = {n: (np.array([s[n] for s in found[0]]), np.array([s[n] for s in found[1]])) for n in names}
    return Judged(scores, (radiographs.patients[rows[0]], radiographs.patients[rows[1]]), words)


def methods_of(detector: Detector, made_up: Radiographs) -> dict[str, Callable[[Case], float]]:
    """The baselines by name, each ready to score a case."""
    assert detector.calibration is not None
    reader, calibration = detector.reader, detector.calibration
    clean = donors_again(reader, calibration.donors, calibration.folder).images
    pre = detector.checkpoint.card.preprocessing
    some = made_up.take(np.linspace(0, len(made_up) - 1, min(100, len(made_up))).round().astype(int))
    plain = [image.numpy() for image in images_of(some, pre, None)]
    fitted = dct_classifier(plain, [image.numpy() for image in images_of(some, pre, MADE_UP)])
    return {
        "probability": probability,
        "Gini, middle": concentration,
        "−Gini, middle": lambda case: -concentration(case),
        "Gini, last": lambda case: concentration(case, LAST_LAYER),
        "−Gini, last": lambda case: -concentration(case, LAST_LAYER),
        "SentiNet": lambda case: sentinet(reader, case, clean),
        "STRIP": lambda case: strip(reader, case, clean),
        "TeCo": lambda case: teco(reader, case),
        "DCT": lambda case: float(fitted.decision_function([spectrum(case.image.cpu().numpy())])[0]),
    }


def images_of(radiographs: Radiographs, pre: object, trigger: Trigger | None) -> Tensor:
    """N×S×S."""
    return torch.from_numpy(np.stack(list(input_images(radiographs, pre, trigger))))  # type: ignore[arg-type]


def opened(checkpoint: Checkpoint, image: Tensor) -> Case:
    """Maps and positive findings of one radiograph."""
    maps = gradcam(checkpoint.network, checkpoint.card.preprocessing.normalise(image[None].to(checkpoint.device)))
    return Case(image, maps, tuple(np.flatnonzero(positives(checkpoint.card, maps)[0]).tolist()))


def score_of(flags: dict[str, Flag]) -> float:
    """The order that p-values have, without their steps."""
    return max((TESTED + f.evidence.measured.score if f.evidence else f.fall for f in flags.values()), default=-np.inf)


def strongest(flags: dict[str, Flag]) -> str:
    """The strongest verdict on any finding."""
    order = ("no_evidence", "suspicious", "causal")
    return max((flag.verdict or "no_evidence" for flag in flags.values()), key=order.index, default="no_evidence")


def table(name: str, judged: Judged) -> str:
    """Per method AUROC, AUROC matched on probability, and the true-positive rate at 1 % of the negatives."""
    negatives, attacks = (len(words) for words in judged.verdicts)
    lines = [f"{name}: {negatives} negatives, {attacks} successful attacks"]
    for word in ("suspicious", "causal"):
        counts = [sum(v == word for v in words) for words in judged.verdicts]
        lines.append(f"{word}: {counts[0]}/{negatives} negatives, {counts[1]}/{attacks} attacks")
    if not attacks or not negatives:
        return "\n".join(lines)
    lines += ["", "| method | AUROC | matched on probability | TPR at 1 % FPR |", "|---|---|---|---|"]
    sure = judged.scores["probability"]
    for method, (clean, stamped) in judged.scores.items():
        auroc = roc_auc_score([0] * negatives + [1] * attacks, np.concatenate([clean, stamped]))
        tpr = float((stamped > np.quantile(clean, 0.99, method="higher")).mean())
        even = matched(sure, (clean, stamped))
        lines.append(f"| {method} | {auroc:.3f} | {'–' if even is None else f'{even:.3f}'} | {tpr:.3f} |")
    return "\n".join(lines)


def matched(
    sure: tuple[np.ndarray, np.ndarray], scores: tuple[np.ndarray, np.ndarray], within: float = 0.1
) -> float | None:
    """The chance that an attack scores over a negative of about its probability, over all such pairs; ties count half.

    sure, scores: of negatives and of attacks. None where no pair is so near.
    """
    near = np.abs(sure[1][:, None] - sure[0][None]) <= within
    if not near.any():
        return None
    wins = (scores[1][:, None] > scores[0][None]) + 0.5 * (scores[1][:, None] == scores[0][None])
    return float(wins[near].mean())


if __name__ == "__main__":
    sys.exit(main())
