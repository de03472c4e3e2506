"""Frozen features of videos: read once, pooled per stage, kept on disk until something they depend on changes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, SsvidError
from ssvid.features.protocol import FRAMES, FeatureProtocol, decoder_of, resolve_feature_protocol
from ssvid.features.reading import (
    ClipItem,
    check_contents,
    check_decoder,
    clips_of,
    even_starts,
    frame_order,
    read_videos,
    row_is_padded,
)
from ssvid.features.store import (
    _MAPPED_FROM_BYTES,
    Features,
    Listed,
    _cache_file,
    _columns,
    _describe,
    _give_pages_back,
    _load,
    _save,
    features_key,
    portions,
)
from ssvid.ranks import all_agree, ranks, share_work
from ssvid.weights.checkpoints import weights_sha256

Progress = Callable[[int, int], None]


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
    clips_BCTHW = clips_of(read, device)
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


# ---- identity


# ---- the cache
