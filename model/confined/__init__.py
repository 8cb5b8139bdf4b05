"""Code of ours in a child process that may neither grow nor linger: for parsers that hostile bytes may break.

The child is a fresh interpreter with an empty environment. It gets its input as an open file and answers into another
one that has no name, so nothing is left behind however it ends; memory, processor time and the size of whatever it
writes are bounded by the kernel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.errors import OverreadError

REFUSED = 3  # exit code of a child that says, as JSON, why it refuses its input
_ROOT = str(Path(__file__).resolve().parents[2])
_START = """
import sys
sys.dont_write_bytecode = True  # under a limit on files Python would leave them cut short
sys.path.insert(0, {root!r})
from model.confined.child import run
run({module!r}, {limits!r}, {arguments!r})
"""


class ConfinedError(OverreadError):
    """The child gave no result: `too_slow`, `crashed` (out of memory counts as that), or a code of its own."""


@dataclass(frozen=True)
class Limits:
    """memory_bytes: beyond what the child's libraries take. cpu_s, wall_s: seconds. output_bytes: of its answer."""

    memory_bytes: int
    cpu_s: int
    wall_s: int
    output_bytes: int


def run_confined(module: str, source: BinaryIO, limits: Limits, arguments: Sequence[str | int] = ()) -> bytes:
    """What `main(source, answer, *arguments)` of `model.confined.<module>` wrote as its answer.

    source: a file of the operating system, open for reading; its position is where the child begins.
    Raises ConfinedError.
    """
    bounds = (limits.memory_bytes, limits.cpu_s, limits.output_bytes)
    start = _START.format(root=_ROOT, module=module, limits=bounds, arguments=tuple(arguments))
    with tempfile.TemporaryFile() as answer:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", start],
                stdin=source,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": "1"},
                timeout=limits.wall_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfinedError("too_slow", f"Reading it took longer than {limits.wall_s} s.") from error
        answer.seek(0)
        if done.returncode == REFUSED:
            problem = json.loads(answer.read(65536))
            raise ConfinedError(str(problem["code"]), str(problem["message"]))
        if done.returncode:
            raise ConfinedError("crashed", "Reading it failed, or took more memory or time than it may.")
        return answer.read(limits.output_bytes)
