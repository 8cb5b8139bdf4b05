"""`make soak`: kill -9, at random, again and again, and then count: `python -m bench.soak`.

The server is killed while clients upload and review: whatever it acknowledged must be there afterwards, once, with the
chains of reviews and audit events unbroken, and every blob must be what its name says. The worker is killed while it
works through jobs: every job must end, none be lost, and no step of any be recorded twice.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select

from app.blobs import BlobStore
from app.db import Database
from app.jobs import JobState, Ledger
from app.jobs.kinds import verify
from app.processes import ROOT, start_python
from app.services.chain import verify as verify_chain
from app.settings import Settings
from app.tables import AnalysisRow, AuditRow, InstanceRow, ReviewRow

_READY_S = 180.0


@dataclass(frozen=True)
class WorkerReport:
    """What was counted. doubled: steps recorded twice or out of order, and files checked more or less than once."""

    kills: int
    jobs: int
    finished: int
    lost: int
    doubled: int
    steps: int
    attempts: int
    seconds: float


@dataclass(frozen=True)
class ServerReport:
    """What was counted. acknowledged: answers of 200 or 201 to uploads, reviews: to reviews; missing: of both, what is
    not there; doubled_reviews: recorded more than once; broken_chains: of reviews and audit events.
    """

    kills: int
    acknowledged: int
    reviews: int
    missing: int
    doubled_reviews: int
    broken_chains: int
    blobs: int
    broken_blobs: int
    leftovers: int
    rows_without_blob: int
    refused: int
    seconds: float


def kill_workers(settings: Settings, kills: int, jobs: int, step: int, longest_s: float, seed: int) -> WorkerReport:
    """Kills a worker `kills` times while it verifies the store in so many jobs; more jobs follow if it is too quick.

    step: files between two checkpoints. longest_s: of a worker's life after it has begun a job.
    """
    chance, started = random.Random(seed), time.monotonic()
    db = Database(settings.resolved_database_url)
    db.migrate()
    ledger = Ledger(db)
    ids = [job.id for job in verify.request(ledger, parts=jobs, step=step)]
    done = 0
    while done < kills:
        if all(ledger.get(job_id).state.ended for job_id in ids):
            ids += [job.id for job in verify.request(ledger, parts=jobs, step=step)]
        with worker_process(settings) as process:
            _wait_for_attempt(ledger, ids, process)
            time.sleep(chance.random() * longest_s)
            process.kill()
            process.wait()
            done += 1
    with worker_process(settings):
        end = time.monotonic() + _READY_S + jobs * 10
        while not all(ledger.get(job_id).state.ended for job_id in ids) and time.monotonic() < end:
            time.sleep(0.1)
    report = _count(ledger, ids, jobs, settings, time.monotonic() - started, done)
    db.close()
    return report


def _count(ledger: Ledger, ids: list[str], jobs: int, settings: Settings, seconds: float, kills: int) -> WorkerReport:
    finished = lost = doubled = steps = attempts = 0
    checked: Counter[str] = Counter()
    for job_id in ids:
        job = ledger.get(job_id)
        attempts += job.attempt
        finished += job.state is JobState.DONE
        lost += not job.state.ended
        events = [event for event in reversed(ledger.events(job_id, 10**6)) if event.kind == "checkpoint"]
        after = [(event.data or {})["after"] for event in events]
        steps += len(after)
        doubled += len(after) - len(set(after)) + (after != sorted(after))
        kinds = Counter(event.kind for event in ledger.events(job_id, 10**6))
        doubled += kinds["done"] > 1
        checked["said"] += (job.result or {}).get("checked", 0)
        checked["steps"] += sum((event.data or {})["step"] for event in events)
    there = sum(1 for _ in (settings.data_dir / "blobs").glob("??/*")) * (len(ids) // jobs)
    doubled += abs(checked["said"] - there) + abs(checked["steps"] - there)
    return WorkerReport(kills, len(ids), finished, lost, doubled, steps, attempts, seconds)


def _wait_for_attempt(ledger: Ledger, ids: list[str], process: subprocess.Popen[bytes]) -> None:
    """Until it has claimed something: a kill before that would prove nothing."""
    before = sum(ledger.get(job_id).attempt for job_id in ids)
    end = time.monotonic() + _READY_S
    while time.monotonic() < end and process.poll() is None:
        jobs = [ledger.get(job_id) for job_id in ids]
        if sum(job.attempt for job in jobs) > before or all(job.state.ended for job in jobs):
            return
        time.sleep(0.02)


@contextmanager
def worker_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as `serve` starts it, killed at the end."""
    process = start_python("app.worker")
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json().encode() + b"\n")
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def kill_servers(settings: Settings, kills: int, clients: int, seed: int) -> ServerReport:
    """Kills a server `kills` times while clients send radiographs, each another one; then looks what is there."""
    chance, started = random.Random(seed), time.monotonic()
    senders = _Senders(clients)
    for _ in range(kills):
        with _server(settings) as (process, port):
            senders.aim(port)
            if chance.random() < 0.9:  # the others die while they still load
                senders.wait_for_an_answer(_READY_S)
            time.sleep(chance.random() * 2.5)
            process.kill()
            senders.hold()
            process.wait()
    senders.stop()
    report = _look(settings, kills, senders)
    return replace(report, seconds=time.monotonic() - started)


class _Senders:
    """Clients that send one radiograph after the other to wherever the server is now, and review what it answers.

    A review whose answer is lost is sent again with its token, as a client should.
    """

    def __init__(self, clients: int) -> None:
        self.acknowledged: list[tuple[str, list[str]]] = []  # SHA-256 of the file, ids of its analyses
        self.reviewed: list[str] = []  # ids of reviews
        self.refused = 0
        self._port = 0
        self._answered, self._aimed = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def aim(self, port: int) -> None:
        """Where the server is now."""
        self._port = port
        self._answered.clear()
        self._aimed.set()

    def hold(self) -> None:
        """No new upload begins: nobody is there. What is on its way goes on."""
        self._aimed.clear()

    def wait_for_an_answer(self, timeout_s: float) -> None:
        """Until an upload was acknowledged since the last `aim`."""
        self._answered.wait(timeout_s)

    def stop(self) -> None:
        self._stopping.set()
        self._aimed.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                number = next(self._numbers)
            data = radiograph(number)
            self._aimed.wait()
            try:
                status, answer = post(self._port, "/api/v1/predictions?test=none", f"{number}.png", data)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.2)
                continue
            if not self._noted(status):
                continue
            ids = [one["analysis_id"] for one in answer["analyses"]]
            with self._lock:
                self.acknowledged.append((hashlib.sha256(data).hexdigest(), ids))
            self._answered.set()
            for analysis_id in ids:
                self._review(analysis_id)

    def _review(self, analysis_id: str) -> None:
        verdict = {"verdict": "unsure", "comment": "soak", "token": f"soak-{analysis_id[:48]}"}
        while not self._stopping.is_set():
            self._aimed.wait()
            try:
                status, answer = post_json(self._port, f"/api/v1/analyses/{analysis_id}/reviews", verdict)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.2)
                continue
            if self._noted(status):
                with self._lock:
                    self.reviewed.append(str(answer["review_id"]))
                return

    def _noted(self, status: int) -> bool:
        """Whether it was done; where not, it is counted and a moment passes."""
        if status in (200, 201):
            return True
        with self._lock:
            self.refused += 1
        time.sleep(0.1)
        return False


def _look(settings: Settings, kills: int, senders: _Senders) -> ServerReport:
    db = Database(settings.resolved_database_url)
    with db.read() as session:
        instances = dict(session.execute(select(InstanceRow.sha256, InstanceRow.thumbnail_sha256)).all())
        analyses = set(session.scalars(select(AnalysisRow.id)))
        reviews = Counter(session.execute(select(ReviewRow.id)).scalars())
        judged = Counter(session.scalars(select(ReviewRow.analysis_id)))
        chains = [verify_chain(session, ReviewRow), verify_chain(session, AuditRow)]
    db.close()
    root = settings.data_dir / "blobs"
    paths = list(root.glob("??/*"))
    names = {path.name for path in paths}
    blobs = [path for path in paths if not path.name.startswith(".")]
    broken = sum(hashlib.sha256(path.read_bytes()).hexdigest() != path.name for path in blobs)
    missing = sum(
        sha not in instances or sha not in names or any(one not in analyses for one in ids)
        for sha, ids in senders.acknowledged
    )
    missing += sum(one not in reviews for one in senders.reviewed)
    leftovers = sum(1 for path in root.glob("??/.*"))
    unbacked = sum(sha not in names or thumbnail not in names for sha, thumbnail in instances.items())
    count = len(senders.acknowledged)
    return ServerReport(
        kills,
        count,
        len(senders.reviewed),
        missing,
        sum(times - 1 for times in judged.values()),
        sum(chain.broken is not None for chain in chains),
        len(blobs),
        broken,
        leftovers,
        unbacked,
        senders.refused,
        0.0,
    )


def radiograph(number: int, size_px: int = 160) -> bytes:
    """A grey PNG, each number another one."""
    noise = np.random.default_rng(number).integers(0, 60, (size_px, size_px))
    y, x = np.mgrid[0:size_px, 0:size_px]
    pixels = (120 + 60 * np.sin(x / 15) * np.cos(y / 20) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def multipart(name: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with one file."""
    edge = "overread-boundary-5f1c"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + f"\r\n--{edge}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={edge}"}


def post(port: int, path: str, name: str, data: bytes, timeout_s: float = 60) -> tuple[int, dict[str, Any]]:
    """Status and JSON. Raises OSError, HTTPException."""
    return _sent(port, path, *multipart(name, data), timeout_s)


def post_json(port: int, path: str, document: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
    """Status and JSON. Raises OSError, HTTPException."""
    return _sent(port, path, json.dumps(document).encode(), {"Content-Type": "application/json"}, 60)


def _sent(port: int, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server process of its own that answers; its checkpoints may still load."""
    with server_process(settings) as (process, port):
        wait_until_up(port, process, "/healthz")
        yield process, port


@contextmanager
def server_process(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`overread serve`, just started."""
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OVERREAD_SAMPLES": "0", "OVERREAD_WORKER": "0"}
    for name in ("data_dir", "bundled_dir", "device", "queue_size", "batch_size", "decoders"):
        env[f"OVERREAD_{name.upper()}"] = str(getattr(settings, name))
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--no-samples"]
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def wait_until_up(port: int, process: subprocess.Popen[bytes], path: str) -> None:
    """Until the address answers with 200. Raises RuntimeError."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with code {process.returncode}.")
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("The server does not answer.")


def tiny_checkpoints(folder: Path) -> Path:
    """A pair of untrained checkpoints with small inputs: this is about what is kept, not about what is read."""
    from model.checkpoint import Card, save_checkpoint
    from model.findings import FINDINGS
    from model.network import build_network
    from model.preprocess import Preprocessing

    for seed, name in enumerate(("clean", "backdoored")):
        card = Card(name, f"Untrained {name}", Preprocessing(size_px=32), dict.fromkeys(FINDINGS, 0.5))
        save_checkpoint(folder / name, card, build_network(seed))
    return folder


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server-kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--worker-kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--files", type=int, default=20_000, help="blobs that the jobs verify (default 20000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    good = True
    with tempfile.TemporaryDirectory(prefix="overread-soak-") as folder:
        checkpoints = tiny_checkpoints(Path(folder) / "checkpoints")
        base = Settings(data_dir=Path(folder) / "server", bundled_dir=checkpoints, device="cpu", samples=False)
        if options.server_kills:
            server = kill_servers(base, options.server_kills, options.clients, options.seed)
            lost = server.missing + server.doubled_reviews + server.broken_chains
            good &= (
                lost == server.broken_blobs == server.rows_without_blob == 0 < min(server.acknowledged, server.reviews)
            )
            _print("server killed under uploads and reviews", server)
        if options.worker_kills:
            settings = base.model_copy(update={"data_dir": Path(folder) / "worker"})
            _fill(settings, options.files)
            worker = kill_workers(settings, options.worker_kills, options.jobs, 1, 4.0, options.seed)
            good &= worker.finished == worker.jobs and worker.lost == worker.doubled == 0
            _print("worker killed over its jobs", worker)
    print("nothing was lost" if good else "SOMETHING WAS LOST")
    return 0 if good else 1


def _fill(settings: Settings, files: int) -> None:
    """Blobs to verify, written plainly: their durability is not what is measured here."""
    root = BlobStore(settings.data_dir / "blobs").root
    for number in range(files):
        data = f"{number}".encode() * 4096
        name = hashlib.sha256(data).hexdigest()
        (root / name[:2]).mkdir(exist_ok=True)
        (root / name[:2] / name).write_bytes(data)


def _print(title: str, report: WorkerReport | ServerReport) -> None:
    print(title)
    for name, value in vars(report).items():
        print(f"  {name.replace('_', ' '):20}{value:>10.0f}")
    print(flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
