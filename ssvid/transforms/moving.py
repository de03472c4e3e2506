"""Where in a frame something moves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def window_motion(frame_CHW: Tensor, later_CHW: Tensor, patch_px: int, grid: int) -> Tensor:
    """Mean absolute difference of two frames within each of grid x grid evenly spaced squares: float32 (grid, grid).

    The squares have side ``patch_px`` and reach from border to border.
    """
    change_HW = (later_CHW.double() - frame_CHW.double()).abs().mean(dim=0)
    sums_HW = F.pad(change_HW, (1, 0, 1, 0)).cumsum(0).cumsum(1)
    room = frame_CHW.shape[-1] - patch_px
    first = torch.linspace(0, room, grid).round().long() if grid > 1 else torch.tensor([room // 2])
    last = first + patch_px
    corners = sums_HW[last][:, last] - sums_HW[first][:, last] - sums_HW[last][:, first] + sums_HW[first][:, first]
    return (corners / patch_px**2).float()


def pick_window(motion_BN: Tensor, draw_B: Tensor, num_best: int) -> Tensor:
    """One of the ``num_best`` windows that move most, by a draw in [0, 1): int64 (B,). All that tie with them count."""
    least_B1 = motion_BN.topk(min(num_best, motion_BN.shape[1]), dim=1).values[:, -1:]
    counted_BN = (motion_BN >= least_B1).long().cumsum(dim=1)
    nth_B = (draw_B * counted_BN[:, -1]).floor().long().clamp(max=counted_BN[:, -1] - 1)
    return (counted_BN > nth_B[:, None]).long().argmax(dim=1)
