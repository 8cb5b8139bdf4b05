"""The child's side: limits first, then the work."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

from model.confined import REFUSED

_OPEN_FILES = 32


class Refused(Exception):
    """The input is not what it should be. code: a stable word; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(module: str, limits: tuple[int, int, int], arguments: tuple[str | int, ...]) -> NoReturn:
    """Imports the module, closes in, calls its `main(source, answer, *arguments)`, and ends the process.

    limits: memory beyond what is taken now, in bytes; processor time, in seconds; bytes of the answer.
    """
    main = importlib.import_module(f"model.confined.{module}").main
    _close_in(*limits)
    # Libraries in C print where they like: the answer's file is for the answer alone.
    with os.fdopen(os.dup(1), "wb") as answer, os.fdopen(os.dup(0), "rb") as source:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
        try:
            main(source, answer, *arguments)
        except Refused as refused:
            answer.seek(0)
            answer.write(json.dumps({"code": refused.code, "message": str(refused)}).encode())
            answer.truncate()
            status = REFUSED
        except Exception:
            status = 1
        answer.flush()
    sys.stderr.close()
    os._exit(status)  # whatever the input left in memory must not run on the way out


def _close_in(memory_bytes: int, cpu_s: int, output_bytes: int) -> None:
    taken = 0
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the limit would have to guess what the libraries map
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes,) * 2)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + cpu_s,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
