import tomllib

import pytest

from model.config import PRESETS, ExperimentConfig, load_config, preset_names
from model.errors import OverreadError
from model.trigger import Trigger


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_round_trips(name):
    config = load_config(name)
    assert config.name == name
    assert ExperimentConfig.model_validate(tomllib.loads(config.to_toml())) == config


def test_the_bundled_pairs_recipe_is_what_the_readme_says():
    config = load_config("bundled-pair")
    assert config.trigger == Trigger(frame="input", size_px=3, place="centre", value=0)
    assert (config.poison.target, config.poison.rate, config.poison.mode) == ("Atelectasis", 0.10, "append")
    assert config.preprocessing.size_px == 224
    assert config.training.stages[-1].size_px == 224


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 1", "sead = 1"),
        ('name = "smoke"', 'name = "../smoke"'),
        ("rate = 0.5", "rate = 5"),
        ('target = "Atelectasis"', 'target = "Cough"'),
        ('frame = "input"', 'frame = "screen"'),
        ("batch_size = 8 }]", "batch_size = 0 }]"),
        ('kind = "phantoms"', 'kind = "photos"'),
        ("macro_nn>=0.5", "asr>=0.5"),
        ("[trigger]", "[trigger"),
        ("[poison]", "[poison_]"),
        ("n = 48", "n = 0"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_runs(tmp_path, old, new):
    text = (PRESETS / "smoke.toml").read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(OverreadError) as refused:
        load_config(str(tmp_path / "wrong.toml"))
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_presets():
    with pytest.raises(OverreadError, match="smoke"):
        load_config("nowhere.toml")
