"""What waits together is read together, and nobody suffers from another's radiograph."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import app.inference.batching
import app.inference.engine
from app.inference import InferenceEngine, RawReading
from app.inference.batching import read_batch
from app.services.errors import BusyError
from model.checkpoint import Checkpoint
from model.errors import ConfigError

PAIR = ["clean", "backdoored"]


@pytest.fixture
def engine(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceEngine]:
    monkeypatch.setattr("app.inference.lanes.torch.get_num_threads", lambda: 2)  # how batches are cut follows the cores
    made = InferenceEngine([checkpoints], "cpu", 16, batch_size=4)
    made.start()
    assert made.wait_settled(60)
    yield made
    made.stop()


def grey(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((80, 72), np.float32)


class Gate:
    """Holds the inference thread within its first batch, and notes the size of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        monkeypatch.setattr(app.inference.batching, "read_batch", self.read)

    def read(self, checkpoint: Checkpoint, inputs: torch.Tensor, *detector: Any) -> list[RawReading]:
        self.sizes.append(len(inputs))
        self.entered.set()
        assert self.open.wait(30)
        return read_batch(checkpoint, inputs, *detector)


def test_a_batch_reads_what_each_would_be_read_alone(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [engine.read(grey(seed), PAIR) for seed in range(6)]
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(engine.read, grey(0), PAIR)
        assert gate.entered.wait(20)
        rest = [engine.submit(grey(seed), PAIR) for seed in range(1, 6)]
        gate.open.set()
        together = [first.result(), *([one.result(20) for one in readings] for readings in rest)]
    assert sorted(gate.sizes) == [1, 1, 1, 1, 2, 2, 2, 2]  # four radiographs wait together: two parts a lane
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.card.id == other.card.id
            assert np.abs(one.probabilities - other.probabilities).max() < 1e-5
            for layer, maps in one.maps.items():
                assert np.abs(maps - other.maps[layer]).max() < 1e-4 * other.maps[layer].max()


def test_one_alone_does_not_wait(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inference.engine.GATHER_S", 5.0)
    start = time.monotonic()
    engine.read(grey(1), ["clean"])
    assert time.monotonic() - start < 4
    with engine.arriving(), ThreadPoolExecutor(1) as pool:  # while somebody is on the way, it does
        reading = pool.submit(engine.read, grey(1), ["clean"])
        time.sleep(0.5)
        assert not reading.done()
        engine.read(grey(2), ["clean"])


def test_bad_input_is_its_senders_problem_alone(engine: InferenceEngine) -> None:
    spoilt = grey(1)
    spoilt[3, 3] = np.nan
    with ThreadPoolExecutor(3) as pool:
        good = [pool.submit(engine.read, grey(seed), PAIR) for seed in (1, 2)]
        with pytest.raises(ConfigError) as refused:
            engine.read(spoilt, PAIR)
        assert refused.value.code == "not_finite"
        assert all(len(one.result(20)) == 2 for one in good)


def test_a_failure_within_a_batch_reaches_only_who_caused_it(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    def picky(checkpoint: Checkpoint, inputs: torch.Tensor, *detector: Any) -> list[RawReading]:
        if (inputs.amax((1, 2, 3)) > 50).any():
            raise ConfigError("not_finite", "The network's logits are not finite: check its weights.")
        return gate.read(checkpoint, inputs, *detector)

    monkeypatch.setattr(app.inference.batching, "read_batch", picky)
    first = engine.submit(grey(0), ["clean"])
    assert gate.entered.wait(20)
    rest = [engine.submit(value, ["clean"])[0] for value in (grey(1), grey(2) * 1e3, grey(3))]
    # Preparation clips greys to 0..1, so the bad one is made bad behind it.
    with engine._jobs.mutex:
        engine._jobs.queue[1][0].inputs.mul_(1e3)
    gate.open.set()
    assert first[0].result(20) and rest[0].result(20) and rest[2].result(20)
    with pytest.raises(ConfigError):
        rest[1].result(20)


def test_out_of_memory_makes_smaller_batches_then_turns_away(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 1

    def cramped(checkpoint: Checkpoint, inputs: torch.Tensor, *detector: Any) -> list[RawReading]:
        if len(inputs) > room:
            raise torch.OutOfMemoryError("no memory")
        return gate.read(checkpoint, inputs, *detector)

    gate = Gate(monkeypatch)
    monkeypatch.setattr(app.inference.batching, "read_batch", cramped)
    first = engine.submit(grey(0), ["clean"])
    assert gate.entered.wait(20)
    rest = [one for seed in range(1, 5) for one in engine.submit(grey(seed), PAIR)]
    gate.open.set()
    assert all(one.result(20).probabilities.shape == (14,) for one in [*first, *rest])
    assert gate.sizes == [1] * 9 and engine._runner.largest == 1
    room = 0
    with pytest.raises(BusyError) as refused:
        engine.read(grey(1), ["clean"])
    assert refused.value.code == "out_of_memory" and refused.value.retry_after_s > 0


def test_two_batches_run_side_by_side(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def meet(checkpoint: Checkpoint, inputs: torch.Tensor, *detector: Any) -> list[RawReading]:
        together.wait(20)
        return read_batch(checkpoint, inputs, *detector)

    monkeypatch.setattr(app.inference.batching, "read_batch", meet)
    assert [one.card.id for one in engine.read(grey(0), PAIR)] == PAIR


def test_who_no_longer_waits_costs_nothing(engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    engine.submit(grey(0), ["clean"])
    assert gate.entered.wait(20)
    given_up, waiting = (engine.submit(grey(seed), ["clean"])[0] for seed in (1, 2))
    assert given_up.cancel()
    gate.open.set()
    assert waiting.result(20).probabilities.shape == (14,)
    assert gate.sizes == [1, 1]
    with pytest.raises(CancelledError):
        given_up.result()


def _cramped(_: Checkpoint) -> None:
    raise torch.OutOfMemoryError("no memory")


def test_a_call_runs_between_batches_in_the_inference_thread(engine: InferenceEngine) -> None:
    name, checkpoint_id = engine.call("clean", lambda one: (threading.current_thread().name, one.card.id))
    assert (name, checkpoint_id) == ("inference", "clean")
    with pytest.raises(ZeroDivisionError):
        engine.call("clean", lambda _: 1 // 0)
    with pytest.raises(BusyError) as refused:
        engine.call("clean", _cramped)
    assert refused.value.code == "out_of_memory"
    assert len(engine.read(grey(1), PAIR)) == 2


def test_a_long_call_has_its_turn_among_steady_short_ones(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.inference.engine, "LATER_S", 0.05)
    done, end = threading.Event(), time.monotonic() + 5

    def again(_: Checkpoint) -> None:  # the queue is never empty as long as the long call waits
        if not done.is_set() and time.monotonic() < end:
            engine._begin("clean", again, 0.0, long=False)

    def first(_: Checkpoint) -> Future[float]:
        second = engine._begin("clean", lambda _: (done.set(), time.monotonic())[1], 0.0, long=True)
        engine._begin("clean", again, 0.0, long=False)
        work = engine._jobs.get_nowait()  # as `_breathe` puts a long one off
        engine._later.append(work)  # type: ignore[arg-type]
        return second

    second = engine.call("clean", first)
    assert second.result(20) < end
