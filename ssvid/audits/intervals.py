"""How sure a difference is: a bootstrap over videos, with the same draws for the clean and for the changed clips.

Clips of one video are alike, so that a video is drawn with all its clips or not at all (a cluster bootstrap; Efron 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

NUM_DRAWS = 2000
NUM_DRAWS_OF_EPOCH_METRICS = 200  # each draw computes the metric of all clips anew

Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A metric over all clips, and over the clips of each draw of videos (R,)."""

    value: float
    draws_R: np.ndarray

    def interval(self, level: float = 0.95) -> Interval:
        """Percentile interval of that level."""
        low, high = np.quantile(self.draws_R, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference: both were drawn alike."""
        return Estimate(self.value - other.value, self.draws_R - other.draws_R)


def draw_videos(num_videos: int, num_draws: int, seed: int) -> np.ndarray:
    """How often each video occurs in each draw: int64 (R, V), each row sums to V."""
    return np.random.default_rng([seed, num_videos]).multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), num_draws
    )


class Resampler:
    """Estimates metrics over the same draws of videos.

    Args:
        videos_N: which video each clip is of. epoch_metric: makes the metric anew, where it is not a mean over clips.
    """

    def __init__(
        self,
        videos_N: np.ndarray,
        *,
        epoch_metric: Callable[[], Metric] | None = None,
        num_draws: int = 0,
        seed: int = 0,
    ) -> None:
        self.video_of_N = np.unique(videos_N, return_inverse=True)[1].reshape(-1)
        self.num_videos = int(self.video_of_N.max()) + 1
        self.epoch_metric = epoch_metric
        default = NUM_DRAWS if epoch_metric is None else NUM_DRAWS_OF_EPOCH_METRICS
        self.draws_RV = draw_videos(self.num_videos, num_draws or default, seed)

    def estimate(self, records: tuple[Tensor, ...]) -> Estimate:
        """The metric of these records, on all clips and on every draw."""
        if self.epoch_metric is None:
            return self._mean(records[0].double().numpy())
        everything = np.arange(len(self.video_of_N))
        chosen = (np.repeat(everything, row[self.video_of_N]) for row in self.draws_RV)
        draws_R = np.array([_computed(self.epoch_metric(), records, clips) for clips in chosen])
        return Estimate(_computed(self.epoch_metric(), records, everything), draws_R)

    def _mean(self, values_N: np.ndarray) -> Estimate:
        sums_V = np.bincount(self.video_of_N, weights=values_N, minlength=self.num_videos)
        counts_V = np.bincount(self.video_of_N, minlength=self.num_videos)
        draws_R = (self.draws_RV @ sums_V) / (self.draws_RV @ counts_V)
        return Estimate(float(values_N.mean()), draws_R)


def _computed(metric: Metric, records: tuple[Tensor, ...], clips: np.ndarray) -> float:
    """A fresh metric of some clips; each may have several scores."""
    chosen = torch.from_numpy(clips)
    metric.update(*(record[chosen].flatten(0, 1) for record in records))
    return float(metric.compute())
