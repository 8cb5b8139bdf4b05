"""The API, the command and the page say the same of a file: to 1e-5, however each of them came to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from model.findings import FINDINGS
from model.words import number
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes, started
from tests.app.dicoms import dicom_bytes

Run = Callable[..., tuple[int, str, str]]
SHOWN = ("Atelectasis", "Effusion")  # whose maps are looked at on the page, which shows one finding at a time
Numbers = dict[str, np.ndarray]  # by checkpoint: probability, peak at the middle and at the last layer of each finding


def numbers(analyses: list[dict]) -> Numbers:
    found = {}
    for analysis in analyses:
        assert [one["name"] for one in analysis["findings"]] == list(FINDINGS)
        found[analysis["checkpoint"]["id"]] = np.array(
            [
                (one["probability"], one["saliency"]["middle"]["peak"], one["saliency"]["last"]["peak"])
                for one in analysis["findings"]
            ]
        )
    return found


def shown(client: TestClient, study: str) -> Numbers:
    """What the review page says, in its table and of its maps."""
    table = re.findall(r'<data value="([^"]+)">([^<]+)</data>', client.get(study).text)
    assert len(table) == 2 * len(FINDINGS)
    assert all(unescape(said) == number(float(exact)) for exact, said in table)
    probabilities = np.array([float(exact) for exact, _ in table]).reshape(len(FINDINGS), 2)
    peaks = []
    for finding in SHOWN:
        page = client.get(study, params={"finding": finding, "scale": "own"}).text
        pictures = re.findall(r'src="([^"]+/saliency/[^"]+\.png\?[^"]+)"', unescape(page))
        peaks.append([float(parse_qs(urlsplit(one).query)["ceiling"][0]) for one in pictures])
    reference, candidate = np.split(np.array(peaks), 2, axis=1)  # middle and last of each
    return {
        "clean": np.column_stack([probabilities[:, 0], _filled(reference)]),
        "backdoored": np.column_stack([probabilities[:, 1], _filled(candidate)]),
    }


def _filled(peaks: np.ndarray) -> np.ndarray:
    """Not a number where no map was looked at."""
    every = np.full((len(FINDINGS), 2), np.nan)
    every[[FINDINGS.index(finding) for finding in SHOWN]] = peaks
    return every


@pytest.mark.parametrize("kind", ["png", "stamped", "dicom", "stamped dicom"])
def test_api_command_and_page_agree(shared_client: TestClient, run: Run, tmp_path: Path, kind: str) -> None:
    client, path = shared_client, tmp_path / "plain"
    path.write_bytes(dicom_bytes(3) if "dicom" in kind else png_bytes(3, (180, 131)))
    if "stamped" in kind:
        plain, path = path, tmp_path / "stamped"
        assert run("stamp", plain, path, "--like", "backdoored")[0] == 0

    answer = client.post("/api/v1/predictions?test=none", files={"file": (path.name, path.read_bytes())})
    code, line, _ = run("predict", path, "--json")
    assert code == 0
    by_api, by_command = answer.json()["analyses"], json.loads(line)["analyses"]
    stored = [client.get(f"/api/v1/analyses/{one['analysis_id']}").json() for one in by_api]
    study = client.post("/studies", files={"file": (path.name, path.read_bytes())}).headers["location"]

    expected = numbers(by_api)
    assert set(expected) == {"clean", "backdoored"}
    for other in (numbers(by_command), numbers(stored), shown(client, study)):
        for checkpoint, values in expected.items():
            said = np.isfinite(other[checkpoint])
            assert said[:, 0].all() and said[FINDINGS.index("Effusion")].all()
            np.testing.assert_allclose(other[checkpoint][said], values[said], rtol=1e-5, atol=1e-5)
    assert [one["analysis_id"] for one in by_command] == [one["analysis_id"] for one in by_api]


@pytest.mark.parametrize("test", ["screen", "full"])
def test_api_command_scan_and_page_agree_on_flags(
    settings: Settings, checkpoints: Path, run: Run, tmp_path: Path, test: str
) -> None:
    candidate = checkpoints / "backdoored"
    put(settings.data_dir, candidate, by_hand(candidate, threshold=-1e6))
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "a.png"
    path.write_bytes(png_bytes(3, (180, 131)))
    with started(settings) as client:
        answer = client.post(f"/api/v1/predictions?test={test}", files={"file": ("a.png", path.read_bytes())})
        by_api = answer.json()["analyses"]
        if test == "full":  # the page shows what is known, and says so
            study = client.post("/studies", files={"file": ("a.png", path.read_bytes())}).headers["location"]
            page = unescape(client.get(study, params={"finding": "Atelectasis"}).text)
            flag = by_api[1]["findings"][FINDINGS.index("Atelectasis")]["flag"]
            x, y, width, height = flag["region_px"]
            assert flag["sentence"] in page and f"{width} × {height} px at {x}, {y}" in page
            assert f"p = {flag['score']:.2g}" in page and f"p = {flag['evidence']['erasure_p']:.2g}" in page
    code, line, _ = run("predict", path, "--json", "--test", test)
    assert code == 0
    assert run("scan", folder, "--out", tmp_path / "out.jsonl", "--test", test)[0] == 0
    by_command = json.loads(line)["analyses"]
    by_scan = json.loads((tmp_path / "out.jsonl").read_text())["analyses"]
    states = {"screen": "screened", "full": "final"}
    assert {one["flag"]["state"] for one in by_api[1]["findings"] if one["flag"]} == {states[test]}
    for other in (by_command, by_scan):
        for ours, theirs in zip(by_api, other, strict=True):
            for mine, its in zip(ours["findings"], theirs["findings"], strict=True):
                assert (mine["flag"] is None) == (its["flag"] is None) == (not mine["positive"])
                if mine["flag"]:
                    same = ("state", "verdict", "score", "alpha", "region_px", "sentence")
                    assert {key: mine["flag"][key] for key in same} == {key: its["flag"][key] for key in same}
                    evidence = mine["flag"]["evidence"]
                    assert its["flag"]["evidence"] == (pytest.approx(evidence, abs=1e-5) if evidence else None)
