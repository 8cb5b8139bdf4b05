"""Reading radiographs, and finding what was read again: analyses, maps, pictures.

The methods own their transactions: reading takes seconds, and a writer that waits for the device would keep every
other writer out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.blobs import BlobStore
from app.db import Database
from app.decoding import Decoder, viewer_pixels
from app.inference import LAYERS, InferenceEngine, Role, State
from app.schemas import Analysis, Prediction
from app.services.errors import NotFoundError, UnavailableError
from app.services.ids import is_id
from app.services.images import THUMBNAIL_PX, DisplayCache, blended, fit, grey8, heat, overlay, png
from app.services.instances import LATERAL, Instance, ensure_row, find_row, of_row
from app.services.once import KeyedLocks
from app.services.readings import Reading, analysis_id, default_checkpoints, read
from app.services.summaries import live_pair, refresh
from app.services.wording import warning_text
from app.tables import AnalysisRow
from model.checkpoint import Card
from model.errors import OverreadError
from model.findings import FINDINGS, finding_index
from model.preprocess import InputMap
from model.radiograph import Radiograph, read_radiograph
from model.radiograph.image import MAX_PIXELS

_ROLES: dict[str, Role] = {key: role for role, name in LAYERS.items() for key in (role, name)}


@dataclass(frozen=True, eq=False)
class Grid:
    """A raw saliency map, h×w float32, with what is needed to lay it over its radiograph. layer: its name."""

    values: np.ndarray
    layer: str
    finding: str
    analysis: Analysis

    @property
    def input_map(self) -> InputMap:
        """From the network's input to source pixels."""
        fields = self.analysis.image.input_map
        return InputMap(int(fields["size_px"]), *(fields[k] for k in ("scale_x", "scale_y", "offset_x", "offset_y")))


@dataclass(frozen=True, eq=False)
class Grids:
    """The raw maps of all findings at one layer, 14×h×w float32 ≥ 0, un-normalised. layer: its name."""

    values: np.ndarray
    layer: str
    analysis: Analysis

    def of(self, finding: str) -> Grid:
        """One finding's map. Raises NotFoundError `unknown_finding`."""
        if finding not in FINDINGS:
            raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
        return Grid(self.values[finding_index(finding)], self.layer, finding, self.analysis)


class AnalysisService:
    """Everything that pages and API do with radiographs."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        engine: InferenceEngine,
        pair: Callable[[], tuple[str, str]],
        max_pixels: int = MAX_PIXELS,
        decoder: Decoder | None = None,
    ) -> None:
        """pair: gives the ids of the live reference and candidate, which a page can change. decoder: confined processes
        that read files, received ones and stored ones; without one this process does."""
        self.db = db
        self.blobs = blobs
        self.engine = engine
        self._pair = pair
        self.max_pixels = max_pixels
        self.decode = decoder.read if decoder else read_radiograph
        self.view = decoder.view if decoder else viewer_pixels
        self.display = DisplayCache(blobs, self.decode)
        self._once = KeyedLocks()

    @property
    def pair(self) -> tuple[str, str]:
        """Ids of the live reference and candidate."""
        return self._pair()

    def predict(self, data: bytes, name: str, checkpoint_ids: Sequence[str] = ()) -> Prediction:
        """Reads a file and keeps it, off the worklist; nothing is kept if it cannot be read.

        Raises RadiographError, and what `analyse` raises.
        """
        self.engine.check_room()
        with self.engine.arriving():
            radiograph = self.decode(data, name, max_pixels=self.max_pixels)
        chosen = choose(self.engine, checkpoint_ids, self.pair)
        self._store(data, radiograph, self._missing(radiograph, chosen))
        analyses = self._stored(radiograph.sha256, chosen)
        return Prediction(analyses=analyses, warnings=list(radiograph.warnings))

    def analyse(self, instance: str, checkpoint_ids: Sequence[str] = ()) -> list[Analysis]:
        """Analyses of a received instance, computed where they are missing; in the order of the ids.

        instance: its id, or a study's. Raises NotFoundError `unknown_study` or `unknown_checkpoint`, BusyError,
        UnavailableError, with `lateral_view` for what is kept but not read.
        """
        row = self.instance(instance)
        if not row.predicted:
            raise UnavailableError(LATERAL, warning_text(LATERAL))
        chosen = choose(self.engine, checkpoint_ids, self.pair)
        stored = self._stored(row.sha256, chosen, partial=True)
        if len(stored) < len(chosen):
            with self._once(row.id):  # the page that is opened while the background reads it waits for that reading
                data = self.blobs.get(row.sha256)
                radiograph = self.decode(data, row.name)
                self._store(data, radiograph, self._missing(radiograph, chosen))
            stored = self._stored(row.sha256, chosen)
        return stored

    def count(self) -> int:
        """How many analyses are stored."""
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(AnalysisRow)) or 0

    def shown(self, image_sha256: str) -> list[Analysis | None]:
        """What the live pair's present weights, cards and code have read of an image; None for what has not read it."""
        found: list[Analysis | None] = []
        for checkpoint_id in self.pair:
            try:
                stored = self._stored(image_sha256, [checkpoint_id], partial=True)
            except OverreadError:  # a checkpoint that is gone or broken
                stored = []
            found.append(stored[0] if stored else None)
        return found

    def instance(self, instance: str) -> Instance:
        """One received radiograph by its id, or the one that stands for a study.

        Raises NotFoundError `unknown_study`.
        """
        with self.db.read() as session:
            return of_row(find_row(session, instance))

    def analysis(self, key: str) -> Analysis:
        """One analysis by id. Raises NotFoundError `unknown_analysis`."""
        with self.db.read() as session:
            return Analysis.model_validate_json(_row(session, key).document)

    def grids(self, key: str, layer: str) -> Grids:
        """The stored maps of one layer. layer: `middle`, `last`, or the layer's name. Raises NotFoundError."""
        if layer not in _ROLES:
            raise NotFoundError("unknown_layer", f"“{layer}” was not explained; there is middle and last.")
        with self.db.read() as session:
            row = _row(session, key)
            analysis = Analysis.model_validate_json(row.document)
            values = np.frombuffer(row.saliency, dtype="<f4")
        shapes = [(len(FINDINGS), *analysis.layers[one].grid) for one in LAYERS]
        split = int(np.prod(shapes[0]))
        role = _ROLES[layer]
        maps = values[:split].reshape(shapes[0]) if role == "middle" else values[split:].reshape(shapes[1])
        return Grids(maps, analysis.layers[role].name, analysis)

    def saliency_png(self, grid: Grid, ceiling: float | None, under: bool, longest_px: int | None) -> bytes:
        """A map in colour, registered to source pixels: PNG. ceiling: what the hottest colour means, else the peak.

        under: with the radiograph beneath, else transparent where it is cold.
        """
        image = grid.analysis.image
        source = (image.height_px, image.width_px)
        shown = fit(*source, longest_px)
        top = float(grid.values.max()) if ceiling is None else ceiling
        share = heat(grid.values, grid.input_map, source, shown, top)
        if not under:
            return png(overlay(share))
        return png(blended(share, self.display.grey(grid.analysis.image_sha256, longest_px)))

    def radiograph_png(self, instance: str, longest_px: int | None) -> bytes:
        """The radiograph in 8 bits. Raises NotFoundError."""
        return png(self.display.grey(self.instance(instance).sha256, longest_px))

    def thumbnail_png(self, instance: str) -> bytes:
        """A small one. Raises NotFoundError."""
        return self.blobs.get(self.instance(instance).thumbnail_sha256)

    def _card(self, checkpoint_id: str) -> Card:
        """The card is known before the weights are loaded: what was read before can be shown meanwhile."""
        listed = self.engine.find(checkpoint_id)
        if listed.state is State.LOADING and listed.card:
            return listed.card
        return self.engine.require(checkpoint_id).card

    def _missing(self, radiograph: Radiograph, checkpoint_ids: Sequence[str]) -> list[Reading]:
        """Computes what is not yet stored."""
        known = {one.checkpoint.id for one in self._stored(radiograph.sha256, checkpoint_ids, partial=True)}
        missing = [checkpoint_id for checkpoint_id in checkpoint_ids if checkpoint_id not in known]
        return read(self.engine, radiograph, missing) if missing else []

    def _stored(self, sha256: str, checkpoint_ids: Sequence[str], partial: bool = False) -> list[Analysis]:
        keys = [analysis_id(sha256, self._card(one)) for one in checkpoint_ids]
        with self.db.read() as session:
            rows = {row.id: row for row in session.scalars(select(AnalysisRow).where(AnalysisRow.id.in_(keys)))}
        return [Analysis.model_validate_json(rows[key].document) for key in keys if not partial or key in rows]

    def _store(self, data: bytes, radiograph: Radiograph, readings: Sequence[Reading]) -> None:
        """Blobs first, then the rows that name them, in one transaction: no row without its file."""
        thumbnail = self.blobs.put(png(grey8(radiograph, THUMBNAIL_PX)))
        self.blobs.put(data)
        pair = live_pair(self.engine, self.pair)

        def write(session: Session) -> None:
            row = ensure_row(session, radiograph, len(data), thumbnail)
            for reading in readings:
                if session.get(AnalysisRow, reading.analysis.analysis_id) is None:
                    session.add(_analysis_row(reading))
            if row.study_id is not None:
                session.flush()
                refresh(session, [row.study_id], pair)

        self.db.write_again(write)


def predict_offline(
    engine: InferenceEngine,
    data: bytes,
    name: str,
    checkpoint_ids: Sequence[str],
    pair: tuple[str, str],
    max_pixels: int = MAX_PIXELS,
) -> Prediction:
    """What `AnalysisService.predict` answers, without keeping anything."""
    radiograph = read_radiograph(data, name, max_pixels=max_pixels)
    readings = read(engine, radiograph, choose(engine, checkpoint_ids, pair))
    return Prediction(analyses=[one.analysis for one in readings], warnings=list(radiograph.warnings))


def choose(engine: InferenceEngine, checkpoint_ids: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The checkpoints asked for, or the default. Raises UnavailableError `no_checkpoint`."""
    chosen = list(dict.fromkeys(checkpoint_ids)) or default_checkpoints(engine, pair)
    if not chosen:
        raise UnavailableError("no_checkpoint", "There is no checkpoint to read with: put one into data/checkpoints.")
    return chosen


def _analysis_row(reading: Reading) -> AnalysisRow:
    analysis = reading.analysis
    return AnalysisRow(
        id=analysis.analysis_id,
        instance_id=analysis.instance_id,
        checkpoint_id=analysis.checkpoint.id,
        weights_sha256=analysis.checkpoint.weights_sha256,
        fingerprint=reading.fingerprint,
        document=analysis.model_dump_json(),
        saliency=reading.saliency["middle"].tobytes() + reading.saliency["last"].tobytes(),
    )


def _row(session: Session, key: str) -> AnalysisRow:
    row = session.get(AnalysisRow, key) if is_id(key) else None
    if row is None:
        raise NotFoundError("unknown_analysis", "There is no such analysis here.")
    return row
