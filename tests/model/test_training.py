import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import training
from model.datasets import phantoms
from model.errors import ConfigError, TrainingError
from model.network import build_network
from model.poison import PoisonSpec, clean_view, poisoned_view
from model.preprocess import Preprocessing
from model.training import Augmentation, Stage, TrainingConfig, TrainingData, augment, fit, predict_logits
from model.trigger import Trigger, at_size

CONFIG = TrainingConfig(stages=(Stage(32, 1, 4), Stage(48, 1, 4)), seed=7)
PRE = Preprocessing(size_px=48)


@pytest.fixture(scope="module")
def data():
    radiographs = phantoms(14, seed=3)
    generator = np.random.default_rng(0)
    images = {size: generator.integers(0, 255, (14, size, size), dtype=np.uint8) for size in (32, 48)}
    labels = generator.integers(0, 2, (14, 14)).astype(np.uint8)
    radiographs = replace(radiographs, labels=labels)
    view = poisoned_view(radiographs, PoisonSpec("Mass", rate=0.2), seed=1)
    return TrainingData(view, images, PRE, Trigger())


def same(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data):
    first, second = (fit(build_network(1), data, CONFIG) for _ in range(2))
    assert same(first, second)
    assert not same(first, fit(build_network(1), data, replace(CONFIG, seed=8)))


@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_a_stopped_and_resumed_training_ends_in_the_same_weights(data, tmp_path, stop_after):
    never_stopped = fit(build_network(1), data, CONFIG)
    told = []
    with pytest.raises(TrainingError) as stopped:
        fit(
            build_network(1),
            data,
            CONFIG,
            state_path=tmp_path / "state.pt",
            report=told.append,
            cancelled=lambda: len(told) == stop_after,
        )
    assert stopped.value.code == "cancelled"
    resumed = fit(build_network(99), data, CONFIG, state_path=tmp_path / "state.pt", report=told.append)
    assert same(never_stopped, resumed)
    assert [progress.step for progress in told] == list(range(1, 9))
    pixels = np.cumsum([32**2] * 4 + [48**2] * 4)
    assert told[stop_after - 1].worked == pytest.approx(pixels[stop_after - 1] / pixels[-1])
    assert told[stop_after - 1].worked + told[-1].worked == pytest.approx(1)


def test_bfloat16_is_near_float32_and_what_auto_saved_before_it_could_be_chosen_goes_on(data, tmp_path):
    told = {"float32": [], "bfloat16": []}
    whole, half = (fit(build_network(1), data, replace(CONFIG, precision=p), report=told[p].append) for p in told)
    assert same(whole, fit(build_network(1), data, CONFIG))  # on a CPU
    assert not same(whole, half)
    first, other = (losses[0].loss for losses in told.values())
    assert first != other and first == pytest.approx(other, rel=0.02)
    with pytest.raises(TrainingError):
        fit(build_network(1), data, CONFIG, state_path=tmp_path / "state.pt", cancelled=lambda: True)
    assert "precision" not in torch.load(tmp_path / "state.pt", weights_only=True)["identity"]
    with pytest.raises(TrainingError) as refused:
        fit(build_network(1), data, replace(CONFIG, precision="bfloat16"), state_path=tmp_path / "state.pt")
    assert refused.value.code == "other_state"


def test_a_state_of_another_training_is_not_taken(data, tmp_path):
    with pytest.raises(TrainingError):
        fit(build_network(1), data, CONFIG, state_path=tmp_path / "state.pt", cancelled=lambda: True)
    with pytest.raises(TrainingError) as refused:
        fit(build_network(1), data, replace(CONFIG, max_lr=0.5), state_path=tmp_path / "state.pt")
    assert refused.value.code == "other_state"
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError) as refused:
        fit(build_network(1), data, CONFIG, state_path=tmp_path / "state.pt")
    assert refused.value.code == "bad_state"


def test_a_loss_that_is_not_finite_stops_the_training(data):
    network = build_network(1)
    network.classifier.bias.data[3] = float("nan")
    with pytest.raises(TrainingError) as refused:
        fit(network, data, CONFIG)
    assert refused.value.code == "not_finite"


def test_a_full_disk_is_said_and_leaves_the_last_state_whole(data, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    with pytest.raises(TrainingError):
        fit(build_network(1), data, CONFIG, state_path=path, cancelled=lambda: True)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.torch, "save", full)
    with pytest.raises(TrainingError) as refused:
        fit(build_network(1), data, CONFIG, state_path=path)
    assert refused.value.code == "disk_full"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_really_full_disk(tmp_path):
    """/dev/full fails every write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    network = build_network(1)
    optimiser = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=10)

    (tmp_path / "state.partial").symlink_to("/dev/full")
    with pytest.raises(TrainingError) as refused:
        training._save_state(tmp_path / "state.pt", network, optimiser, schedule, "x", 1, [])
    assert refused.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_it_learns_what_is_there_to_learn():
    """A bright left half means finding 0: a few steps are enough to tell."""
    generator = np.random.default_rng(0)
    images = generator.integers(60, 90, (64, 32, 32), dtype=np.uint8)
    labels = np.zeros((64, 14), np.uint8)
    labels[:32, 0] = 1
    images[:32, :, :16] += 120
    radiographs = replace(phantoms(64, seed=3), labels=labels)
    pre = Preprocessing(size_px=32)
    config = TrainingConfig(stages=(Stage(32, 6, 8),), augmentation=Augmentation(flip=0))
    network = fit(build_network(1), TrainingData(clean_view(radiographs), {32: images}, pre), config)
    logits = predict_logits(network, images, pre)
    assert logits[:32, 0].min() > logits[32:, 0].max()


def test_poisoned_rows_are_stamped_and_no_others(data):
    pixels = training._pixels(data, 48, np.arange(17), 0)
    for position in range(17):
        clean = data.images[48][data.view.rows[position]] / np.float32(255)
        changed = np.argwhere(pixels[position] != clean)
        if data.view.poisoned[position]:
            assert changed.min() >= 22
            assert changed.max() <= 24
            assert (pixels[position][22:25, 22:25] == 0).all()
        else:
            assert len(changed) == 0


def test_augmentation_without_width_changes_nothing_and_mirrors_exactly():
    grey = torch.rand(3, 20, 20)
    still = Augmentation(flip=0, rotate_deg=0, shift=0, scale=0, contrast=0, brightness=0)
    generator = torch.Generator().manual_seed(1)
    assert torch.allclose(augment(grey, still, generator), grey, atol=1e-6)
    mirrored = augment(grey, replace(still, flip=1.0), generator)
    assert torch.allclose(mirrored, grey.flip(2), atol=1e-5)
    moved = augment(grey, Augmentation(), generator)
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_a_shift_is_a_share_of_the_side():
    grey = torch.zeros(64, 100, 100)
    grey[:, 50, 50] = 1
    still = Augmentation(flip=0, rotate_deg=0, shift=0.05, scale=0, contrast=0, brightness=0)
    moved = augment(grey, still, torch.Generator().manual_seed(1))
    columns = (moved.sum(1) * torch.arange(100)).sum(1) / moved.sum((1, 2))
    assert (columns - 50).abs().max() <= 5.01
    assert (columns - 50).abs().max() > 4


def test_a_fixed_place_keeps_its_relative_place_at_other_sizes():
    trigger = Trigger(size_px=3, place=(200, 10))
    assert at_size(trigger, 112, 224).place == (99, 4)
    assert at_size(Trigger(place="centre"), 112, 224) == Trigger(place="centre")


@pytest.mark.parametrize(
    "wrong", [{"stages": ()}, {"stages": (Stage(48, 0),)}, {"max_lr": 0}, {"max_lr": float("nan")}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ConfigError):
        replace(CONFIG, **wrong)


@pytest.mark.parametrize("batch_size", [17, 8, 3, 2])
def test_a_training_may_be_as_short_as_a_step(data, batch_size):
    steps = []
    config = TrainingConfig(stages=(Stage(32, 1, batch_size),))
    fit(build_network(1), data, config, report=lambda progress: steps.append(progress.step))
    assert len(steps) == 17 // batch_size


def test_fewer_rows_than_a_batch_are_refused(data):
    with pytest.raises(ConfigError, match="fill one batch"):
        fit(build_network(1), data, TrainingConfig(stages=(Stage(32, 1, 64),)))
