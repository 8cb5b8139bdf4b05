"""The audit: what is recorded, what never is, the page, the exports, the command."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from app.services.audit import AuditService, Event, Filter
from app.services.users import Actor
from tests.app.chains import tamper
from tests.app.conftest import png_bytes

HTML = {"Accept": "text/html"}


def audit(client: TestClient) -> AuditService:
    return client.app.state.services.audit  # type: ignore[attr-defined, no-any-return]


def events(client: TestClient) -> list[Event]:
    return list(reversed(audit(client).page(Filter(), None, 1000).events))


def test_reads_and_changes_are_recorded_without_anything_of_a_patient(client: TestClient) -> None:
    name = "DOE^JOHN 1960-01-01.png"
    study = client.post("/studies", files={"file": (name, png_bytes())}).headers["location"]
    for path in ("", "/radiograph.png", "/thumbnail.png", "/decision"):
        assert client.get(study + path).status_code == 200
    body = client.post("/api/v1/predictions", files={"file": (name, png_bytes())}).json()
    analysis = body["analyses"][1]
    key = analysis["analysis_id"]
    client.get(f"/api/v1/analyses/{key}")
    client.get(analysis["findings"][0]["saliency"]["last"]["url"])
    client.post(f"/api/v1/analyses/{key}/reviews", json={"verdict": "agree", "comment": "Mr Doe is well"})
    client.post(f"{study}/read-first", data={"on": "true"})
    client.get(f"{study}/export.json")
    instance = study.split("/")[-1]
    assert [(one.action, one.subject) for one in events(client)] == [
        ("studies.create", instance),
        ("study.read", instance),
        ("predictions.create", instance),
        ("analysis.read", key),
        ("analysis.review", key),
        ("study.read_first", instance),
        ("study.export", instance),
    ]
    assert {one.actor for one in events(client)} == {"local"}
    everything = client.get("/audit.json").text + client.get("/audit.csv").text + client.get("/audit").text
    assert "DOE" not in everything and "Doe" not in everything and "1960-01" not in everything


def test_lists_name_who_saw_them_and_changes_what_they_changed(client: TestClient) -> None:
    for path in ("/", "/api/v1/studies", "/worklist.csv", "/worklist.json"):
        assert client.get(path).status_code == 200
    assert client.post("/checkpoints/pair", data={"reference": "backdoored", "candidate": "clean"}).status_code == 303
    assert client.post("/jobs", data={"kind": "verify"}).status_code == 303
    (job,) = client.app.state.services.jobs.active("verify")  # type: ignore[attr-defined]
    for path in (f"/jobs/{job.id}/cancel", f"/api/v1/jobs/{job.id}/cancel"):
        client.post(path)
    client.post(f"/jobs/{job.id}/retry")
    assert [(one.action, one.subject) for one in events(client)] == [
        ("worklist.read", ""),
        ("worklist.export", ""),
        ("checkpoints.pair", "clean"),
        ("jobs.create", job.id),
        ("jobs.cancel", job.id),
        ("jobs.cancel", job.id),
        ("jobs.retry", job.id),
    ]
    assert events(client)[2].detail == {"reference": "backdoored", "candidate": "clean"}


def test_what_fails_or_does_not_exist_is_not_recorded(client: TestClient) -> None:
    client.get("/studies/" + "0" * 32)
    client.get("/studies/Doe")
    client.post("/studies", files={"file": ("x.txt", b"no")})
    client.post("/api/v1/predictions", files={"file": ("x.txt", b"no")})
    client.post("/api/v1/analyses/" + "0" * 32 + "/reviews", json={"verdict": "agree"})
    client.get("/")
    assert [one.action for one in events(client)] == ["worklist.read"]


def test_signing_in_is_recorded_and_what_was_typed_wrongly_is_not(client: TestClient) -> None:
    client.app.state.services.users.add("Ada", "correct horse")  # type: ignore[attr-defined]
    client.post("/sign-in", data={"name": "my password", "password": "x"})
    client.post("/sign-in", data={"name": "Ada", "password": "correct horse"})
    client.post("/sign-out")
    assert [(one.actor, one.action) for one in events(client)] == [
        ("nobody", "sign_in.refused"),
        ("Ada", "sign_in.accepted"),
        ("Ada", "sign_out.accepted"),
    ]


def test_reads_apart_in_time_are_two_events(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1000.0
    monkeypatch.setattr("app.services.audit.time.monotonic", lambda: moment)
    ada, bo = Actor("a", "Ada"), Actor("b", "Bo")
    for who, at in ((ada, 1000.0), (ada, 1200.0), (bo, 1200.0), (ada, 1301.0)):
        moment = at
        audit(client).note_read(who, "study.read", "s")
    assert [one.actor for one in events(client)] == ["Ada", "Bo", "Ada"]


def fill(client: TestClient, n: int) -> None:
    with audit(client).db.write() as session:
        for i in range(n):
            action = "study.export" if i % 3 == 0 else "study.read"
            audit(client).record(session, Actor(str(i % 2), ["Ada", "Bo"][i % 2]), action, f"s{i}")


def test_the_page_filters_and_goes_back_by_cursor(client: TestClient) -> None:
    fill(client, 120)
    first = client.get("/audit", headers=HTML).text
    assert first.count('scope="row"') == 50 and ">120<" in first and ">70<" not in first
    second = client.get("/audit?before=71", headers=HTML).text
    assert ">70<" in second and ">21<" in second and "Newest" in second
    assert client.get("/audit?before=21", headers=HTML).text.count("Older") == 0
    only = client.get("/audit?actor=Ada&action=study.export&day=", headers=HTML).text
    assert only.count('scope="row"') == 20 and "<option selected>Ada</option>" in only
    today = datetime.now(UTC).date()
    assert client.get(f"/audit?day={today}").text.count('scope="row"') == 50
    assert "Nothing was recorded that fits" in client.get(f"/audit?day={today - timedelta(days=1)}").text
    for bad in ("day=yesterday", "day=2026-02-31", "before=0", "before=x", "actor=%00"):
        assert client.get(f"/audit?{bad}").status_code == 422, bad


def test_exports_are_whole_filtered_and_safe_in_a_spreadsheet(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.audit._BATCH", 7)
    audit(client).note(Actor("x", "=HYPERLINK(1)"), "study.read", "s")
    fill(client, 20)
    rows = list(csv.DictReader(io.StringIO(client.get("/audit.csv").text)))
    assert len(rows) == 22 and rows[0]["actor"] == "'=HYPERLINK(1)" and rows[-1]["action"] == "audit.export"
    whole = client.get("/audit.json").json()
    assert [one["sequence"] for one in whole["events"]] == list(range(1, 24)) and "not for diagnosis" in whole["notice"]
    assert [one["previous_hash"] for one in whole["events"][1:]] == [one["hash"] for one in whole["events"][:-1]]
    assert {one["actor"] for one in client.get("/audit.json?actor=Bo").json()["events"]} == {"Bo"}
    assert client.get("/audit.json?actor=nobody").json()["events"] == []
    assert "attachment" in client.get("/audit.csv").headers["content-disposition"]


def test_the_badge_and_the_command_name_a_broken_link(client: TestClient, run) -> None:
    fill(client, 6)
    head = events(client)[-1].hash
    assert "✓ Audit: 6 links, all hold." in client.get("/audit/verification").text
    part = client.get("/audit/verification", headers={"HX-Request": "true"}).text
    assert part.startswith('<div id="_verification"')
    assert 'hx-get="/audit/verification"' in client.get("/audit").text
    code, out, _ = run("audit", "verify", "--anchor", head)
    assert code == 0 and f"audit_events: 6 links, all hold; newest {head}" in out and "reviews: 0 links" in out
    code, out, _ = run("audit", "verify", "--anchor", "f" * 64)
    assert code == 1 and "not in either chain" in out
    tamper(client.app.state.services.db, "audit_events", "UPDATE audit_events SET actor = 'Eve' WHERE sequence = 4")  # type: ignore[attr-defined]
    page = client.get("/audit/verification").text
    assert "✗ Audit: broken at link 4" in page and "3 links before it hold" in page
    code, out, _ = run("audit", "verify")
    assert code == 1 and "audit_events: BROKEN at link 4: its column actor differs" in out
    code, out, _ = run("audit", "verify", "--json")
    assert code == 1 and json.loads(out)["chains"][1]["broken"]["sequence"] == 4
