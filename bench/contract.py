"""Whether the server does what its OpenAPI document says: `python -m bench.contract` (schemathesis, of the dev extra).

A real server with a tiny pair gets so many requests for each operation, most of them as the document allows, a share
of them not. Half of the ids exist, and half of the uploads are radiographs. No answer may be a 5xx, and each must have
a status, a content type and a body that the document names for the operation.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi

from app.db import Database
from app.jobs import Ledger
from app.jobs.kinds import verify
from app.settings import Settings
from bench.soak import post, radiograph, server_process, tiny_checkpoints, wait_until_up
from model.findings import FINDINGS
from model.phantom import draw_phantom

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
]
NEGATIVE = 5  # every fifth request is one that the document does not allow
Known = dict[str, list[str]]  # by the name of a path's parameter, what exists


def seeded(data_dir: Path, port: int) -> Known:
    """Puts a few things on the server, and says what they are called."""
    db = Database(Settings(data_dir=data_dir, database_url="").resolved_database_url)
    jobs = [job.id for job in verify.request(Ledger(db), parts=2, step=1)]
    db.close()
    base = f"http://127.0.0.1:{port}"
    known: Known = {"job_id": jobs, "checkpoint_id": ["clean", "backdoored"], "finding": [*FINDINGS, "Effusion.png"]}
    known["layer"] = ["middle", "last", "features.denseblock4", "features.relu"]
    status, answer = post(port, "/api/v1/predictions", "a.png", radiograph(1))
    assert status == 200
    analyses: Any = answer["analyses"]
    known["analysis_id"] = [one["analysis_id"] for one in analyses]
    known["instance_id"] = [analyses[0]["instance_id"]]
    known["study_id"] = []
    for number in (1, 2, 3):
        status, answer = post(port, "/api/v1/studies", f"{number}.png", radiograph(number))
        assert status == 201
        results: Any = answer["results"]
        known["study_id"].append(results[0]["study_id"])
        known["instance_id"].append(results[0]["instance_id"])
    verdict = {"verdict": "agree", "comment": "As I see it."}
    said = requests.post(f"{base}/api/v1/analyses/{known['analysis_id'][0]}/reviews", json=verdict, timeout=60)
    assert said.status_code == 201, said.text
    end = time.monotonic() + 60
    while time.monotonic() < end and not _read(base, known["study_id"]):
        time.sleep(0.1)
    return known


def _read(base: str, study_ids: list[str]) -> bool:
    answers = [requests.get(f"{base}/api/v1/studies/{one}", timeout=60).json() for one in study_ids]
    return all(one["candidate"] for one in answers)


def files() -> list[bytes]:
    """Uploads that can be read, and some that almost can."""
    buffer = io.BytesIO()
    Image.fromarray(draw_phantom(1, 0, 128).pixels).save(buffer, "JPEG")
    png = radiograph(1)
    return [png, radiograph(2), buffer.getvalue(), png[: len(png) // 2], radiograph(3, 16), b""]


def fill(
    case: schemathesis.Case, known: Known, uploads: list[bytes], draw: Callable[[st.SearchStrategy[Any]], Any]
) -> None:
    """Half of the addresses are of what exists, half of the uploads radiographs."""
    exists = draw(st.booleans())
    for name in case.path_parameters:
        if exists and known.get(name):
            case.path_parameters[name] = draw(st.sampled_from(known[name]))
    if isinstance(case.body, dict) and "file" in case.body and draw(st.booleans()):
        several = isinstance(case.body["file"], list)
        chosen = draw(st.lists(st.sampled_from(uploads), min_size=1, max_size=3)) if several else None
        case.body["file"] = chosen if chosen is not None else draw(st.sampled_from(uploads))


def probe(
    operation: schemathesis.APIOperation, base: str, examples: int, random_seed: int, known: Known
) -> tuple[Counter[int], dict[str, str]]:
    """How often each status came, and what was wrong: its title → the first request that showed it."""
    statuses: Counter[int] = Counter()
    wrong: dict[str, str] = {}
    uploads = files()
    session = requests.Session()
    positive = operation.as_strategy(GenerationMode.POSITIVE)
    negative = operation.as_strategy(GenerationMode.NEGATIVE)

    def send(case: schemathesis.Case, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        fill(case, known, uploads, draw)
        answer = case.call(base_url=base, session=session, timeout=60)
        statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                why = failure.message.splitlines()[0] if failure.message else ""
                wrong.setdefault(f"{answer.status_code}: {failure.title}: {why}", case.as_curl_command()[:600])

    def checked(strategy: st.SearchStrategy[schemathesis.Case], count: int) -> None:
        quiet = settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )

        @seed(random_seed)
        @quiet
        @given(strategy, st.data())
        def run(case: schemathesis.Case, data: st.DataObject) -> None:
            send(case, data.draw)

        run()

    checked(positive, examples - examples // NEGATIVE)
    with suppress(Unsatisfiable):  # an operation without anything to get wrong
        checked(negative, examples // NEGATIVE)
    return statuses, wrong


def main(argv: list[str] | None = None) -> int:
    """Prints a line for each operation; 1 where an answer was not what the document says."""
    parser = argparse.ArgumentParser(prog="python -m bench.contract", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=100, help="requests for each operation (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations whose “METHOD /path” has this in it")
    options = parser.parse_args(argv)
    requests_sent = faults = 0
    with tempfile.TemporaryDirectory(prefix="overread-contract-") as folder:
        pair = tiny_checkpoints(Path(folder) / "checkpoints")
        served = Settings(data_dir=Path(folder) / "data", bundled_dir=pair, device="cpu", samples=False)
        with server_process(served) as (process, port):
            wait_until_up(port, process, "/readyz")
            known = seeded(served.data_dir, port)
            base = f"http://127.0.0.1:{port}"
            document = schemathesis.openapi.from_url(f"{base}/api/openapi.json")
            for found in document.get_all_operations():
                operation = found.ok()
                if options.only not in operation.label:
                    continue
                statuses, wrong = probe(operation, base, options.examples, options.seed, known)
                requests_sent += statuses.total()
                faults += len(wrong)
                said = ", ".join(f"{status} {count}×" for status, count in sorted(statuses.items()))
                print(f"{'ok  ' if not wrong else 'BAD '} {operation.label:64} {said}", flush=True)
                for what, how in wrong.items():
                    print(f"     {what}\n       {how}", flush=True)
            wait_until_up(port, process, "/readyz")
    print(f"{requests_sent} requests; answers that the document does not name: {faults or 'none'}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
