"""Features, and the names of what they depend on."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.data.index.scan_cache import whole_id
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, DecodeError
from ssvid.features.protocol import FeatureProtocol, decoder_of
from ssvid.features.reading import even_starts
from ssvid.video.identity import is_quick

# Part of every cache key: raise it whenever the same inputs would give other features.
FEATURE_FORMAT = 1


# They change how fast the features come, not what they are (to about 1e-6: other batches, other kernels).
_NOT_IN_KEY = ("batch_size", "workers", "timeout_seconds", "untrained_stage")


PORTION_BYTES = 2**26


class Listed(NamedTuple):
    """A video that needs a word beside the number, and the word."""

    id: str
    reason: str


def nothing_read(num_videos: int, unreadable: Sequence[Listed]) -> DataError:
    """The error where none of the videos has a vector; with the reason of the first one."""
    first = f" ({unreadable[0].id}: {unreadable[0].reason.rstrip('.')})" if unreadable else ""
    return DataError(
        f"none of the {num_videos} videos could be read{first}. Set data.root to the folder of the videos."
    )


@dataclass(frozen=True)
class Features:
    """One vector per video, in the order asked for. An unreadable video keeps its place: its row is NaN.

    values_ND: float32; mapped from a file without a name where they are large. ids: one name per video. labels:
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
        parts = {name: self.values_ND[:, slice(*self.stage_columns[name])] for name in stages}
        widths = {name: part.shape[1] for name, part in parts.items()}
        return replace(self, values_ND=np.concatenate(list(parts.values()), axis=1), stage_columns=columns_of(widths))


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


def columns_of(widths: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """[start, end) of the columns of each stage, which stand side by side in this order."""
    ends = np.cumsum(list(widths.values())).tolist()
    return {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def digest_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
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


def content_of(manifest: Manifest, row: VideoRow) -> str:
    """What tells the content of a readable video's file from all others; its path where the file is not there."""
    if row.content_id and not is_quick(row.content_id):  # a quick identity does not tell all files apart
        return row.content_id
    try:
        return whole_id(manifest.path_of(row))
    except (OSError, DecodeError):
        return row.path


def video_name(content: str, row: VideoRow, starts: np.ndarray, protocol: FeatureProtocol) -> str:
    """Under which name a video's vectors are kept beside others of the same ``features_identity``: of its content and clips."""
    # Decoders agree on which frame is which, not on the last bit of a color. The order of shuffled frames and the jitter of colors are drawn by the name of the video.
    drawn = [row_id(row)] if protocol.frames == "shuffled" or "color_jitter" in protocol.defects else []
    window = [row.num_frames, row.start_frame, row.end_frame]
    facts = [
        content,
        *window,
        decoder_of(row, protocol),
        *row.gray_range,
        starts.tolist(),
        *drawn,
        *([row.flow] if row.flow else []),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def video_names(manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol) -> list[str]:
    """The ``video_name`` of each row under a resolved protocol; "" where the index could not read it."""
    return [
        video_name(content_of(manifest, row), row, even_starts(row, protocol), protocol) if row.is_readable else ""
        for row in rows
    ]
