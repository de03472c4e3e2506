"""``ssvid probe``: what a frozen backbone is worth on labeled videos."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_frozen

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


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "score a frozen backbone: linear probe and k-NN"
    add_frozen(verbs, "probe", about, _DESCRIPTION, _EPILOG)
