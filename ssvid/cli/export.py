"""``ssvid export``: hand a backbone to the next project."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json

_DESCRIPTION = """\
Format ssvid writes a folder: backbone.safetensors, config.json, a model card (README.md) and, for networks that
torchvision has not, backbone.pt2, which loads with torch alone. ssvid.load_backbone(OUT) loads it.
Format torchvision writes one file (.pth or .safetensors) with torchvision's keys. Nothing is ever overwritten.
"""
_EPILOG = """\
examples:
  ssvid export runs/mine exports/mine
  ssvid export runs/mine r3d_18.pth --format torchvision
"""


def add_export(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export",
        help="write a backbone as safetensors with a model card",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run folder, or another export")
    parser.add_argument("out", metavar="OUT", help="what to write; it must not exist")
    parser.add_argument("--format", choices=("ssvid", "torchvision"), default="ssvid", help="default: %(default)s")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Export and print what was written."""
    from ssvid.exports import export

    terminal.print_result(export(args.checkpoint, args.out, format=args.format), as_json=args.json)
