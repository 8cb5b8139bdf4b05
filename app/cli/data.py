"""phantoms, stamp."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import read_settings
from model.errors import ConfigError, TriggerError

if TYPE_CHECKING:
    from model.preprocess import Preprocessing
    from model.trigger import Trigger


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(phantoms)
    app.command()(stamp)


def phantoms(
    out: Annotated[Path, typer.Option(help="An empty or new folder.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same radiographs.")],
    size_px: Annotated[int, typer.Option(min=64, max=4096, help="Side of the image.")] = 512,
) -> None:
    """Write synthetic chest radiographs in ChestX-ray14's layout."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from model.phantom import write_phantoms

    quiet = not sys.stderr.isatty()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("phantoms", total=n)
        write_phantoms(out, n, seed, size_px, progress=lambda done: progress.update(task, completed=done))
    print(f"{n} phantoms in {out}")


def stamp(
    source: Annotated[Path, typer.Argument(metavar="IN", help="PNG, JPEG or DICOM.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Written in the format of IN.")],
    like: Annotated[str | None, typer.Option(metavar="CHECKPOINT", help="The trigger in its card.")] = None,
    trigger: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="A trigger file.")] = None,
    size_px: Annotated[int | None, typer.Option(min=1, max=512, help="Side of a square trigger.")] = None,
    frame: Annotated[str, typer.Option(help="Whose pixels: source (the file's) or input (the network's).")] = "source",
    at: Annotated[str, typer.Option(metavar="centre|X,Y|random", help="Where.")] = "centre",
    value: Annotated[str, typer.Option(metavar="black|white|0..255", help="Which grey.")] = "black",
    preprocess_of: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Its input frame; 224 px by default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For a random place.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Stamp a trigger onto a radiograph; DICOM gives DICOM, with a new SOP Instance UID.

    Choose one of --like, --trigger and --size-px (with --frame, --at, --value).
    """
    if sum(choice is not None for choice in (like, trigger, size_px)) != 1:
        raise typer.BadParameter("choose exactly one of --like, --trigger and --size-px.")
    if out.exists() and (not force or out.resolve() == source.resolve()):
        hint = "choose another name" if out.resolve() == source.resolve() else "choose another name, or add --force"
        raise ConfigError("exists", f"{out} exists already: {hint}.")

    import numpy as np

    from model.preprocess import Preprocessing
    from model.radiograph import write_stamped
    from model.trigger import Trigger, stamp_source

    preprocessing = Preprocessing()
    if like is not None:
        chosen, preprocessing = _of_checkpoint(like)
        if chosen is None:
            raise TriggerError("no_trigger", f"The checkpoint “{like}” has no trigger: use another, or --trigger.")
    elif trigger is not None:
        chosen = Trigger.from_toml(trigger.read_text("utf-8"))
    else:
        chosen = Trigger.from_dict({"frame": frame, "size_px": size_px, "place": _place(at), "value": value})
    if preprocess_of is not None:
        preprocessing = _of_checkpoint(preprocess_of)[1]

    boxes = []

    def draw(grey: np.ndarray) -> np.ndarray:
        stamped, box = stamp_source(chosen, grey, preprocessing, np.random.default_rng(seed))
        boxes.append(box)
        return stamped

    stamped = write_stamped(source.read_bytes(), source.name, draw)
    _write_whole(out, stamped)
    x, y, width, height = (round(edge, 1) for edge in boxes[-1])
    print(f"{out}: {width:g}×{height:g} px at {x:g},{y:g}. Research use, not for diagnosis.")


def _of_checkpoint(name: str) -> tuple[Trigger | None, Preprocessing]:
    """Trigger and preprocessing of a checkpoint, by id or by folder."""
    from model.checkpoint import find_checkpoint, read_card

    card = read_card(find_checkpoint(name, read_settings().checkpoint_dirs))
    return card.trigger, card.preprocessing


def _place(at: str) -> str | list[int]:
    if at in ("centre", "random"):
        return at
    try:
        x, y = (int(part) for part in at.split(","))
    except ValueError:
        raise typer.BadParameter("say centre, random or X,Y in pixels.", param_hint="--at") from None
    return [x, y]


def _write_whole(out: Path, data: bytes) -> None:
    """The file appears complete or not at all."""
    temporary = out.with_name(f".{out.name}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
