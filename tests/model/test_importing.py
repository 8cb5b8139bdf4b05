"""Foreign checkpoints: outputs equal to the original code's, and hostile files refused without being run."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import densenet121

from model.checkpoint import load_checkpoint, read_card
from model.errors import CheckpointError
from model.findings import FINDINGS
from model.importing import CONVENTIONS, import_checkpoint
from model.network import LAST_LAYER, MIDDLE_LAYER, RescaledDenseNet
from model.preprocess import Preprocessing
from model.saliency import gradcam
from tests.model.foreign_networks import CheXNet, XRVDenseNet, randomised, with_old_names

XRV_NAMES = [
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia",
]  # fmt: skip
GREY = np.random.default_rng(3).random((96, 96), dtype=np.float32)
TOLERANCE = 1e-5
PHOTO = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))  # as ImageNet's normalisation gives
XRV = 1024 * (2 * torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 1)


def imported(tmp_path: Path, content: object, name: str = "net.pth", **options: object):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(content, path)
    else:
        torch.save(content, path)
    import_checkpoint(path, tmp_path / "in" / "net-1", **options)
    return load_checkpoint(tmp_path / "in" / "net-1")


def probabilities(checkpoint, inputs: Tensor) -> Tensor:
    """As evaluation computes them, and as the dashboard does; none so near 0 or 1 that anything would be equal."""
    with torch.no_grad():
        plain = torch.sigmoid(checkpoint.network(inputs))
    maps = gradcam(checkpoint.network, inputs)
    assert torch.allclose(maps.probabilities, plain, atol=1e-6)
    assert plain.std() > 0.02 and ((plain > 0.001) & (plain < 0.999)).float().mean() > 0.8
    return plain


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_torchvision_style(tmp_path, name):
    original = randomised(densenet121(weights=None, num_classes=14), 1, PHOTO)
    checkpoint = imported(tmp_path, original.state_dict(), name)
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.sigmoid(original(inputs))
    assert (probabilities(checkpoint, inputs) - expected).abs().max() < TOLERANCE
    card = checkpoint.card
    assert (card.id, card.provenance["convention"]) == ("net-1", "torchvision")
    assert card.provenance["imported_from"]["file"] == name and len(card.provenance["imported_from"]["sha256"]) == 64
    assert set(card.operating_points.values()) == {0.5} and "not chosen" in card.provenance["operating_points"]


@pytest.mark.parametrize("legacy", [False, True])
def test_chexnet_style(tmp_path, legacy):
    """Data-parallel, wrapped with the epoch and an optimiser's state, the old names, a classifier with its sigmoids."""
    original = randomised(CheXNet(), 2, PHOTO)
    state = with_old_names(nn.DataParallel(original).state_dict())
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in state
    optimiser = torch.optim.Adam(original.parameters()).state_dict()
    content = {"epoch": 7, "arch": "DenseNet-121", "best_loss": 0.17, "state_dict": state, "optimizer": optimiser}
    path = tmp_path / "model.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    import_checkpoint(path, tmp_path / "chexnet")
    checkpoint = load_checkpoint(tmp_path / "chexnet")
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = original(inputs)
    assert (probabilities(checkpoint, inputs) - expected).abs().max() < TOLERANCE
    assert checkpoint.card.provenance["convention"] == "chexnet"


def test_the_input_of_torchvision_and_chexnet_is_theirs():
    """Shorter side to 256, centre 224, ImageNet's mean and deviation; both crops fall on whole pixels here."""
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    rows, columns = np.mgrid[:512, :640]
    smooth = (127 + 60 * np.sin(rows / 40) + 60 * np.cos(columns / 55)).astype(np.uint8)
    expected = transforms.Compose(steps)(Image.fromarray(smooth).convert("RGB"))
    ours = CONVENTIONS["chexnet"].preprocessing.tensor(smooth.astype(np.float32) / 255)[0]
    assert (ours - expected).abs().max() < 2.5 / 255 / 0.22  # theirs is rounded to 8 bits after resizing


def op_threshs(seed: int) -> Tensor:
    return 0.002 + 0.4 * torch.rand(18, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rescaled", [True, False])
def test_torchxrayvision_style(tmp_path, rescaled):
    original = randomised(XRVDenseNet(op_threshs(5) if rescaled else None), 3, XRV)
    checkpoint = imported(tmp_path, original.state_dict())
    assert checkpoint.card.preprocessing == Preprocessing(size_px=224, square="cut", mean=(0.5,), std=(1 / 2048,))
    inputs = checkpoint.card.preprocessing.tensor(GREY)
    assert inputs.shape == (1, 1, 224, 224) and 800 < inputs.abs().max() <= 1024
    source = torch.from_numpy((2 * GREY - 1.0) * 1024)[None, None]
    with torch.no_grad():
        expected = original(source)
    expected = expected if rescaled else torch.sigmoid(expected)
    expected = expected[:, [XRV_NAMES.index(name) for name in FINDINGS]]
    assert (probabilities(checkpoint, inputs) - expected).abs().max() < TOLERANCE
    assert isinstance(checkpoint.network, RescaledDenseNet) == rescaled
    assert checkpoint.card.provenance["outputs"][14:] == [None] * 4
    if rescaled:
        assert "op_threshs" in checkpoint.card.provenance["operating_points"]


def test_the_cut_is_torchxrayvisions_where_the_middle_is_between_two_pixels():
    image = np.random.default_rng(0).random((51, 64), dtype=np.float32)
    start = 64 // 2 - 51 // 2  # XRayCenterCrop
    cut = Preprocessing(size_px=51, square="cut").input_grey(image)
    np.testing.assert_allclose(cut, image[:, start : start + 51], atol=1e-6)


def test_rescaled_probabilities_by_hand_and_far_out():
    network = RescaledDenseNet()
    network.op_threshs.fill_(0.2)
    p = torch.tensor([0.1, 0.2, 0.6, 1e-6, 1 - 1e-6]).double().expand(14, 5).T
    rescaled = torch.sigmoid(network.rescaled(torch.logit(p)))[:, 0]
    assert rescaled == pytest.approx([0.25, 0.5, 0.75, 2.5e-6, 1 - 0.625e-6], rel=1e-6)
    assert bool(torch.isfinite(network.rescaled(torch.tensor([[-200.0] * 14, [200.0] * 14]))).all())


def test_saliency_of_a_network_of_one_channel_is_grad_cam_of_its_own_logit(tmp_path):
    """Against autograd on the original code; the rescaling changes a map by a positive factor alone."""
    original = randomised(XRVDenseNet(op_threshs(5)), 4, XRV)
    checkpoint = imported(tmp_path, original.state_dict())
    inputs = checkpoint.card.preprocessing.tensor(GREY)
    found = gradcam(checkpoint.network, inputs, (MIDDLE_LAYER, LAST_LAYER), [7]).maps[LAST_LAYER][0, 0]
    last = torch.relu(original.features(inputs)).detach().requires_grad_()
    logit = original.classifier(last.mean((2, 3)))[0, XRV_NAMES.index(FINDINGS[7])]
    weights = torch.autograd.grad(logit, last)[0].mean((2, 3))[0]
    expected = torch.relu((weights[:, None, None] * last[0]).sum(0)).detach()
    assert (found - expected).abs().max() < 1e-4 * max(1.0, float(expected.max()))


def test_what_the_importer_is_told_counts(tmp_path):
    state = randomised(densenet121(weights=None, num_classes=15), 1, PHOTO).state_dict()
    names = ["Fracture", *reversed(FINDINGS)]
    pre = Preprocessing(size_px=96)
    points = {name: 0.1 + i / 50 for i, name in enumerate(FINDINGS)}
    checkpoint = imported(tmp_path, state, outputs=names, preprocessing=pre, operating_points=points, title="A title")
    assert torch.equal(checkpoint.network.classifier.weight, state["classifier.weight"].flip(0)[:14])
    card = read_card(tmp_path / "in" / "net-1")
    assert (card.preprocessing, dict(card.operating_points), card.title) == (pre, points, "A title")


# Refusals


class Runs:
    """A pickle of this runs a command when it is loaded carelessly."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


GOOD = {k: v for k, v in densenet121(weights=None, num_classes=14).state_dict().items() if "tracked" not in k}


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def squeezed(data: bytes) -> bytes:
    """The same archive with a member of zeros that packs well."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        new.writestr("archive/data/bomb", bytes(2**28))
    return out.getvalue()


def program() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def hostile(kind: str, folder: Path) -> bytes:
    command = f"touch {folder / 'ran'}"
    state = dict(GOOD)
    if kind == "pickle, alone":
        return pickle.dumps(Runs(command))
    if kind == "pickle, in an archive":
        return saved({"state_dict": state, "note": Runs(command)})
    if kind == "pickle, legacy":
        return saved({"state_dict": state, "note": Runs(command)}, _use_new_zipfile_serialization=False)
    if kind == "a whole module":
        return saved(nn.Linear(2, 2))
    if kind == "program":
        return program()
    if kind == "bomb":
        return squeezed(saved(state))
    if kind == "claims of a huge shape":
        return saved({**state, "features.conv0.weight": torch.zeros(1).expand(10**12)})
    if kind == "truncated":
        return saved(state)[: 3 * 10**6]
    if kind == "truncated safetensors":
        save_file(state, folder / "whole")
        data = (folder / "whole").read_bytes()
        (folder / "whole").unlink()
        return data[: len(data) // 2]
    if kind == "wrong shape":
        return saved({**state, "features.norm0.weight": torch.zeros(65)})
    if kind == "one missing":
        return saved({k: v for k, v in state.items() if k != "features.norm0.weight"})
    if kind == "another network":
        return saved(nn.Linear(3, 3).state_dict())
    if kind == "no outputs":
        return saved({k: v for k, v in state.items() if "classifier" not in k})
    if kind == "three outputs":
        return saved({**state, "classifier.weight": torch.zeros(3, 1024), "classifier.bias": torch.zeros(3)})
    if kind == "not finite":
        return saved({**state, "classifier.bias": torch.full((14,), torch.nan)})
    if kind == "sparse":
        return saved({**state, "classifier.weight": torch.zeros(14, 1024).to_sparse()})
    if kind == "numbers":
        return saved({"state_dict": {"features.conv0.weight": 3}})
    if kind == "a list":
        return saved([1, 2, 3])
    if kind == "a vast header":
        return (2**40).to_bytes(8, "little") + b"{" + bytes(100)
    if kind == "text":
        return b"GIF89a, or whatever else somebody renamed"
    return b""


KINDS = {
    "pickle, alone": "unsafe_pickle",
    "pickle, in an archive": "unsafe_pickle",
    "pickle, legacy": "unsafe_pickle",
    "a whole module": "unsafe_pickle",
    "program": "unsafe_pickle",
    "bomb": "damaged_weights",
    "claims of a huge shape": "too_large",
    "truncated": "damaged_weights",
    "truncated safetensors": "damaged_weights",
    "wrong shape": "bad_weights",
    "one missing": "bad_weights",
    "another network": "not_a_network",
    "no outputs": "not_a_network",
    "three outputs": "bad_weights",
    "not finite": "not_finite",
    "sparse": "not_a_network",
    "numbers": "not_a_network",
    "a list": "not_a_network",
    "a vast header": "unknown_format",
    "text": "unknown_format",
    "empty": "unknown_format",
}


def refusal(path: Path, folder: Path, **options: object) -> str:
    with pytest.raises(CheckpointError) as refused:
        import_checkpoint(path, folder, **options)
    assert str(refused.value).endswith(".") or refused.value.code == "unsafe_pickle"
    return refused.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_is_refused_runs_nothing_and_leaves_nothing(tmp_path, kind):
    path = tmp_path / "net.pth"
    path.write_bytes(hostile(kind, tmp_path))
    (tmp_path / "registry").mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(path, tmp_path / "registry" / "bad") == KINDS[kind]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024
    assert list((tmp_path / "registry").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("net.pth", "registry")] == []


def test_the_malicious_pickle_would_have_run(tmp_path):
    """Or the tests above would prove nothing."""
    pickle.loads(hostile("pickle, alone", tmp_path))
    assert (tmp_path / "ran").exists()


def test_eight_gigabytes_are_refused_unread(tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
    began = time.monotonic()
    assert refusal(path, tmp_path / "bad") == "too_large"
    assert time.monotonic() - began < 2
    path.unlink()


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone.pth", "pipe", "."):
        assert refusal(tmp_path / name, tmp_path / "bad") == "not_found"


def test_a_network_without_all_findings_is_refused_by_name(tmp_path):
    thresholds = op_threshs(1)
    thresholds[XRV_NAMES.index("Hernia")] = float("nan")
    torch.save(randomised(XRVDenseNet(thresholds), 3, XRV).state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="Hernia") as refused:
        import_checkpoint(tmp_path / "net.pth", tmp_path / "bad")
    assert refused.value.code == "missing_findings"
    torch.save(GOOD, tmp_path / "net.pth")
    names = ["", *FINDINGS[1:]]
    assert refusal(tmp_path / "net.pth", tmp_path / "bad", outputs=names) == "missing_findings"
    assert refusal(tmp_path / "net.pth", tmp_path / "bad", outputs=[*FINDINGS[:13], "Mass"]) == "bad_weights"
    points = {"Mass": 0.5}
    assert refusal(tmp_path / "net.pth", tmp_path / "bad", operating_points=points) == "bad_operating_points"
    one_channel = Preprocessing(mean=(0.5,), std=(0.5,))
    assert refusal(tmp_path / "net.pth", tmp_path / "bad", preprocessing=one_channel) == "bad_weights"
    (tmp_path / "bad").mkdir()
    assert refusal(tmp_path / "net.pth", tmp_path / "bad") == "exists"
    assert refusal(tmp_path / "net.pth", tmp_path / "x", checkpoint_id="../x") == "bad_id"


def test_an_imported_card_is_plain_json(tmp_path):
    imported(tmp_path, GOOD)
    text = json.loads((tmp_path / "in" / "net-1" / "card.json").read_text())
    assert text["version"] == 1 and text["preprocessing"]["centre_crop"] == 0.875
