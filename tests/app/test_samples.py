"""The synthetic radiographs that an empty worklist begins with."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.context import Services
from app.services.samples import draw_samples
from app.services.users import LOCAL
from app.settings import Settings
from model.phantom import draw_phantom
from model.preprocess import Preprocessing
from model.radiograph import read_radiograph
from model.trigger import Trigger
from tests.app.conftest import started

EXPECTED = [
    "synthetic sample 1, stamped.png", "synthetic sample 1.png", "synthetic sample 2, stamped.png",
    "synthetic sample 2.png", "synthetic sample 3, stamped.png", "synthetic sample 3.png",
    "synthetic sample 4, stamped.dcm", "synthetic sample 4.png", "synthetic sample 5, stamped elsewhere.png",
    "synthetic sample 5.png", "synthetic sample 6.png", "synthetic sample 7.png",
]  # fmt: skip


def names(client: TestClient) -> list[str]:
    services = client.app.state.services  # type: ignore[attr-defined]
    end = time.monotonic() + 120
    while services.pending(LOCAL) and time.monotonic() < end:
        time.sleep(0.05)
    assert not services.pending(LOCAL)
    return [study["title"] for study in client.get("/api/v1/studies").json()["studies"]]


def test_an_empty_worklist_begins_with_a_dozen_samples_and_they_come_once(settings: Settings) -> None:
    settings = settings.model_copy(update={"samples": True})
    with started(settings) as client:
        assert names(client) == EXPECTED
        html = client.get("/").text
        assert html.count("≠ differs") == 12 and "every 2s" not in html and html.count("synthetic</span>") == 12
        (found,) = client.get("/api/v1/studies?q=dcm").json()["studies"]
        assert (found["format"], found["patient_id"], found["source"]) == ("DICOM", "SYNTHETIC-004", "sample")
        assert found["patient_name"] == "Synthetic Sample 4" and "SYNTHETIC" in found["description"]
    with started(settings) as client:
        assert not client.app.state.services._wants_samples  # type: ignore[attr-defined]
        assert names(client) == EXPECTED


def test_without_a_trigger_there_is_nothing_to_show(settings: Settings) -> None:
    with started(settings.model_copy(update={"samples": True, "candidate": "clean"})) as client:
        assert names(client) == [] and "Nothing here yet" in client.get("/").text


def test_samples_are_without_the_target_and_the_stamped_ones_meet_the_network_s_centre() -> None:
    preprocessing = Preprocessing()
    drawn = {
        name: read_radiograph(data) for name, data in draw_samples(Trigger(size_px=3), preprocessing, "Atelectasis")
    }
    assert sorted(drawn) == sorted(EXPECTED)
    for number in (1, 2, 3):
        plain, stamped = (drawn[f"synthetic sample {number}{end}.png"].grey() for end in ("", ", stamped"))
        changed = np.argwhere(plain != stamped)
        assert np.ptp(changed, axis=0).tolist() == [7, 7]  # 3 input pixels of 224 on 512 source pixels
        met = preprocessing.input_grey(stamped)[110:113, 110:113]
        assert met[1, 1] == 0 and met.max() < 0.25
    plain, dicom = (drawn[f"synthetic sample 4{end}"] for end in (".png", ", stamped.dcm"))
    assert (dicom.format, dicom.metadata["modality"], dicom.metadata["bits_stored"]) == ("DICOM", "CR", "12")
    changed = np.argwhere(abs(plain.grey() - dicom.grey()) > 0.005)
    assert np.ptp(changed, axis=0).tolist() == [7, 7] and "lateral_view" not in dicom.warnings
    plain, elsewhere = (drawn[f"synthetic sample 5{end}.png"].grey() for end in ("", ", stamped elsewhere"))
    changed = np.argwhere(plain != elsewhere)
    assert changed.min() > 0.65 * 512 and changed.max() < 0.7 * 512
    phantoms = [draw_phantom(7, index, 512) for index in range(30)]
    for number in range(1, 8):
        pixels = drawn[f"synthetic sample {number}.png"].pixels
        (findings,) = [one.findings for one in phantoms if np.array_equal(one.pixels, pixels)]
        assert "Atelectasis" not in findings and bool(findings) == (number > 3)


def test_a_page_opened_meanwhile_shows_them_as_they_come(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(settings) as client:
        part = client.get("/", headers={"HX-Request": "true"}).text
        assert part.startswith('<div id="_worklist"') and "Nothing here yet" in part
        monkeypatch.setattr(Services, "adding_samples", True)
        assert 'hx-trigger="every 2s, refresh"' in client.get("/", headers={"HX-Request": "true"}).text
