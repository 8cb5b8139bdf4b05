"""What the review page's viewer asks for: pixels, and saliency at any layer by any method.

Grad-CAM at the middle and the last layer is stored with its analysis. Anything else is computed when somebody asks, in
the engine's one thread, and kept for a while. It is computed in parts of a fraction of a second each, so that
radiographs that come meanwhile are read between two of them; between two parts it also stops, when whoever asked has
hung up or when it takes too long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from app.decoding import VIEWER_PX, Pixels
from app.inference import LAYERS
from app.services.analyses import AnalysisService, Grids
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.once import Recent
from model import explanation
from model.checkpoint import Checkpoint
from model.findings import FINDINGS
from model.network import stage_names
from model.saliency import ANALYTIC

STORED_METHOD = "grad-cam"
LIMIT_S = 90.0  # of one explanation, others' radiographs between its parts included
_KEPT = 24  # of at most 14×112×112 floats, 0.7 MB
_ALL = tuple(range(len(FINDINGS)))
_FINDINGS_AT_ONCE = 4  # backward passes in one part
_PATCHES_AT_ONCE = 4  # covered inputs in one part
_T = TypeVar("_T")


class Device(Protocol):
    """Does something with the loaded checkpoint, between two batches of radiographs. Raises BusyError."""

    def __call__(self, act: Callable[[Checkpoint], _T], /) -> _T: ...


@dataclass(frozen=True)
class Method:
    """A way to explain. maps: device, input 1×3×S×S, layer → 14×h×w float32 ≥ 0, un-normalised.

    at_a_layer: whether the layer matters. slow: takes many parts, so only one is computed at a time.
    """

    title: str
    maps: Callable[[Device, Tensor, str], np.ndarray]
    at_a_layer: bool = True
    slow: bool = False


def _by(method: explanation.Method) -> Callable[[Device, Tensor, str], np.ndarray]:
    def maps(device: Device, inputs: Tensor, layer: str) -> np.ndarray:
        import_module("pytorch_grad_cam")  # takes seconds once, which nobody else's radiograph should wait for
        quick = method is explanation.Method.EIGEN_CAM or (method is explanation.Method.GRAD_CAM and layer in ANALYTIC)
        several = len(_ALL) if quick else _FINDINGS_AT_ONCE

        def part(findings: Sequence[int]) -> np.ndarray:
            def act(one: Checkpoint) -> np.ndarray:
                found = explanation.explain(one.network, inputs.to(one.device), method, (layer,), findings)
                return found.maps[layer][0].detach().float().cpu().numpy()

            return device(act)

        return np.concatenate([part(_ALL[start : start + several]) for start in range(0, len(_ALL), several)])

    return maps


def _occlusion(device: Device, inputs: Tensor, _layer: str) -> np.ndarray:
    def logits(covered: Tensor) -> Tensor:
        return device(lambda one: _forward(one, covered))

    options = explanation.Occlusion(batch=_PATCHES_AT_ONCE)
    _, drops = explanation.occluded_drops(logits, inputs, _ALL, options)
    return drops[0].relu().numpy()


def _forward(checkpoint: Checkpoint, inputs: Tensor) -> Tensor:
    """N×3×S×S → logits N×14. On the CPU in channels last, which is a third faster."""
    if checkpoint.device.type == "cpu":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        logits: Tensor = checkpoint.network(inputs.to(checkpoint.device)).float().cpu()
    return logits


METHODS: Mapping[str, Method] = {
    STORED_METHOD: Method("Grad-CAM", _by(explanation.Method.GRAD_CAM)),
    "grad-cam++": Method("Grad-CAM++", _by(explanation.Method.GRAD_CAM_PLUS_PLUS)),
    "layercam": Method("LayerCAM", _by(explanation.Method.LAYER_CAM)),
    "hirescam": Method("HiResCAM", _by(explanation.Method.HI_RES_CAM)),
    "eigencam": Method("Eigen-CAM, the same for every finding", _by(explanation.Method.EIGEN_CAM)),
    "occlusion": Method("Occlusion, without a layer; some 20 s", _occlusion, at_a_layer=False, slow=True),
}


def waits() -> bool:
    """`gone` of whoever waits until the answer comes."""
    return False


class ViewingService:
    """Pixels and maps for one page after the other."""

    def __init__(self, analyses: AnalysisService) -> None:
        self._analyses = analyses
        self._recent: Recent[tuple[str, str, str], Grids] = Recent(_KEPT)
        self._slow = threading.Lock()

    def pixels(self, instance: str, longest_px: int = VIEWER_PX) -> Pixels:
        """A received radiograph's. Raises NotFoundError, and what decoding raises."""
        row = self._analyses.instance(instance)
        return self._analyses.view(self._analyses.blobs.get(row.sha256), row.name, longest_px)

    def grids(self, key: str, layer: str, method: str = STORED_METHOD, gone: Callable[[], bool] = waits) -> Grids:
        """All findings' maps of an analysis. layer: `middle`, `last`, or a stage's name.

        gone: whether nobody waits for the answer any more; asked between two parts. Raises NotFoundError
        `unknown_analysis`, `unknown_layer`, `unknown_method`, UnavailableError, and BusyError, also `too_slow` after
        LIMIT_S and `given_up` when nobody waits.
        """
        name = LAYERS.get(layer, layer)  # type: ignore[call-overload]
        check_method(method)
        check_layer(name)
        if method == STORED_METHOD and name in LAYERS.values():
            return self._analyses.grids(key, name)
        wanted = (key, name if METHODS[method].at_a_layer else "", method)
        return self._recent.get(wanted, lambda: self._computed(key, name, METHODS[method], gone))

    def _computed(self, key: str, layer: str, method: Method, gone: Callable[[], bool]) -> Grids:
        analysis = self._analyses.analysis(key)
        checkpoint = self._analyses.engine.require(analysis.checkpoint.id)
        if self._analyses.present_id(analysis.image_sha256, checkpoint.card.id) != key:
            raise UnavailableError(
                "other_weights",
                f"“{analysis.checkpoint.id}” is no longer what made this analysis: weights, card, calibration or "
                "code differ.",
            )
        with self._one_at_a_time() if method.slow else nullcontext():
            grey = self._analyses.decode(self._analyses.blobs.get(analysis.image_sha256)).grey()
            inputs = checkpoint.card.preprocessing.tensor(grey)
            values = method.maps(self._device(checkpoint.card.id, gone), inputs, layer)
        return Grids(np.ascontiguousarray(values, dtype="<f4"), layer, analysis)

    def _device(self, checkpoint_id: str, gone: Callable[[], bool]) -> Device:
        """The device for one explanation, a part at a time."""
        end = time.monotonic() + LIMIT_S

        def do(act: Callable[[Checkpoint], _T], /) -> _T:
            if gone():
                raise BusyError("given_up", "Nobody waited for this explanation any more.", 1)
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise BusyError("too_slow", "The device is too busy for this explanation; try again in a while.", 60)
            return self._analyses.engine.call(checkpoint_id, act, left_s)

        return do

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._slow.acquire(blocking=False):
            raise BusyError("busy", "One such explanation is being computed already; try again in a while.", 20)
        try:
            yield
        finally:
            self._slow.release()


def check_layer(name: str) -> str:
    """The name itself, if it is a stage's. Raises NotFoundError `unknown_layer`."""
    if name not in stage_names():
        raise NotFoundError(
            "unknown_layer", f"“{name}” is not a layer that can be explained: middle, last, {', '.join(stage_names())}."
        )
    return name


def check_method(name: str) -> str:
    """The name itself, if there is such a method. Raises NotFoundError `unknown_method`."""
    if name not in METHODS:
        raise NotFoundError("unknown_method", f"“{name}” is not a method here; there is: {', '.join(METHODS)}.")
    return name
