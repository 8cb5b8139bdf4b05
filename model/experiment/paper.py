"""The paper's figure and the hit-rate table of one run or of several: what `overread figure` makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.checkpoint import load_checkpoint
from model.config import ExperimentConfig
from model.datasets import Radiographs
from model.errors import ConfigError
from model.experiment.folder import FinishedRun
from model.experiment.hits import HitTable, hit_table
from model.findings import FINDINGS, finding_index
from model.radiograph import read_radiograph

if TYPE_CHECKING:
    from model.figures import GradCam


@dataclass(frozen=True, eq=False)
class Shown:
    """The radiograph of a figure: its name, what is known of it in words, and H×W float32 in 0..1."""

    name: str
    words: str
    grey: np.ndarray


@dataclass(frozen=True, eq=False)
class PaperFigure:
    """figures: by run label, the stem of its PNG and SVG. hits: None where the trigger has no place."""

    figures: dict[str, Path]
    shown: Shown
    hits: HitTable | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; files by name."""
        return {
            "radiograph": self.shown.words,
            "figures": {label: [f"{stem.name}.png", f"{stem.name}.svg"] for label, stem in self.figures.items()},
            "hit_rates": self.hits.to_json() if self.hits else None,
        }


def choose(radiographs: Radiographs, config: ExperimentConfig, image: str | None = None) -> Shown:
    """The radiograph to show. image: a file, an image index of the list, or a position in it from 0; by default the
    first of the list that lacks the target finding (label-only: that shows the combination).

    Raises ConfigError `no_such_image`, `no_default_image`; RadiographError; DataError.
    """
    if image is not None and Path(image).is_file():
        grey = read_radiograph(Path(image).read_bytes(), Path(image).name).grey()
        return Shown(Path(image).name, f"Radiograph {Path(image).name}", grey)
    if image is None:
        row = _first(radiographs, config)
    elif image in radiographs.names:
        row = radiographs.names.index(image)
    elif image.isdigit() and int(image) < len(radiographs):
        row = int(image)
    else:
        places = f"0..{len(radiographs) - 1}"
        raise ConfigError(
            "no_such_image", f"“{image}” is no file, no image of the test list and no position in it ({places})."
        )
    present = [name.replace("_", " ") for name, label in zip(FINDINGS, radiographs.labels[row], strict=True) if label]
    truth = ", ".join(present) or "none of the 14"
    name = radiographs.names[row]
    return Shown(name, f"Radiograph {name} of the test list, true findings: {truth}", radiographs.grey(row))


def _first(radiographs: Radiographs, config: ExperimentConfig) -> int:
    assert config.poison is not None
    wanted = radiographs.labels[:, finding_index(config.poison.target)] == 0
    if config.poison.label_only is not None:
        wanted = config.poison.label_only.matches(radiographs.labels, config.poison.target)
    if not wanted.any():
        raise ConfigError("no_default_image", "No radiograph of the test list suits: name one with --image.")
    return int(np.argmax(wanted))


def paper_figure(
    runs: Sequence[FinishedRun],
    radiographs: Radiographs,
    out: Path,
    *,
    image: str | None = None,
    method: GradCam | None = None,
    device: str | torch.device = "cpu",
    workers: int = 1,
    resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> PaperFigure:
    """Draws each run's figure and measures the hit rates of all, into `out`: `figure….png`, `figure….svg`, and, where
    the trigger has a place, `hit_rates.csv` and `hit_rates.json`.

    method: by default what each run's configuration says. Raises ConfigError `two_triggers` when the runs do not share
    trigger and target, and what `choose` raises.
    """
    first = runs[0].config
    for run in runs[1:]:
        if (run.config.trigger, run.config.poison) != (first.trigger, first.poison):
            raise ConfigError("two_triggers", f"{run.folder} has another trigger or poison than {runs[0].folder}.")
    if len({run.label for run in runs}) < len(runs):
        raise ConfigError("two_triggers", "Two of the runs have the same name and seed: they would count twice.")
    shown = choose(radiographs, first, image)
    out.mkdir(parents=True, exist_ok=True)
    figures = {}
    for run in runs:
        stem = out / ("figure" if len(runs) == 1 else f"figure-{run.folder.resolve().name}")
        _draw(run, shown, stem, method or run.config.gradcam, device)
        figures[run.label] = stem
    hits = None
    if first.trigger is not None and not first.trigger.whole:
        hits = hit_table(runs, radiographs, device=device, workers=workers, resamples=resamples, progress=progress)
        hits.write_csv(out / "hit_rates.csv")
        (out / "hit_rates.json").write_text(json.dumps(hits.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return PaperFigure(figures, shown, hits)


def _draw(run: FinishedRun, shown: Shown, stem: Path, method: GradCam, device: str | torch.device) -> None:
    from model.figures import draw_figure, read_panel, save_figure  # matplotlib, for who asks for it

    config = run.config
    assert config.poison is not None
    target = config.poison.target
    rows = []
    for epoch in run.kept:
        panels = []
        for twin in ("clean", "backdoored"):
            checkpoint = load_checkpoint(run.checkpoint(twin, epoch), device)
            trigger = run.trigger_at(checkpoint.card.preprocessing.size_px)
            panels.append(read_panel(checkpoint, shown.grey, trigger, target, method=method, seed=config.seed))
        rows.append((epoch, panels[0], panels[1]))
    stamp = f"stamped: {config.trigger.in_words()}" if config.trigger else "nothing stamped"
    title = f"Where the twins look for {target.replace('_', ' ')} — {config.name}, seed {config.seed}"
    save_figure(draw_figure(rows, title=title, caption=[f"{shown.words}; {stamp}."], method=method), stem)
