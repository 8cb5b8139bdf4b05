"""`overread calibrate`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import read_settings
from app.cli.terminal import Terminal

if TYPE_CHECKING:
    from model.detector import Calibration


class Which(StrEnum):
    """`--split` of `overread calibrate`."""

    CALIBRATION = "calibration"
    ALL = "all"


class DonorKind(StrEnum):
    """`--donors` of `overread calibrate`."""

    OWN = "own"
    PHANTOMS = "phantoms"


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(calibrate)


def calibrate(
    checkpoint: Annotated[str, typer.Option(help="A checkpoint's id or folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder in ChestX-ray14's layout; else phantoms."),
    ] = None,
    split: Annotated[
        Which | None,
        typer.Option(help="Default: the calibration part where the folder has lists, else every radiograph."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many radiographs, evenly spread; without --data so many phantoms (250)."),
    ] = None,
    donors: Annotated[
        DonorKind | None,
        typer.Option(
            help="Whom suspicious spots are put onto. own (default with --data and no --phantoms): 16 patients of the "
            "data, if 99 radiographs of others remain; their network inputs are kept beside the calibration."
        ),
    ] = None,
    phantoms: Annotated[
        int, typer.Option(min=0, help="So many phantoms beside --data, where phantoms will be read too.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the phantoms.")] = 5502,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.1, help="False-positive rate of a flag, per radiograph.")
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="Folder for calibration.json; default: calibrations/ in the data folder.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who calibrates, for the record.")] = "",
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda:N; by default what OVERREAD_DEVICE says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the calibration's summary as JSON.")] = False,
) -> None:
    """Fits the detector to a checkpoint on clean radiographs of patients it was not trained on.

    Clean is what nobody stamped; diseases belong to it, and only what the checkpoint calls can be tested. A flag at 1 %
    takes 99 radiographs. 250 at 224 px take about 14 minutes on two cores.
    """
    from app.services.calibrating import Asked
    from app.services.calibrating import calibrate as calibrated
    from model.checkpoint import find_checkpoint

    if phantoms and data is None:
        raise typer.BadParameter("--phantoms goes beside --data; phantoms alone are as many as --images says.")
    if donors is DonorKind.OWN and (data is None or phantoms):
        raise typer.BadParameter("--donors own takes patients of --data, with no phantoms beside them.")
    settings = read_settings()
    asked = Asked(
        data=data,
        whole=None if split is None else split is Which.ALL,
        images=images,
        phantoms=phantoms,
        seed=seed,
        own_donors=None if donors is None else donors is DonorKind.OWN,
        alpha=alpha,
        by=by,
    )
    folder = find_checkpoint(checkpoint, settings.checkpoint_dirs)
    terminal = Terminal()
    try:
        made, path = calibrated(settings, folder, asked, device=device or "", out=out, progress=terminal.step)
    finally:
        terminal.close()
    if as_json:
        typer.echo(json.dumps({"path": str(path), **made.summary()}))
    else:
        typer.echo(_in_words(made, path))


def _in_words(made: Calibration, path: Path) -> str:
    """What a person wants to know: whether there is a flag, and what its rate may really be."""
    summary = made.summary()
    low, high = summary["realised_rate"]
    lines = [f"{path}: {made.checkpoint_id}, {made.reference.n} radiographs of {made.origin.patients} patients."]
    if made.decides:
        lines.append(
            f"Flags at {100 * made.alpha:g} % of clean radiographs; so many radiographs allow {100 * low:.1f} % to "
            f"{100 * high:.1f} % (95 %)."
        )
    else:
        least = round(1 / made.alpha) - 1
        lines.append(
            f"No flag at {100 * made.alpha:g} % exists: it takes {least} radiographs. Nothing will be flagged."
        )
    lines.append(f"{len(made.reference.tested)} passed screen and occlusion and were tested in full.")
    if made.decides and made.causal_threshold is not None:
        lines.append(
            f"Causal takes, beside its tests, a score over {made.causal_threshold:.3f}, the most that a true lesion "
            f"reached in {made.reference.n_hard} phantoms."
        )
    whom = "phantoms" if made.donors.phantoms else "patients of this data, whose network inputs are kept beside it"
    lines.append(f"Spots are put onto {summary['donors']} {whom}.")
    lines.append("Research use, not for diagnosis.")
    return "\n".join(lines)
