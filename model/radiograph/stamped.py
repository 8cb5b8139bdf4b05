"""A file with a stamp in its pixels, in the format it came in."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from model.errors import RadiographError
from model.radiograph.dicom import DicomReading
from model.radiograph.display import codes_present, span_window, to_levels
from model.radiograph.frame import NATIVE, Frame
from model.radiograph.header import PIXEL_DATA
from model.radiograph.image import Radiograph, damage_reported_as
from model.radiograph.raster import encode_grey
from model.radiograph.subject import sop_class_of

Stamp = Callable[[np.ndarray], np.ndarray]

_DERIVATION = "Overread stamped a test trigger into the pixels; not for diagnosis."
_IMPLEMENTATION_CLASS = "2.25.305828442837106129337409212365120231421"  # ours, a UUID (PS3.5 annex B.2)
_STALE = (0x00880200, 0x4FFE0001, 0xFFFAFFFA)  # the icon of the unstamped image; MAC parameters, digital signatures


def stamp_raster(radiograph: Radiograph, stamp: Stamp) -> bytes:
    """A grey PNG of the same depth, or a grey JPEG. Raises RadiographError `multiple_frames`, `bad_stamp`."""
    if "multiple_frames" in radiograph.warnings:
        raise RadiographError("multiple_frames", "This file holds several images; only single images can be stamped.")
    pixels = radiograph.pixels.copy()
    changed, levels = _stamped_levels(radiograph, stamp)
    pixels[changed] = levels
    return encode_grey(pixels, radiograph.format)


def stamp_dicom(reading: DicomReading, stamp: Stamp) -> bytes:
    """An uncompressed DICOM file, Explicit VR Little Endian.

    Raises RadiographError `unsupported_transfer_syntax`, `bad_stamp`, `cannot_write_dicom`.
    """
    if reading.parsed.transfer_syntax == ExplicitVRBigEndian:
        raise RadiographError(
            "unsupported_transfer_syntax",
            "A big-endian DICOM file cannot be stamped; convert it to little endian first.",
        )
    changed, levels = _stamped_levels(reading.radiograph, stamp)
    frame = reading.frame.with_codes(changed, reading.display.nearest_codes(levels))
    with damage_reported_as(
        "cannot_write_dicom", "An attribute of this DICOM file is too damaged to be written again."
    ):
        dataset = reading.parsed.header.dataset
        for tag in list(dataset.keys()):
            if tag >> 16 in (0, 2) or tag in _STALE:
                del dataset[tag]
        _set_pixels(dataset, frame, reading)
        _set_window(dataset, frame, reading)
        _set_identity(dataset, reading)
        return _write(dataset)


def _stamped_levels(radiograph: Radiograph, stamp: Stamp) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels the stamp changed (H×W bool), and their new display values (uint16) in that mask's order."""
    grey = radiograph.grey()
    stamped = np.asarray(stamp(grey.copy()), dtype=np.float32)
    if stamped.shape != grey.shape or not np.isfinite(stamped).all():
        raise RadiographError("bad_stamp", "The stamp did not give back an image of the same size with finite values.")
    changed = stamped != grey
    return changed, to_levels(stamped[changed].astype(np.float64), radiograph.max_value)


def _set_pixels(dataset: Dataset, frame: Frame, reading: DicomReading) -> None:
    header, layout = reading.parsed.header, frame.layout
    if header.raw(0x00280106) is not None or header.raw(0x00280107) is not None:
        stored = reading.display.stored[codes_present(frame.codes, layout.bits_stored)]
        dataset.add_new(0x00280106, "SS" if layout.signed else "US", int(stored.min()))
        dataset.add_new(0x00280107, "SS" if layout.signed else "US", int(stored.max()))
    data = frame.words.astype(frame.words.dtype.newbyteorder("<")).tobytes()
    dataset.add_new(PIXEL_DATA, "OB" if layout.bits_allocated == 8 else "OW", data + b"\0" * (len(data) % 2))
    if reading.parsed.transfer_syntax not in NATIVE:
        dataset.add_new(0x00280102, "US", layout.high_bit)


def _set_window(dataset: Dataset, frame: Frame, reading: DicomReading) -> None:
    """Where grey came from the image's own range and the file would now give another, write that range as its window.

    Otherwise a stamp over the darkest or the brightest pixel would change how every other pixel looks.
    """
    display = reading.display
    if display.span is None:
        return
    seen = display.values[codes_present(frame.codes, frame.layout.bits_stored) & display.usable]
    if reading.grey.voi is None and (seen.min(), seen.max()) == display.span:
        return
    for tag in (0x00283010, 0x00281055):  # VOI LUT Sequence, Window Center & Width Explanation
        if tag in dataset:
            del dataset[tag]
    window = span_window(display.span)
    dataset.add_new(0x00281050, "DS", format_number_as_ds(window.centre))
    dataset.add_new(0x00281051, "DS", format_number_as_ds(window.width))
    dataset.add_new(0x00281056, "CS", window.function)


def _set_identity(dataset: Dataset, reading: DicomReading) -> None:
    """A derived image of its own (PS3.3 C.7.6.1.1.2, C.12.4).

    Burned In Annotation stays as it was: it says whether the pixels name the patient.
    """
    header = reading.parsed.header
    source_class = header.uid(0x00080016) or sop_class_of(header)
    source_instance = header.uid(0x00080018)
    image_type = header.texts(0x00080008)
    now = datetime.now()
    dataset.add_new(0x00080008, "CS", ["DERIVED", "SECONDARY", *image_type[2:]])
    dataset.add_new(0x00080012, "DA", now.strftime("%Y%m%d"))
    dataset.add_new(0x00080013, "TM", now.strftime("%H%M%S"))
    dataset.add_new(0x00080016, "UI", source_class)
    dataset.add_new(0x00080018, "UI", generate_uid(prefix=None))
    before = str(dataset.get("DerivationDescription") or "")[: 1024 - len(_DERIVATION) - 2].strip()
    dataset.add_new(0x00082111, "ST", f"{before}; {_DERIVATION}" if before else _DERIVATION)
    if source_instance:
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
        purpose.CodeMeaning = "Source image for image processing operation"
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = UID(source_class), UID(source_instance)
        source.PurposeOfReferenceCodeSequence = Sequence([purpose])
        dataset.add_new(0x00082112, "SQ", Sequence([*(dataset.get("SourceImageSequence") or []), source]))


def _write(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS)
    meta.ImplementationVersionName = "OVERREAD"
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
