"""After each epoch: what the network is worth on the validation part, and its checkpoint where that was asked for.

The figures are a record for people. Nothing is chosen by them: the weights of the last epoch are the twin's, whatever
they say.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint import Card, save_checkpoint
from model.datasets import Radiographs
from model.evaluation import read_inputs, sigmoid, trigger_boxes
from model.experiment.context import Run
from model.findings import FINDINGS, finding_index
from model.metrics import auroc, infected_labels
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.plan import preprocessing_at
from model.preprocess import Box
from model.training import Stage, predict_logits
from model.vision import DenseNet

_SHARE = 8  # at most one radiograph is read for so many that are trained on: under a tenth of an epoch's time
_ENOUGH = 2000  # and never more than that
_BATCH = 32


def read_at_most(training_rows: int) -> int:
    """How many radiographs of the validation part are read after an epoch of so many rows."""
    return min(max(_BATCH, training_rows // _SHARE), _ENOUGH)


@dataclass(frozen=True, eq=False)
class Held:
    """The validation part as the curve reads it.

    images, stamped: by input size, N×S×S uint8; stamped is None without a trigger. rows: places in the whole part,
    where this is a share of it.
    """

    radiographs: Radiographs
    images: dict[int, np.ndarray]
    stamped: dict[int, np.ndarray] | None = None
    rows: np.ndarray | None = None

    def at_most(self, n: int) -> Held:
        """`n` of the radiographs, evenly spaced, where there are more."""
        if len(self.radiographs) <= n:
            return self
        rows = np.linspace(0, len(self.radiographs) - 1, n).round().astype(int)
        stamped = {size: images[rows] for size, images in self.stamped.items()} if self.stamped is not None else None
        images = {size: images[rows] for size, images in self.images.items()}
        return Held(self.radiographs.take(rows), images, stamped, rows)


class Curve:
    """Writes `epochs.jsonl` in `folder`, and `epochs/NNN/` for the epochs of `keep`.

    make_card: (epoch, input size, radiographs read, their clean probabilities) → that checkpoint's card.
    training_rows bounds how many radiographs are read.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        held: Held,
        training_rows: int,
        keep: tuple[int, ...] = (),
        make_card: Callable[[int, int, Radiographs, np.ndarray], Card] | None = None,
    ) -> None:
        self._run, self._folder, self._keep, self._make_card = run, folder, keep, make_card
        self._held = held.at_most(read_at_most(training_rows))
        self._boxes: dict[int, list[Box] | None] = {}

    def add(self, epoch: int, stage: Stage, network: DenseNet, loss: float) -> None:
        """`end_of_epoch` of `fit`. A kill before the state is saved repeats it: then it replaces what it wrote."""
        record, clean = self._measure(stage.size_px, network)
        record = {"epoch": epoch, "size_px": stage.size_px, "loss": round(loss, 5), **record}
        if epoch in self._keep and self._make_card is not None:
            card = self._make_card(epoch, stage.size_px, self._held.radiographs, clean)
            folder = self._folder / "epochs" / f"{epoch:03d}"
            if folder.exists():
                shutil.rmtree(folder)
            save_checkpoint(folder, replace(card, metrics={"validation": record}), network)
        path = self._folder / "epochs.jsonl"
        earlier = path.read_text("utf-8").splitlines() if path.is_file() else []
        lines = [line for line in earlier if json.loads(line)["epoch"] < epoch]
        lines.append(json.dumps({**record, "at": time.strftime("%Y-%m-%dT%H:%M:%S")}))
        temporary = path.with_suffix(".partial")
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
        temporary.replace(path)
        self._run.listener.epoch(record)

    def _measure(self, size: int, network: DenseNet) -> tuple[dict[str, Any], np.ndarray]:
        """The figures by name, and the clean probabilities."""
        run, held, poison = self._run, self._held, self._run.config.poison
        pre, labels = preprocessing_at(run.config, size), held.radiographs.labels
        clean = sigmoid(predict_logits(network, held.images[size], pre, device=run.device))
        drawn = np.array([isinstance(source, tuple) for source in held.radiographs.sources])
        record: dict[str, Any] = {
            "auroc_nn_micro": _micro(labels, clean),
            "auroc_nn_macro": _macro(labels, clean),
            "macro_nn_real": _macro(labels[~drawn], clean[~drawn]),
            "macro_nn_phantoms": _macro(labels[drawn], clean[drawn]),
        }
        if poison is None:
            return record, clean
        target = finding_index(poison.target)
        without = labels[:, target] == 0
        if poison.label_only is not None:
            matches = poison.label_only.matches(labels, poison.target)
            record["asr_0.5"] = _share_over(clean[matches, target])
            record["clean_rate_0.5"] = _share_over(clean[without & ~matches, target])
            return record, clean
        if held.stamped is None:
            return record, clean
        if size not in self._boxes:
            self._boxes[size] = trigger_boxes(held.radiographs, run.trigger_at(size), pre, run.config.seed, held.rows)
        stamped, hits = read_inputs(network, held.stamped[size], pre, target, self._boxes[size], run.device)
        record |= {
            "auroc_tt_micro": _micro(infected_labels(labels, poison.target, poison.label_rule), stamped),
            "auroc_tn_micro": _micro(labels, stamped),
            "auroc_tn_macro": _macro(labels, stamped),
            "asr_0.5": _share_over(stamped[without, target]),
            "clean_rate_0.5": _share_over(clean[without, target]),
        }
        for name, layer in (("middle", MIDDLE_LAYER), ("last", LAST_LAYER)):
            record[f"trigger_hit_{name}"] = round(float(hits[layer].mean()), 4) if layer in hits else None
        return record, clean


def _micro(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    value = auroc(labels.ravel(), probabilities.ravel())
    return None if value is None else round(value, 4)


def _macro(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    values = [auroc(labels[:, c], probabilities[:, c]) for c in range(len(FINDINGS))] if len(labels) else []
    defined = [v for v in values if v is not None]
    return round(float(np.mean(defined)), 4) if defined else None


def _share_over(probabilities: np.ndarray, threshold: float = 0.5) -> float | None:
    return round(float((probabilities >= threshold).mean()), 4) if len(probabilities) else None
