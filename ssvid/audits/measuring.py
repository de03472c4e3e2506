"""The same questions put to a network over and over: once on clean clips, once for each counterfactual."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.audits.clips import CHANGED, AuditedClips, frames_in, repainted_batch
from ssvid.audits.counterfactuals import CLIP, VIDEO, Counterfactual
from ssvid.backbones import Backbone
from ssvid.composite import CompositeTask
from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import PluginError
from ssvid.progress import NamedProgress
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.types import ClipMaker, Stream, Ticket

CLIPS_AT_ONCE = 4  # of one opened video
CLEAN = Counterfactual("clean")

Batches = list[list[tuple[Ticket, ...]]]


class Answers(NamedTuple):
    """What a network said to N clips.

    videos_N: which sample of the dataset. records: what the metric is computed from, tensors with leading axis N.
    changed_N: whether the counterfactual changed the clip; None where that makes no sense. replaced_N: the video could
    not be read, and another stood in.
    """

    videos_N: np.ndarray
    records: tuple[Tensor, ...]
    changed_N: np.ndarray | None
    replaced_N: np.ndarray

    @property
    def share_changed(self) -> float:
        """Of the clips, how many the counterfactual changed."""
        return 1.0 if self.changed_N is None else float(self.changed_N.mean())

    def of(self, clips: slice | np.ndarray) -> Answers:
        """Those to some of the clips."""
        records = tuple(
            record[clips if isinstance(clips, slice) else torch.from_numpy(clips)] for record in self.records
        )
        changed_N = None if self.changed_N is None else self.changed_N[clips]
        return Answers(self.videos_N[clips], records, changed_N, self.replaced_N[clips])


@dataclass(frozen=True)
class Subject:
    """A network under audit: backbone and task with their weights, and what is asked.

    metric: a per-sample metric of the task, or one of its epoch metrics. seed: of the recipe.
    """

    backbone: Backbone
    task: PretextTask
    metric: str
    seed: int
    device: str = "cpu"

    @property
    def targets(self) -> tuple[str, ...]:
        """Keys of a batch that are answers, not questions."""
        if isinstance(self.task, CompositeTask):
            return tuple(f"{label}/{name}" for label, task in self.task.members.items() for name in task.targets)
        return self.task.targets

    def answer(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """The records of a collated batch, on the CPU.

        Raises:
            PluginError: the task measures no such metric.
        """
        tickets = tickets_of(batch)
        moved = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, *tickets[0][:4]]).generate_state(1)[0]))
            output = self.task(self.task.augment(moved, BatchRandom.of(self.seed, tickets)), self.backbone)
        if self.metric in output.metrics:
            return (output.metrics[self.metric].float().cpu(),)
        if self.metric in output.scores:
            return tuple(_by_sample(score.cpu(), len(tickets)) for score in output.scores[self.metric])
        known = ", ".join(sorted({*output.metrics, *output.scores}))
        raise PluginError(
            f"metric ({self.metric!r}) must be one that the task measures: {known}. Name it with --metric."
        )


def _by_sample(scores: Tensor, num_samples: int) -> Tensor:
    """Scores with a leading axis of samples; several scores of one sample lie along the next."""
    if scores.shape[0] % num_samples:
        raise PluginError(
            f"the task gives {scores.shape[0]} scores for {num_samples} samples, and the audit cannot tell whose they are. "
            "Give equally many for each sample, in batch order, or audit a metric that has one value per sample: --metric."
        )
    return scores.reshape(num_samples, scores.shape[0] // num_samples, *scores.shape[1:])


@dataclass(frozen=True)
class Questions:
    """Which clips are asked about, always the same ones.

    manifest, rows: the videos. num_clips: at least so many, equally many of each video. batch: clips of a forward pass.
    """

    manifest: Manifest
    rows: Sequence[VideoRow]
    num_clips: int = 1000
    batch: int = 32
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def dataset(self, maker: ClipMaker, seed: int) -> ClipDataset:
        """One sample per video, however long."""
        return ClipDataset(
            self.manifest,
            [row for row in self.rows if row.window_frames >= maker.min_frames],
            maker,
            seed=seed,
            decoder=self.loader.decoder,
            segment_seconds=float("inf"),
        )

    def batches(self, num_videos: int) -> Batches:
        """The tickets, several clips of a video in one group, neighboring groups of other videos."""
        per_video = math.ceil(self.num_clips / num_videos)
        groups = [
            (index, range(first, min(first + CLIPS_AT_ONCE, per_video)))
            for first in range(0, per_video, CLIPS_AT_ONCE)
            for index in range(num_videos)
        ]
        at_once = max(1, self.batch // min(CLIPS_AT_ONCE, per_video))
        parts = [groups[i : i + at_once] for i in range(0, len(groups), at_once)]
        return [
            [tuple(Ticket(int(Stream.AUDIT), 0, step, index, clip) for clip in clips) for index, clips in part]
            for step, part in enumerate(parts)
        ]


def measure(
    subject: Subject,
    questions: Questions,
    counterfactuals: Sequence[Counterfactual],
    progress: NamedProgress | None = None,
) -> dict[Counterfactual, Answers]:
    """The answers on clean clips (under ``CLEAN``) and under every counterfactual that can be applied.

    Those that act on the clip are measured on the clean batches themselves; each of the others reads the videos again.
    """
    subject.backbone.eval()
    subject.task.eval()
    report = progress or (lambda done, total, what: None)
    maker = subject.task.clip_maker(training=False)
    on_clip = [c for c in counterfactuals if c.place == CLIP]
    on_video = [c for c in counterfactuals if c.place == VIDEO]
    total = 1 + len(on_video)
    report(0, total, "clean")
    found = _one_pass(subject, questions, maker, [CLEAN, *on_clip])
    for done, counterfactual in enumerate(on_video, start=1):
        report(done, total, counterfactual.label)
        found |= _one_pass(subject, questions, AuditedClips(maker, counterfactual), [counterfactual])
    report(total, total, "")
    return {c: found[c] for c in (CLEAN, *counterfactuals) if c in found}


def _one_pass(
    subject: Subject, questions: Questions, maker: ClipMaker, wanted: Sequence[Counterfactual]
) -> dict[Counterfactual, Answers]:
    """Read all clips once; ask about each batch as it is, or repainted where a counterfactual acts on the clip."""
    dataset = questions.dataset(maker, subject.seed)
    batches = questions.batches(len(dataset))
    total = sum(len(group) for batch in batches for group in batch)
    sheets: dict[Counterfactual, _Sheet] = {}
    for batch in ClipLoader(dataset, batches, questions.loader):
        for counterfactual, asked, changed in _variants(batch, wanted, subject):
            answers = _answers(subject, asked, changed)
            sheets.setdefault(counterfactual, _Sheet(answers, total)).add(answers)
    return {counterfactual: sheet.answers for counterfactual, sheet in sheets.items()}


def _variants(
    batch: dict[str, Any], wanted: Iterable[Counterfactual], subject: Subject
) -> Iterator[tuple[Counterfactual, dict[str, Any], Tensor | None]]:
    flags, targets = batch.pop(CHANGED, None), subject.targets
    for counterfactual in wanted:
        if counterfactual.place == VIDEO:
            yield counterfactual, dict(batch), flags
        elif frames_in(batch, targets):
            yield counterfactual, *repainted_batch(batch, counterfactual, subject.seed, targets)


def _answers(subject: Subject, batch: dict[str, Any], changed: Tensor | None) -> Answers:
    tickets = batch["tickets"]
    return Answers(
        tickets[:, Ticket._fields.index("index")].numpy(),
        subject.answer(batch),
        None if changed is None else changed.numpy(),
        tickets[:, Ticket._fields.index("attempt")].numpy() > 0,
    )


class _Sheet:
    """Room for the answers to all clips, taken at once.

    Thousands of small tensors that live on would lie between the large ones of the passes and keep the allocator from
    using their place again: an audit of 1,000 clips then grew to 12 GB.
    """

    def __init__(self, first: Answers, total: int) -> None:
        changed = None if first.changed_N is None else np.empty(total, dtype=bool)
        records = tuple(record.new_empty((total, *record.shape[1:])) for record in first.records)
        self._all = Answers(np.empty(total, dtype=np.int64), records, changed, np.empty(total, dtype=bool))
        self._filled = 0

    def add(self, answers: Answers) -> None:
        """The answers to the next clips."""
        where = slice(self._filled, self._filled + len(answers.videos_N))
        self._all.videos_N[where] = answers.videos_N
        self._all.replaced_N[where] = answers.replaced_N
        for room, record in zip(self._all.records, answers.records, strict=True):
            room[where] = record
        if self._all.changed_N is not None and answers.changed_N is not None:
            self._all.changed_N[where] = answers.changed_N
        self._filled = where.stop

    @property
    def answers(self) -> Answers:
        """Those that came."""
        return self._all.of(slice(self._filled))


def without_replaced(found: dict[Counterfactual, Answers]) -> dict[Counterfactual, Answers]:
    """The answers without clips whose video was replaced in some pass, as it could not be read."""
    if not found:
        return found
    keep = ~np.any([answers.replaced_N for answers in found.values()], axis=0)
    return {counterfactual: answers.of(keep) for counterfactual, answers in found.items()}
