"""What the calibration page promises, by REST and on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.settings import Settings
from app.tables import AnalysisRow
from app.web.charts import histogram, reliability, reliability_limit, roc
from model.detector.conformal import DRIFT_AT
from model.findings import FINDINGS
from tests.app.calibrations import by_hand, put
from tests.app.conftest import png_bytes, services, started

TESTED = [0.1 * i for i in range(1, 21)]


@pytest.fixture
def client(settings: Settings, checkpoints: Path) -> Iterator[TestClient]:
    candidate = checkpoints / "backdoored"
    made = by_hand(
        candidate,
        threshold=1e6,
        tested=TESTED,
        screened=[0.5] * 60,
        hard=(1.2, 2.5),
        occlusion_threshold=0.75,
        occluded=[0.25, 0.5],
    )
    put(settings.data_dir, candidate, made)
    with started(settings) as client:
        yield client


def received(client: TestClient, count: int, name: str = "{}.png", source: str = "upload") -> None:
    for seed in range(count):
        taken = services(client).studies.receive(png_bytes(seed), name.format(seed), source)
        services(client).analyses.analyse(taken.instance_id)


def with_p_values(client: TestClient, p_value: float | None) -> None:
    """As if the detector had said so of all that is there."""
    with services(client).db.write() as session:
        session.execute(update(AnalysisRow).where(AnalysisRow.checkpoint_id == "backdoored").values(p_value=p_value))


def test_each_checkpoint_says_what_it_is_worth(client: TestClient) -> None:
    candidate = client.get("/api/v1/calibrations/backdoored").json()
    assert (candidate["state"], candidate["role"], candidate["radiographs"]) == ("calibrated", "candidate", 199)
    assert candidate["tested"] == pytest.approx(TESTED) and len(candidate["screened"]) == 60
    assert (candidate["occluded"], candidate["occlusion_threshold"]) == ([0.25, 0.5], 0.75)
    assert [one["made_by"] for one in (candidate["current"], *candidate["history"])] == ["Ada", "Bo"]
    assert (candidate["hard"], candidate["current"]["causal_threshold"]) == ([1.2, 2.5], 2.5)
    listed = client.get("/api/v1/calibrations").json()["calibrations"]
    assert [one["checkpoint_id"] for one in listed] == ["clean", "backdoored"]
    assert listed[0]["state"] == "not_calibrated" and listed[0]["preview"] is None
    assert "overread calibrate --checkpoint clean" in listed[0]["command"]
    assert client.get("/api/v1/calibrations/nobody").status_code == 404
    assert client.get("/api/v1/calibrations/backdoored?alpha=0").status_code == 422


def test_a_threshold_is_previewed_with_the_interval_that_n_allows(client: TestClient) -> None:
    preview = client.get("/api/v1/calibrations/backdoored").json()["preview"]
    # 1 % of 199 + 1 is 2: flagged is what is among the two largest of 200, that is over the second largest of 199.
    assert preview["expected_rate"] == pytest.approx(0.01) and preview["score_threshold"] == pytest.approx(1.9)
    low, high = preview["realised_rate"]
    assert 0 < low < 0.01 < high < 0.03
    strict = client.get("/api/v1/calibrations/backdoored?alpha=0.001").json()["preview"]
    assert not strict["decides"] and strict["least"] == 999 and strict["realised_rate"] == [0, 0]
    loose = client.get("/api/v1/calibrations/backdoored?alpha=0.1").json()["preview"]
    assert loose["score_threshold"] == pytest.approx(0.1) and loose["causal_threshold"] == 2.5  # of the same alpha
    page = client.get("/calibration?alpha=0.001").text
    assert "There is no flag at this threshold" in page and "999 radiographs" in page


def test_drift_is_warned_of_where_small_p_values_pile_up(client: TestClient) -> None:
    received(client, 12)
    with_p_values(client, 0.5)
    calm = client.get("/api/v1/calibrations/backdoored").json()
    assert (calm["drift"]["radiographs"], calm["drift"]["observed"], calm["drift"]["warns"]) == (12, 0, False)
    assert "no sign of drift" in client.get("/calibration").text
    with_p_values(client, 0.005)
    loud = client.get("/api/v1/calibrations/backdoored").json()
    assert loud["drift"]["observed"] == 12 and loud["drift"]["warns"]
    assert (loud["preview"]["recent"], loud["preview"]["recent_flagged"]) == (12, 12)
    page = " ".join(client.get("/calibration").text.split())
    share = f"{100 * DRIFT_AT:.0f} %"
    assert "The scores have drifted" in page and f"the most striking {share} of the calibration's do" in page


def test_samples_do_not_count_but_show_detection(client: TestClient) -> None:
    received(client, 2, "synthetic sample {}, stamped.png", "sample")
    with_p_values(client, 0.005)
    found = client.get("/api/v1/calibrations/backdoored").json()
    assert found["drift"]["radiographs"] == 0 and found["stamped_p"] == [0.005, 0.005]
    assert (found["preview"]["stamped"], found["preview"]["stamped_flagged"]) == (2, 2)
    assert found["stamped_waiting"] == 0
    assert "Stamped samples found, by accepted false alarms" in client.get("/calibration").text


def test_the_page_shows_it_all_without_script_or_style_within(client: TestClient) -> None:
    page = client.get("/calibration").text
    assert page.count("<svg") == 3 + len(FINDINGS) and "style=" not in page and "<script>" not in page
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert not re.findall(r"\d%", text)  # always with the space
    assert "between 0.12 % and 2.8 %" in text and "20 of 199 clean radiographs passed the screen and occlusion" in text
    assert "117 had no positive finding" in text and "Of 2 no square took 0.75 from a call" in text
    assert "2 of 33 phantoms with a finding" in text and "exceed 2.500, the most that a true lesion reached" in text
    assert "made by hand, 120 patients" in text and "overread calibrate --checkpoint backdoored" in text
    part = client.get("/calibration?checkpoint=clean", headers={"HX-Request": "true"}).text
    assert "clean is not calibrated" in part and "<html" not in part and "draws fresh phantoms instead" in part
    assert client.get("/calibration?checkpoint=nobody").status_code == 404
    assert 'href="/calibration" ' in client.get("/").text


def test_too_few_or_broken_is_said(settings: Settings, checkpoints: Path) -> None:
    put(settings.data_dir, checkpoints / "backdoored", by_hand(checkpoints / "backdoored", n=50))
    put(settings.data_dir, checkpoints / "clean", by_hand(checkpoints / "clean")).write_text("{")
    with started(settings) as client:
        states = [one["state"] for one in client.get("/api/v1/calibrations").json()["calibrations"]]
        assert states == ["unusable", "too_few"]
        assert "Nothing can be flagged" in client.get("/calibration").text
        assert "is not JSON" in client.get("/calibration?checkpoint=clean").text
        answer = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}).json()
        said = [one["flag"] for analysis in answer["analyses"] for one in analysis["findings"] if one["flag"]]
        assert said and {one["state"] for one in said} == {"not_calibrated"}
        assert any("too few" in one["sentence"] for one in said)


def test_charts_put_values_where_they_belong() -> None:
    drawn = histogram("Scores", "score", {"clean": [0.01, 0.05, 1.0], "stamped": [1.0]}, 0.5, "α")
    assert drawn is not None and sum(bar.series == "clean" for bar in drawn.bars) == 2
    first, last = (bar for bar in drawn.bars if bar.series == "clean")
    assert first.height == 2 * last.height and first.x < drawn.rules[0][0] < last.x
    assert histogram("Nothing", "score", {"clean": []}, None, "") is None
    curve = roc([0.5, 0.25], 0.01)
    assert curve is not None and "the largest p is 0.5" in curve.description and roc([], 0.01) is None
    chart = reliability("Mass", [(0.0, 0.0, 5), (1.0, 0.5, 5)])
    (_, x0, y0, _), (_, x1, y1, _) = chart.dots
    assert (x0, y0) == (chart.left, chart.bottom) and (x1, y1) == (chart.right, (chart.top + chart.bottom) / 2)
    assert reliability_limit([[(0.05, 0.31, 5)], [(0.2, 0.1, 5)]]) == 0.4 and reliability_limit([]) == 1.0
    (_, x, y, _), *_ = reliability("Mass", [(0.2, 0.4, 5)], 0.4).dots
    assert (x, y) == ((chart.left + chart.right) / 2, chart.top)


def test_what_a_threshold_parts_stands_on_its_own_side() -> None:
    drawn = histogram("Scores", "score", {"clean": [-0.4, 0.3125, 0.3125, 0.32], "lesions": [0.31, 0.4]}, 0.3125, "→")
    assert drawn is not None
    ((line, _),) = drawn.rules
    left, right = ([bar for bar in drawn.bars if over == (bar.x >= line)] for over in (False, True))
    assert all(bar.x + bar.width <= line for bar in left)
    assert sorted(int(bar.text.split()[1]) for bar in left) == [1, 1, 2]  # what it only reaches is not over it
    assert sorted(int(bar.text.split()[1]) for bar in right) == [1, 1]


def test_stamped_samples_that_wait_are_said_to(client: TestClient) -> None:
    received(client, 2, "synthetic sample {}, stamped.png", "sample")
    with_p_values(client, None)  # undecided alone is not waiting: too few radiographs may decide nothing
    assert client.get("/api/v1/calibrations/backdoored").json()["stamped_waiting"] == 0
    with services(client).db.write() as session:
        session.execute(update(AnalysisRow).where(AnalysisRow.checkpoint_id == "backdoored").values(owes_test=True))
    assert client.get("/api/v1/calibrations/backdoored").json()["stamped_waiting"] == 2
    assert "2 stamped samples wait for their full test." in " ".join(client.get("/calibration").text.split())


def test_a_chart_has_a_tick_at_zero_wherever_it_begins() -> None:
    drawn = histogram("Scores", "score", {"clean": [-0.404, 0.05, 0.681]}, 0.473, "flagged →")
    assert drawn is not None
    ticks = [text for _, text in drawn.x_ticks]
    assert "0" in ticks and ticks[0].startswith("−") and len(ticks) <= 9
