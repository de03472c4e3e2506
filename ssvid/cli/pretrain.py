"""``ssvid pretrain``: a backbone learns from unlabeled videos."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json, add_recipe

_DESCRIPTION = """\
Trains a backbone on a folder of videos; no labels and no lists are needed. Everything is kept in a run folder:
the recipe, metrics.jsonl, pictures of what the task sees, checkpoints. An existing run folder is never overwritten.
"""
_EPILOG = """\
examples:
  ssvid pretrain pretrain/speediness_tiny data.root=videos
  ssvid pretrain pretrain/speediness_tiny data.root=videos optim.epochs=20 trainer.devices=2 --run-dir runs/mine
  ssvid pretrain runs/mine --resume
  ssvid pretrain runs/mine --resume optim.epochs=40                      go on with a finished run, longer
  ssvid pretrain pretrain/speediness_tiny data.root=videos --run-dir runs/mine --resume     starts or goes on
"""


def add_pretrain(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "pretrain",
        help="train a backbone on unlabeled videos",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
    )
    add_recipe(parser)
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run (default: runs/<recipe>, numbered)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run, bit for bit: name its folder in place of RECIPE, or with --run-dir; where nothing was "
        "saved yet it starts from its beginning",
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Train and print where the checkpoint is."""
    from ssvid.programs.pretrain import pretrain
    from ssvid.ranks import is_first_process

    result = pretrain(args.recipe, *args.overrides, run_dir=args.run_dir, resume=args.resume)
    if is_first_process():  # all processes have the result; one tells it
        terminal.print_result(result, as_json=args.json)
