"""``ssvid layers``: one short video taken apart into layers, edited, put together again."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import UsageError, Verbs, positive, whole

_ABOUT = "take a short video apart into layers: remove, edit and retime objects with their shadows"
_FIT = """\
Fits layers to a short clip, at most 70 frames, without any training data. Either objects with their shadows and
reflections in front of a clean background (omnimatte, the default), or pictures of an object and of the background
that all frames are looked up in, so that what is painted on them sticks (atlas).

The object is given by one to three painted masks, which are carried to the other frames; by a mask of every frame;
or by boxes. The contact sheet masks.png is written before the fit: look at it. The folder gets layers as PNGs with
alpha, atlases, films, a page and a report with figures and warnings. Ctrl-C keeps what was done; --resume goes on.
"""
_FIT_EPILOG = """\
examples:
  ssvid layers fit street.mp4 --mask car.png --names car
  ssvid layers fit street.mp4 --mask 0=first.png --mask 23=last.png --kind atlas --out runs/street
  ssvid layers fit DAVIS/JPEGImages/480p/libby --masks DAVIS/Annotations/480p/libby --frames 30
  ssvid layers fit runs/street --resume
"""
_MASKS = """\
Writes the masks that a fit would take, and a contact sheet of them, without fitting anything. What is wrong can be
painted over; --masks of ssvid layers fit takes the folder.
"""
_MASKS_EPILOG = """\
example:
  ssvid layers masks street.mp4 --box 0=120,80,200,90 --out masks
"""
_COMPOSE = """\
Puts the layers of a folder together again, at the size of the video: without an object, in front of another background,
with a picture between ground and object, an object twice or with a trail, and each layer in a time of its own. The
options are applied in the order in which they stand in --help.
"""
_COMPOSE_EPILOG = """\
examples:
  ssvid layers compose runs/street --drop car --out empty.mp4
  ssvid layers compose runs/walk --insert logo.png@40,60 --gray-background --out logo.mp4
  ssvid layers compose runs/walk --time walker=0..23x2,hold:10 --out slow.mp4
  ssvid layers compose runs/two --time first=reverse --time second=none:5,all --out times.mp4
  ssvid layers compose runs/walk --time walker=speediness --checkpoint runs/mine --speed-up 2 --out fast.mp4
"""
_EDIT = """\
Brings edits of atlases to the frames of the video, at their full size. Paint on atlas/NAME.png of the folder in any
program, and give the picture: what differs is the edit. Or paint on a frame; or take a style, or a picture as texture.
"""
_EDIT_EPILOG = """\
examples:
  ssvid layers edit runs/swan --atlas swan=painted.png --out edited.mp4
  ssvid layers edit runs/swan --frame swan@7=painted.png --out edited.mp4
  ssvid layers edit runs/swan --style background=watercolor --texture swan=gold.jpg --out edited.mp4
"""
_SCENE = """\
Renders a scene whose layers are known: its frames, masks, what each layer and the background truly are, and points
that stick to what is seen. Many such scenes, encoded: ssvid data synth --motions layers.
"""
_SCENE_EPILOG = """\
examples:
  ssvid layers scene scene --kind walkers
  ssvid layers fit scene/video --masks scene/masks --out runs/scene
"""
_WHY = """\
Why layers come out: fits to rendered scenes whose layers are known, as a page with curves. What is learned first,
whose shadow goes where, and what each part of an Omnimatte and of atlases is for, beside what the lecture says. About
twelve minutes of a core's time. Each fit that has ended is kept: the same command goes on where it was stopped.
"""
_WHY_EPILOG = """\
examples:
  ssvid layers why --out why
  ssvid layers why --out why1 --only effects shadows --seed 1
"""


def add(verbs: Verbs) -> None:
    """Add the verb and the verbs below it."""
    parser = verbs.parsers.add_parser(
        "layers",
        help=_ABOUT,
        description="Take one short video apart into layers, edit them, put them together again.",
        epilog="examples:\n  ssvid layers fit street.mp4 --mask car.png --names car --out runs/street\n"
        "  ssvid layers compose runs/street --drop car --out empty.mp4\n",
        parents=[verbs.common],
    )
    parsers = parser.add_subparsers(dest="layers_verb", metavar="VERB", title="verbs", required=True)
    below = Verbs(parsers, verbs.common)
    _add_fit(below)
    _add_masks(below)
    _add_edit(below)
    _add_compose(below)
    _add_scene(below)
    _add_why(below)
    parser.set_defaults(parser=parser)


def _add_fit(verbs: Verbs) -> None:
    parser = verbs.add("fit", _fit, "a video and masks to layers", _FIT, _FIT_EPILOG)
    parser.add_argument(
        "video", metavar="VIDEO", help="a video, or a folder of numbered pictures; with --resume a folder of a fit"
    )
    _add_footage(parser)
    parser.add_argument("--kind", choices=("omnimatte", "atlas"), default="omnimatte", help="default: omnimatte")
    parser.add_argument(
        "--steps", metavar="N", type=whole(0), default=0, help="of the fit (default: 500 omnimatte, 1000 atlas)"
    )
    parser.add_argument(
        "--short-side",
        metavar="PX",
        type=whole(0),
        default=0,
        help="of the frames that are fitted (default: 80 omnimatte, 90 atlas)",
    )
    parser.add_argument(
        "--preset",
        choices=("fast", "published"),
        default="fast",
        help="of an atlas: fast, or the structure of the paper (default: fast)",
    )
    parser.add_argument(
        "--camera", choices=("auto", "static", "moving"), default="auto", help="whether it moves (default: look)"
    )
    parser.add_argument("--seed", metavar="N", type=whole(0), default=0, help="default: 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted fit: name its folder in place of VIDEO"
    )
    parser.add_argument("--out", metavar="DIR", help="new folder to write (default: runs/layers, numbered)")


def _add_masks(verbs: Verbs) -> None:
    parser = verbs.add("masks", _masks, "see the masks before a fit", _MASKS, _MASKS_EPILOG)
    parser.add_argument("video", metavar="VIDEO", help="a video, or a folder of numbered pictures")
    _add_footage(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder of masks; DIR.png is the sheet")


def _add_footage(parser: argparse.ArgumentParser) -> None:
    """Which frames, and where the objects are."""
    parser.add_argument(
        "--mask",
        metavar="[FRAME=]FILE",
        type=_at_frame,
        action="append",
        default=[],
        help="a painted mask of the first frame, or of another one: white on black, with alpha, or numbers of objects; given again: of more "
        "frames",
    )
    parser.add_argument("--masks", metavar="DIR", help="a folder with a mask for each frame")
    parser.add_argument(
        "--box",
        metavar="[NAME@]FRAME=X,Y,W,H",
        type=_box,
        action="append",
        default=[],
        help="a box around the object in a frame; given again: of more frames, or of more objects",
    )
    parser.add_argument(
        "--names", metavar="NAME", nargs="+", default=[], help="of the objects, by their numbers; the first is in front"
    )
    parser.add_argument(
        "--start", metavar="N", type=whole(0), default=None, help="the first frame that is taken (default: 0)"
    )
    parser.add_argument("--frames", metavar="N", type=whole(1), default=24, help="how many (default: 24)")
    parser.add_argument("--stride", metavar="N", type=whole(1), default=1, help="every Nth frame (default: 1)")
    parser.add_argument(
        "--decoder", metavar="NAME", default="auto", help="auto, pyav, torchcodec or decord (default: auto)"
    )


def _add_compose(verbs: Verbs) -> None:
    parser = verbs.add("compose", _compose, "layers to a film", _COMPOSE, _COMPOSE_EPILOG)
    parser.add_argument("folder", metavar="DIR", help="a folder of ssvid layers fit")
    parser.add_argument(
        "--drop", metavar="NAME", action="append", default=[], help="leave an object out, with its shadow"
    )
    background = parser.add_mutually_exclusive_group()
    background.add_argument("--background", metavar="FILE", help="a picture in the place of the background")
    background.add_argument("--gray-background", action="store_true", help="the background without color")
    parser.add_argument(
        "--insert",
        metavar="FILE@X,Y",
        type=_placed,
        action="append",
        default=[],
        help="a picture on the ground behind all objects, its corner at x, y of the first frame; it stays there when the camera moves",
    )
    parser.add_argument("--time", metavar="NAME=MAP", type=_pair, action="append", default=[], help=_TIME_HELP)
    parser.add_argument(
        "--clone",
        metavar="NAME=DX,DY",
        type=_shift,
        action="append",
        default=[],
        help="an object once more, so many px away",
    )
    parser.add_argument(
        "--trail",
        metavar="NAME=EVERY,COUNT",
        type=_counts,
        action="append",
        default=[],
        help="COUNT fading copies, each EVERY frames earlier",
    )
    parser.add_argument("--checkpoint", metavar="PATH", help="a run of the task speediness, for --time NAME=speediness")
    parser.add_argument(
        "--speed-up", metavar="X", type=positive, default=2.0, help="of --time NAME=speediness (default: 2)"
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="new film to write, .mp4")


_TIME_HELP = (
    "show an object, or the background, in its own time: frames 3..9 or 9..3, all, reverse, each with xFACTOR; hold:N, none:N; parts with "
    "commas between them; or speediness"
)


def _add_edit(verbs: Verbs) -> None:
    parser = verbs.add("edit", _edit, "edits of atlases to a film", _EDIT, _EDIT_EPILOG)
    parser.add_argument("folder", metavar="DIR", help="a folder of ssvid layers fit --kind atlas")
    parser.add_argument(
        "--atlas", metavar="NAME=FILE", type=_pair, action="append", default=[], help="an atlas that was painted on"
    )
    parser.add_argument(
        "--frame",
        metavar="NAME@FRAME=FILE",
        type=_framed,
        action="append",
        default=[],
        help="paint over a frame of the video, with alpha around it or on a copy of the frame: it sticks to the layer NAME",
    )
    parser.add_argument(
        "--style",
        metavar="NAME=STYLE",
        type=_pair,
        action="append",
        default=[],
        help="watercolor, pencil or poster, of a layer",
    )
    parser.add_argument(
        "--texture",
        metavar="NAME=FILE",
        type=_pair,
        action="append",
        default=[],
        help="a picture in the place of an atlas",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="new film to write, .mp4")


def _add_scene(verbs: Verbs) -> None:
    parser = verbs.add("scene", _scene, "render a scene whose layers are known", _SCENE, _SCENE_EPILOG)
    parser.add_argument("out", metavar="OUT", help="new folder to write")
    parser.add_argument(
        "--kind",
        choices=("walkers", "walker", "panning", "bodies", "bending"),
        default="walkers",
        help="two objects with shadows, one, one while the camera pans; two bodies that turn and grow, or bend too, before a ground that "
        "pans (default: walkers)",
    )
    parser.add_argument("--frames", metavar="N", type=whole(2), default=20, help="default: 20")
    parser.add_argument("--seed", metavar="N", type=whole(0), default=0, help="default: 0")


def _add_why(verbs: Verbs) -> None:
    parser = verbs.add("why", _why, "why it works: cases and ablations as a page", _WHY, _WHY_EPILOG)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="new folder, or one that was begun; why.html is the page"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("effects", "shadows", "omnimatte", "atlas"),
        default=[],
        help="parts of the page: what is learned first, whose shadow goes where, the ablation of an Omnimatte, that of atlases (default: all)",
    )
    parser.add_argument("--seed", metavar="N", type=whole(0), default=0, help="of scenes and fits (default: 0)")
    parser.add_argument(
        "--iterations", metavar="N", type=whole(0), default=0, help="steps of every fit, for a try (default: as usual)"
    )


# ---- types


def _at_frame(text: str) -> tuple[int | None, str]:
    """An argparse type: ``first.png`` or ``40=later.png``."""
    match = re.fullmatch(r"(\d+)=(.+)", text)
    return (int(match[1]), match[2]) if match else (None, text)


def _box(text: str) -> tuple[str, int, tuple[int, int, int, int]]:
    match = re.fullmatch(r"(?:([^@=]+)@)?(\d+)=(\d+),(\d+),(\d+),(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be FRAME=X,Y,WIDTH,HEIGHT or NAME@FRAME=X,Y,WIDTH,HEIGHT in pixels"
        )
    x, y, width, height = (int(match[number]) for number in range(3, 7))
    return match[1] or "", int(match[2]), (x, y, width, height)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    return name, value


def _placed(text: str) -> tuple[str, float, float]:
    match = re.fullmatch(r"(.+)@(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} must be FILE@X,Y in pixels")
    return match[1], float(match[2]), float(match[3])


def _framed(text: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"([^@=]+)@(\d+)=(.+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME@FRAME=FILE")
    return match[1], int(match[2]), match[3]


def _shift(text: str) -> tuple[str, float, float]:
    name, (x, y) = _two_numbers(text, "NAME=DX,DY in pixels")
    return name, x, y


def _counts(text: str) -> tuple[str, int, int]:
    rule = "NAME=EVERY,COUNT, whole numbers of at least 1"
    name, (every, count) = _two_numbers(text, rule)
    if every != int(every) or count != int(count) or min(every, count) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be {rule}")
    return name, int(every), int(count)


def _two_numbers(text: str, rule: str) -> tuple[str, tuple[float, float]]:
    name, value = _pair(text)
    try:
        first, second = (float(part) for part in value.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be {rule}") from None
    return name, (first, second)


# ---- running


def _footage(args: argparse.Namespace) -> Any:
    from ssvid.programs.layers_footage import LayerFootage

    start = args.start or 0
    masks = {start if frame is None else frame: path for frame, path in args.mask}
    if len(masks) < len(args.mask):
        raise UsageError("two masks are given for one frame. Name the frames: --mask 0=first.png --mask 12=middle.png")
    names = {"masks": masks, "masks_folder": args.masks, "boxes": args.box, "names": args.names}
    window = {"start": start, "num_frames": args.frames, "stride_frames": args.stride}
    return LayerFootage(args.video, **names, **window, decoder=args.decoder)


def _fit(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_fit import LayerSettings, fit_layers, resume_layers

    if args.resume:
        if args.mask or args.masks or args.box or args.out:
            raise UsageError(
                "--resume goes on with a fit as it was begun, and takes no masks, boxes or --out. Name its folder alone: ssvid layers fit DIR --resume"
            )
        terminal.print_result(resume_layers(args.video), as_json=args.json)
        return
    settings = LayerSettings(args.kind, args.steps, args.short_side, args.preset, args.camera, args.seed, args.device)
    terminal.print_result(fit_layers(_footage(args), settings=settings, out=args.out), as_json=args.json)


def _masks(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_fit import preview_masks

    sheet = preview_masks(_footage(args), args.out)
    if args.json:
        terminal.print_json({"masks": args.out, "sheet": sheet})
        return
    print(f"masks: {args.out}\nsheet: {sheet}")


def _compose(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_compose import Composition, Speediness, compose_layers

    speediness = Speediness(args.checkpoint, args.speed_up) if args.checkpoint else None
    composition = Composition(
        drop=args.drop,
        background=args.background,
        gray_background=args.gray_background,
        inserts=args.insert,
        times=dict(args.time),
        clones=args.clone,
        trails=args.trail,
        speediness=speediness,
    )
    if len(composition.times) < len(args.time):
        raise UsageError("two times are given for one layer. Give one for each, its parts with commas between them.")
    terminal.print_result(compose_layers(args.folder, composition, args.out), as_json=args.json)


def _edit(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_edit import Edits, edit_layers

    edits = Edits(args.atlas, args.frame, args.style, args.texture)
    terminal.print_result(edit_layers(args.folder, edits, args.out), as_json=args.json)


def _scene(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_scene import write_scene

    result = write_scene(Path(args.out), args.kind, num_frames=args.frames, seed=args.seed)
    terminal.print_result(result, as_json=args.json)


def _why(args: argparse.Namespace) -> None:
    from ssvid.programs.layers_why import explain_layers

    result = explain_layers(args.out, only=args.only, seed=args.seed, iterations=args.iterations)
    terminal.print_result(result, as_json=args.json)
