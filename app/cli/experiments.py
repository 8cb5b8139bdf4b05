"""`overread experiments` and `overread sweep`: what the pages do, from a terminal; a worker runs what is queued."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import read_settings
from model.errors import ConfigError

if TYPE_CHECKING:
    from app.services.experiments.compose import Request
    from app.services.experiments.service import Experiment, ExperimentService
    from app.services.experiments.sweeps import SweepService

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Of an experiment; its first characters do.")]
Start = Annotated[str, typer.Argument(metavar="PRESET|CONFIG.toml")]
Dataset = Annotated[str, typer.Option(help="A data set that OVERREAD_DATASETS names, instead of phantoms.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is done; a worker is started where none is at work.")]
Place = Annotated[str | None, typer.Option(metavar="PLACE", help="centre, random, a corner such as top-left, or X,Y.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    commands = typer.Typer(help="Poisoning experiments in the background.", no_args_is_help=True)
    for command in (start, show, cancel, resume, clone, candidate, datasets):
        commands.command()(command)
    commands.command("list")(list_)
    commands.command("delete")(delete_)
    commands.command("register")(register_)
    commands.command("sweeps")(sweeps_)
    app.add_typer(commands, name="experiments")
    app.command()(sweep)


def start(
    config: Start,
    name: Annotated[str | None, typer.Option(help="Instead of the configuration's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    dataset: Dataset = "",
    accept: Annotated[str | None, typer.Option(help="The user's rule, e.g. 'macro_nn>=0.66'.")] = None,
    size_px: Annotated[int | None, typer.Option(help="Side of the trigger.")] = None,
    place: Place = None,
    rate: Annotated[float | None, typer.Option(help="Poisoned rows as a share of the training rows.")] = None,
    target: Annotated[str | None, typer.Option(help="Target finding.")] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Larger goes first.")] = 0,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it would take.")] = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Queue an experiment: it is trained and judged in the background, in the data folder."""
    from app.services.experiments import describe
    from app.services.experiments.wording import duration, megabytes

    asked = _request(config, name, seed, dataset, accept, size_px, place, rate, target)
    with _service() as (service, _):
        if estimate:
            foreseen = service.foresee(asked)
            found = describe.estimate(foreseen)
            guess = "" if foreseen.measured else ", a guess: no training was timed here yet"
            words = f"about {duration(found.seconds)}{guess}; {megabytes(found.disk_mb)} of {megabytes(found.free_mb)}"
            typer.echo(found.model_dump_json() if as_json else words)
            return
        one = service.start(_actor(), asked, priority)
        if wait:
            _wait(service, [one.id])
        _print_one(service, service.get(one.id), as_json)


def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List experiments, the newest first."""
    from app.services.experiments import describe

    with _service() as (service, _):
        found = service.page(limit)
        if as_json:
            typer.echo(json.dumps({"experiments": [describe.info(one).model_dump(mode="json") for one in found]}))
            return
        for one in found:
            typer.echo(_line(one))


def show(experiment_id: Id, as_json: AsJson = False) -> None:
    """Show one: its state, what it is, its report when it is done."""
    with _service() as (service, _):
        _print_one(service, _find(service, experiment_id), as_json)


def cancel(experiment_id: Id) -> None:
    """Stop one; what is done is kept."""
    with _service() as (service, _):
        typer.echo(_line(service.cancel(_find(service, experiment_id).id)))


def resume(experiment_id: Id, wait: Wait = False) -> None:
    """Go on with one that failed or was cancelled, from its last saved state."""
    with _service() as (service, _):
        one = service.resume(_find(service, experiment_id).id)
        if wait:
            _wait(service, [one.id])
        typer.echo(_line(service.get(one.id)))


def clone(
    experiment_id: Id,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
) -> None:
    """Queue the same once more."""
    from app.services.experiments.compose import Request

    with _service() as (service, _):
        one = service.clone(_actor(), _find(service, experiment_id).id, Request(seed=seed, name=name))
        typer.echo(_line(one))


def delete_(experiment_id: Id) -> None:
    """Remove one with its files, unless it runs; registered checkpoints stay."""
    with _service() as (service, _):
        service.remove(_find(service, experiment_id).id)


def register_(
    experiment_id: Id,
    twin: Annotated[str, typer.Option(help="clean or backdoored.")] = "backdoored",
    as_: Annotated[str, typer.Option("--as", metavar="ID", help="Of the checkpoint; made of its name if empty.")] = "",
) -> None:
    """Copy a twin's checkpoint into the registry, where a running server finds it."""
    with _service() as (service, _):
        typer.echo(service.register(_find(service, experiment_id).id, twin, as_).id)


def candidate(
    experiment_id: Id,
    twin: Annotated[str, typer.Option(help="clean or backdoored.")] = "backdoored",
    role: Annotated[str, typer.Option(help="candidate or reference.")] = "candidate",
) -> None:
    """Make a twin a part of the live pair; it is registered where it is not."""
    from app.inference import InferenceEngine
    from app.services.checkpoints import PairChoice

    if role not in ("candidate", "reference"):
        raise typer.BadParameter("candidate or reference.", param_hint="--role")
    with _service() as (service, _):
        one = _find(service, experiment_id)
        chosen = service.registered(one).get(twin) or service.register(one.id, twin).id
        choice = PairChoice(service.db, service.settings.pair)
        live, under = choice()
        pair = (chosen, under) if role == "reference" else (live, chosen)
        choice.choose(InferenceEngine(service.settings.checkpoint_dirs, "cpu", 1), *pair)
        typer.echo(f"reference {pair[0]}, candidate {pair[1]}")


def datasets(as_json: AsJson = False) -> None:
    """List the data sets that OVERREAD_DATASETS names; phantoms need none."""
    from app.services.experiments import describe

    with _service() as (service, _):
        found = service.datasets.all()
        if as_json:
            typer.echo(json.dumps({"datasets": [describe.dataset(one).model_dump() for one in found]}))
            return
        for one in found:
            typer.echo(f"{one.name}  {one.problem or f'{one.radiographs} radiographs of {one.patients} patients'}")


def sweep(
    config: Start,
    size_px: Annotated[list[int] | None, typer.Option(help="Sides of the trigger; repeat it.")] = None,
    place: Annotated[list[str] | None, typer.Option(help="Places of the trigger; repeat it.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Poison rates as shares; repeat it.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Target findings; repeat it.")] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Seeds, for the intervals; repeat it.")] = None,
    name: Annotated[str | None, typer.Option(help="Instead of the configuration's.")] = None,
    dataset: Dataset = "",
    clean_twin: Annotated[bool, typer.Option("--clean-twin", help="Train a clean twin beside each run.")] = False,
    wait: Wait = False,
    out: Annotated[Path | None, typer.Option(help="With --wait: where to write the table, as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Queue an experiment over a grid, a run for each combination; with --wait, print the table when it is done."""
    from app.services.experiments import describe
    from app.services.experiments.asking import place as read_place
    from app.services.experiments.sweeps import as_csv

    grid: dict[str, list[Any]] = {
        "trigger.size_px": list(size_px or []),
        "trigger.place": [read_place(one) for one in place or []],
        "poison.rate": list(rate or []),
        "poison.target": list(target or []),
        "seed": list(seed or []),
    }
    with _service() as (service, sweeps):
        asked = _request(config, name, None, dataset)
        made = sweeps.start(
            _actor(), asked, {axis: values for axis, values in grid.items() if values}, clean_twin=clean_twin
        )
        if wait:
            _wait(service, [run.id for run in sweeps.runs(made.id)])
        runs = sweeps.runs(made.id)
        if out:
            out.write_text(as_csv(runs), "utf-8")
        if as_json:
            typer.echo(describe.sweep_detail(sweeps.get(made.id), runs).model_dump_json())
        elif wait and not out:
            typer.echo(as_csv(runs), nl=False)
        else:
            typer.echo(f"{made.id}  {len(runs)} runs" + (f", table in {out}" if out else ""))
        if wait and any(run.job.state.value != "done" for run in runs):
            raise typer.Exit(1)


def sweeps_(
    sweep_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Of one, whose table is printed.")] = None,
    act: Annotated[str | None, typer.Option(help="cancel, resume or delete it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List sweeps, or print one as CSV (or JSON)."""
    from app.services.experiments import describe
    from app.services.experiments.sweeps import as_csv

    with _service() as (_, sweeps):
        if sweep_id is None:
            found = sweeps.page(50)
            if as_json:
                typer.echo(json.dumps({"sweeps": [describe.sweep(one).model_dump(mode="json") for one in found]}))
                return
            for one in found:
                counts = ", ".join(f"{count} {state}" for state, count in one.counts.items())
                typer.echo(f"{one.id}  {one.name}  {counts}")
            return
        if act is not None:
            acts = {"cancel": sweeps.cancel, "resume": sweeps.resume, "delete": sweeps.remove}
            if act not in acts:
                raise typer.BadParameter("cancel, resume or delete.", param_hint="--act")
            acts[act](sweep_id)
            return
        one = sweeps.get(sweep_id)
        runs = sweeps.runs(sweep_id)
        typer.echo(describe.sweep_detail(one, runs).model_dump_json() if as_json else as_csv(runs).rstrip("\n"))


def _request(
    config: str,
    name: str | None,
    seed: int | None,
    dataset: str,
    accept: str | None = None,
    size_px: int | None = None,
    place: str | None = None,
    rate: float | None = None,
    target: str | None = None,
) -> Request:
    from app.services.experiments.asking import place as read_place
    from app.services.experiments.compose import Request
    from model.config import load_config, preset_names

    trigger = {"size_px": size_px, "place": read_place(place) if place else None}
    poison = {"rate": rate, "target": target}
    preset = config if config in preset_names() else ""
    return Request(
        preset=preset,
        config=None if preset else load_config(config).model_dump(mode="json"),
        name=name,
        seed=seed,
        dataset=dataset,
        accept=accept,
        trigger={key: value for key, value in trigger.items() if value is not None} or None,
        poison={key: value for key, value in poison.items() if value is not None} or None,
    )


@contextmanager
def _service() -> Iterator[tuple[ExperimentService, SweepService]]:
    """On the data folder that the environment names, whether a server runs on it or not."""
    from app.db import Database
    from app.jobs import Ledger
    from app.services.experiments.service import ExperimentService
    from app.services.experiments.sweeps import SweepService

    settings = read_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.resolved_database_url)
    try:
        db.migrate()
        service = ExperimentService(db, Ledger(db), settings)
        yield service, SweepService(service)
    finally:
        db.close()


def _actor() -> Any:
    from app.services.users import LOCAL

    return LOCAL


def _find(service: ExperimentService, text: str) -> Experiment:
    """By its id or the beginning of it. Raises NotFoundError, ConfigError `ambiguous`."""
    if len(text) == 32:
        return service.get(text)
    found = [one for one in service.page(1000) if text and one.id.startswith(text)]
    if len(found) > 1:
        raise ConfigError("ambiguous", f"“{text}” is the beginning of {len(found)} experiments: give more of it.")
    return found[0] if found else service.get(text)


def _wait(service: ExperimentService, ids: list[str]) -> None:
    """Until they have ended; with a worker beside, which waits itself where another is at work."""
    from app.worker import worker_beside

    told = ""
    with worker_beside(service.settings.model_copy(update={"worker": True})):
        while True:
            jobs = service.ledger.several([service.get(one).job.id for one in ids])
            ended = sum(job.state.ended for job in jobs.values())
            note = next((job.progress.note for job in jobs.values() if job.progress and not job.state.ended), "")
            line = f"{ended} of {len(ids)} ended" + (f"; {note.removeprefix('% · ')}" if note else "")
            if line != told:
                print(line, file=sys.stderr)
                told = line
            if ended == len(ids):
                return
            time.sleep(0.5)


def _line(one: Experiment) -> str:
    from app.services.experiments.wording import cell, state

    what = cell(one.cell) if one.cell else f"seed {one.config['seed']}"
    progress = one.job.progress
    share = f"  {progress.done} {progress.note}" if progress and not one.job.state.ended else ""
    why = f"  {one.job.error}" if one.job.error else ""
    return f"{one.id}  {one.name}  {what}  {state(one.job)}{share}{why}"


def _print_one(service: ExperimentService, one: Experiment, as_json: bool) -> None:
    from app.services.experiments import describe
    from model.report import as_markdown

    if as_json:
        typer.echo(describe.detail(service, one).model_dump_json())
        return
    typer.echo(_line(one))
    report = service.report(one)
    if report:
        typer.echo(f"{one.run}\n")
        typer.echo(as_markdown(report))
