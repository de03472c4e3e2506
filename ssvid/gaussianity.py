"""How far embeddings are from a standard normal distribution, along random directions (SIGReg): pure functions.

LeJEPA: Balestriero and LeCun 2025, arXiv 2511.08544. A distribution is the standard normal one where its projection on every
direction is; along each the test of Epps and Pulley (1983) compares characteristic functions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssvid.ranks import mean_of_all, num_training


def random_directions(width: int, count: int, rng: np.random.Generator) -> Tensor:
    """Directions a_m = g / |g|, g drawn from N(0, I): evenly over the sphere, float32 (D, M)."""
    drawn_DM = torch.from_numpy(rng.standard_normal((width, count), dtype=np.float32))
    return drawn_DM / drawn_DM.norm(dim=0)


def knots(count: int, t_max: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Points t_k = k t_max / (count - 1) and weights of the trapezoidal rule of an even function over [-t_max, t_max], both (K,).

    count: at least 2. like: of whose dtype and device they are.
    """
    step = t_max / (count - 1)
    t_K = torch.arange(count, dtype=like.dtype, device=like.device) * step
    weights_K = torch.full_like(t_K, 2 * step)
    weights_K[0] = weights_K[-1] = step
    return t_K, weights_K


def normal_distance(
    x_NM: Tensor, num_knots: int = 17, t_max: float = 3.0, scale_by_n: bool = True, over_all: bool = False
) -> Tensor:
    """T = N integral |phi_N(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt of each column, phi_N(t) = mean exp(i t x) (arXiv 2511.08544, section 4).

    0 where the characteristic functions agree at all knots. Of N numbers from N(0, 1) its mean is ``distance_of_normal``, whatever N.

    Args:
        x_NM: N numbers of each of M projections, float32 or float64; (..., N, M) gives (..., M).
        num_knots, t_max: of the integral over [-t_max, t_max]. scale_by_n: whether the factor N is there.
        over_all: N numbers of each process that trains with this one; all get the same value, and the gradient of it.
    """
    t_K, weights_K = knots(num_knots, t_max, x_NM)
    phase_NMK = x_NM.unsqueeze(-1) * t_K
    means_2MK = torch.stack([phase_NMK.cos().mean(dim=-3), phase_NMK.sin().mean(dim=-3)])
    if over_all:
        means_2MK = mean_of_all(means_2MK)
    normal_K = (-t_K.square() / 2).exp()
    distance_MK = (means_2MK[0] - normal_K).square() + means_2MK[1].square()
    size = x_NM.shape[-2] * (num_training() if over_all else 1) if scale_by_n else 1
    return size * (distance_MK * (normal_K * weights_K)).sum(dim=-1)


def distance_of_normal(num_knots: int = 17, t_max: float = 3.0) -> float:
    """The mean of ``normal_distance`` over draws from N(0, 1), with the factor N: that of E |phi_N - phi|^2 = (1 - exp(-t^2)) / N."""
    t_K, weights_K = knots(num_knots, t_max, torch.zeros((), dtype=torch.float64))
    normal_K = (-t_K.square() / 2).exp()
    return float(((1 - normal_K.square()) * normal_K * weights_K).sum())


def sigreg(
    embeddings_ND: Tensor,
    directions_DM: Tensor,
    num_knots: int = 17,
    t_max: float = 3.0,
    scale_by_n: bool = True,
    over_all: bool = False,
) -> Tensor:
    """The mean of ``normal_distance`` over directions; of (..., N, D) over all in front, too. In float32 or float64."""
    with torch.autocast(embeddings_ND.device.type, enabled=False):  # cosines of large phases need all digits
        wide_ND = embeddings_ND if embeddings_ND.dtype == torch.float64 else embeddings_ND.float()
        x_NM = wide_ND @ directions_DM.to(wide_ND)
        return normal_distance(x_NM, num_knots, t_max, scale_by_n, over_all).mean()
