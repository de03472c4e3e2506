"""The clips of videos for a frozen network, read by worker processes one video at a time.

Frames are resized and cropped as they are decoded, so that neither a worker nor what it sends holds whole frames: a clip
of 16 frames takes 2.4 MB at 112 px, and 400 MB at 4K.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssvid.data.index.scan_cache import changed_files
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, DecodeError
from ssvid.features.protocol import FeatureProtocol
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.transforms.flow import is_flow, scaled_motion
from ssvid.video.decoders.choice import resolve_decoder
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.frame_folders import PICTURES
from ssvid.video.opening import read_clips
from ssvid.video.sampling import clip_indices, evenly_spaced_clips, is_padded

_PORTION_BYTES = 8 << 20  # of whole frames that wait to be resized together
# Clips of one file that are read together: more are cheaper per clip, and wait in memory for the network.
_READ_BYTES = 32 << 20


class ClipItem(NamedTuple):
    """What one video gave: its clips, float in [0, 1] and at their final size, or the reason why it gave none."""

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


def portions_of(read: Read, protocol: FeatureProtocol) -> Iterator[Read]:
    """The clips of a video in portions that fit into memory, whatever its length; evenly spaced ones in one."""
    clip_bytes = 4 * 3 * protocol.num_frames * protocol.crop_px**2
    at_once = max(1, protocol.num_clips, _READ_BYTES // clip_bytes)
    for first in range(0, max(len(read.starts), 1), at_once):  # where there is no clip, somebody must say why
        yield Read(read.row, read.starts[first : first + at_once])


class _ClipDataset(Dataset):
    """The clips of one read per item. Holds plain values only, so that any start method can pickle it."""

    def __init__(self, manifest: Manifest, reads: Sequence[Read], protocol: FeatureProtocol, crop: bool = True) -> None:
        self.root, self.reads, self.protocol = manifest.root, tuple(reads), protocol
        self.crop_px = protocol.crop_px if crop else 0

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
        with row.open(self.root, p.decoder) as reader:
            if "color_jitter" in p.defects:
                whole_VTCHW = _jittered(read_clips(reader, shifted), row, starts)
                return torch.stack([prepare_pixels(clip, p.resize_px, self.crop_px) for clip in whole_VTCHW])
            return read_prepared(reader, shifted, p.resize_px, self.crop_px)


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


def _jittered(clips_VTCHW: Sequence[Tensor], row: VideoRow, starts: np.ndarray) -> Iterator[Tensor]:
    """Clips with their colors changed at random, each as a whole: a defect of released scripts, to compare with them."""
    for clip_TCHW, start in zip(clips_VTCHW, starts, strict=True):
        draw = random_jitter(_TEST_JITTER, _TEST_JITTER_PROBABILITY, _addressed(row, int(start)))
        clip_CTHW = jitter_clip(clip_TCHW.transpose(0, 1).float() / 255, draw)
        yield (clip_CTHW.transpose(0, 1) * 255).round().clamp(0, 255).to(torch.uint8)


def _as_is(item: Any) -> Any:
    return item


def read_prepared(reader: VideoReader, clips: Sequence[np.ndarray], resize_px: int, crop_px: int) -> Tensor:
    """Several clips of one opened video, float VTCHW: what ``prepare_pixels`` makes of them, but no clip is held whole.

    Raises:
        DecodeError: as ``read_clips``.
    """
    height, width, channels = reader.frame_shape
    wanted, where = np.unique(np.stack(clips), return_inverse=True)
    room = max(1, min(len(wanted), _PORTION_BYTES // (3 * height * width)))
    whole_NCHW = np.empty((room, channels, height, width), np.uint8)
    whole_NHWC = whole_NCHW.transpose(0, 2, 3, 1)
    parts, places = [], np.empty(len(wanted), dtype=np.int64)
    for number, (place, frame_HWC) in enumerate(reader.each_frame(wanted)):
        whole_NHWC[number % room] = frame_HWC
        places[place] = number
        if number % room == room - 1 or number == len(wanted) - 1:
            portion_NCHW = torch.from_numpy(whole_NCHW[: number % room + 1])
            parts.append(prepare_pixels(portion_NCHW, resize_px, crop_px))
    frames_NCHW = torch.cat(parts)
    return frames_NCHW[torch.from_numpy(places[where.reshape(len(clips), -1)])]


def prepare_pixels(frames_NCHW: Tensor, resize_px: int, crop_px: int) -> Tensor:
    """uint8 frames to float in [0, 1]: short side to ``resize_px`` (bilinear, antialiased), center crop; none where it is 0.

    Frames share nothing: any number of them at once gives the same bits. Motion of flow is scaled with its frames.
    """
    from torchvision.transforms.v2 import functional as pixels  # here: importing it takes seconds

    resized_NCHW = pixels.resize(frames_NCHW.float().div_(255), [resize_px], antialias=True)
    if is_flow(resized_NCHW, 1):
        resized_NCHW = scaled_motion(resized_NCHW, frames_NCHW.shape[-2:], as_type=resized_NCHW.dtype)
    return pixels.center_crop(resized_NCHW, [crop_px]).contiguous() if crop_px else resized_NCHW


def read_videos(
    manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol, *, crop: bool = True
) -> Iterator[ClipItem]:
    """The evenly spaced clips of every row, in order, read by worker processes one video at a time.

    crop: take the center crop of each frame; without it frames come resized, for other crops.

    Raises:
        DecodeError: a worker died or did not come back in time; names the video that was waited for.
    """
    return read_in_order(manifest, [Read(row, even_starts(row, protocol)) for row in rows], protocol, crop=crop)


def read_in_order(
    manifest: Manifest, reads: Sequence[Read], protocol: FeatureProtocol, *, crop: bool = True
) -> Iterator[ClipItem]:
    """The clips of every read, in order, each file opened by a worker process; the item's position is the read's.

    Raises:
        DecodeError: a worker died or did not come back in time; names the video that was waited for.
    """
    yield from in_order(_ClipDataset(manifest, reads, protocol, crop), manifest, [read.row for read in reads], protocol)


def in_order(
    dataset: Dataset, manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol
) -> Iterator[Any]:
    """The items of a data set, in order, each made by a worker process; an item reads the file of the row of its number.

    Raises:
        DecodeError: a worker died or did not come back in time; names the video that was waited for.
    """
    workers = min(protocol.workers, len(rows))
    loader = DataLoader(
        dataset,
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
        if "DataLoader" not in str(error) or done >= len(rows):
            raise
        raise DecodeError(
            str(manifest.path_of(rows[done])),
            f"a reading process died or gave nothing for {protocol.timeout_seconds:g} s while it was waited for; "
            "index the folder again to find the file, or read with workers=0",
            str(error).splitlines()[0],
        ) from error


def clips_of(items: Sequence[ClipItem], device: torch.device) -> Tensor:
    """All clips of some videos as one batch BCTHW, video by video."""
    clips = [item.clips_VTCHW.to(device) for item in items if item.clips_VTCHW is not None]
    return torch.cat(clips).transpose(1, 2)


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
    wrong = [
        row.path for row in rows if row.is_readable and row.decoders_ok and not {name, PICTURES} & {*row.decoders_ok}
    ]
    if wrong:
        raise DataError(
            f"decoder ({name!r}) must deliver the right frames: it is wrong for {len(wrong)} of {len(rows)}, the "
            f"first {wrong[0]!r}. Set {group}decoder=auto to take the right one for each file."
        )
