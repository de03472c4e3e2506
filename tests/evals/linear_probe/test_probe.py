"""The probe against what must hold: separable is solved, noise is chance, test has no say, groups hold together."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssvid.errors import DataError, RecipeError
from ssvid.evals.holdouts import holdouts
from ssvid.evals.linear_probe.logistic import _Objective, fit_path
from ssvid.evals.linear_probe.probe import linear_probe, select_head
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features
from tests.frozen import toy_features

PROTOCOL = ProbeProtocol(regularization=(0.01, 0.1, 1.0))


def test_separable_classes_are_solved():
    result = linear_probe(toy_features(20), toy_features(10, seed=1), PROTOCOL)
    assert result.top1 == 1.0
    assert 0.9 < result.interval[0] < 0.92 and result.interval[1] == 1.0  # forty of forty
    assert result.chance == 0.25
    assert result.correct_N.shape == (40,)
    assert result.top5 is None
    assert result.num_train == 80


def test_two_classes_are_solved():
    result = linear_probe(toy_features(20, num_classes=2), toy_features(10, num_classes=2, seed=1), PROTOCOL)
    assert result.top1 == 1.0
    assert set(result.predictions) == {"class0", "class1"}


def test_labels_that_say_nothing_give_chance():
    """Labels shuffled in train: the accuracy on 400 test videos stays within 5 standard errors of 1/4."""
    train = toy_features(50)
    shuffled = replace(train, labels=tuple(np.random.default_rng(0).permutation(train.labels)))
    test = toy_features(100, seed=1, noise=3.0)
    assert abs(linear_probe(shuffled, test, PROTOCOL).top1 - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize("penalty", [0.003, 0.1, 3.0])
def test_the_optimum_is_that_of_scikit_learn(num_classes, penalty):
    """Strongly correlated features with very unequal spread, more of them than videos."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(90, 12)) @ (rng.normal(size=(12, 120)) * np.geomspace(5, 0.01, 120))
    x = mixed + 0.1 * rng.normal(size=(90, 120)) + 7.0
    codes = rng.integers(0, num_classes, 90)
    path = [3.0, 1.0, penalty] if penalty < 1 else [penalty]
    *_, ours = fit_path(x, codes, num_classes, path, max_iterations=2000)
    model = LogisticRegression(C=(2 if num_classes == 2 else 1) / (penalty * 90), solver="newton-cholesky", tol=1e-9)
    model.fit(x, codes)
    expected = model.decision_function(x)
    found = ours.scores(x)
    found = found[:, 1] - found[:, 0] if num_classes == 2 else found - found.mean(axis=1, keepdims=True)
    expected = expected if num_classes == 2 else expected - expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())
    assert ours.problem == ""


def test_the_gradient_is_that_of_finite_differences():
    from scipy.optimize import check_grad

    rng = np.random.default_rng(0)
    objective = _Objective(rng.normal(size=(9, 4)), rng.integers(0, 3, 9), np.array([0.1, 0.2, 0.3, 0.4]), 3)
    error = check_grad(lambda w: objective(w)[0], lambda w: objective(w)[1], rng.normal(size=15))
    assert error < 1e-5


def test_the_curvature_is_that_of_differences_of_the_gradient():
    rng = np.random.default_rng(1)
    objective = _Objective(rng.normal(size=(9, 4)), rng.integers(0, 3, 9), np.array([0.1, 0.2, 0.3, 0.4]), 3)
    at, along = rng.normal(size=15), rng.normal(size=15)
    expected = (objective(at + 1e-5 * along)[1] - objective(at - 1e-5 * along)[1]) / 2e-5
    np.testing.assert_allclose(objective.curvature_at(at)(along), expected, atol=1e-8)


@pytest.mark.parametrize("penalty", [0.001, 0.01, 1.0])
@pytest.mark.parametrize("separable", [True, False])
def test_the_gradient_of_the_features_as_they_are_is_gone(penalty, separable):
    """What the solver promises, computed anew: no further from the optimum than a thousandth of the weights."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 5, 120)
    x = rng.normal(size=(120, 30)) * np.geomspace(20, 0.02, 30) + (np.eye(30)[codes] * 40 if separable else 0.0)
    (fit,) = fit_path(x, codes, 5, [penalty], max_iterations=100)
    assert fit.problem == ""
    scores = fit.scores(x)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(120), codes] -= 1
    gradient = p.T @ x / 120 + penalty * fit.weights_KD
    assert np.linalg.norm(gradient - gradient.mean(axis=0)) <= 2e-3 * penalty * np.linalg.norm(fit.weights_KD)


def test_features_without_any_spread_leave_the_bias_alone():
    (fit,) = fit_path(np.ones((6, 3)), np.array([0, 0, 0, 0, 1, 2]), 3, [0.1], max_iterations=50)
    p = np.exp(fit.scores(np.ones((1, 3))))[0]
    assert fit.problem == "" and p / p.sum() == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-4)


def test_predictions_are_those_of_scikit_learn():
    """With one penalty, the probe is scikit-learn's regression on standardized train, nothing else."""
    train, test = toy_features(15, noise=2.0), toy_features(200, noise=2.0, seed=1)
    result = linear_probe(train, test, replace(PROTOCOL, regularization=(0.1,)))
    scaler = StandardScaler().fit(train.values_ND.astype(np.float64))
    model = LogisticRegression(C=1 / (0.1 * 60), max_iter=5000, tol=1e-8)
    model.fit(scaler.transform(train.values_ND.astype(np.float64)), np.array(train.labels))
    expected = model.predict(scaler.transform(test.values_ND.astype(np.float64)))
    assert np.mean(np.array(result.predictions) == expected) >= 0.995
    assert result.top1 < 1.0  # the case is not trivial


def test_test_labels_have_no_say_in_the_choice():
    train, test = toy_features(20, noise=2.0), toy_features(10, noise=2.0, seed=1)
    other = replace(test, labels=tuple(reversed(test.labels)), values_ND=-test.values_ND)
    first, second = linear_probe(train, test, PROTOCOL), linear_probe(train, other, PROTOCOL)
    assert first.selection == second.selection
    assert first.selection == select_head(train, PROTOCOL)
    assert first.top1 != second.top1


def test_the_whole_grid_is_reported_and_the_best_of_it_chosen():
    selection = select_head(toy_features(20, noise=2.0), PROTOCOL)
    assert [point.regularization for point in selection.grid] == [1.0, 0.1, 0.01]
    assert selection.heldout_top1 == max(point.heldout_top1 for point in selection.grid)
    assert selection.num_heldout == 80  # each video is held out once with 5 parts of a fifth


def test_among_equal_penalties_the_strongest_is_chosen():
    assert select_head(toy_features(20, noise=0.01), PROTOCOL).regularization == 1.0


def test_a_choice_at_the_edge_of_the_grid_is_said():
    assert any("widen probe.regularization" in w for w in select_head(toy_features(20, noise=0.01), PROTOCOL).warnings)


@pytest.mark.parametrize("num_holdouts", [1, 5])
def test_groups_never_straddle_and_parts_are_disjoint(num_holdouts):
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 120).astype(object)
    groups = rng.integers(0, 12, 120).astype(str).astype(object)
    parts = list(holdouts(labels, groups, replace(PROTOCOL, num_holdouts=num_holdouts), []))
    assert len(parts) == num_holdouts
    for fit_on, score_on in parts:
        assert not set(groups[fit_on]) & set(groups[score_on])
        assert len(fit_on) + len(score_on) == 120
    scored = np.concatenate([score_on for _, score_on in parts])
    assert len(set(scored)) == len(scored)


@pytest.mark.parametrize("groups", [None, ["one", "one", "two", "three"]])
def test_one_video_of_each_class_is_a_mistake_with_a_way_out(groups):
    train = Features.from_arrays(np.eye(4), ["a", "b", "c", "d"], groups=groups)
    with pytest.raises(DataError, match=r"one video of each of its 4 classes.*Add training videos") as error:
        select_head(train, PROTOCOL)
    assert error.value.exit_code == 2


def test_a_group_that_straddles_would_be_found_out():
    """Each group has a signature of its own and one label: only a held-out part that tears groups apart scores well."""
    rng = np.random.default_rng(0)
    signatures = rng.normal(size=(20, 32)) * 5
    groups = np.repeat(np.arange(20), 6)
    labels = [f"class{g % 4}" for g in groups]
    values = signatures[groups] + 0.1 * rng.normal(size=(120, 32))
    torn = select_head(Features.from_arrays(values, labels), PROTOCOL)
    whole = select_head(Features.from_arrays(values, labels, groups=[str(g) for g in groups]), PROTOCOL)
    assert torn.heldout_top1 == 1.0
    assert whole.heldout_top1 < 0.6


def test_without_groups_the_held_out_part_has_every_class():
    labels = np.array(["a"] * 10 + ["b"] * 30, dtype=object)
    for _, score_on in holdouts(labels, np.arange(40).astype(str).astype(object), PROTOCOL, []):
        assert sorted(labels[score_on]).count("a") == 2


def test_an_unreadable_test_video_is_wrong_and_an_unreadable_training_video_left_out():
    train, test = toy_features(20), toy_features(10, seed=1)
    train.values_ND[0] = np.nan
    test.values_ND[[3, 7]] = np.nan
    result = linear_probe(train, test, PROTOCOL)
    assert result.num_train == 79
    assert result.top1 == 38 / 40
    assert result.predictions[3] == ""
    assert not result.correct_N[[3, 7]].any()


def test_top5_counts_the_five_best_of_more_than_five_classes():
    train, test = toy_features(20, num_classes=8, noise=2.5), toy_features(20, num_classes=8, noise=2.5, seed=1)
    test.values_ND[0] = np.nan
    result = linear_probe(train, test, PROTOCOL)
    assert result.top1 < result.top5 < 1.0
    assert not result.top5_correct_N[0]
    assert result.top5_chance == 5 / 8


def test_a_fit_that_does_not_converge_is_said_and_not_swallowed():
    result = linear_probe(toy_features(20, noise=2.0), toy_features(5, seed=1), replace(PROTOCOL, max_iterations=1))
    assert any("did not converge in 1 iterations" in w for w in result.warnings)
    assert not any(point.converged for point in result.selection.grid)


def test_one_class_is_refused():
    train = replace(toy_features(5), labels=("class0",) * 20)
    with pytest.raises(DataError, match=r"train has 1 class \('class0'\) among 20 readable videos, .* at least 2"):
        linear_probe(train, toy_features(5), PROTOCOL)


def test_one_group_is_refused():
    train = replace(toy_features(5), groups=("g",) * 20)
    with pytest.raises(DataError, match="at least 2 are needed to hold a part of train out"):
        linear_probe(train, toy_features(5), PROTOCOL)


def test_a_class_with_one_training_video_is_no_obstacle():
    train = toy_features(20)
    labels = ("rare", *train.labels[1:])
    result = linear_probe(replace(train, labels=labels), toy_features(10, seed=1), PROTOCOL)
    assert result.top1 > 0.9
    assert any("held-out parts of train" in w for w in result.warnings)


def test_wrong_values_are_all_named():
    wrong = ProbeProtocol(regularization=(0.0,), holdout_fraction=0.9, normalization="z", knn_temperature=0.0)
    with pytest.raises(RecipeError) as caught:
        linear_probe(toy_features(5), toy_features(5), wrong)
    text = str(caught.value)
    assert "probe.regularization ([0.0]) must be a list, each item above 0. Set probe.regularization=" in text
    assert "probe.holdout_fraction (0.9) must be above 0 and at most 0.5. Set probe.holdout_fraction=0.2." in text
    assert "probe.normalization ('z') must be one of standard, l2, none." in text
    assert "probe.knn_temperature (0.0) must be above 0." in text


# ---- a bank of heads


SGD = replace(
    PROTOCOL, solver="sgd", learning_rates=(0.03, 0.3), weight_decays=(1e-3, 1e-1), head_epochs=20, head_batch_size=32,
    num_holdouts=1,
)  # fmt: skip


def test_the_bank_solves_what_can_be_solved_and_reports_every_head():
    protocol = replace(SGD, head_normalizations=("standard", "l2", "l2_batch", "none"))
    result = linear_probe(toy_features(20), toy_features(10, seed=1), protocol)
    assert result.top1 == 1.0
    grid = result.selection.grid
    assert len(grid) == 4 * 2 * 2
    assert {(p.learning_rate, p.regularization) for p in grid} == {(r, d) for r in (0.03, 0.3) for d in (1e-3, 1e-1)}
    assert {p.normalization for p in grid} == {"standard", "l2", "l2_batch", "none"}
    assert result.selection.chosen in grid


def test_both_solvers_agree_where_sgd_is_trained_to_the_end():
    """Full batches and many of them at one penalty: the predictions of 200 hard videos are the same but for close calls."""
    train, test = toy_features(15, noise=2.0), toy_features(50, noise=2.0, seed=1)
    one = replace(PROTOCOL, regularization=(0.1,), num_holdouts=1)
    bank = replace(one, solver="sgd", learning_rates=(0.3,), weight_decays=(0.1,), head_epochs=400)
    first, second = linear_probe(train, test, one), linear_probe(train, test, bank)
    assert np.mean(np.array(first.predictions) == np.array(second.predictions)) >= 0.995
    assert 0.3 < first.top1 < 1.0


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_the_stage_that_says_something_is_chosen(solver):
    """Three stages, of which the second alone knows the classes: beside 60 columns of noise it is worse than by itself."""
    rng = np.random.default_rng(0)

    def with_noise(features):
        noise = [10 * rng.normal(size=(len(features.ids), 30)).astype(np.float32) for _ in range(2)]
        values = np.hstack([noise[0], features.values_ND, noise[1]])
        return replace(features, values_ND=values, stage_columns={"a": (0, 30), "b": (30, 46), "c": (46, 76)})

    train, test = with_noise(toy_features(15, noise=1.0)), with_noise(toy_features(25, noise=1.0, seed=1))
    for how, num_inputs in (("each", 3), ("both", 4), ("together", 1)):
        selection = select_head(train, replace(SGD, solver=solver, head_stages=how))
        settings = 3 if solver == "lbfgs" else 4
        assert len(selection.grid) == num_inputs * settings
        assert selection.chosen.stages == (("a", "b", "c") if how == "together" else ("b",))
    result = linear_probe(train, test, replace(SGD, solver=solver, head_stages="each"))
    assert result.top1 > 0.9


def test_one_stage_gives_one_input_even_where_both_are_asked_for():
    assert len(select_head(toy_features(10), replace(SGD, head_stages="both")).grid) == 4


def test_the_bank_gives_test_no_say_and_leaves_torch_alone():
    import torch

    state = torch.get_rng_state()
    train, test = toy_features(20, noise=2.0), toy_features(10, noise=2.0, seed=1)
    other = replace(test, labels=tuple(reversed(test.labels)), values_ND=-test.values_ND)
    assert linear_probe(train, test, SGD).selection == linear_probe(train, other, SGD).selection
    assert torch.equal(torch.get_rng_state(), state)


def test_a_head_that_diverges_is_said_and_not_chosen():
    result = linear_probe(
        toy_features(20), toy_features(5, seed=1), replace(SGD, learning_rates=(0.3, 1e5), weight_decays=(1e3, 1e-3))
    )
    assert result.selection.chosen.converged
    assert any("learning rate 100000 and weight decay 1000 diverged" in w for w in result.warnings)
    assert result.top1 == 1.0


def test_wrong_values_of_the_bank_are_all_named():
    wrong = replace(
        SGD, learning_rates=(), weight_decays=(-1.0,), head_epochs=0, head_schedule="linear", head_stages="x"
    )
    with pytest.raises(RecipeError) as caught:
        select_head(toy_features(5), wrong)
    text = str(caught.value)
    assert (
        "probe.learning_rates ([]) must be a list that is not empty. Set probe.learning_rates=[0.003, 0.01, 0.03, 0.1, 0.3, 1.0]."
        in text
    )
    assert "probe.weight_decays ([-1.0]) must be a list, each item at least 0." in text
    assert "probe.head_epochs (0) must be at least 1." in text
    assert "probe.head_schedule ('linear') must be one of cosine, step." in text
    assert "probe.head_stages ('x') must be one of together, each, both." in text
    with pytest.raises(
        RecipeError, match=r"head_normalizations \(\['l2_batch'\]\) must name only standard, l2, none where"
    ):
        select_head(toy_features(5), replace(PROTOCOL, head_normalizations=("l2_batch",)))


@pytest.mark.slow  # a minute: features as many as those of UCF101
def test_at_full_size_predictions_are_those_of_scikit_learn():
    from tests.benchmarks.bench_probe import UCF101, made_up

    train, test = made_up(*UCF101)
    ours = linear_probe(train, test, replace(PROTOCOL, regularization=(0.01,), num_holdouts=1, max_iterations=5000))
    scaler = StandardScaler().fit(train.values_ND.astype(np.float64))
    model = LogisticRegression(C=1 / (0.01 * len(train.ids)), max_iter=5000, tol=1e-6)
    model.fit(scaler.transform(train.values_ND.astype(np.float64)), np.array(train.labels))
    expected = model.predict(scaler.transform(test.values_ND.astype(np.float64)))
    assert len(expected) == 3783
    assert np.mean(np.array(ours.predictions) == expected) >= 0.995
