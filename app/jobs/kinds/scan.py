"""Screening a folder in the background: `overread scan` as a job. Where it goes on from is the output file itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.jobs.context import Context, JobCancelled
from app.services.scanning import Scan, scanning_engine

EVERY = 32


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: folder, out (absolute paths), checkpoints, pair (as it was when the scan was asked for), test.

    Result: files, refused. Raises BusyError `not_all_read` for what the machine had trouble with: for the next attempt.
    """
    torch.set_num_threads(1)
    written = 0
    checkpoints: list[str] = list(spec["checkpoints"])
    reference, candidate = spec.get("pair") or ctx.settings.pair
    pair = (reference, candidate)
    with scanning_engine(ctx.settings, checkpoints, pair) as (engine, decoder):
        test = spec.get("test", "screen")
        scan = Scan(Path(spec["folder"]), Path(spec["out"]), checkpoints, ctx.settings, pair, test)
        with scan.open():
            ctx.report(scan.done, scan.total, "files")
            for _ in scan.run(engine, decoder):
                if ctx.cancelled():
                    raise JobCancelled
                ctx.report(scan.done, scan.total, "files")
                written += 1
                if written % EVERY == 0:
                    ctx.checkpoint({"done": scan.done})
            return {"files": scan.done, "refused": scan.refused}
