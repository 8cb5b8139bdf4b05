"""Screening a folder: resumable, a line each, none twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.decoding import Decoder
from app.processes import ROOT
from app.services.errors import BusyError
from app.services.scanning import TRIES, Scan, scanning_engine
from app.settings import Settings
from model.detector.donors import DonorNames
from model.errors import RadiographError
from model.radiograph import Radiograph
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "radiographs"
    (made / "b" / "deep").mkdir(parents=True)
    (made / ".hidden").mkdir()
    for number, name in enumerate(("b/deep/2.png", "a.png", "b/1.png", "z.png", ".hidden/x.png", ".y.png")):
        (made / name).write_bytes(png_bytes(number, (96, 96)))
    (made / "notes.txt").write_text("not a radiograph")
    return made


def lines_of(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_line_for_each_file_in_order_as_predict_prints_it(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, printed, err = run("scan", folder, "--out", out, "--test", "none")
    lines = lines_of(out)
    assert code == 1 and printed == "" and "1 of 5 files could not be read" in err and len(err.splitlines()) == 1
    assert [line["file"] for line in lines] == ["a.png", "b/1.png", "b/deep/2.png", "notes.txt", "z.png"]
    assert lines[3]["problem"]["code"] == "unknown_format"  # type: ignore[index]
    code, printed, _ = run("predict", folder / "a.png", "--json")
    ours, theirs = lines[0], json.loads(printed)
    assert theirs.pop("file") == str(folder / "a.png") and ours.pop("file") == "a.png"
    for one, other in zip(ours["analyses"], theirs["analyses"], strict=True):  # type: ignore[call-overload]
        for mine, its in zip(one.pop("findings"), other.pop("findings"), strict=True):
            assert mine["probability"] == pytest.approx(its["probability"], abs=1e-5)
    assert ours == theirs


def test_goes_on_after_a_torn_line_and_does_nothing_twice(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run("scan", folder, "--out", out, "--checkpoint", "clean")
    whole = out.read_bytes()
    cut = whole[: whole.index(b"\n", whole.index(b"\n") + 1) + 40]  # two lines and the start of the third
    out.write_bytes(cut)
    code, _, _ = run("scan", folder, "--out", out, "--checkpoint", "clean")
    assert code == 1
    assert [line["file"] for line in lines_of(out)] == ["a.png", "b/1.png", "b/deep/2.png", "notes.txt", "z.png"]
    again = out.read_bytes()
    run("scan", folder, "--out", out, "--checkpoint", "clean")
    assert out.read_bytes() == again


class Unlucky(Decoder):
    """On a machine that has trouble with one file, so many times."""

    def __init__(self, name: str, times: int) -> None:
        super().__init__(1, 10.0)
        self.name, self.times = name, times

    def read(self, data: bytes, name: str = "", **more: Any) -> Radiograph:
        if name == self.name and self.times:
            self.times -= 1
            raise RadiographError("decoder_killed", "The decoder was ended from outside.")
        return super().read(data, name, **more)


def test_the_machines_trouble_is_no_files_outcome(folder: Path, tmp_path: Path, settings: Settings) -> None:
    out = tmp_path / "out.jsonl"
    with scanning_engine(settings, ["clean"], settings.pair) as (engine, decoder):
        decoder.close()

        def scan(times: int) -> list[str]:
            unlucky = Unlucky("a.png", times)
            try:
                with Scan(folder, out, ["clean"], settings, settings.pair).open() as one:
                    return [line.file for line in one.run(engine, unlucky, pause_s=0)]
            finally:
                unlucky.close()

        with pytest.raises(BusyError, match=r"1 of 5 files could not be read for now \(a.png: The decoder was ended"):
            scan(TRIES)
        assert [line["file"] for line in lines_of(out)] == ["b/1.png", "b/deep/2.png", "notes.txt", "z.png"]
        assert scan(TRIES - 1) == ["a.png"]  # begun again it goes on with it, and succeeds within its tries
    last = lines_of(out)[-1]
    assert last["file"] == "a.png" and "problem" not in last and len(lines_of(out)) == 5


def test_without_its_donors_no_full_test_is_begun(
    run, folder: Path, tmp_path: Path, settings: Settings, checkpoints: Path
) -> None:
    candidate = checkpoints / "backdoored"
    gone = replace(by_hand(candidate), donors=DonorNames(5501, sha256=("0" * 64,)))
    put(settings.data_dir, candidate, gone)
    out = tmp_path / "out.jsonl"
    code, _, err = run("scan", folder, "--out", out, "--test", "full")
    assert code == 1 and "donors cannot be read" in err and out.read_bytes() == b""


def test_refuses_what_it_cannot_do(run, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "letter.txt"
    other.write_text("Dear Sir,\n")
    code, _, err = run("scan", folder, "--out", other)
    assert code == 1 and "no scan of ours" in err and other.read_text() == "Dear Sir,\n"
    assert run("scan", tmp_path / "nowhere", "--out", tmp_path / "x")[0] == 2
    assert run("scan", folder, "--out", tmp_path / "x", "--test", "some")[0] == 2
    code, _, err = run("scan", folder, "--out", tmp_path / "y", "--checkpoint", "none")
    assert code == 1 and "no checkpoint “none”" in err


def test_killed_twice_it_goes_on_and_every_file_has_one_line(
    folder: Path, tmp_path: Path, settings: Settings, checkpoints: Path
) -> None:
    candidate = checkpoints / "backdoored"
    put(settings.data_dir, candidate, by_hand(candidate, threshold=1e6, screened=[0.1, 0.2]))
    for number in range(36):
        (folder / f"n{number:03}.png").write_bytes(png_bytes(100 + number, (64, 64)))
    out = tmp_path / "out.jsonl"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OVERREAD_DATA_DIR": str(settings.data_dir),
        "OVERREAD_BUNDLED_DIR": str(settings.bundled_dir),
        "OVERREAD_DEVICE": "cpu",
    }
    command = [sys.executable, "-m", "app.cli", "scan", str(folder), "--out", str(out)]
    kills = 0
    while True:
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 400
        while process.poll() is None and time.monotonic() < end:
            if kills < 2 and out.is_file() and out.read_bytes().count(b"\n") >= 7 + 14 * kills:
                process.kill()
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            pytest.fail("the scan does not end")
        if process.returncode >= 0:
            break
        kills += 1
    assert kills == 2 and process.returncode == 1
    names = [line["file"] for line in lines_of(out)]
    assert len(names) == 41 and names == sorted(set(names))
    called = [one for line in lines_of(out) if "analyses" in line for one in line["analyses"][1]["findings"]]  # type: ignore[index]
    assert {one["flag"]["verdict"] for one in called if one["flag"]} == {"no_evidence"}
