"""serve, predict, checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import importing
from app.cli.common import Depth, live_pair, read_settings
from model.errors import CheckpointError, ConfigError, OverreadError

if TYPE_CHECKING:
    import socket

    from app.inference import InferenceEngine
    from app.schemas import CheckpointInfo, Prediction, StageInfo
    from app.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(serve)
    app.command()(predict)
    registry = typer.Typer(help="The checkpoints that can read.", no_args_is_help=True)
    registry.command("list")(list_)
    registry.command("show")(show)
    importing.register(registry)
    app.add_typer(registry, name="checkpoints")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; this machine alone by default.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8000 by default; 0 takes any free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where studies, checkpoints and database live.")] = None,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Begin with an empty worklist, without synthetic radiographs.")
    ] = False,
) -> None:
    """Migrate the database, load the checkpoints, serve the dashboard."""
    settings = read_settings(host=host, port=port, data_dir=data_dir, samples=False if no_samples else None)
    if not settings.on_loopback:
        _require_user(settings)
    import uvicorn

    from app.context import Services
    from app.main import create_app
    from app.telemetry import configure_logging
    from app.worker import worker_beside

    configure_logging()
    services = Services(settings)
    listener = _bind(settings.host, settings.port)
    address, real_port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    print(f"Overread: http://{shown}:{real_port} (research use, not for diagnosis)", flush=True)
    config = uvicorn.Config(
        create_app(settings, services),
        log_config=None,
        access_log=False,  # it would name studies; app/telemetry.py logs the routes instead
        proxy_headers=False,  # create_app believes those that the settings trust
        server_header=False,
        timeout_graceful_shutdown=15,
    )
    server = uvicorn.Server(config)
    with worker_beside(settings):
        server.run(sockets=[listener])
    if not server.started:
        raise ConfigError("not_started", "The server could not start; the lines above say why.")


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Radiographs: PNG, JPEG or DICOM.")],
    checkpoint: Annotated[list[str] | None, typer.Option(help="Id of a checkpoint; may be repeated.")] = None,
    test: Annotated[Depth, typer.Option(help="How far positive findings are tested; full takes a while each.")] = (
        Depth.SCREEN
    ),
    as_json: AsJson = False,
) -> None:
    """Read radiographs offline, as POST /api/v1/predictions does; the pair reads by default, as the dashboard has it.

    With --json there is one line for each file, in their order: the API's answer and the file's name, or the file's
    name and the problem. A file that cannot be read does not stop the others; the exit code is then 1.
    """
    from app.services.analyses import predict_offline

    failed = False
    settings = read_settings()
    pair = settings.pair if checkpoint else live_pair(settings)
    with _Offline(settings, checkpoint or [], pair) as engine:
        for path in files:
            try:
                prediction = predict_offline(
                    engine, path.read_bytes(), path.name, checkpoint or [], pair, settings.max_pixels, test.level
                )
            except (OverreadError, OSError) as error:
                failed = True
                code, message = _explain(error)
                if as_json:
                    print(json.dumps({"file": str(path), "problem": {"code": code, "detail": message}}), flush=True)
                print(f"overread: {path}: {message}", file=sys.stderr)
                continue
            if as_json:
                print(json.dumps({"file": str(path), **prediction.model_dump(mode="json")}), flush=True)
            else:
                _print_reading(path, prediction)
    if failed:
        raise typer.Exit(1)


def list_(as_json: AsJson = False) -> None:
    """List the checkpoints, usable or not."""
    infos = _registry()
    if as_json:
        _print_json({"checkpoints": [info.model_dump(mode="json") for info in infos]})
        return
    for info in infos:
        role = f" ({info.role})" if info.role else ""
        what = f"cannot be used: {info.error}" if info.error else f"{info.title}  {(info.weights_sha256 or '')[:12]}"
        print(f"{info.id}{role}  {what}")
    if not infos:
        print("There is no checkpoint here.")


def show(
    checkpoint_id: Annotated[str, typer.Argument(metavar="ID")],
    as_json: AsJson = False,
) -> None:
    """Show one checkpoint's card, and the stages of its network that can be explained."""
    from app.services.checkpoints import with_stages

    registry = _registry()
    for info in registry:
        if info.id != checkpoint_id:
            continue
        if info.error:
            raise CheckpointError("checkpoint_failed", f"The checkpoint “{checkpoint_id}” cannot be used: {info.error}")
        info = with_stages(info)
        if as_json:
            _print_json(info.model_dump(mode="json"))
            return
        for key, value in (info.card or {}).items():
            print(f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
        _print_stages(info.stages or [])
        return
    known = ", ".join(info.id for info in registry) or "none at all"
    raise CheckpointError("unknown_checkpoint", f"There is no checkpoint “{checkpoint_id}”; there is: {known}.")


class _Offline:
    """An engine for one command."""

    def __init__(self, settings: Settings, checkpoint_ids: list[str], pair: tuple[str, str]) -> None:
        """Loads these, or the pair, or everything where there is no pair. Raises NotFoundError `unknown_checkpoint`."""
        from app.inference import InferenceEngine

        folder = settings.data_dir
        everything = InferenceEngine(settings.checkpoint_dirs, settings.device, 1, data_dir=folder)
        for checkpoint_id in checkpoint_ids:
            everything.find(checkpoint_id)
        only = checkpoint_ids or list(pair)
        chosen = InferenceEngine(settings.checkpoint_dirs, settings.device, 1, only, data_dir=folder)
        self._engine = chosen if chosen.checkpoints() else everything

    def __enter__(self) -> InferenceEngine:
        self._engine.start()
        self._engine.wait_settled()
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.stop()


def _require_user(settings: Settings) -> None:
    """Off loopback nothing is served that anybody could open. Raises ConfigError `no_user`."""
    from app.db import Database
    from app.services.users import UserService

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.resolved_database_url)
    try:
        db.migrate()
        if not UserService(db).any():
            raise ConfigError(
                "no_user",
                f"Nobody can sign in yet, so Overread does not listen on {settings.host}: make a first user with "
                "`overread users add NAME`, or use --host 127.0.0.1.",
            )
    finally:
        db.close()


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is one clear line."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        reason = f"Cannot listen on {host}:{port} ({error.strerror}): choose another port with --port."
        raise ConfigError("cannot_listen", reason) from error
    return listener


def _registry() -> list[CheckpointInfo]:
    """Every checkpoint as its card says, with the weights' hashes checked but nothing loaded."""
    from app.services.checkpoints import offline_registry

    settings = read_settings()
    return offline_registry(settings.checkpoint_dirs, live_pair(settings))


def _explain(error: OverreadError | OSError) -> tuple[str, str]:
    if isinstance(error, OverreadError):
        return error.code, str(error)
    return "cannot_open", f"The file cannot be opened ({error.strerror})."


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1, ensure_ascii=False))


def _print_stages(stages: list[StageInfo]) -> None:
    print("stages: name, rows × columns, channels, share of the depth")
    width = max((len(one.name) for one in stages), default=0)
    for one in stages:
        rows, columns = one.grid
        line = f"  {one.name:{width}}  {rows:>3} × {columns:<3} {one.channels:>5}  {one.depth:.3f}  {one.role or ''}"
        print(line.rstrip())


def _print_reading(path: Path, prediction: Prediction) -> None:
    from rich.console import Console
    from rich.table import Table

    from app.services.wording import finding_text, flag_text, warning_text

    table = Table(title=str(path), title_justify="left", caption=prediction.notice, caption_justify="left")
    table.add_column("Finding")
    for analysis in prediction.analyses:
        table.add_column(f"{analysis.checkpoint.id} {analysis.checkpoint.weights_sha256[:8]}")
    for row in zip(*(analysis.findings for analysis in prediction.analyses), strict=True):
        cells = [f"{one.probability:.3f} {'positive' if one.positive else f'below {one.threshold:.2f}'}" for one in row]
        table.add_row(finding_text(row[0].name), *cells)
    console = Console()
    console.print(table, markup=False)
    for analysis in prediction.analyses:
        for one in analysis.findings:
            if one.flag is not None and one.flag.state != "not_tested":
                word = flag_text(one.flag.verdict or one.flag.state)
                said = f"{analysis.checkpoint.id}, {finding_text(one.name)}: {word}. {one.flag.sentence}"
                console.print(said, markup=False)
    for code in prediction.warnings:
        console.print(warning_text(code), markup=False)
