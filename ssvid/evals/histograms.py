"""The histogram baseline: what colors and the amount of change say about the label, without any network.

A backbone that does not clear it has not been shown to see more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from ssvid.backbones import BackboneInfo
from ssvid.evals.contract import Subject
from ssvid.evals.hand_made import Fit, HandMade, Predict
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol

HISTOGRAMS = "histograms"
_LEVELS = 4  # of each color: 64 bins
_CHANGES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # borders between the bins of frame differences, of 1
_CELLS = 2  # differences are counted in each of 2 x 2 parts of the picture


class Histograms(HandMade):
    """Histograms in the place of a network: of colors, and of how much neighboring frames differ, by quarters.

    Each histogram is the square root of shares (the Hellinger map), so that empty bins can be told from rare ones.
    """

    about = "histograms of colors and changes"
    costs = (0.001, 0.01, 0.1, 1.0, 10.0)

    def __init__(self) -> None:
        super().__init__(HISTOGRAMS, _LEVELS**3 + _CELLS**2 * (len(_CHANGES) + 1))

    def embed_stages(
        self, clip_BCTHW: Tensor, stages: Sequence[str] | None = None, pool: str = "avg"
    ) -> dict[str, Tensor]:
        """One vector BD per clip; ``pool`` has no say."""
        return {HISTOGRAMS: torch.cat([color_histogram(clip_BCTHW), change_histogram(clip_BCTHW)], dim=1).sqrt()}

    def machine(self, x_MD: np.ndarray, y_N: np.ndarray, seed: int) -> Fit:
        """Of columns with mean 0 and deviation 1 on what is learned from."""

        def fit(learned_from: np.ndarray, cost: float) -> Predict:
            scaler = StandardScaler().fit(x_MD[learned_from].astype(np.float64))
            svm = LinearSVC(C=cost, random_state=seed, max_iter=20_000, dual=False)
            svm.fit(scaler.transform(x_MD[learned_from].astype(np.float64)), y_N[learned_from].astype(str))
            return lambda asked: svm.predict(scaler.transform(x_MD[asked].astype(np.float64)))

        return fit


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


def as_histograms(protocol: FeatureProtocol) -> FeatureProtocol:
    """The same clips at the same size, for histograms: their only stage and no pooling."""
    return replace(protocol, stages="all", pool="avg", num_frames=max(2, protocol.num_frames))
