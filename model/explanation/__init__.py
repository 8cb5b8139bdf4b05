"""Other explanations than Grad-CAM behind one function, `explain`: what each costs, and what it can be trusted with.

| method | source | needs of an image, however many findings |
|---|---|---|
| `grad-cam` | Selvaraju et al., ICCV 2017 | one pass, see `model.saliency` |
| `grad-cam++` | Chattopadhay et al., WACV 2018 | one pass, and a backward pass a finding |
| `layercam` | Jiang et al., IEEE TIP 2021 | the same |
| `hirescam` | Draelos & Carin, arXiv 2011.08891 | the same |
| `eigencam` | Muhammad & Yeasin, IJCNN 2020 | one pass; the same map for every finding, as it does not ask which |
| `scorecam` | Wang et al., CVPR Workshops 2020 | a pass for each channel taken, at each layer |
| `occlusion` | Zeiler & Fergus, ECCV 2014 | a pass for each place of the patch; no layer, no gradient |

The formulas of the middle three are pytorch-grad-cam's. That library works through hooks on the network, one finding at
a time, and stretches every map to 0..1; here it is given activations and gradients instead, so that a network which
serves several threads is neither hooked nor copied, torchvision's in-place ReLUs do no harm, and maps stay comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch

from model.errors import ConfigError
from model.explanation.cams import by_gradients, eigen_cam
from model.explanation.occlusion import Occlusion, occluded_drops
from model.explanation.scorecam import ScoreCam, score_cam
from model.findings import FINDINGS, finding_index
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import SaliencyMaps, check_request, gradcam, tail_graph
from model.vision import DenseNet

__all__ = ["INPUT", "Method", "Occlusion", "ScoreCam", "explain", "forward_passes", "method_named", "occluded_drops"]

INPUT = "input"  # the name under which occlusion's map goes: it looks at no layer


class Method(StrEnum):
    """The explanations that `explain` gives; their sources are at the top of this module."""

    GRAD_CAM = "grad-cam"
    GRAD_CAM_PLUS_PLUS = "grad-cam++"
    LAYER_CAM = "layercam"
    HI_RES_CAM = "hirescam"
    EIGEN_CAM = "eigencam"
    SCORE_CAM = "scorecam"
    OCCLUSION = "occlusion"


def method_named(name: str) -> Method:
    """The method of that name. Raises ConfigError `unknown_method`."""
    try:
        return Method(name)
    except ValueError:
        raise ConfigError("unknown_method", f"“{name}” is not a method: choose from {', '.join(Method)}.") from None


def forward_passes(
    method: Method | str, size_px: int = 224, *, occlusion: Occlusion | None = None, scorecam: ScoreCam | None = None
) -> int:
    """Forward passes that one image takes beyond the first: per layer for Score-CAM, of up to 1024 channels, in all for
    occlusion, 0 for the others. For any number of findings. Raises ConfigError `unknown_method`."""
    method = method_named(method)
    if method is Method.OCCLUSION:
        rows, columns = (occlusion or Occlusion()).grid(size_px, size_px)
        return rows * columns
    if method is Method.SCORE_CAM:
        return (scorecam or ScoreCam()).channels or 1024
    return 0


def explain(
    network: DenseNet,
    inputs: torch.Tensor,
    method: Method | str = Method.GRAD_CAM,
    layers: Sequence[str] = (MIDDLE_LAYER, LAST_LAYER),
    findings: Sequence[int | str] | None = None,
    *,
    occlusion: Occlusion | None = None,
    scorecam: ScoreCam | None = None,
) -> SaliencyMaps:
    """Maps of each finding's logit by any method, un-normalised: layer → N×F×h×w float32 ≥ 0 at the layer's own grid.

    network: in evaluation mode; read only, so threads may share it. inputs: N×3×S×S float32, S ≥ 32. layers: any of
    `model.network.stage_names()`, at least one; occlusion looks at none of them, and its only map goes under
    `INPUT`. findings: indices or names, all 14 by default. occlusion, scorecam: how far to go with the two that are
    slow; `forward_passes` says how slow.

    Units differ: occlusion's are logits, a Grad-CAM's at one layer can be compared between findings and checkpoints,
    Eigen-CAM's say nothing of a finding. What speaks against a finding is cut off at 0 in all of them;
    `occluded_drops` keeps the sign.

    Raises ConfigError `unknown_method`, `bad_input`, `not_finite`, `unknown_layer`, `unknown_finding` or
    `network_in_training`; DataError `unknown_finding` for a name.
    """
    method = method_named(method)
    if findings is None:
        findings = range(len(FINDINGS))
    chosen = tuple(finding_index(finding) if isinstance(finding, str) else int(finding) for finding in findings)
    if not layers and method is not Method.OCCLUSION:
        raise ConfigError("unknown_layer", "Name at least one layer.")
    if method is Method.GRAD_CAM:
        return gradcam(network, inputs, layers, chosen)
    check_request(network, inputs, layers, chosen)
    with torch.inference_mode(False), torch.no_grad():
        if method is Method.OCCLUSION:
            logits, drops = occluded_drops(network, inputs, chosen, occlusion)
            maps = {INPUT: drops.relu()}
        else:
            kept, graph = tail_graph(network, inputs, layers)
            logits = graph.detach()
            if method is Method.EIGEN_CAM:
                maps = {name: eigen_cam(one.detach(), len(chosen)) for name, one in kept.items()}
            elif method is Method.SCORE_CAM:
                options = scorecam or ScoreCam()
                maps = {name: score_cam(network, inputs, one.detach(), chosen, options) for name, one in kept.items()}
            else:
                maps = by_gradients(method, kept, graph, chosen)
            maps = {name: maps[name] for name in layers}
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError("not_finite", "The network's logits are not finite: check its weights.")
    return SaliencyMaps(logits.float(), {name: one.float() for name, one in maps.items()}, chosen)
