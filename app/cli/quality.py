"""`overread quality`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import read_settings


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(quality)


def quality(
    checkpoint: Annotated[str, typer.Option(help="A checkpoint's id or folder.")],
    data: Annotated[Path | None, typer.Option(help="Folder in ChestX-ray14's layout; else phantoms.")] = None,
    box_frame_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the frame of the boxes; 1024 in ChestX-ray14.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="At most so many radiographs.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the phantoms, of the bootstrap and of the sanity check.")] = 0,
    method: Annotated[list[str] | None, typer.Option(help="Repeatable; by default all.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Repeatable; by default the middle and the last.")] = None,
    slow_images: Annotated[int, typer.Option(min=0, help="So many for Score-CAM and occlusion, which are slow.")] = 8,
    perturbed_images: Annotated[int, typer.Option(min=0, help="So many for insertion, deletion and ROAD.")] = 0,
    sanity_images: Annotated[int, typer.Option(min=0, help="So many for cascading weight randomisation.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda:N; by default what OVERREAD_DEVICE says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judges saliency maps by boxes: pointing game, IoU, relevance mass; and by what the network does without them."""
    from dataclasses import asdict

    import numpy as np
    import torch

    from model.checkpoint import find_checkpoint, load_checkpoint
    from model.explanation import Method, method_named
    from model.network import LAST_LAYER, MIDDLE_LAYER, resolve_device
    from model.quality import AssessmentPlan, assess, dataset_cases, phantom_cases, sanity_check
    from model.quality.report import as_markdown, sanity_as_markdown

    settings = read_settings()
    plan = AssessmentPlan(
        methods=tuple(method_named(name) for name in method) if method else tuple(Method),
        layers=tuple(layer) if layer else (MIDDLE_LAYER, LAST_LAYER),
        slow_images=slow_images,
        perturbed_images=perturbed_images,
        seed=seed,
    )
    read = load_checkpoint(
        find_checkpoint(checkpoint, settings.checkpoint_dirs), resolve_device(device or settings.device)
    )
    preprocessing = read.card.preprocessing
    found = dataset_cases(data, preprocessing, box_frame_px) if data else phantom_cases(images, seed, preprocessing)
    cases = list(islice(found, images))
    assessment = assess(read, cases, plan)
    steps = {}
    if sanity_images and cases:
        grey = torch.from_numpy(np.stack([case.image for case in cases[:sanity_images]])).to(read.device)
        findings = sorted(set().union(*(case.boxes for case in cases[:sanity_images])))
        for name in plan.layers:
            steps[name] = sanity_check(
                read.network, preprocessing.normalise(grey), Method.GRAD_CAM, name, findings, seed=seed
            )
    if as_json:
        sanity = {name: [asdict(step) for step in several] for name, several in steps.items()}
        typer.echo(json.dumps({**assessment.to_json(), "sanity": sanity}))
        return
    typer.echo(as_markdown(assessment))
    for name, several in steps.items():
        typer.echo(f"\nCascading weight randomisation, Grad-CAM at {name}:\n\n{sanity_as_markdown(several)}")
