"""Frozen features of videos: read once for several networks, pooled per stage, kept per video until what they depend on
changes.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.data.contents import units_of
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DiskFull
from ssvid.features.kept import Kept
from ssvid.features.passes import Piece, Progress, Vectors, Wanted, embed_block, evaluation_mode, over_blocks
from ssvid.features.protocol import FRAMES, FeatureProtocol, decoder_of, resolve_feature_protocol
from ssvid.features.reading import Read, check_contents, check_decoder, even_starts, row_is_padded
from ssvid.features.store import (
    Features,
    Listed,
    columns_of,
    digest_of,
    features_identity,
    nothing_read,
    portions,
    video_names,
)
from ssvid.ranks import ranks, where_all_agree
from ssvid.weights.checkpoints import weights_sha256

# Features that take more lie in a file without a name instead of memory.
_MAPPED_FROM_BYTES = 2**28


class Subject(NamedTuple):
    """A network, and how its features are to be taken. trained_stage: the deepest that pretraining trained; deeper ones are
    not used unasked.
    """

    backbone: Backbone
    protocol: FeatureProtocol
    trained_stage: str | None = None


def read_features(
    subjects: Sequence[Subject],
    manifest: Manifest,
    rows: Sequence[VideoRow],
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Features]:
    """The features of each subject: one float32 vector per video, the mean over its clips of the pooled stage features, in
    evaluation mode.

    Videos are read once for all subjects that see the same pixels, in whatever order. Nothing is ever substituted: a video
    that cannot be read is listed and has no vector.

    Args:
        subjects: their networks are moved to ``device``; weights, buffers and training flags are left as they were.
        rows: of the manifest; a row's window is a video of its own.
        cache_dir: the vector of each video is kept here, under all that it depends on: only a video that is new, changed,
            or could not be read costs anything again.
        progress: called with (videos done, videos in all), for each way of reading anew.

    Raises:
        RecipeError: a protocol makes no sense or does not fit its backbone.
        DataError: no row is readable, a file is not the one that the manifest describes, or a forced decoder is wrong.
        DecodeError: a reading process died or did not come back.
    """
    rows, device = tuple(rows), torch.device(device)
    resolved = [
        s._replace(protocol=resolve_feature_protocol(s.protocol, s.backbone.info, s.trained_stage)) for s in subjects
    ]
    for protocol in dict.fromkeys(subject.protocol for subject in resolved):
        check_decoder(rows, protocol)
    check_contents(manifest, rows)
    names = {p: video_names(manifest, rows, p) for p in dict.fromkeys(subject.protocol for subject in resolved)}
    takings: dict[str, _Taking] = {}
    groups: dict[FeatureProtocol, dict[str, _Taking]] = {}
    asked = []
    for subject in resolved:
        weights = weights_sha256(subject.backbone.state_dict())
        key = digest_of(features_identity(subject.backbone, weights, subject.protocol, device))[:40]
        folder = None if cache_dir is None else Path(cache_dir) / key
        if key not in takings:
            takings[key] = _Taking(subject, weights, folder, rows, names[subject.protocol])
        groups.setdefault(_reading_of(subject.protocol), {})[key] = takings[key]
        asked.append(takings[key])
    for reading, group in groups.items():
        _take(list(group.values()), reading, manifest, rows, device, progress)
    return [taking.features(rows) for taking in asked]


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
    """``read_features`` of a single network."""
    subject = Subject(backbone, protocol, trained_stage)
    (found,) = read_features([subject], manifest, rows, device=device, cache_dir=cache_dir, progress=progress)
    return found


def _reading_of(protocol: FeatureProtocol) -> FeatureProtocol:
    """The reading that a protocol shares with others: its frames are put in another order after it.

    With a defect they are not: the colors of a clip are changed as a whole, and batches may be cut.
    """
    frames = protocol.frames if protocol.defects else FRAMES[0]
    return replace(protocol, frames=frames, stages="all", pool="avg", untrained_stage=False)


class _Taking:
    """The features of a network under a resolved protocol, while they come together.

    names: under which the vector of a video is kept; those of equal clips are one vector. lost: why a video gave none.
    """

    def __init__(
        self,
        subject: Subject,
        weights: str,
        folder: Path | None,
        rows: Sequence[VideoRow],
        names: Sequence[str],
    ) -> None:
        self.backbone, self.protocol, self.weights, self.kept = *subject[:2], weights, Kept(folder)
        self.names = {i: name for i, name in enumerate(names) if name}
        self.lost = {i: row.status for i, row in enumerate(rows) if not row.is_readable}
        self.num_rows, self.num_computed = len(rows), 0
        self.values_ND: np.ndarray | None = None
        self.widths: dict[str, int] = {}
        self._positions: dict[str, list[int]] = {}
        for i, name in self.names.items():
            self._positions.setdefault(name, []).append(i)
        self.done: set[int] = set(self.lost)
        for record in self.kept.records():
            self._put(record.name, record.values, record.about["stages"])

    def _put(self, name: str, values_D: np.ndarray, widths: Mapping[str, int]) -> None:
        positions = self._positions.get(name, [])
        if not positions or positions[0] in self.done:
            return
        if self.values_ND is None:
            self.values_ND, self.widths = room_for(self.num_rows, len(values_D), self.kept.folder), dict(widths)
        self.values_ND[positions] = values_D
        self.done.update(positions)
        for i in positions:
            self.lost.pop(i, None)

    def put(self, vectors: Vectors) -> None:
        """Take the vectors over that were computed for a block."""
        for i, values_1D in vectors.by_position.items():
            self._put(self.names[i], values_1D[0], vectors.widths)
        self.num_computed += len(vectors.by_position)

    def keep(self, vectors: Vectors) -> None:
        """Put vectors into the cache; where it cannot be written, it is said and nothing more is kept."""
        try:
            named = {self.names[i]: values_1D[0] for i, values_1D in vectors.by_position.items()}
            self.kept.put(named, {"stages": vectors.widths})
        except (OSError, DiskFull) as error:
            warnings.warn(f"features are not kept for the next time: {error}", stacklevel=2)
            self.kept = Kept(None)

    def features(self, rows: Sequence[VideoRow]) -> Features:
        """All of them.

        Raises:
            DataError: no video could be read.
        """
        unreadable = tuple(Listed(row_id(rows[i]), self.lost[i]) for i in sorted(self.lost))
        if self.values_ND is None:
            raise nothing_read(len(rows), unreadable)
        read = [row for i, row in enumerate(rows) if i not in self.lost]
        return Features(
            self.values_ND,
            tuple(row_id(row) for row in rows),
            tuple(row.label for row in rows),
            tuple(units_of(rows)),
            columns_of(self.widths),
            unreadable,
            padded=tuple(row_id(row) for row in read if row_is_padded(row, self.protocol)),
            decoders=dict(Counter(decoder_of(row, self.protocol) for row in read)),
            weights_sha256=self.weights,
            from_cache=not self.num_computed,
        )


def _take(
    group: Sequence[_Taking],
    reading: FeatureProtocol,
    manifest: Manifest,
    rows: tuple[VideoRow, ...],
    device: torch.device,
    progress: Progress | None,
) -> None:
    """Compute what is missing of each, from one reading of the videos."""
    of_frames = {taking.protocol.frames for taking in group}
    if len(of_frames) == 1:  # fewer frames may be needed
        reading = replace(reading, frames=of_frames.pop())
    settled_MN = where_all_agree(np.array([[i in t.done for i in range(len(rows))] for t in group]))
    wanted = [
        Wanted(t.backbone, t.protocol, {i: name for i, name in t.names.items() if not settled_N[i]})
        for t, settled_N in zip(group, settled_MN, strict=True)
    ]
    open_N, size = ~settled_MN.all(axis=0).reshape(-1), reading.batch_size
    chunks = (range(k, min(k + size, len(rows))) for k in range(0, len(rows), size))
    blocks = [block for chunk in chunks if (block := [i for i in chunk if open_N[i]])]
    alone, before = ranks()[1] == 1, len(rows) - int(open_N.sum())
    if progress is not None and before:
        progress(before, len(rows))

    def work(number: int, pieces: Iterator[Piece]) -> tuple[list[Vectors], dict[int, str]]:
        vectors, lost = embed_block(
            wanted, pieces, reading, device, most=size * reading.num_clips, averaged=reading.num_clips
        )
        for taking, own in zip(group, vectors, strict=True):
            taking.keep(own)
            if alone:
                taking.put(own)
        return ([] if alone else vectors), lost

    for taking in group:
        taking.backbone.to(device)
    with evaluation_mode(*(taking.backbone for taking in group)):
        told = None if progress is None else lambda done, total: progress(before + done, before + total)
        reads = [Read(row, even_starts(row, reading)) for row in rows]
        found = over_blocks(manifest, reads, blocks, reading, work, progress=told)
    for vectors, lost in found.values():
        for taking, own in zip(group, vectors, strict=False):
            taking.put(own)
        for taking in group:
            taking.lost |= {i: reason for i, reason in lost.items() if i not in taking.done}


def room_for(num_rows: int, width: int, folder: Path | None) -> np.ndarray:
    """Room for a vector of each video, NaN everywhere: in memory, or where that is large, in a nameless file beside the cache."""
    shape = (num_rows, width)
    if folder is None or 4 * num_rows * width <= _MAPPED_FROM_BYTES:
        return np.full(shape, np.nan, dtype=np.float32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            values_ND = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    except OSError:
        return np.full(shape, np.nan, dtype=np.float32)
    for _, values in portions(values_ND):
        values[:] = np.nan
    return values_ND
