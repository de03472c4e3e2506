"""Frozen features clip by clip, streamed to one file: what ``ssvid embed`` writes.

Clips are computed in *blocks* of whole videos, at most ``batch_size`` clips together (a video with more is a block of its
own). Blocks depend on the list of videos alone, and a block is kept whole or not at all: so a run that was killed
and goes on writes the same bytes as one that was not. What is done lies beside the output in ``<out>.parts/``, each
video under the name of all that its features depend on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch

from ssvid import __version__
from ssvid.backbones import Backbone
from ssvid.bounds import AtLeast, check
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError, DecodeError, RecipeError
from ssvid.features.kept import SUFFIX, Kept, Place, read_place
from ssvid.features.passes import Piece, Progress, Wanted, embed_block, evaluation_mode, over_blocks
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol
from ssvid.features.reading import Read, check_contents, check_decoder, even_starts, row_is_padded
from ssvid.features.store import Listed, content_of, digest_of, features_identity, video_name
from ssvid.features.table import FORMATS, ClipTable, need_pyarrow, read_arrays, read_metadata
from ssvid.files import telling_full_disk, write_json
from ssvid.video.identity import content_id, identity_like
from ssvid.video.sampling import clip_span
from ssvid.video.scan import read_times
from ssvid.video.times import FrameTimes
from ssvid.weights.checkpoints import weights_sha256

EMBED_FORMAT = 1
MARKER = "embed.json"  # a folder of parts has it; another folder of that name is left alone
# Rows of a parquet row group, and of what is gathered from the parts at a time.
_ROWS_AT_ONCE = 4096


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
class EmbedResult:
    """What was written. Prints as a few lines.

    out: the file. num_videos, num_clips: that have features. reused_videos: of them, taken from an earlier run.
    stages: stage -> width. unreadable: path -> why. padded: shorter than a clip. seconds: of the whole call.
    """

    out: Path
    num_videos: int
    num_clips: int
    reused_videos: int
    stages: dict[str, int]
    unreadable: dict[str, str]
    padded: list[str]
    weights_sha256: str
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        return asdict(self) | {"out": str(self.out)}

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns of the file, by name: ``features_<stage>`` is float32 (clips, width)."""
        return read_arrays(self.out)

    def metadata(self) -> dict[str, Any]:
        """What the features depend on: backbone, weights, protocol, videos that could not be read."""
        return read_metadata(self.out)

    def __str__(self) -> str:
        stages = ", ".join(f"features_{name} ({width})" for name, width in self.stages.items())
        lines = [
            f"{self.num_clips} clips of {self.num_videos} videos in {self.seconds:.0f} s: {stages}",
            f"written: {self.out}",
        ]
        if self.reused_videos:
            lines.insert(1, f"{self.reused_videos} videos were taken from an earlier run")
        if self.padded:
            lines.append(f"{len(self.padded)} videos are shorter than a clip; their last frame was repeated")
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} videos could not be read and have no row:")
            lines += [f"  {path}: {reason}" for path, reason in list(self.unreadable.items())[:20]]
            lines += [f"  and {len(self.unreadable) - 20} more, see --json"] * (len(self.unreadable) > 20)
        return "\n".join(lines)


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
) -> EmbedResult:
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
        work = _plan(manifest, protocol, identity, parts.done())
        reused = sum(video.is_done for video in work)
        failed = _compute(backbone, manifest, work, protocol, device, parts.kept, progress)
        unreadable = _unreadable(work, failed)
        done = [video for video in work if video.row.is_readable and video.position not in failed]
        if not done:
            raise _nothing_readable(work, unreadable)
        whole = parts.done()
        if any(video.key not in whole for video in done):
            raise DataError(f"a part in {parts.folder} was removed or damaged meanwhile. Run the same command again.")
        widths = dict(whole[done[0].key].widths)
        result = EmbedResult(
            out,
            len(done),
            sum(len(video.starts) for video in done),
            reused,
            widths,
            {listed.id: listed.reason for listed in unreadable},
            [row_id(video.row) for video in done if row_is_padded(video.row, features)],
            weights,
        )
        places = [whole[video.key].place for video in done]
        metadata = _metadata(backbone, protocol, result, work)
        parts.finish(ClipTable(_columns(done, features), widths, lambda: _portions(places), metadata))
    if not keep_parts:
        shutil.rmtree(parts.folder)
    return result


def checked_out(out: str | Path) -> Path:
    """The output's path, after what can be wrong with it.

    Raises:
        DataError: another ending, a package is missing, or it exists and no parts lie beside it.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise DataError(f"out ({out}) must end in {' or '.join(FORMATS)}. Name it {out.with_suffix('.npz')}.")
    if out.suffix == ".parquet":
        need_pyarrow()
    if out.is_dir():
        raise DataError(f"out ({out}) is a folder, and the features are one file. Name a file: {out / 'all.npz'}.")
    _Parts(out).check()
    return out


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


def _plan(
    manifest: Manifest, protocol: EmbedProtocol, identity: Mapping[str, Any], done: Mapping[str, _Part]
) -> list[_Video]:
    common, videos = digest_of(identity), []
    for position, row in enumerate(manifest.rows):
        times = _times(manifest, row)
        starts = protocol.starts(row, times)
        key = ""
        if row.is_readable:
            key = common[:40] + video_name(content_of(manifest, row), row, starts, protocol.features)
        videos.append(_Video(position, row, starts, key, key in done, times))
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


# ---- computing


def _compute(
    backbone: Backbone,
    manifest: Manifest,
    work: Sequence[_Video],
    protocol: EmbedProtocol,
    device: torch.device,
    kept: Kept,
    progress: Progress | None,
) -> dict[int, str]:
    """Keep what is missing. Returns the reasons of the videos that could not be read, by position."""
    features = protocol.features
    blocks = [[v.position for v in block if not v.is_done] for block in _blocks(work, features.batch_size)]
    blocks = [block for block in blocks if block]
    wanted = [Wanted(backbone, features, {i: work[i].key for block in blocks for i in block})]
    total = sum(len(video.starts) for video in work)
    done = total - sum(len(work[i].starts) for block in blocks for i in block)

    def embed(number: int, pieces: Iterator[Piece]) -> dict[int, str]:
        nonlocal done
        (vectors,), lost = embed_block(wanted, pieces, features, device, most=features.batch_size)
        kept.put({work[i].key: values for i, values in vectors.by_position.items()}, {"stages": vectors.widths})
        done += sum(len(work[i].starts) for i in blocks[number])
        if progress is not None:
            progress(done, total)
        return lost

    if progress is not None and done:
        progress(done, total)
    backbone.to(device)
    with evaluation_mode(backbone):
        found = over_blocks(manifest, [Read(video.row, video.starts) for video in work], blocks, features, embed)
    return {i: reason for lost in found.values() for i, reason in lost.items()}


def _unreadable(work: Sequence[_Video], failed: Mapping[int, str]) -> tuple[Listed, ...]:
    reasons = {video.position: video.row.status for video in work if not video.row.is_readable} | dict(failed)
    return tuple(Listed(row_id(video.row), reasons[video.position]) for video in work if video.position in reasons)


def _nothing_readable(work: Sequence[_Video], unreadable: Sequence[Listed]) -> DataError:
    first = f" ({unreadable[0].id}: {unreadable[0].reason.rstrip('.')})" if unreadable else ""
    return DataError(f"none of the {len(work)} videos could be read{first}. Name a folder of videos that can be.")


# ---- the parts


class _Part(NamedTuple):
    """Where the vectors of a video lie, and the width of each stage."""

    place: Place
    widths: Mapping[str, int]


class _Parts:
    """The folder beside the output that remembers each finished video. One process at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        self.marker = self.folder / MARKER
        self.kept = Kept(self.folder)

    def check(self) -> None:
        """Raise DataError where the output or the folder is another's."""
        if self.folder.exists() and not self.marker.is_file() and (self.folder.is_file() or any(self.folder.iterdir())):
            raise DataError(f"{self.folder} exists and holds no {MARKER}: ssvid did not write it. Name another output.")
        if any(self.folder.glob("*.part")):
            raise DataError(
                f"{self.folder} was begun by an earlier version of ssvid, whose parts this one does not read. Remove that folder "
                "to compute everything anew, or name another output."
            )
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
                if not self.out.exists() and not any(self.folder.glob(f"*{SUFFIX}")):
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self, output: str) -> None:
        write_json(self.marker, {"format": EMBED_FORMAT, "ssvid": __version__, "output": output})

    def done(self) -> dict[str, _Part]:
        """The videos whose vectors are there and whole, by name."""
        found: dict[str, _Part] = {}
        for record in self.kept.records():
            found.setdefault(record.name, _Part(record.place, record.about["stages"]))
        return found

    def finish(self, table: ClipTable) -> None:
        """Write the output; readers see none or the whole."""
        temporary = self.folder / f"output{self.out.suffix}"
        with telling_full_disk(self.out):
            table.write(temporary)
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


def _columns(videos: Sequence[_Video], protocol: FeatureProtocol) -> dict[str, np.ndarray]:
    """Everything but the features, by name."""
    counts = [len(video.starts) for video in videos]
    rows = [video.row for video in videos]
    start = np.concatenate([video.starts + video.row.start_frame for video in videos])
    span = clip_span(protocol.num_frames, protocol.stride_frames)
    last = np.repeat([row.start_frame + row.window_frames for row in rows], counts)
    begins, ends = zip(*(_clip_seconds(video, span) for video in videos), strict=True)
    return {
        "path": np.repeat(np.array([row.path for row in rows]), counts),
        "clip": np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        "start_frame": start.astype(np.int64),
        "end_frame": np.minimum(start + span, last).astype(np.int64),
        "start_seconds": np.concatenate(begins),
        "end_seconds": np.concatenate(ends),
        "label": np.repeat(np.array([row.label for row in rows]), counts),
        "split": np.repeat(np.array([row.split for row in rows]), counts),
    }


def _portions(places: Iterable[Place]) -> Iterator[np.ndarray]:
    """The vectors of whole videos, so many clips at a time: (clips, width)."""
    waiting: list[np.ndarray] = []
    for place in places:
        waiting.append(read_place(place))
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _metadata(
    backbone: Backbone, protocol: EmbedProtocol, result: EmbedResult, work: Sequence[_Video]
) -> dict[str, Any]:
    """What the features depend on, as plain values without any path of this machine."""
    how_fast = ("batch_size", "workers", "timeout_seconds")
    values = {k: v for k, v in asdict(protocol.features).items() if k not in how_fast}
    return {
        "format": EMBED_FORMAT,
        "ssvid": __version__,
        "backbone": {"name": backbone.info.name, "options": dict(backbone.info.options)},
        "weights_sha256": result.weights_sha256,
        "stages": result.stages,
        "protocol": values | {"every_seconds": protocol.every_seconds},
        "placebo": bool(backbone.provenance.get("placebo", False)),
        "partial": bool(backbone.provenance.get("partial", False)),
        "num_videos": result.num_videos,
        "num_clips": result.num_clips,
        "unreadable": [list(listed) for listed in result.unreadable.items()],
        "padded": result.padded,
        "variable_fps": [row_id(video.row) for video in work if video.row.is_readable and video.row.variable_fps],
    }
