"""The records of judged checkpoints that the repository keeps: `python -m bench.kept --data CHESTXRAY14 --out FOLDER`.

The tables come from them in seconds, without training or judging anything: `python -m bench.detector --kept`. A
file holds what the networks and the detector said, and nothing of the data set: whose radiograph it was and what it
shows is read from the folder that is given, and must be what was judged.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.judging import JUDGED, Record, read_records
from bench.recipes import Recipe, file_stem, read_recipes
from bench.tables import Judged
from model.datasets import Part, Radiographs, chestxray14
from model.errors import DataError, OverreadError
from model.findings import FINDINGS

KEPT = Path(__file__).parent / "judged"
OF_THE_DATA = ("patient", "labels")  # of radiographs; phantoms are drawn here


def kept_path(name: str, folder: Path = KEPT) -> Path:
    """Where a checkpoint's records are, by its name."""
    return folder / f"{file_stem(name)}.jsonl.gz"


def keep(one: Judged, test: Radiographs, folder: Path = KEPT) -> Path:
    """Writes a checkpoint's records, the same bytes for the same records. Raises DataError `other_data` where they are
    not of these radiographs."""
    assert one.recipe is not None
    lines: list[dict[str, Any]] = [
        {
            "checkpoint": one.name,
            "recipe": one.recipe.config.model_dump(mode="json"),
            "success": one.success,
            "test": test.fingerprint(),
        }
    ]
    for record in sorted(one.records, key=lambda record: (record["kind"], record["row"])):
        if record["kind"] != "phantom":
            if {name: record[name] for name in OF_THE_DATA} != _of_the_data(test, record["row"]):
                raise DataError("other_data", f"The records of {one.name} are not of these radiographs.")
            record = {name: value for name, value in record.items() if name not in OF_THE_DATA}
        lines.append(record)
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    path = kept_path(one.name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def read_kept(name: str, recipe: Recipe, test: Radiographs, folder: Path = KEPT) -> Judged | None:
    """A checkpoint's records, or None where none are kept, or those of a recipe that has changed since. Raises
    DataError `other_data` where they are of other radiographs."""
    path = kept_path(name, folder)
    if not path.is_file():
        return None
    about, *records = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
    if about["recipe"] != recipe.config.model_dump(mode="json"):
        return None
    if about["test"] != test.fingerprint():
        raise DataError("other_data", f"{path.name} is of other radiographs than the test part that was given.")
    whole: list[Record] = [
        record if record["kind"] == "phantom" else record | _of_the_data(test, record["row"]) for record in records
    ]
    return Judged(name, recipe, whole, about["success"])


def _of_the_data(test: Radiographs, row: int) -> dict[str, Any]:
    labels = [FINDINGS[column] for column in np.flatnonzero(test.labels[row]).tolist()]
    return {"patient": int(test.patients[row]), "labels": labels}


def main(argv: Sequence[str] | None = None) -> int:
    """Keeps what is judged in a folder, and says what it kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.kept", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in ChestX-ray14's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and judgements")
    parser.add_argument("--only", action="append", help="a recipe's name; repeatable (default all)")
    options = parser.parse_args(argv)
    test = chestxray14(options.data).part(Part.TEST)
    for recipe in read_recipes():
        if recipe.use == "tune" or (options.only and recipe.name not in options.only):
            continue
        for name, folder in recipe.checkpoints(options.out).items():
            records = list(read_records(folder / JUDGED).values())
            if records:
                path = keep(Judged(name, recipe, records, recipe.success(options.out, name)), test)
                print(f"{path.name}: {len(records)} records, {path.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OverreadError as error:
        sys.exit(f"bench.kept: {error}")
