"""Decisions: over REST and over the page, once each, sealed, and after the reader's own reading where that is asked."""

from __future__ import annotations

import json
import re
import threading

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.schemas import Analysis, ReviewRequest, Verdict
from app.services.chain import seal
from app.services.reviews import ReviewService, added_in_order
from app.services.users import Actor
from app.settings import Settings
from app.tables import ReviewRow
from tests.app.conftest import png_bytes, started

HTML = {"Accept": "text/html"}
HTMX = {"HX-Request": "true", **HTML}


def read_pair(client: TestClient, seed: int = 0) -> tuple[str, list[Analysis]]:
    """A study on the worklist, and both checkpoints' analyses of it."""
    body = client.post("/api/v1/predictions", files={"file": ("chest.png", png_bytes(seed))}).json()
    (result,) = client.post("/api/v1/studies", files={"file": ("chest.png", png_bytes(seed))}).json()["results"]
    return result["study_id"], [Analysis.model_validate(one) for one in body["analyses"]]


def service(client: TestClient) -> ReviewService:
    return client.app.state.services.reviews  # type: ignore[attr-defined, no-any-return]


def post(client: TestClient, analysis: Analysis, body: dict[str, object], **headers: str):
    return client.post(f"/api/v1/analyses/{analysis.analysis_id}/reviews", json=body, headers=headers)


def test_a_verdict_pins_what_was_judged(client: TestClient) -> None:
    study, (_, candidate) = read_pair(client)
    said = {"verdict": "disagree", "reason": "not_anatomy", "comment": " It sits on a spot.\r\nTwice. "}
    answer = post(client, candidate, said)
    assert answer.status_code == 201
    review = answer.json()
    assert (review["verdict"], review["airai"], review["reader"]) == ("disagree", "rejected", "local")
    assert review["comment"] == "It sits on a spot.\nTwice." and review["instance_id"] == study
    pins = review["pins"]
    assert pins["image_sha256"] == candidate.image_sha256 and pins["code_version"] == candidate.code_version
    assert pins["weights_sha256"] == candidate.checkpoint.weights_sha256 and pins["checkpoint_id"] == "backdoored"
    assert pins["thresholds"] == {one.name: one.threshold for one in candidate.findings}
    assert pins["probabilities"] == {one.name: one.probability for one in candidate.findings}
    with service(client).db.read() as session:
        row = session.scalars(select(ReviewRow)).one()
        sealed = json.loads(row.document)
    assert review["hash"] == row.hash == seal("0" * 64, row.document)
    assert sealed["pins"] == pins and sealed["at"] == review["at"] and sealed["reader"]["name"] == "local"
    assert client.get(f"/api/v1/analyses/{candidate.analysis_id}/reviews").json()["reviews"] == [review]


def test_a_flag_is_judged_by_its_finding(client: TestClient) -> None:
    _, (reference, candidate) = read_pair(client)
    review = post(client, candidate, {"verdict": "agree", "finding": "Atelectasis"}).json()
    assert review["pins"]["thresholds"] == {"Atelectasis": 0.5} and review["pins"]["flag"]["state"] == "not_calibrated"
    assert review["airai"] == "accepted" and review["finding"] == "Atelectasis"
    refused = post(client, reference, {"verdict": "agree", "finding": "Atelectasis"})
    assert refused.status_code == 422 and refused.json()["code"] == "no_flag"


def test_a_new_verdict_supersedes_the_same_reader_s_and_nothing_goes(client: TestClient) -> None:
    _, (_, candidate) = read_pair(client)
    first = post(client, candidate, {"verdict": "agree"}).json()
    other = post(client, candidate, {"verdict": "agree", "finding": "Effusion"}).json()
    second = post(client, candidate, {"verdict": "unsure", "reason": "image_quality"}).json()
    assert second["supersedes"] == first["review_id"] and second["airai"] is None and other["supersedes"] is None
    history = client.get(f"/api/v1/analyses/{candidate.analysis_id}/reviews").json()["reviews"]
    assert [one["superseded"] for one in history] == [True, False, False]
    assert [one["sequence"] for one in history] == [1, 2, 3]
    assert [one["previous_hash"] for one in history[1:]] == [one["hash"] for one in history[:-1]]


def test_the_same_request_again_is_recorded_once(client: TestClient) -> None:
    _, (reference, candidate) = read_pair(client)
    said = {"verdict": "supplement", "added_findings": ["Nodule"], "token": "t-1"}
    first = post(client, candidate, said)
    again = post(client, candidate, said)
    assert (first.status_code, again.status_code) == (201, 200) and first.json() == again.json()
    word_for_word = post(client, candidate, {**said, "token": None})
    assert word_for_word.status_code == 200 and word_for_word.json() == first.json()
    assert post(client, candidate, {"verdict": "agree"}).status_code == 201
    late = post(client, candidate, said)
    assert late.status_code == 200 and late.json()["superseded"] is True
    assert post(client, candidate, {"verdict": "supplement", "added_findings": ["Nodule"]}).status_code == 201
    reused = post(client, candidate, {"verdict": "agree", "token": "t-1"})
    assert reused.status_code == 409 and reused.json()["code"] == "token_reused"
    assert post(client, reference, said).status_code == 409
    by_header = [post(client, reference, {"verdict": "agree"}, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert [one.status_code for one in by_header] == [201, 200]


def test_of_many_equal_requests_at_once_one_is_recorded(client: TestClient) -> None:
    _, (_, candidate) = read_pair(client)
    answers: list[int] = []

    def send(n: int) -> None:
        body = {"verdict": "agree", "token": "same"} if n % 2 else {"verdict": "unsure", "token": f"own-{n}"}
        answers.append(post(client, candidate, body).status_code)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = service(client).history(candidate.analysis_id)
    assert [one.verdict for one in history].count(Verdict.AGREE) == 1 and len(history) == answers.count(201)
    assert set(answers) == {200, 201}
    assert all(report.broken is None for report in service(client).audit.verify())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"verdict": "supplement"}, "nothing_added"),
        ({"verdict": "agree", "added_findings": ["Mass"]}, "added_without_supplement"),
        ({"verdict": "disagree", "reason": "other"}, "no_comment"),
        ({"verdict": "agree", "finding": "Cough"}, "unknown_finding"),
        ({"verdict": "agree", "comment": "a\u0000b"}, "control_characters"),
        ({"verdict": "agree", "comment": "\u202eevil"}, "control_characters"),
        ({"verdict": "supplement", "added_findings": ["a\u0000"]}, "control_characters"),
        ({"verdict": "maybe"}, "bad_request"),
        ({"verdict": "agree", "comment": "x" * 2001}, "bad_request"),
        ({"verdict": "agree", "token": "a b"}, "bad_request"),
        ({"verdict": "agree", "reader": "somebody else"}, "bad_request"),
    ],
)
def test_a_verdict_that_does_not_hold_together_is_refused(
    shared_client: TestClient, body: dict[str, object], code: str
) -> None:
    _, (_, candidate) = read_pair(shared_client)
    answer = post(shared_client, candidate, body)
    assert answer.status_code == 422 and answer.json()["code"] == code
    assert service(shared_client).history(candidate.analysis_id) == []


def test_an_unknown_analysis_has_no_reviews(shared_client: TestClient) -> None:
    for key in ("0" * 32, "..%2f..", "%00"):
        assert shared_client.get(f"/api/v1/analyses/{key}/reviews").status_code == 404
        assert shared_client.post(f"/api/v1/analyses/{key}/reviews", json={"verdict": "agree"}).status_code == 404


def test_a_lone_surrogate_is_bad_input_not_an_error_of_ours(shared_client: TestClient) -> None:
    _, (_, candidate) = read_pair(shared_client)
    answer = shared_client.post(
        f"/api/v1/analyses/{candidate.analysis_id}/reviews",
        content=b'{"verdict": "agree", "comment": "\\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422


def test_added_findings_are_named_as_the_14_are() -> None:
    given = ["pleural thickening", "own words", "Mass", "Pleural_Thickening", "mass", "own words"]
    assert added_in_order(given) == ["Mass", "Pleural_Thickening", "own words"]


def test_deciding_on_the_page_without_javascript(client: TestClient) -> None:
    study, (_, candidate) = read_pair(client)
    html = client.get(f"/studies/{study}/decision", headers=HTML).text
    subjects = re.findall(r'<option value="([0-9a-f]{32}[^"]*)"', html)
    assert subjects[0] == candidate.analysis_id and f"{candidate.analysis_id}/Atelectasis" in subjects
    assert len(subjects) == 5 and "Nobody has said anything" in html
    (token,) = re.findall(r'name="token" value="([0-9a-f]+)"', html)
    form = {
        "subject": subjects[1], "verdict": "supplement", "reason": "finding_missed", "comment": "<b>Look</b>\r\nthere",
        "added": ["Nodule", "Mass"], "added_words": "rib fracture, ", "token": token,
    }  # fmt: skip
    for _ in range(2):  # a double click
        answer = client.post(f"/studies/{study}/decision", data=form, headers=HTML)
        assert answer.status_code == 303 and answer.headers["location"] == f"/studies/{study}#_decision"
    html = client.get(f"/studies/{study}/decision", headers=HTML).text
    assert html.count("link 1") == 1 and "link 2" not in html
    assert "Adds Mass, Nodule, rib fracture." in html and "A finding was missed." in html
    assert "&lt;b&gt;Look" in html and "<b>Look" not in html
    (review,) = service(client).history(candidate.analysis_id)
    assert review.finding == "Atelectasis" and review.comment == "<b>Look</b>\nthere"


def test_a_refused_decision_keeps_what_was_written(client: TestClient) -> None:
    study, (_, candidate) = read_pair(client)
    form = {"subject": candidate.analysis_id, "verdict": "supplement", "comment": "kept"}
    answer = client.post(f"/studies/{study}/decision", data=form, headers=HTML)
    assert (
        answer.status_code == 422 and "name at least one finding" in answer.text and ">kept</textarea>" in answer.text
    )
    part = client.post(f"/studies/{study}/decision", data=form, headers=HTMX)
    assert part.status_code == 200 and "<html" not in part.text and "name at least one finding" in part.text
    without = client.post(f"/studies/{study}/decision", data={"subject": candidate.analysis_id}, headers=HTML)
    assert without.status_code == 422 and "Choose a verdict first" in without.text
    elsewhere = client.post(f"/studies/{study}/decision", data={**form, "subject": "0" * 32}, headers=HTML)
    assert elsewhere.status_code == 422 and "not a reading of this study" in elsewhere.text
    assert service(client).history(candidate.analysis_id) == []


def test_htmx_gets_the_form_and_the_history_for_their_places(client: TestClient) -> None:
    study, (_, candidate) = read_pair(client)
    form = {"subject": candidate.analysis_id, "verdict": "agree"}
    part = client.post(f"/studies/{study}/decision", data=form, headers=HTMX).text
    assert part.startswith('<section id="_decision"') and '<section id="_history"' in part
    assert 'hx-swap-oob="true"' in part and "<strong>Agree</strong>" in part


def test_read_first_hides_and_refuses_until_the_reader_has_read(client: TestClient) -> None:
    study, (_, candidate) = read_pair(client)
    reviews, me, other = service(client), Actor("local", "local"), Actor("u2", "Bo")
    assert not reviews.is_locked(study, me)
    assert client.post(f"/studies/{study}/read-first", data={"on": "true"}).status_code == 303
    assert reviews.is_locked(study, me) and reviews.is_locked(study, other)
    page = client.get(f"/studies/{study}/decision", headers=HTML).text
    assert "What do you see?" in page and candidate.analysis_id not in page and page.count('name="said"') == 14
    refused = client.post(
        f"/studies/{study}/decision", data={"subject": candidate.analysis_id, "verdict": "agree"}, headers=HTML
    )
    assert refused.status_code == 409 and "your own reading" in refused.text
    for path in ("export", "export.json"):
        assert client.get(f"/studies/{study}/{path}", headers=HTML).status_code == 409
    said = ["Atelectasis:absent:definite", "Mass:present:probable", "", ""]
    for _ in range(2):  # the form sent twice is one reading
        answer = client.post(f"/studies/{study}/unaided", data={"said": said, "comment": "alone"}, headers=HTML)
        assert answer.status_code == 303 and answer.headers["location"] == f"/studies/{study}"
    assert not reviews.is_locked(study, me) and reviews.is_locked(study, other)
    (entry,) = reviews.of_study(study)
    assert entry.kind == "unaided" and len(entry.findings) == 14 and entry.image_sha256 == candidate.image_sha256
    by_name = {one.name: (one.present, one.confidence) for one in entry.findings}
    assert by_name["Mass"] == (True, "probable") and by_name["Atelectasis"] == (False, "definite")
    assert by_name["Hernia"] == (False, None)
    changed = client.post(f"/studies/{study}/unaided", data={"said": ["Mass:absent:definite"]}, headers=HTML)
    assert changed.status_code == 409
    said_rows = {row.name: row for row in reviews.panel(study, me).said}
    assert said_rows["Atelectasis"].reader == "absent (definite)" and said_rows["Atelectasis"].differ
    assert re.fullmatch(r"positive \(>?0\.9\d\)", said_rows["Atelectasis"].candidate or "")
    assert set(said_rows) == {"Atelectasis", "Effusion", "Mass"}
    page = client.get(f"/studies/{study}/decision", headers=HTML).text
    assert "What you saw unaided" in page and "Unaided reading" in page
    assert reviews.panel(study, other).history == ()
    assert post(client, candidate, {"verdict": "agree"}).json()["sequence"] == 2
    assert all(report.broken is None for report in reviews.audit.verify())


def test_the_server_can_ask_for_it_of_every_study(settings: Settings) -> None:
    with started(settings.model_copy(update={"read_first": True})) as client:
        study, (_, candidate) = read_pair(client)
        me = Actor("local", "local")
        assert service(client).panel(study, me).by_server
        assert post(client, candidate, {"verdict": "agree"}).json()["code"] == "read_first"
        assert client.get("/api/v1/studies?disagreement=true").json()["studies"] == []
        for said in ("Cough:present:definite", "Mass:perhaps:definite", "Mass:present:very", "Mass"):
            answer = client.post(f"/studies/{study}/unaided", data={"said": [said]}, headers=HTML)
            assert answer.status_code == 422 and "What do you see?" in answer.text, said
        assert service(client).is_locked(study, me) and service(client).of_study(study) == []
        assert client.post(f"/api/v1/studies/{study}/unaided", json={}).status_code == 201
        assert post(client, candidate, {"verdict": "agree"}).status_code == 201
        assert len(client.get("/api/v1/studies?disagreement=true").json()["studies"]) == 1
        late = client.post(f"/studies/{study}/unaided", data={"said": ["Mass:present:definite"]}, headers=HTML)
        assert late.status_code == 409
        off_the_list = client.post("/api/v1/predictions", files={"file": ("b.png", png_bytes(1))}).json()["analyses"][0]
        assert client.get(f"/api/v1/analyses/{off_the_list['analysis_id']}").json() == off_the_list


def test_reviews_stay_after_a_restart(settings: Settings) -> None:
    with started(settings) as client:
        _, (reference, candidate) = read_pair(client)
        post(client, candidate, {"verdict": "agree"})
        post(client, reference, {"verdict": "disagree", "reason": "finding_absent"})
    with started(settings) as client:
        reader = Actor("u2", "Bo")
        review, new = service(client).record(reader, candidate.analysis_id, ReviewRequest(verdict=Verdict.AGREE))
        assert new and review.supersedes is None and review.sequence == 3
        assert [one.superseded for one in service(client).history(candidate.analysis_id)] == [False, False]
