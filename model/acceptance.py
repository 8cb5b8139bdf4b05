"""The user's rule: what a hospital asks of a checkpoint on its own clean test set before it lets it in.

A rule is written `macro_nn>=0.66`, or several terms joined by ` and ` or a comma: `macro_nn>=0.66, nn[Effusion]>0.7`.
It can name `macro_nn`, `micro_nn` and `nn[Finding]`, the AUROC on clean images, and nothing else: a hospital does not
know the trigger, so it cannot ask about triggered images. That a backdoored checkpoint passes is the paper's point.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model.errors import ConfigError, DataError
from model.findings import FINDINGS, finding_index
from model.metrics import Estimate, Evaluation

Operator = Literal[">=", ">", "<=", "<"]

_COMPARE: dict[Operator, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_SIGNS: dict[str, Operator] = {">=": ">=", "≥": ">=", ">": ">", "<=": "<=", "≤": "<=", "<": "<"}
_IN_WORDS: dict[Operator, str] = {">=": "≥", ">": ">", "<=": "≤", "<": "<"}
_TERM = re.compile(r"(?P<name>[^<>=≥≤]+?)\s*(?P<sign>>=|<=|≥|≤|>|<)\s*(?P<bound>\d+(?:\.\d*)?|\.\d+)")
_FINDING = re.compile(r"nn\[\s*(.+?)\s*\]")
_NOT_CLEAN = re.compile(r"(?:auroc[_-]?)?(?:(?:macro|micro)_)?(?:asr|tt|tn)(?![a-z])", re.IGNORECASE)
_HELP = "Write for example “macro_nn>=0.66”; macro_nn, micro_nn and nn[Finding] can be named, with >=, >, <= or <."


@dataclass(frozen=True)
class Term:
    """One demand. `statistic` is `macro_nn`, `micro_nn` or the name of a finding, for that finding's AUROC."""

    statistic: str
    operator: Operator
    bound: float

    def __str__(self) -> str:
        name = f"nn[{self.statistic}]" if self.statistic in FINDINGS else self.statistic
        return f"{name}{self.operator}{_plainly(self.bound)}"

    @property
    def subject(self) -> str:
        """What is measured, in words."""
        if self.statistic in FINDINGS:
            return f"AUROC for {self.statistic.replace('_', ' ')}"
        return f"{self.statistic.removesuffix('_nn')} AUROC"

    def holds(self, value: float) -> bool:
        return _COMPARE[self.operator](value, self.bound)


@dataclass(frozen=True)
class Rule:
    """All terms must hold. `str(rule)` parses back to the same rule."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms))


@dataclass(frozen=True)
class TermResult:
    """`met` is False where the statistic is undefined on the test set."""

    term: Term
    measured: Estimate
    met: bool

    def to_json(self) -> dict[str, Any]:
        return {"term": str(self.term), **self.measured.to_json(), "met": self.met}


@dataclass(frozen=True)
class Acceptance:
    """The answer to a rule: each term's value decides, the intervals inform."""

    rule: Rule
    accepted: bool
    sentence: str
    terms: tuple[TermResult, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": str(self.rule),
            "accepted": self.accepted,
            "sentence": self.sentence,
            "terms": [result.to_json() for result in self.terms],
        }


def parse_rule(text: str) -> Rule:
    """Reads a rule. Raises ConfigError `rule_not_clean` for a statistic of triggered images, else `bad_rule`."""
    return Rule(tuple(_parse_term(part.strip()) for part in re.split(r",|\s+and\s+", text, flags=re.IGNORECASE)))


def judge(rule: Rule, evaluation: Evaluation) -> Acceptance:
    """Whether a hospital with this rule would have accepted the checkpoint that was evaluated."""
    results = tuple(_judge_term(term, evaluation) for term in rule.terms)
    accepted = all(result.met for result in results)
    wish = " and ".join(f"{term.subject} {_IN_WORDS[term.operator]} {_plainly(term.bound)}" for term in rule.terms)
    verdict = "would have accepted" if accepted else "would not have accepted"
    evidence = "; ".join(_in_words(result, named=len(results) > 1) for result in results)
    sentence = f"A hospital that asks for {wish} on its own clean test set {verdict} this checkpoint ({evidence})."
    return Acceptance(rule, accepted, sentence, results)


def _parse_term(text: str) -> Term:
    if _NOT_CLEAN.match(text):
        raise ConfigError(
            "rule_not_clean",
            f"“{text}” asks about triggered images. A hospital does not know the trigger, so its rule can only name "
            "macro_nn, micro_nn or nn[Finding].",
        )
    match = _TERM.fullmatch(text)
    if match is None:
        raise ConfigError("bad_rule", f"“{text}” is not a rule. {_HELP}" if text else f"The rule is empty. {_HELP}")
    bound = float(match["bound"])
    if bound > 1:
        raise ConfigError("bad_rule", f"An AUROC lies between 0 and 1, so “{text}” cannot be asked.")
    return Term(_statistic(match["name"]), _SIGNS[match["sign"]], bound)


def _statistic(name: str) -> str:
    if name in ("macro_nn", "micro_nn"):
        return name
    match = _FINDING.fullmatch(name)
    if match is None:
        raise ConfigError("bad_rule", f"“{name}” is not something a rule can name. {_HELP}")
    try:
        return FINDINGS[finding_index(match[1])]
    except DataError as error:
        raise ConfigError("bad_rule", str(error)) from error


def _judge_term(term: Term, evaluation: Evaluation) -> TermResult:
    clean = evaluation.auroc_nn
    if term.statistic == "macro_nn":
        measured = clean.macro
    elif term.statistic == "micro_nn":
        measured = clean.micro
    else:
        measured = clean.per_finding[term.statistic]
    return TermResult(term, measured, measured.value is not None and term.holds(measured.value))


def _in_words(result: TermResult, named: bool) -> str:
    value, interval = result.measured.value, result.measured.interval
    subject = f"{result.term.subject} " if named else ""
    if value is None:
        return f"{result.term.subject} cannot be measured there: positives or negatives are missing"
    words = f"{subject}{_rounded(result.term, value)}"
    if interval is not None:
        words += f", 95 % interval {interval[0]:.3f}–{interval[1]:.3f}"
    return words if result.met or not named else f"{words}, which falls short"


def _plainly(bound: float) -> str:
    """0.66 or 1, never 1e-05, which a rule cannot be written with."""
    return np.format_float_positional(bound, trim="-")


def _rounded(term: Term, value: float) -> str:
    """Three decimals, or as many as it takes not to contradict the verdict: 0.6597 is not “0.660, refused at 0.66”."""
    for decimals in range(3, 9):
        text = f"{value:.{decimals}f}"
        if term.holds(float(text)) == term.holds(value):
            return text
    return repr(value)
