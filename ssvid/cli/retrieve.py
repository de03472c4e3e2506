"""``ssvid retrieve``: do test videos find their class among the training videos?"""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_frozen

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


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "let test videos find their class: R@1, 5, 10, 20, 50 and a page of neighbors"
    add_frozen(verbs, "retrieve", about, _DESCRIPTION, _EPILOG)
