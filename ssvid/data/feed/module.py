"""What Lightning is given: the loaders of a run, positioned by the trainer's own counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytorch_lightning as pl

from ssvid.data.config import DataConfig, LoaderConfig, OutOfDomainConfig
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import BatchLayout, EvalBatches, Position, TrainBatches, epoch_order, largest_majority
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.types import Stream

if TYPE_CHECKING:
    from ssvid.tasks import PretextTask


# A metric on few clips jumps from validation to validation: of few held-out videos several clips each are measured.
ENOUGH_CLIPS, MOST_CLIPS = 32, 8


def clips_for(num_videos: int) -> int:
    """Clips of each held-out video, so that there are enough in all."""
    return min(MOST_CLIPS, -(-ENOUGH_CLIPS // max(num_videos, 1)))


@dataclass
class UnreadableReport:
    """Which videos could not be read, and how often something stood in for them in training.

    num_videos: to train on. max_fraction: of them may be unreadable. reasons: path -> why, of videos to train on.
    held_out: the same of those that are measured; nothing stands in for them, they count for nothing.
    """

    num_videos: int
    max_fraction: float
    reasons: dict[str, str] = field(default_factory=dict)
    num_replaced: int = 0
    held_out: dict[str, str] = field(default_factory=dict)

    @property
    def all_reasons(self) -> dict[str, str]:
        """Path -> why, of all videos that could not be read."""
        return self.reasons | self.held_out

    def add(self, failures: Sequence[tuple[str, str]]) -> None:
        """Count replacements.

        Raises:
            DataError: more videos than the limit allows are unreadable; the text lists them.
        """
        self.num_replaced += len(failures)
        self.reasons.update(dict(failures))
        self.check()

    def check(self) -> None:
        """Raise DataError where the limit is passed."""
        share = len(self.reasons) / max(self.num_videos, 1)
        if share > self.max_fraction:
            listing = "\n".join(f"  {path}: {reason}" for path, reason in sorted(self.reasons.items())[:20])
            more = f"\n  ... and {len(self.reasons) - 20} more" if len(self.reasons) > 20 else ""
            raise DataError(
                f"{len(self.reasons)} of {self.num_videos} videos cannot be read ({share:.1%}), more than "
                f"loader.max_unreadable_fraction ({self.max_fraction:g}) allows. Fix or remove them, or set "
                f"loader.max_unreadable_fraction={share * 1.1:.3f}:\n{listing}{more}"
            )

    def summary(self) -> str:
        """A line each of videos to train on and of held-out ones; empty where every video was read."""
        stood_in = f"; others stood in for them {self.num_replaced} times" if self.num_replaced else ""
        parts = {
            f"unreadable videos: {len(self.reasons)}{stood_in}": self.reasons,
            f"unreadable held-out videos: {len(self.held_out)}, which are not in the metrics": self.held_out,
        }
        return "\n".join(
            f"{what}: " + "; ".join(f"{path} ({reason})" for path, reason in sorted(found.items()))
            for what, found in parts.items()
            if found
        )


def _unreadable(rows: Iterable[VideoRow]) -> dict[str, str]:
    return {row.path: row.status.removeprefix("unreadable: ") for row in rows if not row.is_readable}


class Videos(NamedTuple):
    """What a run reads.

    manifest: all videos. train, held_out: which of them are trained on and measured; held_out may be empty.
    elsewhere: the videos of ``data.out_of_domain``, measured beside those that are held out; None where there are none.
    classes: label -> its number; the samples to train on then carry it as ``label``. None sends no labels.
    """

    manifest: Manifest
    train: Sequence[VideoRow]
    held_out: Sequence[VideoRow] = ()
    elsewhere: Manifest | None = None
    classes: Mapping[str, int] | None = None


class ClipDataModule(pl.LightningDataModule):
    """The loaders of a pretraining run.

    Args:
        videos: what is trained on and measured. task: gives the clip makers. seed, data, loader, accumulate: of the recipe.
        val_clips: of each video that is measured; 0 takes as many as make ``ENOUGH_CLIPS`` of the held-out videos.

    Attributes:
        unreadable: filled by the trainer from what the batches report.
        val_set, ood_set: what is measured in and out of domain; None where it is not.

    Raises:
        DataError: too many videos are unreadable, or too few long enough.
    """

    def __init__(
        self,
        videos: Videos,
        task: PretextTask,
        *,
        seed: int,
        data: DataConfig,
        loader: LoaderConfig,
        accumulate: int = 1,
        pin_memory: bool = False,
        val_clips: int = 1,
    ) -> None:
        super().__init__()
        self.seed, self.loader, self.accumulate, self.pin_memory = seed, loader, accumulate, pin_memory
        elsewhere = videos.elsewhere
        self.unreadable = UnreadableReport(
            len(videos.train),
            loader.max_unreadable_fraction,
            _unreadable(videos.train),
            held_out=_unreadable([*videos.held_out, *(elsewhere.rows if elsewhere else ())]),
        )
        self.unreadable.check()
        self.train_set = ClipDataset(
            videos.manifest,
            [row for row in videos.train if row.is_readable],
            task.clip_maker(training=True),
            seed=seed,
            decoder=loader.decoder,
            segment_seconds=data.segment_seconds,
            classes=videos.classes,
        )
        self.val_set = self._measured(videos.manifest, videos.held_out, task)
        self.val_clips = val_clips or clips_for(len(self.val_set) if self.val_set else 0)
        self.ood_set = None
        if elsewhere is not None:
            self.ood_set = self._measured(elsewhere, elsewhere.rows, task, data.out_of_domain.frame_step)
            self._check_pair(data.out_of_domain, elsewhere)

    def _measured(
        self, manifest: Manifest, rows: Sequence[VideoRow], task: PretextTask, frame_step: int = 1
    ) -> ClipDataset | None:
        maker = task.clip_maker(training=False)
        needed = (maker.min_frames - 1) * frame_step + 1
        rows = [row for row in rows if row.is_readable and row.window_frames >= needed]
        if not rows:
            return None
        # One sample per video: a long file must not outweigh the others in a mean over videos.
        return ClipDataset(
            manifest,
            rows,
            maker,
            seed=self.seed,
            decoder=self.loader.decoder,
            segment_seconds=float("inf"),
            frame_step=frame_step,
        )

    def _check_pair(self, config: OutOfDomainConfig, manifest: Manifest) -> None:
        """A number from elsewhere says something beside that of the own videos alone."""
        if self.ood_set is None:
            raise DataError(
                f"data.out_of_domain.root ({config.root}): none of its {len(manifest)} videos can be read and is as long "
                "as the task needs. Use longer videos, data.out_of_domain.split=test if they are all of split test, or "
                "data.out_of_domain.root='' to measure no others."
            )
        if self.val_set is None:
            raise DataError(
                f"data.out_of_domain.root ({config.root}) is measured beside held-out videos of data.root, and none are "
                "held out. Set data.val_fraction=0.05 or more."
            )

    def num_held_out(self) -> tuple[int, int]:
        """How many videos are held out, and how many of them could be read so far."""
        held_out = [row.path for row in self.val_set.rows] if self.val_set else []
        return len(held_out), sum(path not in self.unreadable.held_out for path in held_out)

    def layout(self, world_size: int) -> BatchLayout:
        """How the global batch is cut for so many processes."""
        return BatchLayout(self.loader.global_batch, world_size, self.accumulate, self.loader.clips_per_video)

    def train_batches(self, world_size: int = 1, rank: int = 0) -> TrainBatches:
        """This rank's batches of tickets, from the trainer's position on."""
        return TrainBatches(
            len(self.train_set), self.layout(world_size), seed=self.seed, rank=rank, position=self._position
        )

    def require_strangers(self, world_size: int, epochs: int) -> None:
        """Make sure that a placebo finds answers of other videos in every batch of a run, before it starts.

        Raises:
            DataError: more than half of some micro-batch is of one video.
        """
        layout, train_set = self.layout(world_size), self.train_set
        alone = layout.micro_batch == layout.clips_per_video
        if not alone and len(np.unique(train_set.videos)) == len(train_set):
            return
        for epoch in range(epochs):
            order = epoch_order(len(train_set), self.seed, Stream.TRAIN, epoch)
            for number in range(1 if train_set.pairs else len(train_set.makers)):
                shift = train_set.shift(number, Stream.TRAIN, epoch)
                if most := largest_majority(train_set.videos, layout, (order + shift) % len(train_set)):
                    raise DataError(self._crowded(layout, most, epoch))

    def _crowded(self, layout: BatchLayout, most: int, epoch: int) -> str:
        videos, samples = len(np.unique(self.train_set.videos)), len(self.train_set)
        parts = layout.world_size * layout.accumulate * layout.clips_per_video
        wider = max(2 * parts, 2 * layout.global_batch)
        ways = [f"Set loader.global_batch={wider}"] if wider // layout.clips_per_video <= samples and videos > 1 else []
        ways += ["trainer.accumulate=1"] if layout.accumulate > 1 and videos > 1 else []
        ways += ["loader.clips_per_video=1"] if layout.clips_per_video > 1 and videos > 1 else []
        ways += ["add videos" if ways else "Add videos"]
        return (
            f"task.placebo=true gives every sample the answer of another video, and in epoch {epoch + 1} there is a "
            f"micro-batch of {layout.micro_batch} samples with {most} of one video; at most half may be "
            f"({videos} videos to train on in {samples} pieces). {', or '.join(ways)}."
        )

    def train_dataloader(self) -> ClipLoader:
        world, rank = self._ranks()
        return ClipLoader(self.train_set, self.train_batches(world, rank), self.loader, pin_memory=self.pin_memory)

    def val_dataloader(self) -> list[ClipLoader]:
        """Of the held-out videos, then of those from elsewhere: the trainer counts them 0 and 1.

        Sample i of both draws the same numbers: a re-encoded copy of the held-out videos, listed in their order, is cut
        into the same clips.
        """
        world, rank = self._ranks()
        batch = self.layout(world).micro_batch
        return [
            ClipLoader(
                dataset,
                EvalBatches(
                    len(dataset), batch, stream=Stream.VAL, world_size=world, rank=rank, num_clips=self.val_clips
                ),
                self.loader,
                pin_memory=self.pin_memory,
            )
            for dataset in (self.val_set, self.ood_set)
            if dataset is not None
        ]

    def _ranks(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)

    def _position(self) -> Position:
        """Epoch and micro-batches done. Read from Lightning's loops: only these know where a resumed run stands."""
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        return loop.epoch_progress.current.processed, done  # type: ignore[attr-defined]
