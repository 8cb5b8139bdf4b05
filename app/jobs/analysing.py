"""What a job reads the worklist's images with: checkpoints of its own, in its own process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.blobs import BlobStore
from app.db import Database
from app.decoding import Decoder
from app.inference import InferenceEngine
from app.services.analyses import AnalysisService
from app.services.checkpoints import PairChoice
from app.services.scanning import PATIENCE
from app.settings import Settings


@contextmanager
def analysing(settings: Settings, db: Database, checkpoints: Sequence[str]) -> Iterator[AnalysisService]:
    """A service whose engine has loaded these checkpoints and the live pair, for the worklist's summaries, or has
    found out that it cannot. The database is the caller's."""
    pair = PairChoice(db, settings.pair)
    needed = dict.fromkeys([*checkpoints, *pair()])
    engine = InferenceEngine(settings.checkpoint_dirs, settings.device, 1, list(needed), data_dir=settings.data_dir)
    decoder = Decoder(1, PATIENCE * settings.decode_timeout_s, settings.decode_memory_mb)
    blobs = BlobStore(settings.data_dir / "blobs")
    engine.start()
    try:
        engine.wait_settled()
        yield AnalysisService(db, blobs, engine, pair, settings.max_pixels, decoder)
    finally:
        engine.stop()
        decoder.close()
