"""The 14 findings of NIH ChestX-ray14, in that dataset's order (Wang et al., CVPR 2017)."""

from model.errors import DataError

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
_INDEX = {name: i for i, name in enumerate(FINDINGS)}
_SPELLINGS = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}


def finding_index(name: str) -> int:
    """Position 0..13 of a finding; the official box file's `Infiltrate` is understood.

    Raises DataError `unknown_finding`.
    """
    name = _SPELLINGS.get(name, name)
    if name not in _INDEX:
        raise DataError("unknown_finding", f"“{name}” is not one of the 14 findings: {', '.join(FINDINGS)}.")
    return _INDEX[name]
