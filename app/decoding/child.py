"""The decoding process: reads a file from its standard input, answers with pixels, and holds itself to its limits.

Started by `app.decoding`. It imports what decoding needs and nothing else, no torch and no database, and is told no
secrets: its environment is empty but for the search path.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from app.decoding.pixels import viewer_pixels
from app.decoding.wire import ASK, READY, REQUEST, Question, answer, refusal, view_answer
from model.errors import RadiographError
from model.radiograph import read_identity, read_radiograph

_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Answers until its input ends, with the one who asks, or a limit ends it."""
    memory_mb, cpu_s = int(os.environ["OVERREAD_DECODE_MEMORY_MB"]), int(os.environ["OVERREAD_DECODE_CPU_S"])
    _confine(memory_mb)
    source, sink = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a codec that prints must not garble an answer
    sink.write(READY)
    sink.flush()
    while header := source.read(REQUEST.size):
        magic, lateral, max_pixels, view_px, name_bytes, file_bytes = REQUEST.unpack(header)
        if magic != ASK:
            sys.exit(1)
        name = source.read(name_bytes).decode()
        data = source.read(file_bytes)
        if len(data) < file_bytes:  # who asked is gone
            return
        _limit(resource.RLIMIT_FSIZE, file_bytes)  # a codec in a process of its own gets the stream as a file
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_s + 1)
        try:
            parts: tuple[bytes, ...] = _decoded(data, name, Question(max_pixels, bool(lateral), view_px))
        except RadiographError as error:
            parts = (refusal(error),)
        for part in parts:
            sink.write(part)
        sink.flush()


def _decoded(data: bytes, name: str, question: Question) -> tuple[bytes, bytes]:
    """Raises RadiographError."""
    if question.view_px:
        return view_answer(viewer_pixels(data, name, question.view_px))
    radiograph = read_radiograph(data, name, max_pixels=question.max_pixels, lateral=question.lateral)
    return answer(radiograph, read_identity(data))


def _confine(memory_mb: int) -> None:
    """No more memory than given beyond what is mapped already, no files, no core dumps, no privileges to gain."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    statm = Path("/proc/self/statm")
    if statm.is_file():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, mapped + memory_mb * 2**20)
    sys.dont_write_bytecode = True  # a file that the limit cuts short would be read as a whole one ever after
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit(which: int, value: int) -> None:
    """The soft limit; never above the hard one."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
