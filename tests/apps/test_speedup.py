"""V, S and the frame map: limits, a dense solve beside the closed form, exact lengths, strictly rising maps."""

import numpy as np
import pytest

from ssvid.apps.speedup import (
    SpeedUpConfig,
    fit_length,
    frame_map,
    natural_factors,
    smooth_and_shift,
    smoothed,
    uniform_map,
)
from ssvid.errors import DataError

RNG = np.random.default_rng(5)
V = 1 + 4 * RNG.random(120)


def test_versions_of_the_paper():
    factors = SpeedUpConfig().factors
    assert len(factors) == 11 and factors[0] == 1 and factors[-1] == pytest.approx(9.3132257)


def test_the_largest_natural_factor_by_both_rules():
    probs = np.array([[0.1, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.1], [0.9, 0.9, 0.1, 0.1]])
    assert natural_factors(probs, np.array([1.0, 2.0, 4.0]), 0.5).tolist() == [2, 1, 1, 4]
    assert natural_factors(probs, np.array([1.0, 2.0, 4.0]), 0.5, "max").tolist() == [2, 1, 4, 4]


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (3.0, 0.0), (0.0, 50.0), (144.0, 120.0)])
def test_smoothing_and_shift_are_those_of_a_dense_solve(alpha, beta):
    T, target = len(V), 2.5
    D = np.diff(np.eye(T), axis=0)
    matrix = np.eye(T) + beta / T**2 * np.ones((T, T)) + alpha * D.T @ D
    dense = np.linalg.solve(matrix, V + beta * target / T)
    assert np.abs(smooth_and_shift(V, target, alpha, beta) - dense).max() < 1e-9


def test_limits_of_the_weights():
    assert smooth_and_shift(V, 2.0, 0, 0) == pytest.approx(V, abs=0)
    assert smoothed(V, 1e9) == pytest.approx(np.full(120, V.mean()), abs=1e-4)
    assert smooth_and_shift(V, 2.0, 5.0, 1e12).mean() == pytest.approx(2.0, abs=1e-6)
    assert smoothed(V, 30.0).mean() == pytest.approx(V.mean(), abs=1e-12)
    assert smooth_and_shift(np.full(120, 3.0), 3.0, 30.0, 7.0) == pytest.approx(np.full(120, 3.0), abs=1e-12)


@pytest.mark.parametrize("num_out", [2, 3, 17, 60, 119, 120])
def test_the_length_is_exact_and_the_map_rises_strictly_from_the_first_to_the_last(num_out):
    speeds = fit_length(smoothed(V, 4.0), num_out)
    assert speeds.min() >= 1
    assert (1 / speeds[:-1]).sum() == pytest.approx(num_out - 1, abs=1e-6)
    for shown in (frame_map(speeds, num_out), uniform_map(120, num_out)):
        assert len(shown) == num_out and shown[0] == 0 and shown[-1] == 119
        assert (np.diff(shown) >= 1).all()


def test_a_factor_of_one_is_the_identity():
    assert frame_map(np.ones(120), 120).tolist() == list(range(120))
    assert frame_map(fit_length(V, 120), 120).tolist() == list(range(120))
    assert uniform_map(120, 120).tolist() == list(range(120))


def test_what_is_constant_is_sped_up_alike():
    assert frame_map(fit_length(np.full(121, 3.0), 41), 41).tolist() == list(range(0, 121, 3))


def test_the_map_is_that_of_a_slow_loop():
    speeds = fit_length(smoothed(V, 4.0), 40)
    shown, position = [0.0], 0.0
    for t in range(119):
        position += 1 / speeds[t]
        shown.append(position)
    found = frame_map(speeds, 40)
    for j in range(40):
        nearest = min(range(120), key=lambda t: abs(shown[t] - j))
        assert abs(found[j] - nearest) <= 1


def test_stretches_with_a_larger_v_are_passed_faster():
    V_T = np.repeat([1.0, 4.0, 1.0], 50)
    shown = frame_map(fit_length(V_T, 75), 75)
    shares = [((shown >= first) & (shown < first + 50)).sum() for first in (0, 50, 100)]
    assert shares[1] < 0.5 * shares[0] and abs(shares[0] - shares[2]) <= 1


@pytest.mark.parametrize("num_out", [0, 1, 121])
def test_lengths_that_cannot_be_are_refused(num_out):
    with pytest.raises(DataError, match=f"a film of {num_out} frames cannot be made of 120"):
        fit_length(V, num_out)
