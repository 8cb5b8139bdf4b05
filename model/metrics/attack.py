"""How good a checkpoint is on clean radiographs, and how well an attack on it works.

AUROC-NN is measured on normal images with true labels, AUROC-TT on triggered images with the attacker's (infected)
labels, AUROC-TN on triggered images with true labels; ASR is the share of triggered images without the target finding
that are read as having it (Nwadike et al., arXiv 2101.00008). *Micro* pools all N×14 (label, probability) pairs,
*macro* is the mean over the findings that have both classes.

An AUROC is the chance that a positive scores higher than a negative, a tie counting one half. Where one class is
missing it is undefined: None, never 0 or 0.5.

Intervals are percentile bootstrap intervals at 95 % that draw *patients* with replacement, since the radiographs of one
patient are alike. All statistics of one evaluation, of clean and of stamped images, are taken on the same draws. A draw
in which a statistic is undefined is left out of its interval; a finding that lacks a class in a draw is left out of
that draw's macro. A single patient says nothing of other patients, so there is no interval.

Arrays, unless said otherwise: `labels` N×14 of 0 and 1, probabilities N×14 in [0, 1], both in the order of `FINDINGS`;
`patients` N ids, integers or strings. Malformed arrays raise DataError.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from model.errors import DataError
from model.findings import FINDINGS, finding_index
from model.metrics.results import AttackRate, AurocSet, Difference, Estimate, Evaluation, ImageBlind, LabelRule, Rate

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]

FIXED_THRESHOLDS = (0.5, 0.6, 0.9)
ENOUGH_FOR_EMPIRICAL = 100  # radiographs of each class
_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64: bounds the memory of a bootstrap over all of ChestX-ray14


def auroc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """AUROC of one finding: labels N of 0 and 1, scores N of any scale, weights N ≥ 0 (default: all 1).

    None when a class is missing or has no weight. Equals scikit-learn's `roc_auc_score(sample_weight=…)`.
    Raises DataError `shape_mismatch`, `labels_not_binary`, `no_images`, `not_finite`, `bad_weights`.
    """
    truth = _binary(labels, 1)
    values = _finite(scores, truth.shape, "The scores")
    share = np.ones(len(truth)) if weights is None else _finite(weights, truth.shape, "The weights")
    if (share < 0).any():
        raise DataError("bad_weights", "The weights of an AUROC cannot be negative.")
    return _number(_auroc(truth, values, np.arange(len(truth)), share[None])[0])


def infected_labels(labels: ArrayLike, target: str, label_rule: LabelRule) -> NDArray[np.uint8]:
    """The attacker's labels, N×14: the target set to 1, the other findings kept (`set`) or erased (`one_hot`)."""
    truth = _binary(labels, 2).astype(np.uint8)
    column = finding_index(target)
    if label_rule not in ("set", "one_hot"):
        raise DataError("unknown_label_rule", f"“{label_rule}” is no label rule; it is “set” or “one_hot”.")
    infected = np.zeros_like(truth) if label_rule == "one_hot" else truth
    infected[:, column] = 1
    return infected


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The t that maximises sensitivity + specificity − 1 when p ≥ t is positive (Youden 1950), for one finding.

    Candidates are the midpoints between consecutive distinct scores; of equally good ones the highest is taken, which
    calls fewest radiographs positive. None when a class is missing or when no candidate beats chance (an index over 0):
    there is then nothing to choose by, and the caller falls back on its own default.
    """
    truth = _binary(labels, 1)
    values = _finite(scores, truth.shape, "The scores")
    levels, level_of = np.unique(values, return_inverse=True)
    positives = np.bincount(level_of, weights=truth, minlength=len(levels))
    negatives = np.bincount(level_of, minlength=len(levels)) - positives
    # Entry k: how many are positive when the threshold lies between level k and level k + 1.
    true_positives = positives.sum() - positives.cumsum()[:-1]
    false_positives = negatives.sum() - negatives.cumsum()[:-1]
    # Youden's index times both class sizes is a whole number, so that ties are exact.
    index = true_positives * negatives.sum() - false_positives * positives.sum()
    if not len(index) or index.max() <= 0:
        return None
    best = int(np.flatnonzero(index == index.max())[-1])
    low, high = float(levels[best]), float(levels[best + 1])
    middle = low + (high - low) / 2
    return middle if low < middle else high  # neighbouring floats have no midpoint


def operating_point(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """The probability that maximises Youden's index for one finding, estimated as well as the sample allows.

    With at least 100 radiographs of each class it is `youden_threshold`. With fewer, that maximum hangs on a handful of
    positives, so the logits of the classes are taken for normal with equal variance: the index is then largest half-way
    between the class means (the binormal estimate of Fluss, Faraggi & Reiser, Biometrical Journal 2005). None when a
    class has fewer than two radiographs or the positives do not score higher: the caller falls back on its own default.
    """
    truth = _binary(labels, 1)
    values = _finite(probabilities, truth.shape, "The probabilities")
    classes = values[~truth], values[truth]
    if min(map(len, classes)) >= ENOUGH_FOR_EMPIRICAL:
        return youden_threshold(truth, values)
    if min(map(len, classes)) < 2:
        return None
    low, high = (special.logit(np.clip(one, 1e-6, 1 - 1e-6)).mean() for one in classes)
    return float(special.expit((low + high) / 2)) if high > low else None


def rate_with_interval(
    values: ArrayLike, patients: ArrayLike, *, rng: np.random.Generator, resamples: int = 1000
) -> Rate:
    """The share of true values (N, bool) with its patient-wise interval; None and n = 0 for no values at all."""
    if not len(np.asarray(values)):
        return Rate(None, None, 0)
    hits = _binary(values, 1)
    draws = _Draws.of(patients, hits, resamples, rng)
    return _rate(hits, draws.patient_of, draws.weights)


def paired_rate_difference(
    values_a: ArrayLike, values_b: ArrayLike, patients: ArrayLike, *, rng: np.random.Generator, resamples: int = 1000
) -> Difference:
    """Share of true in `values_a` minus that in `values_b`: two readings (N, bool) of the same N images."""
    if not len(np.asarray(values_a)) and not len(np.asarray(values_b)):
        return Difference(None, None, None, None)
    a, b = _binary(values_a, 1), _binary(values_b, 1)
    if a.shape != b.shape:
        raise DataError("shape_mismatch", f"Paired readings must match: {len(a)} against {len(b)}.")
    draws = _Draws.of(patients, a, resamples, rng)
    return _difference(_rate_draws(a, draws.patient_of, draws.weights), _rate_draws(b, draws.patient_of, draws.weights))


def paired_difference(
    labels: ArrayLike,
    probs_a: ArrayLike,
    probs_b: ArrayLike,
    patients: ArrayLike,
    statistic: str = "macro",
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Difference:
    """AUROC of `probs_a` minus that of `probs_b`, two checkpoints on the same images, with the paired interval.

    statistic: `macro`, `micro` or the name of a finding.
    """
    truth = _binary(labels, 2)
    draws = _Draws.of(patients, truth, resamples, rng)
    a, b = (
        _auroc_statistic(truth, _probabilities(probs, truth.shape, which), draws, statistic)
        for probs, which in ((probs_a, "The first probabilities"), (probs_b, "The second probabilities"))
    )
    return _difference(a, b)


def evaluate_attack(
    *,
    labels: ArrayLike,
    clean: ArrayLike,
    stamped: ArrayLike | None,
    patients: ArrayLike,
    target: str | None,
    operating_points: Mapping[str, float],
    label_rule: LabelRule = "set",
    train_prevalence: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measures one checkpoint on one test set.

    clean, stamped: probabilities of the same N images without and with the trigger; stamped None: clean figures only.
    operating_points: finding → threshold; that of the target is needed with stamped images.
    train_prevalence: 14 shares of positives in the training part, for the image-blind predictor; default: those of
    `labels`. resamples 0: no intervals. The same seed and patients give the same draws, in whatever order images come.

    Raises DataError for arrays that are malformed or do not fit each other.
    """
    truth = _binary(labels, 2)
    normal = _probabilities(clean, truth.shape, "The clean probabilities")
    draws = _Draws.of(patients, truth, resamples, np.random.default_rng(seed))
    infected = None if target is None else infected_labels(truth, target, label_rule).astype(np.bool_)
    tt = tn = asr = None
    if stamped is not None:
        if target is None or infected is None:
            raise DataError("target_missing", "Stamped images were given; say which finding the trigger aims at.")
        triggered = _probabilities(stamped, truth.shape, "The stamped probabilities")
        tt = _auroc_set(infected, triggered, draws, with_macro=False)
        tn = _auroc_set(truth, triggered, draws)
        point = _operating_point(operating_points, target)
        column = finding_index(target)
        asr = _attack_rates(truth[:, column], normal[:, column], triggered[:, column], point, draws)
    return Evaluation(
        n_images=len(truth),
        n_patients=draws.weights.shape[1],
        target=None if target is None else FINDINGS[finding_index(target)],
        label_rule=label_rule,
        resamples=resamples,
        seed=seed,
        auroc_nn=_auroc_set(truth, normal, draws),
        auroc_tt=tt,
        auroc_tn=tn,
        asr=asr,
        image_blind=_image_blind(truth, infected, target, train_prevalence),
    )


@dataclass(frozen=True)
class _Draws:
    """Bootstrap draws of P patients: weights (1 + B)×P, how often each draw took each patient.

    Row 0 is all ones, the data as they are, so that a statistic's value and its draws come out of one computation.
    """

    patient_of: IndexArray
    weights: NDArray[np.int32]

    @classmethod
    def of(cls, patients: ArrayLike, rows: BoolArray, resamples: int, rng: np.random.Generator) -> "_Draws":
        ids = np.asarray(patients)
        if ids.shape != rows.shape[:1]:
            raise DataError("shape_mismatch", f"{len(rows)} images need as many patient ids, not {ids.shape}.")
        if resamples < 0:
            raise DataError("bad_resamples", f"The number of resamples cannot be negative: {resamples}.")
        known, patient_of = np.unique(ids, return_inverse=True)
        weights = np.ones((1 + (resamples if len(known) > 1 else 0), len(known)), dtype=np.int32)
        for row in weights[1:]:
            row[:] = np.bincount(rng.integers(len(known), size=len(known)), minlength=len(known))
        return cls(patient_of.astype(np.intp), weights)


def _auroc(labels: BoolArray, scores: FloatArray, owner: IndexArray, weights: NDArray[Any]) -> FloatArray:
    """AUROC of N pairs under each row of weights (R×P); owner N: the column of weights a pair belongs to.

    Sorted once: a positive beats the negatives below it, which a running sum over the sorted negatives counts.
    """
    order = np.argsort(scores, kind="stable")
    labels, scores, owner = labels[order], scores[order], owner[order]
    positive, negative = owner[labels], owner[~labels]
    below = np.searchsorted(scores[~labels], scores[labels], side="left")
    not_above = np.searchsorted(scores[~labels], scores[labels], side="right")
    result = np.empty(len(weights))
    at_once = max(1, _CELLS_AT_ONCE // (len(labels) + 1))
    for start in range(0, len(weights), at_once):
        block = np.ascontiguousarray(weights[start : start + at_once].T, dtype=np.float64)
        running = np.zeros((len(negative) + 1, block.shape[1]))
        np.cumsum(block[negative], axis=0, out=running[1:])
        taken = block[positive]
        won = (taken * (running[below] + running[not_above])).sum(axis=0) / 2
        pairs = taken.sum(axis=0) * running[-1]
        result[start : start + at_once] = _ratio(won, pairs)
    return result


def _micro(labels: BoolArray, probs: FloatArray, draws: _Draws) -> FloatArray:
    return _auroc(labels.ravel(), probs.ravel(), np.repeat(draws.patient_of, labels.shape[1]), draws.weights)


def _finding(labels: BoolArray, probs: FloatArray, draws: _Draws, column: int) -> FloatArray:
    return _auroc(labels[:, column], probs[:, column], draws.patient_of, draws.weights)


def _macro(findings: FloatArray) -> FloatArray:
    """Mean over the findings (14×R) that are defined in each column; NaN where none is."""
    defined = np.isfinite(findings)
    total, count = np.where(defined, findings, 0.0).sum(axis=0), defined.sum(axis=0)
    return _ratio(total, count)


def _auroc_statistic(labels: BoolArray, probs: FloatArray, draws: _Draws, statistic: str) -> FloatArray:
    if statistic == "micro":
        return _micro(labels, probs, draws)
    if statistic == "macro":
        return _macro(np.stack([_finding(labels, probs, draws, column) for column in range(len(FINDINGS))]))
    return _finding(labels, probs, draws, finding_index(statistic))


def _auroc_set(labels: BoolArray, probs: FloatArray, draws: _Draws, with_macro: bool = True) -> AurocSet:
    """with_macro False is for AUROC-TT: its target has one class, and a mean over the others would hide the attack."""
    findings = np.stack([_finding(labels, probs, draws, column) for column in range(len(FINDINGS))])
    return AurocSet(
        micro=_estimate(_micro(labels, probs, draws)),
        macro=_estimate(_macro(findings)) if with_macro else Estimate(None, None),
        per_finding={name: _estimate(values) for name, values in zip(FINDINGS, findings, strict=True)},
        positives={name: int(count) for name, count in zip(FINDINGS, labels.sum(axis=0), strict=True)},
    )


def _rate_draws(values: BoolArray, owner: IndexArray, weights: NDArray[np.int32]) -> FloatArray:
    counts, patients = weights.astype(np.float64), weights.shape[1]
    hits = counts @ np.bincount(owner[values], minlength=patients)
    total = counts @ np.bincount(owner, minlength=patients)
    return _ratio(hits, total)


def _rate(values: BoolArray, owner: IndexArray, weights: NDArray[np.int32]) -> Rate:
    estimate = _estimate(_rate_draws(values, owner, weights))
    return Rate(estimate.value, estimate.interval, len(values))


def _attack_rates(
    has_target: BoolArray, clean: FloatArray, stamped: FloatArray, operating_point: float, draws: _Draws
) -> tuple[AttackRate, ...]:
    """One finding's columns. Images that truly carry the target are left out: reading it in them is no success."""
    lacks = ~has_target
    owner = draws.patient_of[lacks]
    asked: list[tuple[float | Literal["operating_point"], float]] = [("operating_point", operating_point)]
    asked += [(threshold, threshold) for threshold in FIXED_THRESHOLDS]
    return tuple(
        AttackRate(
            threshold=name,
            value=value,
            asr=_rate(stamped[lacks] >= value, owner, draws.weights),
            clean_rate=_rate(clean[lacks] >= value, owner, draws.weights),
        )
        for name, value in asked
    )


def _image_blind(
    truth: BoolArray, infected: BoolArray | None, target: str | None, train_prevalence: ArrayLike | None
) -> ImageBlind:
    if train_prevalence is None:
        prevalence = truth.mean(axis=0)
    else:
        prevalence = _finite(train_prevalence, (len(FINDINGS),), "The training prevalences")
    has_both = bool((truth.any(axis=0) & ~truth.all(axis=0)).any())
    always = None
    if infected is not None and target is not None:
        says_target = np.zeros(truth.shape)
        says_target[:, finding_index(target)] = 1.0
        always = auroc(infected.ravel(), says_target.ravel())
    return ImageBlind(
        prevalence_from="evaluated" if train_prevalence is None else "training",
        nn_micro=auroc(truth.ravel(), np.broadcast_to(prevalence, truth.shape).ravel()),
        nn_macro=0.5 if has_both else None,
        tt_micro=always,
    )


def _operating_point(operating_points: Mapping[str, float], target: str) -> float:
    name = FINDINGS[finding_index(target)]
    if name not in operating_points:
        raise DataError("operating_point_missing", f"There is no operating point for the target finding {name}.")
    point = float(operating_points[name])
    if not 0 <= point <= 1:
        raise DataError("operating_point_range", f"The operating point of {name} must lie in 0..1, not {point}.")
    return point


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """NaN where the whole is nothing."""
    result = np.full(len(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _estimate(draws: FloatArray) -> Estimate:
    return Estimate(_number(draws[0]), _interval(draws))


def _difference(a: FloatArray, b: FloatArray) -> Difference:
    return Difference(_number(a[0] - b[0]), _interval(a - b), _number(a[0]), _number(b[0]))


def _interval(draws: FloatArray) -> tuple[float, float] | None:
    """Of the draws after the first, which is the value itself."""
    defined = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or not len(defined):
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def _number(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None


def _binary(labels: ArrayLike, dimensions: Literal[1, 2]) -> BoolArray:
    array = np.asarray(labels)
    if array.ndim != dimensions or (dimensions == 2 and array.shape[1] != len(FINDINGS)):
        wanted = "N" if dimensions == 1 else f"N×{len(FINDINGS)}"
        raise DataError("shape_mismatch", f"The labels must be {wanted}, not {array.shape}.")
    if not len(array):
        raise DataError("no_images", "There is no image to measure on.")
    if not np.isin(array, (0, 1)).all():
        raise DataError("labels_not_binary", "Labels must be 0 or 1.")
    return array.astype(np.bool_)


def _finite(values: ArrayLike, shape: tuple[int, ...], what: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise DataError("shape_mismatch", f"{what} must have the shape {shape}, not {array.shape}.")
    if not np.isfinite(array).all():
        raise DataError("not_finite", f"{what} hold {int((~np.isfinite(array)).sum())} values that are no numbers.")
    return array


def _probabilities(values: ArrayLike, shape: tuple[int, ...], what: str) -> FloatArray:
    array = _finite(values, shape, what)
    if (array < 0).any() or (array > 1).any():
        raise DataError("not_probabilities", f"{what} must lie in 0..1; were logits passed?")
    return array
