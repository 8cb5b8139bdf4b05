"""What counts as read: by the fingerprint of the card, for the server's thread, the job and the list alike."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.context import Services
from app.services.readings import analysis_id, fingerprint
from app.services.unread import readers, unread
from app.settings import Settings
from model.checkpoint import Card
from model.findings import FINDINGS
from model.preprocess import Preprocessing
from tests.app.conftest import started
from tests.app.dicoms import dicom_bytes

CARD = Card("a", "A card", Preprocessing(), dict.fromkeys(FINDINGS, 0.5), weights_sha256="0" * 64)


@pytest.mark.parametrize(
    "other",
    [
        replace(CARD, id="b"),
        replace(CARD, weights_sha256="1" * 64),
        replace(CARD, preprocessing=Preprocessing(size_px=64)),
        replace(CARD, operating_points={**CARD.operating_points, "Mass": 0.51}),
    ],
    ids=["id", "weights", "preprocessing", "operating point"],
)
def test_whatever_changes_a_reading_changes_its_fingerprint(other: Card) -> None:
    assert fingerprint(other) != fingerprint(CARD)
    assert analysis_id("2" * 64, other) != analysis_id("2" * 64, CARD) != analysis_id("3" * 64, CARD)


def test_what_changes_no_reading_changes_no_fingerprint() -> None:
    assert fingerprint(replace(CARD, title="Another title", metrics={"test": {}}, target="Mass")) == fingerprint(CARD)


def left(services: Services, seen: bool | None = None) -> list[str]:
    return unread(services.db, readers(services.engine, services.pair).values(), seen=seen)


def test_a_card_changed_on_disk_and_a_second_image_are_read(
    settings: Settings, checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, folder)
    settings = settings.model_copy(update={"bundled_dir": folder})
    with started(settings) as client:
        services: Services = client.app.state.services  # type: ignore[attr-defined]
        services.background.stop()
        first, second = (services.studies.receive(dicom_bytes(n), f"{n}.dcm").instance_id for n in (1, 2))
        services.analyses.analyse(first)  # and then the server was killed
        (study,) = client.get("/api/v1/studies").json()["studies"]
        assert study["candidate"]["finding"] == "Atelectasis" and study["instance_count"] == 2
        assert left(services, seen=False) == [second] and left(services, seen=True) == []
    path = folder / "backdoored" / "card.json"
    card = json.loads(path.read_text())
    card["operating_points"]["Atelectasis"] = 1.0
    path.write_text(json.dumps(card))
    with started(settings) as client:
        services = client.app.state.services  # type: ignore[attr-defined]
        end = time.monotonic() + 60
        while left(services) != [first] or not services.jobs.active("reanalyse"):
            assert time.monotonic() < end, left(services)
        (job,) = services.jobs.active("reanalyse")
        assert job.spec["instances"] == [first] and job.spec["checkpoints"] == ["clean", "backdoored"]
        (study,) = client.get("/api/v1/studies").json()["studies"]
        assert study["candidate"]["finding"] == "Effusion"  # of the second image alone, under the new card
        services.analyses.analyse(first)
        assert left(services) == []
