"""Foreign weights → a checkpoint in the registry."""

from __future__ import annotations

from pathlib import Path

from app.inference import scan
from app.schemas import CheckpointInfo
from app.services.checkpoints import offline_registry
from app.settings import Settings
from model.checkpoint import check_id
from model.errors import CheckpointError
from model.importing import import_checkpoint
from model.preprocess import Preprocessing


def import_weights(
    settings: Settings,
    path: Path,
    checkpoint_id: str,
    *,
    title: str | None = None,
    preprocessing: Preprocessing | None = None,
    outputs: list[str] | None = None,
) -> CheckpointInfo:
    """Imports a `.pth` or `.safetensors` file into data_dir/checkpoints; a running server finds it there.

    Raises CheckpointError `exists` when the id is taken, and what `import_checkpoint` raises.
    """
    check_id(checkpoint_id)
    if any(listed.id == checkpoint_id for listed in scan(settings.checkpoint_dirs)):
        raise CheckpointError("exists", f"There is a checkpoint “{checkpoint_id}” already; choose another id.")
    folder = settings.data_dir / "checkpoints" / checkpoint_id
    import_checkpoint(path, folder, title=title, preprocessing=preprocessing, outputs=outputs)
    registry = offline_registry(settings.checkpoint_dirs, settings.pair)
    return next(info for info in registry if info.id == checkpoint_id)
