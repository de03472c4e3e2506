"""Numbers with their doubt and their protocol: rows, paired differences, ``results.json``, a table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssvid.columns import aligned, rule
from ssvid.errors import DataError
from ssvid.files import write_atomic
from ssvid.intervals import (
    METHOD,
    RESAMPLED,
    Interval,
    difference_interval,
    grouped_mean_interval,
    share_interval,
)
from ssvid.machine import versions
from ssvid.protocols.metrics import remember_title, title_of
from ssvid.ranks import ranks

RESULTS_FORMAT = 1
OLD_INTERVALS = (
    "the file holds an older kind of interval; it was computed anew, without groups of videos, which it does not hold"
)


_OLD_NAMES = {"floor": "histograms"}  # of networks, as older versions wrote them


@dataclass(frozen=True)
class ResultRow:
    """One number of one network.

    name: which network, as the table prints it ("pretrained", "random", "placebo"). metric: what was measured.
    value: in [0, 1]. interval: 95 %, over the test videos and their groups. chance: what a guess blind to the video scores.
    correct_N: for each test video whether it was right (bool), or which share of its views was (float); an unreadable one
    never is. ids: names of these videos, or of what else the number is a mean over (the context's "units").
    context: everything else that the number depends on; plain types.
    groups: which group each video belongs to; () where each stands by itself, or where nobody wrote it down.
    method: of the interval. ``RESAMPLED`` where ``correct_N`` holds values of any size, whose mean is the number.
    """

    name: str
    metric: str
    value: float
    interval: Interval
    chance: float
    correct_N: np.ndarray
    ids: tuple[str, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    method: str = METHOD

    def __post_init__(self) -> None:
        if title := self.context.get("title"):
            remember_title(self.metric, title)

    @classmethod
    def counted(
        cls,
        name: str,
        metric: str,
        correct_N: np.ndarray,
        chance: float,
        ids: Sequence[str],
        groups: Sequence[str],
        context: Mapping[str, Any],
    ) -> ResultRow:
        """The row of these answers, with its value and its interval. groups: one for each video."""
        correct = np.asarray(correct_N)
        kept = tuple(groups) if len(set(groups)) < len(ids) else ()
        interval = share_interval(correct, groups_N=_codes_of(kept))
        return cls(name, metric, float(correct.mean()), interval, chance, correct, tuple(ids), context, kept)

    @classmethod
    def averaged(
        cls,
        name: str,
        metric: str,
        values_N: np.ndarray,
        chance: float,
        ids: Sequence[str],
        groups: Sequence[str],
        context: Mapping[str, Any],
        *,
        interval: Interval,
    ) -> ResultRow:
        """The row whose value is the mean of values of any size, with the interval that it was given."""
        values = np.asarray(values_N, dtype=np.float64)
        kept = tuple(groups) if len(set(groups)) < len(ids) else ()
        return cls(name, metric, float(values.mean()), interval, chance, values, tuple(ids), context, kept, RESAMPLED)

    @property
    def nouns(self) -> tuple[str, str]:
        """What the number is a mean over, and what these are grouped by, in words."""
        units, groups = self.context.get("units") or ("test videos", "groups")
        return units, groups

    @property
    def num_groups(self) -> int:
        """How many groups of videos there are: as many as videos where each stands by itself."""
        return len(set(self.groups)) or len(self.ids)


def _codes_of(groups: Sequence[str]) -> np.ndarray | None:
    return np.array(groups, dtype=object).astype(str) if groups else None


class Difference(NamedTuple):
    """A paired difference of two accuracies on the same videos, with its 95 % interval."""

    mean: float
    interval: Interval
    num_videos: int
    num_groups: int = 0


class SeedSummary(NamedTuple):
    """A quantity over seeds. ratio is mean / standard_error: above 2 is the usual bar, and few seeds make it rough."""

    mean: float
    standard_error: float
    ratio: float
    num_seeds: int


# ---- doubt


def paired_difference(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    *,
    groups: Sequence[str] = (),
    method: str = METHOD,
) -> Difference:
    """Accuracy of a minus accuracy of b on the same videos in the same order.

    Args:
        groups: which group each video belongs to; () where each stands by itself. method: of the rows' own intervals.

    Raises:
        DataError: the two were not measured on as many videos.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"a paired difference needs both results on the same videos, got {a.shape} and {b.shape} of them. "
            "Evaluate both on one manifest and split."
        )
    of_difference = grouped_mean_interval if method == RESAMPLED else difference_interval
    interval = of_difference(a - b, groups_N=_codes_of(groups))
    return Difference(float((a - b).mean()), interval, a.size, len(set(groups)) or a.size)


def compare_rows(a: ResultRow, b: ResultRow) -> Difference:
    """``paired_difference`` of two rows, after making sure that they share metric and videos.

    Raises:
        DataError: they do not.
    """
    if a.metric != b.metric or a.ids != b.ids:
        raise DataError(
            f"{a.name} ({a.metric}, {len(a.ids)} videos) and {b.name} ({b.metric}, {len(b.ids)} videos) must share "
            "metric and test videos to be compared. Evaluate both on one manifest and split."
        )
    return paired_difference(a.correct_N, b.correct_N, groups=a.groups or b.groups, method=a.method)


def over_seeds(values: Sequence[float]) -> SeedSummary:
    """Mean over seeds, its standard error s / sqrt(n), and their ratio.

    Raises:
        DataError: fewer than two seeds, which have no standard error.
    """
    if len(values) < 2:
        raise DataError(f"seeds ({len(values)}) must be at least 2 for a standard error. Run more seeds.")
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    ratio = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return SeedSummary(mean, error, ratio, len(values))


# ---- results.json


def write_results(path: str | Path, rows: Iterable[ResultRow], *, extra: Mapping[str, Any] | None = None) -> Path:
    """Write ``results.json``: each number with its whole context. Readers see the old file or the new one, no part.

    The ids of the test videos are written once per distinct list, and so are their groups; ``correct`` is one digit per video
    in that order.

    Args:
        path: the file, or a folder for ``results.json`` in it.
        extra: plain values about the whole run, such as the recipe.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    rows = list(rows)
    plain = {
        "format": RESULTS_FORMAT,
        "versions": versions(),
        **(extra or {}),
        "video_lists": {list_name(names): list(names) for row in rows for names in (row.ids, row.groups) if names},
        "rows": [_plain_row(row) for row in rows],
    }
    text = json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=True, default=_refuse)
    if ranks()[0] == 0:  # of several processes that share an evaluation the first one writes
        write_atomic(path, lambda file: file.write(text.encode() + b"\n"))
    return path


def read_results(path: str | Path) -> list[ResultRow]:
    """The rows of a ``results.json``.

    Raises:
        DataError: the file is missing or no results file of this format.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        if plain["format"] != RESULTS_FORMAT:
            raise DataError(
                f"{path}: format ({plain['format']}) must be {RESULTS_FORMAT}. Evaluate again to rewrite it."
            )
        return [_row_of(row, plain["video_lists"]) for row in plain["rows"]]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as cause:
        raise DataError(
            f"{path} must be a results.json that ssvid wrote ({type(cause).__name__}: {cause}). Evaluate again."
        ) from cause


def _plain_row(row: ResultRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "metric": row.metric,
        "value": row.value,
        "interval95": list(row.interval),
        "interval_method": row.method,
        "chance": row.chance,
        "num_videos": len(row.ids),
        "num_groups": row.num_groups,
        "video_list": list_name(row.ids),
        "group_list": list_name(row.groups) if row.groups else "",
        "correct": _plain_correct(row.correct_N),
        **row.context,
    }


_OWN = (
    *("name", "metric", "value", "interval95", "interval_method", "chance", "num_videos", "num_groups"),
    *("video_list", "group_list", "correct"),
)


def _row_of(plain: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> ResultRow:
    correct_N = _correct_of(plain["correct"])
    context = {key: value for key, value in plain.items() if key not in _OWN}
    low, high = plain["interval95"]
    if "interval_method" not in plain and correct_N.size:
        low, high = share_interval(correct_N)
        context["notes"] = [*context.get("notes", ()), OLD_INTERVALS]
    groups = tuple(lists[plain["group_list"]]) if plain.get("group_list") else ()
    ids = tuple(lists[plain["video_list"]])
    name, chance = _OLD_NAMES.get(plain["name"], plain["name"]), plain["chance"]
    method = RESAMPLED if plain.get("interval_method") == RESAMPLED else METHOD
    return ResultRow(
        name, plain["metric"], plain["value"], (low, high), chance, correct_N, ids, context, groups, method
    )


def _plain_correct(correct_N: np.ndarray) -> str | list[float]:
    """A digit per video; shares of right views, where those are what is counted, as numbers."""
    if correct_N.dtype == bool:
        return "".join("1" if right else "0" for right in correct_N)
    return [float(share) for share in correct_N]


def _correct_of(plain: str | Sequence[float]) -> np.ndarray:
    if isinstance(plain, str):
        return np.array([digit == "1" for digit in plain], dtype=bool)
    return np.array(plain, dtype=np.float64)


def list_name(ids: Sequence[str]) -> str:
    """What tells one list of names from another."""
    return hashlib.sha256("\0".join(ids).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _refuse(value: object) -> Any:
    raise TypeError(f"{value!r} ({type(value).__name__}) is no plain type; results.json holds only those")


# ---- the table


def render_table(rows: Sequence[ResultRow], *, notes: bool = True) -> str:
    """The rows as plain text: one line per network, one column per metric, the chance line, what must be known.

    A cell is the value and its 95 % interval in percent, ``81.3 [76, 87]``; from 1,000 videos on with a decimal.
    """
    if not rows:
        return "no results"
    metrics = list(dict.fromkeys(row.metric for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    cells = {(row.name, row.metric): _cell(row) for row in rows}
    lines = [["%", *(title_of(metric) for metric in metrics)]]
    lines += [[name, *(cells.get((name, metric), "-") for metric in metrics)] for name in names]
    lines.append(["chance", *(_chance(rows, metric) for metric in metrics)])
    head, *body, chance = aligned(lines)
    line = rule([head, *body, chance])
    return "\n".join([head, line, *body, line, chance, *(_notes(rows) if notes else [])])


def videos_in_groups(num_videos: int, num_groups: int, kind: str = "test videos", groups: str = "groups") -> str:
    """How many videos, and in how many groups where some belong together."""
    return f"{num_videos} {kind}" + (f" in {num_groups} {groups}" if 0 < num_groups < num_videos else "")


def _cell(row: ResultRow) -> str:
    low, high = row.interval
    digits = 1 if len(row.ids) >= 1000 else 0
    return f"{100 * row.value:.1f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _chance(rows: Sequence[ResultRow], metric: str) -> str:
    levels = sorted({f"{100 * row.chance:.1f}" for row in rows if row.metric == metric})
    return " or ".join(levels)


def _notes(rows: Sequence[ResultRow]) -> list[str]:
    """What a reader of the table must know, each fact once, with the names that it holds for."""
    holders: dict[str, list[str]] = {}
    for row in rows:
        for fact in row.context.get("notes", ()):
            names = holders.setdefault(fact, [])
            if row.name not in names:
                names.append(row.name)
    everyone = len({row.name for row in rows})
    counts = sorted({(len(row.ids), row.num_groups, *row.nouns) for row in rows})
    videos = " or ".join(videos_in_groups(*count) for count in counts)
    head = f"{videos}; [..] is the 95 % interval over them, for one trained network."
    told = (fact if len(names) == everyone else f"{', '.join(names)}: {fact}" for fact, names in holders.items())
    return [head, *told]
