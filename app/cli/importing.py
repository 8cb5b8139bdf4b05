"""checkpoints import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import read_settings
from model.errors import ConfigError

if TYPE_CHECKING:
    from model.preprocess import Preprocessing


def register(registry: typer.Typer) -> None:
    """Adds the command."""
    registry.command("import")(import_)


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A state dict of DenseNet-121: .pth or .safetensors.")],
    checkpoint_id: Annotated[str, typer.Option("--id", metavar="ID", help="Its id in the registry.")],
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="torchvision, chexnet, torchxrayvision, or a JSON file as in a card's preprocessing; "
            "told from the weights by default."
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(help="The finding of each output, with commas between; nothing for one that is none of the 14."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What people read.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where studies, checkpoints and database live.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Import a network that others trained: torchvision's DenseNet-121, CheXNet's heirs, TorchXRayVision's.

    The file is read in a confined process that runs nothing of it. Anything but a state dict is refused.
    """
    from app.services.imports import import_weights

    info = import_weights(
        read_settings(data_dir=data_dir),
        path,
        checkpoint_id,
        title=title,
        preprocessing=None if preprocessing is None else _preprocessing(preprocessing),
        outputs=None if outputs is None else [name.strip() for name in outputs.split(",")],
    )
    if as_json:
        print(json.dumps(info.model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    card = info.card or {}
    print(f"{info.id}  {info.title}  {(info.weights_sha256 or '')[:12]}")
    print(f"read as {card['provenance']['convention']}; operating points: {card['provenance']['operating_points']}")


def _preprocessing(given: str) -> Preprocessing:
    """A convention's by name, or a JSON file's. Raises ConfigError `bad_preprocessing`."""
    from model.importing import preprocessing_of
    from model.preprocess import Preprocessing

    if not given.endswith(".json"):
        return preprocessing_of(given)
    try:
        data = json.loads(Path(given).read_text("utf-8"))
    except ValueError as error:
        raise ConfigError("bad_preprocessing", f"{given} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ConfigError("bad_preprocessing", f"{given} is not a JSON object.")
    return Preprocessing.from_json(data)
