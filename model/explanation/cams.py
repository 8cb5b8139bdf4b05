"""Class activation maps that need one pass: from activations and gradients, or from activations alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.saliency import gradients


def by_gradients(
    method: str, kept: Mapping[str, Tensor], logits: Tensor, findings: tuple[int, ...]
) -> dict[str, Tensor]:
    """`grad-cam++`, `layercam` or `hirescam` by pytorch-grad-cam's formulas: layer → N×F×h×w ≥ 0.

    kept, logits: of `model.saliency.tail_graph`.
    """
    # Imported when asked for: it brings matplotlib, OpenCV and scikit-learn, and a server's start should not wait.
    from pytorch_grad_cam import GradCAMPlusPlus, HiResCAM, LayerCAM

    kinds = {"grad-cam++": GradCAMPlusPlus, "layercam": LayerCAM, "hirescam": HiResCAM}
    # It is made for a network that it may hook; with no target layers it hooks nothing, and any module will do.
    formula = kinds[method](nn.Linear(1, 1), [])
    activations = {name: one.detach().cpu().numpy() for name, one in kept.items()}
    maps: dict[str, list[Tensor]] = {name: [] for name in kept}
    for finding in findings:
        for name, gradient in gradients(logits, kept, finding).items():
            grid = formula.get_cam_image(None, None, None, activations[name], gradient.cpu().numpy(), False)
            maps[name].append(torch.from_numpy(grid).relu())
    return {name: torch.stack(several, 1).to(logits.device) for name, several in maps.items()}


def eigen_cam(activation: Tensor, findings: int) -> Tensor:
    """Projection of the activation, N×K×h×w, on its first principal component: N×F×h×w ≥ 0, F times the same.

    A component's sign is arbitrary, and pytorch-grad-cam leaves it to LAPACK; here the larger extreme is positive, as
    Chung & Ying (Applied Sciences 2025, 15(13), 7562) propose. The smaller of the two Gram matrices is decomposed,
    since a full decomposition of an early stage's 12,544 positions would take 1.2 GB.
    """
    flat = activation.flatten(2).transpose(1, 2).double()  # N×P×K
    centred = flat - flat.mean(1, keepdim=True)
    if centred.shape[1] <= centred.shape[2]:
        values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
        projection = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        projection = (centred @ vectors[..., -1:])[..., 0]
    turned = projection.amin(1, keepdim=True).abs() > projection.amax(1, keepdim=True).abs()
    projection = torch.where(turned, -projection, projection).relu()
    n, _, height, width = activation.shape
    return projection.to(activation.dtype).view(n, 1, height, width).repeat(1, findings, 1, 1)
