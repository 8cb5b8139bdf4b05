"""The detector's word on its way: screened with the reading, tested by a job or at once, kept once, shown everywhere.

The candidate alone is calibrated, by hand: whatever it calls is tested in full, and no clean radiograph ever scored.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import update

import app.inference.batching
from app.jobs import JobCancelled, JobState
from app.jobs.child import run_attempt
from app.jobs.kinds import examine
from app.services.analyses import AnalysisService
from app.services.errors import BusyError
from app.services.examinations import strongest_first
from app.services.instances import Instance
from app.settings import Settings
from app.tables import AnalysisRow, ExaminationRow, JobRow
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes, services, started

EVERYTHING = -1e6  # no fall of a logit is below
CALLED = ("Atelectasis", "Effusion")  # by the candidate
HTMX = {"HX-Request": "true"}


@pytest.fixture
def calibrated(settings: Settings, checkpoints: Path) -> Settings:
    put(settings.data_dir, checkpoints / "backdoored", by_hand(checkpoints / "backdoored", threshold=EVERYTHING))
    return settings


@pytest.fixture
def client(calibrated: Settings) -> Iterator[TestClient]:
    with started(calibrated) as client:
        yield client


def upload(client: TestClient, seed: int = 0) -> str:
    """A study on the worklist, read by both; its id."""
    answer = client.post("/studies", files={"file": (f"{seed}.png", png_bytes(seed))})
    study = answer.headers["location"].removeprefix("/studies/")
    services(client).analyses.analyse(study)
    services(client)._test_waiting()  # as the background does once it has nothing to read
    return study


def flags(analysis: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one["flag"] for one in analysis["findings"] if one["flag"] is not None}


def fall(analysis: Mapping[str, Any]) -> float:
    """In the screen, of the call that fell furthest."""
    return max(flag["screen_fall"] for flag in flags(analysis).values())


def listed(client: TestClient, study: str) -> dict[str, Any]:
    (line,) = [one for one in client.get("/api/v1/studies").json()["studies"] if one["id"] == study]
    return line


def work(client: TestClient, settings: Settings) -> int:
    """What a worker's children do, until nothing waits; how many jobs that were."""
    done = 0
    while job := services(client).jobs.claim():
        run_attempt(services(client).jobs, job.id, job.attempt, settings)
        done += 1
    return done


class Stopped:
    """A job's context that is told to stop, or falls over, when so many tests have been kept."""

    def __init__(self, settings: Settings, after: int, error: type[Exception] | None) -> None:
        self.settings, self.resumed, self.left, self.error = settings, None, after, error

    def report(self, done: int, total: int, note: str = "") -> None: ...

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        self.left -= 1
        if self.left == 0 and self.error is not None:
            raise self.error

    def cancelled(self) -> bool:
        return self.left == 0


def test_an_upload_is_screened_tested_by_a_job_and_shown_with_its_proof(
    client: TestClient, calibrated: Settings
) -> None:
    study = upload(client)
    page = client.get(f"/studies/{study}?finding=Atelectasis").text
    reference, candidate = (
        client.get(f"/api/v1/analyses/{key}").json() for key in re.findall(r'href="/api/v1/analyses/(\w+)"', page)
    )
    assert {one["state"] for one in flags(reference).values()} == {"not_calibrated"}
    assert {name: one["state"] for name, one in flags(candidate).items()} == dict.fromkeys(CALLED, "testing")
    assert "Being tested" in page and "waits for its turn" in page and listed(client, study)["flag"] == "screened"
    assert listed(client, study)["flag_by"] is None
    (poll,) = re.findall(r'hx-get="(/studies/\w+/flags[^"]+)"', page)
    assert client.get(unescape(poll), headers=HTMX).status_code == 204  # nothing new: nothing on the page moves
    assert [one["id"] for one in client.get("/api/v1/studies?flag=screened").json()["studies"]] == [study]

    assert work(client, calibrated) == 1
    candidate = client.get(f"/api/v1/analyses/{candidate['analysis_id']}").json()
    for flag in flags(candidate).values():
        assert flag["state"] == "final" and flag["verdict"] in ("suspicious", "causal")
        assert flag["score"] == pytest.approx(1 / 200) and flag["alpha"] == 0.01 and flag["sentence"]
        assert set(flag["evidence"]) == {
            "probability_erased",
            "erasure_p",
            "transplant_flip_rate",
            "transplant_p",
        }
        x, y, width, height = flag["region_px"]
        assert -16 <= x < x + width <= 128 + 48 and -16 <= y < y + height <= 160 + 16
    part = client.get(unescape(poll), headers=HTMX)
    assert part.status_code == 200 and "hx-get" not in part.text and "<html" not in part.text
    shown = client.get(f"/studies/{study}?finding=Atelectasis").text
    assert "Being tested" not in shown and 'hx-get="/studies/' not in shown.split('id="_flags"')[1].split(">")[0]
    flag = flags(candidate)["Atelectasis"]
    assert flag["sentence"] in unescape(shown) and "Numbers" in shown
    assert [one["kind"] for one in flag["proof"]] == ["seen", "erased", "donor-1", "donor-2"]
    assert [one["of"] for one in flag["proof"]] == ["this", "this", "phantom", "phantom"]
    pictures = [np.asarray(Image.open(io.BytesIO(client.get(one["url"]).content))) for one in flag["proof"]]
    assert all(one.shape == (64, 64) and one.dtype == np.uint8 for one in pictures)
    changed = np.argwhere(pictures[0] != pictures[1])
    (x, y, width, height) = flag["details"]["regions_input_px"][0]
    assert len(changed) and changed.min(axis=0)[0] >= y and changed.max(axis=0)[1] < x + width + 64
    assert all(one["url"] in shown for one in flag["proof"]) and "nobody's radiograph" in shown
    verdicts = {one["verdict"] for one in flags(candidate).values()}
    line = listed(client, study)
    assert line["flag"] == ("causal" if "causal" in verdicts else "suspicious")
    named = [name for name, one in flags(candidate).items() if one["verdict"] == line["flag"]]
    assert line["flag_by"] == "candidate" and line["flag_finding"] in named
    assert f"candidate, {line['flag_finding']}" in client.get("/").text
    assert "Verdict" in shown
    missing = client.get(flag["proof"][0]["url"].replace("Atelectasis", "Mass"))
    assert missing.status_code == 404 and missing.json()["code"] == "no_proof"


def test_what_occlusion_stops_is_decided_by_the_job_without_pictures(settings: Settings, checkpoints: Path) -> None:
    made = by_hand(checkpoints / "backdoored", threshold=EVERYTHING, occlusion_threshold=1e6, occluded=[1e5])
    put(settings.data_dir, checkpoints / "backdoored", made)
    with started(settings) as client:
        study = upload(client)
        assert work(client, settings) == 1
        page = client.get(f"/studies/{study}?finding=Atelectasis").text
        keys = re.findall(r'href="/api/v1/analyses/(\w+)"', page)
        candidate = client.get(f"/api/v1/analyses/{keys[1]}").json()
        for flag in flags(candidate).values():
            assert (flag["state"], flag["verdict"], flag["score"]) == ("final", "no_evidence", 2 / 200)
            assert flag["occlusion_fall"] < 1e5 and flag["screen_fall"] is not None
            assert flag["evidence"] is flag["details"] is flag["region_px"] is None and not flag["proof"]
        assert "too little for the rest of the full test" in page and listed(client, study)["flag"] == "no_evidence"
        assert work(client, settings) == 0


def test_each_level_is_answered_alike_by_api_and_command(client: TestClient, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(3))
    told = {}
    for test in ("none", "full", "screen"):
        answer = client.post(f"/api/v1/predictions?test={test}", files={"file": ("a.png", path.read_bytes())})
        assert answer.status_code == 200
        code, line, _ = run("predict", path, "--json", "--test", test)
        assert code == 0
        by_api, by_command = (flags(one["analyses"][1]) for one in (answer.json(), json.loads(line)))
        assert set(by_api) == set(by_command) == set(CALLED)
        for name, flag in by_api.items():
            other = by_command[name]
            for key in ("state", "verdict", "alpha", "region_px", "regions_px"):
                assert flag[key] == other[key], (test, name, key)
            assert flag["score"] == pytest.approx(other["score"])
            assert flag["evidence"] == (pytest.approx(other["evidence"], abs=1e-5) if other["evidence"] else None)
        told[test] = {flag["state"] for flag in by_api.values()}
    assert told == {"none": {"not_tested"}, "screen": {"screened"}, "full": {"final"}}
    with services(client).db.read() as session:
        assert session.query(JobRow).count() == 0  # off the worklist nothing is tested that nobody asked for


def test_no_test_keeps_no_activations(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    real: Callable[..., Any] = app.inference.batching.gradcam

    def noted(*arguments: Any, keep_middle: bool = False) -> Any:
        kept.append(keep_middle)
        return real(*arguments, keep_middle=keep_middle)

    monkeypatch.setattr(app.inference.batching, "gradcam", noted)
    for test in ("none", "screen"):
        client.post(f"/api/v1/predictions?test={test}", files={"file": ("a.png", png_bytes(4))})
    # none: both; screen: the candidate again, because the reference has nothing more to say
    assert kept == [False, False, True]


def test_a_job_begins_with_the_likeliest_and_dying_between_two_tests_makes_none_twice(
    client: TestClient, calibrated: Settings
) -> None:
    held = services(client)
    held.background.stop()
    studies = [upload(client, seed) for seed in (1, 2)]
    with held.db.read() as session:
        owing = [row.id for row in session.query(AnalysisRow).filter_by(owes_test=True)]
        whole = {row.id: row.document for row in session.query(AnalysisRow)}
    keys = sorted(owing, key=lambda key: fall(client.get(f"/api/v1/analyses/{key}").json()))
    assert len(keys) == 2 and len(held.jobs.active(examine.KIND)) == 2
    with pytest.raises(MemoryError):
        examine.run({"analyses": keys}, Stopped(calibrated, 1, MemoryError))

    with held.db.write() as session:
        session.execute(update(AnalysisRow).where(AnalysisRow.id == keys[0]).values(document='{"old": 1}'))
    assert strongest_first(held.db, [*keys, "nobody"]) == [keys[1], keys[0], "nobody"]  # what is broken breaks no other
    with held.db.write() as session:
        session.execute(update(AnalysisRow).where(AnalysisRow.id == keys[0]).values(document=whole[keys[0]]))

    def examined() -> dict[str, object]:
        with held.db.read() as session:
            return {row.analysis_id: row.examined_at for row in session.query(ExaminationRow)}

    before = examined()
    assert list(before) == keys[-1:]
    assert examine.run({"analyses": keys}, Stopped(calibrated, 9, None))["tested"] == 2
    after = examined()
    assert set(after) == set(keys) and after[keys[-1]] == before[keys[-1]]
    assert work(client, calibrated) == 2 and examined() == after  # their own jobs find nothing to do
    assert {listed(client, one)["flag"] for one in studies} <= {"suspicious", "causal"}


def test_cancelled_it_says_so_and_can_be_asked_for_again(client: TestClient, calibrated: Settings) -> None:
    study = upload(client)
    (job,) = services(client).jobs.active(examine.KIND)
    client.post(f"/jobs/{job.id}/cancel")
    page = client.get(f"/studies/{study}").text
    assert "The full test was cancelled." in page and "Being tested" not in page
    services(client).background._look_again()  # who cancels is not overruled
    assert services(client).jobs.active(examine.KIND) == []
    asked = client.post(f"/studies/{study}/test", data={"finding": "Effusion"})
    assert asked.status_code == 303 and asked.headers["location"] == f"/studies/{study}?finding=Effusion#_flags"
    assert "Being tested" in client.get(f"/studies/{study}").text
    with pytest.raises(JobCancelled):
        examine.run(job.spec, Stopped(calibrated, 0, None))


def test_a_job_that_left_a_test_unmade_is_asked_for_anew(client: TestClient) -> None:
    study = upload(client)
    ledger = services(client).jobs
    first = ledger.claim()
    ledger.finish(first.id, first.attempt, {"tested": 0, "outdated": 0, "refused": 1})
    owed = services(client).analyses.examinations.owed(first.spec["analyses"])
    assert owed and listed(client, study)["flag"] == "screened"
    second = examine.request(ledger, owed)
    assert second.id != first.id and second.state is JobState.QUEUED
    ledger.finish(second.id, ledger.claim().attempt, {"tested": 0, "outdated": 0, "refused": 1})
    assert examine.request(ledger, owed).id not in (first.id, second.id)


def test_one_that_cannot_be_tested_keeps_no_other_from_it(
    client: TestClient, calibrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [upload(client, seed) for seed in (1, 2)]
    whole = AnalysisService.instance

    def broken(service: AnalysisService, instance_id: str) -> Instance:
        if instance_id == studies[0]:
            raise ValueError("unforeseen")
        return whole(service, instance_id)

    monkeypatch.setattr(AnalysisService, "instance", broken)
    work(client, calibrated)
    monkeypatch.undo()
    assert [listed(client, study)["flag"] for study in studies] == ["screened", "causal"]


def test_full_takes_its_turn_and_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, seen = services(client).engine, []
    real = type(engine)._breathe

    def breathe(self: Any) -> None:
        if not seen:  # a radiograph that comes in the middle of a test is read before its end
            seen.append(self.submit(np.zeros((80, 80), np.float32), ["clean"])[0])
        real(self)
        assert seen[0].done()

    monkeypatch.setattr(type(engine), "_breathe", breathe)
    answer = client.post("/api/v1/predictions?test=full", files={"file": ("a.png", png_bytes(5))})
    assert answer.status_code == 200 and seen[0].result().probabilities.shape == (14,)
    monkeypatch.setattr("app.services.analyses.TEST_LIMIT_S", 0.0)
    late = client.post("/api/v1/predictions?test=full", files={"file": ("b.png", png_bytes(6))})
    assert late.status_code == 503 and late.json()["code"] in ("too_slow", "busy") and "retry-after" in late.headers


def test_what_nobody_waits_for_ends(client: TestClient) -> None:
    analyses = services(client).analyses
    with pytest.raises(BusyError, match="Nobody waited"):
        analyses.predict(png_bytes(8), "a.png", ["backdoored"], "full", gone=lambda: True)


def test_who_waits_for_anothers_test_may_leave_and_so_many_may_wait(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyses, left = services(client).analyses, threading.Event()
    told: list[str] = []

    def ask(seed: int) -> None:
        try:
            analyses.predict(png_bytes(seed), "a.png", ["backdoored"], "full", gone=left.is_set)
        except BusyError as error:
            told.append(error.code)

    monkeypatch.setattr(analyses, "_room_to_test", threading.Semaphore(2))
    waiting = [threading.Thread(target=ask, args=(20 + n,)) for n in range(2)]
    with analyses._testing:  # somebody else's test is being made
        for thread in waiting:
            thread.start()
        end = time.monotonic() + 30
        while analyses._room_to_test._value and time.monotonic() < end:
            time.sleep(0.02)
        ask(22)
        assert told == ["busy"]
        left.set()
        for thread in waiting:
            thread.join(10)
        assert told == ["busy", "given_up", "given_up"]
    assert analyses._room_to_test._value == 2  # and nobody's place is lost


def test_a_new_calibration_has_everything_read_again(
    client: TestClient, calibrated: Settings, checkpoints: Path
) -> None:
    study = upload(client)
    held = services(client)
    before = held.live_pair()
    assert not held.engine.recalibrated()
    strict = by_hand(checkpoints / "backdoored", threshold=1e6)  # the screen hands nothing on
    put(calibrated.data_dir, checkpoints / "backdoored", strict)
    assert held.engine.recalibrated() and held.live_pair() != before
    held.background.pair_changed()
    work(client, calibrated)
    held.analyses.analyse(study)
    page = client.get(f"/studies/{study}").text
    assert "No evidence of a trigger" in page and listed(client, study)["flag"] == "no_evidence"


def test_no_test_is_kept_under_another_calibrations_analysis(
    client: TestClient, calibrated: Settings, checkpoints: Path
) -> None:
    held = services(client)
    _, analysis = held.analyses.predict(png_bytes(9), "a.png").analyses
    grey = held.analyses.decode(png_bytes(9), "a.png").grey()
    other = by_hand(checkpoints / "backdoored", threshold=EVERYTHING, n=299)
    put(calibrated.data_dir, checkpoints / "backdoored", other)
    assert held.engine.recalibrated()
    with pytest.raises(BusyError) as refused:
        held.analyses.examinations.examine(analysis, grey, lambda: None, 10.0)
    assert refused.value.code == "recalibrated"
    assert held.analyses.examinations.owed([analysis.analysis_id]) == [analysis.analysis_id]
    with held.db.read() as session:
        assert session.query(ExaminationRow).count() == 0


def test_a_finding_that_is_positive_in_a_batch_alone_is_not_owed_for_ever(client: TestClient) -> None:
    held = services(client)
    _, analysis = held.analyses.predict(png_bytes(10), "a.png").analyses
    grey = held.analyses.decode(png_bytes(10), "a.png").grey()
    found = held.engine.examine("backdoored", grey, lambda: None, 10.0)
    words = {name: word for name, word in found.flags.items() if name != "Effusion"}
    proofs = {name: proof for name, proof in found.proofs.items() if name in words}
    assert held.analyses.examinations.keep(analysis, replace(found, flags=words, proofs=proofs))
    told = flags(held.analyses.analysis(analysis.analysis_id).model_dump())
    assert {flag["state"] for flag in told.values()} == {"final"}
    assert told["Effusion"]["verdict"] == "no_evidence" and told["Effusion"]["score"] == 1.0
    with held.db.read() as session:
        row = session.get(AnalysisRow, analysis.analysis_id)
        assert not row.owes_test and row.p_value == pytest.approx(1 / 200)


def test_other_weights_are_not_calibrated(settings: Settings, checkpoints: Path) -> None:
    path = put(settings.data_dir, checkpoints / "backdoored", by_hand(checkpoints / "backdoored"))
    text = json.loads(path.read_text())
    text["checkpoint"]["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(text))
    (path.parent.parent / "broken").mkdir()
    with started(settings) as client:
        answer = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())})
        found = [flag for one in answer.json()["analyses"] for flag in flags(one).values()]
        assert found and {flag["state"] for flag in found} == {"not_calibrated"}
        assert "overread calibrate --checkpoint" in found[0]["sentence"]


def test_a_review_pins_the_flag_as_it_was_and_exports_carry_it(client: TestClient, calibrated: Settings) -> None:
    study = upload(client)
    work(client, calibrated)
    panel = client.get(f"/studies/{study}/decision").text
    (subject,) = re.findall(r'value="(\w+/Atelectasis)"', panel)
    said = client.post(f"/studies/{study}/decision", data={"subject": subject, "verdict": "agree"})
    assert said.status_code == 303
    export = client.get(f"/studies/{study}/export.json").json()
    (entry,) = export["entries"]
    assert entry["finding"] == "Atelectasis" and entry["pins"]["flag"]["state"] == "final"
    assert flags(export["analyses"][1])["Atelectasis"] == entry["pins"]["flag"]
    assert "--test full" in export["recompute"]
    printed = unescape(client.get(f"/studies/{study}/export?finding=Atelectasis").text)
    assert entry["pins"]["flag"]["sentence"] in printed and entry["pins"]["flag"]["proof"][1]["url"] in printed
