"""What operators see, and that no patient is in it; what a raw connection can try."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from app.telemetry import configure_logging
from tests.app.conftest import png_bytes


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a server that is not on a terminal writes."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the test's own client names addresses
    configure_logging(stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)


def test_a_log_line_for_each_request_names_the_route_and_nobody(client: TestClient, logged: io.StringIO) -> None:
    study = client.post("/studies", files={"file": ("DOE^JOHN.png", png_bytes())}).headers["location"]
    answer = client.get(f"{study}?finding=Mass")
    client.get("/studies/DOE^JOHN?q=secret")
    client.get("/static/app.css?DOE")
    client.post("/studies", files={"file": ("DOE^JOHN.txt", b"no")})
    client.get("/DOE")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(one["method"], one["route"], one["status"]) for one in requests] == [
        ("POST", "/studies", 303),
        ("GET", "/studies/{study}", 200),
        ("GET", "/studies/{study}", 404),
        ("GET", "/static", 200),
        ("POST", "/studies", 415),
        ("GET", "unmatched", 404),
    ]
    assert requests[1]["request_id"] == answer.headers["x-request-id"] and requests[1]["duration_ms"] > 0
    assert len({one["request_id"] for one in requests}) == 6
    assert "DOE" not in logged.getvalue() and "secret" not in logged.getvalue() and study[9:] not in logged.getvalue()


def test_an_unexpected_error_is_logged_with_its_request(
    client: TestClient, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(client.app.state.services.analyses, "analysis", broken)  # type: ignore[attr-defined]
    answer = client.get("/api/v1/analyses/" + "0" * 32)
    (line,) = [json.loads(one) for one in logged.getvalue().splitlines() if '"request"' in one]
    assert answer.status_code == 500 and line["status"] == 500 and line["route"] == "/api/v1/analyses/{analysis_id}"


def value(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found)


def test_metrics_count_by_route_and_status(client: TestClient) -> None:
    for n in range(3):
        client.get(f"/studies/{n:032x}")
    body = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}).json()
    client.post(f"/api/v1/analyses/{body['analyses'][0]['analysis_id']}/reviews", json={"verdict": "agree"})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    assert value(text, 'overread_requests_total{method="GET",route="/studies/{study}",status="404"}') == 3
    assert value(text, 'overread_request_seconds_count{method="POST",route="/api/v1/predictions"}') == 1
    assert value(text, "overread_analyses_total") == 2 and value(text, "overread_reviews_total") == 1
    assert value(text, "overread_queue_depth") == 0 and value(text, "overread_checkpoints_settled") == 1
    assert "0000000000" not in text


def test_invented_addresses_and_methods_make_no_new_series(client: TestClient) -> None:
    for n in range(5):
        client.get(f"/nowhere/{n}")
        client.request(f"MADEUP{n}", "/")
    text = client.get("/metrics").text
    assert value(text, 'overread_requests_total{method="GET",route="unmatched",status="404"}') == 5
    assert "MADEUP" not in text and "nowhere" not in text


def test_ready_only_with_a_database(client: TestClient) -> None:
    ready = client.get("/readyz")
    assert ready.status_code == 200 and ready.json()["device"] == "cpu"
    db = client.app.state.services.db  # type: ignore[attr-defined]
    db.close()
    db._reading = db.engine.execution_options()
    broken = db.engine.url.set(database="/nowhere/x" if db.engine.dialect.name == "sqlite" else "nowhere")
    from sqlalchemy import create_engine

    db._reading = create_engine(broken)
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.json()["status"] == "no_database"
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("head", "body", "statuses"),
    [
        ("Content-Length: 4294967296", b"x", {413}),
        ("Content-Length: 99999999999999999999999", b"x", {400, 413}),
        ("Content-Length: -1", b"x", {400}),
        ("Content-Length: 5\r\nContent-Length: 6", b"hello!", {400}),
        ("Content-Length: +5", b"hello", {400}),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", b"5\r\nhello\r\n0\r\n\r\n", {400, 422}),
        ("Transfer-Encoding: chunked", b"ffffffffff\r\n", {400}),
        ("Host: evil.example", b"", {400}),
    ],
)
def test_a_length_that_lies_gets_an_answer_at_once(live_url: str, head: str, body: bytes, statuses: set[int]) -> None:
    where = urlsplit(live_url)
    host = "" if "Host:" in head else f"Host: {where.netloc}"
    began = time.monotonic()
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=5) as connection:
        lines = ("POST /api/v1/predictions HTTP/1.1", host, "Content-Type: text/plain", head, "Connection: close")
        connection.sendall("\r\n".join([*filter(None, lines), "", ""]).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    status = int(answer.split()[1]) if answer else 400  # dropped without a word
    assert status in statuses and time.monotonic() - began < 4
