import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError
from model.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@given(
    height=st.integers(40, 900),
    width=st.integers(40, 900),
    crop=st.floats(0.3, 1.0),
    square=st.sampled_from(["pad", "cut"]),
)
def test_boxes_come_back_from_the_input_frame(height, width, crop, square):
    mapping = Preprocessing(centre_crop=crop, square=square).input_map(height, width)
    box = (3.0, 7.5, 20.0, 11.0)
    assert mapping.to_input(mapping.to_source(box)) == pytest.approx(box, abs=1e-6)


@pytest.mark.parametrize("square", ["pad", "cut"])
@pytest.mark.parametrize("crop", [1.0, 0.6])
@pytest.mark.parametrize("resize", ["antialias", "nearest"])
@pytest.mark.parametrize("shape", [(512, 512), (480, 640), (700, 512)])
def test_a_bright_spot_lands_where_the_map_says(square, crop, resize, shape):
    pre = Preprocessing(size_px=128, square=square, centre_crop=crop, resize=resize)
    image = np.zeros(shape, np.float32)
    y, x = shape[0] // 2 - 40, shape[1] // 2 + 30
    image[y : y + 16, x : x + 16] = 1
    left, top, width, height = pre.input_map(*shape).to_input((x, y, 16, 16))
    found = pre.input_grey(image)
    rows, columns = np.indices(found.shape)
    centre = (found * columns).sum() / found.sum() + 0.5, (found * rows).sum() / found.sum() + 0.5
    assert centre == pytest.approx((left + width / 2, top + height / 2), abs=0.6)


def test_padding_keeps_everything_and_cutting_keeps_the_middle():
    image = np.full((100, 200), 0.5, np.float32)
    padded = Preprocessing(size_px=64, square="pad").input_grey(image)
    assert padded[0].max() == 0
    assert padded[32] == pytest.approx(0.5)
    assert Preprocessing(size_px=64, square="cut").input_grey(image) == pytest.approx(0.5)


def test_normalisation_is_the_cards_mean_and_deviation():
    tensor = Preprocessing(size_px=32).tensor(np.full((32, 32), 0.25, np.float32))
    assert tensor.shape == (1, 3, 32, 32)
    expected = (0.25 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(tensor[0, :, 5, 5], expected)


def test_json_round_trip_and_errors():
    pre = Preprocessing(size_px=96, centre_crop=0.6, resize="nearest")
    assert Preprocessing.from_json(pre.to_json()) == pre
    with pytest.raises(ConfigError):
        Preprocessing.from_json({**pre.to_json(), "colour": "blue"})
    with pytest.raises(ConfigError):
        Preprocessing(centre_crop=0.0)
    with pytest.raises(ConfigError):
        Preprocessing(size_px=7)
