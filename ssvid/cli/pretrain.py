"""``ssvid pretrain``: a backbone learns from unlabeled videos."""

from __future__ import annotations

import argparse
from pathlib import Path
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
        help="go on with a run, bit for bit: name its folder in place of RECIPE, or with --run-dir",
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Train and print where the checkpoint is."""
    from ssvid.recipe import programs

    recipe, run_dir = args.recipe, args.run_dir
    resolved = Path(recipe) / "recipe.resolved.yaml"
    if args.resume and run_dir is None and resolved.is_file():
        recipe, run_dir = resolved, recipe
    result = programs.pretrain(recipe, *args.overrides, run_dir=run_dir, resume=args.resume)
    terminal.print_result(result, as_json=args.json)
