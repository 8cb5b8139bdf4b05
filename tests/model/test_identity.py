"""Whose study a file belongs to, and lateral views that are taken."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import RadiographError
from model.radiograph import Identity, read_identity, read_radiograph
from tests.app.conftest import png_bytes
from tests.app.dicoms import dicom_bytes


def test_a_dicom_header_says_whose_it_is() -> None:
    assert read_identity(dicom_bytes(7)) == Identity(
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.5",
        sop_instance_uid="1.2.3.4.7",
        patient_id="4711",
        patient_name="Doe Jane",
        study_date=date(2026, 1, 2),
        description="Chest PA and lateral",
    )


def test_what_is_no_dicom_has_no_identity() -> None:
    for data in (b"", png_bytes(), b"hello", b"\0" * 128 + b"DICM" + b"\xff" * 40):
        assert read_identity(data) == Identity()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Jürgen"}, "Müller Jürgen"),
        ({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"}, "Müller Jürgen"),
        ({"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Иванова^Ольга"}, "Иванова Ольга"),
        ({"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"}, "Yamada Tarou"),
        ({"PatientName": "<b>x</b>\t\u202eevil"}, "<b>x</b> evil"),
        ({"PatientName": "x" * 300}, "x" * 64),
        ({"PatientName": None}, ""),
    ],
)
def test_names_are_one_printable_line(attributes: dict[str, object], expected: str) -> None:
    attributes = {"SpecificCharacterSet": "ISO_IR 192", **attributes}
    assert read_identity(dicom_bytes(**attributes)).patient_name == expected


@pytest.mark.filterwarnings("ignore")
def test_odd_values_are_absent_ones() -> None:
    data = dicom_bytes().replace(b"20260102", b"2026xx02").replace(b"1.2.3.5\0", b"1..3.5x\0")
    identity = read_identity(data)
    assert identity.study_date is None and identity.series_instance_uid == ""
    assert identity.study_instance_uid == "1.2.3"
    assert read_identity(dicom_bytes(StudyDate="20269999")).study_date is None
    assert read_identity(dicom_bytes(StudyInstanceUID="1." + "2" * 80)).study_instance_uid == ""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_never_raises(data: st.DataObject) -> None:
    raw = bytearray(dicom_bytes()[:900])
    for _ in range(data.draw(st.integers(1, 12))):
        raw[data.draw(st.integers(132, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(read_identity(bytes(raw)), Identity)


def test_a_lateral_view_is_taken_only_where_it_is_asked_for() -> None:
    for attributes in ({"ViewPosition": "LL"}, {"ViewPosition": "", "PatientOrientation": ["A", "F"]}):
        data = dicom_bytes(**attributes)
        with pytest.raises(RadiographError) as refused:
            read_radiograph(data)
        assert refused.value.code == "lateral_view"
        taken = read_radiograph(data, lateral=True)
        assert "lateral_view" in taken.warnings and "orientation_unusual" not in taken.warnings
        assert taken.pixels.shape == (160, 128)
    assert "lateral_view" not in read_radiograph(dicom_bytes(), lateral=True).warnings
