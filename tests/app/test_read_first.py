"""Two readers and a locked study of two images: no road to what the checkpoints say before one's own reading."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.jobs.child import run_attempt
from app.settings import Settings
from app.tables import StudyRow
from tests.app.calibrations import by_hand, put
from tests.app.conftest import fresh_database, png_bytes, services, started
from tests.app.dicoms import dicom_bytes
from tests.app.test_studies import STUDIES, taken

HTML = {"Accept": "text/html"}
PASSWORD = "correct horse"
SECRET = "seen by Ada alone"
VEILED = ("reference", "candidate", "disagreement", "flag", "flag_by", "flag_finding")


@dataclass(frozen=True)
class Locked:
    """Ada has locked the study, read it and judged it; Bo and Cy have not. Another study, the older one, is open."""

    client: TestClient
    study: str
    images: tuple[str, str]
    analyses: tuple[str, ...]
    open: str

    def get(self, who: str, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, auth=(who, PASSWORD), headers=headers)

    def post(self, who: str, path: str, **content: Any) -> httpx.Response:
        return self.client.post(path, auth=(who, PASSWORD), **content)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Locked]:
    data = tmp_path_factory.mktemp("locked")
    put(data, checkpoints / "backdoored", by_hand(checkpoints / "backdoored", threshold=-1e6, tested=[1e6] * 50))
    with fresh_database(data) as url:
        settings = Settings(data_dir=data, bundled_dir=checkpoints, device="cpu", samples=False, database_url=url)
        with started(settings) as client:
            other = taken(client, "open.png", png_bytes(7))["study_id"]
            images = [taken(client, f"{n}.dcm", dicom_bytes(n)) for n in (1, 2)]
            services = client.app.state.services  # type: ignore[attr-defined]
            read = [services.analyses.analyse(one["instance_id"]) for one in images]
            services.analyses.analyse(other)
            services._test_waiting()  # as the background does once it has nothing to read
            while job := services.jobs.claim():  # as a worker's child does: there is a proof to hide
                run_attempt(services.jobs, job.id, job.attempt, settings)
            for name in ("Ada", "Bo", "Cy"):
                services.users.add(name, PASSWORD)
            found = Locked(
                client,
                images[0]["study_id"],
                (images[0]["instance_id"], images[1]["instance_id"]),
                tuple(one.analysis_id for of in read for one in of),
                other,
            )
            first = f"/studies/{found.images[0]}"
            assert found.post("Ada", f"{first}/read-first", data={"on": "true"}).status_code == 303
            assert found.post("Ada", f"{first}/unaided", data={"comment": SECRET}).status_code == 303
            said = {"verdict": "disagree", "finding": "Atelectasis", "comment": SECRET}
            for analysis in (found.analyses[1], found.analyses[3]):
                assert found.post("Ada", f"/api/v1/analyses/{analysis}/reviews", json=said).status_code == 201
            yield found


HARMLESS = {  # of a locked study; what else is read by an id of it must be refused
    "/studies/{study}", "/studies/{study}/decision", "/studies/{study}/radiograph.png",
    "/studies/{study}/thumbnail.png", "/api/v1/studies/{study_id}", "/api/v1/instances/{instance_id}/pixels",
}  # fmt: skip


def roads(client: TestClient) -> set[str]:
    """Every address that is read by the id of a study, an image or an analysis."""
    found = set()
    for route in client.app.routes:  # type: ignore[attr-defined]
        contexts = route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]
        for context in contexts:
            ids = ("{study}", "{study_id}", "{instance_id}", "{analysis_id}")
            if "GET" in (getattr(context, "methods", None) or ()) and any(one in context.path for one in ids):
                found.add(context.path)
    assert len(found) > len(HARMLESS)
    return found


def test_every_road_by_an_id_is_closed_or_harmless(locked: Locked) -> None:
    for road in sorted(roads(locked.client)):
        for which, image in enumerate((*locked.images, locked.study)):
            ids = {"study": image, "study_id": locked.study, "instance_id": locked.images[which % 2]}
            finding = "Atelectasis" if "{kind}" in road else "Atelectasis.png"
            key = locked.analyses[which | 1 if "{kind}" in road else which]  # the candidate has proofs
            path = road.format(**ids, analysis_id=key, layer="middle", finding=finding, kind="erased")
            if which == 0:
                assert locked.get("Ada", path, **HTML).status_code == 200, path
            answer = locked.get("Bo", path, **HTML)
            if road not in HARMLESS:
                assert answer.status_code == 409 and "your own reading" in answer.text, path
                continue
            assert answer.status_code == 200, path
            if answer.headers["content-type"].startswith(("text", "application/json")):
                for told in (SECRET, ">0.9", "differ", "positive", "saliency", "Disagree"):
                    assert told not in answer.text, path


def test_the_list_tells_nothing_in_any_form(locked: Locked) -> None:
    def listed(who: str, query: str = "") -> list[str]:
        answers = [
            [one["id"] for one in locked.get(who, f"{STUDIES}?{query}").json()["studies"]],
            [one["id"] for one in locked.get(who, f"/worklist.json?{query}").json()["studies"]],
            [one["id"] for one in csv.DictReader(io.StringIO(locked.get(who, f"/worklist.csv?{query}").text))],
        ]
        page = locked.get(who, f"/?{query}", **HTML).text
        order = sorted((page.find(f'id="study-{one}"'), one) for one in (locked.study, locked.open))
        answers.append([one for at, one in order if at >= 0])
        assert answers[1:] == answers[:1] * 3, query
        return answers[0]

    both, alone = [locked.study, locked.open], [locked.open]
    assert listed("Ada") == listed("Bo") == both
    assert listed("Ada", "sort=priority") == both
    assert listed("Bo", "sort=priority") == [locked.open, locked.study]  # as if nobody had read it
    for who, found in (("Ada", both), ("Bo", alone)):
        assert listed(who, "flag=no_evidence") == found
        for address in (f"{STUDIES}?disagreement=true", "/worklist.json?disagreement=yes"):
            assert [one["id"] for one in locked.get(who, address).json()["studies"]] == found
        for address in (f"{STUDIES}?disagreement=false", "/worklist.json?disagreement=no"):
            assert locked.get(who, address).json()["studies"] == []
    (line,) = [one for one in locked.get("Bo", STUDIES).json()["studies"] if one["id"] == locked.study]
    assert line["read_first"] and {line[name] for name in VEILED} == {None}
    row = locked.get("Bo", "/?q=dcm", **HTML).text
    assert "after your own reading" in row and "≠ differs" not in row
    detail = locked.get("Bo", f"{STUDIES}/{locked.study}").json()
    assert detail["candidate"] is None and detail["read_first"] and len(detail["instances"]) == 2


def test_whose_flag_it_is_tells_nothing(locked: Locked) -> None:
    with services(locked.client).db.write() as session:
        row = session.get(StudyRow, locked.study)
        assert row is not None
        row.flag, row.flag_by, row.flag_finding = "causal", "candidate", "Hernia"

    def told(who: str) -> list[str]:
        """Each way of being told."""
        lists = [locked.get(who, path).json()["studies"] for path in (STUDIES, "/worklist.json")]
        lists.append(list(csv.DictReader(io.StringIO(locked.get(who, "/worklist.csv").text))))
        several = [one for studies in lists for one in studies if one["id"] == locked.study]
        several.append(locked.get(who, f"{STUDIES}/{locked.study}").json())
        page = locked.get(who, "/?q=dcm", **HTML).text
        by = "candidate, Hernia" if "candidate, Hernia" in page else ""
        return [*(f"{one['flag_by'] or ''}, {one['flag_finding'] or ''}" for one in several), by or ", "]

    assert told("Ada") == ["candidate, Hernia"] * 5
    assert told("Bo") == [", "] * 5


def test_cursor_and_next_tell_nothing(locked: Locked) -> None:
    address, places = f"{STUDIES}?sort=priority&limit=1", []
    for _ in range(2):
        body = locked.get("Bo", address).json()
        places += [one["id"] for one in body["studies"]]
        cursor = body["next_cursor"]
        if cursor:
            address = f"{STUDIES}?sort=priority&limit=1&cursor={cursor}"
    assert places == [locked.open, locked.study] and cursor is None
    for query, following in (("flag=no_evidence", locked.open), ("disagreement=yes", locked.open)):
        assert locked.get("Bo", f"/next?{query}").headers["location"] == f"/studies/{following}"


def test_counts_of_the_calibration_tell_nothing(locked: Locked) -> None:
    drifts = {who: locked.get(who, "/api/v1/calibrations/backdoored").json()["drift"] for who in ("Ada", "Bo")}
    assert (drifts["Ada"]["radiographs"], drifts["Bo"]["radiographs"]) == (3, 1)
    assert "of the last 1 radiograph would be flagged" in locked.get("Bo", "/calibration", **HTML).text


def test_claiming_tells_nothing(locked: Locked) -> None:
    for verb in ("claim", "release"):
        part = locked.post("Bo", f"/studies/{locked.study}/{verb}", headers={"HX-Request": "true"})
        assert part.status_code in (200, 409) and "≠ differs" not in part.text and "Atelectasis" not in part.text


def test_nobody_gets_round_it_by_writing(locked: Locked) -> None:
    for image, analysis in zip(locked.images, (locked.analyses[1], locked.analyses[3]), strict=True):
        said = locked.post("Bo", f"/api/v1/analyses/{analysis}/reviews", json={"verdict": "agree"})
        assert said.status_code == 409 and said.json()["code"] == "read_first"
        guess = {"verdict": "agree", "finding": "Hernia"}  # would be answered by whether it is positive
        assert locked.post("Bo", f"/api/v1/analyses/{analysis}/reviews", json=guess).json()["code"] == "read_first"
        form = {"subject": analysis, "verdict": "agree"}
        assert locked.post("Bo", f"/studies/{image}/decision", data=form).status_code == 409
        opened = locked.post("Bo", f"/studies/{image}/read-first", data={"on": "false"})
        assert opened.status_code == 409 and opened.json()["code"] == "read_first"
    again = locked.post("Bo", "/api/v1/predictions", files={"file": ("2.dcm", dicom_bytes(2))})
    assert again.status_code == 409 and again.json()["code"] == "read_first"
    uploaded = locked.post("Bo", "/studies", files={"file": ("2.dcm", dicom_bytes(2))}, headers=HTML)
    assert uploaded.status_code == 200 and "≠ differs" not in uploaded.text.split(f"study-{locked.open}")[0]
    assert locked.post("Bo", "/api/v1/predictions", files={"file": ("9.png", png_bytes(9))}).status_code == 200


def test_the_audit_says_that_something_was_said_and_not_what(locked: Locked) -> None:
    for path in ("/audit", "/audit.csv", "/audit.json"):
        text = locked.get("Bo", path).text
        assert "analysis.review" in text and locked.analyses[3][:12] in text
        assert not any(word in text for word in ("disagree", "Atelectasis", SECRET)), path


def test_one_reading_opens_the_whole_study_for_its_reader_alone(locked: Locked) -> None:
    address = f"{STUDIES}/{locked.study}/unaided"
    wrong = {"findings": [{"name": "Cough", "present": True, "confidence": None}]}
    assert locked.post("Cy", address, json=wrong).json()["code"] == "unknown_finding"
    reading = {"findings": [{"name": "Mass", "present": True, "confidence": "definite"}], "comment": "mine"}
    answer = locked.post("Cy", address, json=reading)
    assert answer.status_code == 201 and answer.json()["reader"] == "Cy" and len(answer.json()["findings"]) == 14
    assert locked.post("Cy", address, json=reading).json() == answer.json()  # sent twice, recorded once
    assert locked.post("Cy", address, json={}).json()["code"] == "not_asked"
    for image, analysis in zip(locked.images, (locked.analyses[1], locked.analyses[3]), strict=True):
        assert locked.get("Cy", f"/api/v1/analyses/{analysis}").status_code == 200
        page = locked.get("Cy", f"/studies/{image}", **HTML).text
        assert "What you saw unaided" in page and page.count("before any prediction was shown") == 2
        export = locked.get("Cy", f"/studies/{image}/export.json").json()
        assert [one["kind"] for one in export["entries"]] == ["unaided", "review", "unaided"]
        assert [one["hash"] for one in export["chain"]["rows"]] == [one["hash"] for one in export["entries"]]
    (line,) = [one for one in locked.get("Cy", STUDIES).json()["studies"] if one["id"] == locked.study]
    assert line["candidate"]["finding"] == "Atelectasis" and not line["read_first"]
    assert locked.get("Bo", f"/api/v1/analyses/{locked.analyses[1]}").status_code == 409


def test_a_picture_of_one_reader_is_not_kept_for_the_next(locked: Locked) -> None:
    address = f"/api/v1/analyses/{locked.analyses[0]}/saliency/middle"
    assert "Cookie" in locked.get("Ada", address).headers["vary"]
    assert "Cookie" in locked.get("Ada", f"{address}/Mass.png").headers["vary"]


def test_what_was_said_before_an_image_joined_its_study_counts(tmp_path: Path, checkpoints: Path) -> None:
    with fresh_database(tmp_path) as url:
        settings = Settings(
            data_dir=tmp_path, bundled_dir=checkpoints, device="cpu", samples=False, database_url=url, read_first=True
        )
        with started(settings) as client:
            data = png_bytes(11)
            files = {"file": ("a.png", data, "image/png")}
            read = client.post("/api/v1/predictions?test=none", files=files).json()["analyses"][0]["analysis_id"]
            said = client.post(f"/api/v1/analyses/{read}/reviews", json={"verdict": "agree"})
            assert said.status_code == 201
            ids = [taken(client, "a.png", data)["study_id"], taken(client, "b.png", png_bytes(12))["study_id"]]
            for query in ("", "?sort=priority"):
                lines = {one["id"]: one["read_first"] for one in client.get(f"{STUDIES}{query}").json()["studies"]}
                assert lines == {ids[0]: False, ids[1]: True}
            assert client.post(f"{STUDIES}/{ids[1]}/unaided", json={}).status_code == 201
            assert not any(one["read_first"] for one in client.get(STUDIES).json()["studies"])


def test_full_tests_are_kept_from_who_must_read_first(locked: Locked) -> None:
    services = locked.client.app.state.services  # type: ignore[attr-defined]
    job = services.jobs.enqueue("examine", {"analyses": [locked.analyses[1]]}, unique_key="examine:a test")
    address, title = f"/api/v1/jobs/{job.id}", "Test what the screen found"
    assert locked.get("Ada", address).status_code == 200 and title in locked.get("Ada", "/jobs", **HTML).text
    assert locked.get("Bo", address).status_code == 404 and title not in locked.get("Bo", "/jobs", **HTML).text
    assert locked.post("Bo", f"{address}/cancel").status_code == 404
    assert "tested; the list follows" not in locked.get("Bo", "/", **HTML).text
    assert locked.post("Ada", f"{address}/cancel").status_code == 200


def test_jobs_name_no_study_to_who_must_read_it_first(locked: Locked) -> None:
    services = locked.client.app.state.services  # type: ignore[attr-defined]
    about = {"analyses": [locked.analyses[1]]}
    services.jobs.enqueue("examine", about, unique_key="examine:another test")
    services.jobs.enqueue("reanalyse", {"checkpoints": [], "instances": [locked.images[0], locked.open]})
    closed, opened = (f'href="/studies/{study}"' for study in (locked.study, locked.open))
    ada, bo = (locked.get(who, "/jobs", **HTML).text for who in ("Ada", "Bo"))
    assert ada.count(closed) >= 2 and opened in ada
    assert closed not in bo and opened in bo
