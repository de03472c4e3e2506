"""The curves of finished runs as one SVG, for a page of the documentation.

Usage: python -m tests.benchmarks.curves OUT.svg NAME=RUN [NAME=RUN ...] [--metrics train/loss val/accuracy]

One panel for each metric, one line for each run: what ``metrics.jsonl`` of the run folder holds, over optimizer steps.
"""

import argparse
from pathlib import Path

from ssvid.evals.curves import Panel, draw_sheet, points_of
from ssvid.files import write_atomic
from ssvid.train.loggers import read_metrics


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
