"""How far the features of many clips spread: numbers that need no label, and tell a collapse."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-7


def effective_rank(features_ND: Tensor) -> float:
    """RankMe: the exponential of the entropy of the normalized singular values; in how many directions features vary.

    Garrido et al., ICML 2023, arXiv 2210.02885, equation 1: exp(-sum p_k log p_k), p_k = s_k / |s|_1 + 1e-7. At most
    min(N, D); 1 where all features lie on one line; 0 where all are zero. The scale of the features does not matter.
    Differs: taken on the pooled map of the backbone, not on the output of a projector, and on fewer vectors than the
    paper's 25,600; so values are comparable within a run, not with the paper's.
    """
    singular = torch.linalg.svdvals(features_ND.detach().cpu().double())
    total = singular.sum()
    if total == 0:
        return 0.0
    p = singular / total + _EPSILON
    return float(torch.exp(-(p * p.log()).sum()))


def feature_std(features_ND: Tensor) -> float:
    """Mean over the D columns of the standard deviation of L2-normalized features, over the N rows.

    SimSiam, Chen and He, CVPR 2021, arXiv 2011.10566, section 4.1: 1 / sqrt(D) where features are spread evenly over the
    sphere, 0 where all point the same way.
    """
    unit = torch.nn.functional.normalize(features_ND.detach().cpu().double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean())


def mean_cosine(features_ND: Tensor) -> float:
    """Mean cosine of all pairs of different rows: 1 where all point the same way, 0 where directions are independent.

    With u the L2-normalized rows, (|sum u|^2 - sum |u|^2) / (N (N - 1)). N is at least 2.
    """
    unit_ND = torch.nn.functional.normalize(features_ND.detach().cpu().double(), dim=1)
    N = len(unit_ND)
    return float((unit_ND.sum(dim=0).square().sum() - unit_ND.square().sum()) / (N * (N - 1)))
