"""``ssvid data join-frames``: clips that come as folders of pictures become files."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ssvid.cli import terminal
from ssvid.cli.parser import Verbs, positive
from ssvid.files import expanded

_DESCRIPTION = """\
Makes a video file of each folder of pictures, at the same place below OUT, so that folders above (classes, train,
test) keep their meaning. Frames are in the order of the numbers in their names. JPEG and PNG are copied byte for byte
into the video: nothing is lost and nothing is encoded anew.

Folders of pictures are read as they are, too (ssvid data index FOLDER --fps 24); fewer files are faster on network
disks.
"""
_EPILOG = """\
example:
  ssvid data join-frames DAVIS/JPEGImages/480p davis-videos --fps 24
"""


def add_join_frames(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add(
        "join-frames", run, "make a video file of each folder of pictures, without loss", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds the folders of pictures, at any depth")
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not exist or be empty")
    parser.add_argument(
        "--fps", metavar="N", type=positive, default=25.0, help="frames per second of the clips (default: 25)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the videos and say how many."""
    from ssvid.data.readers.frames import join_frames

    with terminal.progress("clips") as report:
        joined = join_frames(expanded(args.folder), expanded(args.out), fps=args.fps, progress=report)
    if args.json:
        terminal.print_json(asdict(joined))
    else:
        print(f"{joined}\nnext: ssvid data index {args.out}")
