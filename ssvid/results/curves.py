"""Curves of a run as SVG: readable in light and dark, told apart without color."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ssvid.templates import render

WIDTH_PX, HEIGHT_PX = 430, 264  # of a panel, everything included
_DASHES = ("none", "7 3", "2 3", "9 3 2 3")
_MOST_POINTS = 400  # of a drawn line; from more on the lowest and the highest of each stretch are drawn
_DOTTED_BELOW = 40
_ABOUT_TICKS = 5

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One drawing. lines: name -> (optimizer steps done, value), in order. levels: name -> a horizontal line (chance, a guess).

    steps: where the drawing ends; the last point's where it is 0. along: what the horizontal axis counts; moment: one of it.
    """

    title: str
    lines: Mapping[str, Points]
    levels: Mapping[str, float] = field(default_factory=dict)
    steps: float = 0.0
    along: str = "optimizer steps"
    moment: str = "step"


def points_of(log: Iterable[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    """(optimizer steps done, value) wherever a run logged the metric; a value that is no number is nan.

    log: the lines of ``metrics.jsonl``.
    """
    return [
        (float(line["step"]) + 1, float(line[metric])) for line in log if metric in line and line["step"] is not None
    ]


def panels_of(log: Sequence[Mapping[str, Any]], chance: Mapping[str, float]) -> list[Panel]:
    """One panel for each thing measured: ``train/loss`` and ``val/loss`` share one. chance: by the metric's own name."""
    names = [key for key in dict.fromkeys(key for line in log for key in line) if _is_curve(key)]
    titles = sorted(dict.fromkeys(_title(name) for name in names), key=_place)
    steps = max((float(line["step"]) + 1 for line in log if line["step"] is not None), default=0.0)
    found = []
    for title in titles:
        lines = {name: points_of(log, name) for name in names if _title(name) == title}
        lines = {name: points for name, points in lines.items() if any(math.isfinite(y) for _, y in points)}
        if lines:
            found.append(Panel(title, lines, {"chance": chance[title]} if title in chance else {}, steps))
    return _with_levels(found)


def _with_levels(panels: Sequence[Panel]) -> list[Panel]:
    """A number that stands still beside another one (``difference_auc``, what a guess scores, beside ``auc``) is a level there."""
    kept = {panel.title: panel for panel in panels}
    for panel in panels:
        other = next((title for title in kept if panel.title.endswith(f"_{title}")), "")
        if other and all(map(_stands_still, panel.lines.values())):
            levels = {name: points[-1][1] for name, points in panel.lines.items()}
            kept[other] = replace(kept[other], levels={**kept[other].levels, **levels})
            del kept[panel.title]
    return list(kept.values())


def _stands_still(points: Points) -> bool:
    """Whether several measurements gave one number, but for rounding."""
    return len(points) > 1 and all(math.isclose(y, points[0][1], rel_tol=1e-5) for _, y in points)


def _is_curve(key: str) -> bool:
    """Counts stand still, and a warning is one moment."""
    return key not in ("step", "epoch") and "/num_" not in key and not key.startswith("warning/")


def _title(name: str) -> str:
    """What is measured, without on what: ``val_ood/accuracy`` is an accuracy, ``perf/clips_per_s`` is itself."""
    series, _, own = name.partition("/")
    return own if own and series.startswith(("train", "val")) else name


def _place(title: str) -> tuple[int, int]:
    """The loss first; what tells of the machine last. Everything else as it was logged."""
    return (0 if title == "loss" else 2 if title.startswith(("perf/", "data/")) else 1, 0)


def draw_panel(panel: Panel, name: str) -> str:
    """The panel as an ``<svg>`` that a page can hold. name: an id that no other drawing of the page has."""
    return render(
        "curves.svg",
        panel=panel,
        name=name,
        told=describe(panel),
        f=_frame(panel),
        legend=_legend(panel),
        stretches=lambda points: _stretches(thinned(points)),
        px=lambda place: f"{place:.1f}",
        ticks=ticks,
        number=number,
        width=WIDTH_PX,
        height=HEIGHT_PX,
        dashes=_DASHES,
        dotted_below=_DOTTED_BELOW,
    )


def describe(panel: Panel) -> str:
    """The panel in words, for those who do not see it."""
    told = []
    for name, points in panel.lines.items():
        ys = [y for _, y in points if math.isfinite(y)]
        told.append(
            f"{name}: {number(ys[0])} at {panel.moment} {points[0][0]:.0f}, {number(ys[-1])} at {panel.moment} "
            f"{points[-1][0]:.0f}, "
            f"lowest {number(min(ys))}, highest {number(max(ys))}"
        )
    return "; ".join([*told, *(f"{name}: {number(level)}" for name, level in panel.levels.items())])


def number(value: float) -> str:
    """Four digits, without an exponent where it can be helped."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


# ---- one panel


@dataclass(frozen=True)
class _Frame:
    """Where a value lies in the drawing. x from 0 to ``steps``, y from ``low`` to ``high``."""

    steps: float
    low: float
    high: float
    left_px: int = 52
    right_px: int = WIDTH_PX - 10
    top_px: int = 30
    bottom_px: int = HEIGHT_PX - 72

    def x(self, step: float) -> float:
        return self.left_px + (self.right_px - self.left_px) * step / self.steps

    def y(self, value: float) -> float:
        return self.top_px + (self.bottom_px - self.top_px) * (self.high - value) / (self.high - self.low)


def _frame(panel: Panel) -> _Frame:
    every = [point for points in panel.lines.values() for point in points]
    ys = [y for _, y in every if math.isfinite(y)] + list(panel.levels.values())
    low, high = min(ys), max(ys)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return _Frame(panel.steps or max(x for x, _ in every) or 1.0, low - margin, high + margin)


def ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten, and at least ``least``, apart) from low to high."""
    rough = max((high - low) / _ABOUT_TICKS, least)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _stretches(points: Points) -> list[list[tuple[float, float]]]:
    """The points without those that are no number; the line breaks there."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            found[-1].append((x, y))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def thinned(points: Points) -> Points:
    """At most about ``_MOST_POINTS``: the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        gaps = [point for point in stretch if not math.isfinite(point[1])]
        finite = [point for point in stretch if math.isfinite(point[1])]
        ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])} if finite else set()
        kept += sorted([*ends, *gaps[:1]])
    return kept


def _legend(panel: Panel) -> list[tuple[str, str, str, int, int]]:
    """(text, class, dashes, x, y) of each name beside a piece of its line, in two rows where one is too short."""
    entries = [(name, f"c{i % 4}", _DASHES[i % 4]) for i, name in enumerate(panel.lines)]
    entries += [(f"{name} {number(level)}", "chance", "none") for name, level in panel.levels.items()]
    placed, left = [], _Frame.left_px
    x, y = left, HEIGHT_PX - 26
    for text, kind, dashes in entries:
        width = round(27 + 6.2 * len(text) + 14)
        if x > left and x + width - 14 > WIDTH_PX:
            x, y = left, y + 16
        placed.append((text, kind, dashes, x, y))
        x += width
    return placed
