"""``ssvid speed``: what a trained network says of every frame of a video, and the film that follows from it."""

from __future__ import annotations

import argparse

from ssvid.cli.parser import Verbs, add_shared, positive, run_program, whole

_DESCRIPTION = """\
Asks a trained task of every stretch of a video (speediness: is it sped up?) and writes a folder with a page: the video
with a curve below it and a cursor that moves along.

With --speed-up or --seconds it makes a film that is sped up more where the video still looks natural at a higher speed,
and less elsewhere, beside a film of the same length that is sped up alike everywhere. With --map it paints where in the
picture the answer comes from. Nothing is overwritten.
"""
_EPILOG = """\
examples:
  ssvid speed my.mp4 --checkpoint runs/mine
  ssvid speed my.mp4 --checkpoint runs/mine --speed-up 2 --map --out fast
  ssvid speed my.mp4 --checkpoint runs/mine --seconds 60 --sound
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("speed", run_program, "curve, adaptive speed-up and map of a video", _DESCRIPTION, _EPILOG)
    parser.add_argument("video", metavar="VIDEO", help="a video, or a folder of numbered pictures")
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        required=True,
        help="a run folder or a checkpoint of speediness, or of a task like it",
    )
    _add_film(parser)
    parser.add_argument(
        "--window", metavar="N", type=whole(0), default=0, help="frames that are judged together (default: the task's)"
    )
    parser.add_argument(
        "--hop", metavar="N", type=whole(0), default=0, help="frames to the next window (default: a quarter of one)"
    )
    parser.add_argument(
        "--fps",
        metavar="R",
        type=positive,
        default=0.0,
        help="show the video to the network at this rate (default: its own)",
    )
    parser.add_argument(
        "--overlap",
        choices=("middle", "mean"),
        default="middle",
        help="a frame's answer: of the window around it, or the mean of all that hold it",
    )
    parser.add_argument("--task", metavar="NAME", default="", help="of a network that was trained on several")
    parser.add_argument("--batch-size", metavar="N", type=whole(1), default=32, help="clips per pass (default: 32)")
    add_shared(parser, "--device")
    parser.add_argument(
        "--decoder", metavar="NAME", default="auto", help="auto, pyav, torchcodec or decord (default: auto)"
    )
    parser.add_argument("--out", metavar="DIR", help="new folder to write (default: runs/speed, numbered)")


def _add_film(parser: argparse.ArgumentParser) -> None:
    """What is made besides the curve, and how."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--speed-up", metavar="X", type=positive, default=0.0, help="make a film that is X times shorter"
    )
    length.add_argument("--seconds", metavar="S", type=positive, default=0.0, help="make a film of S seconds")
    parser.add_argument("--map", dest="with_map", action="store_true", help="paint where the answer comes from")
    parser.add_argument(
        "--sound",
        action="store_true",
        help="give the adaptive film the sound of the video, at its pitch (default: none)",
    )
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=_probability,
        default=0.33,
        help="a version looks natural below this probability (default: 0.33)",
    )
    parser.add_argument(
        "--smooth-seconds",
        metavar="S",
        type=_length,
        default=0.5,
        help="how far the film's speed is smoothed (default: 0.5)",
    )


def _probability(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0 and below 1")
    return value


def _length(text: str) -> float:
    """An argparse type: seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 0")
    return value
