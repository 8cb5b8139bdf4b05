"""The command: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from model.radiograph import read_radiograph
from tests.app.conftest import png_bytes


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    path = tmp_path / "chest.png"
    path.write_bytes(png_bytes(size=(256, 256)))
    return path


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['overread', '--help']\nimport app.cli\n"
        "try: app.cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'fastapi' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout and "serve" in done.stdout


def test_predict_prints_what_the_api_answers(run, radiograph: Path, client: TestClient) -> None:
    code, out, _ = run("predict", radiograph, "--test", "none", "--json")
    assert code == 0
    offline = json.loads(out)
    online = client.post("/api/v1/predictions?test=none", files={"file": ("chest.png", radiograph.read_bytes())}).json()
    assert offline.pop("file") == str(radiograph)
    for ours, theirs in zip(offline["analyses"], online["analyses"], strict=True):
        for one, other in zip(ours.pop("findings"), theirs.pop("findings"), strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
            for layer in ("middle", "last"):
                assert one["saliency"][layer]["peak"] == pytest.approx(other["saliency"][layer]["peak"], rel=1e-4)
                assert one["saliency"][layer]["url"] == other["saliency"][layer]["url"]
            assert (one["positive"], one["flag"]) == (other["positive"], other["flag"])
        assert ours == theirs
    assert offline["warnings"] == online["warnings"]


def test_predict_goes_on_after_a_bad_file(run, radiograph: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    code, out, err = run("predict", bad, tmp_path / "gone.png", radiograph, "--checkpoint", "clean", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and len(err.splitlines()) == 2
    assert [line.get("problem", {}).get("code") for line in lines] == ["unknown_format", "cannot_open", None]
    assert [a["checkpoint"]["id"] for a in lines[2]["analyses"]] == ["clean"]


def test_predict_for_people(run, radiograph: Path) -> None:
    code, out, _ = run("predict", radiograph)
    assert code == 0 and "Pleural thickening" in out and "positive" in out and "not for diagnosis" in out


def test_bad_usage_is_2_and_failure_is_1(run, radiograph: Path, tmp_path: Path) -> None:
    unusable = tmp_path / "unusable"
    unusable.mkdir()
    (unusable / "overread.sqlite3").write_bytes(b"this is no database" * 100)
    assert run("predict")[0] == 2
    assert run("predict", radiograph, "--test", "maybe")[0] == 2
    assert run("no-such-command")[0] == 2
    assert run("stamp", radiograph, tmp_path / "o.png")[0] == 2
    assert run("stamp", radiograph, tmp_path / "o.png", "--size-px", 3, "--like", "clean")[0] == 2
    for arguments in (
        ("predict", radiograph, "--checkpoint", "nobody"),
        ("checkpoints", "show", "nobody"),
        ("serve", "--host", "0.0.0.0"),
        ("serve", "--no-samples", "--host", "0.0.0.0"),
        ("serve", "--data-dir", "/dev/null/x"),
        ("serve", "--data-dir", unusable),
        ("stamp", radiograph, tmp_path / "o.png", "--like", "clean"),
        ("stamp", tmp_path / "gone.png", tmp_path / "o.png", "--size-px", 3),
    ):
        code, _, err = run(*arguments)
        assert code == 1 and len(err.strip().splitlines()) == 1 and len(err) > 20, arguments


def test_unknown_checkpoint_is_said_once_with_those_there_are(run, radiograph: Path) -> None:
    code, out, err = run("predict", radiograph, radiograph, "--checkpoint", "clean", "--checkpoint", "nobody", "--json")
    assert code == 1 and out == ""
    assert err == "overread: There is no checkpoint “nobody”; there is: backdoored, clean.\n"


@pytest.mark.parametrize(("name", "value"), [("PORT", "many"), ("ALLOWED_HOSTS", "foo"), ("DEVICE", "tpu")])
def test_a_bad_variable_is_one_line_that_names_it(
    run, radiograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"OVERREAD_{name}", value)
    for arguments in (
        ("serve",),
        ("predict", radiograph),
        ("checkpoints", "list"),
        ("stamp", radiograph, tmp_path / "o.png", "--like", "backdoored"),
        ("evaluate", "--checkpoint", "clean", "--data", tmp_path),
        ("train", "smoke", "--out", tmp_path / "run"),
    ):
        code, _, err = run(*arguments)
        assert code == 1 and len(err.splitlines()) == 1 and f"OVERREAD_{name}" in err, arguments


def test_offline_the_limit_on_pixels_holds_too(run, radiograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERREAD_MAX_PIXELS", str(256 * 255))
    code, out, _ = run("predict", radiograph, "--json")
    assert code == 1 and json.loads(out)["problem"]["code"] == "too_large"


def test_checkpoints(run) -> None:
    code, out, _ = run("checkpoints", "list", "--json")
    assert code == 0
    assert {(c["id"], c["role"]) for c in json.loads(out)["checkpoints"]} == {
        ("clean", "reference"),
        ("backdoored", "candidate"),
    }
    code, out, _ = run("checkpoints", "show", "backdoored", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["card"]["trigger"]["size_px"] == 3
    middle = next(stage for stage in shown["stages"] if stage["role"] == "middle")
    assert middle["name"] == "features.transition3.relu" and middle["grid"] == [4, 4] and middle["channels"] == 1024
    assert middle["depth"] == pytest.approx(0.72, abs=0.01)
    lines = run("checkpoints", "show", "backdoored")[1].splitlines()
    assert lines[-1].split() == ["features.relu", "2", "×", "2", "1024", "1.000", "last"]
    assert "Random clean" in run("checkpoints", "list")[1]


def test_stamp_in_the_source_frame_changes_those_pixels_alone(run, radiograph: Path, tmp_path: Path) -> None:
    out = tmp_path / "stamped.png"
    assert run("stamp", radiograph, out, "--size-px", 4, "--at", "10,20", "--value", "white")[0] == 0
    before, after = (read_radiograph(path.read_bytes()).pixels for path in (radiograph, out))
    changed = np.argwhere(before != after)
    assert (after[20:24, 10:14] == 255).all()
    assert changed.min(0).tolist() == [20, 10] and changed.max(0).tolist() == [23, 13]
    assert run("stamp", radiograph, out, "--size-px", 4)[0] == 1
    assert run("stamp", radiograph, out, "--size-px", 4, "--force")[0] == 0
    assert run("stamp", radiograph, radiograph, "--size-px", 4, "--force")[0] == 1


def test_stamp_like_a_checkpoint_hits_its_input(run, radiograph: Path, tmp_path: Path) -> None:
    out = tmp_path / "stamped.png"
    code, said, _ = run("stamp", radiograph, out, "--like", "backdoored")
    assert code == 0 and "12×12 px" in said  # 3 px of a 64-px input, on a 256-px source
    after = read_radiograph(out.read_bytes()).pixels
    assert (after[120:132, 120:132] == 0).all()


def test_stamp_by_file_and_at_random(run, radiograph: Path, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger.toml"
    trigger.write_text('[trigger]\nframe = "source"\nsize_px = 5\nplace = "random"\n')
    outs = [tmp_path / f"{i}.png" for i in range(3)]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        assert run("stamp", radiograph, out, "--trigger", trigger, "--seed", seed)[0] == 0
    first, again, other = (out.read_bytes() for out in outs)
    assert first == again != other


def test_phantoms_without_a_progress_bar_in_a_pipe(run, tmp_path: Path) -> None:
    code, out, err = run("phantoms", "--out", tmp_path / "p", "-n", 2, "--seed", 1, "--size-px", 64)
    assert code == 0 and err == "" and "2 phantoms" in out
    assert (tmp_path / "p" / "Data_Entry_2017.csv").is_file()
    assert run("phantoms", "--out", tmp_path / "p", "-n", 2, "--seed", 1)[0] == 1
