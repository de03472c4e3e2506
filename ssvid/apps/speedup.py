"""From speediness to a film that is sped up where it can be: pure arithmetic.

SpeedNet (Benaim et al., CVPR 2020, arXiv 2004.06130), section 5. V(t) is the largest factor at which the video around t still
looks natural; S(t) is V made smooth and shifted, so that the film gets the length that is wanted.

Differs: the paper leaves the length to a weight; here the shift is found by bisection, so that the length is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.linalg import solveh_banded

from ssvid.bounds import AtLeast, Between, Inside, OneOf
from ssvid.errors import DataError

_HALVINGS = 200


@dataclass(frozen=True)
class SpeedUpConfig:
    """How a video is sped up. base, num_versions: version i is played base**i times as fast, i = 0..num_versions - 1.

    threshold: a version looks natural where the probability "sped up" is below it; a half is in the middle between natural and
    twice as fast, and takes a third as fast again for natural. rule: ``first_fail``: V is the last factor
    before the first that fails; ``max``: the largest that looks natural, as published, whatever a smaller one says.
    smooth_seconds: how far V is smoothed over time.
    """

    base: Annotated[float, Between(1.01, 4)] = 1.25
    num_versions: Annotated[int, AtLeast(2)] = 11
    threshold: Annotated[float, Inside] = 0.33
    rule: Annotated[str, OneOf("first_fail", "max")] = "first_fail"
    smooth_seconds: Annotated[float, AtLeast(0)] = 0.5

    @property
    def factors(self) -> tuple[float, ...]:
        """Of the versions, rising from 1."""
        return tuple(self.base**i for i in range(self.num_versions))


def natural_factors(
    probs_VT: np.ndarray, factors: np.ndarray, threshold: float, rule: str = "first_fail"
) -> np.ndarray:
    """V(t): the largest factor at which the video still looks natural, float64 (T,), at least 1.

    Args:
        probs_VT: probability "sped up" of each version at each place. factors: of the versions, rising. rule: as
            ``SpeedUpConfig``.
    """
    factors, natural_VT = np.asarray(factors, np.float64), np.asarray(probs_VT) < threshold
    if rule == "first_fail":
        natural_VT = np.logical_and.accumulate(natural_VT, axis=0)
    return np.maximum((factors[:, None] * natural_VT).max(axis=0), 1.0)


def smooth_and_shift(V_T: np.ndarray, target: float, alpha: float, beta: float) -> np.ndarray:
    """S that is near V, is smooth, and has a mean near ``target``: the one that is best by all three, float64 (T,).

    S = argmin sum (S - V)^2 + beta (mean S - target)^2 + alpha sum (S(t+1) - S(t))^2. Differences of a constant are 0, so that
    S = (I + alpha D'D)^-1 V + c with c = (beta / T) (target - mean V) / (1 + beta / T): V smoothed, which keeps its mean, and
    then shifted. The matrix has three diagonals; it is solved in time and memory that grow with T alone.
    """
    V_T = np.asarray(V_T, np.float64)
    share = beta / len(V_T)
    return smoothed(V_T, alpha) + share * (target - V_T.mean()) / (1 + share)


def smoothed(V_T: np.ndarray, alpha: float) -> np.ndarray:
    """(I + alpha D'D)^-1 V: V with its mean, over about sqrt(alpha) places to each side."""
    V_T = np.asarray(V_T, np.float64)
    if alpha == 0 or len(V_T) < 2:
        return V_T.copy()
    diagonals_2T = np.empty((2, len(V_T)))
    diagonals_2T[0] = -alpha
    diagonals_2T[1] = 1 + 2 * alpha
    diagonals_2T[1, [0, -1]] = 1 + alpha
    return solveh_banded(diagonals_2T, V_T, check_finite=False)


def fit_length(S_T: np.ndarray, num_out: int) -> np.ndarray:
    """The speeds max(1, S(t) + c) at which T frames become ``num_out``: exactly so many, c is found by bisection.

    The way from a frame to the next takes 1 / speed frames of the film: sum over the first T - 1 of 1 / speed = num_out - 1.

    Raises:
        DataError: ``num_out`` is not between 2 and T.
    """
    S_T = np.asarray(S_T, np.float64)
    count = len(S_T)
    if not 2 <= num_out <= count:
        raise DataError(
            f"a film of {num_out} frames cannot be made of {count} frames by speeding up: it must have at least 2 and at most "
            f"{count}. Ask for another length, --seconds or --speed-up."
        )
    lowest, highest = 1 - S_T.max(), (count - 1) / (num_out - 1) - S_T.min()
    for _ in range(_HALVINGS):
        middle = (lowest + highest) / 2
        if middle in (lowest, highest):
            break
        is_long = (1 / np.maximum(1.0, S_T[:-1] + middle)).sum() > num_out - 1
        lowest, highest = (middle, highest) if is_long else (lowest, middle)
    return np.maximum(1.0, S_T + (lowest + highest) / 2)


def frame_map(speeds_T: np.ndarray, num_out: int) -> np.ndarray:
    """Which frame of the video each frame of the film shows: int64 (num_out,), strictly rising, from the first to the last.

    The frame at t is shown at y(t) = sum over u < t of 1 / S(u); film frame j shows the one that is nearest to y^-1(j).

    Args:
        speeds_T: as ``fit_length`` gives them, at least 1.
    """
    count = len(speeds_T)
    shown_T = np.concatenate([[0.0], np.cumsum(1 / np.asarray(speeds_T[:-1], np.float64))])
    shown_T *= (num_out - 1) / shown_T[-1]
    exact = np.interp(np.arange(num_out), shown_T, np.arange(count))
    # Neighbors are at least 1 apart but for rounding, so that these two lines move next to nothing.
    rising = np.maximum.accumulate(np.floor(exact + 0.5).astype(np.int64) - np.arange(num_out))
    return np.clip(rising, 0, count - num_out) + np.arange(num_out)


def uniform_map(count: int, num_out: int) -> np.ndarray:
    """The same where the whole video is sped up alike."""
    return frame_map(np.full(count, (count - 1) / max(num_out - 1, 1)), num_out)


def with_every_shot(frames: np.ndarray, shots: np.ndarray, count: int) -> np.ndarray:
    """The same frames, but each shot has at least one: shots that a film would pass over take it from the one with the most.

    Args:
        frames: strictly rising, of a film from the first to the last of ``count`` frames; at least as many as shots. shots: number
            of the first frame of each, rising from 0.
    """
    ends = [*shots[1:], count]
    counts = np.histogram(frames, [*shots, count])[0]
    kept = counts.copy()
    while (kept == 0).any():
        kept[kept.argmax()] -= 1
        kept[kept.argmin()] += 1
    shown = []
    for place, (start, end) in enumerate(zip(shots, ends, strict=True)):
        own, num = frames[(frames >= start) & (frames < end)], int(kept[place])
        if num == counts[place]:
            shown.append(own)
        elif num > 1:
            shown.append(np.rint(np.linspace(start, end - 1, num)).astype(np.int64))
        else:  # the film keeps the first frame of the video and its last one
            shown.append(np.array([start if place == 0 else end - 1 if end == count else (start + end - 1) // 2]))
    return np.concatenate(shown)
