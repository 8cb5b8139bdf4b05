"""Which layer's saliency finds the trigger, by epoch: the middle or the last, on the same radiographs, stamped and not.

A hit: the map of the target finding has its maximum on the trigger's place (`model.saliency.trigger_hits`). The paper
shows it for one radiograph; here it is a rate with a paired interval, and whichever layer wins is written down. Inputs
come from the cache, in 8 bits; an evaluation reads them unrounded, so a hit rate can differ by an image or two.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from model.checkpoint import load_checkpoint
from model.datasets import Radiographs, cached_images
from model.errors import ConfigError
from model.evaluation import read_inputs, trigger_boxes
from model.experiment.folder import FinishedRun
from model.findings import finding_index
from model.metrics import Difference, Rate, paired_rate_difference, rate_with_interval
from model.network import LAST_LAYER, MIDDLE_LAYER

Ahead = Literal["middle", "last", "neither"]
POOLED = "all runs"


@dataclass(frozen=True)
class HitRow:
    """Rates over readings of radiographs of `n_patients` patients. run: a run's label, or POOLED. difference: middle
    minus last, paired."""

    epoch: int
    run: str
    twin: str
    stamped: bool
    n_patients: int
    middle: Rate
    last: Rate
    difference: Difference

    @property
    def ahead(self) -> Ahead:
        """The layer whose lead the interval of the difference confirms."""
        interval = self.difference.interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "neither"
        return "middle" if interval[0] > 0 else "last"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "epoch": self.epoch,
            "run": self.run,
            "twin": self.twin,
            "stamped": self.stamped,
            "n_patients": self.n_patients,
            "middle": self.middle.to_json(),
            "last": self.last.to_json(),
            "middle_minus_last": self.difference.to_json(),
            "ahead": self.ahead,
        }


@dataclass(frozen=True)
class HitTable:
    """Rows by epoch, run, twin and stamp; with several runs the pooled rows come first in each epoch."""

    rows: tuple[HitRow, ...]
    seeds: tuple[int, ...]

    def sentences(self) -> list[str]:
        """For each epoch, which layer is ahead on the backdoored twin's stamped radiographs, and both rates on the same
        radiographs unstamped: a map that lies there anyway has found nothing. Where the layers win in different runs,
        that is said, and no winner is named."""
        rows: dict[tuple[int, bool], list[HitRow]] = {}
        for row in self.rows:
            if row.twin == "backdoored":
                rows.setdefault((row.epoch, row.stamped), []).append(row)
        return [_sentence(several, rows[epoch, False][0]) for (epoch, stamped), several in rows.items() if stamped]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "seeds": list(self.seeds),
            "rows": [row.to_json() for row in self.rows],
            "sentences": self.sentences(),
        }

    def write_csv(self, path: Path) -> None:
        """One line a row; empty where there is no interval."""
        names = ("middle", "last", "middle_minus_last")
        header = ["epoch", "run", "twin", "stamped", "readings", "patients"]
        header += [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")] + ["ahead"]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in self.rows:
                cells: list[object] = [row.epoch, row.run, row.twin, "yes" if row.stamped else "no"]
                cells += [row.middle.n, row.n_patients]
                for estimate in (row.middle, row.last, row.difference):
                    low, high = estimate.interval or (None, None)
                    cells += ["" if v is None else round(v, 6) for v in (estimate.value, low, high)]
                writer.writerow([*cells, row.ahead])


def _sentence(rows: Sequence[HitRow], unstamped: HitRow) -> str:
    """rows: of one epoch, stamped; the pooled one first where there are several."""

    def say(rate: Rate) -> str:
        return "–" if rate.value is None else f"{rate.value:.3f}"

    row, ahead = rows[0], {one.run: one.ahead for one in rows if one.run != POOLED}
    difference, interval = row.difference.value, row.difference.interval
    rates = f"middle {say(row.middle)}, last {say(row.last)}"
    if difference is not None and interval is not None:
        rates += f", difference {difference:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]".replace("-", "−")
    rates += f"; unstamped {say(unstamped.middle)} and {say(unstamped.last)}"
    verdict = {
        "middle": "the middle layer finds the trigger more often",
        "last": "the last layer finds the trigger more often",
        "neither": "neither layer is shown to find the trigger more often",
    }[row.ahead]
    if {"middle", "last"} <= set(ahead.values()):
        winners = "; ".join(f"{run}: {layer}" for run, layer in ahead.items())
        verdict = f"the runs disagree about which layer finds the trigger more often ({winners}); of all readings"
    return f"Epoch {row.epoch}: {verdict} ({rates})."


Hits = dict[tuple[int, str, bool], dict[str, np.ndarray]]  # (epoch, twin, stamped) → layer → N bool


def hit_table(
    runs: Sequence[FinishedRun],
    radiographs: Radiographs,
    *,
    device: str | torch.device = "cpu",
    workers: int = 1,
    resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> HitTable:
    """Reads the radiographs, stamped and not, with both twins at every kept epoch of every run.

    Intervals draw patients, with all their radiographs and all runs' readings of them; what differs from seed to seed
    is seen in the runs' own rows.

    Raises ConfigError `no_place` for a trigger without a place.
    """
    if any(run.config.trigger is None or run.config.trigger.whole for run in runs):
        raise ConfigError("no_place", "The trigger has no place that a saliency map could hit.")
    read = {}
    total = sum(len(run.kept) for run in runs) * 4 * len(radiographs)
    done = 0
    for run in runs:
        hits: Hits = {}
        for key, value in _read_run(run, radiographs, torch.device(device), workers):
            hits[key] = value
            done += len(radiographs)
            if progress:
                progress(done, total)
        read[run.label] = hits
    return HitTable(tuple(_rows(read, radiographs.patients, resamples)), tuple(run.config.seed for run in runs))


def _read_run(
    run: FinishedRun, radiographs: Radiographs, device: torch.device, workers: int
) -> Iterator[tuple[tuple[int, str, bool], dict[str, np.ndarray]]]:
    """What the run's `Hits` are made of, one reading of the radiographs after the other."""
    config = run.config
    assert config.poison is not None
    target = finding_index(config.poison.target)
    for epoch in run.kept:
        for twin in ("clean", "backdoored"):
            checkpoint = load_checkpoint(run.checkpoint(twin, epoch), device)
            pre = checkpoint.card.preprocessing
            trigger = run.trigger_at(pre.size_px)
            assert trigger is not None
            boxes = trigger_boxes(radiographs, trigger, pre, config.seed)
            for stamp in (trigger, None):
                images = cached_images(
                    radiographs, [pre], run.folder / "cache", trigger=stamp, seed=config.seed, workers=workers
                )[0]
                yield (
                    (epoch, twin, stamp is not None),
                    read_inputs(checkpoint.network, images, pre, target, boxes, device)[1],
                )


def _rows(read: Mapping[str, Hits], patients: np.ndarray, resamples: int) -> list[HitRow]:
    rows = []
    for epoch, twin, stamped in sorted({key for hits in read.values() for key in hits}, key=_order):
        several = {label: hits[epoch, twin, stamped] for label, hits in read.items() if (epoch, twin, stamped) in hits}
        if len(several) > 1:
            readings = list(several.values())
            pooled = {layer: np.concatenate([hits[layer] for hits in readings]) for layer in readings[0]}
            several = {POOLED: pooled, **several}
        for label, hits in several.items():
            readers = len(hits[MIDDLE_LAYER]) // len(patients)
            rows.append(_row(epoch, label, twin, stamped, hits, np.tile(patients, readers), resamples))
    return rows


def _order(key: tuple[int, str, bool]) -> tuple[int, bool, bool]:
    """The backdoored twin's stamped radiographs first."""
    epoch, twin, stamped = key
    return epoch, twin != "backdoored", not stamped


def _row(
    epoch: int, label: str, twin: str, stamped: bool, hits: dict[str, np.ndarray], patients: np.ndarray, resamples: int
) -> HitRow:
    middle, last = hits[MIDDLE_LAYER], hits[LAST_LAYER]

    def rate(values: np.ndarray) -> Rate:
        return rate_with_interval(values, patients, rng=np.random.default_rng(0), resamples=resamples)

    difference = paired_rate_difference(middle, last, patients, rng=np.random.default_rng(0), resamples=resamples)
    return HitRow(epoch, label, twin, stamped, len(np.unique(patients)), rate(middle), rate(last), difference)
