"""Features, and the files in which they are kept, keyed by all they depend on."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ssvid.backbones import Backbone
from ssvid.data.contents import units_of
from ssvid.data.manifest import VideoRow, row_id
from ssvid.features.protocol import FeatureProtocol, decoder_of
from ssvid.files import write_atomic

# Part of every cache key: raise it whenever the same inputs would give other features.
FEATURE_FORMAT = 1


# They change how fast the features come, not what they are (to about 1e-6: other batches, other kernels).
_NOT_IN_KEY = ("batch_size", "workers", "timeout_seconds", "untrained_stage")


# Features that take more are mapped from their file instead of read: they may not fit into memory.
_MAPPED_FROM_BYTES = 2**28


_HASHED_AT_ONCE = 2**24


PORTION_BYTES = 2**26


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


def _describe(features: Features, rows: Sequence[VideoRow], **changes: Any) -> Features:
    return replace(
        features,
        ids=tuple(row_id(row) for row in rows),
        labels=tuple(row.label for row in rows),
        groups=tuple(units_of(rows)),
        **changes,
    )


def _columns(names: Sequence[str], parts: Sequence[np.ndarray]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    return {name: (end - part.shape[1], end) for name, part, end in zip(names, parts, ends, strict=True)}


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
