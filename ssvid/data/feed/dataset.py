"""Tickets in, samples out: plan, one read, transform. Unreadable videos are replaced deterministically and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ssvid.data.feed.pairs import Pairs
from ssvid.data.feed.sampler import EvalBatches
from ssvid.data.index.signals import check_signals, load_signals
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, DecodeError
from ssvid.transforms import Cutter, cuts_of
from ssvid.types import ClipMaker, Stream, Ticket, VideoInfo, batch_rng, sample_rng
from ssvid.video.decoders.contract import hand_out_frames

MAX_REPLACEMENTS = 10
_MEASURED = (Stream.VAL, Stream.EVAL)  # where another video must not stand in


class _UnreadableError(Exception):
    """A video could not be read. path: as the manifest says. reason: the decoder's words. Never leaves this file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Segment:
    """A stretch of a video that counts as one sample: ``num_frames`` from ``start_frame`` of the file."""

    row: int
    start_frame: int
    num_frames: int


def cut_segments(rows: Sequence[VideoRow], segment_seconds: float, min_frames: int) -> list[Segment]:
    """Cut long videos into equal segments, so that footage is drawn from in proportion to its duration.

    A video of up to 1.5 x ``segment_seconds`` stays whole; no segment is shorter than ``min_frames``. Rows shorter
    than ``min_frames`` give none.

    Raises:
        DataError: segment_seconds is not positive.
    """
    if not segment_seconds > 0:
        raise DataError(f"data.segment_seconds ({segment_seconds}) must be positive. Set data.segment_seconds=30.")
    segments = []
    for number, row in enumerate(rows):
        frames = row.window_frames
        if frames < min_frames:
            continue
        seconds = frames / row.fps if row.fps > 0 else 0.0
        parts = max(1, min(round(seconds / segment_seconds), frames // max(min_frames, 1)))
        edges = np.linspace(0, frames, parts + 1).astype(int)
        segments += [
            Segment(number, row.start_frame + int(a), int(b - a)) for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
    return segments


class ClipDataset(Dataset):
    """One item per group of tickets of the same video: the file is opened once, all its clips come from one read.

    Args:
        manifest: gives the root folder. rows: the readable rows to draw from. clip_maker: the task's worker side.
        seed: of the recipe. decoder: forced decoder or ``auto``. segment_seconds: see ``cut_segments``.
        frame_step: the clip maker sees each n-th frame alone, as if the others were not in the file.
        classes: label -> its number; each sample then carries that of its video as ``label``. None sends no labels.

    Attributes:
        too_short: rows left out because the clip maker needs more frames than they have.
        pairs: who belongs to whom, where the clip maker takes several videos of one class or group for a sample. alone: rows left
            out because they have no companion.
        videos: for each sample the number of its video, int64; the same for segments, windows and copies of one video.

    Raises:
        DataError: no row is long enough, none has another one of its class or group where the clip maker takes pairs, or it
            plans from signals that were not measured.
    """

    def __init__(
        self,
        manifest: Manifest,
        rows: Sequence[VideoRow],
        clip_maker: ClipMaker,
        *,
        seed: int,
        decoder: str = "auto",
        segment_seconds: float = 30.0,
        frame_step: int = 1,
        classes: Mapping[str, int] | None = None,
    ) -> None:
        self.manifest, self.rows, self.clip_maker = manifest, list(rows), clip_maker
        self.seed, self.decoder, self.frame_step, self.classes = seed, decoder, frame_step, classes
        min_frames = (clip_maker.min_frames - 1) * frame_step + 1
        self.segments = cut_segments(self.rows, segment_seconds, min_frames)
        self.too_short = [row for row in self.rows if row.window_frames < min_frames]
        if not self.segments:
            longest = max((row.window_frames for row in self.rows), default=0)
            raise DataError(
                f"no video is long enough: the task needs {min_frames} frames of one video, the longest of "
                f"{len(self.rows)} has {longest}. Have it take fewer frames by task.options (ssvid tasks NAME lists them), or use longer videos."
            )
        self.alone: list[VideoRow] = []
        self.pairs = self._paired(getattr(clip_maker, "group_by", None))
        self.videos = self._video_numbers()
        self.signals: tuple[str, ...] = tuple(getattr(clip_maker, "signals", ()))
        if self.signals:
            used = sorted({segment.row for segment in self.segments})
            check_signals(manifest.root, [self.rows[number] for number in used], self.signals)

    def __len__(self) -> int:
        return len(self.segments)

    def _video_numbers(self) -> np.ndarray:
        rows = [self.rows[segment.row] for segment in self.segments]
        identities = [row.source_id or row.content_id or row.path for row in rows]
        return np.unique(identities, return_inverse=True)[1].astype(np.int64)

    def _paired(self, group_by: str | None) -> Pairs | None:
        """The pairs of the segments, of which those without a companion are taken off."""
        if group_by is None:
            return None
        found = Pairs.of([self.rows[segment.row] for segment in self.segments], self._video_numbers(), group_by)
        kept = {self.segments[i].row for i in found.kept}
        self.alone = [self.rows[i] for i in sorted({segment.row for segment in self.segments} - kept)]
        self.segments = [self.segments[i] for i in found.kept]
        return found

    def video_info(self, index: int) -> VideoInfo:
        """What the plan of sample ``index`` sees: the segment as if it were a whole video."""
        segment = self.segments[index]
        row, root = self.rows[segment.row], self.manifest.root
        info = row.video_info(root)
        seen = -(-segment.num_frames // self.frame_step)
        info = replace(info, num_frames=seen, fps=info.fps / self.frame_step)
        if not self.signals:
            return info
        stretch = (segment.start_frame, segment.num_frames, self.frame_step)
        return replace(info, signals=load_signals(root, row, self.signals, *stretch))

    def path_of(self, index: int) -> str:
        """Path of sample ``index``, relative to the manifest's root."""
        return self.rows[self.segments[index].row].path

    def __getitem__(self, group: tuple[Ticket, ...]) -> list[dict[str, Any]]:
        """The samples of a group of tickets, each with its ``weight``; ``unreadable`` of the first lists what failed.

        In training another video stands in for one that cannot be read. What is measured has none to stand in: such a
        sample is black and of weight 0.

        Raises:
            DataError: in training, more than ``MAX_REPLACEMENTS`` videos in a row cannot be read.
        """
        failures: list[tuple[str, str]] = []
        first, index = group[0], group[0].index
        weight = 0.0 if first.attempt == EvalBatches.PADDING else 1.0
        while True:
            tickets = [t._replace(attempt=len(failures)) for t in group]
            try:
                samples = self._read(index, tickets)
                break
            except _UnreadableError as error:
                failures.append((error.path, error.reason))
                if first.stream in _MEASURED:
                    samples, weight = self._read(index, tickets, black=True), 0.0
                    break
                if len(failures) > MAX_REPLACEMENTS:
                    raise DataError(
                        f"{len(failures)} videos in a row could not be read, the last: {error.reason} "
                        "Check the folder with `ssvid data index`."
                    ) from error
                index = self._replacement(first, len(failures))
        for sample in samples:
            sample["weight"] = torch.tensor(weight)
        samples[0]["unreadable"] = failures
        return samples

    def _replacement(self, ticket: Ticket, attempt: int) -> int:
        """Another sample, drawn from the ticket's own address: the same on every machine and worker."""
        rng = sample_rng(self.seed, ticket._replace(attempt=attempt))
        return int(rng.integers(len(self.segments)))

    def _read(self, index: int, tickets: Sequence[Ticket], *, black: bool = False) -> list[dict[str, Any]]:
        """The samples of a group of tickets; where the clip maker takes several videos, each from all of them."""
        samples: list[dict[str, Any]] = [{} for _ in tickets]
        sources = []
        for number, maker in enumerate(self.makers):
            own = [t._replace(clip=t.clip + number * len(tickets)) for t in tickets]
            source = self._source(number, index, tickets[0])
            sources.append(self.videos[source])
            for sample, part in zip(samples, self._read_one(maker, source, own, black), strict=True):
                sample |= part
        for sample, ticket in zip(samples, tickets, strict=True):
            sample["tickets"] = torch.tensor(ticket, dtype=torch.int64)
            sample["video_numbers"] = torch.tensor(sources, dtype=torch.int64)
            if self.classes is not None:
                sample["label"] = torch.tensor(self.classes[self.rows[self.segments[index].row].label])
        return samples

    @property
    def makers(self) -> tuple[ClipMaker, ...]:
        """The clip makers that each take a video of their own; one alone takes all views from one."""
        return getattr(self.clip_maker, "video_makers", ()) or (self.clip_maker,)

    def _source(self, number: int, index: int, ticket: Ticket) -> int:
        """Which sample video ``number`` of sample ``index`` is taken from: a companion, or one that stands further on."""
        if self.pairs is not None and number:
            address = [self.seed, ticket.stream, ticket.epoch, index, ticket.clip, number]
            return self.pairs.companion(index, np.random.default_rng(address))
        return (index + self.shift(number, ticket.stream, ticket.epoch)) % len(self.segments)

    def shift(self, number: int, stream: int, epoch: int) -> int:
        """How many samples further on video ``number`` of each sample stands: in every epoch each once, another one."""
        if number == 0 or len(self.segments) == 1:
            return 0
        rng = np.random.default_rng([self.seed, stream, epoch, number])
        return int(rng.integers(1, len(self.segments)))

    def _read_one(self, maker: ClipMaker, index: int, tickets: Sequence[Ticket], black: bool) -> list[dict[str, Any]]:
        """The parts that one clip maker gives, of one video; of black frames, without opening it, where ``black``."""
        info = self.video_info(index)
        draws = [(sample_rng(self.seed, t), batch_rng(self.seed, t)) for t in tickets]
        plans = [maker.plan(info, *pair) for pair in draws]
        cuts = [cuts_of(maker, info.height, info.width, plan, *pair) for plan, pair in zip(plans, draws, strict=True)]
        views = [plan.views[cut.view] for plan, own in zip(plans, cuts, strict=True) for cut in own.wanted]
        wanted = [cut for own in cuts for cut in own.wanted]
        cutters = [
            Cutter(c, len(view), info.height, info.width, info.channels) for c, view in zip(wanted, views, strict=True)
        ]
        if not black:
            self._hand_out(index, views, cutters)
        clips = iter(cutters)
        return [own.finish(tuple(next(clips).clip() for _ in own.wanted)) for own in cuts]

    def _hand_out(self, index: int, views: Sequence[np.ndarray], cutters: Sequence[Cutter]) -> None:
        """Decode the frames of sample ``index`` once, and hand them to the cutters of the views that need them."""
        segment = self.segments[index]
        row = self.rows[segment.row]
        frames = [view * self.frame_step + segment.start_frame for view in views]
        try:
            with row.open(self.manifest.root, self.decoder) as reader:
                hand_out_frames(reader, frames, [cutter.put for cutter in cutters])
        except DecodeError as error:
            raise _UnreadableError(row.path, str(error)) from error


def collate(groups: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Stack samples to a batch: tensors get a leading axis B; ``unreadable`` lists are joined."""
    samples = [sample for group in groups for sample in group]
    batch: dict[str, Any] = {}
    for name, value in samples[0].items():
        if isinstance(value, Tensor):
            # Stacks into shared memory where it runs in a worker: the batch is not copied once more on its way.
            batch[name] = default_collate([sample[name] for sample in samples])
    batch["unreadable"] = [failure for sample in samples for failure in sample.get("unreadable", [])]
    return batch


def tickets_of(batch: dict[str, Any]) -> list[Ticket]:
    """The tickets that a batch carries."""
    return [Ticket(*row) for row in batch["tickets"].tolist()]
