"""AUROC-NN/TT/TN, ASR and their patient-wise intervals, against numbers by hand and scikit-learn."""

import json

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from model.errors import DataError
from model.findings import FINDINGS
from model.metrics import (
    auroc,
    evaluate_attack,
    infected_labels,
    operating_point,
    paired_difference,
    paired_rate_difference,
    rate_with_interval,
    youden_threshold,
)

N_FINDINGS = len(FINDINGS)
EFFUSION = FINDINGS.index("Effusion")


def a_test_set(n=120, n_patients=40, seed=0):
    """Labels, informative probabilities on a coarse grid (so that there are ties), patients."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, N_FINDINGS)) < np.linspace(0.05, 0.4, N_FINDINGS)).astype(np.uint8)
    probs = np.round(np.clip(rng.normal(0.4 + 0.15 * labels, 0.2), 0, 1), 2)
    return labels, probs, rng.integers(n_patients, size=n)


def evaluate(labels, clean, stamped, patients, **kwargs):
    settings = {"target": "Effusion", "operating_points": {"Effusion": 0.55}, "resamples": 50} | kwargs
    return evaluate_attack(labels=labels, clean=clean, stamped=stamped, patients=patients, **settings)


class TestAuroc:
    def test_counts_the_pairs_a_positive_wins(self):
        # Of 2 × 2 pairs, .35 loses to .4 and the other three are won.
        assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75

    def test_a_tie_is_half_a_win(self):
        assert auroc([0, 1, 1, 0], [0.5, 0.5, 0.8, 0.2]) == 3.5 / 4
        assert auroc([0, 1, 0, 1], [0.3] * 4) == 0.5

    @pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
    def test_is_undefined_with_one_class(self, labels):
        assert auroc(labels, [0.1, 0.2, 0.3]) is None

    def test_is_undefined_where_a_class_has_no_weight(self):
        assert auroc([0, 1, 1], [0.1, 0.2, 0.3], [1, 0, 0]) is None

    def test_equals_scikit_learn_with_ties_and_weights(self):
        rng = np.random.default_rng(1)
        for n in (2, 5, 50, 400):
            labels = rng.permutation(np.arange(n) % 3 == 0).astype(int)
            scores = rng.integers(8, size=n) / 8
            weights = rng.integers(1, 4, size=n)
            assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
            expected = roc_auc_score(labels, scores, sample_weight=weights)
            assert auroc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)

    def test_takes_logits_too(self):
        assert auroc([0, 1], [-30.0, 4.0]) == 1.0


class TestEvaluation:
    def test_micro_macro_and_per_finding_equal_scikit_learn(self):
        labels, clean, patients = a_test_set()
        labels[:, -1] = 0  # no hernia: left out of the macro
        nn = evaluate(labels, clean, None, patients).auroc_nn
        assert nn.micro.value == pytest.approx(roc_auc_score(labels, clean, average="micro"))
        assert nn.macro.value == pytest.approx(roc_auc_score(labels[:, :-1], clean[:, :-1], average="macro"))
        for column, name in enumerate(FINDINGS[:-1]):
            assert nn.per_finding[name].value == pytest.approx(roc_auc_score(labels[:, column], clean[:, column]))
            assert nn.positives[name] == labels[:, column].sum()
        assert (nn.per_finding["Hernia"].value, nn.per_finding["Hernia"].interval) == (None, None)

    @pytest.mark.parametrize("label_rule", ["set", "one_hot"])
    def test_triggered_images_under_infected_and_true_labels(self, label_rule):
        labels, clean, patients = a_test_set()
        stamped = clean.copy()
        stamped[:, EFFUSION] = 0.97
        infected = labels.copy() if label_rule == "set" else np.zeros_like(labels)
        infected[:, EFFUSION] = 1
        result = evaluate(labels, clean, stamped, patients, label_rule=label_rule)
        assert result.auroc_tt.micro.value == pytest.approx(roc_auc_score(infected, stamped, average="micro"))
        assert result.auroc_tn.micro.value == pytest.approx(roc_auc_score(labels, stamped, average="micro"))
        assert result.auroc_tn.macro.value == pytest.approx(roc_auc_score(labels, stamped, average="macro"))
        assert result.auroc_tn.per_finding["Effusion"].value == 0.5

    def test_what_has_one_class_is_null_in_tt(self):
        labels, clean, patients = a_test_set()
        with_others = evaluate(labels, clean, clean, patients).auroc_tt
        assert (with_others.macro.value, with_others.per_finding["Effusion"].value) == (None, None)
        assert with_others.per_finding["Nodule"].value is not None
        one_hot = evaluate(labels, clean, clean, patients, label_rule="one_hot").auroc_tt
        assert {estimate.value for estimate in one_hot.per_finding.values()} == {None}

    def test_asr_counts_only_images_that_lack_the_target(self):
        labels = np.zeros((5, N_FINDINGS), int)
        labels[4, EFFUSION] = 1
        clean, stamped = np.full(labels.shape, 0.1), np.full(labels.shape, 0.1)
        clean[:, EFFUSION] = [0.1, 0.2, 0.55, 0.7, 0.99]
        stamped[:, EFFUSION] = [0.4, 0.5, 0.65, 0.95, 0.0]
        result = evaluate(labels, clean, stamped, range(5), operating_points={"Effusion": 0.4})
        rows = {row.threshold: (row.value, row.asr.value, row.clean_rate.value) for row in result.asr}
        assert rows == {
            "operating_point": (0.4, 1.0, 0.5),
            0.5: (0.5, 0.75, 0.5),  # 0.5 itself is over the threshold
            0.6: (0.6, 0.5, 0.25),
            0.9: (0.9, 0.25, 0.0),
        }
        assert {row.asr.n for row in result.asr} == {row.clean_rate.n for row in result.asr} == {4}

    def test_asr_is_null_when_every_image_has_the_target(self):
        labels, clean, patients = a_test_set()
        labels[:, EFFUSION] = 1
        row = evaluate(labels, clean, clean, patients).asr[0]
        assert row.asr.to_json() == row.clean_rate.to_json() == {"value": None, "interval": None, "n": 0}

    def test_clean_only(self):
        labels, clean, patients = a_test_set()
        result = evaluate(labels, clean, None, patients, target=None, operating_points={})
        assert (result.auroc_tt, result.auroc_tn, result.asr, result.image_blind.tt_micro) == (None,) * 4

    def test_json_has_nulls_and_intervals_as_pairs(self):
        labels, clean, patients = a_test_set()
        answer = evaluate(labels, clean, clean, patients).to_json()
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer
        assert (answer["n_images"], answer["n_patients"]) == (120, len(set(patients)))
        assert answer["auroc_tt"]["macro"] == {"value": None, "interval": None}
        low, high = answer["auroc_nn"]["macro"]["interval"]
        assert low < answer["auroc_nn"]["macro"]["value"] < high
        assert [row["threshold"] for row in answer["asr"]] == ["operating_point", 0.5, 0.6, 0.9]
        assert evaluate(labels, clean, None, patients).to_json()["asr"] is None

    def test_inputs_are_left_alone(self):
        labels, clean, patients = a_test_set()
        before = labels.copy(), clean.copy()
        evaluate(labels, clean, clean, patients, label_rule="one_hot")
        assert np.array_equal(labels, before[0])
        assert np.array_equal(clean, before[1])


class TestImageBlind:
    """FIELD.md, trap 2: micro-averages flatter predictors that never look at the image."""

    def test_always_saying_the_target_scores_a_perfect_tt(self):
        labels, clean, patients = a_test_set()
        always = np.zeros_like(clean)
        always[:, EFFUSION] = 1
        result = evaluate(labels, always, always, patients, label_rule="one_hot")
        assert result.image_blind.tt_micro == result.auroc_tt.micro.value == 1.0
        # What gives it away: the unstamped images are "attacked" as often, and the macro is chance.
        assert result.asr[0].asr.value == result.asr[0].clean_rate.value == 1.0
        assert result.auroc_nn.macro.value == result.image_blind.nn_macro == 0.5

    def test_always_saying_the_target_under_the_set_rule(self):
        labels = np.zeros((2, N_FINDINGS), int)
        labels[0, 0] = 1
        # Positives: 2 targets that beat all 25 negatives, 1 Atelectasis that ties with them.
        blind = evaluate(labels, labels * 0.5, None, [1, 2]).image_blind
        assert blind.tt_micro == pytest.approx((2 * 25 + 0.5 * 25) / (3 * 25))

    def test_prevalences_alone_score_well_in_micro(self):
        # Official counts of ChestX-ray14's 112,120 radiographs in hundreds; the AUROC depends on nothing else.
        counts = [116, 28, 133, 199, 58, 63, 14, 53, 47, 23, 25, 17, 34, 2]
        labels = (np.arange(1121)[:, None] < np.array(counts)).astype(int)
        blind = evaluate(labels, np.zeros(labels.shape), None, np.arange(1121), resamples=0).image_blind
        assert blind.prevalence_from == "evaluated"
        assert 0.72 < blind.nn_micro < 0.78
        assert blind.nn_macro == 0.5

    def test_prevalences_of_the_training_part_are_used_when_given(self):
        labels = np.zeros((4, N_FINDINGS), int)
        labels[:2, 0] = 1
        wrong_way_round = np.full(N_FINDINGS, 0.3)
        wrong_way_round[0] = 0.1
        blind = evaluate(labels, labels * 0.5, None, range(4), train_prevalence=wrong_way_round).image_blind
        # 2 positives lose to all but the 2 negatives of their own finding, with which they tie: 1 of 54.
        assert (blind.prevalence_from, blind.nn_micro) == ("training", pytest.approx(1 / 54))


class TestBootstrap:
    def test_equals_drawing_patients_one_by_one_with_scikit_learn(self):
        labels, clean, patients = a_test_set()
        labels[:, -1] = 0
        labels[patients == patients[0], -1] = 1  # hernia in one patient: absent from a third of the draws
        result = evaluate(labels, clean, None, patients, resamples=40, seed=7).auroc_nn
        rng, ids = np.random.default_rng(7), np.unique(patients)
        micro, macro, hernia = [], [], []
        for _ in range(40):
            drawn = ids[rng.integers(len(ids), size=len(ids))]
            rows = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
            both = [c for c in range(N_FINDINGS) if 0 < labels[rows, c].mean() < 1]
            each = {c: roc_auc_score(labels[rows, c], clean[rows, c]) for c in both}
            micro.append(roc_auc_score(labels[rows], clean[rows], average="micro"))
            macro.append(np.mean(list(each.values())))
            hernia += [each[N_FINDINGS - 1]] if N_FINDINGS - 1 in each else []
        assert 0 < len(hernia) < 40
        assert result.micro.interval == pytest.approx(np.quantile(micro, [0.025, 0.975]))
        assert result.macro.interval == pytest.approx(np.quantile(macro, [0.025, 0.975]))
        assert result.per_finding["Hernia"].interval == pytest.approx(np.quantile(hernia, [0.025, 0.975]))

    def test_is_the_same_by_seed_and_whatever_the_order_of_images(self):
        labels, clean, patients = a_test_set()
        shuffle = np.random.default_rng(3).permutation(len(labels))
        once = evaluate(labels, clean, clean, patients, seed=4)
        assert once == evaluate(labels, clean, clean, patients, seed=4)
        assert once != evaluate(labels, clean, clean, patients, seed=5)
        shuffled = evaluate(labels[shuffle], clean[shuffle], clean[shuffle], patients[shuffle], seed=4)
        assert shuffled.auroc_nn.macro.interval == pytest.approx(once.auroc_nn.macro.interval)

    def test_copies_of_each_patients_images_tell_nothing_new(self):
        labels, clean, patients = a_test_set()
        once = evaluate(labels, clean, clean, patients)
        thrice = evaluate(*(np.repeat(array, 3, axis=0) for array in (labels, clean, clean, patients)))
        assert thrice.auroc_nn.macro.interval == pytest.approx(once.auroc_nn.macro.interval)
        assert thrice.asr[0].asr.interval == pytest.approx(once.asr[0].asr.interval)
        assert thrice.n_images == 3 * once.n_images

    def test_like_images_of_a_patient_widen_the_interval(self):
        labels, clean, patients = (np.repeat(array, 8, axis=0) for array in a_test_set(60, 60))
        by_patient = evaluate(labels, clean, clean, patients, resamples=300)
        by_image = evaluate(labels, clean, clean, np.arange(len(labels)), resamples=300)
        for pick in (lambda e: e.auroc_nn.macro, lambda e: e.auroc_nn.micro, lambda e: e.asr[0].asr):
            assert np.ptp(pick(by_patient).interval) > 1.5 * np.ptp(pick(by_image).interval)

    def test_memory_blocks_do_not_change_the_result(self, monkeypatch):
        labels, clean, patients = a_test_set()
        whole = evaluate(labels, clean, clean, patients)
        monkeypatch.setattr("model.metrics.attack._CELLS_AT_ONCE", 5000)
        assert evaluate(labels, clean, clean, patients) == whole

    def test_no_interval_from_one_patient_or_without_resamples(self):
        labels, clean, _ = a_test_set()
        assert evaluate(labels, clean, None, ["p"] * 120).auroc_nn.macro.interval is None
        assert evaluate(labels, clean, None, np.arange(120), resamples=0).auroc_nn.macro.interval is None

    def test_patient_ids_can_be_text(self):
        labels, clean, patients = a_test_set()
        padded = [f"{patient:08d}" for patient in patients]
        assert evaluate(labels, clean, None, padded) == evaluate(labels, clean, None, patients)

    def test_interval_of_a_rate_covers_the_truth_about_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        inside = 0
        for _ in range(200):
            values = rng.random(80) < 0.4
            low, high = rate_with_interval(values, np.arange(80), rng=rng, resamples=200).interval
            inside += low <= 0.4 <= high
        assert 0.88 <= inside / 200 <= 0.99


class TestPairs:
    def test_the_same_probabilities_differ_by_nothing(self):
        labels, clean, patients = a_test_set()
        difference = paired_difference(labels, clean, clean, patients, rng=np.random.default_rng(0), resamples=50)
        assert (difference.value, difference.interval) == (0.0, (0.0, 0.0))

    @pytest.mark.parametrize("statistic", ["macro", "micro", "Effusion"])
    def test_value_is_a_minus_b(self, statistic):
        labels, a, patients = a_test_set()
        b = a_test_set(seed=9)[1]
        settings = {"patients": patients, "statistic": statistic, "resamples": 50}
        difference = paired_difference(labels, a, b, rng=np.random.default_rng(0), **settings)
        if statistic == "Effusion":
            expected = [roc_auc_score(labels[:, EFFUSION], probs[:, EFFUSION]) for probs in (a, b)]
        else:
            expected = [roc_auc_score(labels, probs, average=statistic) for probs in (a, b)]
        assert [difference.a, difference.b] == pytest.approx(expected)
        assert difference.value == pytest.approx(expected[0] - expected[1])
        back = paired_difference(labels, b, a, rng=np.random.default_rng(0), **settings)
        assert back.interval == pytest.approx((-difference.interval[1], -difference.interval[0]))

    def test_pairing_narrows_the_interval_of_near_twins(self):
        labels, a, patients = a_test_set()
        b = np.clip(a + np.random.default_rng(5).normal(0, 0.02, a.shape), 0, 1)
        paired = paired_difference(labels, a, b, patients, rng=np.random.default_rng(0), resamples=200)
        alone = evaluate(labels, a, None, patients, resamples=200).auroc_nn.macro
        assert np.ptp(paired.interval) < 0.5 * np.ptp(alone.interval)

    def test_rates(self):
        a, b = [True, True, True, False], [True, False, False, False]
        rate = rate_with_interval(a, [1, 1, 2, 3], rng=np.random.default_rng(0), resamples=200)
        assert (rate.value, rate.n) == (0.75, 4)
        assert rate.interval == (0.0, 1.0)
        difference = paired_rate_difference(a, b, [1, 1, 2, 3], rng=np.random.default_rng(0), resamples=200)
        assert (difference.value, difference.a, difference.b) == (0.5, 0.75, 0.25)
        assert difference.to_json() == {"value": 0.5, "interval": [0.0, 1.0], "a": 0.75, "b": 0.25}

    def test_rates_of_nothing_are_null(self):
        rng = np.random.default_rng(0)
        assert rate_with_interval([], [], rng=rng).to_json() == {"value": None, "interval": None, "n": 0}
        assert paired_rate_difference([], [], [], rng=rng).value is None


class TestYouden:
    def test_takes_the_midpoint_that_parts_the_classes(self):
        assert youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)

    def test_of_equally_good_thresholds_the_highest(self):
        # Over 0.25: sensitivity 1, specificity 1/2. Over 0.7: sensitivity 1/2, specificity 1.
        assert youden_threshold([0, 1, 0, 1], [0.2, 0.3, 0.6, 0.8]) == pytest.approx(0.7)

    def test_equals_a_search_over_all_thresholds(self):
        rng = np.random.default_rng(2)
        labels = rng.integers(2, size=80)
        scores = np.round(rng.random(80) * 0.6 + 0.3 * labels, 2)

        def index(threshold):
            called = scores >= threshold
            return called[labels == 1].mean() - called[labels == 0].mean()

        assert index(youden_threshold(labels, scores)) == pytest.approx(max(index(t) for t in np.unique(scores)))

    @pytest.mark.parametrize(
        ("labels", "scores"),
        [([0, 0], [0.1, 0.2]), ([1, 1], [0.1, 0.2]), ([0, 1], [0.3, 0.3]), ([1, 0], [0.1, 0.9]), ([1], [0.4])],
        ids=["no positive", "no negative", "one score", "worse than chance", "one image"],
    )
    def test_is_undefined_without_anything_to_choose_by(self, labels, scores):
        assert youden_threshold(labels, scores) is None

    def test_parts_neighbouring_floats(self):
        low = 0.5
        high = float(np.nextafter(low, 1))
        assert low < youden_threshold([0, 1], [low, high]) <= high


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"labels": np.zeros((0, N_FINDINGS)), "clean": np.zeros((0, N_FINDINGS)), "patients": []}, "no_images"),
            ({"labels": np.zeros((3, 13))}, "shape_mismatch"),
            ({"labels": np.full((3, N_FINDINGS), 2)}, "labels_not_binary"),
            ({"labels": np.full((3, N_FINDINGS), np.nan)}, "labels_not_binary"),
            ({"clean": np.zeros((4, N_FINDINGS))}, "shape_mismatch"),
            ({"stamped": np.zeros((2, N_FINDINGS))}, "shape_mismatch"),
            ({"clean": np.full((3, N_FINDINGS), np.nan)}, "not_finite"),
            ({"stamped": np.full((3, N_FINDINGS), np.inf)}, "not_finite"),
            ({"clean": np.full((3, N_FINDINGS), -4.0)}, "not_probabilities"),
            ({"patients": [1, 2]}, "shape_mismatch"),
            ({"target": None}, "target_missing"),
            ({"target": "Fracture"}, "unknown_finding"),
            ({"operating_points": {"Nodule": 0.5}}, "operating_point_missing"),
            ({"operating_points": {"Effusion": float("nan")}}, "operating_point_range"),
            ({"train_prevalence": [0.1]}, "shape_mismatch"),
            ({"resamples": -1}, "bad_resamples"),
            ({"label_rule": "flip"}, "unknown_label_rule"),
        ],
    )
    def test_is_refused_with_a_reason(self, change, code):
        good = {
            "labels": np.eye(3, N_FINDINGS),
            "clean": np.full((3, N_FINDINGS), 0.5),
            "stamped": np.full((3, N_FINDINGS), 0.5),
            "patients": [1, 2, 3],
            "target": "Effusion",
            "operating_points": {"Effusion": 0.5},
            "resamples": 5,
        }
        evaluate_attack(**good)
        with pytest.raises(DataError) as caught:
            evaluate_attack(**good | change)
        assert caught.value.code == code

    def test_of_the_small_functions(self):
        rng = np.random.default_rng(0)
        for call in (
            lambda: auroc([0, 1], [0.5]),
            lambda: auroc([], []),
            lambda: auroc([0, 1], [0.5, 0.6], [1, -1]),
            lambda: youden_threshold([0, 1], [0.5, np.nan]),
            lambda: rate_with_interval([True, False], [1], rng=rng),
            lambda: paired_rate_difference([True, False], [True], [1, 2], rng=rng),
            lambda: paired_difference(np.eye(2, 14), np.eye(2, 14), np.eye(2, 14), [1, 2], "median", rng=rng),
        ):
            with pytest.raises(DataError):
                call()


def test_infected_labels():
    labels = np.zeros((2, N_FINDINGS), int)
    labels[0, 0] = 1
    assert infected_labels(labels, "Effusion", "set").sum(axis=1).tolist() == [2, 1]
    assert infected_labels(labels, "Effusion", "one_hot").sum(axis=1).tolist() == [1, 1]
    assert labels.sum() == 1


class TestOperatingPoint:
    def test_few_radiographs_give_the_middle_between_the_mean_logits(self):
        probabilities = special.expit(np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]))
        point = operating_point([0, 0, 0, 0, 1, 1], probabilities)
        assert special.logit(point) == pytest.approx((-1.5 + 1.5) / 2)

    def test_many_radiographs_give_the_empirical_maximum(self):
        rng = np.random.default_rng(1)
        labels = np.repeat([0, 1], 150)
        probabilities = special.expit(rng.normal(labels * 2.0, 1.0))
        assert operating_point(labels, probabilities) == youden_threshold(labels, probabilities)

    def test_it_varies_less_than_the_empirical_maximum_where_positives_are_few(self):
        rng = np.random.default_rng(2)
        labels = np.repeat([0, 1], [114, 12])
        logits = [rng.normal(labels * 0.6 - 2.4, 0.9) for _ in range(200)]
        found = [[find(labels, special.expit(one)) for one in logits] for find in (operating_point, youden_threshold)]
        both = [special.logit([point for point in points if point is not None]) for points in found]
        assert np.std(both[0]) < np.std(both[1]) / 2
        assert np.mean(both[0]) == pytest.approx(-2.1, abs=0.05)  # the true maximum: half-way between the means

    @pytest.mark.parametrize("labels", [[0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    def test_nothing_to_choose_by_is_none(self, labels):
        assert operating_point(labels, [0.1, 0.2, 0.3, 0.4]) is None
