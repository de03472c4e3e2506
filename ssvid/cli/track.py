"""``ssvid track``: how far features follow what is known of one frame, through a data set or through one's own footage."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import UsageError, Verbs, add_frozen, run_frozen

_DESCRIPTION = """\
Carries what is known of one frame through a video by the features of a frozen backbone: a cell takes the label of the
cells before it that look most alike.

With RECIPE it scores the backbone on videos whose truth is known (J and F of masks, mean IoU of parts, PCK of joints,
TAP-Vid of points), beside labels that do not move, raw pixels, optical flow and the same network without training.

With --video it follows objects and points of your own footage. It writes a film with all drawn on it, the masks as
PNGs with a palette, the tracks as CSV, and a page that plays the film. Nothing is overwritten.
"""
_EPILOG = """\
examples:
  ssvid track track/folder data.root=videos --backbone runs/mine
  ssvid track davis2017-crw@1 data.root=DAVIS --backbone runs/mine
  ssvid track --video my.mp4 --mask first.png --backbone runs/mine --out tracked.mp4
  ssvid track --video my.mp4 --mask 0=first.png --mask 40=later.png --backbone runs/mine --out tracked.mp4
  ssvid track --video my.mp4 --points 120,80 300.5,200 --backbone runs/mine --out tracked.mp4
"""
_FOOTAGE = ("video", "mask", "points", "truth", "protocol", "decoder")  # options of the form with --video
_RECIPE = {"placebo": "--placebo", "supervised": "--supervised", "from_results": "--from"}  # of the form with RECIPE


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "follow masks and points: score a backbone by it, or --video for your own footage"
    parser = add_frozen(verbs, "track", about, _DESCRIPTION, _EPILOG)
    parser.set_defaults(run=_run)
    footage = parser.add_argument_group(
        "your own footage", "--out FILE.mp4 is the film; all else that is written is named after it."
    )
    footage.add_argument("--video", metavar="FILE", help="a video, in place of RECIPE")
    footage.add_argument(
        "--mask",
        metavar="[FRAME=]PNG",
        type=_at_frame,
        action="append",
        default=[],
        help="objects of the first frame, or of another one, by the numbers of its pixels; given again: of more frames",
    )
    footage.add_argument(
        "--points",
        metavar="[FRAME=]X,Y",
        type=_point,
        nargs="+",
        action="extend",
        default=[],
        help="points of the first frame, or of another one, in pixels from the upper left",
    )
    footage.add_argument("--truth", metavar="DIR", help="masks to compare with, a PNG of each frame")
    footage.add_argument(
        "--protocol",
        metavar="NAME",
        help="a named protocol whose settings are taken (default: track@1); track.key=value changes one",
    )
    footage.add_argument("--decoder", metavar="NAME", help="auto, pyav, torchcodec or decord (default: auto)")


def _at_frame(text: str) -> tuple[int, str]:
    """An argparse type: ``first.png`` or ``40=later.png``."""
    frame, path = _split(text)
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} must be a file, or FRAME=FILE")
    return frame, path


def _point(text: str) -> tuple[int, float, float]:
    """An argparse type: ``120,80`` or ``40=120,80``."""
    frame, place = _split(text)
    try:
        x, y = (float(number) for number in place.split(","))
    except ValueError:
        rule = "must be x,y or FRAME=x,y in pixels; settings stand before --points"
        raise argparse.ArgumentTypeError(f"{text!r} {rule}") from None
    return frame, x, y


def _split(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d+)=(.*)", text)
    return (int(match[1]), match[2]) if match else (0, text)


def _run(args: argparse.Namespace) -> None:
    """One of the two forms."""
    words = ([args.recipe] if args.recipe else []) + args.overrides
    recipe = args.recipe if args.recipe and "=" not in args.recipe else None
    used = [f"--{name}" for name in _FOOTAGE if getattr(args, name)]
    see = f"See: {args.parser.prog} --help"
    if args.video and recipe:
        raise UsageError(
            f"both RECIPE ({recipe}) and --video ({args.video}) are given: a recipe scores a data set, --video follows your own "
            f"footage. Leave one of them out; a named protocol for your own footage is --protocol {recipe}. {see}"
        )
    if args.video:
        terminal.print_result(_follow(args, words), as_json=args.json)
        return
    if used:
        raise UsageError(f"{used[0]} is for your own footage. Add --video FILE, or leave it out. {see}")
    if not recipe and not args.from_results:
        raise UsageError(f"neither RECIPE nor --video is given: name what is scored, or your own footage. {see}")
    for name in _FOOTAGE:
        delattr(args, name)
    run_frozen(args)


def _follow(args: argparse.Namespace, settings: list[str]) -> Any:
    """What ``ssvid.track_video`` returns for the options."""
    from ssvid.programs.footage import Footage
    from ssvid.programs.track_video import DEFAULT_PROTOCOL, protocol_values, track_video

    if other := next((option for name, option in _RECIPE.items() if getattr(args, name)), ""):
        raise UsageError(f"{other} is for recipes, and --video follows your own footage. Leave one of them out.")
    if args.untrained_stage:
        settings = [*settings, "track.untrained_stage=true"]
    if len(args.backbone) != 1:
        raise UsageError(
            f"--video needs one --backbone, {len(args.backbone)} are given. Name one: --backbone runs/mine"
        )
    if not args.out:
        raise UsageError("--video needs the name of the film that is written. Add --out tracked.mp4")
    masks = dict(args.mask)
    if len(masks) < len(args.mask):
        raise UsageError("two masks are given for one frame. Name the frames: --mask 0=first.png --mask 40=later.png")
    protocol = args.protocol or DEFAULT_PROTOCOL
    footage = Footage(args.video, masks, args.points, args.truth, args.decoder or "auto")
    return track_video(
        footage,
        backbone=args.backbone[0],
        out=Path(args.out),
        protocol=protocol_values(protocol, settings) if settings else protocol,
        backbone_name=args.backbone_name,
        partial=args.partial,
        device=args.device,
    )
