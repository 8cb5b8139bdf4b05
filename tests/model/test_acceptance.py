"""The rule by which a hospital would take a checkpoint."""

import dataclasses
import json

import numpy as np
import pytest

from model.acceptance import Rule, Term, judge, parse_rule
from model.errors import ConfigError
from model.findings import FINDINGS
from model.metrics import Estimate, evaluate_attack


@pytest.fixture
def evaluation():
    """Macro 0.702, micro 0.81, Effusion 0.9, no hernia, the rest 0.6."""
    labels = np.eye(len(FINDINGS), dtype=int)
    measured = evaluate_attack(
        labels=labels,
        clean=labels * 0.5,
        stamped=None,
        patients=range(len(FINDINGS)),
        target=None,
        operating_points={},
        resamples=0,
    )
    per_finding = {name: Estimate(0.6, (0.55, 0.65)) for name in FINDINGS}
    per_finding |= {"Effusion": Estimate(0.9, (0.8, 0.95)), "Hernia": Estimate(None, None)}
    clean = dataclasses.replace(
        measured.auroc_nn,
        macro=Estimate(0.702, (0.66, 0.74)),
        micro=Estimate(0.81, None),
        per_finding=per_finding,
    )
    return dataclasses.replace(measured, auroc_nn=clean)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("macro_nn>=0.66", [("macro_nn", ">=", 0.66)]),
        ("  micro_nn  <  .9 ", [("micro_nn", "<", 0.9)]),
        ("macro_nn ≥ 1", [("macro_nn", ">=", 1.0)]),
        ("nn[Effusion]>=0.7", [("Effusion", ">=", 0.7)]),
        ("nn[Pleural Thickening]<=0.7", [("Pleural_Thickening", "<=", 0.7)]),
        (
            "macro_nn>0.6 and nn[ Mass ]>0.5,micro_nn>0",
            [("macro_nn", ">", 0.6), ("Mass", ">", 0.5), ("micro_nn", ">", 0)],
        ),
    ],
)
def test_a_rule_is_read_and_written_back(text, terms):
    rule = parse_rule(text)
    assert rule == Rule(tuple(Term(*term) for term in terms))
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize("bound", ["0.00001", "0.123456789012"])
def test_no_digit_is_lost_in_writing(bound):
    assert str(parse_rule(f"macro_nn>{bound}")) == f"macro_nn>{bound}"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "macro_nn",
            "macro_nn>=",
            ">=0.6",
            "macro_nn>=0.6,",
            "macro_nn==0.6",
            "macro_nn=>0.6",
            "macro_nn>=66",
        ),
        *("nn>=0.6", "nn[]>0.6", "nn[Fracture]>=0.6", "auc>=0.6", "macro_nn>=nan", "macro_nn>=-1", "macro_nn>=0,66"),
        *("0.6<=macro_nn", "0.5<macro_nn<0.9", "macro_nn>=0.6 or micro_nn>=0.6"),
    ],
)
def test_nonsense_is_refused_with_an_example(text):
    with pytest.raises(ConfigError) as caught:
        parse_rule(text)
    assert caught.value.code == "bad_rule"


@pytest.mark.parametrize(
    "text",
    [
        *("asr<0.1", "ASR@0.5 < 0.1", "asr_0.5<0.1", "asr", "micro_tt>=0.9", "macro_tn>0.6", "tt>0.9", "auroc_tt<1"),
        *("tn[Effusion]>0.5", "macro_nn>=0.6 and asr<=0.1"),
    ],
)
def test_a_hospital_does_not_know_the_trigger(text):
    with pytest.raises(ConfigError) as caught:
        parse_rule(text)
    assert caught.value.code == "rule_not_clean"


def test_accepted_in_words(evaluation):
    acceptance = judge(parse_rule("macro_nn>=0.66"), evaluation)
    assert acceptance.accepted
    assert acceptance.sentence == (
        "A hospital that asks for macro AUROC ≥ 0.66 on its own clean test set would have accepted this checkpoint "
        "(0.702, 95 % interval 0.660–0.740)."
    )


def test_every_term_must_hold(evaluation):
    acceptance = judge(parse_rule("nn[Effusion]>=0.7 and micro_nn>=0.85"), evaluation)
    assert not acceptance.accepted
    assert [result.met for result in acceptance.terms] == [True, False]
    assert acceptance.sentence == (
        "A hospital that asks for AUROC for Effusion ≥ 0.7 and micro AUROC ≥ 0.85 on its own clean test set would not "
        "have accepted this checkpoint (AUROC for Effusion 0.900, 95 % interval 0.800–0.950; micro AUROC 0.810, which "
        "falls short)."
    )


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [("macro_nn>=0.702", True), ("macro_nn>0.702", False), ("macro_nn<=0.702", True), ("macro_nn<0.702", False)],
)
def test_operators_at_their_bound(evaluation, rule, accepted):
    assert judge(parse_rule(rule), evaluation).accepted is accepted


def test_what_cannot_be_measured_is_not_accepted(evaluation):
    acceptance = judge(parse_rule("nn[Hernia]>=0.1"), evaluation)
    assert not acceptance.accepted
    assert "AUROC for Hernia cannot be measured there" in acceptance.sentence


def test_rounding_never_contradicts_the_verdict(evaluation):
    clean = dataclasses.replace(evaluation.auroc_nn, macro=Estimate(0.65996, None))
    acceptance = judge(parse_rule("macro_nn>=0.66"), dataclasses.replace(evaluation, auroc_nn=clean))
    assert not acceptance.accepted
    assert "(0.65996)" in acceptance.sentence


def test_json(evaluation):
    answer = judge(parse_rule("macro_nn >= 0.66"), evaluation).to_json()
    assert json.loads(json.dumps(answer)) == answer
    assert answer["rule"] == "macro_nn>=0.66"
    assert answer["terms"] == [{"term": "macro_nn>=0.66", "value": 0.702, "interval": [0.66, 0.74], "met": True}]
