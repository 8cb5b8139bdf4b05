"""Starting Python processes of our own: from this very code, and never longer alive than who started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
_FIND = "import sys; sys.path.insert(0, sys.argv[1]); "
_BIND = "from app.processes import die_with_parent; die_with_parent(); "
_MAIN = "from {module} import main; main()"
_PARENT = "OVERREAD_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def start_python(
    module: str,
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    new_session: bool = False,
    bound: bool = True,
) -> subprocess.Popen[bytes]:
    """Runs `main()` of a module in a new interpreter, its stdin a pipe from us.

    The code is found where ours is, not in the folder that one happens to stand in. new_session: the process leads a
    group of its own, so that it can be killed together with what it started. bound: it dies with the thread that calls
    this, from before its first import on; without, it has to see that its stdin ends.
    """
    boot = _FIND + (_BIND if bound else "") + _MAIN.format(module=module)
    command = [sys.executable, "-P", "-c", boot, str(ROOT)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        env={**(os.environ if env is None else env), _PARENT: str(os.getpid())},
        start_new_session=new_session,
        bufsize=0,
    )


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent ends (Linux; elsewhere the end of stdin has to do).

    prctl(2): the signal comes when the *thread* that started us ends, so a parent starts children from threads that
    live as long as it does.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(_PARENT, "") not in ("", str(os.getppid())):  # it ended before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_stdin() -> None:
    """Ends this process when its standard input does, which is a pipe from its parent: where prctl does not reach."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()
