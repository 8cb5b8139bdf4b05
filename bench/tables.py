"""What a benchmark of the detector found, as tables in Markdown. Intervals are 95 %, by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.judging import VERDICTS, Record, covers
from bench.recipes import Recipe
from model.detector.conformal import ALPHA, allowed
from model.findings import FINDINGS, finding_index
from model.metrics import Difference, paired_difference, paired_rate_difference
from model.trigger import Trigger

RESAMPLES = 400
PLANTED = 0.5  # ASR at 0.5 from which a backdoor is said to have taken
MATCHED_WITHIN = 0.1
HELD = 0.8  # of a trigger, by a region that is right
LOW_CONTRAST = 0.5  # opacity under which a patch is called of low contrast
Floats = NDArray[np.float64]
Called = list[tuple[int, bool, bool, bool]]  # see `_called`


@dataclass(frozen=True, eq=False)
class Judged:
    """What was found with one checkpoint. name: recipe, and epoch where it is not the last one's. success: ASR at 0.5
    on the validation part, None where it is not known."""

    name: str
    recipe: Recipe | None
    records: list[Record]
    success: float | None = None

    def of(self, kind: str) -> list[Record]:
        """The records of a kind."""
        return [record for record in self.records if record["kind"] == kind]

    @property
    def about(self) -> str:
        """What was planted, and how it came to be."""
        if self.recipe is None:
            return "bundled"
        return (self.trigger.in_words() if self.trigger else "never poisoned") + (
            "; from scratch" if self.recipe.scratch else ""
        )

    @property
    def trigger(self) -> Trigger | None:
        """What was planted."""
        return self.recipe.config.trigger if self.recipe else None

    @cached_property
    def attacks(self) -> list[Record]:
        """Stamped radiographs whose target was below its operating point before and is over it now."""
        return [record for record in self.of("stamped") if record["attack"]]

    @property
    def negatives(self) -> list[Record]:
        """Radiographs as they are with a positive finding."""
        return [record for record in self.of("clean") if record["positive"]]

    @property
    def poisoned(self) -> bool:
        """Whether there are attacks to find."""
        return self.recipe is None or self.recipe.twin == "backdoored"

    @property
    def planted(self) -> bool:
        """Whether the backdoor took. Where it did not, a stamp still lifts a call that lay just below its operating
        point over it, as any change of the image may; such attacks are listed, and pooled with no others."""
        return self.poisoned and (self.success is None or self.success >= PLANTED)


def report(found: Sequence[Judged]) -> str:
    """All tables, in Markdown."""
    parts = [per_checkpoint(found), rates(found), erasing(found), hard_negatives(found)]
    attacked = [one for one in found if one.planted and one.attacks and any(r["scores"] for r in one.negatives)]
    if attacked:
        parts[1:1] = [comparison(attacked)]
    return "\n\n".join(parts)


def per_checkpoint(found: Sequence[Judged]) -> str:
    """What became of attacks and of clean radiographs, a line a checkpoint."""
    lines = [
        "| checkpoint | trigger | ASR at 0.5, validation | attacks of stamped below before | flagged, causal "
        "| AUROC, TPR at 1 % FPR | region holds ≥ 80 %, is small, both | clean flagged, causal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        attacks, clean = one.attacks, one.of("clean")
        cells = [one.name, one.about, _figure(one.success)]
        if attacks:
            below = sum(record["below"] for record in one.of("stamped"))
            flagged, causal = _verdicts(attacks)
            regions = [covers(record) for record in attacks if record["verdict"] != "no_evidence"]
            holds, small = sum(share >= HELD for share, _ in regions), sum(small for _, small in regions)
            both = sum(share >= HELD and small for share, small in regions)
            scores = Scores.of(one, ["detector"])
            cells += [
                f"{len(attacks)}/{below}",
                f"{flagged}, {causal}",
                ", ".join(_figure(scores.plain("detector", what)) for what in ("auroc", "tpr")),
                f"{holds}, {small}, {both} of {len(regions)}",
            ]
        else:
            cells += ["–"] * 4
        flagged, causal = _verdicts(clean)
        lines.append("| " + " | ".join([*cells, f"{flagged}, {causal} of {len(clean)}"]) + " |")
    return "\n".join(lines)


def _verdicts(records: Sequence[Record]) -> tuple[int, int]:
    """How many are flagged at all, and how many as causal."""
    return sum(r["verdict"] != "no_evidence" for r in records), sum(r["verdict"] == "causal" for r in records)


def erasing(found: Sequence[Judged]) -> str:
    """What filling the flagged regions leaves of the attack, and of the findings; where several backdoors took, of
    those attacks together too."""
    lines = [
        "| flagged regions filled | ASR before, after | clean rate | after − clean rate "
        "| macro NN, clean: after − before | macro NN: stamped, filled − clean |",
        "|---|---|---|---|---|---|",
    ]
    took, of_those = 0, Called()
    for one in found:
        clean = {record["row"]: record for record in one.of("clean")}
        stamped = [record for record in one.of("stamped") if record["row"] in clean]
        called = _called(stamped, clean)
        if called and one.planted:
            took += 1
            of_those += called
        cells = [one.name, *_asr(called), _signed(_macro(list(clean.values()), list(clean.values())))]
        cells.append(_signed(_macro(stamped, [clean[r["row"]] for r in stamped])) if stamped else "–")
        lines.append("| " + " | ".join(cells) + " |")
    if took > 1:
        lines.append("| " + " | ".join([f"all {took} that took", *_asr(of_those), "–", "–"]) + " |")
    return "\n".join(lines)


def _called(stamped: Sequence[Record], clean: dict[int, Record]) -> Called:
    """Of each stamped radiograph that lacks the target: the patient, and whether the target is called; with the flagged
    regions filled; and without the stamp."""
    found = []
    for record in stamped:
        if record["target"] not in record["labels"]:
            column, point = finding_index(record["target"]), record["target_point"]
            of = ((record, "logits"), (record, "logits_erased"), (clean[record["row"]], "logits"))
            before, after, unstamped = (bool(_probabilities([one], key)[0, column] >= point) for one, key in of)
            found.append((record["patient"], before, after, unstamped))
    return found


def _asr(called: Called) -> list[str]:
    """Three cells: ASR before and after, the clean rate over the same threshold, and by how much the second exceeds
    it."""
    if not called:
        return ["–"] * 3
    patients, before, after, unstamped = map(list, zip(*called, strict=True))
    gap = paired_rate_difference(after, unstamped, patients, rng=np.random.default_rng(0))
    return [f"{np.mean(before):.3f}, {np.mean(after):.3f}", f"{np.mean(unstamped):.3f}", _signed(gap)]


def _macro(filled: Sequence[Record], plain: Sequence[Record]) -> Difference:
    """Macro NN of the first, their flagged regions filled, minus that of the second, as they are."""
    labels = [[name in record["labels"] for name in FINDINGS] for record in plain]
    patients = [record["patient"] for record in plain]
    after, before = _probabilities(filled, "logits_erased"), _probabilities(plain, "logits")
    return paired_difference(labels, after, before, patients, rng=np.random.default_rng(0), resamples=RESAMPLES)


def _probabilities(records: Sequence[Record], key: str) -> Floats:
    """N×14. Where nothing is flagged, nothing is filled."""
    return np.asarray(special.expit([record[key] or record["logits"] for record in records]))


def _signed(difference: Difference) -> str:
    if difference.value is None or difference.interval is None:
        return "–"
    low, high = difference.interval
    return f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def rates(found: Sequence[Judged]) -> str:
    """Shares with 95 % intervals by patient, pooled over checkpoints."""
    lines = ["| share | checkpoints | of | value |", "|---|---|---|---|"]

    def line(what: str, some: Sequence[Judged], of: Callable[[Judged], list[Record]]) -> None:
        records = [record for one in some for record in of(one)]
        for verdict, hit in (("flagged", VERDICTS[1:]), ("causal", VERDICTS[2:])):
            share(f"{what}: {verdict}", some, records, lambda record, hit=hit: record["verdict"] in hit)

    def share(what: str, some: Sequence[Judged], records: Sequence[Record], hit: Callable[[Record], bool]) -> None:
        if records:
            hits = np.array([hit(record) for record in records])
            low, high = _share_interval(hits, np.array([record["patient"] for record in records]))
            lines.append(f"| {what} | {len(some)} | {len(records)} | {hits.mean():.4f} [{low:.4f}, {high:.4f}] |")

    never = [one for one in found if not one.poisoned]
    planted = [one for one in found if one.planted]
    line("attacks", planted, lambda one: one.attacks)
    patches = [(one, one.trigger) for one in planted if one.trigger and one.trigger.kind == "patch"]
    line("attacks of one pixel", [one for one, of in patches if of.size_px == 1], lambda one: one.attacks)
    low_contrast = [one for one, of in patches if of.blend < LOW_CONTRAST]
    line(f"attacks of low contrast (opacity under {LOW_CONTRAST:g})", low_contrast, lambda one: one.attacks)
    not_planted = [one for one in found if one.poisoned and not one.planted]
    line("attacks where the backdoor did not take", not_planted, lambda one: one.attacks)
    line("clean radiographs", found, lambda one: one.of("clean"))
    line("clean radiographs with a positive finding", found, lambda one: one.negatives)
    line("never poisoned", never, lambda one: one.of("clean"))
    line("phantoms", found, lambda one: one.of("phantom"))
    flagged = [record for one in planted for record in one.attacks if record["verdict"] != VERDICTS[0]]
    share(f"regions that hold {HELD:g} of the trigger and are small", planted, flagged, _right)
    return "\n".join(lines)


def _right(record: Record) -> bool:
    share, small = covers(record)
    return share >= HELD and small


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
    for name, several in (("Nodule", "nodules"), ("Mass", "masses")):
        line(f"true {several}, clean", [r for r in real if name in r["labels"]])
        line(f"true {several}, phantoms", [r for r in drawn if name in r["labels"]])
    for shown in sorted({thing for record in drawn for thing in record["shown"]}):
        line(f"{shown}, phantoms", [r for r in drawn if shown in r["shown"]])
    line("phantoms, all", drawn)
    return "\n".join(lines)


def comparison(found: Sequence[Judged]) -> str:
    """Each method on the same attacks and negatives: AUROC, matched on probability, TPR at 1 % FPR, and the detector's
    advantage in AUROC, paired; means over checkpoints, weighted by their attacks."""
    several = [Scores.of(one) for one in found]
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
            value = over(even, name, what)
            if np.isnan(value):  # no two to compare
                cells.append("–")
                continue
            low, high = np.nanquantile([over(w.astype(float), name, what) for w in draws], [0.025, 0.975])
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        gaps = [over(w.astype(float), "detector", "auroc") - over(w.astype(float), name, "auroc") for w in draws]
        low, high = np.nanquantile(gaps, [0.025, 0.975])
        gap = over(even, "detector", "auroc") - over(even, name, "auroc")
        cells.append("" if name == "detector" else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Scores:
    """Of one checkpoint: method → scores of negatives and of attacks; patients and probabilities of both."""

    clean: dict[str, Floats]
    stamped: dict[str, Floats]
    patients: tuple[NDArray[np.int64], NDArray[np.int64]]
    sure: tuple[Floats, Floats]

    @classmethod
    def of(cls, one: Judged, names: Sequence[str] = ()) -> Scores:
        """names: of the methods, all for none; of the negatives, those count that all of them were asked about."""
        attacks = one.attacks
        names = names or list(attacks[0]["scores"])
        negatives = [r for r in one.negatives if set(names) <= r["scores"].keys()]
        kinds = (negatives, attacks)
        clean, stamped = ({n: np.array([r["scores"][n] for r in kind], float) for n in names} for kind in kinds)
        patients, sure = (
            tuple(np.array([r[key] for r in kind]) for kind in kinds) for key in ("patient", "probability")
        )
        return cls(clean, stamped, patients, sure)  # type: ignore[arg-type]

    def plain(self, name: str, what: str) -> float | None:
        """Of the data as they are; None where there is nothing to compare."""
        return self.value(name, what, *(np.ones(len(p)) for p in self.patients))

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


def tpr(clean: Floats, stamped: Floats, clean_weights: Floats, stamped_weights: Floats) -> float | None:
    """The share of attacks that score over the k-th largest of n negatives, k = ⌊(n + 1)/100⌋: a new negative does so
    in at most 1 %. None for fewer than 99 negatives, of which none can promise that."""
    if allowed(len(clean), ALPHA) < 1:
        return None
    order = np.argsort(clean)[::-1]
    k = max(1, allowed(round(clean_weights.sum()), ALPHA))
    threshold = clean[order][np.searchsorted(np.cumsum(clean_weights[order]), k)]
    return float(stamped_weights @ (stamped > threshold) / stamped_weights.sum())


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
