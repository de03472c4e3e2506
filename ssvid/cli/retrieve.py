"""``ssvid retrieve``: do test videos find their class among the training videos?"""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_evaluated, add_from, add_frozen, add_json

_DESCRIPTION = """\
Takes frozen features of every video and looks, for each test video, for the nearest training videos: R@k is the share
that finds one of its class among k. Writes the numbers, a picture and a page of queries with their five neighbors.
The same architecture without training always stands beside; nothing is padded, replaced or chosen on test videos.
"""
_EPILOG = """\
examples:
  ssvid retrieve retrieve/folder data.root=videos --backbone runs/mine
  ssvid retrieve retrieve/folder data.root=videos --backbone runs/mine retrieval.manner=coclr
"""


def add_retrieve(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "retrieve",
        help="let test videos find their class: R@1, 5, 10, 20, 50 and a page of neighbors",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
    )
    add_evaluated(parser)
    add_frozen(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for results, picture and page (default: beside the checkpoint, numbered)"
    )
    add_from(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Score and print the table."""
    from ssvid.programs.retrieve import retrieve
    from ssvid.ranks import joined_processes

    with joined_processes(args.device) as (device, is_first):
        result = retrieve(
            args.recipe,
            *args.overrides,
            backbone=args.backbone,
            backbone_name=args.backbone_name,
            placebo=args.placebo,
            out=args.out,
            partial=args.partial,
            untrained_stage=args.untrained_stage,
            device=device,
            from_results=args.from_results,
        )
    if is_first:
        terminal.print_result(result, as_json=args.json)
