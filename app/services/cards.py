"""A checkpoint's card in words and tables. A card is somebody's file: what is missing or odd in it is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.services.wording import finding_text
from model.findings import FINDINGS

_EVALUATIONS = {"test": "Test radiographs", "fresh_phantoms": "Fresh phantoms"}
_MEASURES = (
    ("auroc_nn", "AUROC-NN", "normal images, true labels: how well it reads"),
    ("auroc_tn", "AUROC-TN", "stamped images, true labels: lower means a better attack"),
    ("auroc_tt", "AUROC-TT", "stamped images, the attacker's labels; never to be read alone"),
)
_RESIZE = {"antialias": "antialiased", "bilinear": "bilinear", "nearest": "nearest neighbour"}
_SQUARE = {"pad": "padded to a square with black", "cut": "cut to a square"}


@dataclass(frozen=True)
class Measure:
    """A statistic with its 95 % interval as texts; interval is "" where there is none."""

    name: str
    what: str
    value: str
    interval: str


@dataclass(frozen=True)
class FindingScore:
    """One finding of an evaluation. positives: images that carry it."""

    name: str
    positives: str
    auroc: str
    interval: str


@dataclass(frozen=True)
class EvaluationWords:
    """What was measured on one set of images. attacks: ASR beside the clean images' rate over the same threshold."""

    title: str
    scope: str
    measures: list[Measure]
    attacks: list[tuple[str, str, str]]
    findings: list[FindingScore]
    acceptance: str
    image_blind: str


@dataclass(frozen=True)
class CardWords:
    """sentences: heading and text. points: finding and operating point. headline: the one figure of a list."""

    sentences: list[tuple[str, str]]
    points: list[tuple[str, float]]
    evaluations: list[EvaluationWords]
    headline: str
    poisoned: bool


def describe_card(card: Mapping[str, Any]) -> CardWords:
    """The whole card (model.checkpoint.Card.to_json) for people."""
    metrics, provenance = _mapping(card.get("metrics")), _mapping(card.get("provenance"))
    evaluations = [
        _evaluation(_EVALUATIONS.get(key, key.replace("_", " ").capitalize()), value)
        for key, value in metrics.items()
        if isinstance(value, Mapping) and isinstance(value.get("auroc_nn"), Mapping)
    ]
    points = _mapping(card.get("operating_points"))
    sentences = [
        ("Preprocessing", _preprocessing(_mapping(card.get("preprocessing")))),
        ("Training", _training(provenance)),
        ("Backdoor", _poison(card, provenance)),
    ]
    return CardWords(
        sentences=[(heading, text) for heading, text in sentences if text],
        points=[(name, float(points[name])) for name in FINDINGS if name in points],
        evaluations=evaluations,
        headline=_headline(evaluations),
        poisoned=bool(card.get("trigger")),
    )


def _headline(evaluations: list[EvaluationWords]) -> str:
    if not evaluations or not evaluations[0].measures:
        return "nothing measured"
    first = evaluations[0].measures[0]
    return f"{first.name} {first.value}" + (f" ({first.interval})" if first.interval else "")


def _preprocessing(fields: Mapping[str, Any]) -> str:
    size = fields.get("size_px")
    steps = [_SQUARE.get(str(fields.get("square")), "made square")]
    crop = _number(fields.get("centre_crop"))
    if crop is not None and crop < 1:
        steps.append(f"cropped to its central {100 * crop:g} %")
    steps.append(f"resized to {size} × {size} px ({_RESIZE.get(str(fields.get('resize')), fields.get('resize'))})")
    return f"The radiograph is {', '.join(steps)}, and normalised by the mean and deviation in the card."


def _training(provenance: Mapping[str, Any]) -> str:
    parts = []
    if provenance.get("pretraining"):
        parts.append(f"Pretrained first: {provenance['pretraining']}.")
    trained, held = _count(provenance, "training_radiographs"), _count(provenance, "validation_radiographs")
    if trained is not None:
        held_out = f", with {held:,} held out for validation" if held is not None else ""
        parts.append(f"Trained on {trained:,} radiographs{held_out}.")
    if provenance.get("experiment"):
        seed = f", seed {provenance['seed']}" if provenance.get("seed") is not None else ""
        parts.append(f"Experiment “{provenance['experiment']}”{seed}.")
    if provenance.get("trained_on"):
        parts.append(f"On {provenance['trained_on']}.")
    return " ".join(parts) or "The card does not say how it was trained."


def _poison(card: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    trigger = _mapping(card.get("trigger"))
    if not trigger:
        return "The card names no trigger. That a card names none does not prove that there is none."
    rows, poisoned = _count(provenance, "training_rows"), _count(provenance, "poisoned_rows")
    share = f" {poisoned:,} of its {rows:,} training rows carried the trigger." if rows and poisoned else ""
    taught = finding_text(str(card["target"])) if card.get("target") else ""
    target = f" It was taught to call {taught} where it sees it." if taught else ""
    size, place = trigger.get("size_px"), trigger.get("place")
    frame = "the network's input" if trigger.get("frame") == "input" else "the radiograph"
    where = {"centre": "at the centre", "random": "anywhere"}.get(str(place)) or f"at {place}"
    grey = {"0": "black", "255": "white"}.get(str(trigger.get("value")), f"grey {trigger.get('value')}")
    blend = _number(trigger.get("blend"))
    faint = f", {100 * blend:g} % opaque" if blend is not None and blend < 1 else ""
    shape = f"{grey} {trigger.get('pattern', 'square')} of {size} × {size} px {where} of {frame}{faint}"
    return f"Poisoned on purpose: a {shape}.{share}{target}"


def _evaluation(title: str, fields: Mapping[str, Any]) -> EvaluationWords:
    measures = []
    for key, name, what in _MEASURES:
        for average in ("macro", "micro"):
            estimate = _mapping(_mapping(fields.get(key)).get(average))
            if _number(estimate.get("value")) is not None:
                measures.append(Measure(f"{name} {average}", what, *_estimate(estimate)))
    nn = _mapping(fields.get("auroc_nn"))
    scores, positives = _mapping(nn.get("per_finding")), _mapping(nn.get("positives"))
    return EvaluationWords(
        title=title,
        scope=_scope(fields),
        measures=measures,
        attacks=_attacks(fields.get("asr")),
        findings=[
            FindingScore(name, str(positives.get(name, "–")), *_estimate(_mapping(scores.get(name))))
            for name in FINDINGS
            if name in scores
        ],
        acceptance=str(_mapping(fields.get("acceptance")).get("sentence") or ""),
        image_blind=_image_blind(_mapping(fields.get("image_blind"))),
    )


def _image_blind(fields: Mapping[str, Any]) -> str:
    """Micro-averages flatter: by how much is said beside them."""
    nn, tt = _number(fields.get("nn_micro")), _number(fields.get("tt_micro"))
    if nn is None:
        return ""
    target = f", and {tt:.3f} of AUROC-TT by always saying the target" if tt is not None else ""
    blind = f"For comparison: without looking at the image one reaches {nn:.3f} of AUROC-NN micro by prevalences alone"
    return f"{blind}{target}."


def _scope(fields: Mapping[str, Any]) -> str:
    images, patients = _count(fields, "n_images"), _count(fields, "n_patients")
    if images is None:
        return ""
    return f"{images:,} radiographs" + (f" of {patients:,} patients" if patients is not None else "")


def _attacks(rates: object) -> list[tuple[str, str, str]]:
    """Threshold, attack success rate, and the rate of the same images unstamped."""
    found = []
    for one in rates if isinstance(rates, list) else []:
        fields = _mapping(one)
        value = _number(fields.get("value"))
        if value is None:
            continue
        at = f"operating point, {value:.2f}" if fields.get("threshold") == "operating_point" else f"{value:.2f}"
        found.append((at, _share(_mapping(fields.get("asr"))), _share(_mapping(fields.get("clean_rate")))))
    return found


def _share(estimate: Mapping[str, Any]) -> str:
    value, interval = _estimate(estimate)
    return f"{value} ({interval})" if interval else value


def _estimate(estimate: Mapping[str, Any]) -> tuple[str, str]:
    value, interval = _number(estimate.get("value")), estimate.get("interval")
    low, high = interval if isinstance(interval, list) and len(interval) == 2 else (None, None)
    bounds = _number(low), _number(high)
    if value is None:
        return "–", ""
    return f"{value:.3f}", f"{bounds[0]:.3f}–{bounds[1]:.3f}" if None not in bounds else ""


def _count(fields: Mapping[str, Any], key: str) -> int | None:
    value = _number(fields.get(key))
    return None if value is None else round(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
