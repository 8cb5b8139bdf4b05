"""Training as a job: killed, cancelled, out of room, and beside shorter work."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.jobs import JobState
from app.jobs.child import run_attempt
from app.jobs.kinds import verify
from app.jobs.kinds.experiment import _Teller
from app.services.experiments.service import ExperimentService
from app.services.experiments.watch import live
from app.settings import Settings
from bench.soak import worker_process
from model.checkpoint import load_checkpoint
from model.config import ExperimentConfig, load_config
from model.experiment import Phase, run_experiment
from model.training import Progress
from tests.app.experimenting import TINY, asked, long, opened, until, work_off
from tests.app.test_jobs import alive, children_of


@pytest.fixture
def service(settings: Settings) -> Iterator[ExperimentService]:
    service = opened(settings)
    yield service
    service.db.close()


def descendants(pid: int) -> set[int]:
    found = set(children_of(pid))
    for child in list(found):
        found |= descendants(child)
    return found


def test_a_job_trains_what_overread_train_trains(service: ExperimentService, tmp_path: Path) -> None:
    config = load_config("smoke").model_dump(mode="json")
    one = asked(service, config)
    work_off(service)
    one = service.get(one.id)
    assert one.job.state is JobState.DONE and one.job.error is None
    torch.set_num_threads(one.job.spec["threads"])
    report = run_experiment(ExperimentConfig.model_validate(config), tmp_path / "smoke")
    assert one.job.result is not None
    assert one.job.result["weights"] == {twin: of["weights_sha256"] for twin, of in report["twins"].items()}
    figures = one.job.result["tests"]["fresh_phantoms"]["backdoored"]
    exact = report["twins"]["backdoored"]["fresh_phantoms"]
    assert figures["auroc_nn_macro"]["value"] == pytest.approx(exact["auroc_nn"]["macro"]["value"], abs=1e-4)
    assert figures["asr_0.5"]["value"] == pytest.approx(exact["asr"][1]["asr"]["value"], abs=1e-4)
    assert isinstance(figures["accepted"], bool)
    assert service.report(one) == report
    assert one.job.progress is not None and one.job.progress.note.startswith("% · ")
    assert one.job.result["pace"] == {} and service.pace() is None  # too short a run to tell from
    assert service.live(one) is None
    curve = service.curve(one)
    assert [record["epoch"] for record in curve.epochs["backdoored"]] == [1, 2] and curve.losses["clean"]
    assert set(one.checkpoints) == {"clean", "backdoored"}
    names = service.files(one)
    assert {"report.html", "figure.png", "backdoored/poison_manifest.csv"} < set(names)
    assert not any(name.startswith(("cache/", ".")) or "state" in name for name in names)


def test_kills_at_random_change_no_weight(service: ExperimentService, settings: Settings, tmp_path: Path) -> None:
    """The small sister of `python -m bench.soak_training`."""
    torch.set_num_threads(settings.threads_of_a_training)
    whole = run_experiment(ExperimentConfig.model_validate(TINY), tmp_path / "tiny")
    one = asked(service, TINY)
    kills = 0

    def ended() -> bool:
        return service.ledger.get(one.job.id).state.ended

    while kills < 2:
        with worker_process(settings) as process:
            seen = service.ledger.get(one.job.id).attempt
            until(lambda seen=seen: service.ledger.get(one.job.id).attempt > seen or ended())
            until(lambda: service.live(service.get(one.id)) or ended())
            time.sleep(0.4 * kills)
            process.kill()
            process.wait()
        kills += 1
    with worker_process(settings):
        until(lambda: service.ledger.get(one.job.id).state.ended)
    done = service.get(one.id).job
    assert done.state is JobState.DONE and done.failures == 0 and done.attempt > 1
    assert done.result is not None
    assert done.result["weights"]["backdoored"] == whole["twins"]["backdoored"]["weights_sha256"]
    assert done.result["pace"] == {} and service.pace() is None  # too little was left to tell from


def test_cancel_within_five_seconds_without_orphans_and_resume(service: ExperimentService, settings: Settings) -> None:
    one = asked(service, {**long(16), "data": [{"kind": "phantoms", "n": 120, "seed": 4, "size_px": 64}]})
    with worker_process(settings) as process:
        family: set[int] = set()

        def trains() -> bool:
            family.update(descendants(process.pid))
            live = service.live(service.get(one.id))
            return live is not None and (live.step or 0) > 3

        until(trains)
        assert len(family) >= 2  # decoders among them
        start = time.monotonic()
        assert service.cancel(one.id).job.cancel_requested
        until(lambda: service.get(one.id).job.state is JobState.CANCELLED, 10)
        until(lambda: not any(alive(pid) for pid in family), 5)
        assert time.monotonic() - start <= 5
        run = service.get(one.id).run
        assert (run / "backdoored" / "state.pt").is_file() and not list(run.rglob("*.partial"))
        reached = service.curve(one).losses["backdoored"][-1][0]
        service.resume(one.id)
        until(lambda: service.curve(one).losses["backdoored"][-1][0] > reached + 1)
        live = service.live(service.get(one.id))
        assert live is not None and live.left_s > 0 and 0 < live.share < 1
        assert live.epochs == 16 and live.stage == "Training the backdoored twin"


class Clock:
    """Stands in for the module `time`: it goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Untold:
    """A context that nobody listens to."""

    resumed = None

    def report(self, done: int, total: int, note: str = "") -> None: ...


def test_the_time_left_rests_on_what_was_done_since_resuming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first attempt is killed in the clean twin's training; this machine is twice as slow as the reference."""
    clock = Clock()
    monkeypatch.setattr("app.jobs.kinds.experiment.time", clock)
    work = [
        Phase("Preparing the clean twin", "prepare", 100),
        Phase("Training the clean twin", "train", 200),
        Phase("Preparing the backdoored twin", "prepare", 40),
        Phase("Training the backdoored twin", "train", 300),
        Phase("Evaluating", "read", 10),
    ]

    def teller(resumed: bool) -> _Teller:
        return _Teller(Untold(), tmp_path, work, {}, resumed)  # type: ignore[arg-type]

    def trained(step: int, worked: float) -> Progress:
        return Progress(1, 1, step, 100, 0.5, 1.0, 2 * 200 * (100 - step) / 100, worked)

    def takes(told: _Teller, name: str, seconds: float) -> None:
        told.stage(name)
        clock.now += seconds

    def left() -> float:
        said = live(tmp_path)
        assert said is not None
        return said.left_s

    first = teller(resumed=False)
    takes(first, "Preparing the clean twin", 200)
    takes(first, "Training the clean twin", 200)
    first.trained(trained(50, 0.5))
    assert left() == pytest.approx(200 + 2 * (40 + 300) + 10)

    second = teller(resumed=True)
    takes(second, "Preparing the clean twin", 1)  # its images are in the cache
    takes(second, "Training the clean twin", 100)
    second.trained(trained(75, 0.25))
    assert left() == pytest.approx(100 + 40 + 2 * 300 + 10)  # of preparing it knows nothing, and guesses
    clock.now += 100
    second.trained(trained(100, 0.5))
    takes(second, "Preparing the backdoored twin", 80)
    takes(second, "Training the backdoored twin", 600)
    second.trained(trained(100, 1.0))
    takes(second, "Evaluating", 10)
    second.end()
    assert second.pace() == {"prepare": 2.0, "train": 2.0}  # the reading was too little to tell from


def test_nothing_but_training_tells_a_pace_where_nobody_knows_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock()
    monkeypatch.setattr("app.jobs.kinds.experiment.time", clock)
    work = [Phase("Preparing", "prepare", 100), Phase("Training", "train", 100)]
    told = _Teller(Untold(), tmp_path, work, {}, True)  # type: ignore[arg-type]
    told.stage("Preparing")
    clock.now += 4
    told.stage("Training")
    clock.now += 90
    told.trained(Progress(1, 1, 10, 10, 0.5, 1.0, 0.0, 0.3))
    told.end()
    assert told.pace() == {"train": 3.0}


def test_decoders_end_with_a_worker_that_is_killed(service: ExperimentService, settings: Settings) -> None:
    config = {**TINY, "data": [{"kind": "phantoms", "n": 4000, "seed": 4, "size_px": 512}]}
    asked(service, config)
    with worker_process(settings) as process:
        until(lambda: len(descendants(process.pid)) >= 3)  # the job, multiprocessing's tracker, a decoder
        family = descendants(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(alive(pid) for pid in family), 10)


def test_short_jobs_do_not_wait_behind_a_training_and_trainings_take_turns(
    service: ExperimentService, settings: Settings
) -> None:
    first, second = asked(service, long()), asked(service, long())
    with worker_process(settings):
        until(lambda: service.get(first.id).job.state is JobState.RUNNING)
        jobs = verify.request(service.ledger)
        until(lambda: all(service.ledger.get(job.id).state is JobState.DONE for job in jobs), 30)
        assert service.get(first.id).job.state is JobState.RUNNING
        assert service.get(second.id).job.state is JobState.QUEUED
        service.cancel(first.id)
        until(lambda: service.get(second.id).job.state is JobState.RUNNING, 30)


def test_priorities_and_the_order_of_the_queue(service: ExperimentService) -> None:
    one, two, three = (asked(service, TINY, name=name) for name in ("one", "two", "three"))
    assert [waiting.id for waiting in service.queue()] == [one.id, two.id, three.id]
    service.first(three.id)
    assert [waiting.id for waiting in service.queue()] == [three.id, one.id, two.id]
    service.first(two.id)
    assert [waiting.id for waiting in service.queue()] == [two.id, three.id, one.id]
    assert service.first(two.id).job.priority == service.get(three.id).job.priority + 1  # it is the first already
    claimed = service.ledger.claim(["experiment"])
    assert claimed is not None and claimed.id == service.get(two.id).job.id
    assert service.ledger.claim(without=["experiment"]) is None


def test_what_cannot_go_better_the_next_time_is_not_tried_again(service: ExperimentService) -> None:
    one = asked(service, TINY)
    (service.get(one.id).run).mkdir(parents=True)
    (service.get(one.id).run / "config.toml").write_text("name = 'another'")
    work_off(service)
    job = service.get(one.id).job
    assert job.state is JobState.FAILED and job.attempt == 1 and "another configuration" in (job.error or "")
    assert [event.kind for event in service.ledger.events(job.id)] == ["failed", "claimed", "queued"]
    shutil.rmtree(service.get(one.id).run)
    service.resume(one.id)
    work_off(service)
    assert service.get(one.id).job.state is JobState.DONE


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[Path]:
    """A file system of its own for experiments, of 150 MB."""
    folder = settings.data_dir / "experiments"
    folder.mkdir(parents=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_the_job_with_that_reason_and_others_go_on(
    service: ExperimentService, settings: Settings, small_disk: Path
) -> None:
    full = asked(service, {**load_config("smoke").model_dump(mode="json"), "name": "full"})
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 2**20 * 40)  # no room for a second state beside the first, nor for every checkpoint
    work_off(service)
    job = service.get(full.id).job
    assert job.state is JobState.FAILED and job.attempt == 1
    assert "no room" in (job.error or "") and "make room and resume" in (job.error or "")
    assert str(settings.data_dir) not in (job.error or "")
    for card in small_disk.rglob("card.json"):
        load_checkpoint(card.parent)
    assert not list(small_disk.rglob("*.partial"))
    ballast.unlink()
    settings.data_dir.joinpath("blobs").mkdir(exist_ok=True)
    others = [*verify.request(service.ledger)]
    work_off(service)
    assert service.ledger.get(others[0].id).state is JobState.DONE


def test_a_stale_attempt_keeps_its_hands_off_the_folder(service: ExperimentService, settings: Settings) -> None:
    """While the attempt before still leaves, the next waits; it does not train beside it."""
    one = asked(service, TINY)
    code = (
        "import fcntl, os, sys, time; h = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(h, fcntl.LOCK_EX); print('held', flush=True); time.sleep(2)"
    )
    home = service.get(one.id).run.parent
    home.mkdir(parents=True)
    holder = subprocess.Popen(["python3", "-c", code, str(home / ".lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    claimed = service.ledger.claim()
    assert claimed is not None
    start = time.monotonic()
    run_attempt(service.ledger, claimed.id, claimed.attempt, settings)
    assert time.monotonic() - start > 1
    assert service.get(one.id).job.state is JobState.DONE
    holder.wait()
