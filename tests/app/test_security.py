"""What guards every request."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.headers import CSP
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import png_bytes


@pytest.mark.parametrize(
    "path",
    ["/", "/api/docs", "/api/openapi.json", "/healthz", "/readyz", "/static/app.css", "/nowhere", "/studies/nothing",
     "/api/v1/checkpoints", "/api/v1/analyses/x"],
)  # fmt: skip
def test_every_answer_has_the_headers(shared_client: TestClient, path: str) -> None:
    headers = shared_client.get(path).headers
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"]


def test_no_inline_script_or_style_in_any_page(shared_client: TestClient) -> None:
    study = shared_client.post("/studies", files={"file": ("a.png", png_bytes(5))}).headers["location"]
    for path in ("/", study, "/api/docs", "/nowhere"):
        html = shared_client.get(path, headers={"Accept": "text/html"}).text
        assert "style=" not in html and "<style" not in html and "javascript:" not in html and " onclick" not in html
        assert html.count("<script") == html.count('<script src="/static/') > 0 and "not for diagnosis" in html


def test_unexpected_error_is_a_problem_with_the_headers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(client.app.state.services.analyses, "analysis", broken)  # type: ignore[attr-defined]
    answer = client.get("/api/v1/analyses/x")
    assert answer.status_code == 500 and answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"] == CSP


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost:80:80", "[::2]"])
def test_foreign_host_is_refused(shared_client: TestClient, host: str) -> None:
    answer = shared_client.get("/api/v1/checkpoints", headers={"Host": host})
    assert answer.status_code == 400 and answer.json()["code"] == "bad_host"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "[::1]:8000", "[::1]"])
def test_own_host_is_answered(shared_client: TestClient, host: str) -> None:
    assert shared_client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(("host", "said"), [("127.5.5.5", "127.5.5.5:80"), ("::1", "[::1]:80")])
def test_the_address_that_it_listens_on_is_its_own(settings: Settings, host: str, said: str) -> None:
    with TestClient(create_app(settings.model_copy(update={"host": host})), base_url="http://127.0.0.1") as client:
        assert client.get("/healthz", headers={"Host": said}).status_code == 200
        assert client.get("/healthz", headers={"Host": "127.5.5.6"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_posts_come_from_our_own_pages(shared_client: TestClient, headers: dict[str, str], status: int) -> None:
    unseen = png_bytes(60 + len(str(headers)))  # a file that is here already would be answered with a page
    answer = shared_client.post("/studies", files={"file": ("a.png", unseen)}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.5.5.5", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.2", False), ("example.org", False)],
)  # fmt: skip
def test_what_counts_as_this_machine(host: str, loopback: bool) -> None:
    assert Settings(host=host).on_loopback is loopback
