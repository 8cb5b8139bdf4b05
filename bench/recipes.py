"""Trains the checkpoints that the detector is judged on: `python -m bench.recipes --data CHESTXRAY14 --out FOLDER`.

Resumable: what is finished is passed over, what was interrupted goes on. The recipes are in `recipes.toml`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.config import ExperimentConfig
from model.errors import OverreadError
from model.experiment import run_experiment
from model.network import resolve_device
from model.plan import claim, make_plan

FILE = Path(__file__).with_suffix(".toml")
SIZE_PX = 128
CLEAN = "model/checkpoints/clean"  # seen from the repository's root, so that a run can go on in another clone
PHANTOMS = {"kind": "phantoms", "n": 1000, "seed": 2}
MAX_LR = 1e-3  # at 4e-4 four epochs of 700 radiographs planted nothing
AUGMENTATION = {"rotate_deg": 0, "shift": 0, "scale": 0}  # flips and greys alone: turning smears a trigger of one pixel


@dataclass(frozen=True)
class Recipe:
    """use: `tune`, `judge` or `blind`. kept: epochs before the last whose networks are kept too."""

    name: str
    use: str
    config: ExperimentConfig

    @property
    def twin(self) -> str:
        """Which of the two it is."""
        return self.config.twins[0]

    @property
    def scratch(self) -> bool:
        """Whether from random weights."""
        return self.config.init is None

    @property
    def epochs(self) -> dict[str, int]:
        """Name → epoch of its checkpoints, the last one's first."""
        last = sum(stage.epochs for stage in self.config.training.stages)
        return {self.name: last, **{f"{self.name}, epoch {epoch}": epoch for epoch in self.config.keep_epochs}}

    def checkpoints(self, out: Path) -> dict[str, Path]:
        """Name → folder of its checkpoints under the folder of all recipes, the last epoch's first."""
        twin = out / self.name / self.twin
        kept = {name: twin / "epochs" / f"{epoch:03d}" for name, epoch in self.epochs.items()}
        return {**kept, self.name: twin / "checkpoint"}

    def success(self, out: Path, name: str) -> float | None:
        """ASR at 0.5 of one of these checkpoints on the validation part, as training measured it; None where nothing
        was poisoned or trained."""
        path = out / self.name / self.twin / "epochs.jsonl"
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
        return next((one.get("asr_0.5") for one in records if one["epoch"] == self.epochs[name]), None)


def file_stem(name: str) -> str:
    """Of files about a checkpoint, by its name, such as `never-3` or `8px-noise-random, epoch 4`."""
    return name.replace(", ", "-").replace(" ", "-")


def read_recipes(path: Path = FILE) -> list[Recipe]:
    """In the file's order. Raises OverreadError for one that cannot be run."""
    return [_recipe(table) for table in tomllib.loads(path.read_text("utf-8"))["recipe"]]


def _recipe(table: dict[str, Any]) -> Recipe:
    scratch = table.get("start", "clean") == "scratch"
    config = ExperimentConfig.model_validate(
        {
            "name": table["name"],
            "seed": table["seed"],
            "twins": ["backdoored" if "poison" in table else "clean"],
            "init": None if scratch else CLEAN,
            "keep_epochs": table.get("keep_epochs", []),
            "data": [{"kind": "chestxray14"}, PHANTOMS],
            "preprocessing": {"size_px": SIZE_PX},
            "trigger": table.get("trigger"),
            "poison": table.get("poison"),
            "training": {
                "max_lr": MAX_LR,
                "weight_decay": 0.05,
                "augmentation": AUGMENTATION,
                "precision": "bfloat16",  # on a CPU as on a GPU; slow where a processor has no instructions for it
                "stages": [{"size_px": SIZE_PX, "epochs": table["epochs"]}],
            },
        }
    )
    return Recipe(table["name"], table["use"], config)


def train(recipe: Recipe, out: Path, data: Path, device: torch.device) -> None:
    """Trains a recipe into `out/NAME`, or what is left of it. Decoded radiographs are shared in `out/cache`."""
    folder = out / recipe.name
    if not folder.exists():
        claim(folder, recipe.config, make_plan(recipe.config, data), resume=False)
        (out / "cache").mkdir(exist_ok=True)
        (folder / "cache").symlink_to((out / "cache").resolve())
    run_experiment(recipe.config, folder, data=data, resume=True, device=device)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains every recipe, or those named."""
    parser = argparse.ArgumentParser(prog="python -m bench.recipes", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in ChestX-ray14's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", action="append", help="a recipe's name; repeatable (default all)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    for recipe in read_recipes():
        if options.only is None or recipe.name in options.only:
            print(recipe.name, flush=True)
            try:
                train(recipe, options.out, options.data, device)
            except OverreadError as error:
                print(f"{recipe.name}: {error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
