"""``ssvid data``: make synthetic videos, fetch a data set, join frames to videos, or index what one has."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.download import add_download
from ssvid.cli.flow import add_flow
from ssvid.cli.join_frames import add_join_frames
from ssvid.cli.parser import Verbs, positive, reader_name, whole
from ssvid.cli.tapvid import add_tapvid
from ssvid.errors import DataError
from ssvid.files import expanded

_SYNTH = """\
Renders and encodes an action data set whose classes are motions: train and test split, manifest.csv, and the ground
truth (speed, order, masks, tracks) beside the videos. The same seed gives the same pixels.
"""
_SYNTH_EPILOG = """\
example:
  ssvid data synth videos/synthetic --train 800 --test 200 --seed 1
"""
_INDEX = """\
Decodes every video (a file, or a folder of pictures) once and writes manifest.csv: true number of frames, fps, size,
label, content identity, and which decoders return the right frames. Files that have not changed are taken from a cache.

Readers (--reader NAME), also those of other packages:

{readers}

With --motion the optical flow and small pictures of every frame are measured too, for tasks that plan from them, and
kept in the cache. A table that exists is then kept as it is, and the motion of its videos is measured.
"""
_INDEX_EPILOG = """\
examples:
  ssvid data index videos
  ssvid data index videos --reader class_folder -o videos.csv
  ssvid data index videos --reader list --list train.txt -o train.csv
  ssvid data index data/ucf101 --reader ucf101 --fold 2 -o ucf101-2.csv
  ssvid data index videos --motion
  ssvid data index depth --gray-range 0 4095
  ssvid data index DAVIS/JPEGImages/480p --fps 24
"""


def add(verbs: Verbs) -> None:
    """Add the verb and the verbs below it."""
    parser = verbs.parsers.add_parser(
        "data",
        help="make synthetic videos, fetch a data set, or index what you have",
        description="Make synthetic videos, fetch a data set, or index what you have.",
        epilog="examples:\n  ssvid data index videos\n  ssvid data download ucf101 data/ucf101\n",
        parents=[verbs.common],
    )
    parsers = parser.add_subparsers(dest="data_verb", metavar="VERB", title="verbs", required=True)
    below = Verbs(parsers, verbs.common)
    _add_synth(below)
    add_download(below)
    add_join_frames(below)
    add_tapvid(below)
    _add_index(below)
    add_flow(below)
    parser.set_defaults(parser=parser)


def _add_synth(verbs: Verbs) -> None:
    parser = verbs.add("synth", run_synth, "render and encode a synthetic action data set", _SYNTH, _SYNTH_EPILOG)
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not exist or be empty")
    parser.add_argument("--train", metavar="N", type=whole(0), default=400, help="training videos (default: 400)")
    parser.add_argument("--test", metavar="N", type=whole(0), default=200, help="test videos (default: 200)")
    parser.add_argument("--seconds", metavar="S", type=positive, default=3.0, help="length of each (default: 3)")
    parser.add_argument("--size", metavar="PX", type=whole(32), default=128, help="side in pixels (default: 128)")
    parser.add_argument("--seed", metavar="N", type=whole(0), default=0, help="default: 0")
    parser.add_argument(
        "--motions",
        choices=("everyday", "directions", "irreversible", "actions", "layers"),
        default="everyday",
        help="the classes: ten everyday motions (default); eight directions, of which no single frame tells; six motions that "
        "cannot run backward; four actions with known phases; or five scenes whose layers are known",
    )
    parser.add_argument(
        "--tempo", metavar="X", type=positive, default=1.0, help="everything moves X times as fast (default: 1)"
    )
    parser.add_argument("--workers", metavar="N", type=whole(0), default=0, help="processes (default: one per core)")


def _add_index(verbs: Verbs) -> None:
    parser = verbs.add("index", run_index, "scan videos and write manifest.csv", _describe_index, _INDEX_EPILOG)
    parser.add_argument("root", metavar="ROOT", help="folder of videos (files, or folders of pictures), at any depth")
    parser.add_argument("-o", "--out", metavar="FILE", help="table to write (default: ROOT/manifest.csv)")
    parser.add_argument(
        "--reader",
        metavar="NAME",
        type=reader_name(),
        default="folder",
        help="how ROOT is laid out, one of those above (default: folder)",
    )
    parser.add_argument("--list", metavar="FILE", help="the list, for a reader that takes one")
    parser.add_argument(
        "--fold",
        metavar="N",
        type=whole(1),
        default=1,
        help="official split of ucf101, hmdb51 and the like (default: 1)",
    )
    parser.add_argument(
        "--annotations", metavar="FOLDER", default="", help="the official split files (default: looked for near ROOT)"
    )
    parser.add_argument("--allow-missing", action="store_true", help="do without listed videos that ROOT lacks")
    parser.add_argument("--workers", metavar="N", type=whole(0), default=0, help="processes (default: one per core)")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive,
        default=60.0,
        help="a file hangs in which nothing moves for so long: no packet, no frame (default: 60)",
    )
    parser.add_argument(
        "--gray-range",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=whole(0),
        default=(),
        help="stretch gray videos of 9 to 16 bits (depth, X-ray, thermal): LOW becomes black, HIGH white (default: their "
        "upper 8 bits are kept)",
    )
    parser.add_argument(
        "--fps",
        metavar="N",
        type=positive,
        default=None,
        help="frames per second of folders of pictures, which do not tell it (default: 25)",
    )
    parser.add_argument("--motion", action="store_true", help="also measure the motion in every frame (needs OpenCV)")
    parser.add_argument("--no-cache", action="store_true", help="scan, and measure, every file again")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")


def _describe_index() -> str:
    from ssvid.data.readers import list_readers

    return _INDEX.format(readers=terminal.columns([(r.name, r.about) for r in list_readers()], indent="  "))


def run_synth(args: argparse.Namespace) -> None:
    """Make the videos and print where they are."""
    from ssvid.data.synth import SyntheticVideos, synthesize

    if args.train + args.test == 0:
        raise DataError("--train (0) and --test (0) must not both be 0: there would be no video. Set --train 400.")
    out = Path(expanded(args.out))
    with terminal.progress("videos") as report:
        more = {"size_px": args.size, "seed": args.seed, "motions": args.motions, "tempo": args.tempo}
        videos = SyntheticVideos(args.train, args.test, args.seconds, **more)
        manifest = synthesize(out, videos, workers=args.workers, progress=report)
    _print_manifest(manifest, out / "manifest.csv", as_json=args.json)


def run_index(args: argparse.Namespace) -> None:
    """Scan the videos, write the table, print what was found; measure their motion where that is asked for."""
    from ssvid.data.manifest import Manifest

    root = Path(expanded(args.root))
    out = Path(expanded(args.out)) if args.out else root / "manifest.csv"
    if out.is_dir():
        raise DataError(f"-o ({out}) is a folder, and the table is one file. Name a file: -o {out / 'manifest.csv'}")
    keep = out.exists() and not args.overwrite
    if keep and (args.gray_range or args.fps or not args.motion):
        raise DataError(f"{out} exists and would be replaced. Add --overwrite, or write elsewhere with -o FILE.")
    if args.motion:
        from ssvid.video.optical_flow import require_opencv

        require_opencv()  # before an hour of scanning
    manifest = Manifest.load(out, root) if keep else _scan(args, root, out)
    _print_manifest(manifest, out, as_json=args.json, kept=keep, signals=_measure(args, manifest))


def _scan(args: argparse.Namespace, root: Path, out: Path) -> Any:
    """The table of the videos below a folder, written."""
    from ssvid.data.index.building import build_manifest
    from ssvid.data.readers import OfficialSplit, list_videos
    from ssvid.video.frame_folders import PICTURES_FPS

    official = OfficialSplit(args.fold, args.annotations, args.allow_missing)
    listing = list_videos(args.reader, root, Path(args.list) if args.list else None, official=official)
    for note in listing.notes():
        terminal.say(f"note: {note}")
    with terminal.progress("scanning") as report:
        manifest = build_manifest(
            root,
            listing.at_rate(args.fps or PICTURES_FPS),
            workers=args.workers,
            timeout_seconds=args.timeout,
            cache=not args.no_cache,
            progress=report,
            gray_range=args.gray_range,
        )
    manifest.save(out)
    return manifest


def _measure(args: argparse.Namespace, manifest: Any) -> Any:
    """Measure the motion of a table's videos; None where nobody asked for it."""
    if not args.motion:
        return None
    from ssvid.data.index.signals import measure_signals_of

    with terminal.progress("measuring motion") as report:
        return measure_signals_of(
            manifest, workers=args.workers, timeout_seconds=args.timeout, cache=not args.no_cache, progress=report
        )


def _print_manifest(manifest: Any, path: Path, *, as_json: bool, kept: bool = False, signals: Any = None) -> None:
    from ssvid.data.summary import summarize

    if not as_json:
        print(summarize(manifest))
        if signals:
            print(f"motion: measured in {signals.num_measured} files, remembered of {signals.num_remembered}")
            for name, reason in signals.failed.items():
                print(f"  not measured: {name}: {reason}")
        print(f"{'kept' if kept else 'written'}: {path}")
        return
    unreadable = {row.path: row.status for row in manifest.rows if not row.is_readable}
    terminal.print_json(
        {
            "manifest": path,
            "sha256": manifest.sha256(),
            "num_videos": len(manifest),
            "num_unreadable": len(unreadable),
            "unreadable": unreadable,
            "notes": {row.path: row.notes for row in manifest.rows if row.notes},
            "missing": manifest.missing,
            "labels": manifest.labels(),
            "splits": manifest.splits(),
            **({"motion": asdict(signals)} if signals else {}),
        }
    )
