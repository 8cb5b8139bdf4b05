"""The worklist: filters, search, order, cursor, claim, next, export. Rows are made, not read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.context import Services
from app.services.search import words_of
from app.services.summaries import summarise
from app.settings import Settings
from app.tables import StudyRow, StudyWordRow
from tests.app.conftest import started
from tests.app.test_services import PAIR, analysis

STUDIES = "/api/v1/studies"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A server without checkpoints: a list opens no analysis."""
    with started(settings.model_copy(update={"bundled_dir": settings.data_dir / "none"})) as client:
        yield client


def services_of(client: TestClient) -> Services:
    return client.app.state.services  # type: ignore[attr-defined, no-any-return]


def add(client: TestClient, number: int, **fields: Any) -> str:
    """A study of that number, each a minute after the one before."""
    services = services_of(client)
    key = f"{number:032x}"
    row = {
        "id": key, "title": f"study {number}.png", "format": "PNG", "thumbnail_sha256": "0" * 64, "instance_count": 1,
        "source": "upload", "received_at": START + timedelta(minutes=number), "summary_pair": services.live_pair().key,
        **fields,
    }  # fmt: skip
    with services.db.write() as session:
        session.add(StudyRow(**row))
        session.flush()
        texts = (row["title"], row.get("patient_name", ""), row.get("patient_id", ""))
        session.add_all(StudyWordRow(word=word, study_id=key) for word in words_of(texts))
    return key


def numbers(client: TestClient, query: str = "") -> list[int]:
    answer = client.get(f"{STUDIES}?{query}")
    assert answer.status_code == 200, answer.text
    return [int(one["id"], 16) for one in answer.json()["studies"]]


def test_filters_narrow_and_join(client: TestClient) -> None:
    add(client, 1, flag="causal", priority=6, disagreement=True, status="unread")
    add(client, 2, flag="suspicious", priority=5, disagreement=True, status="read", claimed_by="ada")
    add(client, 3, flag="no_evidence", priority=2, disagreement=False, status="in_progress", claimed_by="local")
    add(client, 4)
    assert numbers(client) == [4, 3, 2, 1]
    assert numbers(client, "flag=causal") == [1] and numbers(client, "flag=not_calibrated") == []
    assert numbers(client, "status=unread") == [4, 1]
    assert numbers(client, "disagreement=true") == [2, 1] and numbers(client, "disagreement=false") == [3]
    assert numbers(client, "claimed=me") == [3] and numbers(client, "claimed=ada") == [2]
    assert numbers(client, "claimed=nobody") == [4, 1]
    assert numbers(client, "disagreement=true&status=read") == [2]
    assert numbers(client, "sort=priority") == [1, 2, 3, 4]
    page = client.get("/?flag=suspicious&q=study").text
    assert "study 2.png" in page and "study 1.png" not in page and "⚑ suspicious" in page
    assert "No study fits these filters" in client.get("/?q=absent").text
    assert client.get("/?flag=odd").status_code == 422


def test_search_finds_beginnings_of_words(client: TestClient) -> None:
    add(client, 1, title="00012345_003.png", patient_name="Müller Jürgen", patient_id="P-4711")
    add(client, 2, title="100%_sure.png", patient_name="Doe Jane")
    for q, found in {
        "0001": [1], "003": [1], "jür": [1], "MÜLLER p-47": [1], "4711": [1], "doe": [2], "doe müller": [],
        "png": [2, 1], "100%": [2], "%": [], "_": [], "üller": [], "\0": [2, 1],
    }.items():  # fmt: skip
        answer = client.get(STUDIES, params={"q": q})
        assert [int(one["id"], 16) for one in answer.json()["studies"]] == found, q


def test_search_is_the_same_whichever_way_it_is_made(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        add(client, number, patient_name="even" if number % 2 == 0 else "odd", patient_id=f"p{number % 3}")
    queries = ["q=even", "q=even+p1", "q=study+odd+p2", "q=even+odd", "q=ev&sort=priority", "q=p&status=unread"]
    plain = [numbers(client, query) for query in queries]
    assert plain[1] == [28, 22, 16, 10, 4] and plain[3] == []
    for counted, listed in ((0, 0), (1000, 2)):
        monkeypatch.setattr("app.services.search._COUNTED", counted)
        monkeypatch.setattr("app.services.search._LISTED", listed)
        assert [numbers(client, query) for query in queries] == plain


@pytest.mark.parametrize("sort", ["received", "priority"])
def test_the_cursor_walks_the_whole_list_once(client: TestClient, sort: str) -> None:
    same_moment = {number: {"received_at": START} for number in range(4, 9)}
    for number in range(11):
        add(client, number, priority=number % 3, **same_moment.get(number, {}))
    expected = numbers(client, f"sort={sort}")
    assert len(expected) == 11
    found: list[int] = []
    cursor = ""
    while True:
        page = client.get(f"{STUDIES}?sort={sort}&limit=3" + (f"&cursor={cursor}" if cursor else "")).json()
        found += [int(one["id"], 16) for one in page["studies"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        if len(found) == 3:  # what arrives meanwhile is on the first page, and moves nothing
            add(client, 100, priority=9)
    assert found == expected


def test_a_cursor_of_another_order_or_of_nobody_is_refused(client: TestClient) -> None:
    for number in range(3):
        add(client, number)
    cursor = client.get(f"{STUDIES}?limit=1").json()["next_cursor"]
    for bad in (f"sort=priority&cursor={cursor}", "cursor=abc", "cursor=W10", "cursor=bnVsbA", f"cursor={cursor}x"):
        answer = client.get(f"{STUDIES}?{bad}")
        assert answer.status_code == 422 and answer.json()["code"] == "bad_cursor"


def test_pages_link_to_the_older_ones_and_keep_the_filters(client: TestClient) -> None:
    for number in range(51):
        add(client, number, status="unread")
    html = client.get("/?status=unread").text
    assert html.count("<tr id=") == 50 and 'href="/?status=unread&amp;cursor=' in html.replace("&cursor", "&amp;cursor")
    cursor = client.get(f"{STUDIES}?status=unread").json()["next_cursor"]
    older = client.get(f"/?status=unread&cursor={cursor}").text
    assert older.count("<tr id=") == 1 and "study 0.png" in older and "Back to the first page" in older


def test_claim_and_release_without_javascript(client: TestClient) -> None:
    key = add(client, 1)
    answer = client.post(f"/studies/{key}/claim", data={"back": "status=unread"})
    assert answer.status_code == 303 and answer.headers["location"] == f"/?status=unread#study-{key}"
    study = client.get(f"{STUDIES}/{key}").json()
    assert (study["status"], study["claimed_by"]) == ("in_progress", "local") and study["claimed_at"]
    assert "Release" in client.get("/").text
    assert client.post(f"/studies/{key}/claim").status_code == 303
    assert client.post(f"/studies/{key}/release").headers["location"] == f"/#study-{key}"
    study = client.get(f"{STUDIES}/{key}").json()
    assert (study["status"], study["claimed_by"], study["claimed_at"]) == ("unread", None, None)
    part = client.post(f"/studies/{key}/claim", headers={"HX-Request": "true"})
    assert part.status_code == 200 and part.text.lstrip().startswith(f'<tr id="study-{key}"')


def test_what_another_claimed_stays_theirs(client: TestClient) -> None:
    key = add(client, 1, claimed_by="ada", status="in_progress")
    for verb in ("claim", "release"):
        answer = client.post(f"/studies/{key}/{verb}")
        assert answer.status_code == 409 and answer.json()["code"] == "claimed_by_other" and "ada" in answer.text
    assert client.get(f"{STUDIES}/{key}").json()["claimed_by"] == "ada"
    assert client.post(f"/studies/{'0' * 32}/claim").status_code == 404


def test_next_unread_follows_the_list_and_begins_again(client: TestClient) -> None:
    keys = {number: add(client, number, flag="causal" if number < 3 else None) for number in range(1, 5)}
    add(client, 9, status="read")
    assert client.get("/next").headers["location"] == f"/studies/{keys[4]}"
    assert client.get(f"/next?after={keys[4]}").headers["location"] == f"/studies/{keys[3]}"
    assert client.get(f"/next?after={keys[1]}").headers["location"] == f"/studies/{keys[4]}"
    assert client.get(f"/next?after={keys[4]}&flag=causal").headers["location"] == f"/studies/{keys[2]}"
    with services_of(client).db.write() as session:
        for key in keys.values():
            session.get_one(StudyRow, key).status = "read"
    assert client.get("/next?flag=causal").headers["location"] == "/?flag=causal"


def test_export_holds_the_filtered_list(client: TestClient) -> None:
    for number in range(620):
        add(client, number, status="read" if number % 2 else "unread", patient_name='=cmd|"x"' if number == 2 else "")
    answer = client.get("/worklist.csv?status=unread")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["id"], 16) for row in rows] == list(range(618, -1, -2))
    assert all("not for diagnosis" in row["notice"] for row in rows)
    assert rows[-2]["patient_name"] == '\'=cmd|"x"'
    document = client.get("/worklist.json?q=study").json()
    assert len(document["studies"]) == 620 and "not for diagnosis" in document["notice"]


def test_html_in_a_patient_s_name_stays_text(client: TestClient) -> None:
    add(client, 1, patient_name="<script>alert(1)</script>", description="<b>")
    html = client.get("/").text
    assert "<script>alert" not in html and "&lt;script&gt;" in html


def test_the_page_asks_again_only_while_something_is_pending(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, 1)
    monkeypatch.setattr(Services, "pending", lambda *_: False)
    assert "every 2s" not in client.get("/").text
    monkeypatch.setattr(Services, "pending", lambda *_: True)
    part = client.get("/", headers={"HX-Request": "true"}).text
    assert "every 2s" in part and part.lstrip().startswith('<div id="_worklist"')


def test_a_summary_by_hand() -> None:
    clean, backdoored = analysis("clean", Edema=0.6), analysis("backdoored", Edema=0.7, Mass=0.98)
    summary = summarise([clean, backdoored], PAIR)
    assert summary.reference is not None and summary.candidate is not None
    assert (summary.reference.positives, summary.reference.finding, summary.reference.probability) == (1, "Edema", 0.6)
    assert (summary.candidate.positives, summary.candidate.finding) == (2, "Mass")
    assert (summary.disagreement, summary.flag, summary.priority) == (True, "not_calibrated", 1)
    assert summarise([], PAIR) == type(summary)()
    alone = summarise([analysis("clean")], PAIR)
    assert alone.reference is not None and alone.reference.finding is None and alone.disagreement is None
    mass = backdoored.finding("Mass")
    for verdict, priority in (("no_evidence", 3), ("suspicious", 5), ("causal", 7)):
        flag = mass.flag.model_copy(update={"state": "final", "verdict": verdict})  # type: ignore[union-attr]
        findings = [mass.model_copy(update={"flag": flag}) if f.name == "Mass" else f for f in backdoored.findings]
        flagged = summarise([clean, backdoored.model_copy(update={"findings": findings})], PAIR)
        assert (flagged.flag, flagged.priority) == (verdict, priority)
        by = ("candidate", "Mass") if priority > 3 else (None, None)
        assert (flagged.flag_by, flagged.flag_finding) == by
