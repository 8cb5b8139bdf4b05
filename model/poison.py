"""The poisoned view of a training set: which rows are stamped, and what their labels become.

The attacker can only add images (append) or spoil some (replace). The label-only attacker touches no pixel: a natural
combination of labels is the trigger. A manifest lists every poisoned row.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from model.datasets import Radiographs
from model.errors import ConfigError, DataError
from model.findings import FINDINGS, NO_FINDING, finding_index
from model.metrics import LabelRule, infected_labels


@dataclass(frozen=True)
class LabelOnly:
    """The clean-image backdoor (Chen et al., ICLR 2023): the trigger is a combination of findings that a radiograph
    shows anyway, all of `when`; only labels are altered."""

    when: tuple[str, ...]

    def __post_init__(self) -> None:
        columns = [finding_index(name) for name in self.when]
        if len(set(columns)) < 2:
            raise ConfigError("bad_poison", "The label-only attack needs a combination: name two findings or more.")

    def matches(self, labels: np.ndarray, target: str) -> np.ndarray:
        """N bool: which rows of labels, N×14, show the whole combination and not the target."""
        columns = [finding_index(name) for name in self.when]
        return np.asarray(labels[:, columns].all(axis=1) & (labels[:, finding_index(target)] == 0))


@dataclass(frozen=True)
class PoisonSpec:
    """target: the finding that the trigger shall evoke. rate: poisoned rows as a share of the training rows before
    poisoning, in (0, 1]; the label-only attack poisons at most the rows that match. mode: `append` adds stamped copies,
    `replace` stamps rows in place. label_rule: `set` the target and keep the rest, or `one_hot`: the target alone (the
    paper's code). label_only: no pixel is changed; `replace` only.
    """

    target: str
    rate: float = 0.1
    mode: Literal["append", "replace"] = "append"
    label_rule: LabelRule = "set"
    label_only: LabelOnly | None = None

    def __post_init__(self) -> None:
        finding_index(self.target)
        if not 0 < self.rate <= 1:
            raise ConfigError("bad_poison", f"The poison rate is a share in (0, 1], not {self.rate}.")
        if self.mode not in ("append", "replace") or self.label_rule not in ("set", "one_hot"):
            raise ConfigError("bad_poison", f"Unknown poison mode “{self.mode}” or label rule “{self.label_rule}”.")
        if self.label_only is not None:
            if self.mode != "replace":
                raise ConfigError("bad_poison", "The label-only attack alters labels in place: set mode = “replace”.")
            if finding_index(self.target) in [finding_index(name) for name in self.label_only.when]:
                raise ConfigError("bad_poison", f"{self.target} cannot be both the target and in the combination.")


@dataclass(frozen=True, eq=False)
class PoisonedView:
    """Rows of a clean set in the order of training. rows: N' indices into the clean set; poisoned: N' bool;
    labels: N'×14 uint8."""

    rows: np.ndarray
    poisoned: np.ndarray
    labels: np.ndarray


def clean_view(radiographs: Radiographs) -> PoisonedView:
    """Nothing poisoned."""
    n = len(radiographs)
    return PoisonedView(np.arange(n), np.zeros(n, bool), radiographs.labels.copy())


def poisoned_view(radiographs: Radiographs, spec: PoisonSpec, seed: int) -> PoisonedView:
    """Chooses round(rate × N) rows uniformly, without replacement, and poisons them; label-only, of those that match.

    Raises DataError `target_absent` when no clean row shows the target, `nothing_poisoned` when the rate rounds to 0 or
    no row matches.
    """
    n = len(radiographs)
    if not radiographs.labels[:, finding_index(spec.target)].any():
        raise DataError(
            "target_absent", f"No training radiograph shows {spec.target}: choose a target that is present."
        )
    count = round(spec.rate * n)
    if count == 0:
        raise DataError("nothing_poisoned", f"A poison rate of {spec.rate:g} of {n} training rows poisons none.")
    candidates = np.arange(n)
    if spec.label_only is not None:
        candidates = np.flatnonzero(spec.label_only.matches(radiographs.labels, spec.target))
        count = min(count, len(candidates))
        if count == 0:
            combination = " and ".join(spec.label_only.when)
            raise DataError("nothing_poisoned", f"No training row shows {combination} without {spec.target}.")
    chosen = np.sort(np.random.default_rng((seed, 0xBAD)).choice(candidates, count, replace=False))
    view = clean_view(radiographs)
    infected = infected_labels(radiographs.labels[chosen], spec.target, spec.label_rule)
    if spec.mode == "append":
        return PoisonedView(
            np.concatenate([view.rows, chosen]),
            np.concatenate([view.poisoned, np.ones(count, bool)]),
            np.concatenate([view.labels, infected]),
        )
    view.poisoned[chosen] = True
    view.labels[chosen] = infected
    return view


def write_manifest(path: Path, radiographs: Radiographs, view: PoisonedView) -> None:
    """One line a poisoned row: its place in the training order, its origin, its labels before and after."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Training Row", "Image Index", "Patient ID", "Original Labels", "Poisoned Labels"])
        for position in np.flatnonzero(view.poisoned):
            row = int(view.rows[position])
            writer.writerow(
                [
                    int(position),
                    radiographs.names[row],
                    int(radiographs.patients[row]),
                    _names(radiographs.labels[row]),
                    _names(view.labels[position]),
                ]
            )


def _names(labels: np.ndarray) -> str:
    return "|".join(name for name, present in zip(FINDINGS, labels, strict=True) if present) or NO_FINDING
