"""Loading, a full queue, broken checkpoints."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import app.inference.batching
import app.inference.engine
from app.inference import InferenceEngine
from app.main import create_app
from app.services.errors import BusyError
from app.settings import Settings
from bench.soak import multipart
from tests.app.conftest import BASE_URL, png_bytes, served, started


def test_full_queue_turns_callers_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, entered, real = threading.Event(), threading.Event(), app.inference.batching.read_batch

    def held(*arguments: object) -> object:
        entered.set()
        gate.wait(30)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(app.inference.batching, "read_batch", held)

    def post(seed: int):
        return client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes(seed))})

    with (
        started(settings.model_copy(update={"queue_size": 1, "batch_size": 1})) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(post, 1)
        assert entered.wait(20)
        second = pool.submit(post, 2)
        engine = client.app.state.services.engine  # type: ignore[attr-defined]
        for _ in range(2000):
            if engine._jobs.full():
                break
            threading.Event().wait(0.01)
        refused = post(3)
        uploaded = client.post("/studies", files={"file": ("a.png", png_bytes(4))})
        waiting = client.get(uploaded.headers["location"])
        gate.set()
        assert refused.status_code == 503 and refused.json()["code"] == "busy"
        assert int(refused.headers["retry-after"]) > 0
        assert first.result().status_code == second.result().status_code == 200
        # An upload is kept even so; its page waits, and reads it later.
        assert uploaded.status_code == 303
        assert waiting.status_code == 200 and "Not read yet" in waiting.text
        assert "The candidate reports Atelectasis" in client.get(uploaded.headers["location"]).text


def test_pages_work_while_checkpoints_load(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), app.inference.engine.load_checkpoint

    def held(*arguments: object) -> object:
        gate.wait(30)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(app.inference.engine, "load_checkpoint", held)
    with TestClient(create_app(settings), base_url=BASE_URL, follow_redirects=False) as client:
        assert client.get("/readyz").status_code == 503
        assert "still loading" in client.get("/").text
        assert 'hx-trigger="every 2s"' in client.get("/status").text
        assert client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}).status_code == 503
        study = client.post("/studies", files={"file": ("a.png", png_bytes())}).headers["location"]
        assert "still loading" in client.get(study).text
        gate.set()
        assert client.app.state.services.engine.wait_settled(60)  # type: ignore[attr-defined]
        waited = client.get(study, headers={"HX-Request": "true", "HX-Target": "_waiting"})
        assert waited.headers["hx-refresh"] == "true"
        assert "hx-trigger" not in client.get("/status").text
        assert "The candidate reports Atelectasis" in client.get(study).text


def test_broken_checkpoint_is_listed_and_the_others_go_on(settings: Settings, checkpoints: Path) -> None:
    own = settings.data_dir / "checkpoints"
    for name in ("garbled", "swapped", "twin"):
        shutil.copytree(checkpoints / "clean", own / name)
    (own / "garbled" / "card.json").write_text("{")
    card = (own / "swapped" / "card.json").read_text()
    (own / "swapped" / "card.json").write_text(card.replace('"id": "clean"', '"id": "swapped"'))
    with (own / "swapped" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    with started(settings) as client:
        listed = {one["id"]: one for one in client.get("/api/v1/checkpoints").json()["checkpoints"]}
        assert listed["clean"]["state"] == listed["backdoored"]["state"] == "ready"
        assert listed["garbled"]["state"] == "failed" and "not JSON" in listed["garbled"]["error"]
        assert listed["swapped"]["state"] == "failed" and "not those" in listed["swapped"]["error"]
        assert listed["twin"]["state"] == "failed" and "taken" in listed["twin"]["error"]
        answer = client.post("/api/v1/predictions?checkpoint=swapped", files={"file": ("a.png", png_bytes())})
        assert answer.status_code == 503 and answer.json()["code"] == "checkpoint_failed"
        assert client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}).status_code == 200
        assert "garbled" in client.get("/").text


def test_a_copy_of_a_checkpoint_does_not_hide_it(settings: Settings, checkpoints: Path) -> None:
    shutil.copytree(checkpoints / "clean", settings.data_dir / "checkpoints" / "clean")
    with started(settings) as client:
        assert client.get("/readyz").json()["checkpoints"] == {"clean": "ready", "backdoored": "ready"}
        listed = client.get("/api/v1/checkpoints").json()["checkpoints"]
        assert [(one["id"], one["role"], one["state"]) for one in listed] == [
            ("clean", "reference", "ready"),
            ("backdoored", "candidate", "ready"),
            ("clean", None, "failed"),
        ]
        study = client.post("/studies", files={"file": ("a.png", png_bytes())}).headers["location"]
        assert "the reference does not" in client.get(study).text


def test_a_page_that_waits_in_vain_stops_to_ask(settings: Settings, tmp_path: Path) -> None:
    with started(settings.model_copy(update={"bundled_dir": tmp_path / "none"})) as client:
        study = client.post("/studies", files={"file": ("a.png", png_bytes())}).headers["location"]
        waited = client.get(study, headers={"HX-Request": "true", "HX-Target": "_waiting"})
        assert waited.status_code == 200 and waited.headers["hx-refresh"] == "true" and waited.text == ""
        assert "Not read" in client.get(study).text


def test_a_radiograph_that_comes_while_the_server_stops_is_turned_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may slip into the queue after the last look at it; nobody would ever answer."""
    engine = InferenceEngine(settings.checkpoint_dirs, "cpu", 4)
    engine.start()
    assert engine.wait_settled(60)
    put = engine._jobs.put_nowait

    def late(job: object) -> None:
        engine.stop()
        put(job)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._jobs, "put_nowait", late)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(engine.read, np.zeros((64, 64), np.float32), ["clean"])
        try:
            with pytest.raises(BusyError, match="shutting down"):
                reading.result(timeout=20)
        finally:
            engine._drop_waiting()  # or this test would wait for ever, too


def test_without_checkpoints_the_page_says_so(settings: Settings, tmp_path: Path) -> None:
    with started(settings.model_copy(update={"bundled_dir": tmp_path / "none"})) as client:
        assert client.get("/readyz").json()["status"] == "no_checkpoint"
        study = client.post("/studies", files={"file": ("a.png", png_bytes())})
        assert study.status_code == 303
        assert "Not read" in client.get(study.headers["location"]).text
        answer = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())})
        assert answer.status_code == 503 and answer.json()["code"] == "no_checkpoint"


def test_one_of_the_pair_missing_shows_the_other(settings: Settings, checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "backdoored", tmp_path / "one" / "backdoored")
    with started(settings.model_copy(update={"bundled_dir": tmp_path / "one"})) as client:
        study = client.post("/studies", files={"file": ("a.png", png_bytes())}).headers["location"]
        html = client.get(study).text
        assert "Only the candidate has read this radiograph" in html and html.count('class="pane"') == 2


def test_two_hundred_at_once_are_answered_or_put_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets an error, what is read is read right, and the server goes on."""
    shed, real = threading.Event(), app.inference.batching.read_batch

    def held(*arguments: Any) -> Any:
        assert shed.wait(30)  # until somebody was turned away
        return real(*arguments)

    monkeypatch.setattr(app.inference.batching, "read_batch", held)
    data = [png_bytes(seed, (64, 64)) for seed in range(4)]
    with served(settings.model_copy(update={"queue_size": 4})) as url:
        port = int(url.rpartition(":")[2])

        def client(number: int) -> tuple[int, str | None, dict[str, Any]]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("POST", "/api/v1/predictions", *multipart("a.png", data[number % 4]))
            answer = connection.getresponse()
            said = answer.status, answer.getheader("Retry-After"), json.loads(answer.read())
            connection.close()
            if answer.status == 503:
                shed.set()
            return said

        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(client, range(200)))
        assert {status for status, _, _ in answers} == {200, 503}
        assert all(int(retry or 0) > 0 and said["code"] == "busy" for status, retry, said in answers if status == 503)
        assert all(len(said["analyses"]) == 2 for status, _, said in answers if status == 200)
        status, _, said = client(1)
        assert status == 200 and said in [answer for _, _, answer in answers[1::4]]
