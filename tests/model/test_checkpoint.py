import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import (
    BUNDLED,
    Card,
    find_checkpoint,
    load_checkpoint,
    read_card,
    save_checkpoint,
    sha256_file,
    update_card,
)
from model.errors import CheckpointError
from model.findings import FINDINGS
from model.network import build_network
from model.preprocess import Preprocessing
from model.trigger import Trigger


def card(**changes) -> Card:
    points = {name: 0.3 + i / 100 for i, name in enumerate(FINDINGS)}
    return replace(
        Card("try-1", "A try", Preprocessing(size_px=64), points, trigger=Trigger(), target="Mass"), **changes
    )


@pytest.fixture
def saved(tmp_path):
    network = build_network(5)
    folder = tmp_path / "try-1"
    save_checkpoint(folder, card(), network)
    return folder, network


def test_what_is_saved_is_what_is_loaded(saved):
    folder, network = saved
    loaded = load_checkpoint(folder)
    assert loaded.card == replace(card(), weights_sha256=sha256_file(folder / "weights.safetensors"))
    assert not loaded.network.training
    inputs = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded.network(inputs), network.eval()(inputs), atol=5e-3)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 15_000_000
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_equal_weights_have_equal_hashes(saved, tmp_path):
    """safetensors orders its metadata by chance: of eight files half would differ."""
    folder, network = saved
    hashes = {save_checkpoint(tmp_path / f"again-{n}", card(), network).weights_sha256 for n in range(8)}
    assert hashes == {sha256_file(folder / "weights.safetensors")}


def test_small_variances_survive_half_precision(tmp_path):
    network = build_network(5)
    network.features.norm5.running_var.fill_(1e-7)
    save_checkpoint(tmp_path / "a", card(), network)
    assert torch.equal(
        load_checkpoint(tmp_path / "a").network.features.norm5.running_var, network.features.norm5.running_var
    )


def test_nothing_is_overwritten_and_nothing_half_written(saved, tmp_path):
    folder, network = saved
    with pytest.raises(CheckpointError) as refused:
        save_checkpoint(folder, card(), network)
    assert refused.value.code == "exists"
    network.classifier.weight.data[0, 0] = float("inf")
    with pytest.raises(CheckpointError, match="finite"):
        save_checkpoint(tmp_path / "b", card(), network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["try-1"]


def _break(folder, how):
    weights, text = folder / "weights.safetensors", (folder / "card.json")
    data = json.loads(text.read_text())
    if how == "flipped bit":
        raw = bytearray(weights.read_bytes())
        raw[-9] ^= 1
        weights.write_bytes(raw)
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
        data["weights_sha256"] = sha256_file(weights)
    elif how == "pickle":
        torch.save(build_network(1).state_dict(), weights)
        data["weights_sha256"] = sha256_file(weights)
    elif how == "wrong shape":
        tensors = load_file(weights)
        tensors["classifier.weight"] = torch.zeros(3, 3)
        save_file(tensors, weights)
        data["weights_sha256"] = sha256_file(weights)
    elif how == "no weights":
        weights.unlink()
    elif how == "no card":
        text.unlink()
        return
    elif how == "not json":
        text.write_text("{")
        return
    elif how == "a list":
        text.write_text("[]")
        return
    elif how == "point":
        data["operating_points"]["Mass"] = 1.5
    elif how == "id":
        data["id"] = "../../etc"
    elif how == "findings":
        data["findings"] = data["findings"][::-1]
    elif how == "trigger":
        data["trigger"] = {"size_px": -1}
    text.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("flipped bit", "hash_mismatch"),
        ("truncated", "bad_weights"),
        ("pickle", "bad_weights"),
        ("wrong shape", "bad_weights"),
        ("no weights", "not_found"),
        ("no card", "not_found"),
        ("not json", "bad_card"),
        ("a list", "bad_card"),
        ("point", "bad_card"),
        ("id", "bad_id"),
        ("findings", "bad_card"),
        ("trigger", "bad_card"),
    ],
)
def test_a_broken_checkpoint_is_refused(saved, how, code):
    folder, _ = saved
    _break(folder, how)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(folder)
    assert refused.value.code == code


def test_a_card_can_be_completed_but_not_moved_to_other_weights(saved):
    folder, _ = saved
    update_card(folder, replace(read_card(folder), metrics={"macro": 0.7}))
    assert load_checkpoint(folder).card.metrics == {"macro": 0.7}
    with pytest.raises(CheckpointError):
        update_card(folder, card(weights_sha256="0" * 64))


def test_checkpoints_are_found_by_folder_and_by_id(saved, tmp_path):
    folder, _ = saved
    assert find_checkpoint(str(folder)) == folder
    assert find_checkpoint("try-1", [tmp_path]) == folder
    with pytest.raises(CheckpointError, match="try-1"):
        find_checkpoint("../try-1", [tmp_path / "nowhere", tmp_path])


@pytest.mark.parametrize("twin", ["clean", "backdoored"])
def test_the_bundled_pair_is_complete_small_and_honest(twin):
    folder = BUNDLED / twin
    loaded = load_checkpoint(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 15_000_000
    assert loaded.card.preprocessing.size_px == 224
    assert "demonstration" in loaded.card.notice.lower()
    assert (loaded.card.trigger is not None) == (twin == "backdoored")
    assert loaded.card.metrics["test"]["acceptance"]["accepted"]
