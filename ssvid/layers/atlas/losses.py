"""The losses of layered atlases, pure functions of tensors.

Kasten et al., *Layered Neural Atlases for Consistent Video Editing* (SIGGRAPH Asia 2021, arXiv 2109.11418), section 3.2. The letters are those of
``ssvid.layers.atlas.layout``; S is the side of a square patch of pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST_RIGIDITY = 50.0
_NO_LOG_OF_ZERO = 1e-3


def rgb_loss(found_PC: Tensor, true_PC: Tensor) -> Tensor:
    """Squared differences of colors, summed over channels, averaged over points."""
    return (found_PC - true_PC).square().sum(dim=-1).mean()


def gradient_loss(found_BSSC: Tensor, true_BSSC: Tensor) -> Tensor:
    """The same of the differences to the right and lower neighbors within each of B patches, the two added."""
    gaps_BSSC = found_BSSC - true_BSSC
    across, down = gaps_BSSC.diff(dim=2), gaps_BSSC.diff(dim=1)
    return across.square().sum(dim=-1).mean() + down.square().sum(dim=-1).mean()


def sparsity_loss(colors_NP3: Tensor, alphas_NP: Tensor) -> Tensor:
    """The squared brightness that atlases of objects have where the objects are not: |(1 - alpha) c|^2, averaged.

    Of an object that lies behind others it counts only as far as those let see.

    Differs: points that other objects hide are left out; there is one object in the paper.
    """
    passed_NP = torch.cumprod(torch.cat([torch.ones_like(alphas_NP[:1]), 1 - alphas_NP[:-1]]), dim=0).detach()
    energy_NP = ((1 - alphas_NP)[..., None] * colors_NP3).square().sum(dim=-1)
    return (passed_NP * energy_NP).mean(dim=1).sum()


def flow_loss(here_LP2: Tensor, there_LP2: Tensor, weights_LP: Tensor, valid_P: Tensor) -> Tensor:
    """How far apart in the atlas the two ends of flow lie, in the unit of the places; of each layer as much as it is seen.

    Args:
        here_LP2, there_LP2: places of both ends. weights_LP: how much of each layer is seen at the beginning. valid_P: bool, where flow is
            believed.
    """
    distances_LP = torch.linalg.vector_norm(here_LP2 - there_LP2, dim=-1)
    return _mean_where((weights_LP * distances_LP).sum(dim=0), valid_P)


def alpha_flow_loss(here_NP: Tensor, there_NP: Tensor, valid_P: Tensor) -> Tensor:
    """How much alpha changes along flow, added over objects."""
    return _mean_where((here_NP - there_NP).abs().sum(dim=0), valid_P)


def _mean_where(values_P: Tensor, valid_P: Tensor) -> Tensor:
    valid_P = valid_P.to(values_P.dtype)
    return (values_P * valid_P).sum() / valid_P.sum().clamp(min=1)


def rigidity(across_P2: Tensor, down_P2: Tensor) -> Tensor:
    """How far a mapping is from one that only turns and shifts: |J'J| + |(J'J)^-1| - 2 sqrt 2, at most 50; 0 where it is; (P,).

    Args:
        across_P2, down_P2: the columns of J: the derivatives of the place in the atlas along x and along y.

    Differs: the value of a rigid mapping is taken off, and it has an upper limit, so that a point where the mapping folds over does not
    outweigh all others.
    """
    a_P, b_P, c_P = (across_P2**2).sum(-1), (across_P2 * down_P2).sum(-1), (down_P2**2).sum(-1)
    norm_P = (a_P**2 + 2 * b_P**2 + c_P**2 + 1e-12).sqrt()
    # The inverse of a symmetric 2 x 2 matrix has its norm over its determinant.
    determinant_P = (a_P * c_P - b_P**2).clamp(min=1e-6)
    return (norm_P + norm_P / determinant_P - 2 * math.sqrt(2)).clamp(max=_MOST_RIGIDITY)


def bootstrap_loss(weights_LP: Tensor, labels_P: Tensor, sure_P: Tensor) -> Tensor:
    """Cross-entropy between how much is seen of each layer and the one that the masks say; with one object, that of its alpha and mask.

    Args:
        labels_P: int64, number of the layer. sure_P: bool, where that is to be believed.

    Differs: pixels at the border of a mask are left free, for they show both.
    """
    shares_P = weights_LP.gather(0, labels_P[None])[0]
    return _mean_where(-((1 - 2 * _NO_LOG_OF_ZERO) * shares_P + _NO_LOG_OF_ZERO).log(), sure_P)
