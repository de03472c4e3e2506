"""How often the intervals of shares, of paired differences and of numbers over few sequences hold the truth, by simulation.

Usage: python -m tests.benchmarks.bench_intervals [--draws 2000] [--only sequences] > table.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from ssvid.intervals import Interval, difference_interval, grouped_mean_interval, pseudo_values, share_interval

GROUP_SIZE = 5  # UCF101 cuts about five test clips from one recording
COUNTS, SHARES, ALIKE = (30, 90, 200, 1000, 4000), (0.02, 0.1, 0.5, 0.9, 0.99, 1.0), (None, 0.0, 0.3, 0.6)


def answers(rng: np.random.Generator, num: int, share: float, alike: float) -> np.ndarray:
    """Right or wrong for videos in groups of five, with that correlation between two videos of one group.

    Each video takes its group's own answer with probability sqrt(alike), and otherwise an answer of its own.
    """
    of_groups = np.repeat(rng.random(num // GROUP_SIZE) < share, GROUP_SIZE)
    return np.where(rng.random(num) < np.sqrt(alike), of_groups, rng.random(num) < share)


def paired_answers(
    rng: np.random.Generator, num: int, share: float, other: float, alike: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two networks on the same videos, both right or wrong by how hard the video is; and the groups."""
    groups = np.repeat(np.arange(num // GROUP_SIZE), GROUP_SIZE)
    of_groups = rng.random((2, num // GROUP_SIZE))[:, groups]
    own = rng.random((2, num))
    common = rng.random(num) < 0.5  # half of the videos are as hard for both
    hard = np.where(rng.random(num) < np.sqrt(alike), of_groups, own)
    hard[1] = np.where(common, hard[0], hard[1])
    return hard[0] < share, hard[1] < other, groups


def coverage_of_shares(
    num: int, share: float, alike: float | None, *, draws: int, seed: int, counted_in_groups: bool = True
) -> float:
    """How often the interval holds the share. alike: correlation within groups; None where the videos have none."""
    rng = np.random.default_rng([seed, int(1000 * share)])
    groups = None if alike is None or not counted_in_groups else np.repeat(np.arange(num // GROUP_SIZE), GROUP_SIZE)
    found = (share_interval(answers(rng, num, share, alike or 0.0), groups_N=groups) for _ in range(draws))
    return _held(found, share, draws)


def coverage_of_differences(
    num: int, share: float, other: float, alike: float | None, *, draws: int, seed: int
) -> float:
    """How often the interval of a paired difference holds it."""
    rng = np.random.default_rng([seed, int(1000 * share), int(1000 * other)])
    return _held(_differences(rng, num, share, other, alike, draws), share - other, draws)


def _differences(
    rng: np.random.Generator, num: int, share: float, other: float, alike: float | None, draws: int
) -> Iterator[tuple[float, float]]:
    for _ in range(draws):
        a, b, groups = paired_answers(rng, num, share, other, alike or 0.0)
        yield difference_interval(a.astype(float) - b, groups_N=None if alike is None else groups)


def _held(found: Iterator[tuple[float, float]], truth: float, draws: int) -> float:
    return sum(low - 1e-9 <= truth <= high + 1e-9 for low, high in found) / draws


# ---- numbers over few sequences

NUM_SEQUENCES = (4, 6, 10, 20, 30)
NUM_CLASSES, NUM_JOINTS = 6, 15
RARITY = np.array([1, 0.9, 0.8, 0.6, 0.4, 0.3])  # share of sequences that hold a class
SIZES = np.array([20, 6, 4, 2, 1, 0.5])  # of a class where it is


class Kind(NamedTuple):
    """A number over sequences. draw: what is known of so many sequences, a row each. statistic: of the sum of rows (any
    number of leading axes). low: the least that it can be.
    """

    draw: Callable[[np.random.Generator, int], np.ndarray]
    statistic: Callable[[np.ndarray], np.ndarray]
    low: float = 0.0

    def of(self, rows_SN: np.ndarray) -> float:
        return float(self.statistic(rows_SN.sum(axis=0)))


def _accuracies(rng: np.random.Generator, level: np.ndarray, num: int, between: float, within: float) -> np.ndarray:
    """Of each sequence and class (or joint): some sequences are hard, and in each of them some classes."""
    shape = (num, len(level))
    return 1 / (1 + np.exp(-(level + rng.normal(0, between, (num, 1)) + rng.normal(0, within, shape))))


def confusions(rng: np.random.Generator, num: int) -> np.ndarray:
    """Confusions of six classes, four of which many sequences do not hold."""
    here = rng.random((num, NUM_CLASSES)) < RARITY
    sizes = np.exp(rng.normal(0, 0.8, here.shape)) * SIZES * here
    right = _accuracies(rng, np.array([3, 1.5, 1, 0.5, 0, -0.5]), num, 0.8, 0.5)[..., None]
    elsewhere = rng.dirichlet(np.full(NUM_CLASSES, 0.7), here.shape)
    return (sizes[..., None] * (right * np.eye(NUM_CLASSES) + (1 - right) * elsewhere)).reshape(num, -1)


def mean_iou(rows: np.ndarray) -> np.ndarray:
    table = rows.reshape(*rows.shape[:-1], NUM_CLASSES, NUM_CLASSES)
    right = np.diagonal(table, axis1=-2, axis2=-1)
    union = table.sum(axis=-1) + table.sum(axis=-2) - right
    return np.nanmean(np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0), axis=-1)


def joint_counts(level: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Joints that are right and all, of sequences of 14 to 39 frames; a joint stays right or wrong for five frames."""

    def draw(rng: np.random.Generator, num: int) -> np.ndarray:
        runs = rng.integers(14, 40, (num, 1)) // 5 * (rng.random((num, NUM_JOINTS)) < 0.9)
        right = rng.binomial(runs, _accuracies(rng, level + np.linspace(-1, 1.5, NUM_JOINTS), num, 1.0, 0.5))
        return 5.0 * np.concatenate([right, runs], axis=1)

    return draw


def mean_pck(rows: np.ndarray) -> np.ndarray:
    right, runs = rows[..., :NUM_JOINTS], rows[..., NUM_JOINTS:]
    return np.nanmean(np.divide(right, runs, out=np.full(right.shape, np.nan), where=runs > 0), axis=-1)


def objects(rng: np.random.Generator, num: int) -> np.ndarray:
    """Sums of J over one to five objects of a sequence, and their number."""
    count = rng.integers(1, 6, num)
    j = _accuracies(rng, np.full(1, 0.7), num, 1.0, 0.0)[:, 0]
    return np.stack([np.clip(j + rng.normal(0, 0.1, num) / np.sqrt(count), 0, 1) * count, count], axis=1)


def ratio(rows: np.ndarray) -> np.ndarray:
    return rows[..., 0] / rows[..., 1]


def pairs_of_joints(rng: np.random.Generator, num: int) -> np.ndarray:
    """Two networks on the same sequences: both find the same ones hard."""
    seeds = rng.integers(0, 2**32, 2)
    return np.concatenate([joint_counts(level)(np.random.default_rng(seeds), num) for level in (0.0, 0.3)], axis=1)


def difference_of_pck(rows: np.ndarray) -> np.ndarray:
    half = 2 * NUM_JOINTS
    return mean_pck(rows[..., half:]) - mean_pck(rows[..., :half])


KINDS = {
    "mean IoU": Kind(confusions, mean_iou),
    "PCK": Kind(joint_counts(0.0), mean_pck),
    "PCK, hardly ever right": Kind(joint_counts(-3.5), mean_pck),
    "PCK, nearly always right": Kind(joint_counts(3.0), mean_pck),
    "J over objects": Kind(objects, ratio),
    "difference of two PCK": Kind(pairs_of_joints, difference_of_pck, -1.0),
}


def jackknife(kind: Kind, rows_SN: np.ndarray) -> Interval:
    """The interval that ssvid gives."""
    values = pseudo_values(lambda at: kind.of(rows_SN[at]), len(rows_SN))
    return grouped_mean_interval(values, low=kind.low)


def percentiles(kind: Kind, rows_SN: np.ndarray) -> Interval:
    """Bootstrap, percentile: sequences are drawn anew, and the middle 95 % of what comes out is the interval."""
    low, high = np.quantile(_drawn_again(kind, rows_SN), [0.025, 0.975])
    return float(low), float(high)


def bca(kind: Kind, rows_SN: np.ndarray) -> Interval:
    """Bootstrap, corrected for bias and for a spread that depends on the value (Efron 1987)."""
    drawn, whole, total = _drawn_again(kind, rows_SN), kind.of(rows_SN), rows_SN.sum(axis=0)
    bias = ndtri(np.clip(((drawn < whole).mean() + (drawn <= whole).mean()) / 2, 1e-3, 1 - 1e-3))
    apart = -(without := kind.statistic(total - rows_SN)) + without.mean()
    skew = (apart**3).sum() / (6 * max((apart**2).sum(), 1e-30) ** 1.5)
    moved = bias + ndtri([0.025, 0.975])
    low, high = np.quantile(drawn, ndtr(bias + moved / (1 - skew * moved)))
    return float(low), float(high)


def _drawn_again(kind: Kind, rows_SN: np.ndarray, num_draws: int = 2000) -> np.ndarray:
    num = len(rows_SN)
    draws_RS = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), num_draws)
    found_R = kind.statistic(draws_RS @ rows_SN)
    return found_R[np.isfinite(found_R)]


METHODS = {"bootstrap, percentile": percentiles, "bootstrap, BCa": bca, "jackknife t, logit": jackknife}


@cache
def truth_of(kind: Kind, num: int = 50_000) -> float:
    """What a number comes to over all sequences that there could be."""
    return kind.of(kind.draw(np.random.default_rng(1), num))


def coverage_over_sequences(
    kind: Kind, num: int, *, draws: int, method: Callable[[Kind, np.ndarray], Interval] = jackknife
) -> tuple[float, float]:
    """How often the interval of a number over so many sequences holds it, and how wide it is in the mean."""
    drawn = (kind.draw(np.random.default_rng([seed, num]), num) for seed in range(draws))
    found = np.array([method(kind, rows_SN) for rows_SN in drawn])
    return _held(iter(found.tolist()), truth_of(kind), draws), float((found[:, 1] - found[:, 0]).mean())


def _sequence_cells(draws: int) -> Iterator[list[str]]:
    for name, kind in KINDS.items():
        for num in NUM_SEQUENCES:
            found = [coverage_over_sequences(kind, num, draws=draws, method=method) for method in METHODS.values()]
            yield [name, f"{truth_of(kind):.2f}", str(num), *(f"{held:.3f} ({width:.2f})" for held, width in found)]


def _table(title: str, cells: Iterator[list[str]], head: list[str]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(line)} |" for line in cells)]
    return "\n".join([title, "", *lines, ""])


def _head(first: str) -> list[str]:
    return ["videos", first, "no groups", *(f"groups, correlation {a:g}" for a in ALIKE if a is not None)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", choices=["sequences"], help="leave the shares and their differences out")
    options = parser.parse_args()
    draws = options.draws
    print(_table("Few sequences:", _sequence_cells(draws), ["number", "truth", "sequences", *METHODS]), flush=True)
    if options.only:
        return
    shares = (
        [str(n), f"{s:g}", *(f"{coverage_of_shares(n, s, a, draws=draws, seed=n):.3f}" for a in ALIKE)]
        for n in COUNTS
        for s in SHARES
    )
    print(_table("Shares:", shares, _head("share")))
    pairs = ((0.1, 0.02), (0.5, 0.5), (0.5, 0.4), (0.9, 0.88), (0.99, 0.97), (1.0, 0.98), (1.0, 1.0))
    differences = (
        [
            str(n),
            f"{p:g} and {q:g}",
            *(f"{coverage_of_differences(n, p, q, a, draws=draws, seed=n):.3f}" for a in ALIKE),
        ]
        for n in COUNTS
        for p, q in pairs
    )
    print(_table("Paired differences:", differences, _head("shares")))


if __name__ == "__main__":
    main()
