"""``ssvid data tapvid``: a pickle of TAP-Vid becomes folders of pictures and tracks of points."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ssvid.cli import terminal
from ssvid.cli.parser import Verbs, positive

_DESCRIPTION = """\
Writes the videos of a pickle of TAP-Vid as folders of PNG, without loss, their points as tracks, and a table. No code
of the pickle is run: one that asks for more than arrays of numbers is refused. The pickle is read whole, so it needs
its size in memory.
"""
_EPILOG = """\
example:
  ssvid data tapvid tapvid_davis/tapvid_davis.pkl data/tapvid_davis
"""


def add_tapvid(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add(
        "tapvid", run, "convert a pickle of TAP-Vid to pictures and tracks of points", _DESCRIPTION, _EPILOG
    )
    parser.add_argument(
        "pickle", metavar="PICKLE", help="as it is published: tapvid_davis.pkl, tapvid_rgb_stacking.pkl"
    )
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not exist or be empty")
    parser.add_argument(
        "--fps", metavar="N", type=positive, default=25.0, help="frames per second, for the table (default: 25)"
    )


def run(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    from ssvid.data.tapvid import convert_tapvid

    with terminal.progress("videos") as report:
        converted = convert_tapvid(args.pickle, args.out, fps=args.fps, progress=report)
    if args.json:
        terminal.print_json(asdict(converted))
    else:
        print(f"{converted}\ntable: {converted.out / 'manifest.csv'}")
