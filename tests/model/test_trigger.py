import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import TriggerError
from model.preprocess import Preprocessing
from model.trigger import Trigger, require_survival, stamp_source, survival

triggers = st.builds(
    Trigger,
    frame=st.sampled_from(["source", "input"]),
    size_px=st.integers(1, 20),
    place=st.one_of(
        st.sampled_from(["centre", "random", "top-left", "top-right", "bottom-left", "bottom-right"]),
        st.tuples(st.integers(0, 40), st.integers(0, 40)),
    ),
    pattern=st.sampled_from(["square", "checker", "cross", "noise"]),
    margin_px=st.integers(0, 9),
    seed=st.integers(0, 5),
    value=st.integers(0, 255),
    blend=st.floats(0.01, 1.0),
)


@given(triggers)
def test_a_trigger_round_trips_through_toml_and_json(trigger):
    assert Trigger.from_toml(trigger.to_toml()) == trigger
    assert Trigger.from_dict(trigger.to_dict()) == trigger


@given(triggers, st.integers(0, 100))
def test_only_the_box_changes_and_the_image_itself_does_not(trigger, seed):
    image = np.random.default_rng(0).random((64, 72)).astype(np.float32)
    before = image.copy()
    stamped = trigger.stamp(image, np.random.default_rng(seed))
    x, y, w, h = (int(v) for v in trigger.box(64, 72, np.random.default_rng(seed)))
    outside = np.ones_like(image, bool)
    outside[y : y + h, x : x + w] = False
    assert np.array_equal(image, before)
    assert np.array_equal(stamped[outside], image[outside])


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger(pattern="letters", text="L1", size_px=24, value=255),
        Trigger(kind="blend", pattern="noise", blend=0.2, seed=3),
        Trigger(kind="frequency", pattern="checker", blend=0.15, band=0.2),
        Trigger(frame="source", of_width_px=1024, place=(3, 4)),
    ],
)
def test_every_kind_round_trips_and_says_what_it_is(trigger):
    assert Trigger.from_toml(trigger.to_toml()) == trigger
    assert len(trigger.in_words()) > 20


def test_a_plain_trigger_is_written_as_it_always_was():
    """Cards and configurations of earlier versions stay equal to what is written today."""
    assert set(Trigger().to_dict()) == {"frame", "size_px", "place", "pattern", "value", "blend"}


@pytest.mark.parametrize(
    ("place", "corner"),
    [("top-left", (2, 2)), ("top-right", (35, 2)), ("bottom-left", (2, 25)), ("bottom-right", (35, 25))],
)
def test_corners_keep_their_margin(place, corner):
    assert Trigger(place=place, margin_px=2, size_px=3).box(30, 40) == (*corner, 3, 3)


def test_letters_can_be_read_and_noise_is_the_seeds():
    values, mask = Trigger(pattern="letters", text="L", size_px=16, value=255).patch()
    assert (values == 1).all()
    upright, foot = mask[:, :8].sum(), mask[8:, :].sum()
    assert upright > 1.5 * mask[:, 8:].sum() and foot > mask[:8, :].sum()  # an L leans left and stands broad
    assert 0.1 < mask.mean() < 0.6
    one, again, other = (Trigger(pattern="noise", size_px=6, seed=s).patch()[0] for s in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_trigger_given_for_a_width_is_scaled_to_the_image():
    trigger = Trigger("source", 8, (512, 256), of_width_px=1024)
    assert trigger.box(1024, 1024) == (512, 256, 8, 8)
    assert trigger.box(512, 512) == (256, 128, 4, 4)
    assert Trigger("source", 3, of_width_px=1024).box(100, 100)[2] == 1  # never none
    stamped = trigger.stamp(np.ones((512, 512), np.float32))
    assert (stamped == 0).sum() == 16


def test_a_blend_over_the_whole_image_by_hand():
    image = np.full((56, 56), 0.5, np.float32)
    stamped = Trigger(kind="blend", pattern="checker", value=255, blend=0.2).stamp(image)
    assert stamped[0, :3].tolist() == pytest.approx([0.6, 0.6, 0.4])  # 0.5·0.8 + 1·0.2, and 0; cells of two pixels
    assert sorted({round(float(v), 5) for v in stamped.ravel()}) == [0.4, 0.6]


def test_a_frequency_trigger_changes_low_amplitudes_and_no_phase():
    rng = np.random.default_rng(0)
    image = 0.5 + 0.1 * rng.standard_normal((32, 32)).clip(-2, 2)
    trigger = Trigger(kind="frequency", pattern="noise", blend=0.3, band=0.1)
    before, after = np.fft.fft2(image.astype(np.float32)), np.fft.fft2(trigger.stamp(image))
    frequencies = np.abs(np.fft.fftfreq(32))
    low = (frequencies[:, None] <= 0.1) & (frequencies[None, :] <= 0.1)
    assert low.sum() == 49  # −3..3 cycles an image, on both axes
    wanted = 0.7 * np.abs(before) + 0.3 * np.abs(np.fft.fft2(trigger.patch(32, 32)[0]))
    assert np.abs(after)[low] == pytest.approx(wanted[low], rel=1e-3)
    assert np.abs(after)[~low] == pytest.approx(np.abs(before)[~low], abs=1e-3)
    assert np.angle(after / before) == pytest.approx(np.zeros((32, 32)), abs=1e-2)


@pytest.mark.parametrize("kind", ["blend", "frequency"])
def test_a_whole_image_trigger_stamped_on_the_file_reaches_the_network(kind):
    pre = Preprocessing(size_px=64)
    trigger = Trigger(kind=kind, pattern="noise", blend=0.3)
    waves = np.sin(np.linspace(0, 6, 256))[:, None] * np.cos(np.linspace(0, 9, 256))
    grey = (0.5 + 0.2 * waves).astype(np.float32)
    stamped, box = stamp_source(trigger, grey, pre)
    assert box == (0, 0, 256, 256)
    met, wanted = pre.input_grey(stamped), trigger.stamp(pre.input_grey(grey))
    change = wanted - pre.input_grey(grey)
    assert np.corrcoef((met - pre.input_grey(grey)).ravel(), change.ravel())[0, 1] > 0.95
    assert np.abs(met - wanted).mean() < 0.25 * np.abs(change).mean()


def test_the_formula_by_hand():
    trigger = Trigger(size_px=2, place=(1, 0), value=255, blend=0.25)
    stamped = trigger.stamp(np.full((3, 4), 0.4, np.float32))
    assert stamped[0].tolist() == pytest.approx([0.4, 0.55, 0.55, 0.4])  # 0.4·0.75 + 1·0.25
    assert stamped[2].tolist() == pytest.approx([0.4] * 4)
    cross = Trigger(size_px=3, place=(0, 0), pattern="cross").stamp(np.ones((3, 3), np.float32))
    assert cross.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    checker = Trigger(size_px=2, place=(0, 0), pattern="checker").stamp(np.full((2, 2), 0.5, np.float32))
    assert checker.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("shape", [(1024, 1024), (384, 384), (500, 640)])
def test_an_input_frame_trigger_stamped_on_the_file_reaches_the_network_at_its_place(shape):
    pre, trigger = Preprocessing(size_px=224), Trigger(size_px=3)
    grey = np.full(shape, 0.7, np.float32)
    stamped, box = stamp_source(trigger, grey, pre)
    met = pre.input_grey(stamped)
    x, y, _, _ = (int(v) for v in trigger.box(224, 224))
    assert met[y + 1, x + 1] < 0.02
    assert met[y : y + 3, x : x + 3].max() < 0.25
    assert np.abs(met - pre.input_grey(grey)).sum() == pytest.approx(0.7 * 9, rel=0.02)
    assert pre.input_map(*shape).to_input(box) == pytest.approx((x, y, 3, 3))


def test_resizing_eats_triggers():
    """The paper's code: crop 0.6 of 1024 and nearest to 224 turns 3×3 into one pixel and can turn 2×2 into none."""
    paper = Preprocessing(size_px=224, centre_crop=0.6, resize="nearest")
    grey = np.full((1024, 1024), 0.5, np.float32)
    stamped = Trigger("source", 3, "centre").stamp(grey)
    assert (paper.input_grey(stamped) != 0.5).sum() == 1
    assert survival(Trigger("source", 2, (511, 511)), paper, 1024, 1024) == 0
    with pytest.raises(TriggerError) as refused:
        require_survival(Trigger("source", 2, (511, 511)), paper, 1024, 1024)
    assert refused.value.code == "does_not_survive"
    with pytest.raises(TriggerError):
        require_survival(Trigger("source", 1, "random"), paper, 1024, 1024)
    require_survival(Trigger("source", 3, "centre"), paper, 1024, 1024)
    assert survival(Trigger("source", 3, (509, 510), "square"), paper, 1024, 1024) == 1
    assert survival(Trigger("source", 3, (509, 510), "cross"), paper, 1024, 1024) == 0  # a hole where nearest looks
    with pytest.raises(TriggerError) as refused:
        require_survival(Trigger("input", 3, (222, 0)), paper, 1024, 1024)
    assert refused.value.code == "outside"
    with pytest.raises(TriggerError):  # outside the crop
        require_survival(Trigger("source", 20, (5, 5)), paper, 1024, 1024)
    require_survival(Trigger("input", 1), paper, 1024, 1024)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame": "screen"},
        {"size_px": 0},
        {"size_px": 2.5},
        {"place": "left"},
        {"place": [1]},
        {"place": [-1, 4]},
        {"value": 256},
        {"value": "grey"},
        {"blend": 0},
        {"pattern": "star"},
        {"colour": 3},
        {"kind": "aura"},
        {"kind": "blend", "pattern": "cross"},
        {"kind": "frequency", "band": 0.7},
        {"pattern": "letters"},
        {"pattern": "square", "text": "L"},
        {"of_width_px": 1024},
        {"margin_px": -1},
        {"seed": -1},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(TriggerError):
        Trigger.from_dict(wrong)


def test_places_outside_and_missing_generators_are_refused():
    with pytest.raises(TriggerError, match="outside"):
        Trigger(size_px=3, place=(62, 0)).stamp(np.zeros((64, 64), np.float32))
    with pytest.raises(TriggerError, match="does not fit"):
        Trigger(size_px=65).stamp(np.zeros((64, 64), np.float32))
    with pytest.raises(TriggerError, match="generator"):
        Trigger(place="random").stamp(np.zeros((64, 64), np.float32))
    with pytest.raises(TriggerError, match="TOML"):
        Trigger.from_toml("size_px = ")
