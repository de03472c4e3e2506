"""The clips of videos for a frozen network, read by worker processes one video at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as pixels

from ssvid.data.index.scan_cache import changed_files
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, DecodeError
from ssvid.features.protocol import FeatureProtocol
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.video import (
    clip_indices,
    evenly_spaced_clips,
    is_padded,
    open_video,
    read_clips,
    resolve_decoder,
)


class ClipItem(NamedTuple):
    """What one video gave: its clips, or the reason why it gave none."""

    position: int
    clips_VTCHW: Tensor | None
    reason: str = ""


class Read(NamedTuple):
    """Clips to be read from one opened file. starts: their first frames, counted from the start of the row's window."""

    row: VideoRow
    starts: np.ndarray


def even_starts(row: VideoRow, protocol: FeatureProtocol) -> np.ndarray:
    """Where the evenly spaced clips of a video start; nowhere where the index could not read it."""
    if not row.is_readable:
        return np.empty(0, dtype=np.int64)
    p = protocol
    clips = evenly_spaced_clips(row.window_frames, p.num_clips, p.num_frames, p.stride_frames)
    return np.array([clip[0] for clip in clips], dtype=np.int64)


class _ClipDataset(Dataset):
    """The clips of one read per item, uint8. Holds plain values only, so that any start method can pickle it."""

    def __init__(self, manifest: Manifest, reads: Sequence[Read], protocol: FeatureProtocol) -> None:
        self.root, self.reads, self.protocol = manifest.root, tuple(reads), protocol

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: int) -> ClipItem:
        row = self.reads[index].row
        if not row.is_readable:
            return ClipItem(index, None, row.status)
        try:
            return ClipItem(index, self._read(*self.reads[index]))
        except DecodeError as error:
            return ClipItem(index, None, str(error))

    def _read(self, row: VideoRow, starts: np.ndarray) -> Tensor:
        p = self.protocol
        clips = [
            clip_indices(int(start), p.num_frames, p.stride_frames)[frame_order(p, row, int(start))] for start in starts
        ]
        # Only where the window is shorter than a clip does this repeat a frame, its last.
        shifted = [np.minimum(clip, row.window_frames - 1) + row.start_frame for clip in clips]
        whole = replace(row, start_frame=0, end_frame=-1).video_info(self.root)
        with open_video(whole.path, p.decoder, info=whole, decoders_ok=row.decoders_ok) as reader:
            read = torch.stack(read_clips(reader, shifted))
        return _jittered(read, row, starts) if "color_jitter" in p.defects else read


def frame_order(protocol: FeatureProtocol, row: VideoRow, start: int) -> np.ndarray:
    """Which frame of a clip is shown at each moment: int64 (num_frames,). The same for every network and run."""
    return shown_positions(protocol.frames, protocol.num_frames, _addressed(row, start))


def shown_positions(frames: str, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """What ``frames`` of a protocol makes of 0 ... num_frames - 1; only "shuffled" draws."""
    positions = np.arange(num_frames)
    if frames == "single_frame":
        return np.full_like(positions, num_frames // 2)
    return positions if frames == "video" else rng.permutation(positions)


def _addressed(row: VideoRow, start: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(row_id(row).encode("utf-8", "surrogateescape")), start])


# CoCLR's at test time: strengths of brightness, contrast, saturation and hue, and how often.
_TEST_JITTER, _TEST_JITTER_PROBABILITY = (0.2, 0.2, 0.2, 0.1), 0.3


def _jittered(clips_VTCHW: Tensor, row: VideoRow, starts: np.ndarray) -> Tensor:
    """Clips with their colors changed at random, each as a whole: a defect of released scripts, to compare with them."""
    changed = []
    for clip_TCHW, start in zip(clips_VTCHW, starts, strict=True):
        draw = random_jitter(_TEST_JITTER, _TEST_JITTER_PROBABILITY, _addressed(row, int(start)))
        clip_CTHW = jitter_clip(clip_TCHW.transpose(0, 1).float() / 255, draw)
        changed.append((clip_CTHW.transpose(0, 1) * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(changed)


def _as_is(item: Any) -> Any:
    return item


def read_videos(manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol) -> Iterator[ClipItem]:
    """The evenly spaced clips of every row, in order, read by worker processes one video at a time.

    Raises:
        DecodeError: a worker died or did not come back in time; names the video that was waited for.
    """
    return read_in_order(manifest, [Read(row, even_starts(row, protocol)) for row in rows], protocol)


def read_in_order(manifest: Manifest, reads: Sequence[Read], protocol: FeatureProtocol) -> Iterator[ClipItem]:
    """The clips of every read, in order, each file opened by a worker process; the item's position is the read's.

    Raises:
        DecodeError: a worker died or did not come back in time; names the video that was waited for.
    """
    workers = min(protocol.workers, len(reads))
    loader = DataLoader(
        _ClipDataset(manifest, reads, protocol),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        timeout=protocol.timeout_seconds if workers else 0,
        generator=torch.Generator(),  # a loader without one advances torch's global generator
    )
    done = 0
    try:
        for item in loader:
            yield item
            done += 1
    except RuntimeError as error:
        if "DataLoader" not in str(error) or done >= len(reads):
            raise
        raise DecodeError(
            str(manifest.path_of(reads[done].row)),
            f"a reading process died or gave nothing for {protocol.timeout_seconds:g} s while it was waited for; "
            "index the folder again to find the file, or read with workers=0",
            str(error).splitlines()[0],
        ) from error


def clips_of(items: Sequence[ClipItem], protocol: FeatureProtocol, device: torch.device) -> Tensor:
    """All clips of some videos as one batch BCTHW, video by video: float in [0, 1], resized and cropped."""
    clips = [
        prepare_pixels(item.clips_VTCHW.to(device), protocol.resize_px, protocol.crop_px)
        for item in items
        if item.clips_VTCHW is not None
    ]
    return torch.cat(clips).transpose(1, 2)


def prepare_pixels(clips_VTCHW: Tensor, resize_px: int, crop_px: int) -> Tensor:
    """uint8 frames to float in [0, 1]: short side to ``resize_px`` (bilinear, antialiased), center crop.

    Each video is resized by itself, so that its pixels do not depend on what else is in the batch.
    """
    flat = clips_VTCHW.flatten(0, 1).float().div_(255)
    resized = pixels.resize(flat, [resize_px], antialias=True)
    return pixels.center_crop(resized, [crop_px]).unflatten(0, clips_VTCHW.shape[:2])


def check_contents(
    manifest: Manifest, rows: Sequence[VideoRow], way_out: str = "Index the folder again with: ssvid data index."
) -> None:
    """Make sure that the files are those that the manifest describes; a missing one is left to be listed as unreadable.

    Raises:
        DataError: names the first file that changed, and the way out.
    """
    known = {row.path: row.content_id for row in rows if row.is_readable and row.content_id}
    changed = changed_files(manifest.root, known)
    if changed:
        raise DataError(
            f"{len(changed)} of {len(rows)} files are not those of the manifest, the first is {changed[0]!r} "
            f"(root {manifest.root}): their content changed since. {way_out}"
        )


def row_is_padded(row: VideoRow, protocol: FeatureProtocol) -> bool:
    """Whether the video is shorter than one clip, so that its last frame is repeated."""
    return is_padded(row.window_frames, protocol.num_frames, protocol.stride_frames)


def check_decoder(rows: Sequence[VideoRow], protocol: FeatureProtocol, *, group: str = "features.") -> None:
    """Make sure that a forced decoder works here and is right for every file: a mistake of ours is no unreadable video.

    Raises:
        SsvidError: the decoder is unknown or does not work here. DataError: it is wrong for a file.
    """
    name = resolve_decoder(protocol.decoder)
    if protocol.decoder in ("auto", "pyav"):
        return
    wrong = [row.path for row in rows if row.is_readable and row.decoders_ok and name not in row.decoders_ok]
    if wrong:
        raise DataError(
            f"decoder ({name!r}) must deliver the right frames: it is wrong for {len(wrong)} of {len(rows)}, the "
            f"first {wrong[0]!r}. Set {group}decoder=auto to take the right one for each file."
        )
