"""The histogram baseline: what colors and the amount of change say about the label, without any network.

A backbone that does not clear it has not been shown to see more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, StageInfo
from ssvid.evals.contract import Number, Seen, Subject, guess_chance
from ssvid.evals.holdouts import holdouts
from ssvid.evals.linear_probe.probe import readable_train
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol, resolve_feature_protocol
from ssvid.features.store import Features

HISTOGRAMS = "histograms"
COSTS = (0.001, 0.01, 0.1, 1.0, 10.0)  # of the SVM, chosen on held-out train
_LEVELS = 4  # of each color: 64 bins
_CHANGES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # borders between the bins of frame differences, of 1
_CELLS = 2  # differences are counted in each of 2 x 2 parts of the picture
_STAGE = "histograms"


class Histograms(Backbone):
    """Histograms in the place of a network: of colors, and of how much neighboring frames differ, by quarters.

    Each histogram is the square root of shares (the Hellinger map), so that empty bins can be told from rare ones.
    """

    def __init__(self) -> None:
        width = _LEVELS**3 + _CELLS**2 * (len(_CHANGES) + 1)
        super().__init__(BackboneInfo("histograms", (StageInfo(_STAGE, width, 1, 1),), min_frames=2, size=112))
        self.provenance = {"stage": _STAGE, "content_ids": []}

    def embed_stages(
        self, clip_BCTHW: Tensor, stages: Sequence[str] | None = None, pool: str = "avg"
    ) -> dict[str, Tensor]:
        """One vector BD per clip; ``pool`` has no say."""
        return {_STAGE: torch.cat([color_histogram(clip_BCTHW), change_histogram(clip_BCTHW)], dim=1).sqrt()}


def color_histogram(clip_BCTHW: Tensor) -> Tensor:
    """Share of all pixels of a clip in each of 4 x 4 x 4 boxes of colors (B, 64); values in [0, 1]."""
    level_BCN = (clip_BCTHW.flatten(2) * _LEVELS).long().clamp(0, _LEVELS - 1)
    code_BN = (level_BCN[:, 0] * _LEVELS + level_BCN[:, 1]) * _LEVELS + level_BCN[:, 2]
    return _shares(code_BN, _LEVELS**3)


def change_histogram(clip_BCTHW: Tensor) -> Tensor:
    """Share of pixels whose gray value changes from frame to frame by so much, in each quarter of the picture (B, 28)."""
    gray_BTHW = clip_BCTHW.mean(dim=1)
    change_BTHW = gray_BTHW.diff(dim=1).abs()
    code_BTHW = torch.bucketize(change_BTHW, torch.tensor(_CHANGES, device=change_BTHW.device))
    parts = [
        _shares(part.flatten(1), len(_CHANGES) + 1)
        for band in code_BTHW.tensor_split(_CELLS, dim=2)
        for part in band.tensor_split(_CELLS, dim=3)
    ]
    return torch.cat(parts, dim=1)


def _shares(code_BN: Tensor, num_bins: int) -> Tensor:
    counts = torch.zeros(len(code_BN), num_bins, device=code_BN.device)
    counts.scatter_add_(1, code_BN, torch.ones_like(code_BN, dtype=counts.dtype))
    return counts / code_BN.shape[1]


def at_size_of(protocol: FeatureProtocol, info: BackboneInfo) -> FeatureProtocol:
    """The protocol at the size that a network is shown, so that histograms come from the same reading as its features."""
    resolved = resolve_feature_protocol(replace(protocol, stages="all"), info)
    return replace(protocol, crop_px=resolved.crop_px, resize_px=resolved.resize_px)


def histogram_subject(protocol: FeatureProtocol, info: BackboneInfo) -> Subject:
    """The histograms that stand beside a network which is shown the videos under a protocol."""
    return Subject(HISTOGRAMS, Histograms(), as_histograms(at_size_of(protocol, info)))


def svm_number(metric: str, seen: Seen, protocol: ProbeProtocol) -> Number:
    """Histograms in the column of a trained head: a linear SVM, its cost chosen on held-out train."""
    chosen, heldout = select_cost(seen.train, protocol)
    x, y = readable_train(seen.train)
    readable, labels = seen.test.readable, np.array(seen.test.labels, dtype=object)
    predictions = np.full(len(labels), "", dtype=object)
    predictions[readable] = _fit(x, y, chosen, protocol.seed)(seen.test.values_ND[readable])
    head = {"svm": "linear, one against the rest", "cost": chosen, "heldout_top1": heldout}
    correct_N = (predictions == labels) & readable
    return Number(metric, correct_N, guess_chance(labels), {"head": head, "predictions": predictions.tolist()})


def as_histograms(protocol: FeatureProtocol) -> FeatureProtocol:
    """The same clips at the same size, for histograms: their only stage and no pooling."""
    return replace(protocol, stages="all", pool="avg", num_frames=max(2, protocol.num_frames))


def select_cost(train: Features, protocol: ProbeProtocol) -> tuple[float, Mapping[str, float]]:
    """The cost with the best accuracy on held-out parts of train, among equals the smallest; and all accuracies."""
    x, y = readable_train(train)
    groups = np.array(train.groups, dtype=object)[train.readable]
    right = dict.fromkeys(COSTS, 0)
    total = 0
    for fit_on, score_on in holdouts(y, groups, protocol, []):
        total += len(score_on)
        for cost in COSTS:
            found = _fit(x[fit_on], y[fit_on], cost, protocol.seed)(x[score_on])
            right[cost] += int((found == y[score_on]).sum())
    best = max(COSTS, key=lambda cost: (right[cost], -cost))
    return best, {f"{cost:g}": right[cost] / total for cost in COSTS}


def _fit(x_ND: np.ndarray, y_N: np.ndarray, cost: float, seed: int) -> Any:
    scaler = StandardScaler().fit(x_ND.astype(np.float64))
    svm = LinearSVC(C=cost, random_state=seed, max_iter=20_000, dual=False)
    svm.fit(scaler.transform(x_ND.astype(np.float64)), y_N.astype(str))
    return lambda values_ND: svm.predict(scaler.transform(values_ND.astype(np.float64)))
