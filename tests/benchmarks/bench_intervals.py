"""How often the intervals of shares and of paired differences hold the truth, by simulation.

Usage: python -m tests.benchmarks.bench_intervals [--draws 2000] > table.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from ssvid.intervals import difference_interval, share_interval

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


def _table(title: str, cells: Iterator[list[str]], head: list[str]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(line)} |" for line in cells)]
    return "\n".join([title, "", *lines, ""])


def _head(first: str) -> list[str]:
    return ["videos", first, "no groups", *(f"groups, correlation {a:g}" for a in ALIKE if a is not None)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
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
