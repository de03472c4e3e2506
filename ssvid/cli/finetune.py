"""``ssvid finetune``: a network learns labels, and is scored on videos that it has not seen."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_evaluated, add_shared, run_in_all_processes

_DESCRIPTION = """\
Trains a network on the labels of the train split and scores the test split, once, with the epoch that was best on a
held-out part of train. The same network from random weights, trained alike, stands beside.
With finetune.frozen=true only a head is trained: a linear or attentive probe with augmentation. finetune.head=lstm,
attention, late_concat, late_pool or average brings the frames of a network without time together.
--backbone also takes torchvision:NAME, a file of weights, or 'random'.
"""
_EPILOG = """\
examples:
  ssvid finetune finetune/folder data.root=videos --backbone runs/mine
  ssvid finetune finetune/folder data.root=videos --backbone torchvision:r3d_18 --run-dir runs/supervised
  ssvid finetune ucf101-finetune data.root=UCF-101 --backbone runs/mine
  ssvid finetune probe/attentive data.root=videos --backbone runs/mine
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add(
        "finetune", run_in_all_processes, "train a network on labels and score it", _DESCRIPTION, _EPILOG
    )
    add_evaluated(parser)
    parser.add_argument(
        "--no-random", dest="random", action="store_false", help="do not train the random network beside it"
    )
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run (default: beside the checkpoint, numbered)")
    add_shared(parser, "--resume", "--which", "--inflate")
