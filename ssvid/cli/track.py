"""``ssvid track``: how far do a backbone's features follow what is known of one frame?"""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_frozen

_DESCRIPTION = """\
Carries the masks, parts, joints or points of one frame through each video by the likeness of frozen features, and scores
them: J and F, mean IoU, PCK, TAP-Vid. Nothing is trained. Beside the backbone stand its random initialization, labels that
do not move, raw pixels in the place of features, and chained optical flow (needs the extra motion).
"""
_EPILOG = """\
examples:
  ssvid track davis2017-crw@1 data.root=DAVIS --backbone runs/mine
  ssvid track track/synthetic data.root=synthetic --backbone runs/mine --placebo train
  ssvid track track/folder data.root=videos --backbone runs/mine track.stage=layer3
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "follow masks, joints and points of one frame through videos: J&F, PCK, TAP-Vid"
    add_frozen(verbs, "track", about, _DESCRIPTION, _EPILOG)
