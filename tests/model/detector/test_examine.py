"""From a radiograph to a flag, with its proof; and calibration as a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.datasets import Part, input_images, phantoms
from model.detector import (
    Calibration,
    Detector,
    Flag,
    Origin,
    Plan,
    Reference,
    calibration_folders,
    fit_calibration,
    read_calibration,
    read_history,
    reading_digest,
    write_calibration,
)
from model.detector.cause import Rank
from model.detector.donors import Donors
from model.detector.hard import hard_negatives
from model.detector.measure import NOT_RANKED, locate, measure, open_radiograph
from model.detector.nulls import Nulls, spread_of
from model.detector.reader import Reader, positives
from model.detector.regions import Patch
from model.detector.screen import screen
from model.detector.words import in_words
from model.errors import CheckpointError, ConfigError
from model.findings import FINDINGS
from model.preprocess import Preprocessing
from model.saliency import gradcam
from model.words import number
from tests.model.detector.conftest import SIZE_PX, planted

TRIGGER = (21, 41, 7, 7)


@pytest.fixture(scope="module")
def calibration(checkpoint: Checkpoint, donors: Donors, nulls: Nulls) -> Calibration:
    """As 199 radiographs might have made it."""
    reference = Reference(199, 2.0, (0.1, 0.2, 0.4), (0.5, 0.7, 1.9), (-0.1, 0.3, 1.0), (-1.0, -0.02, 0.4), 33, (0.5,))
    origin = Origin("2026-11-25T00:00:00+00:00", "Ada", "abc", "phantoms", "0" * 64, 120, 3.0)
    return Calibration("planted", "f" * 64, reading_digest(checkpoint.card), reference, nulls, donors.names, origin)


@pytest.fixture(scope="module")
def detector(checkpoint: Checkpoint, calibration: Calibration) -> Detector:
    return Detector(checkpoint, calibration)


@pytest.fixture(scope="module")
def flag(detector: Detector, pair: torch.Tensor) -> Flag:
    """Of the radiograph with the trigger."""
    flags = detector.examine(pair[1])
    assert list(flags) == ["Mass"]
    return flags["Mass"]


def test_a_trigger_is_the_cause_and_the_region_holds_it(flag: Flag) -> None:
    assert (flag.state, flag.verdict, flag.p, flag.alpha) == ("final", "causal", 1 / 200, 0.01)
    assert flag.evidence is not None
    found = flag.evidence.to_json()
    assert (found["erasure_p"], found["transplant_p"], found["transplant_flip_rate"]) == (1 / 200, 1 / 200, 1)
    assert (found["erasure_rank_p"], found["transplant_rank_p"]) == (0.01, 1 / 101)
    assert found["probability_erased"] < 0.2 < 0.99 < found["probability"]
    assert found["share"] == pytest.approx(1, abs=0.1)
    assert found["sufficient_side_px"] <= 12
    (region,) = flag.evidence.measured.regions
    x, y, side, _ = TRIGGER
    assert region.x <= x + 1
    assert region.y <= y + 1
    assert region.x + region.width >= x + side - 1
    assert region.y + region.height >= y + side - 1
    assert region.width <= 16
    point = number(1 / (1 + math.exp(-found["operating_logit"])))
    spot, core = (f"{100 * side**2 / SIZE_PX**2:.2g}" for side in (region.width, found["sufficient_side_px"]))
    assert flag.sentence == (
        f"Without a spot of {spot} % of the image the probability of Mass falls from "
        f"{number(found['probability'])} to {number(found['probability_erased'])}, under its operating point of "
        f"{point}; a square of {core} % of the image at its middle, put onto 3 healthy phantoms, turns positive 3 of "
        "the 3 that were not; erasing as much elsewhere costs as much in none of 99 places; clean radiographs score so "
        "high in at most 1 %."
    )


def wide_in_mass() -> np.ndarray:
    """Standard deviations of the findings' logits, 4 of Mass and 1 of all others."""
    spread = np.ones(14, np.float32)
    spread[FINDINGS.index("Mass")] = 4.0
    return spread


def test_falls_are_by_the_spread_of_the_findings_logit_and_scores_in_logits(
    checkpoint: Checkpoint, calibration: Calibration, pair: torch.Tensor, flag: Flag
) -> None:
    mass, spread = FINDINGS.index("Mass"), wide_in_mass()
    wide = Detector(checkpoint, replace(calibration, nulls=replace(calibration.nulls, spread=spread)))
    maps = gradcam(checkpoint.network, wide.reader.inputs(pair[1:]), keep_middle=True)
    assert wide.screen(maps)[0]["Mass"].fall == pytest.approx(flag.fall / 2)
    measured = measure(wide.reader, wide.donors, wide.calibration.nulls, open_radiograph(wide.reader, pair[1]), mass)
    assert flag.evidence is not None
    of = flag.evidence.measured
    assert measured.score == pytest.approx(of.score)
    assert measured.erasure_lead == pytest.approx(of.erasure_lead)
    assert measured.transplant_lead == pytest.approx(of.transplant_lead)


def test_the_patch_is_of_the_size_that_does_the_most_for_its_size(
    checkpoint: Checkpoint, donors: Donors, nulls: Nulls, pair: torch.Tensor
) -> None:
    reader, mass = Reader(checkpoint), FINDINGS.index("Mass")
    opened = open_radiograph(reader, pair[1])

    def side(**usual: float) -> tuple[int, float]:
        """usual: what random patches give, up to 16 px and over."""
        gains = {16: np.full((14, 99), usual["small"]), 32: np.full((14, 99), usual["large"])}
        inert = dict.fromkeys((16, 32), np.zeros(14))
        found = locate(reader, donors, replace(nulls, gains=gains, inert=inert), opened, mass)
        return found.patches[0].width, found.score

    width, found = side(small=0.0, large=0.0)
    assert width in (8, 12) and found > 0  # the trigger is of 7 px
    assert side(small=1000.0, large=0.0)[0] == 24  # where what smaller ones do is usual
    assert side(small=1000.0, large=1000.0)[1] < 0


def test_what_only_the_largest_squares_carry_is_not_proven(detector: Detector, flag: Flag) -> None:
    assert flag.p is not None
    assert flag.evidence is not None
    measured = flag.evidence.measured
    large = replace(measured, patches=(Patch(0, 0, 32, 32), Patch(32, 0, 32, 32)))
    assert detector._verdict(flag.p, flag.evidence) == "causal"
    assert detector._verdict(flag.p, replace(flag.evidence, measured=large)) == "suspicious"
    assert detector._verdict(flag.p, replace(flag.evidence, erasure_p=0.02)) == "suspicious"
    assert detector._verdict(flag.p, replace(flag.evidence, transplant_p=0.02)) == "suspicious"
    assert detector._verdict(0.02, flag.evidence) == "no_evidence"
    idle = replace(measured, drop=-0.1)  # among the largest where all others do even less
    assert idle.score <= 0
    assert detector._verdict(0.005, replace(flag.evidence, measured=idle)) == "no_evidence"


def test_a_sentence_names_every_reason_for_doubt_and_a_call_that_stands(calibration: Calibration, flag: Flag) -> None:
    assert flag.evidence is not None
    measured = flag.evidence.measured
    squares = (Patch(0, 0, 32, 32), Patch(32, 0, 32, 32))
    weak = replace(measured, patches=squares, regions=squares)
    evidence = replace(
        flag.evidence, measured=weak, erasure_p=0.02, transplant_p=0.02, hard_p=0.5, probability_erased=0.9
    )
    said = in_words("Mass", "suspicious", evidence, calibration, SIZE_PX)
    assert "Without spots of 50 % of the image the probability of Mass falls from 1.00 to 0.90, still over its" in said
    assert (
        "; squares of 50 % of the image at their middle, put onto 3 healthy phantoms, turn positive 3 of the 3 " in said
    )
    fewer = replace(evidence, measured=replace(weak, regions=squares[:1]))
    said_of_fewer = in_words("Mass", "suspicious", fewer, calibration, SIZE_PX)
    assert "Without a spot of 25 % of the image" in said_of_fewer
    assert "; squares of 50 % of the image at its middle and elsewhere, put onto 3" in said_of_fewer
    assert said.endswith(
        "that the spot causes the call is not proven, for true lesions of phantoms score as high, and for their size "
        "no smaller squares do more than the largest tried, and erasing spots of clean radiographs costs as much, and "
        "spots of clean radiographs do as much to others."
    )
    common = replace(weak, erasure_rank=NOT_RANKED, transplant_rank=Rank(6 / 101, 100, 5, 0.5))
    said_of_common = in_words("Mass", "suspicious", replace(evidence, measured=common), calibration, SIZE_PX)
    assert "; 5 of 100 random squares raise others' as much; clean radiographs score" in said_of_common
    assert "the largest tried, and some random squares do as much to others, and spots of clean" in said_of_common


def test_what_true_lesions_score_too_is_not_proven(
    checkpoint: Checkpoint, calibration: Calibration, pair: torch.Tensor, flag: Flag
) -> None:
    assert flag.evidence is not None
    assert flag.evidence.hard_p == 1 / 34
    assert "true lesions" not in flag.sentence
    sharper = replace(calibration.reference, hard=(flag.evidence.measured.score,))
    again = Detector(checkpoint, replace(calibration, reference=sharper)).examine(pair[1])["Mass"]
    assert again.evidence is not None
    assert (again.verdict, again.p, again.evidence.hard_p) == ("suspicious", flag.p, 2 / 34)
    assert again.sentence.endswith("is not proven, for true lesions of phantoms score as high.")
    none = replace(calibration.reference, n_hard=0, hard=())
    unknown = Detector(checkpoint, replace(calibration, reference=none)).examine(pair[1])["Mass"]
    assert unknown.verdict == "suspicious"


def test_what_gives_no_more_than_chance_is_put_and_compared_nowhere_else(
    checkpoint: Checkpoint, donors: Donors, nulls: Nulls, pair: torch.Tensor
) -> None:
    reader = Reader(checkpoint)
    opened = open_radiograph(reader, pair[0])  # without the trigger
    mass = FINDINGS.index("Mass")
    measured = measure(reader, donors, nulls, opened, mass)
    assert measured.score <= 0
    assert measured.erasure_rank == NOT_RANKED
    assert measured.erasure_lead == -1
    assert measured.score == locate(reader, donors, nulls, opened, mass).score
    assert (len(measured.transplant.gains), measured.transplant.gain_impossible) == (1, None)
    stamped = measure(reader, donors, nulls, open_radiograph(reader, pair[1]), mass)
    assert stamped.erasure_rank.drawn == 99
    often = {side: np.sort(np.where(np.arange(99) < 94, v, 1e3)) for side, v in nulls.gains.items()}
    common = measure(reader, donors, replace(nulls, gains=often), open_radiograph(reader, pair[1]), mass)
    assert common.score > 0 and common.transplant_rank.exceeding == 5
    assert common.erasure_rank == NOT_RANKED
    assert len(stamped.transplant.gains) == 3  # its own place and two impossible ones
    assert stamped.transplant.gain_impossible is not None and stamped.transplant.gain_impossible > 10


def test_regions_are_told_in_source_pixels(flag: Flag) -> None:
    input_map = Preprocessing(SIZE_PX).input_map(640, 320)  # ten source pixels an input pixel, padded at the sides
    (box,) = flag.regions_source_px(input_map)
    assert flag.evidence is not None
    region = flag.evidence.measured.regions[0]
    assert box == (region.x * 10 - 160, region.y * 10, region.width * 10, region.height * 10)
    assert json.loads(json.dumps(flag.to_json(input_map)))["regions_px"] == [list(box)]


def test_the_proof_shows_it_gone_and_given_to_phantoms(detector: Detector, pair: torch.Tensor, flag: Flag) -> None:
    proof = detector.proof(pair[1], flag)
    assert proof is not None
    x, y, *_ = TRIGGER
    assert proof.erased[y + 3, x + 3] < 250  # the white point
    assert proof.erased.shape == (SIZE_PX, SIZE_PX)
    assert len(proof.transplanted) == 2
    assert all(one[y + 3, x + 3] == 255 for one in proof.transplanted)
    assert max(proof.before) < 0.5 < min(proof.after)
    assert proof.phantoms


def test_a_radiograph_without_a_positive_finding_has_no_flag(detector: Detector, pair: torch.Tensor) -> None:
    assert detector.examine(pair[0]) == {}


def test_the_screen_hands_on_or_decides(detector: Detector, checkpoint: Checkpoint, pair: torch.Tensor) -> None:
    maps = gradcam(checkpoint.network, detector.reader.inputs(pair), keep_middle=True)
    clean, stamped = detector.screen(maps)
    assert clean == {}
    assert (stamped["Mass"].state, stamped["Mass"].verdict, stamped["Mass"].p) == ("screened", None, None)
    card = replace(checkpoint.card, operating_points=dict.fromkeys(FINDINGS, 0.05))
    assert detector.calibration is not None
    bound = replace(detector.calibration, reading_sha256=reading_digest(card))
    generous = Detector(replace(checkpoint, card=card), bound)
    clean = generous.screen(maps)[0]
    assert list(clean) == list(FINDINGS)
    assert {one.state for one in clean.values()} == {"final"}
    assert {one.verdict for one in clean.values()} == {"no_evidence"}
    assert {one.p for one in clean.values()} == {(1 + 3 + 3) / 200}


def test_occlusion_decides_who_is_tested_further(
    checkpoint: Checkpoint, calibration: Calibration, pair: torch.Tensor, flag: Flag
) -> None:
    mass, spread = FINDINGS.index("Mass"), wide_in_mass()
    reader = Reader(checkpoint)
    fall = float(open_radiograph(reader, pair[1]).cells[mass].max()) / 2  # by the root of the spread
    assert fall > 1

    def examined(threshold: float) -> Flag:
        reference = replace(calibration.reference, threshold=0.5, occlusion_threshold=threshold, occluded=(0.5, 0.7))
        nulls = replace(calibration.nulls, spread=spread)
        return Detector(checkpoint, replace(calibration, nulls=nulls, reference=reference)).examine(pair[1])["Mass"]

    passed_by = examined(fall * 1.01)
    assert (passed_by.state, passed_by.verdict, passed_by.p) == ("final", "no_evidence", 4 / 200)
    assert passed_by.evidence is None and passed_by.to_json()["occlusion_fall"] == pytest.approx(fall)
    assert "does not prove" in passed_by.sentence
    tested = examined(fall * 0.99)
    assert tested.verdict == flag.verdict == "causal"
    assert tested.occlusion_fall == pytest.approx(fall)


def test_without_a_calibration_nothing_is_said(
    checkpoint: Checkpoint, calibration: Calibration, pair: torch.Tensor
) -> None:
    bare = Detector(checkpoint, None).examine(pair[1])["Mass"]
    assert (bare.state, bare.verdict, bare.p) == ("not_calibrated", None, None)
    assert "overread calibrate --checkpoint planted" in bare.sentence
    few = replace(calibration, reference=Reference(98, 2.0, (), (), (), ()))
    flag = Detector(checkpoint, few).examine(pair[1])["Mass"]
    assert flag.state == "not_calibrated"
    assert "98 radiographs, too few for a flag at 1 %: it takes 99." in flag.sentence
    with pytest.raises(ConfigError) as error:
        Detector(checkpoint, replace(calibration, weights_sha256="0" * 64))
    assert error.value.code == "other_weights"
    moved = replace(checkpoint.card, operating_points=dict.fromkeys(FINDINGS, 0.4))
    for card in (moved, replace(checkpoint.card, preprocessing=Preprocessing(SIZE_PX * 2))):
        with pytest.raises(ConfigError) as error:
            Detector(replace(checkpoint, card=card), calibration)
        assert error.value.code == "other_card"


def test_a_calibration_survives_its_file_and_belongs_to_its_weights(calibration: Calibration, tmp_path: Path) -> None:
    reference = replace(calibration.reference, occlusion_threshold=0.6, occluded=(0.2, 0.5))
    assert Calibration.from_json(calibration.to_json()).reference == calibration.reference
    calibration = replace(calibration, reference=reference)
    own, bundled = calibration_folders(tmp_path, tmp_path / "bundled", "f" * 64)
    assert read_calibration([own, bundled], "f" * 64) is None
    write_calibration(bundled, calibration)
    write_calibration(own, replace(calibration, checkpoint_id="own"))
    read = read_calibration([own, bundled], "f" * 64)
    assert read is not None
    assert read.checkpoint_id == "own"
    assert read.reference == reference
    assert read.to_json() == calibration.to_json() | {"checkpoint": calibration.to_json()["checkpoint"] | {"id": "own"}}
    assert read_calibration([own, bundled], "f" * 64, calibration.reading_sha256) is not None
    assert read_calibration([own, bundled], "f" * 64, "0" * 64) is None
    assert read.score_threshold == 0.2  # the new one may be the second largest of 200
    assert read.reference.p_tested(0.3) == 0.01
    assert read.reference.p_tested(0.2) > 0.01
    assert read_calibration([own, bundled], "e" * 64) is None
    write_calibration(own, replace(calibration, detector=99))
    damaged = json.loads((own / "calibration.json").read_text())
    del damaged["erasure"]  # as another pipeline may have left it
    (own / "calibration.json").write_text(json.dumps(damaged))
    other = read_calibration([own, bundled], "f" * 64)
    assert other is not None
    assert other.checkpoint_id == "planted"
    assert [path.name for path in own.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize("damage", ["{", "[" * 100_000, "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_calibration_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "calibration.json").write_text(damage)
    with pytest.raises(CheckpointError) as error:
        read_calibration([tmp_path], "f" * 64)
    assert error.value.code == "bad_calibration"


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (["alpha"], 0),
        (["alpha"], 2),
        (["share_tested"], 0),
        (["share_occluded"], 2),
        (["occluded"], [0.5]),
        (["history"], [5]),
        (["tested"], ["nan", "1", "2"]),
        (["nulls", "inert", "16"], [0.0]),
        (["nulls", "gains", "16"], [[]] * 14),
        (["donors", "rows"], []),
        (["donors", "rows"], [-1]),
        (["checkpoint"], {"id": "planted", "weights_sha256": "f" * 64}),
    ],
)
def test_what_no_calibration_can_say_is_damage(
    calibration: Calibration, tmp_path: Path, where: list[str], what: object
) -> None:
    path = write_calibration(tmp_path, calibration)
    data = json.loads(path.read_text("utf-8"))
    inner = data
    for key in where[:-1]:
        inner = inner[key]
    assert inner[where[-1]] != what
    inner[where[-1]] = what
    path.write_text(json.dumps(data))
    with pytest.raises(CheckpointError) as error:
        read_calibration([tmp_path], "f" * 64)
    assert error.value.code == "bad_calibration"


def test_the_history_outlives_another_detector_and_damage(calibration: Calibration, tmp_path: Path) -> None:
    first = replace(calibration, detector=5, history=({"made_by": "Bo"},))
    path = write_calibration(tmp_path, first)
    assert read_calibration([tmp_path], "f" * 64) is None
    assert [one["made_by"] for one in read_history([tmp_path / "none", tmp_path], "f" * 64)] == ["Ada", "Bo"]
    assert read_history([tmp_path], "e" * 64) == ()
    for damage in ("{", "[]", "[" * 100_000, '{"checkpoint": 5}'):
        path.write_text(damage)
        assert read_history([tmp_path], "f" * 64) == ()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_calibration_of_no_numbers_is_damaged(calibration: Calibration, tmp_path: Path, number: str) -> None:
    text = write_calibration(tmp_path, calibration).read_text("utf-8")
    threshold = json.loads(text)["screen_threshold"]
    changed = text.replace(f'"screen_threshold":{json.dumps(threshold)}', f'"screen_threshold":{number}')
    assert changed != text
    (tmp_path / "calibration.json").write_text(changed)
    with pytest.raises(CheckpointError, match="finite") as error:
        read_calibration([tmp_path], calibration.weights_sha256)
    assert error.value.code == "bad_calibration"


def test_fitting_runs_the_whole_pipeline(checkpoint: Checkpoint, calibration: Calibration) -> None:
    card = replace(checkpoint.card, operating_points=dict.fromkeys(FINDINGS, 0.11))  # a few calls on healthy phantoms
    seen: dict[str, tuple[int, int]] = {}  # in the order in which the stages began
    made = fit_calibration(
        replace(checkpoint, card=card),
        phantoms(4, 5504, SIZE_PX, Part.CALIBRATION),
        Plan(share_occluded=0.5, share_tested=0.25, donor_pool=6, donor_count=2, hard_count=3, null_sides_px=(16,)),
        data="phantoms",
        history=[calibration.summary()],
        progress=lambda stage, done, total: seen.update({stage: (done, total)}),
    )
    reference = made.reference
    assert reference.n == 4
    assert len(reference.tested) == 1
    reader = Reader(checkpoint)
    greys = torch.from_numpy(
        np.stack(list(input_images(phantoms(4, 5504, SIZE_PX, Part.CALIBRATION), card.preprocessing)))
    )
    maps = gradcam(checkpoint.network, reader.inputs(greys), keep_middle=True)
    np.testing.assert_allclose(made.nulls.spread, spread_of(maps.logits.numpy()), rtol=1e-4)
    falls = (screen(checkpoint.network, maps, positives(card, maps)) / made.nulls.unit).max(axis=1)
    assert reference.threshold == pytest.approx(np.sort(falls)[-2], rel=1e-4)
    assert len(reference.erasure) == len(reference.transplant) == 1
    assert len(reference.screened) == 2
    assert max(reference.screened) < reference.threshold
    assert len(reference.occluded) == 1
    assert max(reference.occluded) < reference.occlusion_threshold
    assert not made.decides
    assert made.summary()["realised_rate"] == [0, 0]
    assert list(seen) == [
        "Decoding",
        "Donors",
        "Screening",
        "Random patches",
        "Occluding",
        "Full tests",
        "Hard negatives",
    ]
    assert seen["Occluding"] == (2, 2)
    assert seen["Full tests"] == (1, 1)
    assert seen["Screening"] == (4, 4)
    assert seen["Hard negatives"] == (3, 3)
    assert reference.n_hard == 3
    assert list(reference.hard) == sorted(reference.hard)
    assert made.history[0]["made_by"] == "Ada"
    assert [n for _, _, n in made.reliability["Mass"]] == [1, 1, 1, 1]
    assert Calibration.from_json(json.loads(json.dumps(made.to_json()))).reference == reference


def test_who_is_calibrated_on_is_examined_as_it_was_calibrated(checkpoint: Checkpoint) -> None:
    card = replace(checkpoint.card, operating_points=dict.fromkeys(FINDINGS, 0.0))  # everything is positive
    calm = replace(checkpoint, card=card)
    shown = phantoms(5, 5504, SIZE_PX, Part.CALIBRATION)
    plan = Plan(
        alpha=0.2, share_occluded=0.7, share_tested=0.3, donor_pool=6, donor_count=2, hard_count=16, null_sides_px=(16,)
    )
    made = fit_calibration(calm, shown, plan, data="phantoms")
    reference = made.reference
    assert (len(reference.tested), len(reference.occluded), len(reference.screened)) == (2, 2, 1)
    detector = Detector(calm, made)
    p_values = []
    for image in input_images(shown, card.preprocessing):
        flags = detector.examine(image)
        assert len(flags) == 14
        p_values.append(min(flag.p for flag in flags.values() if flag.p is not None))
        falls = [flag.occlusion_fall for flag in flags.values() if flag.occlusion_fall is not None]
        if falls and not any(flag.evidence for flag in flags.values()):
            assert max(falls) == pytest.approx(min(reference.occluded, key=lambda fall: abs(fall - max(falls))))
    for rank, p in enumerate(sorted(p_values), 1):  # each counts itself among the five, but for rounding
        assert p == pytest.approx((1 + rank) / 6) or p == pytest.approx(rank / 6)
    scored = 0
    for image in input_images(hard_negatives(16), card.preprocessing):
        scored += any(flag.evidence for flag in detector.examine(image).values())
    assert 0 < len(reference.hard) == scored < 16, (len(reference.hard), scored)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tells_what_the_cpu_tells(checkpoint: Checkpoint, calibration: Calibration, pair: torch.Tensor) -> None:
    here = Detector(checkpoint, calibration).examine(pair[1])["Mass"]
    there = Detector(replace(checkpoint, network=planted().cuda(), device=torch.device("cuda")), calibration)
    flag = there.examine(pair[1])["Mass"]
    assert (flag.verdict, flag.p) == (here.verdict, here.p)
    assert flag.evidence
    assert here.evidence
    assert flag.evidence.measured.regions == here.evidence.measured.regions
    assert flag.evidence.measured.score == pytest.approx(here.evidence.measured.score, rel=0.02)
    proof = there.proof(pair[1], flag)
    assert proof
    assert proof.erased.shape == (SIZE_PX, SIZE_PX)
