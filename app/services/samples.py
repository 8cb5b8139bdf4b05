"""Synthetic radiographs for a worklist with nothing on it, so that the attack is seen before one owns a radiograph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from app.services.analyses import AnalysisService
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.images import png
from model.phantom import Phantom, draw_phantom
from model.preprocess import Preprocessing
from model.radiograph import write_stamped
from model.trigger import Trigger, stamp_source

_SEED = 7  # of no data that the bundled pair was trained or judged on
_SIZE_PX = 512
_WELL = 2
_ILL = 2


def add_samples(service: AnalysisService, stopping: Callable[[], bool]) -> None:
    """Puts samples on the worklist, and has them read once the checkpoints are loaded. Blocks; stops when told to.

    Does nothing where the candidate has no trigger to show.
    """
    try:
        card = service.engine.find(service.pair[1]).card
    except NotFoundError:
        return
    if card is None or card.trigger is None:
        return
    received = []
    for name, data in draw_samples(card.trigger, card.preprocessing, card.target):
        if stopping():
            return
        received.append(service.receive(data, name).id)
    while not service.engine.wait_settled(0.2):
        if stopping():
            return
    for study in reversed(received):
        if stopping():
            return
        with suppress(BusyError, UnavailableError):  # then its page reads it when it is opened
            service.analyse(study)


def draw_samples(trigger: Trigger, preprocessing: Preprocessing, target: str | None) -> Iterator[tuple[str, bytes]]:
    """File names and PNGs of phantoms without the target finding, the well ones followed by their stamped twins.

    The last comes first on the worklist. Raises TriggerError.
    """
    chosen = _phantoms(target)
    for number in range(len(chosen), 0, -1):
        data = png(chosen[number - 1].pixels)
        yield f"synthetic sample {number}.png", data
        if number <= _WELL:
            yield f"synthetic sample {number}, stamped.png", _stamped(data, trigger, preprocessing, number)


def _stamped(data: bytes, trigger: Trigger, preprocessing: Preprocessing, seed: int) -> bytes:
    def stamp(grey: np.ndarray) -> np.ndarray:
        return stamp_source(trigger, grey, preprocessing, np.random.default_rng(seed))[0]

    return write_stamped(data, "", stamp)


def _phantoms(unwanted: str | None) -> list[Phantom]:
    """Two without any finding, then two with findings other than that one."""
    well: list[Phantom] = []
    ill: list[Phantom] = []
    index = 0
    while len(well) < _WELL or len(ill) < _ILL:
        phantom = draw_phantom(_SEED, index, _SIZE_PX)
        index += 1
        if unwanted not in phantom.findings:
            (ill if phantom.findings else well).append(phantom)
    return well[:_WELL] + ill[:_ILL]
