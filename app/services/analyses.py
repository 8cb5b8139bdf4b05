"""Reading radiographs, and finding what was read again: analyses, maps, pictures.

The methods own their transactions: reading takes seconds, and a writer that waits for the device would keep every
other writer out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.blobs import BlobStore
from app.db import Database
from app.decoding import Decoder, viewer_pixels
from app.inference import LAYERS, InferenceEngine, Role, State
from app.schemas import Analysis, Prediction, TestLevel
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.examinations import ExaminationService
from app.services.flags import at_level, input_map_of, owes_test, smallest_p
from app.services.ids import is_id
from app.services.images import THUMBNAIL_PX, DisplayCache, blended, fit, grey8, heat, overlay, png
from app.services.instances import LATERAL, Instance, ensure_row, find_row, of_row
from app.services.once import KeyedLocks
from app.services.readings import Reading, analysis_id, default_checkpoints, read
from app.services.stored import flags_of, load
from app.services.summaries import LivePair, live_pair, refresh
from app.services.wording import warning_text
from app.tables import AnalysisRow
from model.errors import OverreadError
from model.findings import FINDINGS, finding_index
from model.preprocess import InputMap
from model.radiograph import Radiograph, read_radiograph
from model.radiograph.image import MAX_PIXELS

_T = TypeVar("_T")
TEST_LIMIT_S = 300.0  # of one request's full tests
TESTS_WAITING = 8  # requests that wait for another's
_LOOK_S = 0.25
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
        return input_map_of(self.analysis.image)


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
        to_test: Callable[[], object] = lambda: None,
    ) -> None:
        """pair: gives the ids of the live reference and candidate, which a page can change. decoder: confined processes
        that read files, received ones and stored ones; without one this process does. to_test: called once
        analyses of the worklist are stored that the screen asks a full test for."""
        self.db = db
        self.blobs = blobs
        self.engine = engine
        self._pair = pair
        self.max_pixels = max_pixels
        self.decode = decoder.read if decoder else read_radiograph
        self.view = decoder.view if decoder else viewer_pixels
        self.display = DisplayCache(blobs, self.decode)
        self.examinations = ExaminationService(db, blobs, engine, self._live_pair)
        self._once = KeyedLocks()
        self._to_test = to_test
        self._testing = threading.Lock()
        self._room_to_test = threading.Semaphore(1 + TESTS_WAITING)

    @property
    def pair(self) -> tuple[str, str]:
        """Ids of the live reference and candidate."""
        return self._pair()

    def predict(
        self,
        data: bytes,
        name: str,
        checkpoint_ids: Sequence[str] = (),
        test: TestLevel = "screen",
        gone: Callable[[], bool] = lambda: False,
    ) -> Prediction:
        """Reads a file and keeps it, off the worklist; nothing is kept if it cannot be read.

        test: `full` makes the full tests that the screen asks for, one request after the other; each is kept, so that
        who was turned away half-way goes on where it stopped. gone: whether nobody waits any more.
        Raises RadiographError, what `analyse` raises, and BusyError `too_slow` after TEST_LIMIT_S, `given_up`, or
        `busy` where too many wait for a full test already.
        """
        self.engine.check_room()
        with self.engine.arriving():
            radiograph = self.decode(data, name, max_pixels=self.max_pixels)
        chosen = choose(self.engine, checkpoint_ids, self.pair)
        self._store(data, radiograph, self._missing(radiograph, chosen, test != "none"))
        stored = self._documents(radiograph.sha256, chosen)
        if test == "full":
            self._test_now(radiograph, stored, gone)
        with self.db.read() as session:
            flags = flags_of(session, [one.analysis_id for one in stored])
        analyses = [at_level(one, flags.get(one.analysis_id, {}), test) for one in stored]
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
        """One analysis by id, with what is known of its flags by now. Raises NotFoundError `unknown_analysis`."""
        with self.db.read() as session:
            found = load(session, [key]) if is_id(key) else {}
        if key not in found:
            raise _unknown()
        return found[key]

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

    def present_id(self, image_sha256: str, checkpoint_id: str) -> str:
        """The id that a checkpoint's reading of an image has with its present weights, card, calibration and code.

        The card is known before the weights are loaded: what was read before can be shown meanwhile. Raises what
        `InferenceEngine.require` raises.
        """
        listed = self.engine.find(checkpoint_id)
        if listed.state is not State.LOADING or listed.card is None:
            card = self.engine.require(checkpoint_id).card
        else:
            card = listed.card
        return analysis_id(image_sha256, card, listed.calibration)

    def _live_pair(self) -> LivePair:
        return live_pair(self.engine, self.pair)

    def _missing(self, radiograph: Radiograph, checkpoint_ids: Sequence[str], screen: bool = True) -> list[Reading]:
        """Computes what is not yet stored, or not yet screened where it is to be."""
        keys = {one: self.present_id(radiograph.sha256, one) for one in checkpoint_ids}
        query = select(AnalysisRow.id).where(AnalysisRow.id.in_(keys.values()))
        with self.db.read() as session:
            known = set(session.scalars(query.where(AnalysisRow.screened) if screen else query))
        missing = [checkpoint_id for checkpoint_id, key in keys.items() if key not in known]
        return read(self.engine, radiograph, missing, "screen" if screen else "none") if missing else []

    def _stored(self, sha256: str, checkpoint_ids: Sequence[str], partial: bool = False) -> list[Analysis]:
        """With what is known of their flags by now; only what the detector has screened. partial: some may lack."""
        keys = [self.present_id(sha256, one) for one in checkpoint_ids]
        with self.db.read() as session:
            screened = session.scalars(select(AnalysisRow.id).where(AnalysisRow.id.in_(keys), AnalysisRow.screened))
            found = load(session, list(screened))
        return [found[key] for key in keys if key in found] if partial else _all_of(keys, found)

    def _documents(self, sha256: str, checkpoint_ids: Sequence[str]) -> list[Analysis]:
        """As they were read, with the screen's flags at most."""
        keys = [self.present_id(sha256, one) for one in checkpoint_ids]
        with self.db.read() as session:
            rows = {
                row.id: row.document for row in session.scalars(select(AnalysisRow).where(AnalysisRow.id.in_(keys)))
            }
        return [Analysis.model_validate_json(one) for one in _all_of(keys, rows)]

    def _test_now(self, radiograph: Radiograph, analyses: Sequence[Analysis], gone: Callable[[], bool]) -> None:
        """One request at a time, because each takes the device for a while."""
        end = time.monotonic() + TEST_LIMIT_S

        def meanwhile() -> None:
            if gone():
                raise BusyError("given_up", "Nobody waited for this test any more.", 1)
            if time.monotonic() > end:
                raise BusyError("too_slow", "The full test takes longer than a request may; try again in a while.", 30)

        owed = self.examinations.owed([one.analysis_id for one in analyses if owes_test(one)])
        if not owed:
            return
        if not self._room_to_test.acquire(blocking=False):
            raise BusyError("busy", "Too many full tests are waiting already; try again in a while.", 30)
        try:
            while not self._testing.acquire(timeout=_LOOK_S):
                meanwhile()
            try:
                for analysis in analyses:
                    if analysis.analysis_id in owed:
                        meanwhile()
                        left_s = max(0.1, end - time.monotonic())
                        self.examinations.examine(analysis, radiograph.grey(), meanwhile, left_s)
            finally:
                self._testing.release()
        finally:
            self._room_to_test.release()

    def _store(self, data: bytes, radiograph: Radiograph, readings: Sequence[Reading]) -> None:
        """Blobs first, then the rows that name them, in one transaction: no row without its file."""
        thumbnail = self.blobs.put(png(grey8(radiograph, THUMBNAIL_PX)))
        self.blobs.put(data)
        pair = self._live_pair()

        def write(session: Session) -> list[str]:
            row = ensure_row(session, radiograph, len(data), thumbnail)
            owed = [one.analysis.analysis_id for one in readings if _put(session, one) and owes_test(one.analysis)]
            if row.study_id is None:
                return []
            session.flush()
            refresh(session, [row.study_id], pair)
            return owed

        owed = self.db.write_again(write)
        if owed:
            self._to_test()


def predict_offline(
    engine: InferenceEngine,
    data: bytes,
    name: str,
    checkpoint_ids: Sequence[str],
    pair: tuple[str, str],
    max_pixels: int = MAX_PIXELS,
    test: TestLevel = "screen",
) -> Prediction:
    """What `AnalysisService.predict` answers, without keeping anything, and without a limit of time."""
    radiograph = read_radiograph(data, name, max_pixels=max_pixels)
    readings = read(engine, radiograph, choose(engine, checkpoint_ids, pair), test)
    return Prediction(analyses=[one.analysis for one in readings], warnings=list(radiograph.warnings))


def choose(engine: InferenceEngine, checkpoint_ids: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The checkpoints asked for, or the default. Raises UnavailableError `no_checkpoint`."""
    chosen = list(dict.fromkeys(checkpoint_ids)) or default_checkpoints(engine, pair)
    if not chosen:
        raise UnavailableError("no_checkpoint", "There is no checkpoint to read with: put one into data/checkpoints.")
    return chosen


def _put(session: Session, reading: Reading) -> bool:
    """Stores a reading, or the screen's word where it lacked; gives whether there was something new."""
    analysis = reading.analysis
    row = session.get(AnalysisRow, analysis.analysis_id)
    if row is not None and (row.screened or not reading.screened):
        return False
    if row is None:
        row = AnalysisRow(
            id=analysis.analysis_id,
            instance_id=analysis.instance_id,
            checkpoint_id=analysis.checkpoint.id,
            weights_sha256=analysis.checkpoint.weights_sha256,
            fingerprint=reading.fingerprint,
            saliency=reading.saliency["middle"].tobytes() + reading.saliency["last"].tobytes(),
        )
        session.add(row)
    row.document = analysis.model_dump_json()
    row.screened, row.owes_test = reading.screened, reading.screened and owes_test(analysis)
    row.p_value = smallest_p(analysis) if reading.screened else None
    return True


def _row(session: Session, key: str) -> AnalysisRow:
    row = session.get(AnalysisRow, key) if is_id(key) else None
    if row is None:
        raise _unknown()
    return row


def _all_of(keys: Sequence[str], found: Mapping[str, _T]) -> list[_T]:
    """Raises BusyError `recalibrated` where the checkpoint has got another calibration meanwhile."""
    if any(key not in found for key in keys):
        raise BusyError("recalibrated", "The detector has been calibrated anew this moment; try again.", 1)
    return [found[key] for key in keys]


def _unknown() -> NotFoundError:
    return NotFoundError("unknown_analysis", "There is no such analysis here.")
