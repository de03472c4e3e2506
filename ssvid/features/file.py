"""Frozen features clip by clip, streamed to one file: what ``ssvid embed`` writes.

Clips are computed in *blocks* of whole videos, at most ``batch_size`` clips together (a video with more is a block of its
own). Blocks depend on the list of videos alone, and a block is computed whole or not at all: so a run that was killed
and goes on writes the same bytes as one that was not. What is done lies beside the output in ``<out>.parts/``, one
small file per video, named by all that its features depend on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import torch

from ssvid import __version__
from ssvid.backbones import Backbone
from ssvid.bounds import AtLeast, check
from ssvid.data.index.scan_cache import whole_id
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, DecodeError, RecipeError, SsvidError
from ssvid.features.extracting import Progress, check_finite, evaluation_mode
from ssvid.features.protocol import FeatureProtocol, decoder_of, resolve_feature_protocol
from ssvid.features.reading import (
    ClipItem,
    Read,
    check_contents,
    check_decoder,
    clips_of,
    even_starts,
    read_in_order,
    row_is_padded,
)
from ssvid.features.store import Listed, features_identity
from ssvid.files import telling_full_disk, write_json
from ssvid.video.identity import content_id, identity_like, is_quick
from ssvid.video.sampling import clip_span
from ssvid.video.scan import read_times
from ssvid.video.times import FrameTimes
from ssvid.weights.checkpoints import weights_sha256

FORMATS = (".npz", ".parquet")
EMBED_FORMAT = 1
MARKER = "embed.json"  # a folder of parts has it; another folder of that name is left alone
# Clips of one file that are read together: more are cheaper per clip, and wait in memory for the network.
_READ_BYTES = 32 * 2**20
# Rows of a parquet row group, and of what is gathered from the parts at a time.
_ROWS_AT_ONCE = 4096
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class EmbedProtocol:
    """How videos become rows of features.

    features: clip, pixels, stages and pooling; its ``num_clips`` are spread evenly over each video, and its
        ``batch_size`` counts clips. every_seconds: above 0, a clip starts every so many seconds instead, as long as it
        fits into the video; a video shorter than a clip gives one, its last frame repeated.
    """

    features: FeatureProtocol = field(default_factory=lambda: FeatureProtocol(num_clips=1, batch_size=8))
    every_seconds: Annotated[float, AtLeast(0)] = 0.0

    def starts(self, row: VideoRow, times: FrameTimes | None = None) -> np.ndarray:
        """First frames of a video's clips, int64, counted from the start of its window; by ``times`` where they are known."""
        if not self.every_seconds or not row.is_readable:
            return even_starts(row, self.features)
        room = row.window_frames - clip_span(self.features.num_frames, self.features.stride_frames)
        if times is not None:
            return _starts_by_time(times, row, self.every_seconds, max(room, 0))
        step_frames = max(self.every_seconds * row.fps, 1.0)
        steps = np.arange(int(max(room, 0) / step_frames) + 2)
        starts = np.unique(np.round(steps * step_frames).astype(np.int64))
        return starts[starts <= max(room, 0)]


@dataclass(frozen=True)
class EmbedReport:
    """What was written.

    stages: stage -> width of its vectors. reused: videos whose features an earlier run had left. unreadable: with the
    decoder's words. padded: shorter than a clip. backbone, weights_sha256, protocol: what the features depend on.
    """

    out: Path
    num_videos: int
    num_clips: int
    stages: Mapping[str, int]
    weights_sha256: str
    reused: int = 0
    unreadable: tuple[Listed, ...] = ()
    padded: tuple[str, ...] = ()


def embed_videos(
    backbone: Backbone,
    manifest: Manifest,
    protocol: EmbedProtocol,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    trained_stage: str | None = None,
    keep_parts: bool = False,
    progress: Progress | None = None,
) -> EmbedReport:
    """Write one row per clip of every readable video to ``out``, in the order of the manifest.

    Columns: path, clip, start_frame, end_frame (exclusive, of the file), start_seconds, end_seconds, label, split, and
    ``features_<stage>`` (float32) for each stage; beside them the metadata as JSON. Memory does not grow with the
    number of videos but for the columns other than features.

    Args:
        out: ``.npz`` (numpy reads it with ``allow_pickle=False``) or ``.parquet`` (needs the extra ``parquet``).
        keep_parts: leave ``<out>.parts/``, so that a later run with more videos computes only those.
        progress: called with (clips done, clips in all).

    Raises:
        RecipeError: the protocol makes no sense or does not fit the backbone.
        DataError: ``out`` exists and is not what a run into it left; no video is readable; a file changed.
        DecodeError: a reading process died or did not come back.
    """
    out = checked_out(out)
    device = torch.device(device)
    features = resolve_feature_protocol(protocol.features, backbone.info, trained_stage, group="")
    protocol = replace(protocol, features=features)
    _check_every(protocol, manifest.rows)
    check_decoder(manifest.rows, features, group="")
    check_contents(manifest, manifest.rows)
    weights = weights_sha256(backbone.state_dict())
    identity = features_identity(backbone, weights, features, device)
    with _Parts(out).opened() as parts:
        work = _plan(manifest, protocol, identity, parts)
        reused = sum(video.is_done for video in work)
        failed = _compute(backbone, manifest, work, protocol, device, parts, progress)
        unreadable = _unreadable(work, failed)
        done = [video for video in work if video.row.is_readable and video.position not in failed]
        if not done:
            raise _nothing_readable(work, unreadable)
        widths = _widths(parts, done[0], backbone, features)
        report = EmbedReport(
            out,
            len(done),
            sum(len(video.starts) for video in done),
            widths,
            weights,
            reused,
            unreadable,
            tuple(row_id(video.row) for video in done if row_is_padded(video.row, features)),
        )
        parts.finish(_Table(done, protocol, widths, parts, _metadata(backbone, protocol, report, work)))
    if not keep_parts:
        shutil.rmtree(parts.folder)
    return report


def checked_out(out: str | Path) -> Path:
    """The output's path, after what can be wrong with it.

    Raises:
        DataError: another ending, a package is missing, or it exists and no parts lie beside it.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise DataError(f"out ({out}) must end in {' or '.join(FORMATS)}. Name it {out.with_suffix('.npz')}.")
    if out.suffix == ".parquet":
        _pyarrow()
    if out.is_dir():
        raise DataError(f"out ({out}) is a folder, and the features are one file. Name a file: {out / 'all.npz'}.")
    _Parts(out).check()
    return out


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"out: .parquet needs the package pyarrow ({error}). Install the extra: pip install 'ssvid[parquet]', or "
            "write .npz."
        ) from error
    return pyarrow


def _check_every(protocol: EmbedProtocol, rows: Sequence[VideoRow]) -> None:
    every = protocol.every_seconds
    check(protocol)
    if every and protocol.features.num_clips != 1:
        raise RecipeError(
            f"num_clips ({protocol.features.num_clips}) and every_seconds ({every:g}) exclude each other: a number of "
            "clips per video, or one every so often. Leave one of them out."
        )
    timeless = [row.path for row in rows if every and row.is_readable and row.fps <= 0]
    if timeless:
        raise DataError(
            f"every_seconds ({every:g}) needs the frame rate of each video, and {timeless[0]!r} has none. Set num_clips."
        )


# ---- what is to be done


@dataclass(frozen=True)
class _Video:
    """A row, its clips, the name of its part, and whether that part is there already."""

    position: int
    row: VideoRow
    starts: np.ndarray
    key: str
    is_done: bool
    times: FrameTimes | None = None


def _plan(manifest: Manifest, protocol: EmbedProtocol, identity: Mapping[str, Any], parts: _Parts) -> list[_Video]:
    common = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    videos = []
    for position, row in enumerate(manifest.rows):
        times = _times(manifest, row)
        starts = protocol.starts(row, times)
        key = _part_key(common, manifest, row, starts, protocol.features) if row.is_readable else ""
        is_done = bool(key) and parts.get(key, len(starts)) is not None
        videos.append(_Video(position, row, starts, key, is_done, times))
    return videos


def _times(manifest: Manifest, row: VideoRow) -> FrameTimes | None:
    """The times of the frames of a file, where they are not simply counted by the rate; None where they are, or unknown."""
    if not row.is_readable or not (row.variable_fps or "time: " in row.notes):
        return None
    try:
        return read_times(manifest.path_of(row), row.num_frames)
    except DecodeError:
        return None  # it is listed as unreadable when its frames are read


def _starts_by_time(times: FrameTimes, row: VideoRow, every_seconds: float, room: int) -> np.ndarray:
    """The first frames that begin every so many seconds from the start of the window on."""
    seconds = times.seconds[row.start_frame : row.start_frame + room + 1]
    wanted = np.arange(seconds[0], seconds[-1] + every_seconds, every_seconds)
    starts = np.unique([times.frames_before(moment) - row.start_frame for moment in wanted])
    return starts[starts <= room].astype(np.int64)


def _part_key(common: Any, manifest: Manifest, row: VideoRow, starts: np.ndarray, protocol: FeatureProtocol) -> str:
    """Name of a part: the file's content, its window and clips, and all that features depend on besides."""
    file = manifest.path_of(row)
    # A quick identity does not tell all files apart, and different videos must not share a part.
    is_known = bool(row.content_id) and not is_quick(row.content_id)
    content = row.content_id if is_known else whole_id(file) if file.is_file() else ""
    facts = [content, row.num_frames, row.start_frame, row.end_frame, decoder_of(row, protocol), *row.gray_range]
    digest = common.copy()
    digest.update(json.dumps(facts).encode() + starts.tobytes())
    return digest.hexdigest()[:40]


def _blocks(videos: Iterable[_Video], batch_size: int) -> Iterator[list[_Video]]:
    """Videos whose clips share batches. A block is closed before it would outgrow a batch."""
    block: list[_Video] = []
    size = 0
    for video in videos:
        if not video.row.is_readable:
            continue
        if block and size + len(video.starts) > batch_size:
            yield block
            block, size = [], 0
        block.append(video)
        size += len(video.starts)
    if block:
        yield block


def _reads(video: _Video, protocol: FeatureProtocol) -> Iterator[Read]:
    """A video's clips in portions that fit into memory, whatever its length."""
    clip_bytes = 4 * 3 * protocol.num_frames * protocol.crop_px**2
    at_once = max(1, _READ_BYTES // clip_bytes)
    for first in range(0, len(video.starts), at_once):
        yield Read(video.row, video.starts[first : first + at_once])


# ---- computing


def _compute(
    backbone: Backbone,
    manifest: Manifest,
    work: Sequence[_Video],
    protocol: EmbedProtocol,
    device: torch.device,
    parts: _Parts,
    progress: Progress | None,
) -> dict[int, str]:
    """Fill in the parts that are missing. Returns the reasons of the videos that could not be read, by position."""
    features = protocol.features
    blocks = list(_blocks(work, features.batch_size))
    missing = [block for block in blocks if not all(video.is_done for video in block)]
    queue = [
        (number, video, read)
        for number, block in enumerate(missing)
        for video in block
        for read in _reads(video, features)
    ]
    total = sum(len(video.starts) for block in blocks for video in block)
    done = total - sum(len(video.starts) for block in missing for video in block)
    failed: dict[int, str] = {}
    if progress is not None and done:
        progress(done, total)
    backbone.to(device)
    with evaluation_mode(backbone):
        items = zip(queue, read_in_order(manifest, [read for _, _, read in queue], features), strict=True)
        for number, block_items in groupby(items, key=lambda pair: pair[0][0]):
            read_items = ((video.position, item) for (_, video, _), item in block_items)
            vectors = _embed_block(backbone, read_items, features, device, failed)
            for video in missing[number]:
                if video.position not in failed:
                    parts.put(video.key, np.concatenate(vectors[video.position]))
            done += sum(len(video.starts) for video in missing[number])
            if progress is not None:
                progress(done, total)
    return failed


def _embed_block(
    backbone: Backbone,
    items: Iterator[tuple[int, ClipItem]],
    protocol: FeatureProtocol,
    device: torch.device,
    failed: dict[int, str],
) -> dict[int, list[np.ndarray]]:
    """For each video of a block, its vectors (clips, width of all stages), in batches of at most ``batch_size``."""
    vectors: dict[int, list[np.ndarray]] = {}
    waiting: list[ClipItem] = []

    def flush() -> None:
        by_stage = backbone.embed_stages(clips_of(waiting, device), protocol.stage_names, protocol.pool)
        values_BD = torch.cat([by_stage[name].float() for name in protocol.stage_names], dim=1).cpu().numpy()
        check_finite(backbone, values_BD)
        for item, vector in zip(waiting, values_BD, strict=True):
            vectors.setdefault(item.position, []).append(vector[None])
        waiting.clear()

    for position, item in items:
        if item.clips_VTCHW is None:
            failed.setdefault(position, item.reason)
            continue
        for clip_TCHW in item.clips_VTCHW:
            waiting.append(ClipItem(position, clip_TCHW[None]))
            if len(waiting) == protocol.batch_size:
                flush()
    if waiting:
        flush()
    return vectors


def _unreadable(work: Sequence[_Video], failed: Mapping[int, str]) -> tuple[Listed, ...]:
    reasons = {video.position: video.row.status for video in work if not video.row.is_readable} | dict(failed)
    return tuple(Listed(row_id(video.row), reasons[video.position]) for video in work if video.position in reasons)


def _nothing_readable(work: Sequence[_Video], unreadable: Sequence[Listed]) -> DataError:
    first = f" ({unreadable[0].id}: {unreadable[0].reason.rstrip('.')})" if unreadable else ""
    return DataError(f"none of the {len(work)} videos could be read{first}. Name a folder of videos that can be.")


def _widths(parts: _Parts, video: _Video, backbone: Backbone, protocol: FeatureProtocol) -> dict[str, int]:
    """Width of each stage: measured where pooling keeps cells, else in proportion to the channels, which it may double."""
    if protocol.pool not in ("avg", "avgmax"):
        shape = (1, backbone.info.in_channels, protocol.num_frames, protocol.crop_px, protocol.crop_px)
        blank_BCTHW = torch.zeros(shape, device=backbone.mean_C111.device)
        with evaluation_mode(backbone):
            by_stage = backbone.embed_stages(blank_BCTHW, protocol.stage_names, protocol.pool)
        return {name: vectors.shape[1] for name, vectors in by_stage.items()}
    channels = {name: backbone.info.stage(name).channels for name in protocol.stage_names}
    values = parts.need(video)
    factor, rest = divmod(values.shape[1], sum(channels.values()))
    if rest or not factor:
        raise SsvidError(
            f"backbone {backbone.info.name} gives {values.shape[1]} values per clip, and its info promises "
            f"{sum(channels.values())} channels. Fix the channels of its stages: ssvid.testing.check_backbone finds them."
        )
    return {name: width * factor for name, width in channels.items()}


# ---- the parts


class _Parts:
    """The folder beside the output that remembers each finished video. One process at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        self.marker = self.folder / MARKER

    def check(self) -> None:
        """Raise DataError where the output or the folder is another's."""
        if self.folder.exists() and not self.marker.is_file() and (self.folder.is_file() or any(self.folder.iterdir())):
            raise DataError(f"{self.folder} exists and holds no {MARKER}: ssvid did not write it. Name another output.")
        if not self.out.exists():
            return
        if not self.marker.is_file():
            raise DataError(f"{self.out} exists and would be replaced. Nothing is overwritten: name another output.")
        written = self._written()
        if written != identity_like(written, self.out):
            raise DataError(
                f"{self.out} is not the file that the run in {self.folder} wrote, and would be replaced. Nothing is "
                "overwritten: move one of them away, or name another output."
            )

    def _written(self) -> str:
        """Identity of the output that this folder's last run wrote; "" where none was."""
        try:
            return str(json.loads(self.marker.read_text(encoding="utf-8")).get("output", ""))
        except (
            OSError,
            ValueError,
            AttributeError,
        ):  # cut short by a kill: then no output was written from here either
            return ""

    @contextmanager
    def opened(self) -> Iterator[_Parts]:
        """Make the folder and hold it for this process alone; a folder in which nothing was done goes again."""
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.marker.is_file():
            self._mark("")
        with open(self.folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(f"{self.folder} is in use by another process. Wait for it to end.") from error
            try:
                yield self
            finally:
                if not self.out.exists() and not any(self.folder.glob("*.part")):
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self, output: str) -> None:
        write_json(self.marker, {"format": EMBED_FORMAT, "ssvid": __version__, "output": output})

    def get(self, key: str, num_clips: int) -> np.ndarray | None:
        """A video's vectors (clips, width), None where they are missing or damaged."""
        try:
            content = (self.folder / f"{key}.part").read_bytes()
        except FileNotFoundError:
            return None
        digest, values = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(values).digest() != digest or not values:
            (self.folder / f"{key}.part").unlink()
            return None
        return np.frombuffer(values, dtype="<f4").reshape(num_clips, -1)

    def need(self, video: _Video) -> np.ndarray:
        """The vectors of a video whose part was written."""
        values = self.get(video.key, len(video.starts))
        if values is None:
            raise DataError(f"a part in {self.folder} was removed or damaged meanwhile. Run the same command again.")
        return values

    def put(self, key: str, values: np.ndarray) -> None:
        """Keep a video's vectors. The first one stays: a second file with the same content must not change it."""
        path = self.folder / f"{key}.part"
        if path.exists():
            return
        # Not forced to the disk, which would cost more than a clip: the digest finds what a power cut has damaged.
        content = np.ascontiguousarray(values, dtype="<f4").tobytes()
        temporary = path.with_suffix(".tmp")
        with telling_full_disk(path):
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        temporary.replace(path)

    def finish(self, table: _Table) -> None:
        """Write the output; readers see none or the whole."""
        temporary = self.folder / f"output{self.out.suffix}"
        with telling_full_disk(self.out):
            (write_npz if self.out.suffix == ".npz" else write_parquet)(temporary, table)
        # Marked first: a run that is killed between the two lines finds no output, or the one it knows.
        self._mark(content_id(temporary))
        temporary.replace(self.out)


# ---- the output


def _clip_seconds(video: _Video, span: int) -> tuple[np.ndarray, np.ndarray]:
    """When the clips of a video begin and end, float64 (clips,) each; NaN where the frame rate is unknown."""
    row, start = video.row, video.starts + video.row.start_frame
    end = np.minimum(start + span, row.start_frame + row.window_frames)
    if video.times is not None:
        edges = np.append(video.times.seconds, video.times.end_seconds)
        return edges[start], edges[end]
    fps = row.fps if row.fps > 0 else np.nan
    return start / fps, end / fps


class _Table:
    """The rows of the output: small columns as arrays, features in portions from the parts."""

    def __init__(
        self,
        videos: Sequence[_Video],
        protocol: EmbedProtocol,
        widths: Mapping[str, int],
        parts: _Parts,
        metadata: Mapping[str, Any],
    ) -> None:
        self.videos, self.protocol, self.widths, self.parts, self.metadata = videos, protocol, widths, parts, metadata

    def __len__(self) -> int:
        return sum(len(video.starts) for video in self.videos)

    def columns(self) -> dict[str, np.ndarray]:
        """Everything but the features, by name."""
        counts = [len(video.starts) for video in self.videos]
        rows = [video.row for video in self.videos]
        start = np.concatenate([video.starts + video.row.start_frame for video in self.videos])
        span = clip_span(self.protocol.features.num_frames, self.protocol.features.stride_frames)
        last = np.repeat([row.start_frame + row.window_frames for row in rows], counts)
        end = np.minimum(start + span, last)
        begins, ends = zip(*(_clip_seconds(video, span) for video in self.videos), strict=True)
        return {
            "path": np.repeat(np.array([row.path for row in rows]), counts),
            "clip": np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
            "start_frame": start.astype(np.int64),
            "end_frame": end.astype(np.int64),
            "start_seconds": np.concatenate(begins),
            "end_seconds": np.concatenate(ends),
            "label": np.repeat(np.array([row.label for row in rows]), counts),
            "split": np.repeat(np.array([row.split for row in rows]), counts),
        }

    def portions(self) -> Iterator[np.ndarray]:
        """The features of all stages side by side, in portions of whole videos: (clips, width)."""
        waiting: list[np.ndarray] = []
        for video in self.videos:
            waiting.append(self.parts.need(video))
            if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)

    def stage_slices(self) -> dict[str, slice]:
        """Which columns of a portion belong to which stage."""
        ends = np.cumsum(list(self.widths.values())).tolist()
        return {name: slice(end - self.widths[name], end) for name, end in zip(self.widths, ends, strict=True)}


def write_npz(path: Path, table: _Table) -> None:
    """Plain arrays, one after the other; the features never lie in memory as a whole. Same rows, same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        arrays = {"metadata": np.array(json.dumps(table.metadata))} | table.columns()
        for name, array in arrays.items():
            _add_array(archive, name, array, (np.ascontiguousarray(array),))
        for stage, columns in table.stage_slices().items():
            outline = np.empty((len(table), table.widths[stage]), dtype="<f4")  # never touched, so it takes no memory
            portions = (np.ascontiguousarray(portion[:, columns]) for portion in table.portions())
            _add_array(archive, f"features_{stage}", outline, portions)


def _add_array(archive: zipfile.ZipFile, name: str, outline: np.ndarray, portions: Iterable[np.ndarray]) -> None:
    file: IO[bytes]
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(outline))
        for portion in portions:
            file.write(portion.tobytes())


def write_parquet(path: Path, table: _Table) -> None:
    """The same columns, the features as fixed-size lists of float32; the metadata as JSON under the key ``ssvid``."""
    pyarrow = _pyarrow()
    columns = table.columns()
    plain = {name: _parquet_column(pyarrow, array) for name, array in columns.items()}
    fields = [pyarrow.field(name, array.type) for name, array in plain.items()]
    fields += [pyarrow.field(f"features_{s}", pyarrow.list_(pyarrow.float32(), w)) for s, w in table.widths.items()]
    schema = pyarrow.schema(fields, metadata={"ssvid": json.dumps(table.metadata)})
    first = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for portion in table.portions():
            cells = [array.slice(first, len(portion)) for array in plain.values()]
            for stage, span in table.stage_slices().items():
                flat = pyarrow.array(np.ascontiguousarray(portion[:, span]).reshape(-1))
                cells.append(pyarrow.FixedSizeListArray.from_arrays(flat, table.widths[stage]))
            writer.write_table(pyarrow.table(cells, schema=schema))
            first += len(portion)


def _parquet_column(pyarrow: Any, array: np.ndarray) -> Any:
    if array.dtype.kind != "U":
        return pyarrow.array(array)
    # Names of files need not be UTF-8, and parquet's text must be.
    text = (str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in array)
    return pyarrow.array(list(text), type=pyarrow.string())


def _metadata(
    backbone: Backbone, protocol: EmbedProtocol, report: EmbedReport, work: Sequence[_Video]
) -> dict[str, Any]:
    """What the features depend on, as plain values without any path of this machine."""
    how_fast = ("batch_size", "workers", "timeout_seconds")
    values = {k: v for k, v in asdict(protocol.features).items() if k not in how_fast}
    return {
        "format": EMBED_FORMAT,
        "ssvid": __version__,
        "backbone": {"name": backbone.info.name, "options": dict(backbone.info.options)},
        "weights_sha256": report.weights_sha256,
        "stages": dict(report.stages),
        "protocol": values | {"every_seconds": protocol.every_seconds},
        "placebo": bool(backbone.provenance.get("placebo", False)),
        "partial": bool(backbone.provenance.get("partial", False)),
        "num_videos": report.num_videos,
        "num_clips": report.num_clips,
        "unreadable": [list(listed) for listed in report.unreadable],
        "padded": list(report.padded),
        "variable_fps": [row_id(video.row) for video in work if video.row.is_readable and video.row.variable_fps],
    }


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file that ``embed_videos`` wrote."""
    path = Path(path)
    if path.suffix == ".parquet":
        return dict(json.loads(_pyarrow().parquet.read_schema(path).metadata[b"ssvid"]))
    with np.load(path, allow_pickle=False) as arrays:
        return dict(json.loads(arrays["metadata"].item()))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a file that ``embed_videos`` wrote, by name."""
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "metadata"}
    table = _pyarrow().parquet.read_table(path).combine_chunks()
    return {name: _array_of(table[name]) for name in table.column_names}


def _array_of(column: Any) -> np.ndarray:
    if hasattr(column.type, "list_size"):
        return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return np.array(column.to_pylist()) if str(column.type) == "string" else column.to_numpy()
