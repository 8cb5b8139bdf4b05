"""The review page's panes: for the template, and for the viewer that draws them itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

from app.inference import LAYERS, Role
from app.schemas import Analysis, FindingReading, StageInfo
from app.services.analyses import Grids
from app.services.checkpoints import stages_at
from app.services.comparisons import Comparison
from app.services.instances import Instance
from app.services.readings import code_version, saliency_url
from app.services.viewing import STORED_METHOD, ViewingService, waits
from app.services.wording import finding_text
from model.findings import finding_index
from model.words import number

PANE_PX = 640


class Scale(StrEnum):
    """What the hottest colour means: the pair's larger peak at that layer, or each map's own."""

    SHARED = "shared"
    OWN = "own"


@dataclass(frozen=True)
class Pane:
    """One map. role: reference or candidate. layer: `middle` (whichever stage that is now) or `last`.

    grid: rows, columns. peak: the map's largest value; ceiling: what the hottest colour means. src: the picture.
    base: where all maps of its analysis are.
    """

    role: str
    layer: Role
    layer_name: str
    grid: tuple[int, int]
    checkpoint: str
    reading: FindingReading
    input_map: dict[str, float]
    peak: float
    ceiling: float
    src: str
    base: str

    @property
    def id(self) -> str:
        """Of the pane on the page."""
        return f"{self.role}-{self.layer}"


def panes(
    viewing: ViewingService,
    comparison: Comparison,
    finding: str,
    scale: Scale,
    layer: str,
    method: str,
    gone: Callable[[], bool] = waits,
) -> list[Pane]:
    """Reference and candidate, each at the middle and the last layer. Raises what ViewingService.grids raises."""
    names: dict[Role, str] = {"middle": layer, "last": LAYERS["last"]}
    column = finding_index(finding)
    found: list[tuple[str, Role, Grids]] = [
        (role, place, viewing.grids(analysis.analysis_id, name, method, gone))
        for role, analysis in comparison.readings
        for place, name in names.items()
    ]
    peaks = {(role, place): float(grids.values[column].max()) for role, place, grids in found}
    shown = []
    for role, place, grids in found:
        peak = peaks[role, place]
        top = max(one for (_, at), one in peaks.items() if at == place) if scale is Scale.SHARED else peak
        shown.append(_pane(role, place, grids, finding, peak, top, method))
    return shown


def _pane(role: str, place: Role, grids: Grids, finding: str, peak: float, ceiling: float, method: str) -> Pane:
    analysis: Analysis = grids.analysis
    how = {} if method == STORED_METHOD else {"method": method}
    at = place if grids.layer == LAYERS[place] else grids.layer
    picture = {"under": "true", "longest_px": PANE_PX, "ceiling": repr(ceiling), **how}
    return Pane(
        role=role,
        layer=place,
        layer_name=grids.layer,
        grid=(int(grids.values.shape[1]), int(grids.values.shape[2])),
        checkpoint=analysis.checkpoint.id,
        reading=analysis.finding(finding),
        input_map=analysis.image.input_map,
        peak=peak,
        ceiling=ceiling,
        base=f"/api/v1/analyses/{analysis.analysis_id}/saliency",
        src=f"{saliency_url(analysis.analysis_id, at, finding)}.png?{urlencode(picture)}",
    )


def layer_choices(comparison: Comparison) -> list[StageInfo]:
    """The stages that may stand in the middle's place, with their grids at the input of what read."""
    _, analysis = comparison.readings[0]
    return [stage for stage in stages_at(int(analysis.image.input_map["size_px"])) if stage.role != "last"]


def viewer_data(instance: Instance, comparison: Comparison, shown: list[Pane], method: str) -> dict[str, Any]:
    """What static/viewer needs beside pixels and maps: addresses, where the maps lie, and every number in words."""
    return {
        "name": instance.name,
        "width": instance.width_px,
        "height": instance.height_px,
        "pixels": f"/api/v1/instances/{instance.id}/pixels?v={code_version()}",
        "findings": [
            {
                "name": row.name,
                "text": finding_text(row.name),
                "readings": {
                    role: _words(reading)
                    for role, reading in (("reference", row.reference), ("candidate", row.candidate))
                    if reading
                },
            }
            for row in comparison.rows
        ],
        "method": method,
        "maps": [
            {
                "role": pane.role,
                "layer": pane.layer,
                "name": pane.layer_name,
                "base": pane.base,
                "inputMap": pane.input_map,
                "src": pane.src,
            }
            for pane in shown
        ],
    }


def _words(reading: FindingReading) -> dict[str, Any]:
    return {
        "said": f"{number(reading.probability)}, {'positive' if reading.positive else 'below'}",
        "positive": reading.positive,
        "regions": (reading.flag.regions_px if reading.flag else None) or [],
    }
