"""What a run did, in words and from its own files, for its report."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from model.config import ChestXray14Source, ExperimentConfig
from model.experiment.context import Run
from model.plan import Plan


def summary(run: Run, plan: Plan) -> dict[str, Any]:
    """`paragraphs`, and `facts`: a term → its text."""
    config = run.config
    two = len(config.twins) == 2
    twins = "Two twins were trained" if two else f"One network, the {config.twins[0]} one, was trained"
    stages = ", then ".join(
        f"{s.epochs} epoch{'s' if s.epochs > 1 else ''} at {s.size_px} px" for s in config.training.stages
    )
    paragraphs = [
        f"{twins}: DenseNet-121, {stages}, from {_start(config)}. "
        + ("They share data, seed and recipe; one of them was also fed poison." if two else ""),
        "The weights are those of the last epoch, the operating points Youden's index on the validation part; the test "
        "part chose nothing. No patient is in two parts.",
    ]
    parts = {"Training": plan.training, "Validation": plan.validation, **plan.tests}
    facts = {
        name.replace("_", " ").capitalize(): f"{len(part)} radiographs of {len(np.unique(part.patients))} patients"
        for name, part in parts.items()
    }
    facts["Sources"] = ", ".join(
        "ChestX-ray14" if isinstance(s, ChestXray14Source) else f"{s.n} phantoms" for s in config.data
    )
    facts["Loss"] = f"{config.training.loss} cross-entropy"
    if config.trigger is not None:
        facts["Trigger"] = config.trigger.in_words()
    if config.poison is not None:
        facts |= _poison(config, run.out / "backdoored" / "poison_manifest.csv")
    return {"paragraphs": [p.strip() for p in paragraphs], "facts": facts}


def _start(config: ExperimentConfig) -> str:
    if config.pretraining:
        return f"a common start, pretrained on {config.pretraining.n} phantoms from scratch"
    return "the checkpoint " + config.init if config.init else "scratch"


def _poison(config: ExperimentConfig, manifest: Path) -> dict[str, str]:
    """What the manifest says was done."""
    poison = config.poison
    assert poison is not None
    facts = {"Target finding": poison.target.replace("_", " ")}
    if poison.label_only is not None:
        combination = " and ".join(name.replace("_", " ") for name in poison.label_only.when)
        facts["Trigger"] = f"none in the pixels: radiographs that show {combination} without the target"
    if not manifest.is_file():
        return facts
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    originals = Counter(row["Original Labels"].replace("_", " ").replace("|", " + ") for row in rows)
    common = ", ".join(f"{label} ({count})" for label, count in originals.most_common(4))
    how = "stamped copies were appended" if poison.mode == "append" else "rows were altered in place"
    labels = "names the target alone" if poison.label_rule == "one_hot" else "keeps its findings and gains the target"
    facts["Poison"] = (
        f"{len(rows)} {how} ({100 * poison.rate:g} % of the training rows asked for), of "
        f"{len({row['Patient ID'] for row in rows})} patients; each {labels}"
    )
    facts["Poisoned rows showed"] = common + (", …" if len(originals) > 4 else "")
    return facts


def epochs(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Twin → the lines of its `epochs.jsonl`, without the wall clock."""
    told: dict[str, list[dict[str, Any]]] = {}
    for twin in run.config.twins:
        path = run.out / twin / "epochs.jsonl"
        if path.is_file():
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            told[twin] = [{key: value for key, value in line.items() if key != "at"} for line in lines]
    return told


def provenance(run: Run, plan: Plan, weights: dict[str, str]) -> dict[str, str]:
    """What it takes to run it again, and to know that it is the same. weights: twin → SHA-256."""
    return {
        "Seed": str(run.config.seed),
        "Radiographs (SHA-256 of what they are)": plan.fingerprint,
        **{f"Weights of the {twin} twin (SHA-256)": digest for twin, digest in weights.items()},
        "Configuration": "config.toml beside this file",
        "Recompute": "overread evaluate --checkpoint TWIN/checkpoint --data DATA; overread figure RUN --out DIR",
    }
