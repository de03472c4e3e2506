"""Which samples make up which batch: pure functions of (seed, epoch, step), strided by rank.

The same global batches come out for any number of workers, ranks and micro-batches, and from any starting point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ssvid.errors import DataError
from ssvid.types import Stream, Ticket

# epoch, and how many of this rank's micro-batches of that epoch are done
Position = tuple[int, int]


@dataclass(frozen=True)
class BatchLayout:
    """How a global batch is cut: over ``world_size`` ranks, ``accumulate`` micro-batches, ``clips_per_video`` clips.

    Raises:
        DataError: the global batch does not divide evenly.
    """

    global_batch: int
    world_size: int = 1
    accumulate: int = 1
    clips_per_video: int = 1

    def __post_init__(self) -> None:
        for name in ("global_batch", "world_size", "accumulate", "clips_per_video"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} ({getattr(self, name)}) must be at least 1. Set loader.{name}=1 or more.")
        parts = self.world_size * self.accumulate * self.clips_per_video
        if self.global_batch % parts:
            nearest = max(parts, self.global_batch // parts * parts)
            raise DataError(
                f"loader.global_batch ({self.global_batch}) must be a multiple of devices ({self.world_size}) x "
                f"trainer.accumulate ({self.accumulate}) x loader.clips_per_video ({self.clips_per_video}) = {parts}. "
                f"Set loader.global_batch={nearest}."
            )

    @property
    def videos_per_global_batch(self) -> int:
        return self.global_batch // self.clips_per_video

    @property
    def micro_batch(self) -> int:
        """Samples that one rank sees in one forward pass."""
        return self.global_batch // (self.world_size * self.accumulate)

    def slice_of(self, rank: int, micro: int) -> slice:
        """The videos of a global batch that a rank takes in its micro-batch number ``micro``."""
        videos = self.micro_batch // self.clips_per_video
        first = (micro * self.world_size + rank) * videos
        return slice(first, first + videos)


def epoch_order(num_samples: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits its samples: a permutation of range(num_samples), int64."""
    return np.random.default_rng([seed, stream, epoch]).permutation(num_samples)


def largest_majority(videos_N: np.ndarray, layout: BatchLayout, order_N: np.ndarray) -> int:
    """How many samples one video has in a micro-batch of an epoch, at the most, where they are more than half; else 0.

    Args:
        videos_N: the number of each sample's video. order_N: the order in which the epoch visits them.
    """
    each = layout.micro_batch // layout.clips_per_video
    whole = len(order_N) // layout.videos_per_global_batch * layout.videos_per_global_batch
    sorted_PE = np.sort(videos_N[order_N[:whole]].reshape(-1, each), axis=1)
    half = each // 2
    crowded = sorted_PE[(sorted_PE[:, half:] == sorted_PE[:, : each - half]).any(axis=1)]
    counts = [int(np.unique(part, return_counts=True)[1].max()) for part in crowded]
    return max(counts, default=0) * layout.clips_per_video


class TrainBatches:
    """This rank's micro-batches of tickets, from a given position on. Stateless: iterate it again, get the same.

    Each item is a list of groups; a group is the tickets of one opened file (``clips_per_video`` of them).

    Args:
        num_samples: size of the data set. layout: how batches are cut. seed: of the recipe. rank: this process.
        position: asked at each ``iter()`` for (epoch, micro-batches already done); past the end means the next epoch.

    Raises:
        DataError: fewer samples than one global batch needs.
    """

    def __init__(
        self, num_samples: int, layout: BatchLayout, *, seed: int, rank: int = 0, position: Callable[[], Position]
    ) -> None:
        self.steps_per_epoch = num_samples // layout.videos_per_global_batch
        if self.steps_per_epoch == 0:
            raise DataError(
                f"loader.global_batch ({layout.global_batch}) needs {layout.videos_per_global_batch} videos or segments "
                f"for one step, but only {num_samples} are left to train on. Set loader.global_batch="
                f"{max(1, num_samples * layout.clips_per_video)} or less, raise loader.clips_per_video, or add videos."
            )
        self.num_samples, self.layout, self.seed, self.rank, self.position = num_samples, layout, seed, rank, position

    def __len__(self) -> int:
        return self.steps_per_epoch * self.layout.accumulate

    def __iter__(self) -> Iterator[list[tuple[Ticket, ...]]]:
        epoch, done = self.position()
        if done >= len(self):
            epoch, done = epoch + 1, 0
        order = epoch_order(self.num_samples, self.seed, Stream.TRAIN, epoch)
        for number in range(done, len(self)):
            step, micro = divmod(number, self.layout.accumulate)
            videos = order[step * self.layout.videos_per_global_batch :][: self.layout.videos_per_global_batch]
            yield [
                tuple(
                    Ticket(int(Stream.TRAIN), epoch, step, int(i), clip) for clip in range(self.layout.clips_per_video)
                )
                for i in videos[self.layout.slice_of(self.rank, micro)]
            ]


class EvalBatches:
    """Every sample once, in order, over all ranks; then a second clip of each, and so on. Ranks see equally many batches.

    Where the last global batch has fewer samples than ranks, an idle rank is handed the last sample again with
    ``attempt = PADDING``: the data set marks it with weight 0, so that it counts for nothing.
    """

    PADDING = -1

    def __init__(
        self,
        num_samples: int,
        batch: int,
        *,
        stream: int = Stream.VAL,
        world_size: int = 1,
        rank: int = 0,
        num_clips: int = 1,
    ) -> None:
        self.num_samples, self.batch, self.stream = num_samples, max(batch, 1), int(stream)
        self.num_tickets = num_samples * num_clips
        self.world_size, self.rank = world_size, rank

    def __len__(self) -> int:
        return -(-self.num_tickets // (self.batch * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[Ticket, ...]]]:
        per_step = self.batch * self.world_size
        for step in range(len(self)):
            mine = range(step * per_step, min((step + 1) * per_step, self.num_tickets))[self.rank :: self.world_size]
            tickets = [Ticket(self.stream, 0, step, n % self.num_samples, n // self.num_samples) for n in mine]
            if not tickets:
                tickets = [Ticket(self.stream, 0, step, self.num_samples - 1, 0, self.PADDING)]
            yield [(t,) for t in tickets]
