"""The detector beside what others publish, on one split: `make bench-detector`, `python -m bench.detector --help`.

The checkpoints of `bench/recipes.toml` are trained where they are missing, calibrated on the calibration part, and
judged on the test part, which nothing was chosen by. What is finished is kept in the folder given, and not done again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from bench.judging import JUDGED, Material, Record, Sample, judge, read_records
from bench.kept import read_kept
from bench.machine import machine
from bench.plots import failures, roc
from bench.recipes import Recipe, read_recipes, train
from bench.tables import Judged, report
from model.checkpoint import BUNDLED, load_checkpoint
from model.datasets import Part, Radiographs, chestxray14, phantoms
from model.detector import Detector, Plan, fit_calibration, read_calibration, reading_digest, write_calibration
from model.errors import OverreadError
from model.network import resolve_device
from model.saliency import gradcam


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.detector", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in ChestX-ray14's layout")
    parser.add_argument("--out", type=Path, help="folder of runs, calibrations and judgements; of pictures with --kept")
    parser.add_argument("--only", action="append", help="a recipe's name; repeatable (default all)")
    parser.add_argument("--trained", action="store_true", help="train nothing: judge what there is")
    parser.add_argument("--reported", action="store_true", help="judge nothing either: the tables of what is judged")
    parser.add_argument("--kept", action="store_true", help="the tables of the records that the repository keeps")
    parser.add_argument("--use", default="judge", choices=("judge", "tune", "blind"), help="which recipes")
    parser.add_argument("--epochs", default="all", choices=("all", "last", "kept"), help="of a recipe (default all)")
    parser.add_argument("--clean", type=int, default=0, help="at most so many a checkpoint (default all)")
    parser.add_argument("--stamped", type=int, default=0, help="at most so many a checkpoint (default all)")
    parser.add_argument("--beside", type=int, default=0, help="negatives that baselines are asked about (default all)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--phantoms", type=int, default=400, help="fresh phantoms, for hard negatives")
    parser.add_argument("--jobs", type=int, default=1, help="recipes at once, each in a process of its own (default 1)")
    options = parser.parse_args(argv)
    if not (options.out or options.kept):
        parser.error("--out is needed, but for --kept")
    if options.jobs > 1 and not (options.reported or options.kept):
        chosen = [recipe.name for recipe, _ in _asked(options)]
        same = ("data", "out", "use", "epochs", "clean", "stamped", "beside", "phantoms", "device")
        arguments = [part for key in same for part in (f"--{key}", str(getattr(options, key)))]
        if not in_parallel([*arguments, *(["--trained"] if options.trained else [])], chosen, options.jobs):
            return 1
        options.reported = True
    everybody = chestxray14(options.data)
    test = everybody.part(Part.VALIDATION if options.use == "tune" else Part.TEST)  # who tunes sees nobody of the test
    asked = _asked(options)
    found = _kept(asked, test) if options.kept else _judged(options, asked, everybody, test)
    about = "Records that are kept" if options.kept else machine()
    print(f"{about}\n{len(test)} radiographs of {len(set(test.patients.tolist()))} patients\n")
    print(report(found))
    if options.out:
        (options.out / "failures").mkdir(parents=True, exist_ok=True)
        if any(one.planted and one.attacks for one in found):
            roc(found, options.out / "roc.svg")
        failures(found, test, options.out / "failures")
    return 0


def _asked(options: argparse.Namespace) -> list[tuple[Recipe, list[str]]]:
    """Recipes, and the names of their checkpoints, that the options choose."""

    def chosen(recipe: Recipe, name: str) -> bool:
        return options.epochs in ("all", "last" if name == recipe.name else "kept")

    return [
        (recipe, [name for name in recipe.epochs if chosen(recipe, name)])
        for recipe in read_recipes()
        if recipe.use == options.use and recipe.name in (options.only or [recipe.name])
    ]


def _kept(asked: list[tuple[Recipe, list[str]]], test: Radiographs) -> list[Judged]:
    """What the repository keeps of them."""
    found = (read_kept(name, recipe, test) for recipe, names in asked for name in names)
    return [one for one in found if one]


def _judged(
    options: argparse.Namespace, asked: list[tuple[Recipe, list[str]]], everybody: Radiographs, test: Radiographs
) -> list[Judged]:
    """What is judged of them in the folder; trained and judged first, where that is asked."""
    sample = Sample(options.clean, options.stamped, options.beside, options.phantoms)
    device = resolve_device(options.device)
    material = Material(test, everybody.part(Part.TRAINING), options.out / "cache")
    found = []
    for recipe, names in asked:
        if not (options.trained or options.reported):
            print(f"Training {recipe.name}", file=sys.stderr, flush=True)
            train(recipe, options.out, options.data, device)
        for name in names:
            folder = recipe.checkpoints(options.out)[name]
            if (folder / "card.json").is_file() and not options.reported:
                print(f"Judging {folder}", file=sys.stderr, flush=True)
                records = judged(folder, options.data, material, sample, device)
            else:
                records = list(read_records(folder / JUDGED).values())
            if records:
                found.append(Judged(name, recipe, records, recipe.success(options.out, name)))
    return found


def in_parallel(arguments: Sequence[str], names: Sequence[str], jobs: int) -> bool:
    """Whether every recipe's own process ended well. On a GPU they share it: start CUDA's MPS before."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))

    def alone(name: str) -> bool:
        command = [sys.executable, "-m", "bench.detector", *arguments, "--only", name]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0

    with ThreadPoolExecutor(jobs) as executor:
        return all(list(executor.map(alone, names)))


def small() -> None:
    """For `make bench`: the bundled candidate on phantoms, and what screen and full test cost beside the analysis."""
    folder = BUNDLED / "backdoored"
    checkpoint = load_checkpoint(folder)
    detector = Detector(checkpoint, read_calibration([folder], checkpoint.card.weights_sha256))
    with tempfile.TemporaryDirectory() as cache:
        test, training = phantoms(6, 5512, part=Part.TEST), phantoms(16, 5513, part=Part.TRAINING)
        material = Material(test, training, Path(cache))
        records = judge(detector, material, Sample(stamped=4, beside=2), Path(cache) / JUDGED)
        images = material.images(detector, test)
    print(report([Judged("bundled", None, records)]))
    inputs = detector.reader.inputs(images)
    analysis, screened = [], []
    for _ in range(5):
        began = time.perf_counter()
        maps = gradcam(checkpoint.network, inputs, keep_middle=True)
        analysis.append(time.perf_counter() - began)
        began = time.perf_counter()
        detector.screen(maps)
        screened.append(time.perf_counter() - began)
    assert checkpoint.card.trigger is not None
    stamped = checkpoint.card.trigger.stamp(images[0].numpy())
    began = time.perf_counter()
    detector.examine(stamped)
    ratio = statistics.median(screened) / statistics.median(analysis)
    print(f"\nscreen / analysis: {ratio:.2f} ({len(images)} radiographs)")
    print(f"analysis and full test of one finding: {time.perf_counter() - began:.1f} s")


def judged(folder: Path, data: Path, material: Material, sample: Sample, device: torch.device) -> list[Record]:
    """Of a checkpoint that is calibrated first, where it is not."""
    checkpoint = load_checkpoint(folder, device)
    bound = checkpoint.card.weights_sha256, reading_digest(checkpoint.card)
    if read_calibration([folder], *bound) is None:
        radiographs = chestxray14(data).part(Part.CALIBRATION)
        plan = Plan(own_donors=True)  # as `overread calibrate --data` has them
        write_calibration(folder, fit_calibration(checkpoint, radiographs, plan, data=data.resolve().name))
    calibration = read_calibration([folder], *bound)
    return judge(Detector(checkpoint, calibration), material, sample, folder / JUDGED)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OverreadError as error:
        sys.exit(f"bench.detector: {error}")
