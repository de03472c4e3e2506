"""Several folds and seeds as one number: mean, spread, and an interval that knows that folds and seeds share videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ssvid.errors import DataError
from ssvid.intervals import METHOD, RESAMPLED, Interval, difference_interval, grouped_mean_interval, share_interval
from ssvid.results.rows import ResultRow


@dataclass(frozen=True)
class Summary:
    """One metric of one network over all its folds and seeds.

    value: mean over folds of the mean over seeds. over_folds, over_seeds: standard deviations (n - 1) of the folds' means
    and of the seeds' means; None with fewer than two. interval: 95 %, over videos and their groups, each with all that was
    said of it in every fold and seed. values: fold -> seed -> value. chance: mean over folds.
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
    num_groups: int = 0
    method: str = METHOD

    @property
    def num_folds(self) -> int:
        return len(self.values)

    @property
    def num_seeds(self) -> int:
        return max(len(seeds) for seeds in self.values.values())

    @property
    def spreads(self) -> list[tuple[float, int, str]]:
        """Each standard deviation there is, over how many, of what: ``(0.012, 3, "folds")``."""
        both = ((self.over_folds, self.num_folds, "folds"), (self.over_seeds, self.num_seeds, "seeds"))
        return [(value, count, what) for value, count, what in both if value is not None]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``results.json``."""
        return {
            "name": self.name,
            "metric": self.metric,
            "value": self.value,
            "interval95": list(self.interval),
            "interval_method": self.method,
            "std_over_folds": self.over_folds,
            "std_over_seeds": self.over_seeds,
            "values": {str(fold): {str(s): v for s, v in seeds.items()} for fold, seeds in self.values.items()},
            "num_videos": self.num_videos,
            "num_groups": self.num_groups,
            "chance": self.chance,
        }


def fold_of(row: ResultRow) -> int:
    """The official split that a row was measured on; 0 where the data has only one."""
    return int(row.context.get("fold", 0))


def seed_of(row: ResultRow) -> int:
    """The seed of the run that a row belongs to."""
    return int(row.context.get("seed", 0))


def summary_of_row(row: ResultRow) -> Summary:
    """Of the only fold and seed that there is."""
    values, counts = {fold_of(row): {seed_of(row): row.value}}, (len(row.ids), row.chance, row.num_groups)
    return Summary(row.name, row.metric, row.value, row.interval, None, None, values, *counts, row.method)


def summarize(rows: Iterable[ResultRow]) -> list[Summary]:
    """One summary for each network and metric that was measured on more than one fold or seed.

    Raises:
        DataError: a network lacks a fold or seed that it has for another: the mean would be over other things.
    """
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.metric), []).append(row)
    return [_summary(of) for of in groups.values() if len(of) > 1]


def summarize_difference(rows: Iterable[ResultRow], a: str, b: str, metric: str) -> Summary:
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
    grid, other = _grid(list(ours.values())), _grid(list(theirs.values()))
    return _of_grid(f"{a} - {b}", metric, grid.minus(other), 0.0, difference_interval)


@dataclass(frozen=True)
class _Grid:
    """values_FSV: what was said of each video, 0 where it is not in the fold. member_FV: which videos are in a fold.

    groups_V: number of the group that each video belongs to. method: of the rows' own intervals. low: the least that the mean
    can be, -1 or 0.
    """

    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    values_FSV: np.ndarray
    member_FV: np.ndarray
    groups_V: np.ndarray
    method: str = METHOD
    low: float = -1.0

    def minus(self, other: _Grid) -> _Grid:
        return replace(self, values_FSV=self.values_FSV - other.values_FSV, low=-1.0)


def _summary(rows: Sequence[ResultRow]) -> Summary:
    name, metric = rows[0].name, rows[0].metric
    chance = float(np.mean([row.chance for row in rows]))
    return _of_grid(name, metric, _grid(rows, f"{name}, {metric}: "), chance, share_interval)


def _grid(rows: Sequence[ResultRow], whose: str = "") -> _Grid:
    found = [(fold_of(row), seed_of(row)) for row in rows]
    folds, seeds = (sorted(set(numbers)) for numbers in zip(*found, strict=True))
    if sorted(found) != [(f, s) for f in folds for s in seeds]:
        raise DataError(
            f"{whose}each of the folds {folds} must be there once for each of the seeds {seeds}, and there are "
            f"{sorted(found)}. Evaluate again with all of them."
        )
    groups = {video: group for row in rows for video, group in zip(row.ids, row.groups or row.ids, strict=True)}
    places = {video: i for i, video in enumerate(groups)}
    values = np.zeros((len(folds), len(seeds), len(places)))
    member = np.zeros((len(folds), len(places)))
    for (fold, seed), row in zip(found, rows, strict=True):
        columns = [places[video] for video in row.ids]
        values[folds.index(fold), seeds.index(seed), columns] = row.correct_N
        member[folds.index(fold), columns] = 1.0
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups.values()))}
    groups_V = np.array([numbers[group] for group in groups.values()])
    return _Grid(
        tuple(folds),
        tuple(seeds),
        values,
        member,
        groups_V,
        rows[0].method,
        0.0 if min(row.interval[0] for row in rows) >= 0 else -1.0,
    )


def _of_grid(name: str, metric: str, grid: _Grid, chance: float, interval: Callable[..., Interval]) -> Summary:
    value_FS = grid.values_FSV.sum(axis=2) / grid.member_FV.sum(axis=1)[:, None]
    found: Callable[..., Interval] = interval
    if grid.method == RESAMPLED:
        found = grouped_mean_interval if grid.low < 0 else partial(grouped_mean_interval, low=0.0)
    return Summary(
        name,
        metric,
        float(value_FS.mean()),
        found(**_said(grid)),
        _deviation(value_FS.mean(axis=1)),
        _deviation(value_FS.mean(axis=0)),
        {
            f: {s: float(v) for s, v in zip(grid.seeds, of, strict=True)}
            for f, of in zip(grid.folds, value_FS, strict=True)
        },
        grid.member_FV.shape[1],
        chance,
        len(set(grid.groups_V.tolist())),
        grid.method,
    )


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _said(grid: _Grid) -> dict[str, np.ndarray]:
    """What an interval is of: a video counts with the mean of all that was said of it, by its share in the folds."""
    share_FV = grid.member_FV / grid.member_FV.sum(axis=1, keepdims=True)
    weights_V = share_FV.sum(axis=0)
    said_V = (share_FV * grid.values_FSV.mean(axis=1)).sum(axis=0) / weights_V
    return {"values_N": said_V, "groups_N": grid.groups_V, "weights_N": weights_V}
