"""What vectors of moments tell: cases computed by hand, SciPy, and what must not matter."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from ssvid.evals.alignment.measures import (
    Moments,
    kendall_tau,
    nearest_moments,
    phase_accuracies,
    phase_chance,
    precisions,
    progression,
    r_squared,
    taus,
    time_to_events,
)


def moments(vectors, phase, times=None):
    vectors = np.array(vectors, dtype=np.float64).reshape(len(phase), -1)
    return Moments(vectors, np.array(phase), np.arange(len(phase)) / len(phase) if times is None else np.array(times))


def column(*values):
    return np.array(values, dtype=np.float64)[:, None]


# ---- Kendall's tau


def test_tau_of_three_moments_by_hand():
    """Neighbors of 0, 1, 2 among 0, 2, 1 are the first, the third and the second: one of three pairs is turned round."""
    assert nearest_moments(column(0, 1, 2), column(0, 2, 1)).tolist() == [0, 2, 1]
    assert kendall_tau(column(0, 1, 2), column(0, 2, 1)) == pytest.approx(1 / 3)
    assert kendall_tau(column(0, 1, 2), column(5, 6, 7)) == 0, "all have one neighbor, the first: no order is told"
    assert kendall_tau(column(0, 1, 2), column(2, 1, 0)) == pytest.approx(-1)


def test_tau_with_shared_neighbors_by_hand():
    """Neighbors 0, 0, 1: C = 2, R = 0; tau-b = 2 / sqrt(3 (3 - 1)), one of the three pairs being tied on one side."""
    assert kendall_tau(column(0, 0.1, 1), column(0, 1)) == pytest.approx(2 / math.sqrt(6))


def test_tau_is_that_of_scipy_on_neighbors_found_by_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.normal(size=(12, 3)), rng.normal(size=(9, 3))
        nearest = [min(range(9), key=lambda j: float(((x - other[j]) ** 2).sum())) for x in one]
        assert kendall_tau(one, other) == pytest.approx(kendalltau(range(12), nearest).statistic, abs=1e-12)


def test_the_place_in_the_video_alone_has_tau_1():
    videos = [column(*(np.arange(n) / n)) for n in (8, 8, 8)]
    np.testing.assert_allclose(taus(videos), 1.0)


def test_taus_are_means_over_the_other_videos():
    forward, backward = column(0, 1, 2), column(2, 1, 0)
    np.testing.assert_allclose(taus([forward, forward.copy(), backward]), [0, 0, -1])
    assert np.isnan(taus([forward])).all()


def test_tau_does_not_change_under_turns_shifts_and_one_scale():
    rng = np.random.default_rng(1)
    one, other, turn = rng.normal(size=(10, 4)), rng.normal(size=(10, 4)), np.linalg.qr(rng.normal(size=(4, 4)))[0]
    moved = [3 * x @ turn + 7 for x in (one, other)]
    assert kendall_tau(*moved) == kendall_tau(one, other)


# ---- average precision


def test_precision_by_hand():
    """Of the moments at 0 (phase 0) and 10 (phase 1), the two nearest of the others are (0: 0, 1: 1) and (9: 1, 11: 1)."""
    one = moments([0, 10], [0, 1])
    others = [moments([0, 9], [0, 1]), moments([1, 11], [1, 1])]
    assert precisions([one, *others], 2)[0] == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert precisions([one, *others], 1)[0] == pytest.approx(1.0)
    assert precisions([one, *others], 99)[0] == pytest.approx((1 / 4 + 3 / 4) / 2), "all there are"
    assert np.isnan(precisions([one], 2)).all()


def test_moments_of_the_own_video_are_no_neighbors():
    own, far = moments([0, 0, 0, 0], [0, 0, 0, 0]), moments([50, 60], [1, 1])
    assert precisions([own, far], 1).tolist() == [0, 0]


# ---- phases


def test_phases_are_learned_from_train_and_told_of_test():
    train = [moments([0, 0.1, 5, 5.1], [0, 0, 1, 1]), moments([0.2, 4.9, 5], [0, 1, 1])]
    test = [moments([0, 5, 5], [0, 1, 0]), moments([5.2], [1])]
    np.testing.assert_allclose(phase_accuracies(train, test), [2 / 3, 1])
    assert phase_chance(train, test) == pytest.approx((1 / 3 + 1) / 2), "most moments of train are of phase 1"


def test_one_phase_alone_is_said_always():
    train, test = [moments([0, 1], [2, 2])], [moments([0, 1], [2, 3])]
    assert phase_accuracies(train, test).tolist() == [0.5]


# ---- progression


def test_events_are_where_a_phase_begins():
    one = moments([0, 0, 0, 0], [0, 0, 1, 2], [0.0, 0.2, 0.5, 0.8])
    found = time_to_events(one)
    assert set(found) == {1, 2}
    np.testing.assert_allclose(found[1], [0.5, 0.3, 0.0, -0.3])
    np.testing.assert_allclose(found[2], [0.8, 0.6, 0.3, 0.0])


def test_r_squared_is_1_where_the_vector_is_the_time_to_the_event_and_0_where_it_is_none():
    rng = np.random.default_rng(0)

    def made(knows):
        videos = []
        for _ in range(6):
            begin = int(rng.integers(3, 7))
            phase, times = (np.arange(10) >= begin).astype(int), np.arange(10) / 10
            vector = times - times[begin] if knows else np.ones(10)
            videos.append(moments(2 * vector + 3, phase, times))
        return videos

    assert r_squared(progression(made(True), made(True))) == pytest.approx(1)
    assert -0.2 < r_squared(progression(made(False), made(False))) <= 0, "the mean of train is said"


def test_r_squared_by_hand():
    """Learned: y = x exactly (0.5, 0, -0.5 at 0.5, 0, -0.5). Test has the same times, and vectors that are 0.1 too large: the sum
    of squared errors is 3 * 0.01, that of distances to the mean 0.5.
    """
    train = [moments([0.5, 0, -0.5], [0, 1, 1], [0, 0.5, 1.0])]
    test = [moments([0.6, 0.1, -0.4], [0, 1, 1], [0, 0.5, 1.0])]
    assert r_squared(progression(train, test)) == pytest.approx(1 - 0.03 / 0.5)
    wild = [moments([60, 0, 40], [0, 1, 1], [0, 0.5, 1.0])]
    assert r_squared(progression(train, wild)) == -1, "far worse than the mean"


def test_r_squared_of_some_videos_is_that_of_these_alone():
    rng = np.random.default_rng(3)
    train, test = ([moments(rng.normal(size=(8, 2)), np.arange(8) >= 4) for _ in range(4)] for _ in range(2))
    parts = progression(train, test)
    alone = progression(train, [test[2]])
    errors, spreads = parts.errors_EV[:, 2], alone.spreads_EV[:, 0]
    np.testing.assert_allclose(errors, alone.errors_EV[:, 0])
    assert r_squared(alone) == pytest.approx(max(-1.0, 1 - float(errors[0] / spreads[0])))
    assert math.isnan(r_squared(progression(train, [moments([0, 1], [0, 0])]))), "no event in test"
