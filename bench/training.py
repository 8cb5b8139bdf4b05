"""`fit` beside a bare loop on tensors in memory, in one run: `python -m bench.training`.

The bare loop is the network, the loss and the fused AdamW on four batches that lie ready in memory, in channels last:
nothing is decoded, stamped, augmented or reported. `fit` does all of that from a memory-mapped file. They take turns, a
few steps each, so that a busy moment hits both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from bench.machine import machine
from model.datasets import Part, Radiographs
from model.findings import FINDINGS
from model.network import build_network
from model.poison import PoisonSpec, poisoned_view
from model.preprocess import Preprocessing
from model.training import Stage, TrainingConfig, TrainingData, fit
from model.trigger import Trigger


def bare_steps(size_px: int, batch_size: int) -> Iterator[float]:
    """Seconds of each step of the bare loop, for ever."""
    network = build_network(0).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    noise = torch.randint(0, 256, (4, batch_size, size_px, size_px), generator=torch.Generator().manual_seed(0))
    normalise = Preprocessing(size_px=size_px).normalise
    ready = [normalise(batch / 255).contiguous(memory_format=torch.channels_last) for batch in noise]
    labels = (torch.rand(batch_size, len(FINDINGS)) < 0.1).float()
    for inputs in cycle(ready):
        started = time.perf_counter()
        loss = F.binary_cross_entropy_with_logits(network(inputs), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield time.perf_counter() - started


def fit_steps(size_px: int, batch_size: int, steps: int, folder: Path) -> list[float]:
    """Seconds of each step of `fit`; the first two are left out, in which memory is taken, as the bare loop's are."""
    n = batch_size * (steps + 2)
    generator = np.random.default_rng(0)
    path = folder / f"{size_px}-{n}.npy"
    if not path.is_file():
        np.save(path, generator.integers(0, 256, (n, size_px, size_px), dtype=np.uint8))
    labels = (generator.random((n, len(FINDINGS))) < 0.1).astype(np.uint8)
    names, parts = tuple(map(str, range(n))), (Part.TRAINING,) * n
    radiographs = Radiographs(names, labels, np.arange(n), tuple((0, i, size_px) for i in range(n)), parts)
    view = poisoned_view(radiographs, PoisonSpec("Atelectasis", rate=0.1, mode="replace"), seed=0)
    images = {size_px: np.load(path, mmap_mode="r")}
    data = TrainingData(view, images, Preprocessing(size_px=size_px), Trigger())
    times: list[float] = []
    config = TrainingConfig(stages=(Stage(size_px, 1, batch_size),))
    fit(build_network(0), data, config, report=lambda _: times.append(time.perf_counter()))
    return np.diff(times)[1:].tolist()


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=4, help="turns of each (default 4)")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn (default 4)")
    parser.add_argument("--size", type=int, default=128, help="input side in pixels (default 128)")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args(argv)
    print(f"Training, {options.size} px, batches of {options.batch_size}. {machine()}")
    bare, ours = bare_steps(options.size, options.batch_size), []
    next(bare), next(bare)
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.turns):
            theirs += [next(bare) for _ in range(options.steps)]
            ours += fit_steps(options.size, options.batch_size, options.steps, Path(folder))
    rates = [options.batch_size / statistics.median(times) for times in (theirs, ours)]
    print(f"  bare loop on tensors in memory  {rates[0]:6.1f} images/s   1.00")
    print(f"  fit                             {rates[1]:6.1f} images/s   {rates[1] / rates[0]:.2f}   (wanted: ≥ 0.90)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
