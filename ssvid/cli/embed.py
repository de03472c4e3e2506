"""``ssvid embed``: frozen features of videos, clip by clip, in one file."""

from __future__ import annotations

import argparse

from ssvid.cli.parser import Verbs, add_shared, positive, reader_name, run_program, whole

_DESCRIPTION = """\
Writes one row per clip: path, clip number, frames, seconds, and the pooled features of each stage. Videos that cannot
be read are listed and have no row; nothing is replaced. An interrupted run goes on when the same command is given
again.
"""
_EPILOG = """\
examples:
  ssvid embed videos --backbone runs/mine -o features.npz
  ssvid embed talk.mp4 --backbone exports/mine --every-seconds 2 -o talk.parquet
  ssvid embed labeled/manifest.csv --backbone runs/mine --num-clips 4 --stages all -o labeled.npz
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("embed", run_program, "write frozen features of every clip to one file", _DESCRIPTION, _EPILOG)
    parser.add_argument("videos", metavar="VIDEOS", help="a folder, a video, a manifest.csv, or a list of paths")
    parser.add_argument("--backbone", metavar="PATH", required=True, help="checkpoint, run folder, export, or 'random'")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help=".npz or .parquet; it must not exist")
    _add_clips(parser)
    _add_network(parser)
    parser.add_argument(
        "--keep-parts", action="store_true", help="leave FILE.parts, so that more videos can be added later"
    )


def _add_clips(parser: argparse.ArgumentParser) -> None:
    """Which clips, and how their pixels are prepared."""
    parser.add_argument("--root", metavar="DIR", help="what the paths of a table or list are relative to")
    parser.add_argument(
        "--reader",
        type=reader_name("auto"),
        metavar="NAME",
        default="auto",
        help="of a folder, for its labels and splits: auto, or a reader that ssvid data index --help lists "
        "(default: auto, which takes train/<class>/ and test/<class>/ for what they say)",
    )
    parser.add_argument(
        "--fps",
        metavar="N",
        type=positive,
        default=25.0,
        help="frames per second of folders of pictures, which do not tell it (default: 25)",
    )
    parser.add_argument(
        "--num-clips", metavar="N", type=whole(1), default=1, help="clips per video, spread evenly (default: 1)"
    )
    parser.add_argument(
        "--every-seconds", metavar="S", type=positive, default=0.0, help="instead: a clip every so many seconds"
    )
    parser.add_argument(
        "--num-frames", metavar="N", type=whole(0), default=0, help="frames of a clip (default: the backbone's)"
    )
    parser.add_argument("--stride-frames", metavar="N", type=whole(1), default=1, help="between frames (default: 1)")
    parser.add_argument(
        "--resize-px", metavar="PX", type=whole(0), default=0, help="short side (default: 8/7 of the crop)"
    )
    parser.add_argument(
        "--crop-px", metavar="PX", type=whole(0), default=0, help="center crop (default: the backbone's)"
    )
    parser.add_argument(
        "--decoder", metavar="NAME", default="auto", help="auto, pyav, torchcodec or decord (default: auto)"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Which features, and where they are computed."""
    parser.add_argument(
        "--stages", metavar="NAMES", default="trained", help="trained, all, or names with commas (default: trained)"
    )
    parser.add_argument("--pool", metavar="HOW", default="avg", help="avg, avgmax, max1x2x2 or frames (default: avg)")
    parser.add_argument("--batch-size", metavar="N", type=whole(1), default=8, help="clips per pass (default: 8)")
    add_shared(parser, "--backbone-name", "--untrained-stage", "--partial", "--device", "--workers")
