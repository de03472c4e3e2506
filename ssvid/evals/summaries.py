"""Several folds and seeds as one number: mean, spread, and an interval that knows that folds and seeds share videos."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssvid.errors import DataError
from ssvid.evals.results import Interval, ResultRow

_CELLS_AT_ONCE = 10_000_000  # bounds the memory of the bootstrap: 8 bytes each


@dataclass(frozen=True)
class Summary:
    """One metric of one network over all its folds and seeds.

    value: mean over folds of the mean over seeds. over_folds, over_seeds: standard deviations (n - 1) of the folds' means
    and of the seeds' means; None with fewer than two. interval: 95 %, bootstrap over videos, each with all that was said
    of it in every fold and seed. values: fold -> seed -> value. chance: mean over folds.
    """

    name: str
    metric: str
    value: float
    interval: Interval
    over_folds: float | None
    over_seeds: float | None
    values: Mapping[int, Mapping[int, float]]
    num_videos: int
    chance: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``results.json``."""
        return {
            "name": self.name,
            "metric": self.metric,
            "value": self.value,
            "interval95": list(self.interval),
            "std_over_folds": self.over_folds,
            "std_over_seeds": self.over_seeds,
            "values": {str(fold): {str(s): v for s, v in seeds.items()} for fold, seeds in self.values.items()},
            "num_videos": self.num_videos,
            "chance": self.chance,
        }


def fold_of(row: ResultRow) -> int:
    """The official split that a row was measured on; 0 where the data has only one."""
    return int(row.context.get("fold", 0))


def seed_of(row: ResultRow) -> int:
    """The seed of the run that a row belongs to."""
    return int(row.context.get("seed", 0))


def summarize(rows: Iterable[ResultRow], *, num_bootstrap: int = 2000, seed: int = 0) -> list[Summary]:
    """One summary for each network and metric that was measured on more than one fold or seed.

    Raises:
        DataError: a network lacks a fold or seed that it has for another: the mean would be over other things.
    """
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.metric), []).append(row)
    return [_summary(of, num_bootstrap, seed) for of in groups.values() if len(of) > 1]


def summarize_difference(
    rows: Iterable[ResultRow], a: str, b: str, metric: str, *, num_bootstrap: int = 2000, seed: int = 0
) -> Summary:
    """Network ``a`` minus network ``b``, paired over videos, folds and seeds.

    Raises:
        DataError: they were not measured on the same videos, folds and seeds.
    """
    ours, theirs = (
        {(fold_of(row), seed_of(row)): row for row in rows if (row.name, row.metric) == (name, metric)}
        for name in (a, b)
    )
    if not ours or ours.keys() != theirs.keys() or any(ours[key].ids != theirs[key].ids for key in ours):
        raise DataError(
            f"{a} and {b} must have {metric} of the same videos, folds and seeds for a paired difference. "
            "Evaluate both in one command."
        )
    grid = _grid([(fold, s, row.ids, row.correct_N) for (fold, s), row in ours.items()])
    other = _grid([(fold, s, row.ids, row.correct_N) for (fold, s), row in theirs.items()])
    return _of_grid(f"{a} - {b}", metric, grid.minus(other), 0.0, num_bootstrap, seed)


@dataclass(frozen=True)
class _Grid:
    """values_FSV: what was said of each video, 0 where it is not in the fold. member_FV: which videos are in a fold."""

    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    values_FSV: np.ndarray
    member_FV: np.ndarray

    def minus(self, other: _Grid) -> _Grid:
        return _Grid(self.folds, self.seeds, self.values_FSV - other.values_FSV, self.member_FV)


def _summary(rows: Sequence[ResultRow], num_bootstrap: int, seed: int) -> Summary:
    name, metric = rows[0].name, rows[0].metric
    grid = _grid([(fold_of(row), seed_of(row), row.ids, row.correct_N) for row in rows], f"{name}, {metric}: ")
    chance = float(np.mean([row.chance for row in rows]))
    return _of_grid(name, metric, grid, chance, num_bootstrap, seed)


def _grid(runs: Sequence[tuple[int, int, Sequence[str], np.ndarray]], whose: str = "") -> _Grid:
    folds, seeds = sorted({run[0] for run in runs}), sorted({run[1] for run in runs})
    found = [run[:2] for run in runs]
    if sorted(found) != [(f, s) for f in folds for s in seeds]:
        raise DataError(
            f"{whose}each of the folds {folds} must be there once for each of the seeds {seeds}, and there are "
            f"{sorted(found)}. Evaluate again with all of them."
        )
    ids = {video: i for i, video in enumerate(dict.fromkeys(v for run in runs for v in run[2]))}
    values = np.zeros((len(folds), len(seeds), len(ids)))
    member = np.zeros((len(folds), len(ids)))
    for fold, s, videos, correct_N in runs:
        columns = [ids[video] for video in videos]
        values[folds.index(fold), seeds.index(s), columns] = correct_N
        member[folds.index(fold), columns] = 1.0
    return _Grid(tuple(folds), tuple(seeds), values, member)


def _of_grid(name: str, metric: str, grid: _Grid, chance: float, num_bootstrap: int, seed: int) -> Summary:
    value_FS = grid.values_FSV.sum(axis=2) / grid.member_FV.sum(axis=1)[:, None]
    return Summary(
        name,
        metric,
        float(value_FS.mean()),
        _interval(grid, num_bootstrap, seed),
        _deviation(value_FS.mean(axis=1)),
        _deviation(value_FS.mean(axis=0)),
        {
            f: {s: float(v) for s, v in zip(grid.seeds, of, strict=True)}
            for f, of in zip(grid.folds, value_FS, strict=True)
        },
        grid.member_FV.shape[1],
        chance,
    )


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _interval(grid: _Grid, num_bootstrap: int, seed: int) -> Interval:
    """Percentiles of the mean over folds when videos are drawn with replacement, each with all its folds and seeds."""
    mean_FV = grid.values_FSV.mean(axis=1)
    num_videos = mean_FV.shape[1]
    rng = np.random.default_rng([seed, num_videos, len(grid.folds)])
    means: list[float] = []
    for count in _chunks(num_bootstrap, max(1, _CELLS_AT_ONCE // num_videos)):
        drawn_BV = np.empty((count, num_videos))
        for row in drawn_BV:  # how often each video is drawn; several times quicker than rng.multinomial
            row[:] = np.bincount(rng.integers(0, num_videos, num_videos), minlength=num_videos)
        in_fold_BF = drawn_BV @ grid.member_FV.T
        with np.errstate(invalid="ignore"):  # a fold of few videos may be drawn empty
            of_fold_BF = (drawn_BV @ mean_FV.T) / in_fold_BF
        means += [float(np.mean(row[~np.isnan(row)])) for row in of_fold_BF]
    low, high = np.quantile(means, [0.025, 0.975])
    return (float(low), float(high)) if math.isfinite(low) else (math.nan, math.nan)


def _chunks(total: int, most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, most)
        total -= most
