"""``ssvid finetune``: a network learns labels, and is scored on videos that it has not seen."""

from __future__ import annotations

import argparse
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_evaluated, add_from, add_json

_DESCRIPTION = """\
Trains a network on the labels of the train split and scores the test split, once, with the epoch that was best on a
held-out part of train. The same network from random weights, trained alike, stands beside.
With finetune.frozen=true only a head is trained: the linear probe with augmentation, or the attentive probe.
--backbone also takes torchvision:NAME, a file of weights, or 'random'.
"""
_EPILOG = """\
examples:
  ssvid finetune finetune/folder data.root=videos --backbone runs/mine
  ssvid finetune finetune/folder data.root=videos --backbone torchvision:r3d_18 --run-dir runs/supervised
  ssvid finetune ucf101-finetune data.root=UCF-101 --backbone runs/mine
  ssvid finetune probe/attentive data.root=videos --backbone runs/mine
"""


def add_finetune(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "finetune",
        help="train a network on labels and score it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[common],
    )
    add_evaluated(parser)
    parser.add_argument(
        "--no-random", dest="random", action="store_false", help="do not train the random network beside it"
    )
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run (default: beside the checkpoint, numbered)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run, bit for bit: name its folder in place of RECIPE, or with --run-dir; where nothing was "
        "saved yet it starts from its beginning",
    )
    parser.add_argument(
        "--partial", action="store_true", help="accept weights that fill only a part; every result says so"
    )
    parser.add_argument(
        "--which", metavar="WORD", default="", help="of a file with several networks: encoder_q, teacher, ..."
    )
    parser.add_argument("--inflate", action="store_true", help="repeat 2D kernels of foreign weights over time")
    add_from(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Train, score and print the table."""
    from ssvid.programs.finetune import finetune
    from ssvid.ranks import is_first_process

    result = finetune(
        args.recipe,
        *args.overrides,
        backbone=args.backbone,
        backbone_name=args.backbone_name,
        placebo=args.placebo,
        random=args.random,
        run_dir=args.run_dir,
        resume=args.resume,
        partial=args.partial,
        inflate=args.inflate,
        which=args.which,
        from_results=args.from_results,
    )
    if is_first_process():  # all processes have the rows; one tells them
        terminal.print_result(result, as_json=args.json)
