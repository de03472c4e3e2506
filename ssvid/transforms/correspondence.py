"""Which cell of one frame is which of another: affinities of feature maps, what is copied along them, what lies at a place.

Maps are flat, row by row, (B, D, N); an affinity (B, N, M) says for each of M cells where among N it came from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.transforms.warp import bilinear_weights, cell_centers, crop_map, placed_points, square_side


def affinity(frame_BDN: Tensor, patch_BDM: Tensor, temperature: float) -> Tensor:
    """How likely each cell i of the patch came from each cell j of the frame: (B, N, M), columns sum to 1.

    A(j, i) = exp(x_I(j) . x_P(i) / t) / sum over j (Wang 2019, equation 2; the temperature is that of the authors' code).
    """
    return (torch.einsum("bdn,bdm->bnm", frame_BDN, patch_BDM) / temperature).softmax(dim=1)


def pointer_logits(source_BDN: Tensor, query_BDM: Tensor, temperature: float) -> Tensor:
    """Inner products over the temperature: (B, N, M), float32 whatever the precision around it.

    The pointer is A = softmax over N, all pixels of all references (Vondrick 2018, section 3.1).
    """
    with torch.autocast(source_BDN.device.type, enabled=False):
        return torch.einsum("bdn,bdm->bnm", source_BDN.float(), query_BDM.float()) / temperature


def copied_probs(logits_BNM: Tensor, source_BN: Tensor, num_colors: int) -> Tensor:
    """Copied class probabilities (B, K, M): what the pointer gathers of each color."""
    colors_BNK = F.one_hot(source_BN, num_colors).to(logits_BNM.dtype)
    with torch.autocast(logits_BNM.device.type, enabled=False):
        return torch.einsum("bnk,bnm->bkm", colors_BNK, logits_BNM.softmax(dim=1))


def cut_patch(frame_BDN: Tensor, placement_B23: Tensor, side: int) -> Tensor:
    """The features at a place, each cell of length 1 again: (B, D, side * side)."""
    return F.normalize(crop_map(frame_BDN, placement_B23, side), dim=1)


def soft_inliers(patch_BDM: Tensor, frame_BDN: Tensor, placement_B23: Tensor, temperature: float) -> Tensor:
    """Mean over the patch's cells of how much of their affinity falls on the cell's own place: (B,), from 0 to 1."""
    sides = (square_side(patch_BDM.shape[2]), square_side(frame_BDN.shape[2]))
    points_BM2 = placed_points(placement_B23, cell_centers(sides[0], placement_B23))
    hits_BNM = affinity(frame_BDN, patch_BDM, temperature) * bilinear_weights(points_BM2, sides[1])
    return hits_BNM.sum(dim=1).mean(dim=1)


def mean_dot(patch_BDM: Tensor, frame_BDN: Tensor, placement_B23: Tensor) -> Tensor:
    """Mean over the patch's cells of the inner product with what lies at the cell's place: (B,), from -1 to 1."""
    found_BDM = cut_patch(frame_BDN, placement_B23, square_side(patch_BDM.shape[2]))
    return (patch_BDM * found_BDM).sum(dim=1).mean(dim=1)
