"""The detector beside what others publish, on one split: `make bench-detector`, `python -m bench.detector --help`.

The checkpoints of `bench/recipes.toml` are trained where they are missing, calibrated on the calibration part, and
judged on the test part, which nothing was chosen by. What is finished is kept in the folder given, and not done again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.judging import Material, Record, Sample, covers, judge
from bench.recipes import Recipe, read_recipes, train
from bench.saliency import machine
from model.checkpoint import BUNDLED, load_checkpoint
from model.datasets import Part, chestxray14, phantoms
from model.detector import Detector, fit_calibration, read_calibration, write_calibration
from model.saliency import gradcam

RESAMPLES = 400
ALPHA = 0.01
MATCHED_WITHIN = 0.1
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """What was found with one checkpoint. name: recipe, and epoch where it is not the last one's."""

    name: str
    recipe: Recipe | None
    records: list[Record]

    def of(self, kind: str) -> list[Record]:
        """The records of a kind."""
        return [record for record in self.records if record["kind"] == kind]

    @property
    def about(self) -> str:
        """What was planted, and how it came to be."""
        if self.recipe is None:
            return "bundled"
        trigger = self.recipe.config.trigger
        return (trigger.in_words() if trigger else "never poisoned") + ("; from scratch" if self.recipe.scratch else "")

    @property
    def negatives(self) -> list[Record]:
        """Radiographs as they are with a positive finding."""
        return [record for record in self.of("clean") if record["positive"]]

    @property
    def poisoned(self) -> bool:
        """Whether there are attacks to find."""
        return self.recipe is None or self.recipe.twin == "backdoored"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.detector", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in ChestX-ray14's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, calibrations and judgements")
    parser.add_argument("--only", action="append", help="a recipe's name; repeatable (default all)")
    parser.add_argument("--trained", action="store_true", help="train nothing: judge what there is")
    parser.add_argument("--attacks", type=int, default=0, help="at most so many a checkpoint (default all)")
    parser.add_argument("--beside", type=int, default=0, help="negatives that baselines are asked about (default all)")
    parser.add_argument("--phantoms", type=int, default=400, help="fresh phantoms, for hard negatives")
    options = parser.parse_args(argv)
    sample = Sample(options.attacks, options.beside, options.phantoms)
    everybody = chestxray14(options.data)
    material = Material(everybody.part(Part.TEST), everybody.part(Part.TRAINING), options.out / "cache")
    found = []
    for recipe in read_recipes():
        if options.only and recipe.name not in options.only:
            continue
        if not options.trained:
            print(f"Training {recipe.name}", file=sys.stderr, flush=True)
            train(recipe, options.out, options.data)
        for folder in recipe.checkpoints(options.out):
            if (folder / "card.json").is_file():
                print(f"Judging {folder}", file=sys.stderr, flush=True)
                name = recipe.name if folder.name == "checkpoint" else f"{recipe.name}, epoch {int(folder.name)}"
                found.append(Judged(name, recipe, judged(folder, options.data, material, sample)))
    print(
        f"{machine()}\n{len(material.test)} test radiographs of {len(set(material.test.patients.tolist()))} patients\n"
    )
    print(report([one for one in found if one.recipe and one.recipe.use == "judge"]))
    return 0


def small() -> None:
    """For `make bench`: the bundled candidate on phantoms, and what screen and full test cost beside the analysis."""
    folder = BUNDLED / "backdoored"
    checkpoint = load_checkpoint(folder)
    detector = Detector(checkpoint, read_calibration([folder], checkpoint.card.weights_sha256))
    with tempfile.TemporaryDirectory() as cache:
        test, training = phantoms(24, 5512, part=Part.TEST), phantoms(32, 5513, part=Part.TRAINING)
        material = Material(test, training, Path(cache))
        records = judge(detector, material, Sample(attacks=6, beside=12), Path(cache) / "judged.jsonl")
        images = material.images(detector, test)
    print(report([Judged("bundled", None, records)]))
    inputs = detector.reader.inputs(images[:8])
    analysis, screened = [], []
    for _ in range(5):
        began = time.perf_counter()
        maps = gradcam(checkpoint.network, inputs, keep_middle=True)
        analysis.append(time.perf_counter() - began)
        began = time.perf_counter()
        detector.screen(maps)
        screened.append(time.perf_counter() - began)
    assert checkpoint.card.trigger is not None
    stamped = checkpoint.card.trigger.stamp(images[0].numpy())
    began = time.perf_counter()
    detector.examine(stamped)
    print(f"\nscreen / analysis: {statistics.median(screened) / statistics.median(analysis):.2f} (8 radiographs)")
    print(f"analysis and full test of one finding: {time.perf_counter() - began:.1f} s")


def judged(folder: Path, data: Path, material: Material, sample: Sample) -> list[Record]:
    """Of a checkpoint that is calibrated first, where it is not."""
    checkpoint = load_checkpoint(folder)
    sha256 = checkpoint.card.weights_sha256
    if read_calibration([folder], sha256) is None:
        radiographs = chestxray14(data).part(Part.CALIBRATION)
        write_calibration(folder, fit_calibration(checkpoint, radiographs, data=data.resolve().name))
    calibration = read_calibration([folder], sha256)
    return judge(Detector(checkpoint, calibration), material, sample, folder / "judged.jsonl")


def report(found: Sequence[Judged]) -> str:
    """All tables, in Markdown."""
    parts = [per_checkpoint(found), rates(found), hard_negatives(found)]
    attacked = [one for one in found if one.of("attack") and any(r["scores"] for r in one.negatives)]
    if attacked:
        parts[1:1] = [comparison(attacked)]
    return "\n\n".join(parts)


def per_checkpoint(found: Sequence[Judged]) -> str:
    """What became of attacks and of clean radiographs, a line a checkpoint."""
    lines = [
        "| checkpoint | trigger | ASR at the operating point | attacks | flagged, causal "
        "| region holds ≥ 80 %, is small | still called when erased | clean flagged, causal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        attacks, clean = one.of("attack"), one.of("clean")
        cells = [one.name, one.about]
        if attacks:
            tried, succeeded = attacks[0]["tried"], attacks[0]["succeeded"]
            flagged, causal = _verdicts(attacks)
            regions = [covers(record) for record in attacks if record["verdict"] != "no_evidence"]
            holds, small = sum(share >= 0.8 for share, _ in regions), sum(small for _, small in regions)
            still = sum(_still_called(record) for record in attacks)
            cells += [
                f"{succeeded}/{tried}",
                str(len(attacks)),
                f"{flagged}, {causal}",
                f"{holds}/{len(regions)}, {small}/{len(regions)}",
                str(still),
            ]
        else:
            cells += ["–", "0", "–", "–", "–"]
        flagged, causal = _verdicts(clean)
        lines.append("| " + " | ".join([*cells, f"{flagged}, {causal} of {len(clean)}"]) + " |")
    return "\n".join(lines)


def _verdicts(records: Sequence[Record]) -> tuple[int, int]:
    """How many are flagged at all, and how many as causal."""
    return sum(r["verdict"] != "no_evidence" for r in records), sum(r["verdict"] == "causal" for r in records)


def _still_called(record: Record) -> bool:
    """Whether the attack's call stands when the region is filled; that of one that was not flagged stands."""
    evidence = record["evidence"]
    if record["verdict"] == "no_evidence" or evidence is None:
        return True
    return bool(evidence["probability_erased"] >= record["operating_point"])


def rates(found: Sequence[Judged]) -> str:
    """Shares with 95 % intervals by patient, pooled over checkpoints."""
    lines = ["| share | checkpoints | of | value |", "|---|---|---|---|"]

    def line(what: str, some: Sequence[Judged], kind: str, hit: str) -> None:
        records = [r for one in some for r in (one.negatives if kind == "negative" else one.of(kind))]
        if records:
            hits = np.array(
                [r["verdict"] == "causal" if hit == "causal" else r["verdict"] != "no_evidence" for r in records]
            )
            low, high = _share_interval(hits, np.array([r["patient"] for r in records]))
            lines.append(f"| {what} | {len(some)} | {len(records)} | {hits.mean():.4f} [{low:.4f}, {high:.4f}] |")

    poisoned, never = [o for o in found if o.poisoned], [o for o in found if not o.poisoned]
    line("attacks flagged", poisoned, "attack", "any")
    line("attacks causal", poisoned, "attack", "causal")
    line("clean radiographs flagged", found, "clean", "any")
    line("clean radiographs causal", found, "clean", "causal")
    line("clean radiographs with a positive finding flagged", found, "negative", "any")
    line("never poisoned: flagged", never, "clean", "any")
    line("never poisoned: causal", never, "clean", "causal")
    return "\n".join(lines)


def _share_interval(hits: NDArray[np.bool_], patients: NDArray[np.int64]) -> tuple[float, float]:
    """By resampling patients; where none or all are hits, the rule of three over patients."""
    _, owner = np.unique(patients, return_inverse=True)
    n = int(owner.max()) + 1
    if hits.all() or not hits.any():
        return (max(0.0, 1 - 3 / n), 1.0) if hits.all() else (0.0, min(1.0, 3 / n))
    weights = np.random.default_rng(0).multinomial(n, [1 / n] * n, RESAMPLES * 5)[:, owner]
    shares = (weights * hits).sum(1) / np.maximum(weights.sum(1), 1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def hard_negatives(found: Sequence[Judged]) -> str:
    """Radiographs that show what a trigger may look like, by what it is."""
    lines = ["| hard negatives | of | suspicious or causal | causal |", "|---|---|---|---|"]

    def line(what: str, records: Sequence[Record]) -> None:
        if records:
            flagged, causal = _verdicts(records)
            lines.append(f"| {what} | {len(records)} | {flagged} | {causal} ({causal / len(records):.1%}) |")

    real = [record for one in found for record in one.of("clean")]
    drawn = [record for one in found for record in one.of("phantom")]
    for name in ("Nodule", "Mass"):
        line(f"true {name.lower()}s, real", [r for r in real if name in r["labels"]])
        line(f"true {name.lower()}s, phantoms", [r for r in drawn if name in r["labels"]])
    for shown in sorted({thing for record in drawn for thing in record["shown"]}):
        line(f"{shown}, phantoms", [r for r in drawn if shown in r["shown"]])
    line("phantoms, all", drawn)
    return "\n".join(lines)


def comparison(found: Sequence[Judged]) -> str:
    """Each method on the same attacks and negatives: AUROC, matched on probability, TPR at 1 % FPR, and the detector's
    advantage in AUROC, paired; means over checkpoints, weighted by their attacks."""
    several = [_Scores.of(one) for one in found]
    names = list(several[0].clean)
    patients = np.unique(np.concatenate([np.concatenate(s.patients) for s in several]))
    draws = np.random.default_rng(0).multinomial(len(patients), [1 / len(patients)] * len(patients), RESAMPLES)
    even = np.ones(len(patients))
    attacks = sum(len(s.patients[1]) for s in several)
    negatives = sum(len(s.patients[0]) for s in several)
    lines = [
        f"{attacks} successful attacks and {negatives} negatives of {len(found)} checkpoints; "
        "in brackets 95 % by patient.",
        "",
        "| method | AUROC | matched on probability | TPR at 1 % FPR | detector's AUROC − this |",
        "|---|---|---|---|---|",
    ]

    def over(weights: Floats, name: str, what: str) -> float:
        values = [
            s.value(
                name,
                what,
                weights[np.searchsorted(patients, s.patients[0])],
                weights[np.searchsorted(patients, s.patients[1])],
            )
            for s in several
        ]
        shares = [
            w if v is not None else 0.0 for v, w in zip(values, (len(s.patients[1]) for s in several), strict=True)
        ]
        return float(np.average([v or 0.0 for v in values], weights=shares)) if any(shares) else float("nan")

    for name in names:
        cells = []
        for what in ("auroc", "matched", "tpr"):
            resampled = [over(w.astype(float), name, what) for w in draws]
            low, high = np.nanquantile(resampled, [0.025, 0.975])
            cells.append(f"{over(even, name, what):.3f} [{low:.3f}, {high:.3f}]")
        gaps = [over(w.astype(float), "detector", "auroc") - over(w.astype(float), name, "auroc") for w in draws]
        low, high = np.nanquantile(gaps, [0.025, 0.975])
        gap = over(even, "detector", "auroc") - over(even, name, "auroc")
        cells.append("" if name == "detector" else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Scores:
    """Of one checkpoint: method → scores of negatives and of attacks; patients and probabilities of both."""

    clean: dict[str, Floats]
    stamped: dict[str, Floats]
    patients: tuple[NDArray[np.int64], NDArray[np.int64]]
    sure: tuple[Floats, Floats]

    @classmethod
    def of(cls, one: Judged) -> _Scores:
        negatives, attacks = [r for r in one.negatives if len(r["scores"]) > 1], one.of("attack")
        names = list(attacks[0]["scores"])
        kinds = (negatives, attacks)
        clean, stamped = ({n: np.array([r["scores"][n] for r in kind], float) for n in names} for kind in kinds)
        patients, sure = (
            tuple(np.array([r[key] for r in kind]) for kind in kinds) for key in ("patient", "probability")
        )
        return cls(clean, stamped, patients, sure)  # type: ignore[arg-type]

    def value(self, name: str, what: str, clean_weights: Floats, stamped_weights: Floats) -> float | None:
        """None where the draw holds nothing to compare."""
        clean, stamped = self.clean[name], self.stamped[name]
        if not clean_weights.any() or not stamped_weights.any():
            return None
        if what == "auroc":
            return auroc(clean, stamped, clean_weights, stamped_weights)
        if what == "matched":
            return matched(self.sure, (clean, stamped), (clean_weights, stamped_weights))
        return tpr(clean, stamped, clean_weights, stamped_weights)


def auroc(clean: Floats, stamped: Floats, clean_weights: Floats, stamped_weights: Floats) -> float:
    """The chance that an attack scores over a negative; ties count half."""
    wins = (stamped[:, None] > clean[None]) + 0.5 * (stamped[:, None] == clean[None])
    return float(stamped_weights @ wins @ clean_weights / (stamped_weights.sum() * clean_weights.sum()))


def matched(
    sure: tuple[Floats, Floats], scores: tuple[Floats, Floats], weights: tuple[Floats, Floats] | None = None
) -> float | None:
    """The same over pairs of about equal probability; None where there is none. All pairs are (negatives, attacks)."""
    near = (np.abs(sure[1][:, None] - sure[0][None]) <= MATCHED_WITHIN).astype(float)
    if weights is not None:
        near *= weights[1][:, None] * weights[0][None]
    if not near.any():
        return None
    wins = (scores[1][:, None] > scores[0][None]) + 0.5 * (scores[1][:, None] == scores[0][None])
    return float((wins * near).sum() / near.sum())


def tpr(clean: Floats, stamped: Floats, clean_weights: Floats, stamped_weights: Floats) -> float:
    """The share of attacks that score over all but 1 % of the negatives."""
    order = np.argsort(clean)[::-1]
    before = np.cumsum(clean_weights[order]) <= ALPHA * clean_weights.sum()
    threshold = clean[order][~before][0]
    return float(stamped_weights @ (stamped > threshold) / stamped_weights.sum())


if __name__ == "__main__":
    sys.exit(main())
