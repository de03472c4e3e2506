"""The curves of finished runs as one SVG, for a page of the documentation.

Usage: python -m tests.benchmarks.curves OUT.svg NAME=RUN [NAME=RUN ...] [--metrics train/loss val/accuracy]

One panel for each metric, one line for each run: what ``metrics.jsonl`` of the run folder holds, over optimizer steps.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import ssvid
from ssvid.files import write_atomic
from ssvid.results.curves import HEIGHT_PX, WIDTH_PX, Panel, draw_panel, points_of
from ssvid.train.loggers import read_metrics

STYLE = (Path(ssvid.__file__).parent / "templates" / "curves.css").read_text(encoding="utf-8")


def draw_sheet(panels: Sequence[Panel]) -> str:
    """The panels side by side as an SVG file of its own."""
    width = WIDTH_PX * len(panels)
    parts = [
        f'<svg x="{i * WIDTH_PX}" width="{WIDTH_PX}" height="{HEIGHT_PX}">{draw_panel(panel, f"panel{i}")}</svg>'
        for i, panel in enumerate(panels)
    ]
    return (
        f'<svg class="curves" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT_PX}"><style>{STYLE}'
        ".paper { fill: #fff; } @media (prefers-color-scheme: dark) { .paper { fill: #16181c; } }</style>"
        f'<rect class="paper" width="{width}" height="{HEIGHT_PX}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    parser.add_argument("--metrics", nargs="+", default=["train/loss", "val/accuracy"])
    args = parser.parse_args()
    runs = {name: Path(path) for name, _, path in (run.partition("=") for run in args.runs)}
    logs = {name: read_metrics(path / "metrics.jsonl") for name, path in runs.items()}
    panels = [Panel(metric, {name: points_of(log, metric) for name, log in logs.items()}) for metric in args.metrics]
    write_atomic(args.out, lambda file: file.write(draw_sheet(panels).encode()))


if __name__ == "__main__":
    main()
