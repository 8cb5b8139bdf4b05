"""What a training in the background costs the dashboard on the same cores: `python -m bench.beside`.

The same server answers POST /predictions?test=none, one after the other, and its pages, first idle, then while its
worker trains the preset `quick`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from app.settings import Settings
from bench.machine import machine
from bench.serving import Client, radiographs
from bench.soak import post, post_json, server_process, wait_until_up, worker_process

PREDICTION_RATIO, PAGE_MS = 3.0, 200.0
_TRAINING_S = 300.0


def page_ms(port: int, path: str) -> float:
    """Milliseconds of one page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    start = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    answer.read()
    taken = (time.perf_counter() - start) * 1000
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}.")
    return taken


def measured(port: int, files: list[bytes], paths: list[str], repeats: int) -> tuple[float, dict[str, list[float]]]:
    """p50 of the predictions in milliseconds, and each page's times."""
    client, times = Client(port), []
    pages: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(repeats):
        data, start = files.pop(), time.perf_counter()
        if client.post(data) != 200:
            raise RuntimeError("A prediction was refused.")
        times.append((time.perf_counter() - start) * 1000)
        for path in paths:
            pages[path].append(page_ms(port, path))
    return statistics.median(times), pages


def training(port: int, experiment: str) -> bool:
    """Whether it trains by now. Raises RuntimeError where it never will."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/api/v1/experiments/{experiment}")
    found: Any = json.loads(connection.getresponse().read())
    connection.close()
    if found["state"] not in ("queued", "running"):
        raise RuntimeError(f"The experiment is {found['state']}: {found['error']}")
    return bool(found["progress"] and found["progress"]["step"])


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 1 where a figure is not reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    options = parser.parse_args(argv)
    files = radiographs(2 * options.repeats + 3, 1024, 3)
    with tempfile.TemporaryDirectory(prefix="overread-bench-") as folder:
        settings = Settings(data_dir=Path(folder), device="cpu")
        with server_process(settings) as (process, port), worker_process(settings):
            wait_until_up(port, process, "/readyz")
            study: Any = post(port, "/api/v1/studies", "a.png", files.pop())[1]
            asked: Any = post_json(port, "/api/v1/experiments", {"preset": "quick"})[1]
            post_json(port, f"/api/v1/jobs/{asked['job_id']}/cancel", {})
            paths = ["/", study["results"][0]["url"], "/experiments", f"/experiments/{asked['id']}", "/jobs"]
            measured(port, files, paths, 2)  # what is made once
            time.sleep(20)  # until the study's images are read and tested
            idle, idle_pages = measured(port, files, paths, options.repeats)
            started: Any = post_json(port, "/api/v1/experiments", {"preset": "quick"})[1]
            end = time.monotonic() + _TRAINING_S
            while not training(port, started["id"]):
                if time.monotonic() > end:
                    raise RuntimeError("It does not begin to train.")
                time.sleep(0.5)
            busy, busy_pages = measured(port, files, paths, options.repeats)
            if not training(port, started["id"]):
                raise RuntimeError("It did not train all the while.")
    slowest = max(sorted(times)[int(len(times) * 0.95) - 1] for times in busy_pages.values())
    print(f"Beside a training, 1024 px PNG, both checkpoints. {machine()}")
    print(f"  POST /predictions, idle      p50 {idle:7.1f} ms   1.00")
    print(f"  POST /predictions, beside    p50 {busy:7.1f} ms   {busy / idle:.2f}  (wanted: ≤ {PREDICTION_RATIO})")
    for path, times in busy_pages.items():
        name = "/".join(part if len(part) < 32 else "…" for part in path.split("/"))
        before, after = statistics.median(idle_pages[path]), statistics.median(times)
        print(f"  {name:28} p50 {before:7.1f} ms idle, {after:7.1f} ms beside, slowest {max(times):7.1f} ms")
    print(f"  slowest page's p95 {slowest:.0f} ms (wanted: ≤ {PAGE_MS:.0f})")
    return 0 if busy <= PREDICTION_RATIO * idle and slowest <= PAGE_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
