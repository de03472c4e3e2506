"""``embed``: a folder, a file, a table or a list of videos -> frozen features, clip by clip, in one file."""

from __future__ import annotations

import codecs
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import COLUMNS, Manifest
from ssvid.data.readers import Entry, Listing, list_videos
from ssvid.data.readers.folders import SPLIT_FOLDERS
from ssvid.data.readers.matching import VIDEO_EXTENSIONS, is_clip
from ssvid.errors import DataError
from ssvid.exports import load_backbone
from ssvid.features.file import EmbedProtocol, EmbedResult, checked_out, embed_videos
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol
from ssvid.files import takes_paths
from ssvid.progress import Say, every_tenth, files_every_tenth, speaker
from ssvid.ranks import cores_for_network, resolve_device
from ssvid.video.decoders.choice import resolve_decoder
from ssvid.video.frame_folders import PICTURES_FPS

AUTO = "auto"


@takes_paths("videos", "backbone", "out", "root")
def embed(
    videos: str | Path,
    *,
    backbone: str | Path,
    out: str | Path,
    backbone_name: str | None = None,
    root: str | Path | None = None,
    reader: str = AUTO,
    fps: float = PICTURES_FPS,
    num_clips: int = 1,
    every_seconds: float = 0.0,
    num_frames: int = 0,
    stride_frames: int = 1,
    resize_px: int = 0,
    crop_px: int = 0,
    stages: str = "trained",
    untrained_stage: bool = False,
    pool: str = "avg",
    decoder: str = "auto",
    partial: bool = False,
    device: str = "auto",
    batch_size: int = 8,
    workers: int = 2,
    keep_parts: bool = False,
    show_progress: bool = True,
) -> EmbedResult:
    """Write the frozen features of every clip to one file; an interrupted call goes on where it stopped.

    Args:
        videos: a folder (every video below it), one video (a file, or a folder of pictures), a manifest.csv, or a list of
            paths.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` names the network).
        out: ``.npz`` or ``.parquet``; never overwritten.
        root: folder that the paths of a table or list are relative to; its own folder where None.
        reader: of a folder (``data.name``): it fills the columns label and split. ``auto`` is ``class_folder`` where the
            folder holds train/<class>/ and test/<class>/ (or val), else ``folder``, which knows no labels.
        fps: frames per second of folders of pictures, which do not tell it.
        num_clips: per video, spread evenly; one alone is central. every_seconds: above 0, instead one clip every so often.
        num_frames, resize_px, crop_px: of each clip; 0 is what the backbone is meant for. stride_frames: between frames.
        stages: ``trained``, ``all`` or names joined by commas. untrained_stage: allow those that were never trained.
        pool: ``avg``; ``avgmax`` for mean and maximum side by side; ``max1x2x2`` for maxima of blocks of cells, flattened;
            ``frames`` for the mean over space of each frame, one after the other.
        decoder: ``auto``, or one that is right for every file. partial: accept weights that fill a part only.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. batch_size: clips per pass. workers: reading processes.
        keep_parts: leave the folder ``<out>.parts``, so that a later call with more videos computes only those.

    Raises:
        SsvidError: any mistake in the options, the weights or the videos; or no video is readable.
        KeyboardInterrupt: on Ctrl-C; its text says how to go on.
    """
    started = time.perf_counter()
    out, say, device = checked_out(out), speaker(show_progress), resolve_device(device)
    network = load_backbone(backbone, name=backbone_name, partial=partial)
    asked = EmbedProtocol(
        FeatureProtocol(
            num_frames=num_frames or network.info.num_frames,
            stride_frames=stride_frames,
            num_clips=num_clips,
            resize_px=resize_px,
            crop_px=crop_px,
            stages=stages,
            untrained_stage=untrained_stage,
            pool=pool,
            decoder=decoder,
            batch_size=batch_size,
            workers=workers,
        ),
        every_seconds,
    )
    stage = network.provenance.get("stage")
    try:
        resolve_feature_protocol(asked.features, network.info, stage, group="")  # before hours of scanning find out
        resolve_decoder(decoder)
        manifest = list_and_scan(videos, root, say, reader=reader, fps=fps)
        with cores_for_network(device, workers):
            told = every_tenth(say, "clips")
            result = embed_videos(
                network, manifest, asked, out, device=device, trained_stage=stage, keep_parts=keep_parts, progress=told
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Run the same command again to go on; what is done is in {out}.parts.") from None
    return replace(result, seconds=round(time.perf_counter() - started, 2))


def list_and_scan(
    videos: str | Path,
    root: str | Path | None = None,
    say: Say | None = None,
    *,
    reader: str = AUTO,
    fps: float = PICTURES_FPS,
) -> Manifest:
    """The table of a folder, of one video, of a manifest.csv or of a list of paths; new files are scanned.

    A folder that itself holds two pictures or more and no video file is one video.

    Raises:
        DataError: there is no such thing, or nothing in it is a readable video.
    """
    path = Path(videos)
    if not path.exists():
        raise DataError(f"VIDEOS ({videos}) does not exist. Name a folder, a video, a manifest.csv or a list of paths.")
    if root is not None and (path.is_dir() or is_video(path)):
        raise DataError(f"root ({root}) is for tables and lists, and {videos} is neither. Leave it out.")
    base = Path(root) if root is not None else path.parent
    if path.is_file() and not is_video(path) and _is_manifest(path):
        return Manifest.load(path, base)
    if reader != AUTO and not path.is_dir():
        raise DataError(f"reader ({reader}) is for folders, and {videos} is a file. Leave it out.")
    if path.is_dir() and reader == AUTO and is_clip(path):
        base, entries = path.absolute().parent, Listing([Entry(path.absolute().name)])
    elif path.is_dir():
        base, entries = path, _list_folder(path, reader)
    elif is_video(path):
        entries = Listing([Entry(path.name)])
    else:
        entries = list_videos("list", base, path)

    entries = entries.at_rate(fps)
    if say is None:
        return build_manifest(base, entries)
    for note in entries.notes():
        say(f"note: {note}")
    return build_manifest(base, entries, progress=files_every_tenth(say, "scanning videos"))


def _list_folder(folder: Path, reader: str) -> Listing:
    """The videos of a folder, with labels and splits where ``reader`` or the names of its folders tell them."""
    if reader != AUTO:
        return list_videos(reader, folder)
    tops = {child.name.lower() for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")}
    if tops and tops <= set(SPLIT_FOLDERS):
        with suppress(DataError):  # deeper folders, or videos beside those of the splits: no labels
            return list_videos("class_folder", folder)
    return list_videos("folder", folder)


def is_video(path: Path) -> bool:
    """Whether a file is to be read as a video: by its ending, or because it is no text and so no list."""
    if path.suffix.lower() in (*VIDEO_EXTENSIONS, ".gif"):
        return True
    with open(path, "rb") as file:
        start = file.read(4096)
    return b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _is_manifest(path: Path) -> bool:
    """Whether the first line is a manifest's header, in any order."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = {name.strip().strip('"') for name in file.readline(10_000).split(",")}
    return len(header & set(COLUMNS)) > len(COLUMNS) // 2
