"""The ledger and the worker, with real databases and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import app.settings
import model.checkpoint
from app.blobs import BlobStore
from app.db import Database
from app.jobs import JobState, Ledger, Progress, StaleAttempt
from app.jobs.child import run_attempt
from app.jobs.kinds import reanalyse, verify
from app.jobs.lock import DispatcherLock
from app.services.errors import BusyError, NotFoundError
from app.services.unread import unread
from app.settings import Settings
from bench.soak import kill_workers, worker_process
from tests.app.conftest import png_bytes, started
from tests.app.test_scan import Unlucky


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    opened = Database(settings.resolved_database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return Ledger(db)


def until(done: Callable[[], object], limit_s: float = 180) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def kinds_of_events(ledger: Ledger, job_id: str) -> list[str]:
    return [event.kind for event in reversed(ledger.events(job_id, 10_000))]


def test_the_way_of_a_job(ledger: Ledger) -> None:
    job = ledger.enqueue("verify", {"part": 0, "parts": 1})
    assert job.state is JobState.QUEUED and job.attempt == 0
    claimed = ledger.claim()
    assert claimed is not None and (claimed.id, claimed.attempt) == (job.id, 1)
    assert ledger.claim() is None
    assert not ledger.beat(job.id, 1, Progress(1, 3, "files"))
    ledger.checkpoint(job.id, 1, {"after": "x"}, Progress(2, 3, "files"))
    ledger.finish(job.id, 1, {"checked": 3})
    done = ledger.get(job.id)
    assert (done.state, done.result, done.progress) == (JobState.DONE, {"checked": 3}, Progress(2, 3, "files"))
    assert kinds_of_events(ledger, job.id) == ["queued", "claimed", "checkpoint", "done"]
    assert ledger.counts()[JobState.DONE] == 1
    with pytest.raises(NotFoundError):
        ledger.get("nothing")


def test_a_stale_attempt_cannot_write(ledger: Ledger) -> None:
    job = ledger.enqueue("verify", {})
    ledger.claim()
    assert ledger.put_back_lost("gone") == [job.id]
    assert ledger.claim().attempt == 2  # type: ignore[union-attr]
    for write in (
        lambda: ledger.beat(job.id, 1, None),
        lambda: ledger.checkpoint(job.id, 1, {"stale": True}, None),
        lambda: ledger.finish(job.id, 1, {"stale": True}),
    ):
        with pytest.raises(StaleAttempt):
            write()
    assert not ledger.fail(job.id, 1, "stale") and not ledger.cancelled(job.id, 1)
    ledger.put_back(job.id, 1, "stale")
    now = ledger.get(job.id)
    assert (now.state, now.attempt, now.checkpoint, now.result) == (JobState.RUNNING, 2, None, None)
    assert kinds_of_events(ledger, job.id) == ["queued", "claimed", "lost", "claimed"]


def test_many_claim_and_each_job_is_had_once(ledger: Ledger) -> None:
    ids = {ledger.enqueue("verify", {"n": n}).id for n in range(24)}

    def claim_all(_: int) -> list[str]:
        mine = []
        while (job := ledger.claim()) is not None:
            mine.append(job.id)
        return mine

    with ThreadPoolExecutor(4) as pool:
        had = [one for claimed in pool.map(claim_all, range(4)) for one in claimed]
    assert len(had) >= 20 and len(had) == len(set(had))  # a lost race may leave some for the next turn
    had += claim_all(0)
    assert sorted(had) == sorted(ids)


def test_order_and_uniqueness(ledger: Ledger) -> None:
    low = ledger.enqueue("verify", {}, priority=-1)
    first = ledger.enqueue("verify", {}, unique_key="a", sweep_id="s")
    second = ledger.enqueue("verify", {}, unique_key="b", sweep_id="s")
    urgent = ledger.enqueue("verify", {}, priority=5)
    assert ledger.enqueue("verify", {}, unique_key="a").id == first.id
    assert [ledger.claim().id for _ in range(4)] == [urgent.id, first.id, second.id, low.id]  # type: ignore[union-attr]
    assert {job.id for job in ledger.active("verify")} == {urgent.id, first.id, second.id, low.id}
    ledger.finish(first.id, 1, {})
    assert ledger.enqueue("verify", {}, unique_key="a").state is JobState.DONE
    ledger.fail(second.id, 1, "broken", final=True)
    assert [job.id for job in ledger.active("verify")] == [low.id, urgent.id] and ledger.active("scan") == []
    again = ledger.enqueue("verify", {}, unique_key="b")
    assert (again.id, again.state, again.failures) == (second.id, JobState.QUEUED, 0)


def test_failures_are_retried_with_their_reason_then_final(ledger: Ledger) -> None:
    job = ledger.enqueue("verify", {}, max_attempts=2)
    ledger.claim()
    assert ledger.fail(job.id, 1, "the first reason")
    assert ledger.get(job.id).error == "the first reason" and ledger.claim() is None  # it waits a while
    until(lambda: ledger.claim() is not None, 10)
    assert ledger.fail(job.id, 2, "the second")
    failed = ledger.get(job.id)
    assert (failed.state, failed.error, failed.failures) == (JobState.FAILED, "the second", 2)
    assert kinds_of_events(ledger, job.id) == ["queued", "claimed", "retry", "claimed", "failed"]
    assert ledger.retry(job.id).state is JobState.QUEUED and ledger.claim() is not None


def test_cancel_while_waiting_running_and_ended(ledger: Ledger) -> None:
    job = ledger.enqueue("verify", {})
    assert ledger.cancel(job.id).state is JobState.CANCELLED and ledger.claim() is None
    job = ledger.enqueue("verify", {})
    ledger.claim()
    assert ledger.cancel(job.id).cancel_requested and ledger.cancel(job.id).state is JobState.RUNNING
    assert ledger.beat(job.id, 1, None)
    assert ledger.cancelled(job.id, 1)
    assert kinds_of_events(ledger, job.id) == ["queued", "claimed", "cancelling", "cancelled"]
    assert ledger.cancel(job.id).state is JobState.CANCELLED
    job = ledger.enqueue("verify", {})  # its worker dies before it could obey
    ledger.claim()
    ledger.cancel(job.id)
    ledger.put_back_lost("gone")
    assert ledger.get(job.id).state is JobState.CANCELLED


def test_only_one_dispatches(db: Database, settings: Settings) -> None:
    one, other = DispatcherLock(db, settings.data_dir), DispatcherLock(db, settings.data_dir)
    assert one.acquire() and one.held() and not other.acquire()
    one.release()
    assert other.acquire() and not one.held()
    other.release()


def blobs_in(settings: Settings, count: int) -> BlobStore:
    store = BlobStore(settings.data_dir / "blobs")
    for n in range(count):
        store.put(f"blob {n}".encode())
    return store


def test_a_worker_needs_no_torch() -> None:
    modules = "app.worker, app.jobs.child, app.jobs.kinds.verify, app.decoding.child"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr
    assert app.settings.BUNDLED == model.checkpoint.BUNDLED


def test_a_worker_runs_jobs_and_damage_is_found(settings: Settings, ledger: Ledger) -> None:
    store = blobs_in(settings, 9)
    victim = sorted((settings.data_dir / "blobs").glob("??/*"))[4]
    victim.write_bytes(b"other bytes")
    jobs = verify.request(ledger, parts=2, step=2)
    broken = ledger.enqueue("nonsense", {}, max_attempts=1)
    with worker_process(settings):
        until(lambda: all(ledger.get(job.id).state.ended for job in [*jobs, broken]))
    results = [ledger.get(job.id).result for job in jobs]
    assert sum(result["checked"] for result in results) == 9  # type: ignore[index]
    assert [name for result in results for name in result["damaged"]] == [victim.name]  # type: ignore[index]
    failed = ledger.get(broken.id)
    assert failed.state is JobState.FAILED and "no job of the kind" in (failed.error or "")
    assert store.root.is_dir()


def slow_job(ledger: Ledger, settings: Settings) -> str:
    """One that does nothing for long: a named pipe where a blob is expected, which nobody writes to."""
    folder = settings.data_dir / "blobs" / "00"
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / ("0" * 64))
    return verify.request(ledger)[0].id


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_cancel_ends_even_a_job_that_does_not_listen(settings: Settings, ledger: Ledger) -> None:
    job_id = slow_job(ledger, settings)
    with worker_process(settings) as process:
        until(lambda: ledger.get(job_id).state is JobState.RUNNING and children_of(process.pid))
        child = children_of(process.pid)[0]
        time.sleep(1)
        start = time.monotonic()
        ledger.cancel(job_id)
        until(lambda: ledger.get(job_id).state is JobState.CANCELLED, 10)
        assert time.monotonic() - start <= 5
        until(lambda: not alive(child), 2)
        assert children_of(process.pid) == []


def test_a_job_dies_with_its_worker_and_is_not_lost(settings: Settings, ledger: Ledger) -> None:
    job_id = slow_job(ledger, settings)
    with worker_process(settings) as process:
        until(lambda: ledger.get(job_id).state is JobState.RUNNING and children_of(process.pid))
        child = children_of(process.pid)[0]
        process.kill()
        until(lambda: not alive(child), 3)
    (settings.data_dir / "blobs" / "00" / ("0" * 64)).unlink()
    with worker_process(settings):
        until(lambda: ledger.get(job_id).state is JobState.DONE)
    assert ledger.get(job_id).attempt >= 2 and ledger.get(job_id).failures == 0
    assert "lost" in kinds_of_events(ledger, job_id)


def test_a_crash_of_the_job_is_told_with_its_signal(settings: Settings, ledger: Ledger) -> None:
    job_id = slow_job(ledger, settings)
    with worker_process(settings) as process:
        until(lambda: ledger.get(job_id).state is JobState.RUNNING and children_of(process.pid))
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        until(lambda: ledger.get(job_id).failures == 1)
    assert "signal 9" in (ledger.get(job_id).error or "")


def test_kills_at_random_lose_nothing_and_double_nothing(settings: Settings, ledger: Ledger) -> None:
    """The small sister of `make soak`."""
    blobs_in(settings, 60)
    report = kill_workers(settings, kills=4, jobs=3, step=1, longest_s=1.5, seed=1)
    assert report.finished == report.jobs and report.lost == 0 and report.doubled == 0
    assert report.kills == 4


def test_reanalysis_reads_what_the_pair_has_not_read(settings: Settings) -> None:
    with started(settings) as client:
        services = client.app.state.services  # type: ignore[attr-defined]
        services.background.stop()  # which would read them before the job does
        received = [services.studies.receive(png_bytes(seed), f"{seed}.png").instance_id for seed in range(4)]
        services.analyses.analyse(received[3])
        jobs = reanalyse.request(services.jobs, services.engine, settings.pair)
        assert [len(job.spec["instances"]) for job in jobs] == [3]
        assert reanalyse.request(services.jobs, services.engine, settings.pair)[0].id == jobs[0].id
        page = client.get("/jobs").text
        assert "Read the worklist again" in page and 'hx-trigger="every 2s"' in page
        for received_one, name in zip(received[:3], ("0.png", "1.png", "2.png"), strict=True):
            assert f'<a href="/studies/{received_one}">{name}</a>' in page  # what the job is about
        assert received[3] not in page and "and others" not in page
        claimed = services.jobs.claim()
        run_attempt(services.jobs, claimed.id, claimed.attempt, settings)  # as a worker's child does
        assert services.jobs.get(jobs[0].id).result == {"read": 3, "refused": {}}
        studies = client.get("/api/v1/studies").json()["studies"]
        assert len(studies) == 4 and all(one["reference"] and one["candidate"] for one in studies)
        assert reanalyse.request(services.jobs, services.engine, settings.pair) == []
        assert unread(services.db, ["another"], seen=True) == received[::-1] and unread(services.db, []) == []
        said = client.post("/jobs", data={"kind": "reanalyse"}).text
        assert "has been read by the present pair already" in said


class Noted:
    """A job's context that remembers its last checkpoint."""

    def __init__(self, settings: Settings, resumed: Mapping[str, Any] | None = None) -> None:
        self.settings, self.resumed = settings, resumed

    def report(self, done: int, total: int, note: str = "") -> None: ...

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        self.resumed = json.loads(json.dumps(state))

    def cancelled(self) -> bool:
        return False


def test_reanalysis_leaves_what_the_machine_had_trouble_with_to_the_next_attempt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(settings) as client:
        services = client.app.state.services  # type: ignore[attr-defined]
        services.background.stop()
        received = [services.studies.receive(png_bytes(seed), f"{seed}.png").instance_id for seed in range(2)]
    spec = {"checkpoints": ["clean"], "instances": received}
    context = Noted(settings)
    with monkeypatch.context() as patch:
        patch.setattr("app.jobs.analysing.Decoder", lambda *_: Unlucky("0.png", 2))
        with pytest.raises(BusyError, match="1 of 2 could not be read for now"):
            reanalyse.run(spec, context)
    assert context.resumed is not None and list(context.resumed["later"]) == received[:1]
    assert reanalyse.run(spec, context) == {"read": 2, "refused": {}}


def test_a_job_of_many_studies_names_some(client: TestClient) -> None:
    services = client.app.state.services  # type: ignore[attr-defined]
    services.background.stop()
    received = [services.studies.receive(png_bytes(seed), f"{seed}.png").instance_id for seed in range(5)]
    services.jobs.enqueue("reanalyse", {"checkpoints": [], "instances": received})
    page = client.get("/jobs").text
    assert page.count('<a href="/studies/') == 3 and "</a> and others" in page


def test_the_page_says_what_an_interruption_costs(client: TestClient) -> None:
    page = " ".join(client.get("/jobs").text.split())
    assert "goes on from where it was" in page and "only a calibration begins anew" in page
    ledger = client.app.state.services.jobs  # type: ignore[attr-defined]
    spec = {"checkpoint": "clean", "dataset": ""}
    ledger.enqueue("calibrate", spec)
    for _ in range(2):
        ledger.put_back_lost("the worker is gone")
        ledger.claim()
    assert "begun 2 times, each time anew" in client.get("/jobs").text
    ledger.enqueue("verify", {})
    for _ in range(2):
        ledger.put_back_lost("the worker is gone")
        ledger.claim(["verify"])
    page = client.get("/jobs").text
    assert "begun 2 times</span>" in page
    assert '<a href="/calibration?checkpoint=clean">clean on phantoms</a>' in page


def test_jobs_over_http(client: TestClient) -> None:
    empty = client.get("/jobs").text
    assert "Nothing to do" in empty and "hx-trigger" not in empty
    started_one = client.post("/jobs", data={"kind": "verify"})
    assert started_one.status_code == 303 and started_one.headers["location"] == "/jobs"
    ledger = client.app.state.services.jobs  # type: ignore[attr-defined]
    job_id = ledger.newest(1)[0].id
    shown = client.get(f"/api/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["kind"], shown["progress"]) == ("queued", "verify", None)
    assert datetime.fromisoformat(shown["created_at"]).tzinfo is not None
    assert "every 2s" in client.get("/jobs", headers={"HX-Request": "true"}).text
    cancelled = client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert cancelled.status_code == 200 and cancelled.json()["state"] == "cancelled"
    fragment = client.get("/jobs", headers={"HX-Request": "true"}).text
    assert "Try again" in fragment and "hx-trigger" not in fragment and "<html" not in fragment
    assert client.post(f"/jobs/{job_id}/retry").status_code == 303
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 303
    missing = client.get("/api/v1/jobs/none")
    assert missing.status_code == 404 and missing.json()["code"] == "unknown_job"
    assert client.post("/jobs", data={"kind": "rm"}).status_code == 422
    ledger.claim()
    ledger.enqueue("verify", {})
    ledger.claim()
    job = ledger.newest(1)[0]
    ledger.beat(job.id, job.attempt, Progress(3, 10, "files"))
    page = client.get("/jobs").text
    assert "3 of 10 files" in page and json.dumps(job.id[:8])[1:-1] in page
