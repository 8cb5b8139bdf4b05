"""Backup and restore."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app.services.backup import back_up
from app.settings import Settings
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes, started


def test_what_comes_while_files_are_copied_is_not_missing(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    """The database of a server at work names more files by the end of a copy than there were at its beginning."""
    slow = b"a file that takes long to read"
    digest = hashlib.sha256(slow).hexdigest()
    pipe = settings.data_dir / "blobs" / digest[:2] / digest
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        copied = pool.submit(back_up, settings, tmp_path / "copy")
        with pipe.open("wb") as writer:  # the copy has come to it
            answer = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes(1), "image/png")})
            writer.write(slow)
    assert answer.status_code == 200 and copied.result().blobs >= 1


@pytest.fixture
def stored(client: TestClient, settings: Settings) -> str:
    """The address of one prediction on a running server that keeps its database in a file."""
    if make_url(settings.resolved_database_url).get_backend_name() != "sqlite":
        pytest.skip("the database's own copy is SQLite's")
    answer = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes(1), "image/png")})
    return f"/api/v1/analyses/{answer.json()['analyses'][0]['analysis_id']}"


def test_what_a_running_server_stored_comes_back(
    stored: str, client: TestClient, run, settings: Settings, checkpoints: Path, tmp_path: Path
) -> None:
    before = client.get(stored).json()
    calibration = put(settings.data_dir, checkpoints / "backdoored", by_hand(checkpoints / "backdoored"))
    for new in (2, 0):  # the second time there is nothing new
        code, out, _ = run("backup", "--out", tmp_path / "copy", "--json")
        assert code == 0
        told = json.loads(out)
        assert (told["blobs"], told["new"], told["database"]) == (2, new, True)
    code, out, _ = run("restore", tmp_path / "copy", "--data-dir", tmp_path / "again")
    assert (code, "2 files" in out) == (0, True)
    copied = tmp_path / "again" / calibration.relative_to(settings.data_dir)
    assert copied.read_bytes() == calibration.read_bytes()
    again = Settings(data_dir=tmp_path / "again", bundled_dir=checkpoints, device="cpu", samples=False)
    with started(again) as other:
        assert other.get(stored).json() == before


def test_a_damaged_or_missing_file_is_named_and_the_rest_is_copied(
    stored: str, run, settings: Settings, tmp_path: Path
) -> None:
    first, second = sorted(path for path in (settings.data_dir / "blobs").rglob("*") if path.is_file())
    first.write_bytes(b"x" + first.read_bytes()[1:])
    code, _, err = run("backup", "--out", tmp_path / "copy")
    assert (code, "1 damaged" in err, first.name[:12] in err) == (1, True, True)
    assert [path.name for path in (tmp_path / "copy" / "blobs").rglob("*") if path.is_file()] == [second.name]
    first.unlink()
    code, _, err = run("backup", "--out", tmp_path / "copy")
    assert (code, "1 missing" in err, first.name[:12] in err) == (1, True, True)


def test_a_copy_that_rotted_is_found(stored: str, run, settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert run("backup", "--out", copy)[0] == 0
    blob = next(path for path in (copy / "blobs").rglob("*") if path.is_file())
    sound = blob.read_bytes()
    blob.write_bytes(sound[:-1])
    for command in (("backup", "--out", copy), ("restore", copy, "--data-dir", tmp_path / "again")):
        code, _, err = run(*command)
        assert (code, blob.name[:12] in err) == (1, True)
    blob.write_bytes(sound)
    (copy / "overread.sqlite3").write_bytes(b"SQLite format 3\x00" + b"rot" * 500)
    code, _, err = run("restore", copy, "--data-dir", tmp_path / "third")
    assert (code, "not a sound SQLite database" in err) == (1, True)


def test_nothing_is_overwritten_and_nothing_goes_nowhere(stored: str, run, settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert run("backup", "--out", copy)[0] == 0
    code, _, err = run("restore", copy)
    assert (code, "exists already" in err) == (1, True)
    code, _, err = run("restore", tmp_path / "nothing", "--data-dir", tmp_path / "again")
    assert (code, "is not what" in err) == (1, True)
    code, _, err = run("backup", "--out", settings.data_dir / "copy")
    assert (code, "lies in the data folder" in err) == (1, True)
    code, _, err = run("backup", "--out", copy, "--data-dir", tmp_path / "empty")
    assert (code, "holds no studies" in err) == (1, True)
    with sqlite3.connect(copy / "overread.sqlite3") as connection:  # the copy is a database like any other
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (1,)
