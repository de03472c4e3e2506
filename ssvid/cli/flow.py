"""``ssvid data flow``: measure the optical flow of videos once, for clips of flow in the place of pictures."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import Verbs, positive, reader_name, whole
from ssvid.errors import DataError
from ssvid.files import expanded
from ssvid.video.flow import METHODS, FlowSettings

_DESCRIPTION = """\
Measures the motion from each frame to the next, of every video below ROOT, and keeps it in the cache folder, by the
content of the files. What is there is not measured again, so that this goes on where it was interrupted. Recipes read
it with data.modality=flow.

Frames are brought to a short side first. Motion is kept in pixels of that size, cut to the bound, in 8 bits: a value is
off by at most bound / 254. --method dis needs OpenCV (pip install 'ssvid[motion]'); raft_small and raft_large also need
torchvision's weights in torch's folder of downloads. Nothing is downloaded.
"""
_EPILOG = """\
examples:
  ssvid data flow videos
  ssvid data flow videos --short-side 256 --workers 8
  ssvid data flow videos --picture flow.png
"""
_SHOWN = 4  # videos in the picture


def add_flow(verbs: Verbs) -> None:
    """Add the verb."""
    usual = FlowSettings()
    parser = verbs.add("flow", run, "measure the optical flow of videos once", _DESCRIPTION, _EPILOG)
    parser.add_argument("root", metavar="ROOT", help="folder of videos; ROOT/manifest.csv is taken where it is there")
    parser.add_argument("--table", metavar="FILE", help="a table of ssvid data index that lies elsewhere")
    parser.add_argument(
        "--reader", metavar="NAME", type=reader_name(), help="take the videos that this reader lists, not the table's"
    )
    parser.add_argument("--method", choices=METHODS, default=usual.method, help=f"default: {usual.method}")
    parser.add_argument(
        "--short-side",
        metavar="PX",
        type=whole(16),
        default=usual.short_side_px,
        help=f"of the frames that motion is measured on (default: {usual.short_side_px})",
    )
    parser.add_argument(
        "--bound",
        metavar="PX",
        type=positive,
        default=usual.bound_px,
        help="the longest motion that is kept, to each side (default: 20 at 256 px, in proportion)",
    )
    parser.add_argument(
        "--symmetric",
        action="store_true",
        help="measure alike in both directions of time, which costs twice as much: data.flow.symmetric=true",
    )
    parser.add_argument(
        "--gray-range", metavar=("LOW", "HIGH"), nargs=2, type=whole(0), default=(), help="as of ssvid data index"
    )
    parser.add_argument("--workers", metavar="N", type=whole(0), default=0, help="processes (default: one per core)")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive,
        default=120.0,
        help="a file hangs in which nothing moves so long (default: 120)",
    )
    parser.add_argument("--no-cache", action="store_true", help="measure every file again")
    parser.add_argument("--picture", metavar="FILE", help="also draw frames and their flow as colors, as a .png")


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and say what is kept, where, and what it took."""
    from ssvid.data.index.flow import kept_flow, measure_flow_of
    from ssvid.data.index.places import flow_folder

    settings = FlowSettings(args.method, args.short_side, args.bound, symmetric=args.symmetric)
    picture = _picture_path(args.picture)
    manifest = _videos(args)
    before, started = kept_flow(manifest, settings), time.perf_counter()
    num_files = len({row.content_id for row in manifest.select().rows})
    terminal.say(
        f"{'symmetric ' * settings.symmetric}flow by {settings.method}, short side {settings.short_side_px} px, up to {settings.most_px:g} px a frame:"
        f" {before.num_files if not args.no_cache else 0} of {num_files} files are measured"
    )
    options = {"workers": args.workers, "timeout_seconds": args.timeout, "cache": not args.no_cache}
    with terminal.progress("measuring flow") as report:
        measured = measure_flow_of(manifest, settings, progress=report, **options)
    seconds, kept = time.perf_counter() - started, kept_flow(manifest, settings)
    if picture:
        _draw(manifest, settings, picture)
    facts = {
        "folder": flow_folder(settings),
        "seconds": seconds,
        "picture": picture,
        **asdict(measured),
        "kept": kept._asdict(),
    }
    if args.json:
        terminal.print_json(facts)
        return
    print(
        f"flow: measured in {measured.num_measured} files in {seconds:.0f} s, remembered of {measured.num_remembered}"
    )
    for name, reason in measured.failed.items():
        print(f"  not measured: {name}: {reason}")
    print(
        f"kept: {kept.num_bytes / 1e6:.1f} MB of {kept.num_frames} frames, {kept.seconds / 60:.1f} min of video, in"
        f" {flow_folder(settings)}"
    )
    if picture:
        print(f"picture: {picture}")


def _videos(args: argparse.Namespace) -> Any:
    """The table of the videos: as it was written, or from a scan that writes none."""
    from ssvid.data.index.building import build_manifest
    from ssvid.data.manifest import Manifest
    from ssvid.data.readers import list_videos

    root = Path(expanded(args.root))
    if not root.is_dir():
        raise DataError(
            f"ROOT ({root}) must be a folder of videos, and there is none. Name one: ssvid data flow FOLDER."
        )
    if args.table and args.reader:
        raise DataError(
            f"--table ({args.table}) and --reader ({args.reader}) both say which videos are meant. Leave one out."
        )
    table = Path(expanded(args.table)) if args.table else root / "manifest.csv"
    if args.table or (table.is_file() and not args.reader):
        manifest = Manifest.load(table, root)
        manifest.check_files()
        return manifest
    with terminal.progress("scanning") as report:
        return build_manifest(
            root,
            list_videos(args.reader or "folder", root, None),
            workers=args.workers,
            timeout_seconds=args.timeout,
            progress=report,
            gray_range=args.gray_range,
        )


def _picture_path(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(expanded(text))
    if path.suffix.lower() != ".png" or path.is_dir():
        raise DataError(f"--picture ({text}) must name a file that ends in .png, such as flow.png.")
    return path


def _draw(manifest: Any, settings: FlowSettings, path: Path) -> None:
    from ssvid.data.flow_sheet import flow_sheet
    from ssvid.data.index.places import flow_path
    from ssvid.files import write_picture

    rows = [row for row in manifest.select().rows if flow_path(row, settings).is_file()]
    shown = [rows[i * len(rows) // min(_SHOWN, len(rows))] for i in range(min(_SHOWN, len(rows)))]
    sheet = flow_sheet(manifest, shown, settings)
    write_picture(path, sheet)
