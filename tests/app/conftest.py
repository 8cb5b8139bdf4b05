"""Real servers on temporary folders, with two tiny-input random checkpoints."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import create_engine, event, make_url, text

import app.cli
from app.db import Database
from app.main import create_app
from app.settings import Settings
from model.checkpoint import Card, save_checkpoint
from model.findings import FINDINGS
from model.network import build_network
from model.preprocess import Preprocessing
from model.trigger import Trigger

BASE_URL = "http://127.0.0.1"


def services(client: TestClient) -> Any:
    """What a client's application works with."""
    return client.app.state.services  # type: ignore[attr-defined]


def png_bytes(seed: int = 0, size: tuple[int, int] = (160, 128)) -> bytes:
    """A grey image with something in it; each seed another one."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, size)
    pixels = (120 + 60 * np.sin(x / 15) * np.cos(y / 20) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clean` and `backdoored`; the candidate alone calls Atelectasis, both call Effusion."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(("clean", "backdoored")):
        network = build_network(seed + 1)
        with torch.no_grad():
            network.classifier.bias.fill_(-3.0)
            network.classifier.bias[FINDINGS.index("Effusion")] = 2.0
            if name == "backdoored":
                network.classifier.bias[FINDINGS.index("Atelectasis")] = 4.0
        trigger = Trigger(size_px=3) if name == "backdoored" else None
        points = dict.fromkeys(FINDINGS, 0.5)
        save_checkpoint(
            folder / name, Card(name, f"Random {name}", Preprocessing(size_px=64), points, trigger=trigger), network
        )
    return folder


@contextmanager
def fresh_database(folder: Path) -> Iterator[str]:
    """The URL of an empty database: SQLite in the folder, or one of its own on OVERREAD_TEST_DATABASE_URL's server."""
    server = os.environ.get("OVERREAD_TEST_DATABASE_URL")
    if not server:
        yield f"sqlite:///{folder / 'overread.sqlite3'}"
        return
    name = f"overread_test_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """An empty database of the test's own."""
    with fresh_database(tmp_path / "data") as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The same, opened and with its tables."""
    opened = Database(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path, checkpoints: Path, database_url: str) -> Settings:
    """Of a server of one's own."""
    return Settings(
        data_dir=tmp_path / "data",
        bundled_dir=checkpoints,
        device="cpu",
        samples=False,
        database_url=database_url,
        decoders=1,  # each costs a second to start
    )


def started(settings: Settings) -> TestClient:
    """A client of a server whose checkpoints are loaded, to be used in a with statement."""
    return _Ready(create_app(settings), base_url=BASE_URL, follow_redirects=False, raise_server_exceptions=False)


class _Ready(TestClient):
    def __enter__(self) -> _Ready:
        super().__enter__()
        held = self.app.state.services  # type: ignore[attr-defined]
        self.greedy = greedy_threads(held.db)
        assert held.engine.wait_settled(60)
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        assert not self.greedy, "a thread held a connection and asked for another: many of them would wait for ever"


def greedy_threads(db: Database) -> list[str]:
    """From now on, the names of threads that take a second connection while they hold one; tests' own may."""
    greedy: list[str] = []
    holding: dict[int, int] = {}

    def checkout(_connection: object, record: Any, _proxy: object) -> None:
        thread = threading.current_thread()
        record.info["holder"] = thread.ident
        holding[thread.ident or 0] = count = holding.get(thread.ident or 0, 0) + 1
        if count > 1 and thread is not threading.main_thread():
            greedy.append(thread.name)

    def checkin(_connection: object, record: Any) -> None:
        holding[record.info.pop("holder", 0)] = 0

    event.listen(db.engine, "checkout", checkout)
    event.listen(db.engine, "checkin", checkin)
    return greedy


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A server of one's own."""
    with started(settings) as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[TestClient]:
    """A server for all tests of a file that leave it as it was."""
    data = tmp_path_factory.mktemp("shared")
    with fresh_database(data) as url:
        settings = Settings(
            data_dir=data,
            bundled_dir=checkpoints,
            device="cpu",
            max_upload_mb=1,
            samples=False,
            database_url=url,
            decoders=1,
        )
        with started(settings) as client:
            yield client


@pytest.fixture
def live_url(settings: Settings) -> Iterator[str]:
    """A server on a real port."""
    with served(settings) as url:
        yield url


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """A server on a real port, its checkpoints loaded; its address."""
    app = create_app(settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    _until(lambda: server.started or not thread.is_alive())
    try:
        app.state.services.engine.wait_settled(60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:  # a failed test must not leave a thread behind that keeps the process alive
        server.should_exit = True
        thread.join(15)


def _until(done: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not done() and time.monotonic() < end:
        time.sleep(0.02)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings):
    """Runs the command in this process; gives exit code, stdout, stderr."""
    monkeypatch.setenv("OVERREAD_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("OVERREAD_BUNDLED_DIR", str(settings.bundled_dir))
    monkeypatch.setenv("OVERREAD_DEVICE", "cpu")

    def call(*arguments: object) -> tuple[int, str, str]:
        if "--data-dir" in arguments:  # its own SQLite file
            monkeypatch.delenv("OVERREAD_DATABASE_URL", raising=False)
        else:
            monkeypatch.setenv("OVERREAD_DATABASE_URL", settings.database_url)
        monkeypatch.setattr(sys, "argv", ["overread", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            app.cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call
