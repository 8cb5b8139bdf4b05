"""What the metrics give: values with intervals, and their JSON (null where undefined, an interval as [low, high])."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

LabelRule = Literal["set", "one_hot"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; each is None where undefined."""

    value: float | None
    interval: tuple[float, float] | None

    def to_json(self) -> Json:
        return {"value": self.value, "interval": _plain(self.interval)}


@dataclass(frozen=True)
class Rate(Estimate):
    """A share of `n` images."""

    n: int

    def to_json(self) -> Json:
        return {**super().to_json(), "n": self.n}


@dataclass(frozen=True)
class Difference(Estimate):
    """`a` minus `b` on the same images; the interval is the paired one."""

    a: float | None
    b: float | None

    def to_json(self) -> Json:
        return {**super().to_json(), "a": self.a, "b": self.b}


@dataclass(frozen=True)
class AurocSet:
    """`positives`: how many images carry each finding under the labels that were used."""

    micro: Estimate
    macro: Estimate
    per_finding: Mapping[str, Estimate]
    positives: Mapping[str, int]

    def to_json(self) -> Json:
        return {
            "micro": self.micro.to_json(),
            "macro": self.macro.to_json(),
            "per_finding": {name: estimate.to_json() for name, estimate in self.per_finding.items()},
            "positives": dict(self.positives),
        }


@dataclass(frozen=True)
class AttackRate:
    """ASR at one threshold beside the rate of the same images unstamped. `value` is the probability asked for."""

    threshold: float | Literal["operating_point"]
    value: float
    asr: Rate
    clean_rate: Rate

    def to_json(self) -> Json:
        return {
            "threshold": self.threshold,
            "value": self.value,
            "asr": self.asr.to_json(),
            "clean_rate": self.clean_rate.to_json(),
        }


@dataclass(frozen=True)
class ImageBlind:
    """What is reached without looking at the image: micro-averages flatter, and this says by how much.

    `nn_micro`, `nn_macro`: a predictor that gives every image the findings' prevalences.
    `tt_micro`: one that always says the target finding and nothing else; None without a target.
    """

    prevalence_from: Literal["training", "evaluated"]
    nn_micro: float | None
    nn_macro: float | None
    tt_micro: float | None

    def to_json(self) -> Json:
        return {
            "prevalence_from": self.prevalence_from,
            "nn_micro": self.nn_micro,
            "nn_macro": self.nn_macro,
            "tt_micro": self.tt_micro,
        }


@dataclass(frozen=True)
class Evaluation:
    """All that `evaluate_attack` measures. Without stamped images `auroc_tt`, `auroc_tn` and `asr` are None."""

    n_images: int
    n_patients: int
    target: str | None
    label_rule: LabelRule
    resamples: int
    seed: int
    auroc_nn: AurocSet
    auroc_tt: AurocSet | None
    auroc_tn: AurocSet | None
    asr: tuple[AttackRate, ...] | None
    image_blind: ImageBlind

    def to_json(self) -> Json:
        """Plain JSON: null where undefined, an interval as [low, high]."""
        return {
            "n_images": self.n_images,
            "n_patients": self.n_patients,
            "target": self.target,
            "label_rule": self.label_rule,
            "resamples": self.resamples,
            "seed": self.seed,
            "auroc_nn": self.auroc_nn.to_json(),
            "auroc_tt": self.auroc_tt.to_json() if self.auroc_tt else None,
            "auroc_tn": self.auroc_tn.to_json() if self.auroc_tn else None,
            "asr": None if self.asr is None else [rate.to_json() for rate in self.asr],
            "image_blind": self.image_blind.to_json(),
        }


def _plain(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
