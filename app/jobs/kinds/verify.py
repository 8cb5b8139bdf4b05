"""Are the stored files what their names say? Every blob's SHA-256 is computed again, and every received radiograph
must have its file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.jobs.context import Context, JobCancelled
from app.jobs.ledger import Job, Ledger, new_sweep
from app.services.backup import named_by

STEP = 64


def request(ledger: Ledger, parts: int = 1, step: int = STEP) -> list[Job]:
    """Queues the check of the whole store, in so many jobs."""
    sweep = new_sweep()
    return [
        ledger.enqueue("verify", {"part": part, "parts": parts, "step": step}, sweep_id=sweep, priority=-10)
        for part in range(parts)
    ]


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: part, parts: which share of the store; step: files between two checkpoints.

    Result: checked, damaged and missing (SHA-256 of each).
    """
    root = ctx.settings.data_dir / "blobs"
    part, parts, step = int(spec["part"]), int(spec["parts"]), int(spec.get("step", STEP))
    state = dict(ctx.resumed or {"after": "", "checked": 0, "damaged": []})
    names = [name for name in _blobs(root) if int(name[:8], 16) % parts == part]
    left = [name for name in names if name > state["after"]]
    for start in range(0, len(left), step):
        if ctx.cancelled():
            raise JobCancelled
        batch = left[start : start + step]
        damaged = [name for name in batch if _sha256(root / name[:2] / name) != name]
        state = {
            "after": batch[-1],
            "checked": state["checked"] + len(batch),
            "damaged": [*state["damaged"], *damaged],
            "step": len(batch),
        }
        ctx.report(state["checked"], state["checked"] + len(left) - start - len(batch), "files")
        ctx.checkpoint(state)
    return {"checked": state["checked"], "damaged": state["damaged"], "missing": _missing(ctx, root, part, parts)}


def _blobs(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("??/*") if path.name[0] != ".")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(ctx: Context, root: Path, part: int, parts: int) -> list[str]:
    mine = (name for name in named_by(ctx.settings.resolved_database_url) if int(name[:8], 16) % parts == part)
    return sorted(name for name in mine if not (root / name[:2] / name).is_file())
