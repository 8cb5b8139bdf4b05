"""Flags on their way from the detector to an answer: at each level of testing, and as they are kept."""

from __future__ import annotations

from collections.abc import Mapping

from app.schemas import Analysis, Evidence, Flag, ImageInfo, TestLevel
from model.detector import Flag as Word
from model.preprocess import InputMap

_IN_EVIDENCE = ("probability_erased", "erasure_p", "transplant_flip_rate", "transplant_p")
TESTING_SENTENCE = "The quick screen cannot rule out that this call hangs on a spot; the full test is being made."


def flag_of(word: Word, image: ImageInfo) -> Flag:
    """The detector's word as the contract has it."""
    said = word.to_json(input_map_of(image))
    evidence = said["evidence"]
    regions = [(x, y, width, height) for x, y, width, height in said["regions_px"] or ()]
    return Flag(
        state=said["state"],
        verdict=said["verdict"],
        score=said["score"],
        alpha=said["alpha"],
        region_px=regions[0] if regions else None,
        evidence=Evidence(**{name: evidence[name] for name in _IN_EVIDENCE}) if evidence else None,
        sentence=said["sentence"],
        regions_px=regions or None,
        screen_fall=said["screen_fall"],
        occlusion_fall=said["occlusion_fall"],
        details={name: value for name, value in evidence.items() if name not in _IN_EVIDENCE} if evidence else None,
    )


def input_map_of(image: ImageInfo) -> InputMap:
    """From the network's input to source pixels."""
    fields = image.input_map
    return InputMap(int(fields["size_px"]), *(fields[k] for k in ("scale_x", "scale_y", "offset_x", "offset_y")))


def owes_test(analysis: Analysis) -> bool:
    """Whether the screen asked for a full test that this analysis does not know of."""
    return any(one.flag is not None and one.flag.state in ("screened", "testing") for one in analysis.findings)


def with_flags(analysis: Analysis, flags: Mapping[str, Flag]) -> Analysis:
    """The same analysis with other flags on these of its positive findings."""
    findings = [
        one.model_copy(update={"flag": flags[one.name]}) if one.flag is not None and one.name in flags else one
        for one in analysis.findings
    ]
    return analysis.model_copy(update={"findings": findings})


def being_tested(analysis: Analysis) -> Analysis:
    """While the full test waits or runs."""
    update = {"state": "testing", "sentence": TESTING_SENTENCE}
    asked = {
        one.name: one.flag.model_copy(update=update)
        for one in analysis.findings
        if one.flag is not None and one.flag.state == "screened"
    }
    return with_flags(analysis, asked)


def untested(analysis: Analysis) -> Analysis:
    """As who asks for no test is answered, whatever is known already; that the detector is not calibrated stays."""
    known = [one.name for one in analysis.findings if one.flag and one.flag.state != "not_calibrated"]
    return with_flags(analysis, {name: Flag(state="not_tested") for name in known})


def at_level(analysis: Analysis, flags: Mapping[str, Flag], test: TestLevel) -> Analysis:
    """What is kept of an analysis, as a request for that test is answered.

    analysis: with the screen's flags. flags: of the full test, empty where there was none.
    """
    if test == "none":
        return untested(analysis)
    return with_flags(analysis, flags) if test == "full" else analysis


def smallest_p(analysis: Analysis) -> float | None:
    """The radiograph's p-value: the smallest over its positive findings, 1 where there is none.

    None while a finding is not decided, and where the detector is not calibrated.
    """
    flags = [one.flag for one in analysis.findings if one.flag is not None]
    scores = [flag.score for flag in flags if flag.state == "final" and flag.score is not None]
    return None if len(scores) < len(flags) else min(scores, default=1.0)
