"""`overread quality`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from model.phantom import write_phantoms


def test_quality_judges_maps_by_the_boxes_of_a_folder(run, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "set", 4, seed=5, size_px=128)
    arguments = ("quality", "--checkpoint", "clean", "--data", tmp_path / "set", "--images", 2)
    code, out, _ = run(*arguments, "--method", "grad-cam", "--sanity-images", 1, "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["checkpoint"] == "clean"
    assert figures["images"] == 2
    assert [row["layer"] for row in figures["rows"]] == ["features.transition3.relu", "features.relu"]
    for row in figures["rows"]:
        assert row["n"] >= 2
        assert 0 <= row["mass"]["value"] <= 1
    assert [step["part"] for step in figures["sanity"]["features.relu"]][:2] == ["classifier", "features.denseblock4"]


def test_quality_of_phantoms_is_a_table(run) -> None:
    code, out, _ = run("quality", "--checkpoint", "backdoored", "--images", 1, "--method", "hirescam")
    assert code == 0
    assert "| hirescam | features.relu |" in out
    assert "not for diagnosis" in out


def test_quality_says_what_is_wrong(run, tmp_path: Path) -> None:
    code, _, error = run("quality", "--checkpoint", "clean", "--method", "magic")
    assert code == 1
    assert "grad-cam++" in error
    code, _, error = run("quality", "--checkpoint", "clean", "--data", tmp_path)
    assert code == 1
    assert "Data_Entry_2017.csv" in error
