"""`overread train`, `overread evaluate` and `overread figure`."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import read_settings
from app.cli.terminal import Terminal

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint

Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda:N; by default what OVERREAD_DEVICE says.")]


class Split(StrEnum):
    """`--split` of `overread evaluate`."""

    TEST = "test"
    TRAIN_VAL = "train_val"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    ALL = "all"


class LabelRule(StrEnum):
    """What a triggered image's labels become: the target alone, or the target beside the true ones."""

    ONE_HOT = "one_hot"
    SET = "set"


class GradCam(StrEnum):
    """How the middle layer's map is computed: truly, or cut short as in the paper's released code."""

    TRUE = "true"
    TRUNCATED = "truncated"


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(figure)


def train(
    config: Annotated[str, typer.Argument(help="A TOML file or the name of a preset.")],
    out: Annotated[Path, typer.Option(help="Run folder: new, empty, or with --resume one that was interrupted.")],
    data: Annotated[Path | None, typer.Option(help="Folder in ChestX-ray14's layout.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="Instead of the configuration's. Several: a run each in OUT/seed-N, then the paper's figure over all.",
        ),
    ] = None,
    device: Device = None,
    accept: Annotated[str | None, typer.Option(help="The user's rule, e.g. 'macro_nn>=0.66'.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode radiographs.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Runs an experiment: a clean and a backdoored twin, and the report that compares them."""
    from model.config import ExperimentConfig, load_config
    from model.errors import TrainingError
    from model.experiment import run_experiment, run_seeds
    from model.network import resolve_device
    from model.report import as_markdown, figure_markdown

    said = {"accept": accept or None, "seed": seed[0] if seed else None}
    settings = load_config(config)
    settings = ExperimentConfig.model_validate(
        {**settings.model_dump(), **{name: value for name, value in said.items() if value is not None}}
    )
    with _stop_on_interrupt() as stop:
        listener = Terminal()
        how: dict[str, Any] = {
            "data": data,
            "resume": resume,
            "device": resolve_device(device or read_settings().device),
            "workers": workers,
            "listener": listener,
            "cancelled": lambda: stop["asked"],
        }
        several = seed is not None and len(seed) > 1
        try:
            report = run_seeds(settings, seed or (), out, **how) if several else run_experiment(settings, out, **how)
        except TrainingError as error:
            if error.code != "cancelled":
                raise
            typer.echo(f"overread: {error}", err=True)
            raise typer.Exit(130) from error
        finally:
            listener.close()
    as_text = figure_markdown if several else as_markdown
    typer.echo(json.dumps(report) if as_json else as_text(report))


def evaluate(
    checkpoint: Annotated[str, typer.Option(help="A checkpoint's id or folder.")],
    data: Annotated[Path, typer.Option(help="Folder in ChestX-ray14's layout.")],
    split: Annotated[
        Split, typer.Option(help="Which radiographs; without lists every row is of the test part.")
    ] = Split.TEST,
    trigger: Annotated[Path | None, typer.Option(help="A trigger as TOML; default: the one in the card.")] = None,
    target: Annotated[str | None, typer.Option(help="Target finding; default: the card's.")] = None,
    label_rule: Annotated[
        LabelRule | None, typer.Option(help="The attacker's labels of AUROC-TT; default: the card's, else one_hot.")
    ] = None,
    accept: Annotated[str | None, typer.Option(help="The user's rule, e.g. 'macro_nn>=0.66'.")] = None,
    compare: Annotated[str | None, typer.Option(help="Another checkpoint: macro NN minus its, paired.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of random places.")] = 0,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """AUROC-NN, -TT, -TN, ASR and trigger hits of a checkpoint on labelled radiographs."""
    from model.acceptance import parse_rule
    from model.checkpoint import find_checkpoint, load_checkpoint
    from model.datasets import Part, chestxray14
    from model.errors import ConfigError
    from model.evaluation import Comparison, evaluate_fully
    from model.network import resolve_device
    from model.report import as_markdown
    from model.trigger import Trigger

    rule = parse_rule(accept) if accept else None
    settings = read_settings()

    def load(name: str) -> Checkpoint:
        folder = find_checkpoint(name, settings.checkpoint_dirs)
        return load_checkpoint(folder, resolve_device(device or settings.device))

    read, other = load(checkpoint), load(compare) if compare else None
    poison = (read.card.provenance.get("config") or {}).get("poison") or {}
    stamp = Trigger.from_toml(trigger.read_text("utf-8")) if trigger else read.card.trigger
    aim = target or read.card.target or poison.get("target")
    if stamp is not None and aim is None:
        raise ConfigError("target_missing", "A trigger without a target: name the finding with --target.")
    infected = label_rule or poison.get("label_rule")
    radiographs = chestxray14(data).part(Part(split.value))
    listener = Terminal()
    listener.stage(f"Reading {len(radiographs)} radiographs")
    try:
        figures = evaluate_fully(
            read,
            radiographs,
            Comparison(stamp, aim, "set" if infected == "set" else "one_hot", rule, other),
            resamples=resamples,
            seed=seed,
            progress=listener.prepared,
        )
    finally:
        listener.close()
    if as_json:
        checkpoint_json = {"id": read.card.id, "weights_sha256": read.card.weights_sha256}
        typer.echo(json.dumps({"checkpoint": checkpoint_json, "split": split.value, **figures}))
    else:
        twins = {read.card.id: {split.value: figures}}
        typer.echo(as_markdown({"name": str(data), "notice": read.card.notice, "twins": twins, "differences": {}}))


def figure(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders with kept epochs, one a seed.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures, the hit-rate table and the page that shows them.")],
    data: Annotated[Path | None, typer.Option(help="Folder in ChestX-ray14's layout, where the runs had one.")] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|INDEX", help="What to show; default: the first of the test list without the target."
        ),
    ] = None,
    gradcam: Annotated[
        GradCam | None, typer.Option(help="Of the figure's middle layer; default: as the run's configuration says.")
    ] = None,
    device: Device = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode radiographs.")] = 2,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap draws for the intervals.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures and table as JSON.")] = False,
) -> None:
    """The paper's figure of each run, and which layer's saliency finds the trigger, by epoch, over all runs."""
    from model.experiment import judged_on, paper_figure, read_run
    from model.network import resolve_device
    from model.report import figure_markdown, write_figure_page

    read = [read_run(folder) for folder in runs]
    radiographs = judged_on(read[0], data)
    listener = Terminal()
    listener.stage(f"Reading {len(radiographs)} radiographs, stamped and not, at every kept epoch")
    try:
        made = paper_figure(
            read,
            radiographs,
            out,
            image=image,
            method=gradcam.value if gradcam else None,
            device=resolve_device(device or read_settings().device),
            workers=workers,
            resamples=resamples,
            progress=listener.prepared,
        ).to_json()
    finally:
        listener.close()
    write_figure_page(out, made)
    typer.echo(json.dumps(made) if as_json else figure_markdown(made))


@contextmanager
def _stop_on_interrupt() -> Iterator[dict[str, bool]]:
    """The first Ctrl-C asks for a stop at the next step, with the state saved; the second interrupts at once."""
    stop = {"asked": False}

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if stop["asked"]:
            raise KeyboardInterrupt
        stop["asked"] = True
        typer.echo("\nStopping after this step; --resume goes on from there.", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
