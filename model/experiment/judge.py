"""The twins on the test sets: the report, and the figures in their cards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from model.acceptance import judge, parse_rule
from model.checkpoint import NOTICE, load_checkpoint, update_card
from model.datasets import Radiographs
from model.errors import ConfigError
from model.evaluation import evaluate, evaluate_label_only, read_all
from model.experiment.account import epochs, provenance, summary
from model.experiment.context import Run
from model.experiment.folder import read_run
from model.experiment.paper import paper_figure
from model.experiment.phases import evaluating, looking
from model.metrics import paired_difference
from model.plan import Plan


def judge_twins(run: Run, plan: Plan) -> dict[str, Any]:
    """Reads the test sets with every twin, writes the report, and puts the figures into the cards."""
    from model.report import write_model_card, write_report  # imported here: `import model` needs no templates

    config, sets = run.config, plan.tests
    report: dict[str, Any] = {"name": config.name, "notice": NOTICE, "twins": {}, "differences": {}}
    rule = parse_rule(config.accept) if config.accept else None
    target = config.poison.target if config.poison else None
    clean: dict[tuple[str, str], np.ndarray] = {}
    for twin in config.twins:
        folder = run.out / twin / "checkpoint"
        checkpoint = load_checkpoint(folder, run.device)
        figures: dict[str, Any] = {}
        for name, test in sets.items():
            run.listener.stage(evaluating(twin, len(test), name))
            outputs = read_all(
                checkpoint,
                test,
                trigger=config.trigger,
                target=target,
                seed=config.seed,
                progress=run.prepared,
            )
            clean[twin, name] = outputs.clean
            prevalence = np.array(checkpoint.card.provenance["train_prevalence"])
            if config.poison and config.poison.label_only:
                evaluation, figures[name] = evaluate_label_only(
                    checkpoint, test, outputs, config.poison, train_prevalence=prevalence
                )
            else:
                rule_of_labels = config.poison.label_rule if config.poison else "set"
                evaluation, figures[name] = evaluate(
                    checkpoint, test, outputs, target=target, label_rule=rule_of_labels, train_prevalence=prevalence
                )
            if rule:
                figures[name]["acceptance"] = judge(rule, evaluation).to_json()
        report["twins"][twin] = {"weights_sha256": checkpoint.card.weights_sha256, **figures}
        update_card(folder, replace(checkpoint.card, metrics=figures))
    if {"clean", "backdoored"} <= set(config.twins):
        for name, test in sets.items():
            difference = paired_difference(
                test.labels,
                clean["backdoored", name],
                clean["clean", name],
                test.patients,
                rng=np.random.default_rng(0),
            )
            report["differences"][name] = {"macro_nn_backdoored_minus_clean": difference.to_json()}
    report["summary"] = summary(run, plan)
    report["epochs"] = epochs(run)
    report["paper"] = _paper(run, sets)
    digests = {twin: figures["weights_sha256"] for twin, figures in report["twins"].items()}
    report["provenance"] = provenance(run, plan, digests)
    for twin in config.twins:
        for folder in (run.out / twin / "checkpoint", *sorted((run.out / twin / "epochs").glob("[0-9]*"))):
            write_model_card(folder)
    write_report(run.out, report)
    return report


def _paper(run: Run, sets: dict[str, Radiographs]) -> dict[str, Any] | None:
    """The paper's figure and the hit rates, where epochs of both twins were kept."""
    config = run.config
    if not config.keep_epochs or set(config.twins) != {"clean", "backdoored"}:
        return None
    name, test = next(iter(sets.items()))
    run.listener.stage(looking(name))
    try:
        return paper_figure(
            [read_run(run.out)], test, run.out, device=run.device, workers=run.workers, progress=run.prepared
        ).to_json()
    except ConfigError as error:
        if error.code != "no_default_image":
            raise
        return None
