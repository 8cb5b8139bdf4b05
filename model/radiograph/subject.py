"""Is a DICOM image a frontal chest radiograph? What its header says, before any pixel is decoded."""

from __future__ import annotations

import re

from model.errors import RadiographError
from model.radiograph.header import Header

# RG: what film digitisers wrote. XC (photographs), OT and SC stay out: their polarity and content are anybody's guess.
_RADIOGRAPHS = {"CR", "DX", "RG"}
_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
}
_CHEST = ("CHEST", "THORA", "TORAX", "LUNG", "PULMO")
# PS3.16 annex L; whole words where a part of a word would hit too much.
# fmt: off
_NOT_CHEST = (
    "SPINE", "SKULL", "HEAD", "FACE", "FACIAL", "BRAIN", "NECK", "NOSE", "NASAL", "ORBIT", "SINUS",
    "MANDIBLE", "MAXILLA", "TEETH", "TOOTH", "BREAST", "SHOULDER", "SCAPULA", "HUMERUS", "ELBOW", "FOREARM",
    "RADIUS", "ULNA", "WRIST", "HAND", "FINGER", "THUMB", "ABDOM", "KIDNEY", "BLADDER", "PELVI", "SACRUM",
    "COCCYX", "FEMUR", "THIGH", "KNEE", "PATELLA", "TIBIA", "FIBULA", "ANKLE", "FOOT", "CALCANEUS",
    "EXTREMITY",
)
# fmt: on
_NOT_CHEST_WORDS = {"ARM", "LEG", "HIP", "EYE", "EAR", "JAW", "TOE", "CALF", "HEEL", "COLON", "UTERUS", "PROSTATE"}
_FRONTAL = {"PA", "AP", "POSTEROANTERIOR", "ANTEROPOSTERIOR", "FRONTAL", "LLD", "RLD"}
_LATERAL = {"LL", "RL", "LAT", "LLAT", "RLAT", "LATERAL"}
LATERAL_VIEW = "lateral_view"
_OBLIQUE = {"RAO", "LAO", "RPO", "LPO", "RLO", "LLO", "OBLIQUE"}


def check_subject(header: Header, lateral: bool = False) -> tuple[dict[str, str], list[str]]:
    """Metadata (modality, body_part, view) and warnings of a header.

    Raises RadiographError `not_a_radiograph`, `not_chest` or `lateral_view` where the header is clear about it;
    what it does not say is a warning, and with `lateral` so is a lateral view.
    """
    warnings: list[str] = []
    modality = header.text(0x00080060).upper() or _SOP_CLASSES.get(header.text(0x00080016), "")
    if not modality:
        warnings.append("modality_unknown")
    elif modality not in _RADIOGRAPHS:
        raise RadiographError(
            "not_a_radiograph", f"This DICOM file is of modality {modality}; Overread reads radiographs (CR, DX)."
        )
    if header.text(0x00080068).upper() == "FOR PROCESSING":
        warnings.append("for_processing")
    body_part = header.text(0x00180015) or _code_meaning(header, 0x00082218)
    warnings += _check_body_part(body_part)
    view = header.text(0x00185101) or _code_meaning(header, 0x00540220)
    orientation = [value.upper() for value in header.texts(0x00200020)]
    warnings += _check_view(view, orientation, lateral)
    # PS3.3 C.7.6.1.1.1: a frontal view hangs with the patient's left at the right edge and the feet below.
    hanging = (orientation[0][0], orientation[1][0]) if len(orientation) == 2 and all(orientation) else None
    if hanging not in (None, ("L", "F")) and LATERAL_VIEW not in warnings:
        warnings.append("orientation_unusual")
    return {
        "modality": modality,
        "body_part": body_part,
        "view": view,
        "patient_orientation": "\\".join(orientation),
    }, warnings


def sop_class_of(header: Header) -> str:
    """The SOP class of a radiograph that does not state its own, from its modality."""
    modality = header.text(0x00080060).upper()
    return next((uid for uid, name in _SOP_CLASSES.items() if name == modality), next(iter(_SOP_CLASSES)))


def _check_body_part(body_part: str) -> list[str]:
    text = body_part.upper()
    spine = "SPINE" in text  # “thoracic spine” is no chest
    if not spine and any(word in text for word in _CHEST):
        return []
    if any(word in text for word in _NOT_CHEST) or _NOT_CHEST_WORDS & set(_words(text)):
        raise RadiographError(
            "not_chest", f"This DICOM file shows the body part “{body_part}”; Overread reads chest radiographs."
        )
    return ["body_part_unknown"]


def _check_view(view: str, orientation: list[str], lateral: bool) -> list[str]:
    words = set(_words(view.upper().replace("-", "")))
    if words & _FRONTAL or "DECUB" in view.upper():
        return []
    if words & _OBLIQUE:
        return ["oblique_view"]
    # The row direction of a lateral view runs along anterior-posterior (PS3.3 C.7.6.1.1.1).
    if words & _LATERAL or (orientation and orientation[0][:1] in ("A", "P")):
        if lateral:
            return [LATERAL_VIEW]
        raise RadiographError(
            LATERAL_VIEW, "This is a lateral view; the checkpoints read frontal views (PA or AP) only."
        )
    return ["view_unknown"]


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Z]+", text)


def _code_meaning(header: Header, tag: int) -> str:
    items = header.items(tag)
    return items[0].text(0x00080104) if items else ""
