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
from app.services.analyses import AnalysisService, Grids
from app.services.errors import NotFoundError, UnavailableError
from app.services.pixels import VIEWER_PX, Pixels, viewer_pixels
from model.checkpoint import Checkpoint
from model.network import stage_names
from model.saliency import gradcam

STORED_METHOD = "gradcam"
_KEPT = 24  # of at most 14×112×112 floats, 0.7 MB
_DECODED_AT_ONCE = 2  # a large radiograph takes some hundred MB while it is decoded


@dataclass(frozen=True)
class Method:
    """A way to explain. maps: checkpoint, its input 1×3×S×S, layer → 14×h×w float32 ≥ 0, un-normalised."""

    title: str
    maps: Callable[[Checkpoint, Tensor, str], np.ndarray]


def _gradcam(checkpoint: Checkpoint, inputs: Tensor, layer: str) -> np.ndarray:
    maps = gradcam(checkpoint.network, inputs.to(checkpoint.device), (layer,)).maps[layer][0]
    return maps.detach().float().cpu().numpy()


METHODS: Mapping[str, Method] = {
    STORED_METHOD: Method("Grad-CAM", _gradcam),
}


class ViewingService:
    """Pixels and maps for one page after the other."""

    def __init__(self, analyses: AnalysisService) -> None:
        self._analyses = analyses
        self._kept: OrderedDict[tuple[str, str, str], Grids] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_DECODED_AT_ONCE)

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
        with self._lock:
            if (key, name, method) in self._kept:
                self._kept.move_to_end((key, name, method))
                return self._kept[key, name, method]
        grids = self._computed(key, name, METHODS[method])
        with self._lock:
            self._kept[key, name, method] = grids
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return grids

    def _computed(self, key: str, layer: str, method: Method) -> Grids:
        analysis = self._analyses.analysis(key)
        engine = self._analyses.engine
        checkpoint = engine.require(analysis.checkpoint.id)
        if checkpoint.card.weights_sha256 != analysis.checkpoint.weights_sha256:
            raise UnavailableError(
                "other_weights", f"The weights of “{analysis.checkpoint.id}” are no longer those of this analysis."
            )
        with self._decoding:
            grey = self._analyses.decode(self._analyses.blobs.get(analysis.image_sha256)).grey()
        inputs = checkpoint.card.preprocessing.tensor(grey)
        values = engine.call(checkpoint.card.id, lambda loaded: method.maps(loaded, inputs, layer))
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
