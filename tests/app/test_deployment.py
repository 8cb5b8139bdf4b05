"""The container files name only what exists: files, commands, settings, services, secrets."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import make_url
from typer.main import get_command

from app.cli import build
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = ("prepare", "app", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml, its anchors resolved."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_every_setting_exists(compose: dict[str, Any]) -> None:
    fields = {f"OVERREAD_{name.upper()}" for name in Settings.model_fields}
    given = set(re.findall(r"^ +(OVERREAD_\w+)=", DOCKERFILE, re.M))
    for name in OURS:
        given |= set(compose["services"][name]["environment"])
    assert "OVERREAD_DATA_DIR" in given
    assert given <= fields
    read_by_compose = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    documented = set(re.findall(r"`(OVERREAD_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert read_by_compose <= documented


def test_every_command_exists(compose: dict[str, Any]) -> None:
    command = get_command(build())
    for words in (compose["services"]["app"]["command"], compose["services"]["worker"]["command"]):
        chosen = command.commands[words[0]]  # type: ignore[attr-defined]
        known = {option for parameter in chosen.params for option in parameter.opts}
        assert {word for word in words[1:] if word.startswith("--")} <= known
    assert {"add", "list"} <= set(command.commands["users"].commands)  # type: ignore[attr-defined]


def test_every_file_is_there_and_reaches_the_builder(compose: dict[str, Any]) -> None:
    copied = [source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M) for source in line.split()[:-1]]
    assert len(copied) >= 8
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in let_in
    for volume in compose["services"]["proxy"]["volumes"]:
        assert (ROOT / volume.split(":")[0]).is_file()


def test_services_secrets_and_networks_hang_together(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
    url = make_url(services["app"]["environment"]["OVERREAD_DATABASE_URL"])
    assert (url.host, url.username, url.database, url.password) == ("database", "overread", "overread", None)
    assert f"server {'app'}:8000" in (ROOT / "deploy" / "nginx.conf").read_text()
    behind = [name for name, one in services.items() if "front" in one["networks"]]
    assert sorted(behind) == ["app", "proxy"]  # nobody else can be taken for the proxy
    (subnet,) = compose["networks"]["front"]["ipam"]["config"]
    assert services["app"]["environment"]["OVERREAD_TRUSTED_PROXIES"] == f'["{subnet["subnet"]}"]'
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["${OVERREAD_PUBLISH:-127.0.0.1:8000}:8080"]  # the proxy alone, on this machine alone
    gpu = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())
    assert set(gpu["services"]) == set(OURS)


def test_the_password_comes_from_its_file_whatever_it_contains(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/word:%1\n")
    settings = Settings(database_url="postgresql://overread@database/overread", database_password_file=file)
    assert make_url(settings.resolved_database_url).password == "p@ss/word:%1"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_proxy_says_who_asks_whatever_they_say(tmp_path: Path) -> None:
    """deploy/nginx.conf, run for real in front of a server that answers with what it was told."""

    class Told(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = (ROOT / "deploy" / "nginx.conf").read_text().replace("app:8000", f"127.0.0.1:{server.server_port}")
    conf = conf.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(conf)
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
    proxy = subprocess.Popen(command, stderr=subprocess.PIPE)
    forged = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https", "Forwarded": "for=x", "X-Real-IP": "x"}
    try:
        for _ in range(200):
            if proxy.poll() is not None or (tmp_path / "nginx.pid").is_file():
                break
            time.sleep(0.05)
        told = httpx.get(f"http://127.0.0.1:{port}/", headers=forged).json()
    finally:
        proxy.terminate()
        said = proxy.communicate(timeout=20)[1]
        server.shutdown()
        server.server_close()
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("127.0.0.1", "http"), said
    assert "forwarded" not in told and "x-real-ip" not in told and told["host"] == f"127.0.0.1:{port}"


def test_first_user_is_made_once(run, settings: Settings, tmp_path: Path) -> None:
    """deploy/first-user, with this checkout's command."""
    command = tmp_path / "overread"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m app.cli "$@"\n')
    command.chmod(0o755)
    password = tmp_path / "password"
    password.write_text("correct horse battery staple\n")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "OVERREAD_DATABASE_URL": settings.database_url,
        "OVERREAD_DATA_DIR": str(settings.data_dir),
    }
    for name in ("reader", "another"):
        script = ["sh", str(ROOT / "deploy" / "first-user"), name, str(password)]
        subprocess.run(script, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    _, out, _ = run("users", "list")
    assert "reader" in out
    assert "another" not in out


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_believes_the_server(status: int, code: int) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    check = [sys.executable, str(ROOT / "deploy" / "healthcheck.py")]
    environment = {"OVERREAD_PORT": str(server.server_port)}
    assert subprocess.run(check, env=environment, timeout=20).returncode == code
    server.shutdown()
    server.server_close()
    assert subprocess.run(check, env=environment, capture_output=True, timeout=20).returncode == 1  # nobody answers
