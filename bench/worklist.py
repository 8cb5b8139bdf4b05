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
from sqlalchemy import insert, select

from app.context import Services
from app.main import create_app
from app.services.search import words_of
from app.services.users import LOCAL
from app.services.worklist import Filters
from app.settings import Settings
from app.tables import InstanceRow, ReadFirstRow, ReviewRow, StudyReaderRow, StudyRow
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
    said: list[str] = []
    with services.db.write() as session:
        for start in range(0, count, 5000):
            batch = [_row(number, draw, pair) for number in range(start, min(start + 5000, count))]
            session.execute(insert(StudyRow), batch)
            session.execute(insert(InstanceRow), [_image(str(row["id"]), row["received_at"]) for row in batch])
            said += [str(row["id"]) for row in batch if row["claimed_by"] == "local" and row["status"] == "read"]
            words += [(word, row["id"]) for row in batch for word in _words(row)]
        session.execute(insert(ReviewRow), [_review(number, image) for number, image in enumerate(said, 1)])
        session.execute(insert(StudyReaderRow), [{"study_id": key, "reader_id": "local"} for key in said])
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


def _image(key: str, received_at: object) -> dict[str, object]:
    """The one image of a study, by the study's id."""
    return {
        "id": key,
        "sha256": key * 2,
        "name": "image.dcm",
        "format": "DICOM",
        "size_bytes": 1,
        "width_px": 1,
        "height_px": 1,
        "warnings": [],
        "thumbnail_sha256": "0" * 64,
        "received_at": received_at,
        "study_id": key,
        "predicted": True,
    }


def _review(number: int, image: str) -> dict[str, object]:
    """Something that `local` said of an image; its seal is none."""
    key = f"{number:032x}"
    return {
        "sequence": number,
        "id": key,
        "kind": "unaided",
        "instance_id": image,
        "subject": image,
        "reader_id": "local",
        "at": "",
        "document": "{}",
        "previous_hash": f"{number - 1:064x}",
        "hash": f"{number:064x}",
    }


def lock(services: Services, studies: int) -> None:
    """Asks for an unaided reading of the newest studies that `local` has said nothing of."""
    unsaid = select(InstanceRow.id).where(InstanceRow.id.not_in(select(ReviewRow.instance_id)))
    with services.db.write() as session:
        ids = session.scalars(unsaid.order_by(InstanceRow.received_at.desc()).limit(studies)).all()
        session.execute(insert(ReadFirstRow), [{"instance_id": key} for key in ids])


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


def _table(client: TestClient, pages: dict[str, str], rounds: int, middle: float) -> float:
    """Prints a line a page; the worst p95 in milliseconds."""
    worst = 0.0
    for name, path in pages.items():
        times = measure(client, path, rounds)
        p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95) - 1]
        worst = max(worst, p95)
        print(f"{name:36} {p50:7.1f} {p95:7.1f}  {p50 / middle:.2f}×")
    return worst


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
                "filter: no evidence": "/?flag=no_evidence",
                "reader, no evidence": "/?flag=no_evidence&claimed=ada",
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
            worst = _table(client, pages, options.rounds, middle)
            lock(many, 20)
            print("with 20 studies to be read first")
            worst = max(worst, _table(client, pages, options.rounds, middle))
            many.read_first.always = True
            print("with every study to be read first")
            worst = max(worst, _table(client, pages, options.rounds, middle))
            print(f"worst p95 {worst:.1f} ms: {'within' if worst < P95_MS else 'OVER'} {P95_MS:.0f} ms")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            rows = sum(1 for _ in many.studies.worklist.every(Filters(), LOCAL))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"streamed {rows:,} studies; peak memory grew by {(after - before) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
