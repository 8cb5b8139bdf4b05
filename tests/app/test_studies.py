"""Studies through REST: what is taken, joined, recognised, refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.schemas import StudyDetail, StudyList, UploadResults
from app.services.errors import BusyError
from app.services.studies import Received, Source
from tests.app.conftest import png_bytes
from tests.app.dicoms import dicom_bytes

STUDIES = "/api/v1/studies"


def send(client: TestClient, *files: tuple[str, bytes]) -> httpx.Response:
    return client.post(STUDIES, files=[("file", one) for one in files])


def taken(client: TestClient, name: str, data: bytes) -> dict[str, Any]:
    answer = send(client, (name, data))
    assert answer.status_code == 201, answer.text
    return answer.json()["results"][0]


def until_read(client: TestClient, study_id: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        study = client.get(f"{STUDIES}/{study_id}").json()
        if study["reference"] and study["candidate"]:
            return study
        time.sleep(0.05)
    raise AssertionError(f"not read: {study}")


def blobs(client: TestClient) -> set[Path]:
    root = client.app.state.services.settings.data_dir / "blobs"  # type: ignore[attr-defined]
    return {path for path in root.rglob("*") if path.is_file()}


def test_each_file_answers_for_itself_and_is_read_behind_the_request(client: TestClient) -> None:
    answer = send(client, ("a.png", png_bytes(1)), ("notes.txt", b"hello"), ("dir/b.dcm", dicom_bytes(2)))
    assert answer.status_code == 201 and "not for diagnosis" in answer.json()["notice"]
    png, text, dicom = answer.json()["results"]
    assert (png["file"], png["status"], png["duplicate"], png["predicted"]) == ("a.png", 201, False, True)
    assert (text["status"], text["problem"]["code"]) == (415, "unknown_format") and "study_id" not in text
    assert dicom["file"] == "b.dcm" and dicom["url"] == f"/studies/{dicom['instance_id']}"
    study = until_read(client, dicom["study_id"])
    assert (study["patient_name"], study["patient_id"], study["study_date"]) == ("Doe Jane", "4711", "2026-01-02")
    assert study["candidate"]["finding"] == "Atelectasis" and study["candidate"]["positives"] == 2
    assert study["reference"]["finding"] == "Effusion" and study["reference"]["positives"] == 1
    assert study["disagreement"] is True and study["flag"] == "not_calibrated" and study["source"] == "api"
    (instance,) = study["instances"]
    assert {one["checkpoint_id"] for one in instance["analyses"]} == {"clean", "backdoored"}
    for one in instance["analyses"]:
        analysis = client.get(one["url"]).json()
        assert analysis["analysis_id"] == one["analysis_id"] and one["reviews_url"] == one["url"] + "/reviews"
        if one["checkpoint_id"] == "backdoored":
            top = max((f for f in analysis["findings"] if f["positive"]), key=lambda f: f["probability"])
            assert top["probability"] == study["candidate"]["probability"]
    assert client.get(study["url"]).status_code == 200


def test_what_goes_wrong_over_one_file_is_that_files_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy decoder, a full disk: what was taken before and after it is told all the same."""
    studies = client.app.state.services.studies  # type: ignore[attr-defined]
    receive, trouble = studies.receive, {"busy.png": BusyError("busy", "Later."), "full.png": OSError(28, "No space")}

    def receiving(data: bytes, name: str, source: Source) -> Received:
        if name in trouble:
            raise trouble[name]
        return receive(data, name, source)

    monkeypatch.setattr(studies, "receive", receiving)
    names = ("a.png", "busy.png", "full.png", "b.png")
    answer = send(client, *((name, png_bytes(seed)) for seed, name in enumerate(names)))
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [201, 503, 503, 201]
    assert [one["problem"]["code"] for one in results[1:3]] == ["busy", "not_stored"]
    alone = send(client, ("busy.png", png_bytes(9)))
    assert alone.status_code == 503 and alone.json()["code"] == "busy" and int(alone.headers["retry-after"]) > 0
    page = client.post("/studies", files=[("file", ("busy.png", png_bytes(9)))], headers={"Accept": "text/html"})
    assert page.status_code == 503 and "Later." in page.text and "retry-after" in page.headers


def test_all_refused_is_a_problem(client: TestClient) -> None:
    alone = send(client, ("notes.txt", b"hello"))
    assert alone.status_code == 415 and alone.json()["code"] == "unknown_format"
    assert alone.headers["content-type"] == "application/problem+json"
    mixed = send(client, ("notes.txt", b"hello"), ("empty.png", b""))
    assert mixed.status_code == 422 and mixed.json()["code"] == "all_refused"
    assert [one["file"] for one in mixed.json()["errors"]] == ["notes.txt", "empty.png"]
    assert client.get(STUDIES).json()["studies"] == [] and blobs(client) == set()


def test_the_same_file_again_is_recognised(client: TestClient) -> None:
    first = taken(client, "a.png", png_bytes(1))
    again = taken(client, "copy of a.png", png_bytes(1))
    assert again["duplicate"] and again["status"] == 200 and again["study_id"] == first["study_id"]
    assert len(client.get(STUDIES).json()["studies"]) == 1


def test_what_was_only_predicted_is_new_to_the_worklist_and_read_already(client: TestClient) -> None:
    client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes(1))})
    assert client.get(STUDIES).json()["studies"] == []
    result = taken(client, "a.png", png_bytes(1))
    assert result["duplicate"] is False
    assert client.get(f"{STUDIES}/{result['study_id']}").json()["candidate"]["finding"] == "Atelectasis"


def test_frontal_and_lateral_join_one_study(client: TestClient) -> None:
    lateral = taken(client, "lateral.dcm", dicom_bytes(1, ViewPosition="LL"))
    assert lateral["predicted"] is False and "lateral_view" in lateral["warnings"]
    page = client.get(lateral["url"], headers={"Accept": "text/html"})
    assert page.status_code == 200 and "lateral view" in page.text
    frontal = taken(client, "frontal.dcm", dicom_bytes(2))
    assert frontal["study_id"] == lateral["study_id"] and frontal["predicted"]
    study = until_read(client, frontal["study_id"])
    assert study["title"] == "frontal.dcm" and study["instance_count"] == 2
    shown = {one["name"]: one for one in study["instances"]}
    assert shown["lateral.dcm"]["analyses"] == [] and "lateral view" in shown["lateral.dcm"]["why_not_predicted"]
    assert len(shown["frontal.dcm"]["analyses"]) == 2 and shown["frontal.dcm"]["why_not_predicted"] is None
    thumbnails = {client.get(f"/studies/{key}/thumbnail.png").content for key in (study["id"], frontal["instance_id"])}
    assert len(thumbnails) == 1
    assert client.get(f"/studies/{lateral['instance_id']}/radiograph.png").content.startswith(b"\x89PNG")
    other = taken(client, "other.dcm", dicom_bytes(3, StudyInstanceUID="1.2.99"))
    assert other["study_id"] != study["id"]


def test_one_uid_with_two_contents_is_refused_and_nothing_is_stored(client: TestClient) -> None:
    taken(client, "first.dcm", dicom_bytes(1, SOPInstanceUID="1.2.3.4"))
    before = blobs(client)
    for _ in range(2):
        answer = send(client, ("second.dcm", dicom_bytes(2, SOPInstanceUID="1.2.3.4")))
        assert answer.status_code == 409 and answer.json()["code"] == "sop_instance_uid_conflict"
        assert "first.dcm" in answer.json()["detail"]
    assert blobs(client) == before
    (study,) = client.get(STUDIES).json()["studies"]
    assert study["instance_count"] == 1
    assert taken(client, "third.dcm", dicom_bytes(3))["status"] == 201


def test_unknown_studies_and_bad_questions_are_problems(client: TestClient) -> None:
    for path, status in (
        (f"{STUDIES}/{'0' * 32}", 404), (f"{STUDIES}/..%2fx", 404), (f"{STUDIES}/%00", 404),
        (f"{STUDIES}?flag=odd", 422), (f"{STUDIES}?cursor=%21", 422), (f"{STUDIES}?limit=0", 422),
    ):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


def test_the_document_describes_studies_with_examples_that_hold(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]

    def example(path: str, method: str, status: str) -> Any:
        return paths[path][method]["responses"][status]["content"]["application/json"]["example"]

    UploadResults.model_validate(example(STUDIES, "post", "201"))
    StudyList.model_validate(example(STUDIES, "get", "200"))
    StudyDetail.model_validate(example(STUDIES + "/{study_id}", "get", "200"))
    assert {"201", "409", "413", "415", "422"} <= set(paths[STUDIES]["post"]["responses"])


def test_a_decision_makes_its_study_read_and_release_does_not_undo_that(client: TestClient) -> None:
    """A DICOM study has an id of its own, which is not that of the instance that is judged."""
    study_id = taken(client, "a.dcm", dicom_bytes(1))["study_id"]
    instance = until_read(client, study_id)["instances"][0]
    assert instance["id"] != study_id
    judged = client.post(instance["analyses"][0]["reviews_url"], json={"verdict": "agree"})
    assert judged.status_code == 201
    client.post(f"/studies/{study_id}/release")
    assert client.get(f"{STUDIES}/{study_id}").json()["status"] == "read"
    for key in (study_id, instance["id"]):
        assert "Agree" in client.get(f"/studies/{key}", headers={"Accept": "text/html"}).text
        assert len(client.get(f"/studies/{key}/export.json").json()["entries"]) == 1
