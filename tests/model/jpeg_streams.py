"""JPEG and JPEG-LS streams of grey samples, for tests: a lossless encoder of our own, and GDCM's."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np


def lossless_jpeg(samples: np.ndarray, precision: int) -> bytes:
    """ITU-T T.81 annex H by hand, predictor 1 (the left neighbour), point transform 0: independent of any library.

    samples: H×W unsigned below 2^precision. The Huffman table gives each of the 17 difference categories a code of
    five bits, so that code c of category c is simply c.
    """
    height, width = samples.shape
    values = samples.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (precision - 1)
    bits = []
    for difference in ((values - predicted + 2**15) % 2**16 - 2**15).ravel().tolist():
        if difference == -(2**15):
            category, extra = 16, ""  # H.1.2.2: 32768 has no extra bits
        else:
            category = abs(difference).bit_length()
            low = difference if difference > 0 else difference + 2**category - 1
            extra = format(low, f"0{category}b") if category else ""
        bits.append(format(category, "05b") + extra)
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    coded = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\x00")

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHBBBB", precision, height, width, 1, 1, 0x11, 0))
        + segment(0xC4, table)
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + coded
        + b"\xff\xd9"
    )


def through_gdcm(samples: np.ndarray, syntax: str) -> bytes:
    """A stream of the transfer syntax, with as many bits as the array's type has."""
    shape = [str(side) for side in samples.shape]
    command = [sys.executable, "-m", "tests.model.gdcm_encoder", samples.dtype.str, *shape, syntax]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True, cwd=root)
    return done.stdout
