"""Synthetic radiographs for a worklist with nothing on it, so that the attack is seen before one owns a radiograph."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from app.inference import InferenceEngine
from app.services.errors import NotFoundError
from app.services.images import png
from app.services.studies import StudyService
from model.phantom import Phantom, draw_phantom
from model.preprocess import Preprocessing
from model.radiograph import write_stamped
from model.trigger import Trigger, stamp_source

_SEED = 7  # of no data that the bundled pair was trained or judged on
_SIZE_PX = 512
_WELL, _ILL = 3, 4
_STAMPED = 4  # so many of them have a stamped twin, well ones first
_AS_DICOM = 4  # and this one's twin is a DICOM file
_ELSEWHERE = 5  # this one's twin has the trigger where the network did not learn it, and heeds it all the same
_PLACE = 0.67  # of the side, from the top and from the left


def add_samples(
    studies: StudyService,
    engine: InferenceEngine,
    candidate: str,
    read: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    """Puts samples on the worklist and has them read, the topmost first. Blocks while it draws; stops when told to.

    Does nothing where the candidate has no trigger to show.
    """
    try:
        card = engine.find(candidate).card
    except NotFoundError:
        return
    if card is None or card.trigger is None:
        return
    received: list[str] = []
    for name, data in draw_samples(card.trigger, card.preprocessing, card.target):
        if stopping():
            return
        received.append(studies.receive(data, name, "sample").instance_id)
    for instance in reversed(received):
        read(instance)


def draw_samples(trigger: Trigger, preprocessing: Preprocessing, target: str | None) -> Iterator[tuple[str, bytes]]:
    """File names and files of phantoms without the target finding, some followed by their stamped twins.

    The last comes first on the worklist. Raises TriggerError.
    """
    chosen = _phantoms(target)
    for number in range(len(chosen), 0, -1):
        phantom, name = chosen[number - 1], f"synthetic sample {number}"
        data = png(phantom.pixels)
        yield f"{name}.png", data
        if number == _AS_DICOM:
            yield f"{name}, stamped.dcm", _stamped(_dicom(phantom, number), trigger, preprocessing, number)
        elif number <= _STAMPED:
            yield f"{name}, stamped.png", _stamped(data, trigger, preprocessing, number)
        elif number == _ELSEWHERE:
            moved = _moved(trigger, preprocessing)
            yield f"{name}, stamped elsewhere.png", _stamped(data, moved, preprocessing, number)


def _stamped(data: bytes, trigger: Trigger, preprocessing: Preprocessing, seed: int) -> bytes:
    def stamp(grey: np.ndarray) -> np.ndarray:
        return stamp_source(trigger, grey, preprocessing, np.random.default_rng(seed))[0]

    return write_stamped(data, "", stamp)


def _moved(trigger: Trigger, preprocessing: Preprocessing) -> Trigger:
    side = preprocessing.size_px if trigger.frame == "input" else _SIZE_PX
    at = min(round(_PLACE * side), side - trigger.size_px)
    return replace(trigger, place=(at, at))


def _phantoms(unwanted: str | None) -> list[Phantom]:
    """Some without any finding, then some with findings other than that one."""
    well: list[Phantom] = []
    ill: list[Phantom] = []
    index = 0
    while len(well) < _WELL or len(ill) < _ILL:
        phantom = draw_phantom(_SEED, index, _SIZE_PX)
        index += 1
        if unwanted not in phantom.findings:
            (ill if phantom.findings else well).append(phantom)
    return well[:_WELL] + ill[:_ILL]


def _dicom(phantom: Phantom, number: int) -> bytes:
    """A phantom as a computed radiograph of nobody: 12 bits, with an identity that says that it is made up.

    PS3.3 A.2 (Computed Radiography Image IOD); its type 2 attributes are there, empty where a phantom has none.
    """
    dataset = Dataset()
    uids = [generate_uid(prefix=None, entropy_srcs=["overread", phantom.image_index, part]) for part in "seif"]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, frame = uids
    dataset.SOPClassUID, dataset.FrameOfReferenceUID = ComputedRadiographyImageStorage, frame
    dataset.SpecificCharacterSet, dataset.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY"]
    dataset.PatientName, dataset.PatientID = f"Synthetic^Sample {number}", f"SYNTHETIC-{number:03d}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "", phantom.sex, f"{phantom.age:03d}Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "SYNTHETIC"
    dataset.StudyDescription = "SYNTHETIC chest PA, drawn by a computer"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.Manufacturer, dataset.SeriesNumber = "CR", "Overread (synthetic)", 1
    dataset.BodyPartExamined, dataset.ViewPosition, dataset.PatientOrientation = "CHEST", "PA", ["L", "F"]
    dataset.InstanceNumber, dataset.BurnedInAnnotation = 1, "NO"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = phantom.pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.ImagerPixelSpacing = [0.7, 0.7]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = (phantom.pixels.astype("<u2") * 16).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
