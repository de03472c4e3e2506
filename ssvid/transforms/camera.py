"""A moving camera taken out of clips: its motion as an affine field, found by least squares that pass over what moves by itself.

An affine field (N, 2, 3) gives the motion (u, v) at (x, y) as P (1, x, y): pan, zoom, turn and shear. Coordinates, and motion in
them, are those of ``ssvid.transforms.warp``: from -1 to 1 between the outer edges. Everything here treats both directions of
time alike: of a clip that runs backward it finds the opposite motion, and gives the same frames in reverse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.transforms.flow import no_motion
from ssvid.transforms.warp import cell_centers

_LEVELS_PX = (16, 32, 64)  # sides at which frames are compared, coarse to fine, up to two thirds of their own
_ROUNDS = 3  # of least squares at each side
_OUTLIER = 1.5  # times the mean residual: what differs by more counts for less than a quarter
_RIDGE = 1e-4  # of the mean diagonal: where a direction shows no texture, no motion along it


def without_camera(flow_BCTHW: Tensor) -> Tensor:
    """Clips of flow, levels / 255, without the affine motion that most pixels of each frame share."""
    B, C, T, H, W = flow_BCTHW.shape
    rest = no_motion(flow_BCTHW.dtype)
    motion_NHW2 = (flow_BCTHW - rest).transpose(1, 2).reshape(B * T, C, H, W).permute(0, 2, 3, 1)
    shared_NHW2 = affine_motion(fit_affine(motion_NHW2), motion_NHW2)
    steady_NHW2 = motion_NHW2 - shared_NHW2
    return steady_NHW2.permute(0, 3, 1, 2).reshape(B, T, C, H, W).transpose(1, 2) + rest


def fit_affine(motion_NHW2: Tensor) -> Tensor:
    """The affine field (N, 2, 3) nearest to a field of motion, what stands out from it counting little."""
    ones_and_xy_M3 = _ones_and_xy(motion_NHW2.shape[1:3], motion_NHW2)
    motion_NM2 = motion_NHW2.flatten(1, 2)
    weight_NM = torch.ones_like(motion_NM2[..., 0])
    for _ in range(_ROUNDS + 1):
        weighted_NM3 = weight_NM[..., None] * ones_and_xy_M3
        normal_N33 = torch.einsum("nmi,mj->nij", weighted_NM3, ones_and_xy_M3)
        field_N32 = torch.linalg.solve(normal_N33, torch.einsum("nmi,nmk->nik", weighted_NM3, motion_NM2))
        weight_NM = _weights((motion_NM2 - ones_and_xy_M3 @ field_N32).norm(dim=-1))
    return field_N32.transpose(1, 2)


def affine_motion(field_N23: Tensor, like_NHW2: Tensor) -> Tensor:
    """The motion of affine fields at the pixels of a field of motion: (N, H, W, 2)."""
    ones_and_xy_M3 = _ones_and_xy(like_NHW2.shape[1:3], like_NHW2)
    return (ones_and_xy_M3 @ field_N23.transpose(1, 2)).unflatten(1, like_NHW2.shape[1:3])


def stabilized(clips_BCTHW: Tensor) -> Tensor:
    """Clips of square frames seen as from where the camera stands in the middle of the clip, bilinear.

    Pixels that the camera did not see at every instant are black in all frames, so that where it went cannot be read from
    what is missing.
    """
    B, _, T, side, _ = clips_BCTHW.shape
    path_BT33 = camera_path(clips_BCTHW.mean(dim=1))
    points_M3 = torch.cat([cell_centers(side, clips_BCTHW), clips_BCTHW.new_ones(side * side, 1)], dim=1)
    grid_BTM2 = (points_M3 @ path_BT33.transpose(2, 3))[..., :2]
    frames = clips_BCTHW.transpose(1, 2).flatten(0, 1)
    seen = F.grid_sample(
        frames, grid_BTM2.reshape(B * T, side, side, 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    inside_BM = (grid_BTM2.abs() <= 1 - 1 / side + 1e-4).all(dim=-1).all(dim=1)
    seen_BCTHW = seen.unflatten(0, (B, T)).transpose(1, 2)
    return torch.where(inside_BM.view(B, 1, 1, side, side), seen_BCTHW, torch.zeros_like(seen_BCTHW))


def camera_path(gray_BTHW: Tensor) -> Tensor:
    """For each frame the matrix (B, T, 3, 3) from a place (x, y, 1) in the middle of the clip to where that is seen in the frame.

    The middle is a frame where their number is odd, and lies halfway between two where it is even.
    """
    B, T = gray_BTHW.shape[:2]
    if T == 1:
        return torch.eye(3).to(gray_BTHW).expand(B, 1, 3, 3)
    field_N23 = frame_motion(gray_BTHW[:, :-1].flatten(0, 1), gray_BTHW[:, 1:].flatten(0, 1))
    before_BT33, after_BT33 = (_as_matrix(sign * field_N23 / 2).unflatten(0, (B, T - 1)) for sign in (-1, 1))
    to_next_BT33 = after_BT33 @ torch.linalg.inv(before_BT33)
    to_last_BT33 = before_BT33 @ torch.linalg.inv(after_BT33)
    low, high = (T - 1) // 2, T // 2
    eye_B33 = torch.eye(3).to(gray_BTHW).expand(B, 3, 3)
    path = {low: before_BT33[:, low] if low < high else eye_B33, high: after_BT33[:, low] if low < high else eye_B33}
    for t in range(high, T - 1):
        path[t + 1] = to_next_BT33[:, t] @ path[t]
    for t in range(low, 0, -1):
        path[t - 1] = to_last_BT33[:, t - 1] @ path[t]
    return torch.stack([path[t] for t in range(T)], dim=1)


def frame_motion(before_NHW: Tensor, after_NHW: Tensor) -> Tensor:
    """The affine field (N, 2, 3) of a camera between two gray square frames, seen from halfway between them.

    Gauss-Newton on the difference of both frames, each moved half of the way (Lucas and Kanade 1981, symmetric), coarse to
    fine. Frames without texture show no motion; a background without texture has the camera follow the actor.
    """
    field_N23 = before_NHW.new_zeros(len(before_NHW), 2, 3)
    side = before_NHW.shape[-1]
    for level_px in [px for px in _LEVELS_PX if 3 * px <= 2 * side] or [side]:
        pair_2NHW = torch.stack([_shrunk(before_NHW, level_px), _shrunk(after_NHW, level_px)])
        for _ in range(_ROUNDS):
            field_N23 = field_N23 + _correction(pair_2NHW, field_N23)
    return field_N23


def _correction(pair_2NHW: Tensor, field_N23: Tensor) -> Tensor:
    """One step of least squares on the remaining difference of two frames."""
    N, side = pair_2NHW.shape[1], pair_2NHW.shape[-1]
    ones_and_xy_M3 = _ones_and_xy((side, side), pair_2NHW)
    half_NM2 = ones_and_xy_M3 @ field_N23.transpose(1, 2) / 2
    places_2NM2 = ones_and_xy_M3[:, 1:] + torch.stack([-half_NM2, half_NM2])
    grid = places_2NM2.reshape(2 * N, side, side, 2)
    images = pair_2NHW.reshape(2 * N, 1, side, side)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    before_NHW, after_NHW = moved.view(2, N, side, side)
    slope_N2M = torch.stack(_slopes((before_NHW + after_NHW) / 2), dim=1).flatten(2)
    difference_NM = (after_NHW - before_NHW).flatten(1)
    inside_NM = (places_2NM2.abs() <= 1 - 1 / side + 1e-4).all(dim=-1).all(dim=0)
    weight_NM = _weights(difference_NM.abs()) * inside_NM
    design_N6M = (slope_N2M[:, :, None] * ones_and_xy_M3.T).flatten(1, 2)
    weighted_N6M = design_N6M * weight_NM[:, None]
    normal_N66 = weighted_N6M @ design_N6M.transpose(1, 2)
    ridge_N11 = _RIDGE * normal_N66.diagonal(dim1=1, dim2=2).mean(dim=1).view(N, 1, 1) + 1e-9
    normal_N66 = normal_N66 + ridge_N11 * torch.eye(6).to(normal_N66)
    step_N61 = torch.linalg.solve(normal_N66, weighted_N6M @ -difference_NM[..., None])
    return step_N61.view(N, 2, 3)


def _weights(residual_NM: Tensor) -> Tensor:
    """How much each place counts: 1 where it fits, less than a quarter where it is off by more than usual (Geman, McClure)."""
    usual_N1 = residual_NM.mean(dim=1, keepdim=True)
    return (1 + (residual_NM / (_OUTLIER * usual_N1 + 1e-9)).square()).pow(-2)


def _slopes(frames_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, per unit of the coordinates."""
    padded = F.pad(frames_NHW[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    scale = frames_NHW.shape[-1] / 4  # two pixels are 4 / side
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * scale
    return across, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) * scale


def _shrunk(frames_NHW: Tensor, side_px: int) -> Tensor:
    if frames_NHW.shape[-1] == side_px:
        return frames_NHW
    return F.interpolate(frames_NHW[:, None], (side_px, side_px), mode="bilinear", antialias=True)[:, 0]


def _as_matrix(field_N23: Tensor) -> Tensor:
    """The matrix (N, 3, 3) that moves a place (x, y, 1) by an affine field, whose columns are those of 1, x and y."""
    rows_N23 = torch.cat([field_N23[..., 1:], field_N23[..., :1]], dim=-1) + torch.eye(2, 3).to(field_N23)
    last_N13 = torch.tensor([0.0, 0.0, 1.0]).to(field_N23).expand(len(field_N23), 1, 3)
    return torch.cat([rows_N23, last_N13], dim=1)


def _ones_and_xy(size: tuple[int, ...], like: Tensor) -> Tensor:
    """1, x and y of the pixels of a frame, row by row: (H * W, 3)."""
    y, x = ((2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in size)
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([torch.ones_like(grid[0]), grid[1], grid[0]], dim=-1).flatten(0, 1)
