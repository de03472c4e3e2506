"""What vectors of moments tell of an action: Kendall's tau, phase classification and progression, average precision.

Pure functions of numpy arrays, of videos of one class. Sources: Dwibedi et al., Temporal Cycle-Consistency Learning, CVPR 2019,
section 4.3; AP@K of Chen et al., Frame-wise Action Representations for Long Videos, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import kendalltau
from sklearn.linear_model import LinearRegression
from sklearn.svm import SVC

LEAST_R2 = -1.0


class Moments(NamedTuple):
    """The moments of one video. vectors_ND: float64. phase_N: the number of the phase that each is of. times_N: in shares of the
    video, rising.
    """

    vectors_ND: np.ndarray
    phase_N: np.ndarray
    times_N: np.ndarray


def nearest_moments(one_ND: np.ndarray, other_MD: np.ndarray) -> np.ndarray:
    """For each moment of a video, the moment of another one whose vector is nearest, int64 (N,); of equals the first."""
    return np.asarray(cdist(one_ND, other_MD, "sqeuclidean").argmin(axis=1))


def kendall_tau(one_ND: np.ndarray, other_MD: np.ndarray) -> float:
    """How far the moments of another video that are nearest to those of a video come in the same order, tau-b in [-1, 1].

    Differs: where all have one neighbor tau is not defined, and counts as 0; the authors' script leaves such pairs out, so that
    a network to which all moments are alike has no number.
    """
    tau = float(kendalltau(np.arange(len(one_ND)), nearest_moments(one_ND, other_MD)).statistic)
    return 0.0 if math.isnan(tau) else tau


def taus(videos: Sequence[np.ndarray]) -> np.ndarray:
    """For each video the mean tau of its moments among those of every other video: float64, NaN where there is no other."""
    pairs = [[kendall_tau(one, other) for other in videos if other is not one] for one in videos]
    return np.array([np.mean(of) if of else math.nan for of in pairs], dtype=np.float64)


def precisions(videos: Sequence[Moments], k: int) -> np.ndarray:
    """AP@K of each video: of the K moments of all other videos that are nearest to one of its own, the share that is of the same
    phase, mean over its moments. Where the others have fewer than K, all are taken. NaN where there is no other.
    """
    found = []
    for one in videos:
        others = [other for other in videos if other is not one]
        if not others:
            found.append(math.nan)
            continue
        phase_M = np.concatenate([other.phase_N for other in others])
        distance_NM = cdist(one.vectors_ND, np.concatenate([other.vectors_ND for other in others]), "sqeuclidean")
        nearest_NK = np.argsort(distance_NM, axis=1, kind="stable")[:, :k]
        found.append(float((phase_M[nearest_NK] == one.phase_N[:, None]).mean()))
    return np.array(found, dtype=np.float64)


def phase_accuracies(train: Sequence[Moments], test: Sequence[Moments]) -> np.ndarray:
    """Of each test video the share of moments whose phase a support vector machine tells (radial basis functions, C = 1).

    Of one phase alone there is nothing to learn: then that phase is said.
    """
    x_ND, y_N = np.concatenate([one.vectors_ND for one in train]), np.concatenate([one.phase_N for one in train])
    if len(np.unique(y_N)) == 1:
        return np.array([float((one.phase_N == y_N[0]).mean()) for one in test])
    machine = SVC().fit(x_ND, y_N)
    return np.array([float((machine.predict(one.vectors_ND) == one.phase_N).mean()) for one in test])


def phase_chance(train: Sequence[Moments], test: Sequence[Moments]) -> float:
    """Accuracy of always saying the phase that most moments of train are of."""
    phases, counts = np.unique(np.concatenate([one.phase_N for one in train]), return_counts=True)
    return float(np.mean([(one.phase_N == phases[counts.argmax()]).mean() for one in test]))


def time_to_events(one: Moments) -> dict[int, np.ndarray]:
    """For each phase but the first of the video, how long it still is until that phase begins: (N,) in shares of the video,
    negative afterwards.
    """
    begins = np.flatnonzero(np.diff(one.phase_N)) + 1
    found: dict[int, np.ndarray] = {}
    for place in begins:
        found.setdefault(int(one.phase_N[place]), one.times_N[place] - one.times_N)
    return found


class Progression(NamedTuple):
    """What a regression says of the test videos, for each event: the squared errors of each video, and those of the mean."""

    errors_EV: np.ndarray
    spreads_EV: np.ndarray


def progression(train: Sequence[Moments], test: Sequence[Moments]) -> Progression:
    """A linear regression for each event that occurs in train and in test: vector -> time until the event.

    Of R^2 = 1 - sum of squared errors / sum of squared distances to the mean over test, the parts of each video; 0 for a video
    that lacks the event.
    """
    known = [[time_to_events(one) for one in side] for side in (train, test)]
    events = sorted(set().union(*known[0]) & set().union(*known[1]))
    errors_EV, spreads_EV = (np.zeros((len(events), len(test))) for _ in range(2))
    for e, event in enumerate(events):
        learned = [i for i, of in enumerate(known[0]) if event in of]
        scored = [i for i, of in enumerate(known[1]) if event in of]
        x_ND = np.concatenate([train[i].vectors_ND for i in learned])
        model = LinearRegression().fit(x_ND, np.concatenate([known[0][i][event] for i in learned]))
        mean = float(np.concatenate([known[1][i][event] for i in scored]).mean())
        for i in scored:
            wanted_N = known[1][i][event]
            errors_EV[e, i] = np.square(model.predict(test[i].vectors_ND) - wanted_N).sum()
            spreads_EV[e, i] = np.square(wanted_N - mean).sum()
    return Progression(errors_EV, spreads_EV)


def r_squared(parts: Progression, places: np.ndarray | None = None) -> float:
    """Mean over the events of R^2 over some of the test videos; NaN where there is no event.

    Differs: an R^2 below -1, far worse than saying the mean, counts as -1.
    """
    chosen = slice(None) if places is None else places
    errors_E, spreads_E = (part[:, chosen].sum(axis=1) for part in parts)
    held_E = spreads_E > 0
    if not held_E.any():
        return math.nan
    return float(np.maximum(1 - errors_E[held_E] / spreads_E[held_E], LEAST_R2).mean())


def by_class(labels: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Places of the videos of each class, the classes sorted."""
    names = np.array(labels, dtype=object)
    return {label: np.flatnonzero(names == label) for label in sorted(set(labels))}
