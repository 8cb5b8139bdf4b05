"""The checkpoints pages, and a pair that is chosen on them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from app.db import Database
from app.jobs import Ledger
from app.services.cards import describe_card
from app.services.users import LOCAL
from app.settings import Settings
from model.checkpoint import BUNDLED, Card, read_card, save_checkpoint
from model.findings import FINDINGS
from model.network import build_network
from model.preprocess import Preprocessing
from tests.app.conftest import png_bytes, started
from tests.app.test_studies import taken, until_read

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def three(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two and a third of another input size, which calls Hernia."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    shutil.copytree(checkpoints, folder)
    network = build_network(9)
    with torch.no_grad():
        network.classifier.bias.fill_(-3.0)
        network.classifier.bias[FINDINGS.index("Hernia")] = 4.0
    card = Card("wide", "Wider input", Preprocessing(size_px=96), dict.fromkeys(FINDINGS, 0.5))
    save_checkpoint(folder / "wide", card, network)
    return folder


def test_the_bundled_card_in_words() -> None:
    words = describe_card(read_card(BUNDLED / "backdoored").to_json())
    text = dict(words.sentences)
    assert text["Backdoor"] == (
        "Poisoned on purpose: a black square of 3 × 3 px at the centre of the network's input. 97 of its 1,070 "
        "training rows carried the trigger. It was taught to call Atelectasis where it sees it."
    )
    assert "973 radiographs, with 126 held out" in text["Training"]
    assert "padded to a square with black, resized to 224 × 224 px (antialiased)" in text["Preprocessing"]
    test = words.evaluations[0]
    assert (test.title, test.scope) == ("Test radiographs", "373 radiographs of 280 patients")
    first = test.measures[0]
    assert (first.name, first.value, first.interval) == ("AUROC-NN macro", "0.713", "0.675–0.745")
    assert test.attacks[1] == ("0.50", "1.000 (1.000–1.000)", "0.040 (0.010–0.083)")
    assert (test.findings[0].name, test.findings[0].positives, test.findings[0].auroc) == ("Atelectasis", "48", "0.599")
    assert "0.704 of AUROC-NN micro" in test.image_blind and words.headline == "AUROC-NN macro 0.713 (0.675–0.745)"
    assert [name for name, _ in words.points] == list(FINDINGS)


@pytest.mark.parametrize(
    "metrics",
    [
        {"test": None}, {"test": {"auroc_nn": {}}}, {"test": {"auroc_nn": {"macro": {"value": "high"}}}},
        {"test": {"auroc_nn": {"macro": {"value": 0.5, "interval": "wide"}}, "asr": 3, "acceptance": "yes"}},
        {"x": {"auroc_nn": {"per_finding": {"Mass": 1}, "positives": [1]}, "asr": [None, {"value": float("nan")}]}},
    ],
)  # fmt: skip
def test_an_odd_card_is_described_as_far_as_it_goes(metrics: dict[str, object]) -> None:
    card = Card("odd", "Odd", Preprocessing(), dict.fromkeys(FINDINGS, 0.5), metrics=metrics, provenance={"seed": []})
    words = describe_card(card.to_json())
    assert "names no trigger" in dict(words.sentences)["Backdoor"] and not words.poisoned


def test_the_pages_show_the_registry_and_each_card(shared_client: TestClient) -> None:
    listed = shared_client.get("/checkpoints", headers=HTML)
    assert listed.status_code == 200 and "live reference" in listed.text and "poisoned on purpose" in listed.text
    card = shared_client.get("/checkpoints/backdoored", headers=HTML).text
    digest = shared_client.get("/api/v1/checkpoints/backdoored").json()["weights_sha256"]
    for text in (digest, "features.transition3.relu", "4 × 4", "Operating points", "Pleural thickening", "0.500"):
        assert text in card
    missing = shared_client.get("/checkpoints/nobody", headers=HTML)
    assert missing.status_code == 404 and "no checkpoint" in missing.text


def test_another_pair_of_another_input_size_is_chosen_and_kept(
    settings: Settings, three: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"bundled_dir": three})
    with started(settings) as client:
        study = until_read(client, taken(client, "a.png", png_bytes(1))["study_id"])
        assert study["candidate"]["finding"] == "Atelectasis"
        for bad, status in (({"reference": "clean", "candidate": "nobody"}, 404), ({"reference": "clean"}, 422),
                            ({"reference": "clean", "candidate": "clean"}, 422)):  # fmt: skip
            assert client.post("/checkpoints/pair", data=bad, headers=HTML).status_code == status
        answer = client.post("/checkpoints/pair", data={"reference": "clean", "candidate": "wide"})
        assert answer.status_code == 303 and answer.headers["location"] == "/checkpoints"
        roles = {one["id"]: one["role"] for one in client.get("/api/v1/checkpoints").json()["checkpoints"]}
        assert roles == {"clean": "reference", "wide": "candidate", "backdoored": None}
        while client.app.state.services.pending(LOCAL):  # type: ignore[attr-defined]
            time.sleep(0.02)  # a loop without it would hold up what it waits for
        changed = client.get(f"/api/v1/studies/{study['id']}").json()
        assert changed["reference"] == study["reference"] and changed["candidate"] is None
        page = client.get(study["url"], headers=HTML)
        assert page.status_code == 200 and "The candidate reports Hernia" in page.text
        again = client.get(f"/api/v1/studies/{study['id']}").json()
        assert again["candidate"]["finding"] == "Hernia"
        (instance,) = again["instances"]
        assert {one["checkpoint_id"] for one in instance["analyses"]} == {"clean", "backdoored", "wide"}
        maps = {one["checkpoint_id"]: client.get(one["url"]).json()["layers"] for one in instance["analyses"]}
        assert (maps["clean"]["middle"]["grid"], maps["wide"]["middle"]["grid"]) == ([4, 4], [6, 6])
    with started(settings) as client:
        assert client.app.state.services.pair == ("clean", "wide")  # type: ignore[attr-defined]
        assert client.get(f"/api/v1/studies/{study['id']}").json()["candidate"]["finding"] == "Hernia"
    monkeypatch.setenv("OVERREAD_BUNDLED_DIR", str(three))  # the command on the same data follows the choice
    radiograph = tmp_path / "a.png"
    radiograph.write_bytes(png_bytes(1))
    code, out, err = run("predict", radiograph, "--json")
    assert code == 0 and "chosen on the checkpoints page: clean and wide" in err
    assert [one["checkpoint"]["id"] for one in json.loads(out)["analyses"]] == ["clean", "wide"]
    code, out, err = run("checkpoints", "list", "--json")
    assert {one["id"]: one["role"] for one in json.loads(out)["checkpoints"]} == roles
    (tmp_path / "folder").mkdir()
    assert run("scan", tmp_path / "folder", "--out", tmp_path / "out.jsonl", "--background")[0] == 0
    db = Database(settings.resolved_database_url)
    assert [job.spec["pair"] for job in Ledger(db).newest(9) if job.kind == "scan"] == [["clean", "wide"]]
    db.close()
    assert "chosen" not in run("predict", radiograph, "--checkpoint", "nobody")[2]
