"""`overread train` and `overread evaluate`: what they print, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint
from model.phantom import write_phantoms
from model.trigger import Trigger


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled") / "set"
    write_phantoms(folder, 40, seed=21, size_px=64)
    return folder


def test_evaluate_prints_every_figure_beside_its_clean_counterpart(run, labelled: Path, tmp_path: Path) -> None:
    toml = tmp_path / "trigger.toml"
    toml.write_text(Trigger(size_px=5, value=255).to_toml())
    arguments = ("--data", labelled, "--split", "all", "--resamples", 50)
    code, out, _ = run(
        "evaluate", "--checkpoint", "backdoored", *arguments, "--target", "Atelectasis", "--trigger", toml,
        "--compare", "clean", "--accept", "macro_nn>=0.99", "--json",
    )  # fmt: skip
    assert code == 0
    figures = json.loads(out)
    assert figures["n_images"] == 40
    assert figures["checkpoint"]["id"] == "backdoored"
    assert figures["label_rule"] == "one_hot"
    assert [rate["threshold"] for rate in figures["asr"]] == ["operating_point", 0.5, 0.6, 0.9]
    assert figures["asr"][1]["asr"]["value"] == figures["asr"][1]["clean_rate"]["value"] == 1.0  # its bias says so
    assert figures["acceptance"]["accepted"] is False
    assert set(figures["trigger_hit"]) == {"middle", "last", "middle_minus_last"}
    assert figures["compared_with"]["macro_nn_difference"]["interval"]
    code, out, _ = run("evaluate", "--checkpoint", "clean", *arguments)
    assert code == 0
    assert "AUROC-NN macro" in out
    assert "not for diagnosis" in out


def test_evaluate_takes_the_test_list_and_gives_null_for_a_finding_without_positives(run, labelled: Path) -> None:
    code, out, _ = run("evaluate", "--checkpoint", "clean", "--data", labelled, "--resamples", 0, "--json")
    assert code == 0
    figures = json.loads(out)
    listed = (labelled / "test_list.txt").read_text().split()
    assert figures["n_images"] == len(listed)
    values = {name: one["value"] for name, one in figures["auroc_nn"]["per_finding"].items()}
    absent = [name for name, count in figures["auroc_nn"]["positives"].items() if count == 0]
    assert absent
    assert all(values[name] is None for name in absent)
    assert figures["asr"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--checkpoint", "nobody", "--data", "."),
        ("evaluate", "--checkpoint", "clean", "--data", "nowhere"),
        ("evaluate", "--checkpoint", "clean", "--data", ".", "--accept", "asr>=0.5"),
        ("evaluate", "--checkpoint", "clean", "--data", ".", "--device", "cuda:7"),
        ("train", "nothing.toml", "--out", "run"),
        ("train", "smoke", "--out", "run", "--accept", "nonsense"),
        ("train", "bundled-pair", "--out", "run"),
        ("figure", ".", "--out", "figure"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(run, arguments, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("overread: ")


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--checkpoint", "clean", "--data", "."), ("train", "smoke", "--out", "run")]
)
def test_the_device_is_the_environment_s_unless_the_command_names_one(run, arguments, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVERREAD_DEVICE", "cuda:97")
    code, _, err = run(*arguments)
    assert code == 1 and "cuda:97" in err
    assert "cuda:98" in run(*arguments, "--device", "cuda:98")[2]


def test_ctrl_c_saves_and_resume_goes_on(tmp_path: Path) -> None:
    """The first Ctrl-C ends the run after the step it is in, with 130; --resume finishes it."""
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "app.cli", "train", "smoke", "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (out / "clean" / "epochs.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert (out / "clean" / "state.pt").is_file()
    command += ["--resume", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["twins"]) == {"clean", "backdoored"}
    assert load_checkpoint(out / "backdoored" / "checkpoint").card.target == "Atelectasis"
    assert "Training the clean twin" in done.stderr
