"""The thread behind the requests, with nothing real around it: what it looks for, and when."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from app.services import background
from app.services.background import BackgroundReader


def test_a_busy_server_looks_for_a_new_calibration_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_LOOK_AGAIN_S", 0.2)
    monkeypatch.setattr(background, "readers", lambda *_: {})
    monkeypatch.setattr(background, "unread", lambda *_, **__: [])
    looked, again = threading.Event(), threading.Event()
    read: list[str] = []

    def recalibrated() -> bool:
        looked.set()
        return True

    engine = SimpleNamespace(wait_settled=lambda _: True, recalibrated=recalibrated)
    analyses: Any = SimpleNamespace(engine=engine, pair=("a", "b"), db=None, analyse=read.append)
    studies: Any = SimpleNamespace(stale_summaries=lambda _: [], refresh_summaries=lambda _: None)
    reader = BackgroundReader(studies, analyses, again.set, lambda: None)
    reader.start()
    try:
        end = time.monotonic() + 10
        while not looked.is_set() and time.monotonic() < end:
            reader.put("0" * 32)  # it is never without work for as long as it would wait
            time.sleep(0.01)
        assert looked.is_set() and read
        again.clear()
        assert again.wait(10)  # what the old calibration read is left to a job
    finally:
        reader.stop()
