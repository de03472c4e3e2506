"""``ssvid probe``: what a frozen backbone is worth on labeled videos."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json, add_recipe

_DESCRIPTION = """\
Takes frozen features of every video, fits a linear probe and k-NN on the train split and scores the test split.
The same architecture without training always stands beside; nothing is padded, replaced or chosen on test videos.
"""
_EPILOG = """\
example:
  ssvid probe probe/folder data.root=videos --backbone runs/mine/checkpoints/last.ckpt
"""


def add_probe(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "probe",
        help="score a frozen backbone: linear probe and k-NN",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
    )
    add_recipe(parser)
    parser.add_argument(
        "--backbone",
        metavar="PATH",
        required=True,
        help="a checkpoint, an exported folder, or 'random' (the network is then backbone.name=... of the recipe)",
    )
    parser.add_argument("--placebo", metavar="PATH", help="checkpoint of the same recipe run with task.placebo=true")
    parser.add_argument("--out", metavar="DIR", help="folder for results.json (default: beside the checkpoint)")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Score and print the table."""
    from ssvid.recipe import programs

    result = programs.probe(args.recipe, *args.overrides, backbone=args.backbone, placebo=args.placebo, out=args.out)
    terminal.print_result(result, as_json=args.json)
