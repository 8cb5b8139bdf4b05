"""Experiments in words: durations, sizes, states, what varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.jobs import Job, JobState
from app.services.experiments.results import Figure
from app.services.experiments.sweeps import AXES


def duration(seconds: float) -> str:
    """“40 s”, “4 min”, “2 h 10 min”, “3 days”."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest and hours < 10 else f"{hours} h"
    return f"{round(hours / 24)} days"


def megabytes(value: float) -> str:
    """“230 MB”, “1.4 GB”."""
    return f"{value:.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"


def state(job: Job) -> str:
    """“waiting”, “running”, …"""
    if job.state is JobState.RUNNING and job.cancel_requested:
        return "stopping"
    if job.state is JobState.QUEUED:
        return "waiting to be tried again" if job.error else "waiting"
    return job.state.value


def value(axis: str, one: Any) -> str:
    """Of what varies: “5 %”, “3 px”, “top-left”."""
    if one is None:
        return "–"
    if axis == "poison.rate":
        return f"{float(one):.3g}" if one < 0.001 else f"{100 * float(one):.3g} %"
    if axis == "trigger.size_px":
        return f"{one} px"
    if axis == "trigger.place":
        return ",".join(str(part) for part in one) if isinstance(one, list | tuple) else str(one)
    return str(one).replace("_", " ")


def cell(at: Mapping[str, Any]) -> str:
    """“trigger size 3 px, poison rate 5 %”."""
    return ", ".join(f"{AXES[axis]} {value(axis, one)}" for axis, one in at.items())


def figure(one: Figure) -> str:
    """“0.913 [0.880, 0.941]”, or a dash."""
    if one.value is None:
        return "–"
    return f"{one.value:.3f}" + (f" [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" if one.interval else "")
