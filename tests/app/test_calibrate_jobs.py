"""Calibrating a checkpoint from the dashboard: the job, by REST and on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.jobs import Job, JobCancelled, JobState
from app.jobs.kinds import ALONE, calibrate
from app.services.audit import Filter
from app.settings import Settings
from model.checkpoint import read_card
from model.detector import read_calibration
from model.phantom import write_phantoms
from tests.app.calibrations import by_hand, put
from tests.app.conftest import services, started
from tests.app.experimenting import work_off

API = "/api/v1"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("model.detector.nulls.RANKED", 2)  # random patches: 99 take a while
    write_phantoms(tmp_path / "set", 40, seed=5, size_px=64)  # three of them to calibrate on
    return settings.model_copy(update={"datasets": {"ward": tmp_path / "set", "gone": tmp_path / "no"}})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with started(settings) as client:
        yield client


def asked(client: TestClient, **wanted: Any) -> dict[str, Any]:
    made = client.post(f"{API}/calibrations/clean", json={"images": 3, **wanted})
    assert made.status_code == 202, made.text
    found: dict[str, Any] = made.json()
    return found


def ended(client: TestClient, job: Mapping[str, Any]) -> Job:
    work_off(services(client).experiments)
    found: Job = services(client).jobs.get(job["id"])
    return found


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


class Told:
    """A context whose job is cancelled when it comes to a stage."""

    resumed = None

    def __init__(self, settings: Settings, until: str) -> None:
        self.settings, self.until, self.notes = settings, until, list[str]()

    def report(self, done: int, total: int, note: str = "") -> None:
        assert 0 <= done <= total
        self.notes.append(note)

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        raise AssertionError("a calibration begins anew")

    def cancelled(self) -> bool:
        return bool(self.notes) and self.notes[-1] == self.until


def test_a_job_calibrates_and_what_it_made_counts_at_once(client: TestClient, settings: Settings) -> None:
    job = asked(client)
    assert (job["kind"], job["state"]) == ("calibrate", "queued")
    assert asked(client)["id"] == job["id"]  # not twice at once
    other = client.post(f"{API}/calibrations/clean", json={"images": 4})
    assert other.status_code == 409 and other.json()["code"] == "already_calibrating"
    assert services(client).jobs.claim(without=ALONE) is None  # nothing short waits behind it
    done = ended(client, job)
    assert done.state is JobState.DONE and done.error is None, done.error
    assert done.result is not None and (done.result["n"], done.result["decides"]) == (3, False)
    page = words(client.get("/calibration?checkpoint=clean").text)
    assert (
        "Nothing can be flagged. 3 clean radiographs are too few for a flag at 1 %." in page
        and "3 phantoms, seed 5502" in page
    )
    found = client.get(f"{API}/calibrations/clean").json()
    assert (found["state"], found["current"]["made_by"]) == ("too_few", "local")
    assert found["version"] == done.result["version"]
    assert "clean: 3 radiographs, too few for a flag at 1 %" in words(client.get("/jobs").text)

    again = asked(client, dataset="ward", images=250)
    assert again["id"] != job["id"]
    assert ended(client, again).state is JobState.DONE
    services(client).calibration_job("clean")
    found = client.get(f"{API}/calibrations/clean").json()
    assert (found["current"]["data"], found["history"][0]["data"]) == ("ward", "3 phantoms, seed 5502")
    events = [event for event in services(client).audit.page(Filter(), None, 50).events if "calib" in event.action]
    assert {(event.action, event.subject) for event in events} == {("calibrations.create", "clean")}


def test_a_lost_worker_costs_nothing_but_time(client: TestClient) -> None:
    job = asked(client)
    ledger = services(client).jobs
    assert ledger.claim(["calibrate"]).id == job["id"]
    assert ledger.put_back_lost("the worker is gone") == [job["id"]]
    done = ended(client, job)
    assert done.state is JobState.DONE and (done.attempt, done.failures) == (2, 0)


@pytest.mark.parametrize("stage", ["decoding", "drawing the donors", "occluding", "full tests"])
def test_cancelled_at_any_stage_the_earlier_calibration_stays(
    settings: Settings, checkpoints: Path, stage: str
) -> None:
    folder = checkpoints / "clean"
    digest = read_card(folder).weights_sha256
    path = put(settings.data_dir, folder, by_hand(folder))
    before = path.read_bytes()
    spec = {"checkpoint": "clean", "weights_sha256": digest, "dataset": "", "images": 3, "by": "Ada", "threads": 1}
    context = Told(settings, f"· {stage}")
    with pytest.raises(JobCancelled):
        calibrate.run({**spec, "donors": "automatic"}, context)
    assert context.notes[-1] == f"· {stage}"
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_broken_calibration_is_mended_by_a_new_one(client: TestClient, settings: Settings, checkpoints: Path) -> None:
    path = put(settings.data_dir, checkpoints / "clean", by_hand(checkpoints / "clean"))
    path.write_text("{")
    services(client).background.recalibrated()
    page = client.get("/calibration?checkpoint=clean").text
    assert "is not JSON" in page and "<button>Calibrate</button>" in page
    assert ended(client, asked(client)).state is JobState.DONE
    assert read_calibration([path.parent], path.parent.name) is not None


def test_what_cannot_go_better_the_next_time_is_not_tried_again(client: TestClient, settings: Settings) -> None:
    ledger = services(client).jobs
    spec = ledger.cancel(asked(client)["id"]).spec
    for changes, why in (
        ({"weights_sha256": "0" * 64}, "has other weights"),
        ({"checkpoint": "nobody"}, "no checkpoint “nobody”"),
        ({"dataset": "sold"}, "no data set “sold”"),
        ({"dataset": "gone"}, "data set “gone” holds no Data_Entry_2017.csv"),
    ):
        done = ended(client, {"id": ledger.enqueue("calibrate", {**spec, **changes}).id})
        assert done.state is JobState.FAILED and done.attempt == 1
        assert done.error and why in done.error and str(settings.data_dir.parent) not in done.error


def test_rest_refuses_what_cannot_be(client: TestClient) -> None:
    assert client.post(f"{API}/calibrations/nobody", json={}).json()["code"] == "unknown_checkpoint"
    bad_wishes: list[tuple[dict[str, str], str]] = [
        ({"dataset": "sold"}, "unknown_dataset"),
        ({"dataset": "gone"}, "bad_dataset"),
        ({"donors": "own"}, "no_own_donors"),
    ]
    for wanted, code in bad_wishes:
        refused = client.post(f"{API}/calibrations/clean", json=wanted)
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    for bad in ({"images": 0}, {"images": 10**6}, {"donors": "mine"}, {"alpha": 0.5}):
        assert client.post(f"{API}/calibrations/clean", json=bad).status_code == 422
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.post(f"{API}/calibrations/clean", json={}, headers=foreign).status_code == 403
    assert client.post("/calibration/clean", data={"images": "3"}, headers=foreign).status_code == 403
    assert services(client).jobs.newest(5) == []
    assert client.post(f"{API}/calibrations/clean").status_code == 202  # everything has a default
    listed = {one["name"]: one["calibration"] for one in client.get(f"{API}/datasets").json()["datasets"]}
    assert listed == {"ward": 3, "gone": 0}


def test_the_page_starts_follows_and_stops_it(client: TestClient) -> None:
    page = client.get("/calibration?checkpoint=clean&dataset=ward").text
    assert '<option value="ward" selected>ward: 3 to calibrate on' in page and "gone: cannot be used" in page
    assert "with 250 the true rate lies between 0.10 % and 2.2 %" in words(page)
    bad = client.post("/calibration/clean", data={"dataset": "ward", "images": "many"})
    assert bad.status_code == 422 and "A whole number from 1 to 5000" in bad.text and 'value="many"' in bad.text
    assert client.post("/calibration/nobody", data={"images": "3"}).status_code == 404

    posted = client.post("/calibration/clean", data={"dataset": "ward", "images": "3"})
    assert (posted.status_code, posted.headers["location"]) == (303, "/calibration?checkpoint=clean")
    page = client.get("/calibration?checkpoint=clean").text
    assert "Calibrating clean on ward" in page and "<button>Calibrate</button>" not in page
    (address,) = re.findall(r'hx-get="(/calibration/[^"]+)"', page)
    part = client.get(address, headers=HTMX)
    assert "Waiting" in part.text and "<html" not in part.text and "hx-refresh" not in part.headers
    assert client.get(address).headers["location"] == "/calibration?checkpoint=clean"
    assert client.post("/calibration/clean/cancel").status_code == 303
    part = client.get(address, headers=HTMX)
    assert "was cancelled" in part.text and part.headers["hx-refresh"] == "true"

    ledger = services(client).jobs
    (cancelled,) = ledger.newest(2)
    job = asked(client, dataset="ward", images=2)  # after a cancelled one, with other wishes
    assert client.post(f"/jobs/{cancelled.id}/retry").status_code == 409  # not twice at once
    claimed = ledger.claim(["calibrate"])
    ledger.fail(claimed.id, claimed.attempt, "No room.", final=True)
    page = client.get("/calibration?checkpoint=clean").text
    assert "The last attempt to calibrate it failed." in page and "No room." in page
    ledger.cancel(ledger.retry(cancelled.id).id)
    assert "was cancelled" in client.get(address, headers=HTMX).text  # it is the last one now
    assert client.post(f"/jobs/{job['id']}/retry").status_code == 303
    assert ended(client, job).state is JobState.DONE
    assert client.get("/calibration?checkpoint=clean").text.count("Calibrate anew</summary>") == 1
