"""``ssvid export``: hand a backbone to the next project."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json

_DESCRIPTION = """\
Writes a folder with backbone.safetensors, config.json and a model card (README.md). An existing folder is never
overwritten. Format ssvid is loaded with ssvid.load_backbone(OUT); format torchvision with torchvision alone.
"""
_EPILOG = """\
example:
  ssvid export runs/mine/checkpoints/last.ckpt exports/mine
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
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="last.ckpt of a run, or another export")
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not exist")
    parser.add_argument("--format", choices=("ssvid", "torchvision"), default="ssvid", help="default: %(default)s")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Export and print what was written."""
    from ssvid.export import export

    terminal.print_result(export(args.checkpoint, args.out, format=args.format), as_json=args.json)
