"""`overread calibrate`: what it writes, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.checkpoint import Card, save_checkpoint
from model.detector import read_calibration
from model.findings import FINDINGS
from model.network import build_network
from model.phantom import write_phantoms
from model.preprocess import Preprocessing


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An untrained checkpoint of 32 px, which is all that the command needs."""
    folder = tmp_path / "small"
    card = Card("small", "Small", Preprocessing(32), dict.fromkeys(FINDINGS, 0.5))
    save_checkpoint(folder, card, build_network(0).eval())
    return folder


def test_calibrate_writes_a_versioned_file_and_says_what_it_is_worth(
    run, settings, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.detector.nulls.RANKED", 2)  # random patches: 99 take a while
    write_phantoms(tmp_path / "set", 5, seed=5, size_px=64)
    arguments = ("calibrate", "--checkpoint", small, "--data", tmp_path / "set", "--split", "all", "--images", 3)
    code, out, error = run(*arguments, "--by", "Ada")
    assert code == 0
    assert "No flag at 1 % exists: it takes 99 radiographs" in out
    assert "not for diagnosis" in out
    assert "Screening" in error
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    summary = json.loads(out)
    assert (summary["n"], summary["decides"], summary["data"]) == (3, False, "set")
    assert summary["donors_are_phantoms"]  # three are too few to give donors of their own
    code, out, _ = run(*arguments, "--phantoms", 2, "--out", tmp_path / "both", "--json")
    assert code == 0
    both = json.loads(out)
    assert (both["n"], both["data"]) == (5, "set and 2 phantoms, seed 5502")
    path = Path(summary["path"])
    assert path.is_relative_to(settings.data_dir / "calibrations")
    made = read_calibration([path.parent], path.parent.name)
    assert made is not None
    assert [one["made_by"] for one in made.history] == ["Ada"]


def test_calibrate_says_what_is_wrong(run, small: Path, tmp_path: Path) -> None:
    code, _, error = run("calibrate", "--checkpoint", small, "--data", tmp_path)
    assert code == 1
    assert "Data_Entry_2017.csv" in error
    code, _, error = run("calibrate", "--checkpoint", small, "--data", tmp_path, "--phantoms", 2, "--donors", "own")
    assert code == 2
    assert "no phantoms beside them" in error
    code, _, error = run("calibrate", "--checkpoint", small, "--donors", "own")
    assert code == 2
    assert "patients of --data" in error
    code, _, error = run("calibrate", "--checkpoint", small, "--phantoms", 2)
    assert code == 2
    assert "as --images says" in error
    code, _, error = run("calibrate", "--checkpoint", "nobody")
    assert code == 1
    assert "nobody" in error
