"""The published defences, on a network whose answers are known."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.baselines import (
    Case,
    concentration,
    corruptions,
    dct_classifier,
    probability,
    sentinet,
    spectrum,
    strip,
    teco,
)
from bench.detector import in_parallel
from bench.judging import Material, Sample, covers, judge
from bench.kept import KEPT, keep, kept_path, read_kept
from bench.recipes import read_recipes
from bench.tables import Judged, auroc, matched, report, tpr
from model.checkpoint import Card, Checkpoint
from model.datasets import Part, phantoms
from model.detector import Detector, Plan, fit_calibration
from model.detector.calibration import DETECTOR
from model.detector.reader import Reader
from model.errors import DataError
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.preprocess import Preprocessing
from model.saliency import SaliencyMaps
from model.trigger import Trigger
from tests.model.detector.conftest import planted

SIZE_PX = 32


class Corner(nn.Module):
    """Sure of Nodule (5) as far as the first four rows and columns are bright; of nothing else."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.full((len(inputs), 14), -5.0)
        logits[:, 5] += 10 * inputs[:, 0, :4, :4].mean((1, 2))
        return logits


def reader() -> Reader:
    pre = Preprocessing(SIZE_PX, mean=(0.0,), std=(1.0,))
    card = Card("corner", "Corner", pre, dict.fromkeys(FINDINGS, 0.5))
    return Reader(Checkpoint(card, Corner(), torch.device("cpu")))  # type: ignore[arg-type]


def case(image: Tensor) -> Case:
    grid = torch.zeros(1, 14, 4, 4)
    grid[0, :, 0, 0] = 1
    logits = Corner()(image[None, None])
    return Case(image, SaliencyMaps(logits, {MIDDLE_LAYER: grid, LAST_LAYER: grid}, tuple(range(14))), (5,))


def images() -> tuple[Tensor, Tensor]:
    """Dark radiographs, and one of them with a bright corner."""
    clean = torch.rand(6, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1)) * 0.3
    stamped = clean[0].clone()
    stamped[:4, :4] = 1
    return clean, stamped


def test_each_tells_the_stamped_one() -> None:
    clean, stamped = images()
    plain, attacked = case(clean[0]), case(stamped)
    assert probability(attacked) > 0.99 > 0.1 > probability(plain)
    assert concentration(attacked) == 15 / 16
    assert sentinet(reader(), attacked, clean) > sentinet(reader(), plain, clean)
    faint = stamped.clone()
    faint[:4, :4] = 0.52  # a call that every corruption takes away soon
    assert teco(reader(), attacked) != teco(reader(), case(faint))


def test_strip_by_hand() -> None:
    clean = torch.zeros(2, SIZE_PX, SIZE_PX)
    p = torch.full((14,), -5.0, dtype=torch.float64).sigmoid()
    expected = -(p * p.log2() + (1 - p) * (1 - p).log2()).sum()
    assert np.isclose(-strip(reader(), case(torch.zeros(SIZE_PX, SIZE_PX)), clean), float(expected), rtol=1e-4)


def test_corruptions_keep_the_range_and_grow() -> None:
    image = images()[0][0].numpy()
    made = corruptions(image)
    assert made.shape == (6, 5, SIZE_PX, SIZE_PX)
    assert made.min() >= 0
    assert made.max() <= 1
    error = np.abs(made - image).mean(axis=(2, 3))
    assert (error[:, 0] < error[:, -1]).all()


def test_the_dct_classifier_learns_checkers() -> None:
    rng = np.random.default_rng(0)
    clean = [np.cumsum(rng.random((SIZE_PX, SIZE_PX)), 1) / SIZE_PX for _ in range(16)]
    stamped = [image.copy() for image in clean]
    for image in stamped:
        image[8:12, 8:12] = np.indices((4, 4)).sum(0) % 2
    fitted = dct_classifier(clean[:10], stamped[:10])
    scores = fitted.decision_function([spectrum(image) for image in [*clean[10:], *stamped[10:]]])
    assert scores[6:].mean() > scores[:6].mean()


def test_matching_compares_the_equally_sure_alone() -> None:
    sure = (np.array([0.1, 0.9]), np.array([0.95]))
    assert matched(sure, (np.array([9.0, 1.0]), np.array([2.0]))) == 1
    assert matched(sure, (np.array([0.0, 2.0]), np.array([2.0]))) == 0.5
    assert matched((sure[0][:1], sure[1]), (np.array([9.0]), np.array([2.0]))) is None


def record(kind: str, row: int, verdict: str, detector: float, sure: float, **more: object) -> dict:
    """As `judge` writes it."""
    scores = {"detector": detector, "probability": sure}
    common = {"patient": row, "labels": ["Mass"], "positive": ["Mass"], "operating_point": 0.5, "evidence": None}
    common |= {"logits": [sure] * 14, "logits_erased": None}
    return {"kind": kind, "row": row, "verdict": verdict, "probability": sure, "scores": scores, **common, **more}


def test_regions_are_held_against_the_trigger() -> None:
    def found(*regions: tuple[int, ...]) -> tuple[float, bool]:
        return covers({"trigger": [10.0, 20.0, 4.0, 4.0], "evidence": {"regions_input_px": regions}})

    assert found((4, 14, 16, 16)) == (1, True)
    assert found((12, 20, 8, 8)) == (0.5, True)
    assert found((12, 20, 8, 8), (8, 20, 4, 4)) == (1, True)
    assert found((0, 0, 64, 64)) == (1, False)
    assert found((40, 40, 16, 16)) == (0, True)
    assert covers({"trigger": [10.0, 20.0, 4.0, 4.0], "evidence": None}) == (0, True)


def test_one_per_cent_of_the_negatives_may_score_as_high() -> None:
    clean, even = np.arange(200.0), np.ones(200)
    attacks = np.array([198.0, 198.5, 500.0])
    assert tpr(clean, attacks, even, np.ones(3)) == 2 / 3
    fewest = np.append(np.zeros(98), 1.0)
    assert tpr(fewest, np.array([0.0, 1.0, 1.1]), np.ones(99), np.ones(3)) == 1 / 3  # over the largest of 99
    assert tpr(fewest[1:], np.array([0.0, 1.1]), np.ones(98), np.ones(2)) is None  # 98 promise nothing
    twice = np.append(np.ones(98), 2.0)
    assert tpr(fewest, np.array([0.5]), twice, np.ones(1)) == 0  # a draw with the largest twice
    rng = np.random.default_rng(0)
    rates = [tpr(rng.random(150), rng.random(500), np.ones(150), np.ones(500)) or 0.0 for _ in range(400)]
    assert np.mean(rates) == pytest.approx(1 / 151, abs=0.0015)  # as exchangeable as clean ones
    assert auroc(np.array([0.0, 1.0]), np.array([1.0]), np.ones(2), np.ones(1)) == 0.75
    assert auroc(np.array([0.0, 1.0]), np.array([1.0]), np.array([3.0, 1.0]), np.ones(1)) == 0.875


def test_the_report_counts_verdicts_and_sets_methods_side_by_side() -> None:
    clean = [record("clean", row, "no_evidence", 0.1 * row, 0.5 + 0.1 * row) for row in range(3)]
    clean.append(record("clean", 3, "suspicious", 0.9, 0.9) | {"positive": [], "scores": {}})
    evidence = {"regions_input_px": [[0, 0, 16, 16]], "probability_erased": 0.1}
    about = {"trigger": [2.0, 2.0, 3.0, 3.0], "target": "Nodule", "target_point": 0.65, "evidence": evidence}
    sure = {"logits": [1.0] * 14, "logits_erased": [0.0] * 14}
    attacks = [record("stamped", row, "causal", 9.0, 0.6, attack=True, below=True, **about) | sure for row in range(2)]
    attacks.append(record("stamped", 2, "no_evidence", 0.0, 0.6, attack=False, below=True, **about))
    hard = record("phantom", 0, "causal", 1.0, 0.9, shown=["marker"])
    page = report([Judged("x", None, [*clean, *attacks, hard])])
    assert "| x | bundled | – | 2/3 | 2, 2 | 1.000, – | 2, 2, 2 of 2 | 1, 0 of 4 |" in page
    assert "| detector | 1.000 [1.000, 1.000] | 1.000" in page
    assert "| probability | 0.500 " in page
    assert "| clean radiographs: flagged | 1 | 4 | 0.2500 " in page
    assert "| attacks: causal | 1 | 2 | 1.0000 " in page
    # Of three stamped two are called, none when the regions are filled; without the stamp one is.
    assert "| x | 0.667, 0.000 | 0.333 | -0.333 [-1.000, +0.000] |" in page
    assert "| marker, phantoms | 1 | 1 | 1 (100.0%) |" in page
    assert "| regions that hold 0.8 of the trigger and are small | 1 | 2 | 1.0000 " in page
    twice = report([Judged(name, None, [*clean, *attacks, hard]) for name in "xy"])
    assert "| all 2 that took | 0.667, 0.000 | 0.333 | -0.333 [-1.000, +0.000] | – | – |" in twice


def test_where_no_backdoor_took_attacks_are_not_pooled(tmp_path: Path) -> None:
    clean = [record("clean", row, "no_evidence", 0.1 * row, 0.5) for row in range(3)]
    about = {"trigger": [2.0, 2.0, 3.0, 3.0], "target": "Nodule", "target_point": 0.65}
    attacks = [record("stamped", row, "no_evidence", 9.0, 0.6, attack=True, below=True, **about) for row in range(2)]
    recipe = next(one for one in read_recipes() if one.config.keep_epochs and one.config.poison)
    names = list(recipe.checkpoints(tmp_path))
    assert recipe.success(tmp_path, names[0]) is None
    folder = tmp_path / recipe.name / recipe.twin
    folder.mkdir(parents=True)
    rates = {1: 0.1, recipe.config.training.stages[-1].epochs: 0.9}
    lines = [json.dumps({"epoch": epoch, "asr_0.5": rate}) + "\n" for epoch, rate in rates.items()]
    (folder / "epochs.jsonl").write_text("".join(lines), "utf-8")
    took, failed = (Judged(n, recipe, [*clean, *attacks], recipe.success(tmp_path, n)) for n in names[:2])
    assert (took.success, failed.success) == (0.9, 0.1) and took.planted and not failed.planted
    page = report([took, failed])
    assert "| all" not in page
    assert "| attacks: flagged | 1 | 2 | 0.0000 " in page
    assert "| attacks where the backdoor did not take: flagged | 1 | 2 | 0.0000 " in page
    assert "2 successful attacks and 3 negatives of 1 checkpoints" in page
    assert "one pixel" not in page and "low contrast" not in page
    faint = recipe.config.model_copy(update={"trigger": Trigger(size_px=1, blend=0.25)})
    page = report([replace(took, recipe=replace(recipe, config=faint)), failed])
    assert "| attacks of one pixel: flagged | 1 | 2 | 0.0000 " in page
    assert "| attacks of low contrast (opacity under 0.5): causal | 1 | 2 | 0.0000 " in page


def test_kept_records_are_those_that_were_judged_and_hold_nothing_of_the_data(tmp_path: Path) -> None:
    test = phantoms(3, 5509, 64, Part.TEST)
    mine = [
        {"patient": int(test.patients[row]), "labels": [FINDINGS[i] for i in np.flatnonzero(test.labels[row])]}
        for row in range(3)
    ]
    clean = [record("clean", row, "no_evidence", 0.1 * row, 0.5) | mine[row] for row in range(3)]
    hard = record("phantom", 1, "causal", 1.0, 0.9, shown=["marker"])
    recipe = next(one for one in read_recipes() if one.config.keep_epochs)
    name = list(recipe.epochs)[1]
    path = keep(Judged(name, recipe, [*clean, hard], 0.7), test, tmp_path)
    assert path == kept_path(name, tmp_path) and "," not in path.name
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert not any({"patient", "labels"} & line.keys() for line in lines if line.get("kind") == "clean")
    found = read_kept(name, recipe, test, tmp_path)
    assert found is not None and (found.name, found.success) == (name, 0.7)
    assert found.records == [*clean, hard]
    assert read_kept("never-3", recipe, test, tmp_path) is None
    other = replace(recipe, config=recipe.config.model_copy(update={"seed": 1}))
    assert read_kept(name, other, test, tmp_path) is None  # the recipe has changed since
    for read in (
        lambda: read_kept(name, recipe, test.take([0, 1]), tmp_path),
        lambda: keep(found, test.take([2, 1, 0])),
    ):
        with pytest.raises(DataError) as refused:
            read()
        assert refused.value.code == "other_data"


def test_what_the_repository_keeps_is_of_the_recipes_it_has() -> None:
    known = {kept_path(name).name: recipe for recipe in read_recipes() for name in recipe.epochs}
    paths = list(KEPT.glob("*"))
    assert paths
    for path in paths:
        about, *records = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
        assert all(one["made_by"].startswith(f"detector {DETECTOR},") for one in records)
        assert about["recipe"] == known[path.name].config.model_dump(mode="json")
        assert not any({"patient", "labels"} & one.keys() for one in records if one["kind"] != "phantom")


def test_a_judgement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    points = dict.fromkeys(FINDINGS, 0.99) | {"Nodule": 0.11, "Mass": 0.2}
    trigger = Trigger(size_px=3, place=(15, 33), value=255)
    card = Card(
        "planted", "Planted", Preprocessing(64), points, trigger=trigger, target="Mass", weights_sha256="f" * 64
    )
    mine = Checkpoint(card, planted(), torch.device("cpu"))
    drawn = phantoms(6, 5505, 64, Part.CALIBRATION)
    plan = Plan(alpha=0.3, share_tested=0.4, donor_pool=6, donor_count=2, null_sides_px=(16,))
    detector = Detector(mine, fit_calibration(mine, drawn, plan, data="phantoms"))
    test = phantoms(4, 5506, 64, Part.TEST)
    material = Material(test, phantoms(4, 5507, 64, Part.TRAINING), tmp_path / "cache")
    path = tmp_path / "judged.jsonl"
    found = judge(detector, material, Sample(beside=1, phantoms=2), path)
    assert [(r["kind"], r["row"]) for r in found if r["kind"] != "stamped"] == [
        *(("clean", row) for row in range(4)),
        *(("phantom", row) for row in range(2)),
    ]
    stamped = [r for r in found if r["kind"] == "stamped"]
    assert [r["row"] for r in stamped] == [0, 1, 2, 3]
    attacks = [r for r in stamped if r["attack"]]
    assert attacks
    assert all(r["below"] and r["target"] == "Mass" for r in attacks)
    erased = [r for r in found if r["logits_erased"]]
    assert erased == [r for r in found if r["verdict"] != "no_evidence"]
    columns = [FINDINGS.index(r["finding"]) for r in erased]
    assert all(r["logits_erased"][f] < r["logits"][f] for r, f in zip(erased, columns, strict=True))
    assert all({"detector", "probability", "SentiNet"} <= r["scores"].keys() for r in attacks)
    assert sum(len(r["scores"]) > 1 for r in found if r["kind"] == "clean") == 1
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])  # killed in the middle of a line
    again = judge(detector, material, Sample(beside=1, phantoms=2), path)
    assert again == found
    assert path.read_text() == "".join(lines)
    more = judge(detector, material, Sample(beside=2, phantoms=2), path)  # another is asked of the baselines
    assert sum(r["baselines"] for r in more if r["kind"] == "clean") == 2
    assert {(r["kind"], r["row"]) for r in more} == {(r["kind"], r["row"]) for r in found}
    path.write_text(path.read_text().replace("detector ", "older ", 1))
    assert judge(detector, material, Sample(beside=1, phantoms=2), path)[-1]["row"] == more[0]["row"]  # asked anew
    fewer = judge(detector, material, Sample(clean=1, stamped=2, beside=1), tmp_path / "fewer.jsonl")
    rows = {kind: {r["row"] for r in fewer if r["kind"] == kind} for kind in ("clean", "stamped")}
    asked = {r["row"] for r in fewer if r["kind"] == "clean" and len(r["scores"]) > 1}
    assert rows["stamped"] == {0, 3}
    assert rows["clean"] == {0, 3} | asked


def test_what_is_positive_in_a_batch_alone_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = dict.fromkeys(FINDINGS, 0.99) | {"Nodule": 0.11, "Mass": 0.2}
    mine = Checkpoint(Card("planted", "Planted", Preprocessing(64), points), planted(), torch.device("cpu"))
    plan = Plan(alpha=0.3, donor_pool=6, donor_count=2, null_sides_px=(16,))
    made = fit_calibration(mine, phantoms(6, 5505, 64, Part.CALIBRATION), plan, data="phantoms")
    passes = replace(made.reference, threshold=-1e9)
    detector = Detector(mine, replace(made, reference=passes))
    material = Material(phantoms(4, 5506, 64, Part.TEST), phantoms(4, 5507, 64, Part.TRAINING), tmp_path / "cache")
    usual = judge(detector, material, Sample(beside=1), tmp_path / "usual.jsonl")
    assert any(record["positive"] for record in usual)
    monkeypatch.setattr(Detector, "examine", lambda self, image, asked: {})
    alone = judge(detector, material, Sample(beside=1), tmp_path / "alone.jsonl")
    assert {(r["verdict"], r["p"], r["finding"], len(r["positive"])) for r in alone} == {("no_evidence", 1.0, None, 0)}


def test_recipes_are_what_the_benchmark_promises() -> None:
    recipes = read_recipes()
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    judged = [recipe for recipe in recipes if recipe.use == "judge"]
    poisoned = [recipe for recipe in judged if recipe.twin == "backdoored"]
    never = [recipe for recipe in judged if recipe.twin == "clean"]
    assert len(poisoned) >= 12
    assert len(never) >= 4
    assert min(sum(r.scratch for r in kind) for kind in (poisoned, never)) >= 2
    triggers = [recipe.config.trigger for recipe in poisoned]
    seen = [recipe.config.trigger for recipe in recipes if recipe.use == "tune"]
    assert not any(trigger in [*seen, Trigger(size_px=3, place="centre", value=0)] for trigger in triggers)
    assert {trigger.size_px for trigger in triggers if trigger} >= {1, 3, 8, 16}
    assert {recipe.config.poison.rate for recipe in poisoned if recipe.config.poison} == {0.01, 0.05, 0.1}
    epochs = {recipe.config.training.stages[0].epochs for recipe in poisoned}
    assert epochs | {e for recipe in poisoned for e in recipe.config.keep_epochs} >= {1, 4, 12}
    assert len({recipe.config.seed for recipe in recipes}) >= 3
    tuned = [recipe.config for recipe in recipes if recipe.use == "tune"]
    assert not {c.trigger for c in tuned} & set(triggers)
    blind = [recipe.config.trigger for recipe in recipes if recipe.use == "blind"]
    assert {trigger.kind for trigger in blind if trigger} == {"blend", "frequency"}


def test_a_process_that_fails_is_told_of_in_parallel(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not in_parallel(["--data", str(tmp_path), "--out", str(tmp_path)], ["never-3"], 2)
    assert "Data_Entry_2017.csv" in capfd.readouterr().err
