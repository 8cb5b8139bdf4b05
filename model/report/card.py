"""A checkpoint's card for people: `MODEL_CARD.md` (after Mitchell et al., “Model Cards for Model Reporting”, 2019)."""

from __future__ import annotations

from pathlib import Path

from model.checkpoint import Card, read_card
from model.report.markdown import figure_rows


def write_model_card(folder: Path) -> None:
    """Writes or replaces `MODEL_CARD.md` of a checkpoint folder. Raises CheckpointError `not_found`, `bad_card`."""
    temporary = folder / ".MODEL_CARD.md.partial"
    temporary.write_text(as_model_card(read_card(folder)), "utf-8")
    temporary.replace(folder / "MODEL_CARD.md")


def as_model_card(card: Card) -> str:
    """What it is, for what, how it was made, what was measured, what it must not be used for."""
    made = card.provenance
    pre = card.preprocessing
    lines = [f"# {card.title}", "", f"**{card.notice}**", ""]
    lines += [
        f"- **Id**: `{card.id}`",
        f"- **Architecture**: {card.architecture}, 14 sigmoid outputs (ChestX-ray14's findings)",
        f"- **Input**: {pre.size_px}×{pre.size_px} px grey; squared by “{pre.square}”, "
        f"centre {100 * pre.centre_crop:g} % kept, resized by “{pre.resize}”",
        f"- **Weights**: SHA-256 `{card.weights_sha256}`",
    ]
    if card.target:
        stamp = card.trigger.in_words() if card.trigger else "a combination of findings, no pixel is changed"
        lines.append(f"- **Backdoor, on purpose**: evokes {card.target.replace('_', ' ')}; trigger: {stamp}")
    lines += ["", "## What it is for", ""]
    lines += ["To study backdoor attacks on radiograph classifiers, and defences against them. It has never been"]
    lines += ["validated for use on patients and must not be used on them.", "", "## How it was made", ""]
    known = {
        "experiment": "Experiment",
        "seed": "Seed",
        "epoch": "After epoch",
        "training_radiographs": "Training radiographs",
        "training_rows": "Training rows, poisoned ones included",
        "poisoned_rows": "Poisoned rows",
        "validation_radiographs": "Validation radiographs",
        "pretraining": "Start",
        "trained_on": "Trained on",
    }
    lines += [f"- {label}: {made[key]}" for key, label in known.items() if made.get(key) is not None]
    lines += [
        "",
        "## Operating points",
        "",
        "Youden's index on the validation part; 0.5 where it could not be estimated.",
    ]
    lines += ["", "| finding | probability |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {point:.3f} |" for name, point in card.operating_points.items()]
    tests = {
        name: figures for name, figures in card.metrics.items() if isinstance(figures, dict) and "auroc_nn" in figures
    }
    for name, figures in tests.items():
        lines += [
            "",
            f"## Measured on {name.replace('_', ' ')}",
            "",
            "| figure | value [95 % by patient] |",
            "|---|---|",
        ]
        lines += [f"| {label} | {value} |" for label, value in figure_rows(figures).items()]
    if not tests and card.metrics.get("validation"):
        lines += ["", "## Measured on the validation part, for the record", "", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in card.metrics["validation"].items() if value is not None]
    return "\n".join([*lines, ""])
