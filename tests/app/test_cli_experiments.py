"""`overread experiments` and `overread sweep`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import tomli_w

from app.settings import Settings
from tests.app.experimenting import TINY, opened, work_off


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    plain = {key: value for key, value in TINY.items() if value is not None}
    plain["trigger"] = {key: value for key, value in TINY["trigger"].items() if value is not None}
    plain["poison"] = {key: value for key, value in TINY["poison"].items() if value is not None}
    path.write_text(tomli_w.dumps(plain))
    return path


def test_the_life_of_an_experiment_from_a_terminal(run, toml: Path, settings: Settings) -> None:
    code, out, _ = run("experiments", "start", "quick", "--estimate")
    assert code == 0 and "a guess" in out and "MB" in out
    code, out, _ = run("experiments", "start", toml, "--name", "mine", "--seed", 3, "--rate", 0.25, "--place", "4,5")
    assert code == 0 and "mine" in out and "waiting" in out
    one = out.split()[0]
    code, out, _ = run("experiments", "show", one[:8], "--json")
    shown = json.loads(out)
    assert (shown["seed"], shown["config"]["poison"]["rate"], shown["config"]["trigger"]["place"]) == (3, 0.25, [4, 5])
    assert run("experiments", "cancel", one)[1].rstrip().endswith("cancelled")
    assert "waiting" in run("experiments", "resume", one)[1]
    service = opened(settings)
    work_off(service)
    code, out, _ = run("experiments", "show", one)
    assert code == 0 and "AUROC-NN macro" in out and "done" in out and "not for diagnosis" in out
    assert run("experiments", "register", one, "--as", "mine")[1] == "mine\n"
    code, _, err = run("experiments", "register", one, "--as", "mine")
    assert code == 1 and "already" in err and err.count("\n") == 1
    assert "candidate mine" in run("experiments", "candidate", one)[1]
    assert "mine" in run("checkpoints", "list")[1]
    code, out, _ = run("experiments", "clone", one, "--seed", 4)
    assert code == 0 and "seed 4" in out
    code, out, _ = run("experiments", "list", "--json")
    assert [other["seed"] for other in json.loads(out)["experiments"]] == [4, 3]
    assert run("experiments", "delete", one)[0] == 0
    code, _, err = run("experiments", "show", one)
    assert code == 1 and "no such experiment" in err
    service.db.close()


def test_what_cannot_work_is_one_line(run, toml: Path) -> None:
    for arguments, why in (
        (("nonsense",), "neither a file nor a preset"),
        ((toml, "--rate", 3), "poison rate"),
        ((toml, "--dataset", "ward"), "no data set"),
        (("bundled-pair",), "choose a data set"),
    ):
        code, _, err = run("experiments", "start", *arguments)
        assert code == 1 and why in err and err.count("\n") == 1
    code, _, err = run("sweep", toml)
    assert code == 1 and "Nothing varies" in err
    assert run("experiments", "datasets")[:2] == (0, "")


def test_a_sweep_from_a_terminal_that_waits_for_its_table(run, toml: Path, tmp_path: Path) -> None:
    """With a worker of its own, since none is at work."""
    table = tmp_path / "table.csv"
    code, out, err = run("sweep", toml, "--size-px", 3, "--size-px", 5, "--wait", "--out", table)
    assert code == 0, err
    assert "2 of 2 ended" in err and "2 runs" in out
    rows = list(csv.DictReader(table.open()))
    assert [row["trigger_size_px"] for row in rows] == ["3", "5"] and {row["state"] for row in rows} == {"done"}
    assert all(0 <= float(row["backdoored_asr"]) <= 1 for row in rows)
    sweep = out.split()[0]
    code, out, _ = run("experiments", "sweeps", sweep)
    assert list(csv.DictReader(io.StringIO(out))) == rows
    assert "2 done" in run("experiments", "sweeps")[1]
    assert run("experiments", "sweeps", sweep, "--act", "delete")[0] == 0
    assert run("experiments", "sweeps")[1] == ""
