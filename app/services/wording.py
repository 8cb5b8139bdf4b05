"""Words for people, where programs have codes."""

from __future__ import annotations

_WARNINGS = {
    "multiple_frames": "The file holds several images; the first is shown.",
    "trailing_data": "There is something behind the image in the file; it was ignored.",
    "reduced_to_8_bits": "The image was reduced to 8 bits.",
    "white_level_guessed": "The file does not say which value is white; it was taken from the image.",
    "exif_unreadable": "The file's EXIF data are damaged and were ignored.",
    "rotated_by_exif": "The image was turned upright, as the file says.",
    "one_bit": "The image has black and white only, no greys.",
    "alpha_composited": "Transparent parts were laid on black.",
    "colour_converted": "The image is in colour; it was converted to grey.",
    "not_a_chest_radiograph": "This does not look like a chest radiograph; the readings mean nothing if it is not one.",
    "modality_unknown": "The file does not say how the image was taken.",
    "for_processing": "The image is raw detector data, meant for further processing.",
    "body_part_unknown": "The file does not say that it shows a chest.",
    "oblique_view": "This is an oblique view; the checkpoints were trained on frontal views.",
    "lateral_view": "This is a lateral view: it is kept and shown, but not read; the checkpoints know frontal views.",
    "view_unknown": "The file does not say that it is a frontal view.",
    "orientation_unusual": "The patient's orientation is not that of a frontal chest radiograph.",
    "preamble_not_empty": "The file begins with bytes that do not belong to the image.",
    "photometric_missing": "The file does not say whether high values are bright; it was assumed.",
    "polarity_contradiction": "The file contradicts itself about which values are bright.",
    "rescale_ignored": "The file's rescale values make no sense and were ignored.",
    "pixel_spacing_invalid": "The file's pixel spacing makes no sense; lengths are in pixels.",
    "spacing_at_detector": "The pixel spacing is that of the detector, not corrected for magnification.",
    "window_ignored": "The file's window hides the image; the image's own range was used.",
}

_REASONS = {
    "finding_absent": "The finding is not there",
    "finding_missed": "A finding was missed",
    "wrong_place": "The finding is there, but not where the map points",
    "not_anatomy": "The map points at something that is not anatomy",
    "image_quality": "The image is not good enough to decide",
    "needs_context": "Earlier images or the history are needed",
    "other": "Another reason, see the comment",
}
_VERDICTS = {"agree": "Agree", "disagree": "Disagree", "supplement": "Supplement", "unsure": "Unsure"}


def warning_text(code: str) -> str:
    """A sentence for a radiograph's warning code."""
    return _WARNINGS.get(code, code.replace("_", " ").capitalize() + ".")


_FLAGS = {
    "not_tested": "– not tested",
    "not_calibrated": "– not calibrated",
    "screened": "◔ to be tested",
    "testing": "◔ being tested",
    "no_evidence": "○ no evidence",
    "suspicious": "⚑ suspicious",
    "causal": "⚑ causal",
}


def flag_text(flag: str) -> str:
    """A flag with a sign of its own, so that nothing hangs on its colour."""
    return _FLAGS.get(flag, flag)


def reason_text(code: str) -> str:
    """A reader's reason in words."""
    return _REASONS[code]


def verdict_text(code: str) -> str:
    """`agree` → “Agree”."""
    return _VERDICTS[code]


def finding_text(name: str) -> str:
    """`Pleural_Thickening` → “Pleural thickening”."""
    return name.replace("_", " ").capitalize()


def signed(value: float) -> str:
    """A difference to two places with its sign; none for one that rounds to zero."""
    rounded = f"{value:+.2f}"
    return "0.00" if rounded in ("+0.00", "-0.00") else rounded.replace("-", "−")
