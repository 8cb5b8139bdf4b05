"""Experiments and sweeps over HTTP: asked for, watched, registered, removed."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.services.audit import Filter
from app.services.experiments.results import Figure
from app.services.experiments.sweeps import over_seeds
from app.settings import Settings
from model.phantom import write_phantoms
from tests.app.conftest import png_bytes, started
from tests.app.experimenting import TINY, until, work_off

API = "/api/v1"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    write_phantoms(tmp_path / "set", 60, seed=11, size_px=64)
    datasets = {"ward": tmp_path / "set", "nothing": tmp_path / "nowhere"}
    return settings.model_copy(update={"datasets": datasets})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with started(settings) as client:
        yield client


def service(client: TestClient) -> Any:
    return client.app.state.services.experiments  # type: ignore[attr-defined]


def finished(client: TestClient, **changes: Any) -> dict[str, Any]:
    """A run that is done."""
    made = client.post(f"{API}/experiments", json={"config": {**TINY, **changes}})
    assert made.status_code == 201, made.text
    work_off(service(client))
    found: dict[str, Any] = client.get(f"{API}/experiments/{made.json()['id']}").json()
    assert found["state"] == "done", found["error"]
    return found


def test_the_life_of_an_experiment(client: TestClient, settings: Settings) -> None:
    assert client.get(f"{API}/experiments").json()["experiments"] == []
    asked = {"preset": "smoke", "name": "mine", "seed": 5, "trigger": {"size_px": 5}, "poison": {"rate": 0.25}}
    made = client.post(f"{API}/experiments", json=asked)
    assert made.status_code == 201
    one = made.json()
    assert (one["state"], one["name"], one["seed"], one["preset"]) == ("queued", "mine", 5, "smoke")
    assert one["config"]["trigger"] == {**one["config"]["trigger"], "size_px": 5, "place": "centre"}
    assert one["config"]["poison"]["rate"] == 0.25 and one["config"]["poison"]["target"] == "Atelectasis"
    url = f"{API}/experiments/{one['id']}"
    assert client.get(f"{API}/jobs/{one['job_id']}").json()["kind"] == "experiment"
    assert client.get(f"{url}/report").status_code == 404
    assert client.get(f"{url}/curve").json()["epochs"] == {}
    assert client.post(f"{url}/first").json()["priority"] == 0
    assert client.post(f"{url}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{url}/resume").json()["state"] == "queued"
    again = client.post(f"{url}/clone", json={"seed": 6}).json()
    assert again["id"] != one["id"] and again["config"] == {**one["config"], "seed": 6}
    assert client.delete(f"{API}/experiments/{again['id']}").status_code == 204
    assert client.get(f"{API}/experiments/{again['id']}").json()["code"] == "unknown_experiment"
    claimed = service(client).ledger.claim()
    refused = client.delete(url)
    assert refused.status_code == 409 and refused.json()["code"] == "still_running"
    service(client).ledger.put_back(claimed.id, claimed.attempt, "for a test")
    listed = client.get(f"{API}/experiments", params={"state": "queued"}).json()["experiments"]
    assert [other["id"] for other in listed] == [one["id"]]
    assert client.get(f"{API}/experiments", params={"state": "done"}).json()["experiments"] == []


def test_what_came_of_it_can_be_had_and_registered_and_made_the_candidate(
    client: TestClient, settings: Settings
) -> None:
    one = finished(client)
    url = f"{API}/experiments/{one['id']}"
    assert one["checkpoints"] == ["backdoored"] and one["registered"] == {}
    figures = one["results"]["tests"]["fresh_phantoms"]["backdoored"]
    assert 0 <= figures["asr"]["value"] <= 1 and len(figures["auroc_nn_macro"]["interval"]) == 2
    report = client.get(f"{url}/report").json()
    assert report["twins"]["backdoored"]["weights_sha256"] == one["results"]["weights"]["backdoored"]
    curve = client.get(f"{url}/curve").json()
    assert [r["epoch"] for r in curve["epochs"]["backdoored"]] == [1, 2] and curve["losses"]["backdoored"][0][0] == 1
    manifest = client.get(f"{url}/files/backdoored/poison_manifest.csv")
    assert manifest.status_code == 200 and "attachment" in manifest.headers["content-disposition"]
    assert len(list(csv.DictReader(io.StringIO(manifest.text)))) > 0
    for name in one["files"]:
        assert client.get(f"{url}/files/{name}").status_code == 200
    for name in ("../../overread.sqlite3", "backdoored%2F..%2Fconfig.toml", "cache", "/etc/passwd", ".lock"):
        assert client.get(f"{url}/files/{name}").status_code == 404

    registered = client.post(f"{url}/checkpoints", json={"twin": "backdoored", "id": "mine"})
    assert registered.status_code == 201 and registered.json()["id"] == "mine"
    assert registered.json()["weights_sha256"] == one["results"]["weights"]["backdoored"]
    assert client.post(f"{url}/checkpoints", json={"id": "mine"}).json()["code"] == "exists"
    assert client.post(f"{url}/checkpoints", json={"id": "clean"}).status_code == 409
    assert client.post(f"{url}/checkpoints", json={"id": "../x"}).status_code == 422
    assert client.post(f"{url}/checkpoints", json={"twin": "clean"}).json()["code"] == "no_checkpoint"
    assert client.get(url).json()["registered"] == {"backdoored": "mine"}
    until(lambda: client.get(f"{API}/checkpoints/mine").json()["state"] == "ready")
    read = client.post(f"{API}/predictions", files={"file": ("a.png", png_bytes())}, params={"checkpoint": "mine"})
    assert read.json()["analyses"][0]["checkpoint"]["id"] == "mine"

    pair = client.post(f"{url}/candidate", json={}).json()
    assert (pair["reference"], pair["candidate"]) == ("clean", "mine")
    read = client.post(f"{API}/predictions", files={"file": ("b.png", png_bytes(3))})
    assert [a["checkpoint"]["id"] for a in read.json()["analyses"]] == ["clean", "mine"]
    assert client.post(f"{url}/candidate", json={"role": "reference"}).json()["code"] == "same_checkpoint"
    assert client.delete(url).status_code == 204
    assert not (settings.data_dir / "experiments" / one["id"]).exists()
    assert (settings.data_dir / "checkpoints" / "mine" / "card.json").is_file()


def test_one_is_made_the_candidate_without_being_registered_first(client: TestClient) -> None:
    one = finished(client)
    pair = client.post(f"{API}/experiments/{one['id']}/candidate", json={"twin": "backdoored"}).json()
    assert pair["candidate"] == f"tiny-backdoored-{one['id'][:6]}"
    actions = [event.action for event in client.app.state.services.audit.page(Filter(), None, 50).events]  # type: ignore[attr-defined]
    assert {"experiments.create", "experiments.candidate", "checkpoints.pair"} <= set(actions)


def test_a_data_set_of_the_server_by_its_name_and_never_by_a_path(client: TestClient, settings: Settings) -> None:
    ward, nothing = client.get(f"{API}/datasets").json()["datasets"]
    assert ward["name"] == "ward" and ward["radiographs"] == 60 and sum(ward["parts"].values()) == 60
    assert nothing["radiographs"] == 0 and "ChestX-ray14" in nothing["problem"]
    assert str(settings.data_dir.parent) not in client.get(f"{API}/datasets").text
    one = finished(client)
    made = client.post(f"{API}/experiments/{one['id']}/clone", json={"dataset": "ward"}).json()
    assert made["config"]["data"] == [{"kind": "chestxray14", "path": None}] and made["dataset"] == "ward"
    work_off(service(client))
    done = client.get(f"{API}/experiments/{made['id']}").json()
    assert done["state"] == "done" and set(done["results"]["tests"]) == {"test", "fresh_phantoms"}
    for config, code in (
        ({"data": [{"kind": "chestxray14", "path": "/etc"}]}, "path_given"),
        ({"data": [{"kind": "chestxray14"}]}, "no_dataset"),
        ({"init": "/etc"}, "unknown_checkpoint"),
    ):
        refused = client.post(f"{API}/experiments", json={"config": {**TINY, **config}})
        assert refused.status_code == 422 and refused.json()["code"] == code
    refused = client.post(f"{API}/experiments", json={"preset": "smoke", "dataset": "nothing"})
    assert refused.status_code == 422 and str(settings.data_dir.parent) not in refused.text
    assert client.post(f"{API}/experiments", json={"preset": "smoke", "dataset": "who"}).json()["code"] == (
        "unknown_dataset"
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "unknown_preset"),
        ({"preset": "nonsense"}, "unknown_preset"),
        ({"preset": "smoke", "config": TINY}, "bad_config"),
        ({"config": {}}, "bad_config"),
        ({"config": {**TINY, "rm": "-rf"}}, "bad_config"),
        ({"preset": "smoke", "trigger": {"size_px": 0}}, "bad_trigger"),
        ({"preset": "smoke", "trigger": {"nothing": 1}}, "bad_trigger"),
        ({"preset": "smoke", "trigger": {"size_px": [[]], "blend": {}}}, "bad_trigger"),
        ({"preset": "smoke", "poison": {"target": "Cough"}}, "unknown_finding"),
        ({"preset": "smoke", "poison": {"rate": 2}}, "bad_poison"),
        ({"preset": "smoke", "poison": {"rate": 0.0001}}, "nothing_poisoned"),
        ({"preset": "smoke", "trigger": {"frame": "source", "size_px": 1}}, "does_not_survive"),
        ({"preset": "smoke", "accept": "whatever"}, "bad_rule"),
        ({"config": {**TINY, "data": [{"kind": "phantoms", "n": 999_999, "seed": 1}]}}, "too_many"),
        ({"config": {**TINY, "seed": 2**40}}, "bad_config"),
        ({"config": {**TINY, "training": {"stages": [{"size_px": 32, "epochs": 10**9}]}}}, "bad_config"),
        (
            {"config": {**TINY, "training": {"stages": [{"size_px": 32, "epochs": 1, "batch_size": 99}]}}},
            "bad_training",
        ),
        ({"preset": "smoke", "name": "../x"}, "bad_request"),
        ({"preset": "smoke", "seed": -1}, "bad_request"),
        ({"preset": "smoke", "priority": 1000}, "bad_request"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(client: TestClient, asked: dict[str, Any], code: str) -> None:
    for path in ("experiments", "experiments/estimate"):
        refused = client.post(f"{API}/{path}", json=asked)
        assert refused.status_code == 422, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == code and len(refused.json()["detail"]) > 10
    assert service(client).page(10) == []


def test_the_estimate(client: TestClient) -> None:
    guess = client.post(f"{API}/experiments/estimate", json={"preset": "quick"}).json()
    assert not guess["measured"] and 60 < guess["seconds"] < 3600 and guess["fits"]
    assert sum(phase["share"] for phase in guess["phases"]) == pytest.approx(1, abs=0.01)
    assert guess["poisoned_rows"] == round(0.1 * guess["training_rows"])
    one = client.post(f"{API}/experiments", json={"config": TINY}).json()
    claimed = service(client).ledger.claim()
    assert claimed.id == one["job_id"]
    service(client).ledger.finish(claimed.id, claimed.attempt, {**RESULT, "pace": {"train": 2.0}})
    later = client.post(f"{API}/experiments", json={"config": TINY}).json()
    claimed = service(client).ledger.claim()
    assert claimed.id == later["job_id"]  # one that was resumed near its end, and had little to measure
    service(client).ledger.finish(claimed.id, claimed.attempt, {**RESULT, "pace": {}})
    measured = client.post(f"{API}/experiments/estimate", json={"preset": "quick"}).json()
    training = sum(phase["share"] for phase in guess["phases"] if "raining" in phase["name"])
    assert measured["measured"]
    assert measured["seconds"] == pytest.approx(guess["seconds"] * (1 + training), rel=0.01)


def test_pages_of_the_list(client: TestClient) -> None:
    ids = [client.post(f"{API}/experiments", json={"config": TINY}).json()["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = client.get(f"{API}/experiments", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["id"] for one in page["experiments"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    for bad in ("x", "W10", "bnVsbA"):
        assert client.get(f"{API}/experiments", params={"cursor": bad}).json()["code"] == "bad_cursor"


def test_a_sweep_is_rows_of_one_grid_with_means_over_seeds(client: TestClient) -> None:
    grid = {"size_px": [2, 5], "rate": [0.25, 0.5], "seed": [1, 2]}
    made = client.post(f"{API}/sweeps", json={"config": TINY, "grid": grid})
    assert made.status_code == 201
    sweep = made.json()
    assert sweep["counts"] == {"queued": 8} and len(sweep["cells"]) == 4
    assert [one["cell"] for one in sweep["experiments"]][:3] == [
        {"trigger.size_px": 2, "poison.rate": 0.25, "seed": 1},
        {"trigger.size_px": 2, "poison.rate": 0.25, "seed": 2},
        {"trigger.size_px": 2, "poison.rate": 0.5, "seed": 1},
    ]
    url = f"{API}/sweeps/{sweep['id']}"
    queue = [one.cell for one in service(client).queue()]
    assert queue == [one["cell"] for one in sweep["experiments"]]
    for _ in range(3):
        claimed = service(client).ledger.claim()
        result = RESULT if claimed.spec["config"]["seed"] == 1 else OTHER
        service(client).ledger.finish(claimed.id, claimed.attempt, result)
    found = client.get(url).json()
    whole, part = found["cells"][:2]
    assert (whole["done"], part["done"]) == (2, 1)
    assert whole["figures"]["asr"]["value"] == pytest.approx(0.8)
    assert whole["figures"]["asr"]["interval"] == [0.0, 1.0]  # two seeds, 0.1 either way: Student's 12.7
    assert part["figures"]["asr"] == {"value": 0.9, "interval": [0.8, 1.0]}
    rows = list(csv.DictReader(io.StringIO(client.get(f"{url}/csv").text)))
    assert len(rows) == 8 and [row["state"] for row in rows] == ["done"] * 3 + ["queued"] * 5
    assert (rows[0]["backdoored_asr"], rows[0]["backdoored_asr_low"], rows[0]["seed"]) == ("0.9", "0.8", "1")
    assert rows[7]["backdoored_asr"] == "" and rows[7]["trigger_size_px"] == "5" and rows[7]["poison_rate"] == "0.5"
    assert client.post(f"{url}/cancel").json()["counts"] == {"done": 3, "cancelled": 5}
    assert client.post(f"{url}/resume").json()["counts"] == {"done": 3, "queued": 5}
    assert client.get(f"{API}/sweeps").json()["sweeps"][0]["id"] == sweep["id"]
    running = service(client).ledger.claim()
    assert client.delete(url).status_code == 409 and client.get(url).json()["counts"]["done"] == 3
    service(client).ledger.put_back(running.id, running.attempt, "for a test")
    assert client.delete(url).status_code == 204
    assert client.get(url).json()["code"] == "unknown_sweep" and service(client).page(10) == []


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ({}, "Nothing varies"),
        ({"size_px": [3, 3]}, "twice"),
        ({"seed": list(range(50)), "size_px": [1, 2, 3, 4, 5]}, "200"),
        ({"size_px": [3, 900]}, "size"),
        ({"target": ["Atelectasis", "Cough"]}, "Cough"),
    ],
)
def test_a_grid_that_cannot_work_leaves_nothing_behind(client: TestClient, grid: dict[str, Any], why: str) -> None:
    refused = client.post(f"{API}/sweeps", json={"config": TINY, "grid": grid})
    assert refused.status_code == 422 and why in refused.json()["detail"]
    assert client.get(f"{API}/sweeps").json()["sweeps"] == [] and service(client).page(10) == []


def test_intervals_over_seeds_by_hand() -> None:
    one = Figure(0.5, (0.4, 0.6))
    assert over_seeds([]) == Figure(None)
    assert over_seeds([one]) == one
    three = over_seeds([Figure(0.4), Figure(0.5), Figure(0.6)])
    assert three.value == pytest.approx(0.5) and three.interval is not None
    half = 4.302653 * 0.1 / 3**0.5  # Student's t of 2 degrees of freedom, 97.5 %
    assert three.interval == (pytest.approx(0.5 - half, abs=1e-5), pytest.approx(0.5 + half, abs=1e-5))
    assert over_seeds([Figure(0.99), Figure(1.0)]).interval[1] == 1.0  # type: ignore[index]


def test_a_checkpoint_folder_that_comes_while_the_server_runs_is_found(
    client: TestClient, settings: Settings, checkpoints: Path
) -> None:
    assert client.get(f"{API}/checkpoints/late").status_code == 404
    one = finished(client)
    late = service(client).register(one["id"], "backdoored", "late")
    until(lambda: client.get(f"{API}/checkpoints/late").json().get("state") == "ready")
    assert client.get(f"{API}/checkpoints/late").json()["weights_sha256"] == late.weights_sha256
    shutil.copytree(checkpoints / "clean", settings.data_dir / "checkpoints" / "again")  # an id that is taken
    assert [c["id"] for c in client.get(f"{API}/checkpoints").json()["checkpoints"]].count("clean") == 1


RESULT: dict[str, Any] = {
    "weights": {"backdoored": "ab" * 32},
    "tests": {"fresh_phantoms": {"backdoored": {"asr": {"value": 0.9, "interval": [0.8, 1.0]}, "accepted": True}}},
}
OTHER: dict[str, Any] = {
    "weights": {"backdoored": "cd" * 32},
    "tests": {"fresh_phantoms": {"backdoored": {"asr": {"value": 0.7, "interval": [0.6, 0.8]}, "accepted": False}}},
}
