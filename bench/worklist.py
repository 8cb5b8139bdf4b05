"""The worklist with 100,000 studies: server time of its pages over real routing and templates, and the memory it takes.

`python -m bench.worklist [--studies N] [--rounds N]`. No checkpoint is loaded and no analysis is there: a list opens
none. Times are of the whole request through the application, without a network; the first page of a small list is
measured in the same rounds, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import insert

from app.context import Services
from app.main import create_app
from app.services.search import words_of
from app.services.worklist import Filters
from app.settings import Settings
from app.tables import StudyRow
from model.findings import FINDINGS

P95_MS = 100.0
_FAMILIES = ("Doe", "Smith", "Garcia", "Müller", "Li", "Okafor", "Haddad", "Ivanova", "Nguyen", "Silva")
_GIVEN = ("Jane", "John", "Maria", "Hans", "Wei", "Ada", "Omar", "Olga", "Linh", "Pedro")
_START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(services: Services, count: int, seed: int = 0) -> None:
    """Rows as a hospital's year would leave them: most read, few flagged, some claimed."""
    draw = random.Random(seed)
    pair = services.live_pair().key
    words: list[tuple[str, object]] = []
    with services.db.write() as session:
        for start in range(0, count, 5000):
            batch = [_row(number, draw, pair) for number in range(start, min(start + 5000, count))]
            session.execute(insert(StudyRow), batch)
            words += [(word, row["id"]) for row in batch for word in _words(row)]
        words.sort(key=lambda one: one[0])  # an index grows fastest at its end
        driver = session.connection()
        for start in range(0, len(words), 50_000):
            driver.exec_driver_sql("INSERT INTO study_words VALUES (?, ?)", words[start : start + 50_000])
        driver.exec_driver_sql("ANALYZE")


def _words(row: dict[str, object]) -> list[str]:
    known = ("title", "id", "patient_id", "patient_name", "description", "study_instance_uid")
    return words_of(str(row[key]) for key in known)


def _row(number: int, draw: random.Random, pair: str) -> dict[str, object]:
    key = f"{draw.getrandbits(128):032x}"
    name, patient = f"{draw.choice(_FAMILIES)} {draw.choice(_GIVEN)}", f"{draw.randrange(10**7):07d}"
    uid = f"1.2.826.0.1.3680043.8.498.{draw.getrandbits(96)}"
    flag = draw.choices((None, "no_evidence", "suspicious", "causal"), (60, 38, 1.5, 0.5))[0]
    differs = draw.random() < 0.08
    status = draw.choices(("read", "in_progress", "unread"), (90, 2, 8))[0]
    title = f"{number:08d}_000.dcm"
    strength = (None, "not_calibrated", "no_evidence", "suspicious", "causal").index(flag)
    return {
        "id": key,
        "study_instance_uid": uid,
        "patient_id": patient,
        "patient_name": name,
        "study_date": date(2026, 1, 1) + timedelta(days=number // 300),
        "description": "Chest PA and lateral",
        "title": title,
        "format": "DICOM",
        "thumbnail_sha256": "0" * 64,
        "instance_count": 1,
        "source": "api",
        "received_at": _START + timedelta(minutes=5 * number),
        "status": status,
        "claimed_by": None if status == "unread" else draw.choice(("local", "ada", "omar")),
        "summary_pair": pair,
        "reference_positives": 0,
        "candidate_positives": 1,
        "candidate_finding": draw.choice(FINDINGS),
        "candidate_probability": draw.random(),
        "disagreement": differs,
        "flag": flag,
        "priority": 2 * max(strength - 1, 0) + differs,
    }


def measure(client: TestClient, path: str, rounds: int) -> list[float]:
    """Milliseconds of each of `rounds` requests, sorted."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        answer = client.get(path)
        times.append((time.perf_counter() - start) * 1000)
        assert answer.status_code == 200, (path, answer.text[:300])
    return sorted(times)


def deep_cursor(client: TestClient, sort: str, pages: int) -> str:
    """The cursor after so many pages of 500."""
    cursor = ""
    for _ in range(pages):
        query = f"limit=500&sort={sort}" + (f"&cursor={cursor}" if cursor else "")
        cursor = client.get(f"/api/v1/studies?{query}").json()["next_cursor"] or cursor
    return cursor


def _served(folder: str) -> tuple[Services, TestClient]:
    empty = Path(folder) / "none"
    settings = Settings(data_dir=Path(folder) / "data", bundled_dir=empty, device="cpu", samples=False)
    services = Services(settings)
    return services, TestClient(create_app(settings, services), base_url="http://127.0.0.1")


def main(arguments: list[str] | None = None) -> None:
    """Prints the table, and the export's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        few, small_client = _served(small)
        many, client = _served(large)
        with small_client, client:
            fill(few, 60)
            start = time.perf_counter()
            fill(many, options.studies)
            print(f"{platform.machine()}, {os.cpu_count()} cores, SQLite; {options.studies:,} studies", end="")
            print(f" filled in {time.perf_counter() - start:.0f} s; {options.rounds} rounds; milliseconds")
            newest, flagged = deep_cursor(client, "received", 150), deep_cursor(client, "priority", 150)
            pages = {
                "first page": "/",
                "deep page": f"/?cursor={newest}",
                "flagged first": "/?sort=priority",
                "flagged first, deep": f"/?sort=priority&cursor={flagged}",
                "filter: causal": "/?flag=causal",
                "filter: unread": "/?status=unread",
                "unread, flagged first": "/?status=unread&sort=priority",
                "filter: differs": "/?disagreement=yes",
                "rare: causal, in progress, differs": "/?flag=causal&status=in_progress&disagreement=yes",
                "nothing: not calibrated, unread": "/?flag=not_calibrated&status=unread",
                "reader, flagged first": "/?claimed=ada&sort=priority",
                "search, many hits": "/?q=garcia",
                "search, two common words": "/?q=garcia+jane",
                "search, all but one word hit": "/?q=chest+garcia+smith",
                "search and reader, flagged first": "/?q=garcia&claimed=omar&sort=priority",
                "search, one hit": "/?q=00000007_000",
                "search, no hit": "/?q=nobody+here",
                "search, no hit, unread": "/?q=nobody&status=unread",
                "search, no hit, read": "/?q=nobody&status=read",
                "search, no hit, flagged first": "/?q=nobody&sort=priority",
            }
            base = measure(small_client, "/", options.rounds)
            middle = base[len(base) // 2]
            print(f"{'page':36} {'p50':>7} {'p95':>7}  of the small list's")
            print(f"{'first page of 60 studies':36} {middle:7.1f} {base[int(len(base) * 0.95) - 1]:7.1f}")
            worst = 0.0
            for name, path in pages.items():
                times = measure(client, path, options.rounds)
                p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95) - 1]
                worst = max(worst, p95)
                print(f"{name:36} {p50:7.1f} {p95:7.1f}  {p50 / middle:.2f}×")
            print(f"worst p95 {worst:.1f} ms: {'within' if worst < P95_MS else 'OVER'} {P95_MS:.0f} ms")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            rows = sum(1 for _ in many.studies.every(Filters(), "local"))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"streamed {rows:,} studies; peak memory grew by {(after - before) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
