"""Frozen features of videos: read once, pooled per stage, kept on disk until something they depend on changes."""

from __future__ import annotations

import hashlib
import json
import mmap
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as pixels

from ssvid.backbones import Backbone
from ssvid.checkpoints import weights_sha256
from ssvid.data.contents import units_of
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.scan_cache import changed_files
from ssvid.errors import DataError, DecodeError, SsvidError
from ssvid.evals.protocol import FRAMES, FeatureProtocol, resolve_feature_protocol
from ssvid.evals.sharding import all_agree, ranks, share_work
from ssvid.files import write_atomic
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.video import (
    clip_indices,
    evenly_spaced_clips,
    is_padded,
    open_video,
    read_clips,
    resolve_decoder,
)

# Part of every cache key: raise it whenever the same inputs would give other features.
FEATURE_FORMAT = 1
# They change how fast the features come, not what they are (to about 1e-6: other batches, other kernels).
_NOT_IN_KEY = ("batch_size", "workers", "timeout_seconds", "untrained_stage")
# Features that take more are mapped from their file instead of read: they may not fit into memory.
_MAPPED_FROM_BYTES = 2**28
_HASHED_AT_ONCE = 2**24
PORTION_BYTES = 2**26

Progress = Callable[[int, int], None]


class Listed(NamedTuple):
    """A video that needs a word beside the number, and the word."""

    id: str
    reason: str


@dataclass(frozen=True)
class Features:
    """One vector per video, in the order asked for. An unreadable video keeps its place: its row is NaN.

    values_ND: float32; read only and mapped from the cache where they are large. ids: one name per video. labels:
    "" where there is none. groups: what must not be torn apart (``units_of``). stage_columns: [start, end) of each stage.
    unreadable: with the decoder's words. padded: shorter than one clip, so their last frame was repeated. decoders: how
    many videos each decoder read. weights_sha256: of the network. from_cache: nothing was computed.
    """

    values_ND: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    stage_columns: Mapping[str, tuple[int, int]]
    unreadable: tuple[Listed, ...] = ()
    padded: tuple[str, ...] = ()
    decoders: Mapping[str, int] | None = None
    weights_sha256: str = ""
    from_cache: bool = False

    @classmethod
    def from_arrays(
        cls,
        values_ND: np.ndarray,
        labels: Sequence[str],
        *,
        groups: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> Features:
        """Features that were made elsewhere; a row that is not finite counts as unreadable."""
        values = np.array(values_ND, dtype=np.float32)
        names = tuple(ids) if ids is not None else tuple(str(i) for i in range(len(values)))
        bad = ~np.isfinite(values).all(axis=1)
        values[bad] = np.nan
        unreadable = tuple(Listed(names[i], "not finite") for i in np.flatnonzero(bad))
        columns = {"features": (0, values.shape[1])}
        return cls(values, names, tuple(labels), tuple(groups or names), columns, unreadable)

    @property
    def readable(self) -> np.ndarray:
        """Which videos have a vector: bool, one per video."""
        parts = [~np.isnan(values_ND).any(axis=1) for _, values_ND in portions(self.values_ND)]
        return np.concatenate([np.empty(0, dtype=bool), *parts])

    def at(self, positions: np.ndarray) -> Features:
        """Some of the videos, as features of their own."""
        ids, labels, groups = (tuple(v[i] for i in positions) for v in (self.ids, self.labels, self.groups))
        return Features(self.values_ND[positions], ids, labels, groups, self.stage_columns)

    def only(self, *stages: str) -> Features:
        """The columns of these stages alone, in the order given."""
        parts = [self.values_ND[:, slice(*self.stage_columns[name])] for name in stages]
        return replace(self, values_ND=np.concatenate(parts, axis=1), stage_columns=_columns(stages, parts))


def portions(
    values_ND: np.ndarray, *, portion_bytes: int = PORTION_BYTES, most: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of each portion of an array: as many rows as fit, at least 1 and at most ``most``.

    A portion is a view: copy what is kept. Pages of a mapped file are given back once a portion is done with.
    """
    fitting = max(1, portion_bytes // max(values_ND[:1].nbytes, 1))
    rows_at_once = min(fitting, most or fitting)
    for start in range(0, len(values_ND), rows_at_once):
        yield start, values_ND[start : start + rows_at_once]
        _give_pages_back(values_ND)


def _give_pages_back(values: np.ndarray) -> None:
    if getattr(values, "mode", "c") == "c":  # not mapped, or with changes that are in no file
        return
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def row_id(row: VideoRow) -> str:
    """The name of a video in results: its path, with the window where it has one (``a/b.mp4#30-90``)."""
    windowed = row.start_frame or row.end_frame >= 0
    return f"{row.path}#{row.start_frame}-{row.end_frame}" if windowed else row.path


def extract_features(
    backbone: Backbone,
    manifest: Manifest,
    rows: Sequence[VideoRow],
    protocol: FeatureProtocol,
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    trained_stage: str | None = None,
    progress: Progress | None = None,
) -> Features:
    """One float32 vector per video: the mean over its clips of the pooled stage features, in evaluation mode.

    Nothing is ever substituted: a video that cannot be read is listed and has no vector.

    Args:
        backbone: moved to ``device``; its weights, buffers and training flags are left as they were.
        rows: of the manifest; a row's window is a video of its own.
        cache_dir: features are kept here, keyed by all they depend on. A video that failed, and that the manifest holds for
            readable, is tried again by itself: once in each process, and when its file has changed.
        trained_stage: the deepest stage that pretraining trained; deeper ones are not used unasked.
        progress: called with (videos done, videos in all).

    Raises:
        RecipeError: the protocol makes no sense or does not fit the backbone.
        DataError: no row is readable, a file is not the one that the manifest describes, or a forced decoder is wrong.
        DecodeError: a reading process died or did not come back.
    """
    rows = tuple(rows)
    wanted = _wanted(Subject(backbone, protocol, trained_stage), rows, torch.device(device), cache_dir)
    check_decoder(rows, wanted.protocol)
    check_contents(manifest, rows)
    features = _remembered(wanted, rows)
    if features is None:
        (features,) = _compute([wanted], wanted.protocol, manifest, rows, torch.device(device), progress)
    elif progress is not None:
        progress(len(rows), len(rows))
    return _tried_again(features, wanted, manifest, rows, torch.device(device))


class Subject(NamedTuple):
    """A network, and how its features are to be taken."""

    backbone: Backbone
    protocol: FeatureProtocol
    trained_stage: str | None = None


def extract_together(
    subjects: Sequence[Subject],
    manifest: Manifest,
    rows: Sequence[VideoRow],
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path,
    progress: Progress | None = None,
) -> None:
    """Put the features of several networks into the cache from one reading of the videos, where they are not there yet.

    ``extract_features`` then finds each, bit for bit what it would have computed. Subjects that need other pixels than
    all others are left to it. Arguments and errors as there.
    """
    rows = tuple(rows)
    all_wanted = [_wanted(subject, rows, torch.device(device), cache_dir) for subject in subjects]
    groups: dict[FeatureProtocol, dict[Path | None, _Wanted]] = {}
    for wanted in all_wanted:
        check_decoder(rows, wanted.protocol)
        groups.setdefault(_reading_of(wanted.protocol), {})[wanted.cache] = wanted
    check_contents(manifest, rows)
    for reading, group in groups.items():
        missing = [wanted for wanted in group.values() if _remembered(wanted, rows) is None]
        if len(missing) > 1:
            _compute(missing, reading, manifest, rows, torch.device(device), progress)
    all_agree(True)  # nobody goes on before the first process has written


def _reading_of(protocol: FeatureProtocol) -> FeatureProtocol:
    """The reading that a protocol shares with others: its frames are put in another order after it.

    With a defect they are not: the colors of a clip are changed as a whole, and batches may be cut.
    """
    frames = protocol.frames if protocol.defects else FRAMES[0]
    return replace(protocol, frames=frames, stages="all", pool="avg", untrained_stage=False)


class _Wanted(NamedTuple):
    """Features to be computed: of which network, under which resolved protocol; and the file that remembers them."""

    backbone: Backbone
    protocol: FeatureProtocol
    weights: str
    cache: Path | None


def _wanted(
    subject: Subject, rows: tuple[VideoRow, ...], device: torch.device, cache_dir: str | Path | None
) -> _Wanted:
    backbone = subject.backbone
    resolved = resolve_feature_protocol(subject.protocol, backbone.info, subject.trained_stage)
    weights = weights_sha256(backbone.state_dict())
    return _Wanted(
        backbone, resolved, weights, _cache_file(cache_dir, features_key(backbone, weights, rows, resolved, device))
    )


def _remembered(wanted: _Wanted, rows: tuple[VideoRow, ...]) -> Features | None:
    features = _load(wanted.cache, rows, wanted.weights)
    # One process may have come before the file was there.
    return features if all_agree(features is not None) else None


# ---- reading, in worker processes


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


# ---- computing


def _compute(
    group: Sequence[_Wanted],
    reading: FeatureProtocol,
    manifest: Manifest,
    rows: tuple[VideoRow, ...],
    device: torch.device,
    progress: Progress | None,
) -> list[Features]:
    """The features of each, from one reading of the videos; they are kept in their cache files."""
    for wanted in group:
        wanted.backbone.to(device)
    size, (_, world) = reading.batch_size, ranks()
    rooms = [_Room(len(rows), wanted.cache) for wanted in group]

    def work(numbers: Sequence[int]) -> dict[int, list[_Batch]]:
        # Whole batches are shared out, so that each is the same on any number of processes, to the last bit.
        positions = [i for n in numbers for i in range(n * size, min((n + 1) * size, len(rows)))]
        items = read_videos(manifest, [rows[i] for i in positions], reading)
        placed = (item._replace(position=positions[item.position]) for item in items)
        found: dict[int, list[_Batch]] = {}
        done = 0
        with ExitStack() as modes:
            for wanted in group:
                modes.enter_context(evaluation_mode(wanted.backbone))
            for number, batch in zip(numbers, _batches(placed, size), strict=True):
                vectors = _vectors(group, rows, batch, reading, device)
                found[number] = _kept(rooms, vectors) if world == 1 else vectors
                done += len(batch)
                if progress is not None:
                    progress(done, len(positions))
        return found

    batches = list(share_work(-(-len(rows) // size), work).values())
    if world > 1:
        batches = [_kept(rooms, of_batch) for of_batch in batches]
    computed = [
        _joined(room, [of_batch[i] for of_batch in batches], wanted, rows)
        for i, (room, wanted) in enumerate(zip(rooms, group, strict=True))
    ]
    for wanted, features in zip(group, computed, strict=True):
        _remember(wanted, features, manifest, rows)
    return computed


def _remember(wanted: _Wanted, features: Features, manifest: Manifest, rows: tuple[VideoRow, ...]) -> None:
    """Keep features in their cache file, and note here which videos were not to be read although they should be."""
    if wanted.cache is None:
        return
    if ranks()[0] == 0:
        _save(wanted.cache, features)
    _failed.update({(wanted.cache, rows[i]): _state(manifest, rows[i]) for i in _unexpected(features, rows)})


# Videos that this process could not read, with the state of their file then: they are not waited for again and again.
_failed: dict[tuple[Path, VideoRow], tuple[int, int] | None] = {}


def _state(manifest: Manifest, row: VideoRow) -> tuple[int, int] | None:
    path = manifest.path_of(row)
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _unexpected(features: Features, rows: Sequence[VideoRow]) -> list[int]:
    """Positions of the videos that have no vector, though the manifest holds them for readable."""
    listed = {listed.id for listed in features.unreadable}
    return [i for i, row in enumerate(rows) if row.is_readable and row_id(row) in listed]


def _tried_again(
    features: Features, wanted: _Wanted, manifest: Manifest, rows: tuple[VideoRow, ...], device: torch.device
) -> Features:
    """The features with those of videos that could not be read when they were kept, and can be now."""
    if wanted.cache is None:
        return features
    known = {i: _failed.get((wanted.cache, rows[i]), "never tried here") for i in _unexpected(features, rows)}
    again = [i for i, state in known.items() if state != _state(manifest, rows[i])]
    if not again:
        return features

    def work(numbers: Sequence[int]) -> dict[int, bool]:
        items = read_videos(manifest, [rows[again[n]] for n in numbers], wanted.protocol)
        return {numbers[item.position]: item.clips_VTCHW is not None for item in items}

    found = [again[n] for n, is_readable in share_work(len(again), work).items() if is_readable]
    if found:
        alone = wanted._replace(cache=None)
        few = tuple(rows[i] for i in found)
        features = _completed(features, found, *_compute([alone], wanted.protocol, manifest, few, device, None))
    _remember(wanted, features, manifest, rows)
    return features


def _completed(features: Features, positions: Sequence[int], more: Features) -> Features:
    values_ND = np.array(features.values_ND)
    values_ND[list(positions)] = more.values_ND
    lost = {listed.id: listed for listed in features.unreadable if listed.id not in set(more.ids)}
    lost |= {listed.id: listed for listed in more.unreadable}
    padded = {*features.padded, *more.padded}
    return replace(
        features,
        values_ND=values_ND,
        unreadable=tuple(lost[video] for video in features.ids if video in lost),
        padded=tuple(video for video in features.ids if video in padded),
        decoders=dict(Counter(features.decoders) + Counter(more.decoders)),
    )


def _joined(room: _Room, batches: Sequence[_Batch], wanted: _Wanted, rows: tuple[VideoRow, ...]) -> Features:
    unreadable = [listed for batch in batches for listed in batch.unreadable]
    if room.array is None:
        first = f" ({unreadable[0].id}: {unreadable[0].reason.rstrip('.')})" if unreadable else ""
        raise DataError(
            f"none of the {len(rows)} videos could be read{first}. Set data.root to the folder of the videos."
        )
    read = [position for batch in batches for position in batch.positions]
    columns = next(batch.columns for batch in batches if batch.positions)
    return _describe(
        Features(room.array, (), (), (), columns, tuple(unreadable), weights_sha256=wanted.weights),
        rows,
        padded=tuple(row_id(rows[i]) for i in read if row_is_padded(rows[i], wanted.protocol)),
        decoders=dict(Counter(decoder_of(rows[i], wanted.protocol) for i in read)),
    )


class _Batch(NamedTuple):
    """What one batch of videos gave: the positions that could be read, their vectors (None once they are kept), the rest."""

    positions: list[int]
    values_ND: np.ndarray | None
    columns: dict[str, tuple[int, int]]
    unreadable: list[Listed]


def _vectors(
    group: Sequence[_Wanted],
    rows: Sequence[VideoRow],
    items: Sequence[ClipItem],
    reading: FeatureProtocol,
    device: torch.device,
) -> list[_Batch]:
    """What each network makes of a batch of videos."""
    read = [item for item in items if item.clips_VTCHW is not None]
    unreadable = [Listed(row_id(rows[i.position]), i.reason) for i in items if i.clips_VTCHW is None]
    if not read:
        return [_Batch([], None, {}, unreadable) for _ in group]
    positions = [item.position for item in read]
    clips_BCTHW = clips_of(read, reading, device)
    batches = []
    for wanted in group:
        protocol, shown_BCTHW = wanted.protocol, clips_BCTHW
        if protocol.frames != reading.frames:
            shown_BCTHW = _reordered(clips_BCTHW, [rows[i] for i in positions], protocol)
        stages = _embed(wanted.backbone, shown_BCTHW, protocol)
        joined = np.concatenate(stages, axis=1)
        check_finite(wanted.backbone, joined)
        batches.append(_Batch(positions, joined, _columns(protocol.stage_names, stages), unreadable))
    return batches


def _reordered(clips_BCTHW: Tensor, rows: Sequence[VideoRow], protocol: FeatureProtocol) -> Tensor:
    """The clips of these videos with their frames as the protocol shows them."""
    orders = [frame_order(protocol, row, int(start)) for row in rows for start in even_starts(row, protocol)]
    order_BT = torch.from_numpy(np.stack(orders)).to(clips_BCTHW.device)
    clip_B1 = torch.arange(len(order_BT), device=order_BT.device).unsqueeze(1)
    return clips_BCTHW.transpose(1, 2)[clip_B1, order_BT].transpose(1, 2)


def _kept(rooms: Sequence[_Room], batches: Sequence[_Batch]) -> list[_Batch]:
    return [room.keep(batch) for room, batch in zip(rooms, batches, strict=True)]


class _Room:
    """Where all vectors go. ``array`` is None until the first comes and tells the width; NaN where none has come."""

    def __init__(self, num_rows: int, cache: Path | None) -> None:
        self.num_rows, self.cache = num_rows, cache
        self.array: np.ndarray | None = None

    def keep(self, batch: _Batch) -> _Batch:
        """Take the batch's vectors over."""
        if batch.values_ND is None:
            return batch
        if self.array is None:
            self.array = _room(self.num_rows, batch.values_ND.shape[1], self.cache)
        self.array[batch.positions] = batch.values_ND
        _give_pages_back(self.array)
        return batch._replace(values_ND=None)


def _room(num_rows: int, width: int, cache: Path | None) -> np.ndarray:
    """NaN for every video: in memory, or where that is large, in a nameless file beside the cache."""
    if cache is None or 4 * num_rows * width <= _MAPPED_FROM_BYTES:
        return np.full((num_rows, width), np.nan, dtype=np.float32)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache.parent) as file:
        values_ND = np.memmap(file, dtype=np.float32, mode="w+", shape=(num_rows, width))
    for _, values in portions(values_ND):
        values[:] = np.nan
    return values_ND


def check_finite(backbone: Backbone, values: np.ndarray) -> None:
    """Raise SsvidError where a network gives NaN or infinity: that is no unreadable video, but a broken network."""
    if not np.isfinite(values).all():
        raise SsvidError(
            f"backbone {backbone.info.name} gives features that are not finite. Its weights are damaged or its "
            "training diverged: look at the loss in metrics.jsonl, or take an earlier checkpoint."
        )


def _describe(features: Features, rows: Sequence[VideoRow], **changes: Any) -> Features:
    return replace(
        features,
        ids=tuple(row_id(row) for row in rows),
        labels=tuple(row.label for row in rows),
        groups=tuple(units_of(rows)),
        **changes,
    )


def _batches(items: Iterator[ClipItem], size: int) -> Iterator[list[ClipItem]]:
    batch: list[ClipItem] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _embed(backbone: Backbone, clips_BCTHW: Tensor, protocol: FeatureProtocol) -> list[np.ndarray]:
    """For each stage, one vector per video: (videos, width)."""
    by_stage = backbone.embed_stages(clips_BCTHW, protocol.stage_names, protocol.pool)
    return [
        by_stage[name].float().unflatten(0, (-1, protocol.num_clips)).mean(dim=1).cpu().numpy()
        for name in protocol.stage_names
    ]


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


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, full float32 convolutions; every module's own training flag comes back."""
    flags = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        for m, training in flags.items():
            m.training = training


def _columns(names: Sequence[str], parts: Sequence[np.ndarray]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    return {name: (end - part.shape[1], end) for name, part, end in zip(names, parts, ends, strict=True)}


# ---- identity


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


def decoder_of(row: VideoRow, protocol: FeatureProtocol) -> str:
    """The decoder that reads this video here."""
    return resolve_decoder(protocol.decoder, row.decoders_ok)


def features_key(
    backbone: Backbone, weights: str, rows: Sequence[VideoRow], protocol: FeatureProtocol, device: torch.device
) -> str:
    """SHA-256 of all that features depend on. protocol: a resolved one."""
    parts = features_identity(backbone, weights, protocol, device)
    parts["rows"] = [_row_key(row, protocol) for row in rows]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def features_identity(
    backbone: Backbone, weights: str, protocol: FeatureProtocol, device: torch.device
) -> dict[str, Any]:
    """All that features depend on besides the videos, as plain values. protocol: a resolved one."""
    values = {name: value for name, value in asdict(protocol).items() if name not in _NOT_IN_KEY}
    return {
        "format": FEATURE_FORMAT,
        "weights": weights,
        # Not among the weights, because they are buffers that no state dict holds.
        "normalization": [backbone.mean_C111.flatten().tolist(), backbone.std_C111.flatten().tolist()],
        "backbone": [backbone.info.name, sorted((k, repr(v)) for k, v in backbone.info.options.items())],
        "protocol": values,
        "device": device.type,
        "torch": torch.__version__,
    }


def _row_key(row: VideoRow, protocol: FeatureProtocol) -> list[Any]:
    # Decoders agree on which frame is which, not on the last bit of a color.
    decoder = decoder_of(row, protocol) if row.is_readable else ""
    return [
        row.path,
        row.content_id,
        row.num_frames,
        row.start_frame,
        row.end_frame,
        row.status,
        decoder,
        *row.gray_range,
    ]


# ---- the cache


def _cache_file(cache_dir: str | Path | None, key: str) -> Path | None:
    return None if cache_dir is None else Path(cache_dir) / f"features-{key[:40]}.safetensors"


def _save(path: Path, features: Features) -> None:
    meta = json.dumps(
        {
            "stage_columns": dict(features.stage_columns),
            "unreadable": features.unreadable,
            "padded": features.padded,
            "decoders": features.decoders,
        }
    )
    values_ND = features.values_ND.astype("<f4", copy=False)
    digest = hashlib.sha256(meta.encode())
    for _, values in portions(values_ND):
        digest.update(values.data)
    header = json.dumps(
        {
            "__metadata__": {"ssvid": meta, "sha256": digest.hexdigest()},
            "values_ND": {"dtype": "F32", "shape": list(values_ND.shape), "data_offsets": [0, values_ND.nbytes]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)

    def write(file: IO[bytes]) -> None:  # safetensors' own writer would hold a second copy of the values
        file.write(len(header).to_bytes(8, "little") + header)
        for _, values in portions(values_ND):
            file.write(values.data)

    write_atomic(path, write)


def _load(path: Path | None, rows: Sequence[VideoRow], weights: str) -> Features | None:
    """Features from the cache; None where there are none or the file is damaged (they are computed again then)."""
    if path is None or not path.is_file():
        return None
    try:
        values, meta = _read(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    if len(values) != len(rows):
        return None
    features = Features(
        values,
        (),
        (),
        (),
        {name: (start, end) for name, (start, end) in meta["stage_columns"].items()},
        tuple(Listed(*pair) for pair in meta["unreadable"]),
        tuple(meta["padded"]),
        meta["decoders"],
        weights,
        from_cache=True,
    )
    return _describe(features, rows)


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Values and description of a cache file; mapped where they are large.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is no such file, or not as it was written.
    """
    with safe_open(path, framework="numpy") as checked:  # refuses a header that does not fit the file
        text, expected = checked.metadata()["ssvid"], checked.metadata()["sha256"]
        shape = tuple(checked.get_slice("values_ND").get_shape())
    digest = hashlib.sha256(text.encode())
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        while block := file.read(_HASHED_AT_ONCE):
            digest.update(block)
    if digest.hexdigest() != expected or len(shape) != 2:
        raise ValueError(f"{path} is not as it was written")
    values_ND = np.memmap(path, dtype="<f4", mode="r", offset=start, shape=shape)
    return (values_ND if values_ND.nbytes > _MAPPED_FROM_BYTES else np.array(values_ND)), json.loads(text)
