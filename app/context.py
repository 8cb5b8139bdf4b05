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
    """Built once for a server. Starting does not wait for weights."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.db = Database(settings.resolved_database_url)
        self.engine = InferenceEngine(settings.checkpoint_dirs, settings.device, settings.queue_size)
        self.analyses = AnalysisService(
            self.db, BlobStore(settings.data_dir / "blobs"), self.engine, settings.pair, settings.max_pixels
        )

    def start(self) -> None:
        """Migrates and begins to load."""
        self.db.migrate()
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
