"""Intervals: what an independent program computes, what they must not say, and how often they hold."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from ssvid.intervals import (
    _auc_variance,
    auc_interval,
    difference_interval,
    exact_interval,
    grouped_mean_interval,
    mean_interval,
    pseudo_values,
    share_interval,
)
from tests.benchmarks.bench_intervals import (
    KINDS,
    coverage_of_differences,
    coverage_of_shares,
    coverage_over_sequences,
    paired_answers,
)

COUNTS = (30, 90, 200, 1000, 4000)
SHARES = (0.02, 0.1, 0.5, 0.9, 0.99, 1.0)
LEAST = 0.93


@pytest.mark.parametrize(("right", "num"), [(0, 30), (1, 90), (45, 90), (89, 90), (90, 90), (3999, 4000)])
def test_right_and_wrong_are_as_scipy_has_them(right, num):
    expected = binomtest(right, num).proportion_ci(method="exact")
    values = np.arange(num) < right
    assert share_interval(values) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert share_interval(values.astype(float)[::-1]) == pytest.approx((expected.low, expected.high), abs=1e-9)
    wider = binomtest(right, num).proportion_ci(0.99, method="exact")
    assert share_interval(values, level=0.99) == pytest.approx((wider.low, wider.high), abs=1e-9)


def test_an_exact_interval_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, and 0 of 20.
    assert exact_interval(81 / 263, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert exact_interval(0.0, 20) == pytest.approx((0.0, 0.1684), abs=5e-5)
    assert exact_interval(0.5, 0) == (0.0, 1.0)


@pytest.mark.parametrize("num", [*COUNTS, 7, 57])
def test_shares_hold_at_least_as_often_as_they_say_without_drawing(num):
    """The chance of every possible count, added up where its interval holds the truth."""
    intervals = np.array([exact_interval(right / num, num) for right in range(num + 1)])
    for share in (*SHARES, 0.001, 0.25, 0.995, 0.999):
        holds = (intervals[:, 0] <= share + 1e-12) & (share - 1e-12 <= intervals[:, 1])
        coverage = binom.pmf(np.arange(num + 1), num, share)[holds].sum()
        assert coverage >= 0.95 - 1e-9
        if num * min(share, 1 - share) >= 9:  # with fewer there are too few counts for less
            assert coverage <= 0.98


def test_groups_that_agree_in_everything_are_as_many_trials_as_groups():
    right = np.arange(40) < 30
    groups = np.repeat([f"g{i}" for i in range(40)], 5)
    low, high = share_interval(np.repeat(right, 5), groups_N=groups)
    expected = exact_interval(0.75, 40)
    assert low < expected[0] < 0.75 < expected[1] < high  # wider: that they agree is known from 40 groups only
    assert (low, high) == pytest.approx(expected, abs=0.01)


def test_groups_of_one_are_no_groups():
    values = np.random.default_rng(0).random(50)
    assert share_interval(values, groups_N=np.arange(50)) == share_interval(values)
    assert difference_interval(values - 0.5, groups_N=np.arange(50)) == difference_interval(values - 0.5)


def test_averaged_views_know_more_than_a_single_answer():
    rng = np.random.default_rng(1)
    views = rng.random((200, 10)) < 0.7
    one, ten = (np.diff(share_interval(v))[0] for v in (views[:, 0], views.mean(axis=1)))
    assert ten == pytest.approx(one / np.sqrt(10), rel=0.15)


@pytest.mark.parametrize("num", [1, 2, 9, 90, 4000])
def test_nothing_is_ever_sure(num):
    for values in (np.ones(num), np.zeros(num), np.full(num, 0.5)):
        for groups in (None, np.arange(num) // 5):
            low, high = share_interval(values, groups_N=groups)
            assert 0 <= low <= values[0] <= high <= 1 and high - low > 0.5 / num
    for groups in (None, np.arange(num) // 5):
        low, high = difference_interval(np.zeros(num), groups_N=groups)
        assert low == -high < -0.5 / num
    assert np.isnan(share_interval(np.array([]))).all() and np.isnan(difference_interval(np.array([]))).all()


def test_a_difference_is_symmetric_and_knows_its_direction():
    values = np.r_[np.ones(12), -np.ones(3), np.zeros(75)]
    low, high = difference_interval(values)
    assert 0.0 < low < 0.1 < high < 0.2
    assert difference_interval(-values) == pytest.approx((-high, -low))
    low, high = difference_interval(np.r_[np.ones(5), np.zeros(85)])  # no loss was seen: the gain is a share
    assert high == pytest.approx(exact_interval(5 / 90, 90)[1])


def test_weights_count_like_videos():
    """A video of weight 2 is no two videos, but counts twice in the mean."""
    values, weights = np.r_[np.ones(30), np.zeros(30)], np.r_[np.full(30, 2.0), np.ones(30)]
    low, high = share_interval(values, weights_N=weights)
    assert low < 2 / 3 < high
    assert share_interval(values, weights_N=np.full(60, 3.0)) == pytest.approx(share_interval(values))


def test_the_mean_of_errors_repeats_and_moves_with_its_values():
    values = np.random.default_rng(2).exponential(1.0, 100)
    low, high = mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) == (low, high)
    assert mean_interval(2 * values + 5, seed=3) == pytest.approx((2 * low + 5, 2 * high + 5))
    assert high - values.mean() > values.mean() - low  # errors have a long tail above
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)


def test_coverage_in_groups_at_a_glance():
    """A few cells of the slow test, each by enough draws to tell .93 from the .83 of videos counted one by one."""
    for share, alike in ((0.9, 0.3), (0.5, 0.6)):
        assert coverage_of_shares(200, share, alike, draws=400, seed=1) >= LEAST
        assert coverage_of_shares(200, share, alike, draws=400, seed=1, counted_in_groups=False) < 0.92
    assert coverage_of_differences(200, 0.6, 0.5, 0.3, draws=300, seed=2) >= LEAST


def test_the_simulated_answers_are_what_they_are_said_to_be():
    a, b, _ = paired_answers(np.random.default_rng(0), 50_000, 0.6, 0.4, 0.3)
    assert (a.mean(), b.mean()) == pytest.approx((0.6, 0.4), abs=0.01)
    by_group = a.reshape(-1, 5) - a.mean()
    alike = (by_group[:, 0] * by_group[:, 1]).mean() / a.var()
    assert alike == pytest.approx(0.3, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("num", COUNTS)
def test_coverage_of_shares_and_differences(num):
    """At least .93 of 2,000 draws, alone and in groups of five with correlations 0, .3 and .6 within them."""
    for share in SHARES:
        assert coverage_of_shares(num, share, None, draws=2000, seed=num) >= LEAST
        for alike in (0.0, 0.3, 0.6):
            assert coverage_of_shares(num, share, alike, draws=2000, seed=num) >= LEAST
            other = max(share - 0.02, 0.0)
            assert coverage_of_differences(num, share, other, alike, draws=1000, seed=num) >= LEAST - 0.005
        assert coverage_of_differences(num, share, max(share - 0.1, 0.02), None, draws=1000, seed=num) >= LEAST - 0.005


# ---- an area under the ROC curve


@pytest.mark.parametrize(("m", "n"), [(7, 7), (20, 60), (500, 500)])
def test_the_variance_of_an_area_at_chance_is_that_of_mann_and_whitney(m, n):
    exact = (m + n + 1) / (12 * m * n)
    assert _auc_variance(0.5, m, n) == pytest.approx(exact, rel=1e-12)
    edge = 1.959963984540054 * math.sqrt(exact)
    assert auc_interval(0.5 + edge * 1.001, m, n)[0] > 0.5 > auc_interval(0.5 + edge * 0.999, m, n)[0]


@pytest.mark.parametrize("area", [0.5, 0.7, 0.9, 0.99, 1.0])
def test_intervals_of_an_area_hold_it_often_enough(area):
    rng = np.random.default_rng(0)
    distance = NormalDist().inv_cdf(area) * math.sqrt(2) if area < 1 else 1e3
    held = 0
    for _ in range(400):
        positive, negative = rng.normal(distance, 1, 20), rng.normal(0, 1, 20)
        low, high = auc_interval(float((positive[:, None] > negative).mean()), 20, 20)
        held += low <= area <= high
    assert held >= 0.93 * 400


def test_an_interval_of_an_area_has_no_width_problem_at_the_ends():
    low, high = auc_interval(1.0, 7, 7)
    assert 0.5 < low < 0.8
    assert high == 1.0
    assert auc_interval(0.0, 7, 7) == pytest.approx((0.0, 1 - low))
    assert auc_interval(0.7, 0, 5) == (0.0, 1.0)


# ---- numbers over few sequences


def test_over_groups_it_is_students_interval_of_the_logit():
    values = np.array([0.2, 0.5, 0.4, 0.7])
    error = values.std(ddof=1) / 2
    logit, reach = math.log(0.45 / 0.55), 3.182446 * error / (0.45 * 0.55)
    expected = [1 / (1 + math.exp(-(logit + sign * reach))) for sign in (-1, 1)]
    assert grouped_mean_interval(values, low=0.0) == pytest.approx(expected, abs=1e-6)
    # Between -1 and 1 the same logit is twice the inverse hyperbolic tangent.
    reach = 3.182446 * error / (1 - 0.45**2)
    expected = np.tanh([math.atanh(0.45) - reach, math.atanh(0.45) + reach])
    assert grouped_mean_interval(values) == pytest.approx(expected, abs=1e-6)


def test_over_groups_the_jackknife_leaves_whole_groups_out():
    values, groups = np.array([0.1, 0.5, 0.6, 0.9, 0.7]), np.array(["a", "b", "b", "c", "c"])
    without = [values[groups != group].mean() for group in "abc"]
    error = math.sqrt(2 / 3 * sum((one - np.mean(without)) ** 2 for one in without))
    logit, reach = math.log(0.56 / 0.44), 4.302653 * error / (0.56 * 0.44)
    expected = [1 / (1 + math.exp(-(logit + sign * reach))) for sign in (-1, 1)]
    assert grouped_mean_interval(values, groups_N=groups, low=0.0) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0])
def test_where_no_group_differs_the_spread_is_unknown(mean):
    low, high = grouped_mean_interval(np.full(6, mean), low=0.0)
    assert (low, high) == pytest.approx(exact_interval(mean, 6))
    assert grouped_mean_interval(np.full(6, mean), groups_N=np.zeros(6), low=0.0) == (0.0, 1.0)
    lower, higher = grouped_mean_interval(np.full(6, mean) - mean)
    assert lower < -0.5 and higher > 0.5


def test_it_is_as_wide_as_students_where_there_are_many():
    values = np.random.default_rng(0).beta(5, 3, 400)
    low, high = grouped_mean_interval(values, low=0.0)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=0.01)


@pytest.mark.parametrize("name", KINDS)
def test_numbers_over_few_sequences_hold_nearly_as_often_as_they_say(name):
    held, _ = coverage_over_sequences(KINDS[name], 6, draws=100)
    assert held >= 0.88  # 0.93 and more in docs/results/intervals.md; the error of a share of 100 is 0.02


def test_a_number_of_sums_is_drawn_by_its_sequences_and_not_by_its_frames():
    """Two hundred frames of each of five sequences, alike within: as wide as five, not as a thousand."""
    rng = np.random.default_rng(5)
    right = rng.binomial(200, rng.beta(3, 2, 5))
    values = pseudo_values(lambda at: float(right[at].sum() / (200 * len(at))), 5)
    low, high = grouped_mean_interval(values, low=0.0)
    assert high - low > 5 * (exact_interval(right.mean() / 200, 1000)[1] - right.mean() / 200)
