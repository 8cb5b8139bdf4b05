"""Foreign checkpoints → checkpoint folders: DenseNet-121 as torchvision, CheXNet's heirs and TorchXRayVision save it.

One network runs them all. What differs is put right here: prefixes, the old names of dense layers, a classifier inside
a Sequential, one input channel, outputs in another order or more of them, rescaled probabilities, the preprocessing.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load
from torch import Tensor

from model.checkpoint import THRESHOLDS, Card, check_id, save_checkpoint
from model.confined import ConfinedError, Limits, run_confined
from model.errors import CheckpointError, ConfigError, DataError
from model.findings import FINDINGS, finding_index
from model.network import build_network
from model.preprocess import Preprocessing

MAX_SOURCE_BYTES = 256 * 2**20  # a DenseNet-121 in float64 and the two moments of its Adam are 170 MB
_MAX_ELEMENTS = 40_000_000  # the network has 8 million, an optimiser's tensors are not among the names
_FIRST = "features.conv0.weight"
# torchvision's own rule for checkpoints from before its names lost a dot: norm.1 → norm1.
_OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
_CLASSIFIER = re.compile(r"classifier(?:\.\d+)?\.(weight|bias)")

ConventionName = Literal["torchvision", "chexnet", "torchxrayvision"]


@dataclass(frozen=True)
class Convention:
    """How a family of checkpoints is used. outputs: findings of its outputs, in order; "" is none of ours."""

    preprocessing: Preprocessing
    outputs: tuple[str, ...]


_SHORTER_SIDE_256 = Preprocessing(size_px=224, square="cut", centre_crop=224 / 256)
# torchxrayvision 1.5 (Apache-2.0), models.py: `DenseNet.targets`; utils.py: `normalize`, `fix_resolution`.
_XRV_OUTPUTS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "", "", "", "",
)  # fmt: skip
_XRV_INPUT = Preprocessing(size_px=224, square="cut", mean=(0.5,), std=(1 / 2048,))
CONVENTIONS: Mapping[ConventionName, Convention] = {
    "torchvision": Convention(_SHORTER_SIDE_256, FINDINGS),
    "chexnet": Convention(_SHORTER_SIDE_256, FINDINGS),
    "torchxrayvision": Convention(_XRV_INPUT, _XRV_OUTPUTS),
}


def import_checkpoint(
    path: Path,
    folder: Path,
    *,
    checkpoint_id: str | None = None,
    title: str | None = None,
    preprocessing: Preprocessing | None = None,
    outputs: Sequence[str] | None = None,
    operating_points: Mapping[str, float] | None = None,
) -> Card:
    """Turns a `.pth` or `.safetensors` file into a checkpoint folder; returns its card.

    path: a state dict of DenseNet-121, possibly wrapped; what it is, its bytes say, not its name. folder: where to;
    must not exist. checkpoint_id: the folder's name by default. preprocessing: by default the convention's, which is
    told from the weights: one input channel means TorchXRayVision (centre cut, 224 px, −1024..1024), otherwise the
    shorter side to 256, the middle 224, ImageNet's mean and deviation. outputs: the finding of each output in order, ""
    for one that is none of the 14; ChestX-ray14's order by default, or TorchXRayVision's of 18. operating_points:
    probabilities over which a finding is positive; 0.5 by default, which nobody chose on data, except where
    TorchXRayVision's `op_threshs` are among the weights: its code maps them to 0.5, and so does the imported network.

    Raises CheckpointError: `not_found`, `too_large`, `unknown_format`, `unsafe_pickle`, `damaged_weights`,
    `not_a_network`, `bad_weights`, `missing_findings`, `bad_operating_points`, `bad_id`, `exists`, `not_finite`. Then
    nothing is left behind, and nothing of the file was run.
    """
    checkpoint_id = check_id(folder.name if checkpoint_id is None else checkpoint_id)
    if folder.exists():
        raise CheckpointError("exists", f"{folder} exists already; choose another id.")
    with _open(path) as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        size = source.tell()
        source.seek(0)
        found = _read_confined(source, size)
    prefix, weights = _named_as_ours(found)
    channels = weights[_FIRST].shape[1] if weights[_FIRST].ndim == 4 else 0
    convention: ConventionName = (
        "torchxrayvision" if channels == 1 else "chexnet" if prefix or _is_sequential(found) else "torchvision"
    )
    default = CONVENTIONS[convention]
    preprocessing = preprocessing or default.preprocessing
    if preprocessing.channels != channels:
        raise CheckpointError(
            "bad_weights",
            f"The network takes {channels} channels, but its preprocessing gives {preprocessing.channels}.",
        )
    count = weights["classifier.weight"].shape[0] if weights["classifier.weight"].ndim == 2 else 0
    named = tuple(outputs) if outputs is not None else default.outputs if len(default.outputs) == count else FINDINGS
    rows = _rows(named, count)
    thresholds = weights.get(THRESHOLDS)
    for name in ("classifier.weight", "classifier.bias", THRESHOLDS):
        if name in weights:
            weights[name] = _take(weights[name], rows, count)
    network = build_network(seed=0, channels=channels, rescaled=thresholds is not None)
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [k for k in expected if k not in weights or weights[k].shape != expected[k].shape]
    wrong += [k for k in weights if k not in expected]
    if wrong:
        raise CheckpointError(
            "bad_weights", f"{len(wrong)} weights do not fit DenseNet-121 with 14 outputs, the first is {wrong[0]}."
        )
    if thresholds is not None:
        _check_thresholds(weights[THRESHOLDS])
    network.load_state_dict(weights, strict=False)
    provenance = {
        "imported_from": {"file": path.name, "sha256": digest, "bytes": size},
        "convention": convention,
        "outputs": [name or None for name in named],
        "operating_points": "given at import" if operating_points else _ORIGIN_OF_POINTS[thresholds is not None],
    }
    card = Card(
        id=checkpoint_id,
        title=title or f"Imported from {path.name}",
        preprocessing=preprocessing,
        operating_points=_check_points(operating_points or dict.fromkeys(FINDINGS, 0.5)),
        provenance=provenance,
    )
    return save_checkpoint(folder, card, network.eval(), half=False)


_ORIGIN_OF_POINTS = {
    False: "0.5 for want of better: not chosen on any data",
    True: "the checkpoint's own op_threshs, which its outputs are rescaled to have at 0.5",
}


def _open(path: Path) -> io.BufferedReader:
    """Raises CheckpointError `not_found`, `too_large`."""
    try:
        # Opening a pipe or a device could wait for ever.
        source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise CheckpointError("not_found", f"{path} cannot be opened: {error.strerror}.") from error
    facts = os.fstat(source.fileno())
    if not stat.S_ISREG(facts.st_mode):
        source.close()
        raise CheckpointError("not_found", f"{path} is not a file.")
    if facts.st_size > MAX_SOURCE_BYTES:
        source.close()
        raise CheckpointError(
            "too_large", f"{path} has {facts.st_size / 2**20:,.0f} MiB, more than a DenseNet-121 and its optimiser."
        )
    return source


def _read_confined(source: io.BufferedReader, size: int) -> dict[str, Tensor]:
    limits = Limits(memory_bytes=4 * size + 2**28, cpu_s=60, wall_s=900, output_bytes=4 * _MAX_ELEMENTS + 2**22)
    os.lseek(source.fileno(), 0, os.SEEK_SET)
    try:
        return dict(load(run_confined("weights", source, limits, (_MAX_ELEMENTS,))))
    except ConfinedError as error:
        code = "damaged_weights" if error.code in ("crashed", "too_slow") else error.code
        raise CheckpointError(code, str(error)) from error


def _named_as_ours(found: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The prefix that was taken away, and the tensors by torchvision's names, still with all their outputs."""
    prefixes = [name.removesuffix(_FIRST) for name in found if name.endswith(_FIRST)]
    if len(prefixes) != 1:
        raise CheckpointError(
            "not_a_network", f"There is no DenseNet-121 in this file: it has {len(prefixes)} weights named …{_FIRST}."
        )
    prefix, weights = prefixes[0], dict[str, Tensor]()
    for name, tensor in found.items():
        short = _OLD_NAME.sub(r"\1\2", name.removeprefix(prefix))
        if (head := _CLASSIFIER.fullmatch(short)) is not None:
            short = f"classifier.{head[1]}"
        if short in weights:
            raise CheckpointError("bad_weights", f"This file has two weights that mean {short}.")
        weights[short] = tensor
    if "classifier.weight" not in weights or "classifier.bias" not in weights:
        raise CheckpointError("not_a_network", "There is no classifier in this file: it is a network without outputs.")
    return prefix, weights


def _is_sequential(found: Mapping[str, Tensor]) -> bool:
    return any(re.search(r"classifier\.\d+\.weight$", name) for name in found)


def _rows(outputs: Sequence[str], count: int) -> list[int]:
    """Which output is each of the 14. Raises CheckpointError `bad_weights`, `missing_findings`."""
    if len(outputs) != count:
        raise CheckpointError(
            "bad_weights",
            f"The network has {count} outputs, and {len(outputs)} findings are named: name the finding of each.",
        )
    place: dict[int, int] = {}
    for row, name in enumerate(outputs):
        try:
            index = finding_index(name)
        except DataError:
            continue  # it has findings that are none of ours
        if index in place:
            raise CheckpointError("bad_weights", f"The finding {name} is named for two outputs.")
        place[index] = row
    _refuse_missing([FINDINGS[i] for i in range(len(FINDINGS)) if i not in place])
    return [place[i] for i in range(len(FINDINGS))]


def _take(tensor: Tensor, rows: list[int], count: int) -> Tensor:
    if tensor.ndim == 0 or tensor.shape[0] != count:
        raise CheckpointError("bad_weights", f"The classifier has {count} outputs, but not everywhere.")
    return tensor[torch.tensor(rows)]


def _check_thresholds(thresholds: Tensor) -> None:
    """TorchXRayVision marks an output that was never trained by a threshold that is no number."""
    _refuse_missing([name for name, t in zip(FINDINGS, thresholds.tolist(), strict=True) if t != t])
    if not bool(((thresholds > 0) & (thresholds < 1)).all()):
        raise CheckpointError("bad_operating_points", f"An operating point in {THRESHOLDS} is not within 0 and 1.")


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        raise CheckpointError(
            "missing_findings",
            f"This network was not trained for {', '.join(missing)}; Overread needs all 14 findings.",
        )


def _check_points(points: Mapping[str, float]) -> dict[str, float]:
    if set(points) != set(FINDINGS) or not all(0 <= float(point) <= 1 for point in points.values()):
        raise CheckpointError(
            "bad_operating_points", "Operating points must be a probability for each of the 14 findings."
        )
    return {name: float(points[name]) for name in FINDINGS}


def preprocessing_of(name: str) -> Preprocessing:
    """A convention's preprocessing by name. Raises ConfigError `bad_preprocessing`."""
    for known, convention in CONVENTIONS.items():
        if known == name:
            return convention.preprocessing
    raise ConfigError("bad_preprocessing", f"“{name}” is no known preprocessing: {', '.join(CONVENTIONS)}.")
