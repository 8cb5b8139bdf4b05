"""Who gets in: accounts, the sign-in page, sessions, Basic, and that nothing is open by accident."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from sqlalchemy import text

from app import actor
from app.actor import signed_in
from app.main import create_app
from app.services.users import UserService
from app.settings import Settings
from tests.app.conftest import BASE_URL, png_bytes, started

HTML = {"Accept": "text/html"}
PASSWORD = "correct horse"
COOKIE = "overread"


def users(client: TestClient) -> UserService:
    return client.app.state.services.users  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def guarded(client: TestClient) -> TestClient:
    """A server with one user, Ada."""
    users(client).add("Ada", PASSWORD)
    return client


def sign_in(client: TestClient, name: str = "Ada", password: str = PASSWORD, **fields: str):
    return client.post("/sign-in", data={"name": name, "password": password, **fields}, headers=HTML)


def test_users_from_the_command_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_stdin(password: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        return run("users", *arguments, "--password-stdin")

    assert "There is no user" in run("users", "list")[1]
    assert with_stdin(PASSWORD, "add", "Ada Lovelace")[0] == 0
    for password, name, why in (
        (PASSWORD, "ADA LOVELACE", "already"),
        ("short", "Bo", "8 characters"),
        (PASSWORD, "a:b", "letters"),
        (PASSWORD, "", "letters"),
        (PASSWORD, "=cmd", "letters"),
    ):
        code, _, err = with_stdin(password, "add", name)
        assert code == 1 and why in err and len(err.splitlines()) == 1, name
    code, _, err = run("users", "remove", "ada lovelace")
    assert code == 1 and "--last" in err
    assert with_stdin("another one", "set-password", "Ada Lovelace")[0] == 0
    (listed,) = json.loads(run("users", "list", "--json")[1])["users"]
    assert listed["name"] == "Ada Lovelace" and "password" not in json.dumps(listed)
    assert run("users", "remove", "Ada Lovelace", "--last")[0] == 0
    assert run("users", "remove", "Ada Lovelace")[0] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "--password-stdin" in run("users", "add", "Bo")[2]


def test_no_users_on_this_machine_and_the_dashboard_is_open(client: TestClient) -> None:
    page = client.get("/", headers=HTML)
    assert page.status_code == 200 and "Sign out" not in page.text
    assert client.get("/sign-in?next=/audit").headers["location"] == "/audit"
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):  # through a proxy anybody could come
        assert client.get("/api/v1/checkpoints", headers={header: "10.0.0.1"}).status_code == 401


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("172.31.250.2", "203.0.113.7", "203.0.113.7"),
        ("172.31.250.2", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # whatever the client said before the proxy
        ("172.31.251.2", "203.0.113.7", "172.31.251.2"),  # who is not the proxy
        ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
    ],
)
def test_only_the_proxy_says_for_whom_it_asks(settings: Settings, peer: str, forwarded: str, counted: str) -> None:
    for proxies, expected in ((["172.31.250.0/28"], counted), ([], peer)):
        app = create_app(Settings.model_validate({**settings.model_dump(), "trusted_proxies": proxies}))

        @app.get("/address")
        def ask(request: Request) -> str:
            return actor.address(request)

        client = TestClient(app, base_url=BASE_URL, client=(peer, 1))
        assert client.get("/address", headers={"X-Forwarded-For": forwarded}).json() == expected


@pytest.mark.parametrize("value", ['["*"]', '["proxy"]', '["10.0.0.0/99"]'])
def test_a_proxy_is_trusted_by_its_address_alone(run, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OVERREAD_TRUSTED_PROXIES", value)
    code, _, err = run("serve", "--port", 0)
    assert code == 1 and "OVERREAD_TRUSTED_PROXIES" in err


def test_off_loopback_without_a_user_nobody_gets_in(settings: Settings) -> None:
    with started(settings.model_copy(update={"host": "0.0.0.0"})) as client:
        assert client.get("/api/v1/checkpoints").status_code == 401
        page = client.get("/", headers=HTML)
        assert page.status_code == 303 and page.headers["location"].startswith("/sign-in")
        assert "overread users add NAME" in client.get("/sign-in").text


def test_serving_off_loopback_needs_a_user(run) -> None:
    code, _, err = run("serve", "--host", "0.0.0.0")
    assert code == 1 and "overread users add" in err and len(err.splitlines()) == 1


def test_every_route_is_closed_but_the_named_ones(settings: Settings) -> None:
    """Not by address but by dependency: a new router that forgets it fails here."""
    app = create_app(settings)
    open_to_all = set()
    for route in app.routes:
        contexts = route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]
        for context in contexts:
            calls = {one.call for one in context.dependant.dependencies} if hasattr(context, "dependant") else set()
            if signed_in not in calls:
                open_to_all.add(context.path)
    assert open_to_all == {"/healthz", "/readyz", "/sign-in", "/sign-out", "/static"}


def test_with_a_user_everything_asks_who_is_there(guarded: TestClient) -> None:
    for path in ("/", "/status", "/audit", "/audit.csv", "/audit.json", "/audit/verification", "/api/docs",
                 "/api/openapi.json", "/metrics", "/api/v1/checkpoints", "/api/v1/analyses/" + "0" * 32):  # fmt: skip
        page = guarded.get(path, headers=HTML)
        assert page.status_code == 401 if path.startswith("/api/v1") else page.status_code in (303, 401), path
        program = guarded.get(path)
        assert program.status_code == 401 and program.json()["code"] == "sign_in_required", path
        assert program.headers["www-authenticate"].startswith("Basic"), path
        assert "www-authenticate" not in guarded.get(path, headers={"Sec-Fetch-Mode": "no-cors"}).headers, path
    for everybody in ("/healthz", "/readyz", "/static/app.css", "/sign-in"):
        assert guarded.get(everybody).status_code == 200


def test_a_study_its_pictures_and_its_export_are_closed_to_strangers(guarded: TestClient) -> None:
    auth = ("Ada", PASSWORD)
    upload = guarded.post("/studies", files={"file": ("a.png", png_bytes())}, auth=auth)
    study = upload.headers["location"]
    body = guarded.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}, auth=auth).json()
    analysis = body["analyses"][0]
    addresses = [study, f"{study}/radiograph.png", f"{study}/thumbnail.png", f"{study}/decision", f"{study}/export",
                 f"{study}/export.json", f"/api/v1/analyses/{analysis['analysis_id']}",
                 analysis["findings"][0]["saliency"]["middle"]["url"] + ".png",
                 f"/api/v1/analyses/{analysis['analysis_id']}/reviews"]  # fmt: skip
    for address in addresses:
        assert guarded.get(address).status_code == 401, address
        assert guarded.get(address, auth=auth).status_code == 200, address
        assert guarded.get(address, headers={"Cookie": "overread=" + "A" * 43}).status_code == 401, address
    posts = {f"{study}/decision": {"subject": "x"}, f"{study}/unaided": {}, f"{study}/read-first": {"on": "true"}}
    for address, data in posts.items():
        assert guarded.post(address, data=data).status_code == 401, address
    assert guarded.post("/studies", files={"file": ("a.png", png_bytes(9))}).status_code == 401


def test_signing_in_and_out(guarded: TestClient) -> None:
    assert guarded.get("/audit?actor=x", headers=HTML).headers["location"] == "/sign-in?next=/audit%3Factor%3Dx"
    page = guarded.get("/sign-in?next=/audit").text
    assert 'value="/audit"' in page and "not for diagnosis" in page and "backdoored" not in page
    answer = sign_in(guarded, next="/audit")
    assert answer.status_code == 303 and answer.headers["location"] == "/audit"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "domain" not in cookie
    assert "Signed in as <strong>Ada</strong>" in guarded.get("/", headers=HTML).text
    kept = guarded.cookies[COOKIE]
    out = guarded.post("/sign-out", headers=HTML)
    assert out.status_code == 303 and COOKIE not in guarded.cookies
    assert guarded.get("/", headers={"Cookie": f"{COOKIE}={kept}"}).status_code == 401
    assert guarded.get("/sign-out").status_code == 405


def test_the_secret_is_new_each_time_and_stored_nowhere(guarded: TestClient) -> None:
    sign_in(guarded)
    first = guarded.cookies[COOKIE]
    sign_in(guarded)
    second = guarded.cookies[COOKIE]
    assert first != second and len(second) >= 43
    assert guarded.get("/", headers={"Cookie": f"{COOKIE}={first}"}).status_code == 401
    with users(guarded).db.engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM sessions")).all())
        hashes = str(connection.execute(text("SELECT password_hash FROM users")).all())
    assert second not in stored and stored.count("user_id") == 0 and PASSWORD not in hashes and "$argon2" in hashes


def test_no_key_is_built_in(guarded: TestClient, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A session of one server means nothing to another, whatever the version: there is no secret to know."""
    sign_in(guarded)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    other = settings.model_copy(
        update={"data_dir": elsewhere, "database_url": f"sqlite:///{elsewhere / 'overread.sqlite3'}"}
    )
    with started(other) as client:
        users(client).add("Ada", PASSWORD)
        assert client.get("/", headers={"Cookie": f"{COOKIE}={guarded.cookies[COOKIE]}"}).status_code == 401
    assert not [name for name in Settings.model_fields if "secret" in name or "key" in name]


def test_over_tls_the_cookie_is_bound_to_the_host(settings: Settings) -> None:
    with started(settings.model_copy(update={"https": True})) as client:
        users(client).add("Ada", PASSWORD)
        cookie = sign_in(client).headers["set-cookie"]
        assert cookie.startswith("__Host-overread=") and "Secure" in cookie and "Path=/" in cookie


def test_wrong_passwords_are_counted(guarded: TestClient) -> None:
    for name, password in (("Ada", "wrong"), ("nobody", PASSWORD), ("Ada", ""), ("\0", "\0")):
        answer = sign_in(guarded, name, password)
        assert answer.status_code == 401 and "name or the password is not right" in answer.text
        assert guarded.get("/api/v1/checkpoints", auth=(name, password)).status_code == 401
    for _ in range(10):
        last = sign_in(guarded, "Ada", "wrong")
    assert last.status_code == 429 and int(last.headers["retry-after"]) > 0 and "too many" in last.text
    assert sign_in(guarded).status_code == 429  # the right one too, or guessing could go on
    assert guarded.get("/api/v1/checkpoints", auth=("Ada", "wrong")).status_code == 429


def test_a_name_with_html_stays_text(guarded: TestClient) -> None:
    answer = sign_in(guarded, '"><img src=x onerror=alert(1)>', "wrong")
    assert "<img src=x" not in answer.text and "&lt;img src=x" in answer.text


def test_signing_in_leads_nowhere_else(guarded: TestClient) -> None:
    for target in ("//evil.example", "/\\evil.example", "https://evil.example", "evil", "/\r\nX: y"):
        assert sign_in(guarded, next=target).headers["location"] == "/", target
        assert "evil" not in guarded.get("/sign-in", params={"next": target}).text, target


def test_a_form_of_another_site_signs_nobody_in(guarded: TestClient) -> None:
    headers = {"Origin": "http://evil.example"}
    answer = guarded.post("/sign-in", data={"name": "Ada", "password": PASSWORD}, headers=headers)
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_htmx_is_led_to_the_sign_in(guarded: TestClient) -> None:
    answer = guarded.get("/", headers={**HTML, "HX-Request": "true"})
    assert answer.status_code == 401 and answer.headers["hx-redirect"] == "/sign-in"
    assert "www-authenticate" not in answer.headers or "sec-fetch-mode" not in answer.request.headers


def test_sessions_end_when_idle_and_at_last(guarded: TestClient) -> None:
    service, moment = users(guarded), datetime(2026, 11, 25, 8, tzinfo=UTC)
    service.clock = lambda: moment
    ada = service.authenticate("ada", PASSWORD, "x")
    secret = service.begin(ada)
    moment += timedelta(minutes=59)
    assert service.resume(secret) == ada
    moment += timedelta(minutes=59)
    assert service.resume(secret) == ada  # used in time
    moment += timedelta(minutes=61)
    assert service.resume(secret) is None
    secret = service.begin(ada)
    for _ in range(24):
        moment += timedelta(minutes=29)
        assert service.resume(secret) == ada
    moment += timedelta(minutes=29)  # twelve hours and five minutes
    assert service.resume(secret) is None


def test_a_new_password_or_removal_ends_every_session(guarded: TestClient) -> None:
    service = users(guarded)
    sign_in(guarded)
    assert guarded.get("/").status_code == 200
    service.set_password("Ada", "another one")
    assert guarded.get("/").status_code == 401
    assert guarded.get("/", auth=("Ada", PASSWORD)).status_code == 401
    assert guarded.get("/", auth=("Ada", "another one")).status_code == 200
    service.add("Bo", PASSWORD)
    service.remove("Ada")
    assert guarded.get("/", auth=("Ada", "another one")).status_code == 401


def test_a_review_carries_the_name_of_who_is_signed_in(guarded: TestClient) -> None:
    body = guarded.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}, auth=("Ada", PASSWORD)).json()
    address = f"/api/v1/analyses/{body['analyses'][0]['analysis_id']}/reviews"
    answer = guarded.post(address, json={"verdict": "agree"}, auth=("ada", PASSWORD))
    assert answer.status_code == 201 and answer.json()["reader"] == "Ada"
