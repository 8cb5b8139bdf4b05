"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_NO_REAL_DATA = "real data not found at"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `chestxray14/` and `dicom/`; a test that asks for it is skipped where there is none."""
    repository = Path(__file__).resolve().parent.parent
    folder = (repository / os.environ.get("OVERREAD_REAL_DATA", "../shared")).resolve()
    if not ((folder / "chestxray14").is_dir() and (folder / "dicom").is_dir()):
        pytest.skip(f"{_NO_REAL_DATA} {folder} (set OVERREAD_REAL_DATA)")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was not tested for want of real data: a green run without it proves less."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if _NO_REAL_DATA in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped for lack of real data (set OVERREAD_REAL_DATA to its folder)",
            yellow=True,
        )
