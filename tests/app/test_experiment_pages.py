"""Pages of experiments and sweeps, as somebody without JavaScript has them."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.services.experiments.asking import Form
from app.services.experiments.wording import duration, megabytes
from app.settings import Settings
from model.phantom import write_phantoms
from tests.app.conftest import started
from tests.app.experimenting import TINY, work_off
from tests.app.test_experiments import API, OTHER, RESULT, finished, service

HTMX = {"HX-Request": "true"}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    write_phantoms(tmp_path / "set", 40, seed=11, size_px=64)
    return settings.model_copy(update={"datasets": {"ward": tmp_path / "set", "gone": tmp_path / "no"}})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with started(settings) as client:
        yield client


def pictures(html: str) -> list[str]:
    return [unescape(address) for address in re.findall(r'<img src="(/experiments/preview/[^"]+)"', html)]


def pixels(client: TestClient, address: str) -> np.ndarray:
    answer = client.get(address)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def form(**changes: str) -> dict[str, Any]:
    asked = Form.of({"preset": "smoke", **changes})
    return {name: value for name, value in vars(asked).items() if value}


def test_the_form_previews_estimates_and_starts(client: TestClient) -> None:
    page = client.get("/experiments", params={"preset": "smoke"}).text
    assert "No experiment yet" in page and 'aria-current="page">Experiments' in page
    assert "Black square, 3×3 px, at the centre of the network&#39;s input" in page
    assert "a guess: no training was timed here yet" in page and "100 % of the trigger reaches the network" in page
    assert "ward: 40 images" in page and "gone: cannot be used" in page
    whole, close, net, net_close = (pixels(client, address) for address in pictures(page))
    assert {one.shape for one in (whole, close, net, net_close)} == {(288, 288, 3)}
    middle = net_close[144, 144]
    assert (middle == 0).all() and net_close[10, 10].max() > 0  # the black square, and what is around it
    white = pixels(client, pictures(client.get("/experiments", params=form(value="white")).text)[3])
    assert (white[144, 144] == 255).all()
    started_one = client.post("/experiments", data=form(name="mine", seed="9", rate="25", target="Infiltration"))
    assert started_one.status_code == 303
    made = client.get(f"{API}{started_one.headers['location']}").json()
    assert (made["name"], made["seed"], made["config"]["poison"]["target"]) == ("mine", 9, "Infiltration")
    assert made["config"]["poison"]["rate"] == 0.25 and made["config"]["accept"] == "macro_nn>=0.5"
    same = {**made["config"], "name": "smoke", "seed": 1}
    same["poison"] = {**same["poison"], "rate": 0.5, "target": "Atelectasis"}
    assert same == client.get(f"{API}/experiments/presets").json()["presets"][-1]["config"]
    lists = client.get("/experiments", headers=HTMX).text
    assert "mine" in lists and "every 2s" in lists and "<html" not in lists


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"frame": "source", "size_px": "1"}, "vanishes"),
        ({"frame": "source", "size_px": "2"}, "fades"),
        ({"size_px": "two"}, "whole number"),
        ({"size_px": "400"}, "does not fit"),
        ({"place": "nowhere"}, "place is centre, random"),
        ({"place": "62,5"}, "outside"),
        ({"rate": "0"}, "share in (0, 1]"),
        ({"blend": "-5"}, "per cent"),
        ({"preset": "bundled-pair"}, "choose a data set"),
        ({"preset": "nonsense"}, "no preset"),
        ({"accept": "hope"}, "rule"),
    ],
)
def test_what_cannot_work_is_said_before_it_is_started(client: TestClient, changes: dict[str, str], why: str) -> None:
    asked = {**form(), **changes}
    if why != "no preset":
        shown = client.get("/experiments/preview", params=asked, headers=HTMX)
        assert shown.status_code == 200 and why in unescape(shown.text), shown.text
    if why != "fades":
        refused = client.post("/experiments", data=asked)
        assert refused.status_code == 422 and 'role="alert"' in refused.text
        assert service(client).page(5) == []
        if "size_px" in changes:
            assert f'name="size_px" value="{changes["size_px"]}"' in refused.text  # what was typed is not lost


def test_a_preset_s_own_attack_keeps_its_trigger(client: TestClient) -> None:
    for preset in ("attack-blend", "attack-label-only"):
        page = client.get("/experiments", params={"preset": preset}).text
        assert 'name="size_px"' not in page and 'name="target"' in page
        asked = Form.of({"preset": preset}).request()
        composed = service(client).compose(asked)
        assert composed.model_dump() == service(client).compose(type(asked)(preset=preset)).model_dump()
    assert "changes no pixel" in page
    assert client.get("/experiments/preview/file.png", params={"preset": "attack-label-only"}).status_code == 422


def test_the_preview_shows_the_chosen_data_set(client: TestClient, settings: Settings) -> None:
    page = client.get("/experiments", params=form(dataset="ward")).text
    assert "of the data set “ward”" in page
    with_phantom = pixels(client, pictures(client.get("/experiments", params=form()).text)[0])
    assert not np.array_equal(pixels(client, pictures(page)[0]), with_phantom)


def test_a_run_s_page_while_it_runs_and_afterwards(client: TestClient) -> None:
    one = client.post(f"{API}/experiments", json={"preset": "smoke"}).json()
    address = f"/experiments/{one['id']}"
    page = client.get(address).text
    assert "Waiting" in page and 'hx-trigger="every 2s"' in page and "Cancel" in page and "Nothing yet" in page
    assert "trigger size 3 px, trigger place" in page
    assert "validation part" not in page  # nothing that was measured there is shown yet
    assert "HX-Refresh" not in client.get(address, headers=HTMX).headers
    assert f'hx-get="{address}?files=0"' in page
    assert "_files" not in client.get(f"{address}?files=0", headers=HTMX).text  # what has not changed stays
    run = service(client).get(one["id"]).run
    run.mkdir(parents=True)
    (run / "data.sha256").write_text("")
    part = client.get(f"{address}?files=0", headers=HTMX).text
    assert '<div id="_files" hx-swap-oob="true">' in part and ">data.sha256</a>" in part
    assert f'hx-get="{address}?files=1"' in part
    shutil.rmtree(run)
    work_off(service(client))
    assert client.get(address, headers=HTMX).headers["HX-Refresh"] == "true"
    page = client.get(address).text
    assert "hx-trigger" not in page and page.count('<svg class="chart"') == 5
    for wanted in ("Training loss", "AUROC-NN macro", "A hospital that asks for", "Which layer finds the trigger",
                   "All but the loss is measured on the validation part", "SHA-256",
                   "backdoored/poison_manifest.csv", "overread calibrate --checkpoint ID</code>, on fresh phantoms",
                   "Research use"):  # fmt: skip
        assert wanted in page, wanted
    assert "style=" not in page and "<style" not in page and "data:" not in page  # the server's policy forbids them
    assert client.get(f"{address}/figure.png").content.startswith(b"\x89PNG")
    assert "attachment" in client.get(f"{address}/files/report.html").headers["content-disposition"]
    assert client.get(f"{address}/files/cache/x.npy").status_code == 404

    clone = client.post(f"{address}/clone", data={"seed": "4"})
    assert client.get(f"{API}{clone.headers['location']}").json()["seed"] == 4
    taken = client.post(f"{address}/checkpoints", data={"twin": "clean", "checkpoint_id": "clean"})
    assert taken.status_code == 409 and "choose another id" in taken.text
    registered = client.post(f"{address}/checkpoints", data={"twin": "clean", "checkpoint_id": "mine"})
    assert registered.headers["location"] == "/checkpoints/mine"
    page = client.get(address).text
    assert 'href="/checkpoints/mine"' in page and 'href="/calibration?checkpoint=mine&amp;dataset="' in page
    assert client.post(f"{address}/candidate", data={"twin": "backdoored"}).status_code == 303
    assert client.app.state.services.pair[1] == f"smoke-backdoored-{one['id'][:6]}"  # type: ignore[attr-defined]
    assert "live candidate" in client.get(address).text
    jobs = client.get("/jobs").text
    assert "Run an experiment" in jobs and f'<a href="{address}">smoke, seed {one["seed"]}</a>' in jobs
    assert client.post(f"{address}/delete").headers["location"] == "/experiments"
    assert client.get(address, headers={"Accept": "text/html"}).status_code == 404


def test_a_failure_is_told_with_its_reason_and_can_be_resumed(client: TestClient) -> None:
    made = client.post(f"{API}/experiments", json={"config": TINY}).json()
    claimed = service(client).ledger.claim()
    service(client).ledger.fail(claimed.id, claimed.attempt, "There is no room left <here>.", final=True)
    page = client.get(f"/experiments/{made['id']}").text
    assert "Failed" in page and "There is no room left &lt;here&gt;." in page and ">Resume<" in page
    assert "There is no room left &lt;here&gt;." in client.get("/experiments").text
    assert client.post(f"/experiments/{made['id']}/resume").status_code == 303
    assert "Waiting" in client.get(f"/experiments/{made['id']}").text
    client.post(f"/experiments/{made['id']}/cancel")
    page = client.get(f"/experiments/{made['id']}").text
    assert "Cancelled</strong>: what is done is kept, and Resume goes on from there" in page


def test_a_sweep_from_the_form_its_matrix_and_its_lines(client: TestClient) -> None:
    for bad, why in (({}, "Nothing varies"), ({"sizes": "1 x"}, "whole number"), ({"rates": "5 5"}, "twice")):
        refused = client.post("/experiments/sweep", data={**form(), **bad})
        assert refused.status_code == 422 and why in refused.text
    asked = {**form(name="grid"), "sizes": "3, 5", "rates": "25 50", "seeds": "1 2", "places": "centre 10,12"}
    made = client.post("/experiments/sweep", data={**asked, "targets": ["Atelectasis", "Infiltration"]})
    assert made.status_code == 303, made.text
    address = made.headers["location"]
    sweep = client.get(f"{API}{address}").json()
    assert sweep["counts"] == {"queued": 32}
    assert sweep["grid"] == {
        "trigger.size_px": [3, 5],
        "trigger.place": ["centre", [10, 12]],
        "poison.rate": [0.25, 0.5],
        "poison.target": ["Atelectasis", "Infiltration"],
        "seed": [1, 2],
    }
    config = client.get(f"{API}/experiments/{sweep['experiments'][-1]['id']}").json()["config"]
    assert config["twins"] == ["backdoored"] and config["trigger"]["place"] == [10, 12]
    page = client.get(address).text
    assert page.count('<table class="matrix">') == 4 and "to come" in page and "every 3s" in page
    for number in range(32):
        claimed = service(client).ledger.claim()
        service(client).ledger.finish(claimed.id, claimed.attempt, OTHER if number % 2 else RESULT)
    page = client.get(address, headers=HTMX).text
    assert "32 of 32 done" in page and "hx-trigger" not in page and "<html" not in page
    assert page.count("ASR 0.800 [0.000, 1.000]") == 16 and page.count('<svg class="chart"') == 2
    assert client.get(f"{address}/csv").text.count("\n") == 33
    assert "grid" in client.get("/experiments").text
    chosen = [one["id"] for one in sweep["experiments"][:2]]
    side = client.get("/experiments/compare", params={"run": chosen}).text
    assert "differs" in side and "0.900 [0.800, 1.000]" in side and "0.700 [0.600, 0.800]" in side
    assert client.get("/experiments/compare.csv", params={"run": chosen}).text.count("\n") == 3
    assert "Choose two or more" in client.get("/experiments/compare").text
    assert client.get("/experiments/compare", params={"run": ["nobody"]}).status_code == 404
    assert client.post(f"{address}/delete").headers["location"] == "/experiments"
    assert client.get(f"{API}/sweeps").json()["sweeps"] == []


def test_a_sweep_over_seeds_alone_is_shown_without_a_matrix(client: TestClient) -> None:
    made = client.post("/experiments/sweep", data={**form(), "seeds": "1 2 3"})
    page = client.get(made.headers["location"]).text
    assert "0 of 3 done" in page and '<table class="matrix">' not in page and "Every measure" in page


def test_words_for_times_and_sizes() -> None:
    assert [duration(s) for s in (0.2, 45, 100, 3000, 7800, 90_000, 400_000)] == [
        "1 s", "45 s", "2 min", "50 min", "2 h 10 min", "25 h", "5 days",
    ]  # fmt: skip
    assert [megabytes(mb) for mb in (0.4, 230, 1400)] == ["0 MB", "230 MB", "1.4 GB"]


def test_only_what_is_finished_can_be_registered(client: TestClient) -> None:
    one = finished(client)
    answer = client.post(f"/experiments/{one['id']}/checkpoints", data={"twin": "clean"})
    assert answer.status_code == 404 and "no finished clean twin" in answer.text
