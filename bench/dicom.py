"""Every file of pydicom's own test set: what becomes of it, in how long, in how much memory.

    python -m bench.dicom

Each file is read twice, each time by a process of its own: as it is, and with a header that says it is a frontal
chest radiograph, since most of the set are other modalities, refused before a pixel is decoded. The memory is the peak
resident set of that process or of its decoding child, interpreter and libraries included.
"""

from __future__ import annotations

import io
import re
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_files

_ONE = """
import sys, time
from pathlib import Path
from bench.dicom import peak_kb
from model.errors import RadiographError
from model.radiograph import read_radiograph
data = Path(sys.argv[1]).read_bytes()
start = time.perf_counter()
try:
    image = read_radiograph(data)
    outcome = "decoded " + "×".join(map(str, image.pixels.shape[::-1]))
except RadiographError as error:
    outcome = error.code
seconds = time.perf_counter() - start
print(outcome, f"{seconds:.3f}", f"{peak_kb() / 1024:.0f}", sep="\\t")
"""


def pydicom_files() -> list[Path]:
    """The files that pydicom ships, in the order of their paths."""
    return sorted(path for path in map(Path, get_testdata_files()) if path.is_file())


def as_chest_radiograph(data: bytes) -> bytes | None:
    """The file with a header that says so and its pixels as they were; None where pydicom cannot write it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            if "PixelData" not in ds:
                return None
            ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "DX", "CHEST", "PA"
            for keyword in ("AnatomicRegionSequence", "ViewCodeSequence", "PatientOrientation"):
                if keyword in ds:
                    delattr(ds, keyword)
            buffer = io.BytesIO()
            ds.save_as(buffer)
            return buffer.getvalue()
        except Exception:  # damaged on purpose
            return None


def peak_kb() -> int:
    """Peak resident set of this process, or of the largest child that it has waited for.

    Not getrusage's for the process itself: through fork and exec that keeps the peak of whoever started it.
    """
    own = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert own is not None
    return max(int(own[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def main() -> None:
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    slowest, largest, counts = 0.0, 0, dict[str, int]()
    print(f"{'file':64} {'as it is':28} {'relabelled':28} {'s':>6} {'MB':>4}")
    for path in pydicom_files():
        row, seconds, megabytes = [], 0.0, 0
        for data in (path.read_bytes(), as_chest_radiograph(path.read_bytes())):
            if data is None:
                row.append("–")
                continue
            outcome, took, peak = _read(data)
            row.append(outcome)
            counts[outcome.split()[0]] = counts.get(outcome.split()[0], 0) + 1
            seconds, megabytes = max(seconds, took), max(megabytes, peak)
        print(f"{path.relative_to(root)!s:64} {row[0]:28} {row[1]:28} {seconds:6.2f} {megabytes:4}", flush=True)
        slowest, largest = max(slowest, seconds), max(largest, megabytes)
    print(f"\n{len(pydicom_files())} files, slowest {slowest:.2f} s, largest {largest} MB")
    print(", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items(), key=lambda item: -item[1])))


def _read(data: bytes) -> tuple[str, float, int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [sys.executable, "-c", _ONE, file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return f"CRASHED ({done.returncode})", 0.0, 0
    outcome, seconds, megabytes = done.stdout.strip().split("\t")
    return outcome, float(seconds), int(megabytes)


if __name__ == "__main__":
    main()
