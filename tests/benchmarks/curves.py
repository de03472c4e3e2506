"""The curves of finished runs as one SVG, for a page of the documentation.

Usage: python -m tests.benchmarks.curves OUT.svg NAME=RUN [NAME=RUN ...] [--metrics train/loss val/accuracy]

One panel for each metric, one line for each run: what ``metrics.jsonl`` of the run folder holds, over optimizer steps.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ssvid.files import write_atomic
from ssvid.train.loggers import read_metrics

WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 180, 46, 30, 64
COLORS = ("#1f6fb4", "#c0504d", "#5b9a3c", "#7a5aa6")

Points = Sequence[tuple[float, float]]


def points_of(run: Path, metric: str) -> Points:
    """(optimizer steps done, value) wherever the run logged the metric."""
    return [(line["step"] + 1, float(line[metric])) for line in read_metrics(run / "metrics.jsonl") if metric in line]


def svg(panels: dict[str, dict[str, Points]]) -> str:
    """A drawing of several panels. panels: title -> name of a line -> its points."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    width = len(panels) * (WIDTH + GAP) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 62}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{HEIGHT + TOP + 62}" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(panels.items()):
        parts += _panel(title, lines, LEFT + number * (WIDTH + GAP))
    for number, name in enumerate(names):
        x, y = LEFT + 130 * number, HEIGHT + TOP + 52
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{_color(number)}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 24}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, lines: dict[str, Points], left: float) -> list[str]:
    every = [point for points in lines.values() for point in points]
    steps = max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    low, high = low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + WIDTH * x / steps, TOP + HEIGHT * (high - y) / (high - low)

    parts = [
        f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{title}</text>',
        f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 28}" text-anchor="middle">optimizer steps</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value, step = low + share * (high - low), share * steps
        (_, y), (x, _) = place(0, value), place(step, low)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 14}" text-anchor="middle">{step:.0f}</text>')
    for number, points in enumerate(lines.values()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_color(number)}" stroke-width="1.6"/>')
        if len(points) < 40:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{_color(number)}"/>'
                for x, y in (place(*point) for point in points)
            ]
    return parts


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    parser.add_argument("--metrics", nargs="+", default=["train/loss", "val/accuracy"])
    args = parser.parse_args()
    runs = {name: Path(path) for name, _, path in (run.partition("=") for run in args.runs)}
    panels = {metric: {name: points_of(run, metric) for name, run in runs.items()} for metric in args.metrics}
    write_atomic(args.out, lambda file: file.write(svg(panels).encode()))


if __name__ == "__main__":
    main()
