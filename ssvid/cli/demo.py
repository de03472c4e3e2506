"""``ssvid demo``: the whole way on synthetic videos, without data and without choices."""

from __future__ import annotations

import argparse
import os

from ssvid.cli.parser import Verbs, run_program, whole

_DESCRIPTION = """\
Renders and encodes videos whose classes are motions, pretrains a small network on them without labels, scores it
beside its own random initialization and beside a placebo (trained on permuted pretext labels), and exports it.
A few minutes on two CPU cores; nothing is downloaded.

With "speed" a network learns speediness and then watches a video whose speed changes on a known schedule: its curve
beside the truth, a film that is sped up by it, a page that plays both.

With "layers" a rendered scene of two walkers is taken apart into layers and put together again in other ways, beside
what is known of it; about a minute, nothing is trained.
"""
_EPILOG = """\
examples:
  ssvid demo --out runs/demo
  ssvid demo speed
  ssvid demo layers
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("demo", run, "pretrain, score and export on synthetic videos, in minutes", _DESCRIPTION, _EPILOG)
    parser.add_argument("what", metavar="WHAT", nargs="?", help="speed or layers, or nothing for the whole way")
    parser.add_argument("--out", metavar="DIR", help="new folder to write (default: runs/demo, numbered)")
    parser.add_argument(
        "--seed", metavar="N", type=whole(0), default=0, help="of the weights and of training (default: 0)"
    )


def run(args: argparse.Namespace) -> None:
    """Run the demo and print its table."""
    # Before torch and numpy are imported: on few cores their threads and the reading processes get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_program(args)
