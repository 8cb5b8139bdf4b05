"""Receiving radiographs, reading them, and finding what was read again.

The methods own their transactions: reading takes seconds, and a writer that waits for the device would keep every
other writer out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from app.blobs import BlobStore
from app.db import Database
from app.inference import LAYERS, InferenceEngine, Role, State
from app.schemas import Analysis, Prediction
from app.services.errors import NotFoundError, UnavailableError
from app.services.images import THUMBNAIL_PX, DisplayCache, blended, fit, grey8, heat, overlay, png
from app.services.readings import Reading, analysis_id, code_version, default_checkpoints, instance_id, read
from app.tables import AnalysisRow, InstanceRow
from model.checkpoint import Card
from model.findings import FINDINGS, finding_index
from model.preprocess import InputMap
from model.radiograph import Radiograph, read_radiograph
from model.radiograph.image import MAX_PIXELS

_ROLES: dict[str, Role] = {key: role for role, name in LAYERS.items() for key in (role, name)}


@dataclass(frozen=True)
class Instance:
    """A received radiograph. name: as its sender called it, may hold anything: escape it."""

    id: str
    sha256: str
    name: str
    format: str
    width_px: int
    height_px: int
    warnings: tuple[str, ...]
    received_at: str
    thumbnail_sha256: str


@dataclass(frozen=True)
class Listing:
    """A row of the worklist. analyses: by checkpoint id, the newest of each."""

    instance: Instance
    analyses: dict[str, Analysis]


@dataclass(frozen=True, eq=False)
class Grid:
    """A raw saliency map, h×w float32, with what is needed to lay it over its radiograph."""

    values: np.ndarray
    layer: Role
    finding: str
    analysis: Analysis

    @property
    def input_map(self) -> InputMap:
        """From the network's input to source pixels."""
        fields = self.analysis.image.input_map
        return InputMap(int(fields["size_px"]), *(fields[k] for k in ("scale_x", "scale_y", "offset_x", "offset_y")))


class AnalysisService:
    """Everything that pages and API do with radiographs."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        engine: InferenceEngine,
        pair: tuple[str, str],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.db = db
        self.blobs = blobs
        self.engine = engine
        self.pair = pair
        self.max_pixels = max_pixels
        self.display = DisplayCache(blobs)

    def predict(self, data: bytes, name: str, checkpoint_ids: Sequence[str] = ()) -> Prediction:
        """Reads a file and keeps it, off the worklist; nothing is kept if it cannot be read.

        Raises RadiographError, and what `analyse` raises.
        """
        radiograph = read_radiograph(data, name, max_pixels=self.max_pixels)
        chosen = choose(self.engine, checkpoint_ids, self.pair)
        self._store(data, radiograph, self._missing(radiograph, chosen), on_worklist=False)
        analyses = self._stored(radiograph.sha256, chosen)
        return Prediction(analyses=analyses, warnings=list(radiograph.warnings))

    def receive(self, data: bytes, name: str) -> Instance:
        """Puts a file on the worklist, unread. The same file again is the same instance. Raises RadiographError."""
        radiograph = read_radiograph(data, name, max_pixels=self.max_pixels)
        self._store(data, radiograph, [], on_worklist=True)
        return self.instance(instance_id(radiograph.sha256))

    def analyse(self, instance: str, checkpoint_ids: Sequence[str] = ()) -> list[Analysis]:
        """Analyses of a received instance, computed where they are missing; in the order of the ids.

        Raises NotFoundError `unknown_study` or `unknown_checkpoint`, BusyError, UnavailableError.
        """
        row = self.instance(instance)
        chosen = choose(self.engine, checkpoint_ids, self.pair)
        stored = self._stored(row.sha256, chosen, partial=True)
        if len(stored) < len(chosen):
            data = self.blobs.get(row.sha256)
            radiograph = read_radiograph(data, row.name)
            self._store(data, radiograph, self._missing(radiograph, chosen), on_worklist=False)
            stored = self._stored(row.sha256, chosen)
        return stored

    def instance(self, instance: str) -> Instance:
        """One received radiograph. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            row = session.get(InstanceRow, instance)
            if row is None:
                raise NotFoundError("unknown_study", "There is no such study here.")
            return _instance(row)

    def count(self) -> int:
        """How many analyses are stored."""
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(AnalysisRow)) or 0

    def is_empty(self) -> bool:
        """Whether no radiograph was ever received."""
        with self.db.read() as session:
            return session.scalars(select(InstanceRow.id).limit(1)).first() is None

    def worklist(self, limit: int) -> list[Listing]:
        """The newest instances first, each with what the checkpoints last said."""
        query = (
            select(InstanceRow)
            .where(InstanceRow.on_worklist)
            .order_by(InstanceRow.received_at.desc(), InstanceRow.id)
            .limit(limit)
            .options(selectinload(InstanceRow.analyses))
        )
        with self.db.read() as session:
            return [
                Listing(
                    _instance(row),
                    {one.checkpoint_id: Analysis.model_validate_json(one.document) for one in row.analyses},
                )
                for row in session.scalars(query)
            ]

    def analysis(self, key: str) -> Analysis:
        """One analysis by id. Raises NotFoundError `unknown_analysis`."""
        with self.db.read() as session:
            return Analysis.model_validate_json(_row(session, key).document)

    def grid(self, key: str, layer: str, finding: str) -> Grid:
        """A raw map. layer: `middle`, `last`, or the layer's name. Raises NotFoundError."""
        if layer not in _ROLES:
            raise NotFoundError("unknown_layer", f"“{layer}” was not explained; there is middle and last.")
        if finding not in FINDINGS:
            raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
        with self.db.read() as session:
            row = _row(session, key)
            analysis = Analysis.model_validate_json(row.document)
            values = np.frombuffer(row.saliency, dtype="<f4")
        shapes = [(len(FINDINGS), *analysis.layers[one].grid) for one in LAYERS]
        split = int(np.prod(shapes[0]))
        role = _ROLES[layer]
        maps = values[:split].reshape(shapes[0]) if role == "middle" else values[split:].reshape(shapes[1])
        return Grid(maps[finding_index(finding)], role, finding, analysis)

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

    def _store(self, data: bytes, radiograph: Radiograph, readings: Sequence[Reading], *, on_worklist: bool) -> None:
        """Blobs first, then the rows that name them, in one transaction: no row without its file."""
        thumbnail = self.blobs.put(png(grey8(radiograph, THUMBNAIL_PX)))
        self.blobs.put(data)
        try:
            self._write(radiograph, len(data), thumbnail, readings, on_worklist)
        except IntegrityError:  # somebody stored the same content between our look and our write: now it is there
            self._write(radiograph, len(data), thumbnail, readings, on_worklist)

    def _write(
        self, radiograph: Radiograph, size_bytes: int, thumbnail: str, readings: Sequence[Reading], on_worklist: bool
    ) -> None:
        with self.db.write() as session:
            row = session.get(InstanceRow, instance_id(radiograph.sha256))
            if row is None:
                height, width = radiograph.pixels.shape
                row = InstanceRow(
                    id=instance_id(radiograph.sha256),
                    sha256=radiograph.sha256,
                    name=radiograph.name or "unnamed",
                    format=radiograph.format,
                    size_bytes=size_bytes,
                    width_px=width,
                    height_px=height,
                    warnings=list(radiograph.warnings),
                    thumbnail_sha256=thumbnail,
                    on_worklist=on_worklist,
                )
                session.add(row)
            row.on_worklist = row.on_worklist or on_worklist
            for reading in readings:
                if session.get(AnalysisRow, reading.analysis.analysis_id) is None:
                    session.add(_analysis_row(reading))


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
        code_version=code_version(),
        document=analysis.model_dump_json(),
        saliency=reading.saliency["middle"].tobytes() + reading.saliency["last"].tobytes(),
    )


def _row(session: Session, key: str) -> AnalysisRow:
    row = session.get(AnalysisRow, key)
    if row is None:
        raise NotFoundError("unknown_analysis", "There is no such analysis here.")
    return row


def _instance(row: InstanceRow) -> Instance:
    return Instance(
        id=row.id,
        sha256=row.sha256,
        name=row.name,
        format=row.format,
        width_px=row.width_px,
        height_px=row.height_px,
        warnings=tuple(row.warnings),
        received_at=row.received_at.strftime("%Y-%m-%d %H:%M"),
        thumbnail_sha256=row.thumbnail_sha256,
    )
