"""How sure an audited metric is, and its difference between clean and changed clips, from videos and not from clips.

Clips of one video are alike, and so are videos of one group: each group counts with all its clips as one. A metric that is no
mean over clips (an AUC) is taken apart into what each group adds to it, by leaving them out one by one (the jackknife; Tukey 1958).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.intervals import LEVEL, Interval, difference_interval, mean_interval, share_interval

if TYPE_CHECKING:
    from torchmetrics import Metric

MOST_PARTS = 200  # of the jackknife: each computes the metric of almost all clips anew


class Estimate(NamedTuple):
    """A metric over all clips as a weighted mean of parts (P,), one for each group of videos; of an AUC, for a few groups each.

    kind: "share" (of values in [0, 1]), "score" (in [0, 1], no mean over clips), a paired difference of either, or "mean".
    seed: of the draws that a mean of any size needs.
    """

    value: float
    parts_P: np.ndarray
    weights_P: np.ndarray
    kind: str
    seed: int = 0

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of that level, over groups of videos."""
        parts_P, weights_P = self.parts_P, self.weights_P
        if self.kind in ("share", "score"):
            return share_interval(parts_P, weights_N=weights_P, level=level)
        if self.kind == "difference of shares":
            return difference_interval(parts_P, weights_N=weights_P, level=level)
        if self.kind == "difference of scores":  # what a group adds is not bound to [-1, 1], so that gains are no share
            low, high = share_interval((parts_P + 1) / 2, weights_N=weights_P, level=level)
            return 2 * low - 1, 2 * high - 1
        return mean_interval(parts_P, weights_N=weights_P, level=level, seed=self.seed)

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference, group by group."""
        same = self.kind == other.kind and self.kind in ("share", "score")
        kind = f"difference of {self.kind}s" if same else "mean"
        return self._replace(value=self.value - other.value, parts_P=self.parts_P - other.parts_P, kind=kind)


class Resampler:
    """Estimates metrics over the same videos.

    Args:
        videos_N: number of the video that each clip is of. groups: which group each video belongs to, by its number; ()
            where each stands by itself. epoch_metric: makes the metric anew, where it is not a mean over clips.
        seed: of the draws that a mean of any size needs.
    """

    def __init__(
        self,
        videos_N: np.ndarray,
        *,
        groups: Sequence[str] = (),
        epoch_metric: Callable[[], Metric] | None = None,
        seed: int = 0,
    ) -> None:
        units_N = np.array(groups, dtype=str)[videos_N] if groups else np.asarray(videos_N)
        self.group_of_N = np.unique(units_N, return_inverse=True)[1].reshape(-1)
        self.num_groups = int(self.group_of_N.max()) + 1
        self.num_videos = len(np.unique(videos_N))
        self.epoch_metric, self.seed = epoch_metric, seed

    def estimate(self, records: tuple[Tensor, ...]) -> Estimate:
        """The metric of these records, and each group's part in it."""
        if self.epoch_metric is not None:
            return self._jackknife(records, self.epoch_metric)
        values_N = records[0].double().numpy()
        counts_G = np.bincount(self.group_of_N)
        means_G = np.bincount(self.group_of_N, weights=values_N) / counts_G
        kind = "share" if values_N.min() >= 0 and values_N.max() <= 1 else "mean"
        return Estimate(float(values_N.mean()), means_G, counts_G / counts_G.sum(), kind, self.seed)

    def _jackknife(self, records: tuple[Tensor, ...], epoch_metric: Callable[[], Metric]) -> Estimate:
        num_parts = min(self.num_groups, MOST_PARTS)
        part_of_N = self.group_of_N % num_parts
        value = _computed(epoch_metric(), records, np.arange(len(part_of_N)))
        left_out = range(num_parts) if num_parts > 1 else ()
        rest = [np.flatnonzero(part_of_N != part) for part in left_out]
        without_P = np.array([_computed(epoch_metric(), records, clips) for clips in rest] or [value])
        parts_P = value + (num_parts - 1) * (without_P.mean() - without_P)
        bounded = epoch_metric().plot_lower_bound == 0.0 and epoch_metric().plot_upper_bound == 1.0
        weights_P = np.full(num_parts, 1 / num_parts)
        return Estimate(value, parts_P, weights_P, "score" if bounded else "mean", self.seed)


def _computed(metric: Metric, records: tuple[Tensor, ...], clips: np.ndarray) -> float:
    """A fresh metric of some clips; each may have several scores."""
    chosen = torch.from_numpy(clips)
    metric.update(*(record[chosen].flatten(0, 1) for record in records))
    return float(metric.compute())
