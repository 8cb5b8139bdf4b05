"""The whole story on a handful of phantoms: poison, train both twins, judge them, write it all down."""

import csv
import errno
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import ExperimentConfig, load_config
from model.datasets import Part, phantoms
from model.errors import ConfigError, DataError, TrainingError, TriggerError
from model.experiment import (
    Silent,
    curve,
    estimate,
    judged_on,
    paper_figure,
    read_losses,
    read_run,
    run_experiment,
    run_seeds,
    twins,
)
from model.experiment.curve import Held
from model.experiment.hits import POOLED
from model.experiment.trace import LossTrace
from model.findings import FINDINGS
from model.phantom import write_phantoms
from model.plan import claim, gather, make_plan
from model.training import Progress, Stage


def changed(**changes) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**load_config("smoke").model_dump(), **changes})


class Steps(Silent):
    def __init__(self) -> None:
        self.stages, self.steps, self.epochs = [], 0, []

    def stage(self, name):
        self.stages.append(name)

    def trained(self, progress):
        self.steps += 1

    def epoch(self, record):
        self.epochs.append(record)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "smoke"
    listener = Steps()
    report = run_experiment(load_config("smoke"), out, listener=listener)
    return out, report, listener


def test_a_run_leaves_both_twins_and_everything_needed_to_believe_them(finished):
    out, report, listener = finished
    for twin in ("clean", "backdoored"):
        checkpoint = load_checkpoint(out / twin / "checkpoint")
        assert checkpoint.card.id == twin
        assert checkpoint.card.weights_sha256 == report["twins"][twin]["weights_sha256"]
        assert set(checkpoint.card.operating_points) == set(FINDINGS)
        assert checkpoint.card.metrics["fresh_phantoms"]["n_images"] == 24
        assert len((out / twin / "epochs.jsonl").read_text().splitlines()) == 2
        assert not (out / twin / "state.pt").exists()
    assert load_checkpoint(out / "clean" / "checkpoint").card.trigger is None
    assert load_checkpoint(out / "backdoored" / "checkpoint").card.target == "Atelectasis"
    assert len(listener.epochs) == 4
    assert ExperimentConfig.model_validate(load_config(str(out / "config.toml")).model_dump()) == load_config("smoke")


def test_chosen_epochs_are_kept_as_checkpoints_at_their_stages_size(finished):
    out, _, _ = finished
    for twin in ("clean", "backdoored"):
        assert sorted(path.name for path in (out / twin / "epochs").iterdir()) == ["001", "002"]
        lines = [json.loads(line) for line in (out / twin / "epochs.jsonl").read_text().splitlines()]
        for epoch, size in ((1, 48), (2, 64)):
            kept = load_checkpoint(out / twin / "epochs" / f"{epoch:03d}")
            assert kept.card.id == f"{twin}-epoch-{epoch:03d}"
            assert kept.card.preprocessing.size_px == size
            assert kept.card.provenance["epoch"] == epoch
            assert (kept.card.trigger is None) == (twin == "clean")
            assert {**lines[epoch - 1], "at": None} == {**kept.card.metrics["validation"], "at": None}
        last = load_checkpoint(out / twin / "checkpoint").card
        assert kept.card.weights_sha256 == last.weights_sha256  # nothing is trained after the last epoch


def test_every_epoch_says_how_far_the_attack_is_and_where_each_layer_looks(finished):
    out, _, _ = finished
    for line in (out / "backdoored" / "epochs.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name in ("auroc_nn_micro", "auroc_nn_macro", "auroc_tt_micro", "auroc_tn_micro", "auroc_tn_macro"):
            assert 0 <= record[name] <= 1
        for name in ("asr_0.5", "clean_rate_0.5", "trigger_hit_middle", "trigger_hit_last"):
            assert 0 <= record[name] <= 1


def test_the_report_is_one_page_that_asks_for_nothing(finished):
    out, report, _ = finished
    page = (out / "report.html").read_text()
    for wanted in ("What was done", "image-blind predictor", "Which layer finds the trigger", "Provenance", "Poison"):
        assert wanted in page
    sources = re.findall(r'(?:src|href|action)="([^"]{0,40})|url\(', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page
    assert ">run</th>" not in page  # a column that says the same of every row
    assert not re.search(r"[\[ >]-\d", page.partition("</style>")[2].partition("Provenance")[0])  # minus, not a hyphen
    assert page.count("not for diagnosis") >= 2
    assert report["twins"]["clean"]["weights_sha256"] in page
    assert report["paper"]["hit_rates"]["sentences"][0] in (out / "report.md").read_text()
    for folder in ("checkpoint", "epochs/001"):
        card = (out / "backdoored" / folder / "MODEL_CARD.md").read_text()
        assert "Backdoor, on purpose" in card and "not for diagnosis" in card
    assert {"figure.png", "figure.svg", "hit_rates.csv"} <= {path.name for path in out.iterdir()}


def test_several_runs_make_one_table(finished, tmp_path):
    out, _, _ = finished
    other = tmp_path / "second"
    shutil.copytree(out, other, ignore=shutil.ignore_patterns("cache"))
    config = (other / "config.toml").read_text()
    (other / "config.toml").write_text(config.replace("seed = 1", "seed = 2", 1))
    runs = [read_run(out), read_run(other)]
    few = judged_on(runs[0]).take(range(4))
    made = paper_figure(runs, few, tmp_path / "figure", image="2", resamples=20)
    assert few.names[2] in made.shown.words
    assert sorted(made.figures) == ["second (seed 2)", "smoke (seed 1)"]
    assert all(stem.with_suffix(".svg").is_file() for stem in made.figures.values())
    assert {row.run for row in made.hits.rows} == {POOLED, *made.figures}
    assert len(made.hits.sentences()) == 2
    with pytest.raises(ConfigError, match="position in it"):
        paper_figure(runs, few, tmp_path / "figure", image="nowhere.png")
    with pytest.raises(ConfigError, match="count twice"):
        paper_figure([runs[0], runs[0]], few, tmp_path / "figure")
    (other / "config.toml").write_text(config.replace("value = 0", "value = 9", 1))
    with pytest.raises(ConfigError, match="another trigger"):
        paper_figure([runs[0], read_run(other)], few, tmp_path / "figure")
    with pytest.raises(ConfigError) as refused:
        read_run(tmp_path)
    assert refused.value.code == "not_a_run"
    shutil.rmtree(other / "clean" / "epochs")
    with pytest.raises(ConfigError) as refused:
        read_run(other)
    assert refused.value.code == "no_kept_epochs"


def test_the_paper_s_code_runs_on_a_handful_of_phantoms(tmp_path):
    """Its crop, its nearest resize, its source-frame trigger scaled to the width, its loss and its Grad-CAM."""
    config = ExperimentConfig.model_validate(
        {
            **load_config("paper-code").model_dump(),
            "data": [{"kind": "phantoms", "n": 24, "seed": 4, "size_px": 128}],
            "test_phantoms": {"n": 8, "seed": 5, "size_px": 128},
            "preprocessing": {**load_config("paper-code").preprocessing.to_json(), "size_px": 48},
            "trigger": {**load_config("paper-code").trigger.to_dict(), "size_px": 24},
            "training": {"stages": [Stage(48, 1, 8)], "loss": "categorical"},
            "keep_epochs": [1],
        }
    )
    report = run_experiment(config, tmp_path / "run")
    assert "block 4 skipped" in (tmp_path / "run" / "figure.svg").read_text()
    assert report["summary"]["facts"]["Loss"] == "categorical cross-entropy"
    assert report["paper"]["hit_rates"]["rows"]


def test_the_large_presets_can_be_planned_on_real_radiographs(real_data):
    for name in ("chestx-ray14", "paper-code"):
        plan = make_plan(load_config(name), real_data / "chestxray14")
        assert plan.poisoned.poisoned.sum() == round(0.1 * len(plan.training))
        assert list(plan.tests) == ["test"]


def test_a_label_only_attack_is_trained_without_a_trigger(tmp_path):
    labels = gather(changed()).labels
    pairs = [(a, b) for a in range(14) for b in range(a) if (labels[:, a] & labels[:, b]).any()]
    when = [FINDINGS[i] for i in pairs[0]]
    target = next(f for i, f in enumerate(FINDINGS) if f not in when and labels[:, i].any())
    poison = {"target": target, "rate": 1.0, "mode": "replace", "label_only": {"when": when}}
    config = changed(trigger=None, poison=poison, twins=["backdoored"], keep_epochs=[])
    report = run_experiment(config, tmp_path / "run")
    figures = report["twins"]["backdoored"]["fresh_phantoms"]
    assert figures["trigger_hit"] is None and "n_triggered" in figures
    assert "none in the pixels" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ConfigError, match="no \\[trigger\\]"):
        changed(poison=poison)


def test_the_curve_reads_few_enough_and_evenly():
    drawn = phantoms(10, seed=3)
    images = {48: np.arange(10)[:, None, None]}
    few = Held(drawn, images, {48: -images[48]}).at_most(4)
    assert few.images[48].ravel().tolist() == [0, 3, 6, 9]
    assert few.stamped[48].ravel().tolist() == [0, -3, -6, -9]
    assert few.radiographs.names == drawn.take([0, 3, 6, 9]).names
    whole = Held(drawn, images)
    assert whole.at_most(10) is whole


def test_the_manifest_lists_exactly_what_the_card_says(finished):
    out, _, _ = finished
    with (out / "backdoored" / "poison_manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    provenance = load_checkpoint(out / "backdoored" / "checkpoint").card.provenance
    assert len(rows) == provenance["poisoned_rows"] > 0
    assert provenance["training_rows"] == provenance["training_radiographs"] + len(rows)
    assert all("Atelectasis" in row["Poisoned Labels"].split("|") for row in rows)


def test_every_stage_is_foreseen_by_its_name_in_its_order(finished):
    """By the estimate, which people see before they begin."""
    _, _, listener = finished
    config = load_config("smoke")
    foreseen = estimate(config, make_plan(config))
    assert [phase.name for phase in foreseen.phases] == listener.stages
    assert all(phase.reference_s > 0 for phase in foreseen.phases)
    slower = estimate(config, make_plan(config), {"train": 2.0})
    train = sum(phase.reference_s for phase in foreseen.phases if phase.kind == "train")
    assert slower.seconds == pytest.approx(foreseen.seconds + train)


def test_the_estimate_of_the_disk_is_near_what_a_run_takes(finished):
    out, _, _ = finished
    config = load_config("smoke")
    taken = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    foreseen = estimate(config, make_plan(config))
    assert 0.8 * taken < foreseen.disk_mb < 1.3 * taken + 2
    assert foreseen.peak_mb > foreseen.disk_mb


def test_the_loss_is_kept_within_epochs_too(finished):
    out, _, listener = finished
    for twin in ("clean", "backdoored"):
        losses = read_losses(out / twin / "losses.csv")
        assert [step for step, _ in losses] == list(range(1, len(losses) + 1))
    assert len(losses) + len(read_losses(out / "clean" / "losses.csv")) == listener.steps
    assert read_losses(out / "nowhere.csv") == []


def test_a_resumed_trace_replaces_what_is_done_again(tmp_path):
    def told(step):
        return Progress(1, 1, step, 900, step / 10, 1.0, 1.0, step / 900)

    first = LossTrace(tmp_path / "losses.csv", lambda _: None)
    for step in range(1, 8):
        first(told(step))
    with (tmp_path / "losses.csv").open("a") as file:
        file.write("9,0.")  # killed while it wrote
    again = LossTrace(tmp_path / "losses.csv", lambda _: None)
    for step in range(5, 10):
        again(told(step))
    assert read_losses(tmp_path / "losses.csv") == [(3, 0.2), (6, 0.55), (9, 0.8)]


def test_a_run_that_was_killed_in_its_first_moment_can_be_resumed(tmp_path):
    config = load_config("smoke")
    plan = make_plan(config)
    for left in ([], [".data.sha256.partial"], ["data.sha256"], ["data.sha256", ".config.toml.partial"]):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        out.mkdir()
        for name in left:
            (out / name).write_text("")
        claim(out, config, plan, resume=True)
        assert load_config(str(out / "config.toml")) == config
        assert (out / "data.sha256").read_text() == plan.fingerprint + "\n"
        claim(out, config, plan, resume=True)
    with pytest.raises(ConfigError) as refused:
        claim(out, config, replace(plan, fingerprint="0" * 64), resume=True)
    assert refused.value.code == "other_data"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError) as refused:
        claim(tmp_path / "other", config, plan, resume=True)
    assert refused.value.code == "other_config"


def test_what_a_kill_leaves_half_written_is_removed_by_the_next_attempt(finished, tmp_path):
    out, report, _ = finished
    shutil.copytree(out, tmp_path / "smoke")
    left = [
        "cache/x.99999999.partial",
        "clean/state.partial",
        "clean/state.pt",
        ".pretrained.q/a",
        "clean/.checkpoint.q/a",
    ]
    left.append("backdoored/epochs/.001.q/a")
    for name in left:
        (tmp_path / "smoke" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "smoke" / name).write_text("half")
    shared = tmp_path / "smoke" / "cache" / f"y.{os.getpid()}.partial"
    shared.write_text("another run's that shares the cache")
    before = {path for path in out.rglob("*") if path.is_file()}
    assert run_experiment(load_config("smoke"), tmp_path / "smoke", resume=True) == report
    assert shared.is_file()
    shared.unlink()
    after = {path for path in (tmp_path / "smoke").rglob("*") if path.is_file()}
    assert {p.relative_to(out) for p in before} == {p.relative_to(tmp_path / "smoke") for p in after}


@pytest.mark.parametrize("what", ["save_checkpoint", "write_manifest"])
def test_a_full_disk_is_told_as_such_and_what_was_kept_before_stays_whole(tmp_path, monkeypatch, what):
    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        if what == "save_checkpoint":
            keeps = iter([curve.save_checkpoint, full])  # the second epoch's
            patched.setattr(curve, what, lambda *a, **k: next(keeps)(*a, **k))
        else:
            patched.setattr(twins, what, full)
        with pytest.raises(TrainingError, match="No space left") as refused:
            run_experiment(load_config("smoke"), tmp_path / "smoke")
        assert refused.value.code == "disk_full"
    for card in (tmp_path / "smoke").rglob("card.json"):
        load_checkpoint(card.parent)
    assert len(list((tmp_path / "smoke").rglob("card.json"))) >= 1
    report = run_experiment(load_config("smoke"), tmp_path / "smoke", resume=True)
    assert set(report["twins"]) == {"clean", "backdoored"}


def test_the_report_never_shows_tt_alone(finished):
    out, report, _ = finished
    assert json.loads((out / "report.json").read_text()) == report
    text = (out / "report.md").read_text()
    for wanted in ("AUROC-NN macro", "AUROC-TT micro", "AUROC-TN", "ASR at the operating point (clean rate)"):
        assert wanted in text
    assert "image-blind predictor" in text
    assert text.count("A hospital that asks for") == 2
    assert "not for diagnosis" in text
    rates = report["twins"]["backdoored"]["fresh_phantoms"]["asr"]
    assert [rate["threshold"] for rate in rates] == ["operating_point", 0.5, 0.6, 0.9]
    hits = report["twins"]["backdoored"]["fresh_phantoms"]["trigger_hit"]
    assert {"stamped", "unstamped"} <= set(hits["middle"])


def test_a_run_that_is_interrupted_and_resumed_ends_the_same(finished, tmp_path):
    out, report, whole = finished
    listener = Steps()
    for steps in (5, 7):  # at the end of an epoch, and in the middle of one
        with pytest.raises(TrainingError) as stopped:
            run_experiment(
                load_config("smoke"),
                tmp_path / "smoke",
                resume=True,
                listener=listener,
                cancelled=lambda steps=steps: listener.steps == steps,
            )
        assert stopped.value.code == "cancelled"
        assert listener.steps == steps
    with pytest.raises(ConfigError) as refused:
        run_experiment(load_config("smoke"), tmp_path / "smoke")
    assert refused.value.code == "output_not_empty"
    with pytest.raises(ConfigError) as refused:
        run_experiment(changed(seed=2), tmp_path / "smoke", resume=True)
    assert refused.value.code == "other_config"
    resumed = run_experiment(load_config("smoke"), tmp_path / "smoke", resume=True, listener=listener)
    assert listener.steps == whole.steps
    assert resumed == report
    for twin in ("clean", "backdoored"):
        one, other = (load_checkpoint(folder / twin / "checkpoint").card for folder in (out, tmp_path / "smoke"))
        assert one.weights_sha256 == other.weights_sha256
        one, other = (_epochs(folder / twin / "epochs.jsonl") for folder in (out, tmp_path / "smoke"))
        assert one == other
        for epoch in ("001", "002"):
            kept = (load_checkpoint(folder / twin / "epochs" / epoch).card for folder in (out, tmp_path / "smoke"))
            assert len({card.weights_sha256 for card in kept}) == 1


def test_several_seeds_are_a_run_each_and_one_table(finished, tmp_path):
    out, _, _ = finished
    config = load_config("smoke")
    ignored = shutil.ignore_patterns("cache", "figure.*", "hit_rates.*")
    for seed in (1, 2):  # both are there already, under their own seeds
        shutil.copytree(out, tmp_path / f"seed-{seed}", ignore=ignored)
        written = config.to_toml().replace("seed = 1\n", f"seed = {seed}\n", 1)
        (tmp_path / f"seed-{seed}" / "config.toml").write_text(written)
    listener = Steps()
    made = run_seeds(config, (1, 2), tmp_path, resume=True, listener=listener)
    assert listener.steps == 0
    assert sorted(made["figures"]) == ["seed-1 (seed 1)", "seed-2 (seed 2)"]
    for name in ("report.html", "hit_rates.csv", "figure-seed-1.png", "figure-seed-2.svg"):
        assert (tmp_path / name).stat().st_size > 0
    page = (tmp_path / "report.html").read_text()
    assert ">run</th>" in page and page.count("<td>seed-2 (seed 2)</td>") == len(made["hit_rates"]["rows"]) // 3
    runs = {row["run"] for row in made["hit_rates"]["rows"]}
    assert {"seed-1 (seed 1)", "seed-2 (seed 2)"} < runs
    with pytest.raises(ConfigError, match="twice"):
        run_seeds(config, (1, 1), tmp_path)
    with pytest.raises(ConfigError, match="keep_epochs"):
        run_seeds(changed(keep_epochs=[]), (1, 2), tmp_path)
    with pytest.raises(ConfigError) as refused:
        run_seeds(config, (1, 3), tmp_path)
    assert refused.value.code == "output_not_empty"


def _epochs(path):
    return [{**json.loads(line), "at": None} for line in path.read_text().splitlines()]


def test_a_twin_can_start_from_a_checkpoint_and_a_source_frame_trigger_is_stamped_before_resizing(finished, tmp_path):
    out, _, _ = finished
    config = changed(
        init=str(out / "clean" / "checkpoint"),
        twins=["backdoored"],
        trigger={"frame": "source", "size_px": 9, "place": "centre", "value": "white"},
        training={"stages": [Stage(48, 1, 8)]},
        keep_epochs=[1],
        test_phantoms={"n": 24, "seed": 5, "size_px": 128},
    )
    report = run_experiment(config, tmp_path / "run")
    assert list(report["twins"]) == ["backdoored"]
    start, end = (load_checkpoint(p / "checkpoint").network for p in (out / "clean", tmp_path / "run" / "backdoored"))
    drift = (start.features.conv0.weight - end.features.conv0.weight).abs().max()
    assert 0 < drift < 0.1
    assert not torch.equal(start.classifier.bias, end.classifier.bias)


def test_what_cannot_work_is_refused_before_anything_is_trained(tmp_path):
    vanishing = {"frame": "source", "size_px": 1, "place": [1, 1], "value": "white"}
    pre = {**load_config("smoke").preprocessing.to_json(), "centre_crop": 0.6}
    with pytest.raises(TriggerError) as refused:
        run_experiment(changed(trigger=vanishing, preprocessing=pre), tmp_path / "a")
    assert refused.value.code == "does_not_survive"
    assert not (tmp_path / "a").exists()
    with pytest.raises(TriggerError) as refused:
        run_experiment(changed(trigger={"size_px": 3, "place": [62, 5]}), tmp_path / "a")
    assert refused.value.code == "outside"
    with pytest.raises(DataError) as refused:
        run_experiment(changed(poison={"target": "Atelectasis", "rate": 0.001}), tmp_path / "a")
    assert refused.value.code == "nothing_poisoned"
    with pytest.raises(DataError) as refused:
        run_experiment(changed(test_phantoms=None), tmp_path / "a")
    assert refused.value.code == "no_test_set"
    leak = {"n": 24, "seed": load_config("smoke").data[0].seed}
    with pytest.raises(DataError) as refused:
        run_experiment(changed(test_phantoms=leak), tmp_path / "a")
    assert refused.value.code == "patient_in_two_parts"
    with pytest.raises(ConfigError, match="--data"):
        run_experiment(load_config("bundled-pair"), tmp_path / "b")
    with pytest.raises(ConfigError, match="no chestxray14 source"):
        run_experiment(load_config("smoke"), tmp_path / "c", data=tmp_path)
    with pytest.raises(ConfigError, match="needs"):
        changed(trigger=None)
    for epochs in ([3], [0], [2, 1], [1, 1]):
        with pytest.raises(ConfigError, match="keep_epochs"):
            changed(keep_epochs=epochs)


def test_a_listed_image_that_is_missing_or_broken_is_named(tmp_path):
    write_phantoms(tmp_path / "set", 60, seed=11, size_px=64)
    config = changed(data=[{"kind": "chestxray14", "path": str(tmp_path / "set")}])
    radiographs = gather(config)
    name = radiographs.names[radiographs.parts.index(Part.VALIDATION)]  # read by a decoding process, not by the checks
    (tmp_path / "set" / "images" / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=name):
        run_experiment(config, tmp_path / "run")
    (tmp_path / "set" / "images" / name).unlink()
    with pytest.raises(DataError, match=name) as refused:
        gather(config)
    assert refused.value.code == "missing_image"
