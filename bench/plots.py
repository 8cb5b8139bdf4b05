"""A benchmark of the detector as pictures: ROC curves beside the baselines, and what went wrong.

The pictures of what went wrong show radiographs of the data set: they stay in the folder of the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.judging import Record
from bench.recipes import SIZE_PX, file_stem
from bench.tables import Judged, Scores
from model.datasets import Radiographs, input_images
from model.preprocess import Preprocessing
from model.trigger import Trigger

MOST = 12  # pictures a sheet
COLUMNS = 4


def roc(found: Sequence[Judged], path: Path) -> None:
    """Each method's ROC over the negatives and attacks of all checkpoints whose backdoor took; the scores of each are
    ranked within its checkpoint, as its thresholds are."""
    several = [Scores.of(one) for one in found if one.planted and one.attacks]
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    rates = np.geomspace(1e-3, 1, 200)
    for name in several[0].clean:
        curve = np.zeros_like(rates)
        attacks = 0
        for scores in several:
            clean, stamped = np.sort(scores.clean[name]), scores.stamped[name]
            over = 1 - np.searchsorted(clean, stamped, side="left") / len(clean)  # rate at which each is just found
            curve += (over[:, None] <= rates).sum(0)
            attacks += len(stamped)
        own = name == "detector"
        axes.plot(rates, curve / attacks, label=name, linewidth=2.5 if own else 1, zorder=3 if own else 2)
    axes.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.02), xlabel="false-positive rate", ylabel="true-positive rate")
    axes.axvline(0.01, color="0.6", linestyle=":", linewidth=1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small", framealpha=1)
    figure.savefig(path)


def failures(found: Sequence[Judged], test: Radiographs, folder: Path) -> list[Path]:
    """Of each checkpoint a sheet of attacks that were not flagged, and one of clean radiographs that were."""
    written = []
    for one in found:
        sheets = (
            ("missed", [r for r in one.attacks if r["verdict"] == "no_evidence"], one.trigger),
            ("false", [r for r in one.of("clean") if r["verdict"] != "no_evidence"], None),
        )
        for name, records, trigger in sheets:
            if records:
                path = folder / f"{file_stem(one.name)}-{name}.png"
                _sheet(records[:MOST], _reader(test, trigger), path)
                written.append(path)
    return written


def _reader(test: Radiographs, trigger: Trigger | None) -> Callable[[int], np.ndarray]:
    def image(row: int) -> np.ndarray:
        (plain,) = input_images(test.take([row]), Preprocessing(SIZE_PX))
        return trigger.stamp(plain, np.random.default_rng((0, row))) if trigger else plain

    return image


def _sheet(records: Sequence[Record], image: Callable[[int], np.ndarray], path: Path) -> None:
    rows = -(-len(records) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, record in zip(grid.flat, records, strict=False):
        axes.imshow(image(record["row"]), cmap="gray", vmin=0, vmax=1)
        regions = record["evidence"]["regions_input_px"] if record["evidence"] else []
        for colour, boxes in (("tab:red", regions), ("tab:cyan", [record["trigger"]] if "trigger" in record else [])):
            for x, y, width, height in boxes:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=colour))
        tested = "" if record["tested"] else ", not tested"
        axes.set_title(
            f"{record['finding']}, {record['verdict'].replace('_', ' ')}\np {record['p']:.3f}{tested}", fontsize=8
        )
    figure.savefig(path, dpi=110)
