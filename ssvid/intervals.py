"""How sure a number is: intervals for shares, paired differences and means, over videos that may come in groups.

Everything here is about the choice of test videos, for networks as they are trained. Videos of one group (one recording,
one person) are alike, so that a hundred of them may say no more than twenty. Nothing is drawn at random but in
``mean_interval``.

Coverage was simulated: see docs/results/intervals.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, expit, logit, stdtrit

Interval = tuple[float, float]
LEVEL = 0.95
METHOD = "Clopper-Pearson at the effective number of videos (Korn and Graubard 1998); differences by MOVER (Zou 2008)"
RESAMPLED = "jackknife over test videos and their groups (Tukey 1958), Student's t on the logit scale"
NUM_DRAWS = 2000
_Z95 = 1.959963984540054  # of a standard normal: 97.5 % lie below
# Half of a typical group, right and wrong in equal parts, is added where spread is estimated: groups that agree in all that was
# seen may still differ in what was not. Ten right answers from two recordings are then two, not ten.
_PSEUDO_GROUPS = 0.5


def exact_interval(share: float, num: float, level: float = LEVEL) -> Interval:
    """Of a share among ``num`` independent trials, which need not be whole (Clopper and Pearson 1934).

    It holds at least as often as it says for every share, those near 0 and 1 too: 90 of 90 is [0.96, 1].
    """
    if num <= 0:
        return 0.0, 1.0
    right, tail = share * num, (1 - level) / 2
    wrong = num - right
    low = float(betaincinv(right, wrong + 1, tail)) if right > 1e-9 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 1e-9 else 1.0
    return low, high


def share_interval(
    values_N: np.ndarray,
    *,
    groups_N: np.ndarray | None = None,
    weights_N: np.ndarray | None = None,
    level: float = LEVEL,
) -> Interval:
    """Of the mean of values in [0, 1]: right or wrong, or the share of a video's views that is right.

    ``exact_interval`` at the number of independent videos that would spread as much: n for n videos that are right or wrong
    by themselves, the number of groups where each group is right or wrong as a whole, more where views are averaged.

    Args:
        groups_N: what each video belongs to; each is a group of its own where None. weights_N: of each video; equal where
            None. level: how often it should hold.
    """
    if np.size(values_N) == 0:
        return math.nan, math.nan
    found = _spread(values_N, groups_N, weights_N, level)
    return exact_interval(found.mean, found.effective, level)


def difference_interval(
    values_N: np.ndarray,
    *,
    groups_N: np.ndarray | None = None,
    weights_N: np.ndarray | None = None,
    level: float = LEVEL,
) -> Interval:
    """Of the mean of values in [-1, 1]: what one network scored on a video, minus what another did.

    The gains and the losses are two shares with an interval each; these are put together by the method of variance
    estimates recovery (Zou and Donner 2008, with the covariance of the two, as Newcombe 1998 has it for paired shares).
    Two networks that never differed on 90 videos give [-0.04, 0.04]. Arguments as of ``share_interval``.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if values.size == 0:
        return math.nan, math.nan
    gain, loss = (_spread(part, groups_N, weights_N, level) for part in (np.maximum(values, 0), np.maximum(-values, 0)))
    (gain_low, gain_high), (loss_low, loss_high) = (exact_interval(s.mean, s.effective, level) for s in (gain, loss))
    alike = _correlation(gain.sums_G, loss.sums_G)
    mean = gain.mean - loss.mean
    down = _hypotenuse(gain.mean - gain_low, loss_high - loss.mean, alike)
    up = _hypotenuse(gain_high - gain.mean, loss.mean - loss_low, alike)
    return max(mean - down, -1.0), min(mean + up, 1.0)


def mean_interval(
    values_N: np.ndarray,
    *,
    weights_N: np.ndarray | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Of the mean of values of any size, such as errors: bootstrap-t over videos (Efron 1982)."""
    values = np.asarray(values_N, dtype=np.float64)
    weights = _shares(weights_N, values.size)
    mean = float(weights @ values)
    error = float(np.sqrt(((weights * (values - mean)) ** 2).sum()))
    if values.size < 2 or error == 0.0:
        return mean, mean
    draws_RN = np.random.default_rng([seed, values.size]).multinomial(
        values.size, np.full(values.size, 1 / values.size), NUM_DRAWS
    )
    total_R = draws_RN @ weights
    mean_R = (draws_RN @ (weights * values)) / total_R
    squares = weights**2
    spread_R = (
        draws_RN @ (squares * values**2)
        - 2 * mean_R * (draws_RN @ (squares * values))
        + mean_R**2 * (draws_RN @ squares)
    )
    error_R = np.sqrt(np.maximum(spread_R, 0)) / total_R
    drawn = error_R > 1e-9 * error
    t_R = (mean_R[drawn] - mean) / error_R[drawn]
    low, high = np.quantile(t_R, [(1 - level) / 2, (1 + level) / 2])
    return mean - float(high) * error, mean - float(low) * error


def grouped_mean_interval(
    values_N: np.ndarray,
    *,
    groups_N: np.ndarray | None = None,
    weights_N: np.ndarray | None = None,
    low: float = -1.0,
    level: float = LEVEL,
) -> Interval:
    """Of a mean that lies between ``low`` and 1, over few groups: of values of any size, such as pseudo-values.

    Student's t of the jackknife over groups (Tukey 1958), on the logit scale, so that it never leaves the range. It needs no
    draws, and with 4 to 30 groups it holds more often than the percentile, BCa and expanded percentile bootstraps. Where no
    group differs from another, their spread is unknown: then it is that of as many right or wrong answers.

    Args:
        values_N, groups_N, weights_N, level: as of ``share_interval``.
        low: 0 for a number that is a share, -1 for a difference or a decay.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if values.size == 0:
        return math.nan, math.nan
    weights = _shares(weights_N, values.size)
    codes = np.arange(values.size) if groups_N is None else np.unique(groups_N, return_inverse=True)[1].reshape(-1)
    weights_G, sums_G = np.bincount(codes, weights), np.bincount(codes, weights * values)
    num = weights_G.size
    if num < 2:
        return low, 1.0  # one group says nothing of others
    without_G = (sums_G.sum() - sums_G) / (1 - weights_G)
    error = math.sqrt((num - 1) * float(without_G.var())) / (1 - low)
    place = (float(sums_G.sum()) - low) / (1 - low)
    if error < 1e-12 or not 0 < place < 1:
        found = exact_interval(min(max(place, 0.0), 1.0), num, level)
    else:
        reach = float(stdtrit(num - 1, (1 + level) / 2)) * error / (place * (1 - place))
        found = (float(expit(logit(place) - reach)), float(expit(logit(place) + reach)))
    return low + (1 - low) * found[0], low + (1 - low) * found[1]


def pseudo_values(statistic: Callable[[np.ndarray], float], num_units: int) -> np.ndarray:
    """How far each unit moves a number that is no mean of its units, as terms whose mean is the number (jackknife).

    Term i is the whole, plus (n - 1) times how much it lies above what comes out without unit i, less the mean of all these:
    a mean gives the units' own values back. By them such a number is paired and summarized as a mean is.

    Args:
        statistic: of the numbers of the units that it is made of. num_units: n.

    Returns:
        float64 (n).
    """
    every = np.arange(num_units)
    whole = statistic(every)
    if num_units < 2:
        return np.full(num_units, whole, dtype=np.float64)
    without = np.array([statistic(np.delete(every, i)) for i in every], dtype=np.float64)
    return whole + (num_units - 1) * (without.mean() - without)


def auc_interval(auc: float, num_positive: float, num_negative: float) -> tuple[float, float]:
    """95 % score interval of an area under the ROC curve over so many positive and negative cases.

    Hanley and McNeil 1982 give the variance that an area of A has; the interval holds every A whose standard deviation
    reaches the area found (method 5 of Newcombe, Statistics in Medicine 25, 2006). It is proper at 0 and 1 too. Where
    cases come from the same video, give the number of videos: then it is wider than needed, never narrower.
    """
    if num_positive < 1 or num_negative < 1:
        return 0.0, 1.0

    def is_inside(area: float) -> bool:
        return abs(auc - area) <= _Z95 * math.sqrt(_auc_variance(area, num_positive, num_negative))

    return _edge(is_inside, auc, 0.0), _edge(is_inside, auc, 1.0)


def _auc_variance(area: float, num_positive: float, num_negative: float) -> float:
    half = (num_positive + num_negative) / 2 - 1  # Newcombe puts the mean of both numbers in place of each
    spread = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    return area * (1 - area) * spread / (num_positive * num_negative)


def _edge(holds: Callable[[float], bool], start: float, end: float) -> float:
    """Where, on the way from ``start``, a condition stops to hold; ``end`` where it holds all the way."""
    inside, outside = start, end
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return outside


class _Spread(NamedTuple):
    """A mean of values in [0, 1]: how many independent yes-or-no videos would spread as much, and each group's part."""

    mean: float
    effective: float
    sums_G: np.ndarray


def _spread(values_N: np.ndarray, groups_N: np.ndarray | None, weights_N: np.ndarray | None, level: float) -> _Spread:
    """Without groups, n right or wrong values of equal weight are n, to the last digit."""
    values = np.asarray(values_N, dtype=np.float64)
    weights = _shares(weights_N, values.size)
    codes = np.arange(values.size) if groups_N is None else np.unique(groups_N, return_inverse=True)[1].reshape(-1)
    weights_G = np.bincount(codes, weights)
    added = float((weights_G**2).sum())  # the weight of a typical group
    mean = float(weights @ values)
    shrunk = (mean + _PSEUDO_GROUPS * added / 2) / (1 + _PSEUDO_GROUPS * added)
    sums_G = np.bincount(codes, weights * (values - shrunk))
    pseudo = _PSEUDO_GROUPS / 2 * added**2 * (shrunk**2 + (1 - shrunk) ** 2)
    variance = (float((sums_G**2).sum()) + pseudo) / (1 + _PSEUDO_GROUPS * added) ** 2
    effective = shrunk * (1 - shrunk) / variance / (1 + _PSEUDO_GROUPS * added)
    return _Spread(mean, effective * _few_groups(values.size, weights_G.size, level), sums_G)


def _few_groups(num_values: int, num_groups: int, level: float) -> float:
    """A spread that was estimated from few groups is itself unsure: the square of the ratio of Student's quantiles."""
    if num_groups == num_values:
        return 1.0
    several, few = stdtrit([num_values - 1, max(num_groups - 1, 1)], (1 + level) / 2)
    return float((several / few) ** 2)


def _shares(weights_N: np.ndarray | None, count: int) -> np.ndarray:
    weights = np.ones(count) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    return weights / weights.sum()


def _correlation(a_G: np.ndarray, b_G: np.ndarray) -> float:
    size = math.sqrt(float(a_G @ a_G) * float(b_G @ b_G))
    return float(a_G @ b_G) / size if size > 0 else 0.0


def _hypotenuse(a: float, b: float, correlation: float) -> float:
    """Of two distances from the mean that are subtracted from one another."""
    return math.sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0))
