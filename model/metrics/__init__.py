"""AUROC-NN, -TT, -TN and ASR with patient-wise intervals, and Youden's index. See `model.metrics.attack`."""

from model.metrics.attack import (
    auroc,
    evaluate_attack,
    infected_labels,
    operating_point,
    paired_difference,
    paired_rate_difference,
    rate_with_interval,
    youden_threshold,
)
from model.metrics.means import mean_with_interval
from model.metrics.results import AttackRate, AurocSet, Difference, Estimate, Evaluation, ImageBlind, LabelRule, Rate

__all__ = [
    "AttackRate",
    "AurocSet",
    "Difference",
    "Estimate",
    "Evaluation",
    "ImageBlind",
    "LabelRule",
    "Rate",
    "auroc",
    "evaluate_attack",
    "infected_labels",
    "mean_with_interval",
    "operating_point",
    "paired_difference",
    "paired_rate_difference",
    "rate_with_interval",
    "youden_threshold",
]
