"""A real server beside bare loops, in one run: `python -m bench.serving`.

Latency: POST /predictions?test=none of one radiograph after the other, each another one, beside two bare forward passes
(both checkpoints' networks, nothing decoded, nothing explained). They take turns, so that a busy moment hits both.

Throughput: 32 clients at once, beside a bare loop over files of the same kind that decodes, prepares and runs the
saliency of both checkpoints in batches, in one process with all threads. They take turns, a part each.

Overload: three times as many clients as the server lets wait. What is shed must be a 503 with Retry-After.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from app.inference.batching import read_batch
from app.settings import Settings
from bench.machine import machine
from bench.soak import multipart, server_process, wait_until_up
from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.phantom import draw_phantom
from model.radiograph import read_radiograph
from model.radiograph.raster import encode_grey

PATH = "/api/v1/predictions?test=none"
Files = list[bytes]


def radiographs(count: int, size_px: int, seed: int) -> Files:
    """PNGs, each another one: a few phantoms, shifted by a grey level here and there."""
    drawn = [draw_phantom(seed, index, size_px).pixels for index in range(min(count, 4))]
    files = []
    for number in range(count):
        pixels = drawn[number % len(drawn)].copy()
        generator = np.random.default_rng([seed, number])
        pixels[generator.integers(0, size_px, 64), generator.integers(0, size_px, 64)] ^= 1
        files.append(encode_grey(pixels, "PNG"))
    return files


class Client:
    """A connection for each request: one that is kept would be closed while the bare loops have their turn."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def post(self, data: bytes) -> int:
        """The status; the answer is read and thrown away."""
        body, headers = multipart("a.png", data)
        self._connection.request("POST", PATH, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        self._connection.close()
        if answer.status == 503 and not answer.getheader("Retry-After"):
            raise RuntimeError("A 503 without Retry-After.")
        return answer.status


def bare_forward(checkpoints: list[Checkpoint]) -> float:
    """Seconds of a forward pass by each network."""
    size = checkpoints[0].card.preprocessing.size_px
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    with torch.inference_mode():
        for one in checkpoints:
            one.network(inputs)
    return time.perf_counter() - start


def bare_loop(checkpoints: list[Checkpoint], files: Files, batch_size: int) -> float:
    """Seconds to decode, prepare and analyse the files with both, in batches."""
    start = time.perf_counter()
    for first in range(0, len(files), batch_size):
        greys = [read_radiograph(data).grey() for data in files[first : first + batch_size]]
        for one in checkpoints:
            read_batch(one, torch.cat([one.card.preprocessing.tensor(grey) for grey in greys]))
    return time.perf_counter() - start


def crowd(port: int, files: Files, clients: int) -> tuple[float, Counter[int]]:
    """Seconds, and how often each status came, when so many clients share the files."""
    left, lock, statuses = iter(files), threading.Lock(), Counter[int]()

    def work() -> None:
        client = Client(port)
        while True:
            with lock:
                data = next(left, None)
            if data is None:
                return
            status = client.post(data)
            with lock:
                statuses[status] += 1

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work) for _ in range(clients)]:
            done.result()
    return time.perf_counter() - start, statuses


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31, help="radiographs one after the other (default 31)")
    parser.add_argument("--turns", type=int, default=4, help="turns of the throughput (default 4)")
    parser.add_argument("--files", type=int, default=64, help="radiographs a turn (default 64)")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--size", type=int, default=1024, help="side of the radiographs in pixels (default 1024)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads of the bare loops (default 2)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    checkpoints = [load_checkpoint(BUNDLED / name) for name in ("clean", "backdoored")]
    files = radiographs(options.repeats + 2 + options.turns * options.files, options.size, 1)
    with tempfile.TemporaryDirectory(prefix="overread-bench-") as folder:
        settings = Settings(data_dir=Path(folder), device="cpu")
        with server_process(settings) as (process, port):
            wait_until_up(port, process, "/readyz")
            client = Client(port)
            for _ in range(2):
                bare_forward(checkpoints)
                client.post(files.pop())
            ours, bare = [], []
            for _ in range(options.repeats):
                bare.append(bare_forward(checkpoints))
                data, start = files.pop(), time.perf_counter()
                status = client.post(data)
                ours.append(time.perf_counter() - start)
                if status != 200:
                    raise RuntimeError(f"An answer of {status}.")
            rates: list[tuple[float, float]] = []
            statuses: Counter[int] = Counter()
            for _ in range(options.turns):
                part = [files.pop() for _ in range(options.files)]
                bare_s = bare_loop(checkpoints, part, settings.batch_size)
                ours_s, said = crowd(port, part, options.clients)
                statuses += said
                rates.append((len(part) / bare_s, len(part) / ours_s))
            flood = 3 * settings.queue_size
            _, shed = crowd(port, radiographs(2 * flood, 256, 2), flood)
    ratio = statistics.median(ours) / statistics.median(bare)
    bare_rate, our_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"Serving, {options.size} px PNG, both checkpoints, both layers, 14 findings. {machine()}")
    print(f"  two bare forward passes     p50 {statistics.median(bare) * 1e3:7.1f} ms      1.00")
    print(
        f"  POST /predictions           p50 {statistics.median(ours) * 1e3:7.1f} ms      {ratio:.2f}  (wanted: ≤ 3.0)"
    )
    print(f"  bare batched loop           {bare_rate:7.2f} radiographs/s  1.00")
    share = statistics.median(ours / theirs for theirs, ours in rates)
    print(f"  {options.clients} clients                  {our_rate:7.2f} radiographs/s  {share:.2f}  (wanted: ≥ 0.9)")
    print(f"  statuses of the {options.clients} clients: {dict(statuses)}; of {flood} at once: {dict(shed)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
