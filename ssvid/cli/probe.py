"""``ssvid probe``: what a frozen backbone is worth on labeled videos."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_evaluated, add_from, add_frozen, add_json

_DESCRIPTION = """\
Takes frozen features of every video, fits a linear probe and k-NN on the train split and scores the test split.
The same architecture without training always stands beside; nothing is padded, replaced or chosen on test videos.
"""
_EPILOG = """\
examples:
  ssvid probe probe/folder data.root=videos --backbone runs/mine --placebo train
  ssvid probe ucf101-linear@1 data.root=UCF-101 --backbone runs/seed0 --backbone runs/seed1
  ssvid probe --from runs/mine/probe-folder/results.json
  torchrun --nproc-per-node=4 -m ssvid probe probe/folder data.root=videos --backbone runs/mine --out runs/mine/probe
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
    add_evaluated(parser)
    parser.add_argument(
        "--supervised",
        metavar="WEIGHTS",
        help="weights of the same network trained on labels, for a row beside: a file, or torchvision:NAME",
    )
    add_frozen(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for results.json (default: beside the checkpoint, numbered)"
    )
    add_from(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Score and print the table."""
    from ssvid.programs.probe import probe
    from ssvid.ranks import joined_processes

    with joined_processes(args.device) as (device, is_first):
        result = probe(
            args.recipe,
            *args.overrides,
            backbone=args.backbone,
            backbone_name=args.backbone_name,
            placebo=args.placebo,
            supervised=args.supervised,
            out=args.out,
            partial=args.partial,
            untrained_stage=args.untrained_stage,
            device=device,
            from_results=args.from_results,
        )
    if is_first:
        terminal.print_result(result, as_json=args.json)
