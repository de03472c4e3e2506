"""``ssvid pretrain``: a backbone learns from unlabeled videos."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_recipe, add_shared, run_in_all_processes

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


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("pretrain", run_in_all_processes, "train a backbone on unlabeled videos", _DESCRIPTION, _EPILOG)
    add_recipe(parser)
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run (default: runs/<recipe>, numbered)")
    add_shared(parser, "--resume")
