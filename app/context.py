"""What a running server holds, and how routes get at it."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from app.blobs import BlobStore
from app.db import Database
from app.inference import InferenceEngine
from app.schemas import CheckpointInfo
from app.services.analyses import AnalysisService
from app.services.checkpoints import list_checkpoints
from app.settings import Settings


class Services:
    """Built once for a server: opens the data folder and brings the database up to date; weights load after `start`.

    Raises ConfigError `no_such_device` or `bad_database`, and OSError when the data folder cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.db = Database(settings.resolved_database_url)
        self.db.migrate()
        self.engine = InferenceEngine(settings.checkpoint_dirs, settings.device, settings.queue_size)
        self.analyses = AnalysisService(
            self.db, BlobStore(settings.data_dir / "blobs"), self.engine, settings.pair, settings.max_pixels
        )

    def start(self) -> None:
        """Begins to load."""
        self.engine.start()

    def stop(self) -> None:
        """Finishes what is being read."""
        self.engine.stop()
        self.db.close()

    def checkpoints(self) -> list[CheckpointInfo]:
        """The registry, the pair first."""
        listed = list_checkpoints(self.engine, self.settings.pair)
        return sorted(listed, key=lambda info: {"reference": 0, "candidate": 1}.get(info.role or "", 2))


def services(request: Request) -> Services:
    """The server's services."""
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]
