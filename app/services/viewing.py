"""What the review page's viewer asks for: pixels, and saliency at any layer by any method.

Grad-CAM at the middle and the last layer is stored with its analysis. Anything else is computed when somebody asks, in
the engine's one thread, and kept for a while: it is quick, and few will ask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from app.inference import LAYERS
from app.services.analyses import AnalysisService, Grids, KeyedLocks
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.pixels import VIEWER_PX, Pixels, viewer_pixels
from app.services.readings import analysis_id
from model import explanation
from model.checkpoint import Checkpoint
from model.network import stage_names
from model.saliency import gradcam

STORED_METHOD = "grad-cam"
_KEPT = 24  # of at most 14×112×112 floats, 0.7 MB
_DECODED_AT_ONCE = 2  # a large radiograph takes some hundred MB while it is decoded


@dataclass(frozen=True)
class Method:
    """A way to explain. maps: checkpoint, its input 1×3×S×S, layer → 14×h×w float32 ≥ 0, un-normalised.

    at_a_layer: whether the layer matters. slow: holds the device for seconds, so that only one is computed at a time.
    """

    title: str
    maps: Callable[[Checkpoint, Tensor, str], np.ndarray]
    at_a_layer: bool = True
    slow: bool = False


def _gradcam(checkpoint: Checkpoint, inputs: Tensor, layer: str) -> np.ndarray:
    maps = gradcam(checkpoint.network, inputs.to(checkpoint.device), (layer,)).maps[layer][0]
    return maps.detach().float().cpu().numpy()


def _by(method: explanation.Method) -> Callable[[Checkpoint, Tensor, str], np.ndarray]:
    def maps(checkpoint: Checkpoint, inputs: Tensor, layer: str) -> np.ndarray:
        found = explanation.explain(checkpoint.network, inputs.to(checkpoint.device), method, (layer,)).maps
        return next(iter(found.values()))[0].detach().float().cpu().numpy()

    return maps


METHODS: Mapping[str, Method] = {
    STORED_METHOD: Method("Grad-CAM", _gradcam),
    "grad-cam++": Method("Grad-CAM++", _by(explanation.Method.GRAD_CAM_PLUS_PLUS)),
    "layercam": Method("LayerCAM", _by(explanation.Method.LAYER_CAM)),
    "hirescam": Method("HiResCAM", _by(explanation.Method.HI_RES_CAM)),
    "eigencam": Method("Eigen-CAM, the same for every finding", _by(explanation.Method.EIGEN_CAM)),
    "occlusion": Method(
        "Occlusion, without a layer; some 20 s", _by(explanation.Method.OCCLUSION), at_a_layer=False, slow=True
    ),
}


class ViewingService:
    """Pixels and maps for one page after the other."""

    def __init__(self, analyses: AnalysisService) -> None:
        self._analyses = analyses
        self._kept: OrderedDict[tuple[str, str, str], Grids] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_DECODED_AT_ONCE)
        self._once = KeyedLocks()
        self._slow = threading.Lock()

    def pixels(self, instance: str, longest_px: int = VIEWER_PX) -> Pixels:
        """A received radiograph's. Raises NotFoundError."""
        row = self._analyses.instance(instance)
        with self._decoding:
            return viewer_pixels(self._analyses.blobs.get(row.sha256), row.name, longest_px)

    def grids(self, key: str, layer: str, method: str = STORED_METHOD) -> Grids:
        """All findings' maps of an analysis. layer: `middle`, `last`, or a stage's name.

        Raises NotFoundError `unknown_analysis`, `unknown_layer`, `unknown_method`, BusyError, UnavailableError.
        """
        name = LAYERS.get(layer, layer)  # type: ignore[call-overload]
        check_method(method)
        check_layer(name)
        if method == STORED_METHOD and name in LAYERS.values():
            return self._analyses.grids(key, name)
        wanted = (key, name if METHODS[method].at_a_layer else "", method)
        with self._once("/".join(wanted)):  # who asks for the same meanwhile waits for it
            kept = self._remembered(wanted)
            if kept is None:
                kept = self._computed(key, name, METHODS[method])
                self._remember(wanted, kept)
        return kept

    def _remembered(self, wanted: tuple[str, str, str]) -> Grids | None:
        with self._lock:
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
            return self._kept.get(wanted)

    def _remember(self, wanted: tuple[str, str, str], grids: Grids) -> None:
        with self._lock:
            self._kept[wanted] = grids
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _computed(self, key: str, layer: str, method: Method) -> Grids:
        analysis = self._analyses.analysis(key)
        engine = self._analyses.engine
        checkpoint = engine.require(analysis.checkpoint.id)
        if analysis_id(analysis.image_sha256, checkpoint.card) != key:
            raise UnavailableError(
                "other_weights",
                f"“{analysis.checkpoint.id}” is no longer what made this analysis: weights, card or code differ.",
            )
        with self._decoding:
            grey = self._analyses.decode(self._analyses.blobs.get(analysis.image_sha256)).grey()
        inputs = checkpoint.card.preprocessing.tensor(grey)
        if method.slow and not self._slow.acquire(blocking=False):
            raise BusyError("busy", "One such explanation is being computed already; try again in a while.", 20)
        try:
            values = engine.call(checkpoint.card.id, lambda loaded: method.maps(loaded, inputs, layer))
        finally:
            if method.slow:
                self._slow.release()
        return Grids(np.ascontiguousarray(values, dtype="<f4"), layer, analysis)


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
