"""Turned and shifted squares of a frame or a feature map: where their cells lie, and what is found there.

A *placement* (B, 2, 3) maps the coordinates (u, v) of a square's own cells to those of the frame: A (u, v) + t, u and x
to the right, v and y down. Coordinates are those of ``align_corners=False``: -1 and 1 are the outer edges, of the frame and
of the square, so that the center of cell i of n lies at (2 i + 1) / n - 1. Maps are flat, row by row: N = side * side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the least squares' own weight: keeps the fitted angle's gradient bounded where an affinity points nowhere, and makes
# fitted angles a little too small (0.8 of 45 degrees).
_FIT_RIDGE = 0.02


def make_placement(center_B2: Tensor, angle_B: Tensor, scale: float | Tensor) -> Tensor:
    """A square of ``scale`` times the frame's side at a center (x, y), turned by an angle in radians: (B, 2, 3).

    A tensor of scales has one for each square, (B,).

    A = scale [[cos, -sin], [sin, cos]]: clockwise as one sees it, for y points down.
    """
    cos_B, sin_B = scale * angle_B.cos(), scale * angle_B.sin()
    rows = [torch.stack([cos_B, -sin_B, center_B2[:, 0]], -1), torch.stack([sin_B, cos_B, center_B2[:, 1]], -1)]
    return torch.stack(rows, dim=-2)


def placement_angle(placement_B23: Tensor) -> Tensor:
    """The angle (B,) in radians by which a square is turned."""
    return torch.atan2(placement_B23[..., 1, 0], placement_B23[..., 0, 0])


def cell_centers(side: int, like: Tensor) -> Tensor:
    """x and y of the cells of a square, row by row: (side * side, 2), of the type and on the device of ``like``."""
    line = (2 * torch.arange(side, device=like.device, dtype=like.dtype) + 1) / side - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def placed_points(placement_B23: Tensor, points_M2: Tensor) -> Tensor:
    """Points of a square's own coordinates in those of the frame: (B, M, 2)."""
    # Sums, not a matrix product: on a GPU that would round to 10 bits where tf32 is allowed.
    turned_BM2 = (placement_B23[:, None, :, :2] * points_M2[:, None, :]).sum(dim=-1)
    return turned_BM2 + placement_B23[:, None, :, 2]


def bilinear_weights(points_BM2: Tensor, side: int) -> Tensor:
    """How much of each cell of a map a bilinear look-up at each point takes: (B, N, M), columns sum to 1.

    Beyond the outermost centers the nearest ones count (``padding_mode="border"``). A product with it is a crop that is
    differentiable in map and points, with gradients that are the same in every run, unlike those of ``grid_sample`` on
    a GPU.
    """
    place_BM2 = (((points_BM2 + 1) * side - 1) / 2).clamp(0, side - 1)
    cells_S = torch.arange(side, device=points_BM2.device, dtype=points_BM2.dtype)
    hats_BM2S = (1 - (place_BM2[..., None] - cells_S).abs()).clamp(min=0)
    across_BMS, down_BMS = hats_BM2S.unbind(dim=2)
    weights_BMSS = down_BMS[..., :, None] * across_BMS[..., None, :]
    return weights_BMSS.flatten(2).transpose(1, 2)


def crop_map(map_BDN: Tensor, placement_B23: Tensor, side: int) -> Tensor:
    """A placed square of ``side`` x ``side`` cells cut out of flat square maps, bilinear: (B, D, side * side)."""
    points_BM2 = placed_points(placement_B23, cell_centers(side, placement_B23))
    return map_BDN @ bilinear_weights(points_BM2, square_side(map_BDN.shape[-1]))


def square_side(num_cells: int) -> int:
    """The side of a flat square map."""
    return round(num_cells**0.5)


def crop_frames(frames_BCHW: Tensor, placement_B23: Tensor, side_px: int) -> Tensor:
    """A placed square cut out of each frame, bilinear, border pixels repeated: (B, C, side_px, side_px). No antialiasing."""
    points_BM2 = placed_points(placement_B23, cell_centers(side_px, placement_B23))
    grid = points_BM2.unflatten(1, (side_px, side_px))
    return F.grid_sample(frames_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def crop_squares_of(frames_BCHW: Tensor, placement_BN23: Tensor, side_px: int) -> Tensor:
    """Several placed squares cut out of each frame, as ``crop_frames`` does one: (B, C, N, side_px, side_px)."""
    N = placement_BN23.shape[1]
    points_KM2 = placed_points(placement_BN23.flatten(0, 1), cell_centers(side_px, placement_BN23))
    grid = points_KM2.unflatten(0, (-1, N)).reshape(len(frames_BCHW), N * side_px, side_px, 2)
    cut_BCHW = F.grid_sample(frames_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut_BCHW.unflatten(2, (N, side_px))


def keep_inside(center_B2: Tensor, angle_B: Tensor, scale: float) -> Tensor:
    """The center moved as little as needed so that the turned square lies within the frame."""
    reach_B = (1 - scale * (angle_B.cos().abs() + angle_B.sin().abs())).clamp(min=0)
    return torch.maximum(torch.minimum(center_B2, reach_B[:, None]), -reach_B[:, None])


def degrees_apart(placement_B23: Tensor, truth_B23: Tensor) -> Tensor:
    """Difference of two squares' angles: (B,), from 0 to 180."""
    turn_B = placement_angle(placement_B23) - placement_angle(truth_B23)
    return torch.atan2(turn_B.sin(), turn_B.cos()).abs().rad2deg()


def cells_apart(placement_B23: Tensor, truth_B23: Tensor, frame_side: int) -> Tensor:
    """Distance of two squares' centers in cells of the frame's map: (B,)."""
    return (placement_B23[:, :, 2] - truth_B23[:, :, 2]).norm(dim=1) * frame_side / 2


def alignment_loss(placement_B23: Tensor, truth_B23: Tensor, grid: int = 20) -> Tensor:
    """Mean squared distance of grid x grid points of the square, from edge to edge, under two placements: (B,)."""
    line = torch.linspace(-1, 1, grid, device=truth_B23.device, dtype=truth_B23.dtype)
    points_M2 = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)
    return placed_points(placement_B23 - truth_B23, points_M2).square().sum(dim=-1).mean(dim=-1)


def fit_square(affinity_BNM: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Center (B, 2) and angle (B,) of the square whose cells lie nearest to where an affinity expects them.

    Weighted least squares over turns and shifts (Kabsch 1976, in the plane). A cell counts by sum_j A(j, i)^2: those that
    point nowhere count little.
    """
    N, M = affinity_BNM.shape[1:]
    expected_BM2 = affinity_BNM.transpose(1, 2) @ cell_centers(square_side(N), affinity_BNM)
    own_M2 = scale * cell_centers(square_side(M), affinity_BNM)
    weight_BM1 = affinity_BNM.square().sum(dim=1).unsqueeze(-1)
    weight_BM1 = weight_BM1 / weight_BM1.sum(dim=1, keepdim=True)
    middle_B12, own_middle_B12 = ((weight_BM1 * x).sum(dim=1, keepdim=True) for x in (expected_BM2, own_M2[None]))
    at, own = expected_BM2 - middle_B12, own_M2 - own_middle_B12
    along_B = (weight_BM1 * own * at).sum(dim=(1, 2))
    across_B = (weight_BM1[..., 0] * (own[..., 0] * at[..., 1] - own[..., 1] * at[..., 0])).sum(dim=1)
    spread_B = (weight_BM1 * own.square()).sum(dim=(1, 2))
    angle_B = torch.atan2(across_B, along_B + _FIT_RIDGE * spread_B + 1e-6)
    turned_B2 = placed_points(make_placement(torch.zeros_like(middle_B12[:, 0]), angle_B, 1.0), own_middle_B12)[:, 0]
    return middle_B12[:, 0] - turned_B2, angle_B
