"""From masks and joints to soft labels on the grid of features, and back.

Soft labels are KHW: K classes, the background first, over the H x W cells of a grid (``ssvid.features.maps.MapGrid``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.data.masks import VOID
from ssvid.features.maps import MapGrid, Size
from ssvid.features.propagation_protocol import PropagationProtocol

# ---- masks


def masks_to_grid(labels_HW: np.ndarray, ids: Sequence[int], grid: MapGrid, resampling: str) -> Tensor:
    """Soft labels of a mask: one class for the background and one for each id.

    What has no id of these (void too) is background.

    Args:
        labels_HW: whole numbers, of the size that the grid lies over.
        ids: of the objects or parts, in the order of their classes.
        resampling: as ``PropagationProtocol.label_resampling``.
    """
    rows, columns = (_rows_under(grid, axis, labels_HW.shape[axis]) for axis in (0, 1))
    placed_HW = torch.from_numpy(np.ascontiguousarray(labels_HW)).long()[rows][:, columns]
    cells = (grid.height, grid.width)
    if resampling.startswith("nearest"):
        mode = resampling.replace("_", "-")
        placed_HW = F.interpolate(placed_HW[None, None].float(), cells, mode=mode)[0, 0].long()
    classes_KHW = (
        torch.stack([placed_HW == number for number in ids]) if ids else placed_HW.new_zeros(0, *placed_HW.shape)
    )
    soft_KHW = torch.cat([~classes_KHW.any(dim=0, keepdim=True), classes_KHW]).float()
    if resampling == "area":
        return F.interpolate(soft_KHW[None], cells, mode="area")[0]
    if resampling == "bilinear":
        return F.interpolate(soft_KHW[None], cells, mode="bilinear", align_corners=False)[0]
    return soft_KHW


def _rows_under(grid: MapGrid, axis: int, length: int) -> Tensor:
    """The pixels of a frame's axis that lie under a grid, those beyond the border repeated."""
    if grid.is_stretched:
        return torch.arange(length)
    count, pitch = grid.shape[axis], grid.pitch_px[axis]
    return (torch.arange(round(count * pitch)) + round(grid.start_px[axis])).clamp(0, length - 1)


def masks_from_grid(
    labels_KHW: Tensor, ids: Sequence[int], grid: MapGrid, size_px: Size, protocol: PropagationProtocol
) -> np.ndarray:
    """The id of the largest class at each pixel, uint8 HW; 0 is the background.

    Args:
        size_px: height and width at which the largest class is taken; where that is not the size that the grid lies over,
            the grid is scaled.
    """
    numbers = torch.tensor([0, *ids], dtype=torch.uint8, device=labels_KHW.device)
    down_HH, across_WW = (
        _resampling_matrix(grid, axis, size_px[axis], protocol.decision_resampling).to(labels_KHW) for axis in (0, 1)
    )
    best_HW, found_HW = None, None
    for number, labels_HW in zip(numbers, labels_KHW, strict=True):  # class by class: two planes of pixels are held
        pixels_HW = down_HH @ labels_HW @ across_WW.T
        if protocol.decision_min_max:
            pixels_HW = min_max(pixels_HW[None])[0]
        if best_HW is None or found_HW is None:
            best_HW, found_HW = pixels_HW, number.expand(size_px).clone()
            continue
        found_HW[pixels_HW > best_HW] = number
        torch.maximum(best_HW, pixels_HW, out=best_HW)
    assert found_HW is not None
    return found_HW.cpu().numpy()


def _resampling_matrix(grid: MapGrid, axis: int, num_px: int, resampling: str) -> Tensor:
    """How much of each cell each pixel takes along an axis, (pixels, cells)."""
    scale = num_px / grid.frame_px[axis]
    pitch, start = grid.pitch_px[axis] * scale, grid.start_px[axis] * scale
    pixels_P = torch.arange(num_px, dtype=torch.float64)
    last = grid.shape[axis] - 1
    if resampling.startswith("nearest"):
        middle = 0.5 if resampling == "nearest_exact" else 0.0
        nearest_P = ((pixels_P + middle - start) / pitch + 1e-9).floor().clamp(0, last).long()
        return F.one_hot(nearest_P, last + 1).float()
    place_P = ((pixels_P + 0.5 - start) / pitch - 0.5).clamp(0, last)
    cells_C = torch.arange(last + 1, dtype=torch.float64)
    return (1 - (place_P[:, None] - cells_C).abs()).clamp(min=0).float()


def resize_labels(labels_HW: np.ndarray, size_px: Size, resampling: str = "nearest_exact") -> np.ndarray:
    """Whole-numbered labels in another size: "nearest_exact" (the middle of a pixel, as pillow) or "nearest" (its corner)."""
    if labels_HW.shape == tuple(size_px):
        return labels_HW
    labels = torch.from_numpy(np.ascontiguousarray(labels_HW))[None, None]
    return F.interpolate(labels, size_px, mode=resampling.replace("_", "-"))[0, 0].numpy()


def with_given(found_HW: np.ndarray, given_HW: np.ndarray) -> np.ndarray:
    """What was found, with the given objects in their place; where void is given, what was found stays."""
    objects = [number for number in np.unique(given_HW).tolist() if number not in (0, VOID)]
    others_HW = np.where(np.isin(found_HW, objects), 0, found_HW).astype(np.uint8)
    return np.where(np.isin(given_HW, objects), given_HW, np.where(given_HW == VOID, found_HW, others_HW))


# ---- soft labels


def min_max(labels_KHW: Tensor) -> Tensor:
    """Each class brought to 0 to 1 over the frame. A class that is the same everywhere stays as it is."""
    low_K11, high_K11 = labels_KHW.amin(dim=(1, 2), keepdim=True), labels_KHW.amax(dim=(1, 2), keepdim=True)
    span_K11 = high_K11 - low_K11
    return torch.where(span_K11 > 0, (labels_KHW - low_K11) / span_K11.clamp(min=1e-38), labels_KHW)


def one_hot(labels_KHW: Tensor) -> Tensor:
    """1 for the largest class of each cell, 0 for the others."""
    return F.one_hot(labels_KHW.argmax(dim=0), len(labels_KHW)).permute(2, 0, 1).to(labels_KHW.dtype)


def insert_given(labels_KHW: Tensor, given_KHW: Tensor, is_given_K: Tensor) -> Tensor:
    """Labels in which some classes are replaced by what is given of them; the others are cut there.

    What a replaced class held before falls to the background.
    """
    labels_KHW, given_KHW = labels_KHW.clone(), given_KHW.to(labels_KHW)
    is_given_K = is_given_K.to(labels_KHW.device)
    objects_K = is_given_K.clone()
    objects_K[0] = False
    labels_KHW[0] += labels_KHW[objects_K].sum(dim=0)
    labels_KHW *= 1 - given_KHW[objects_K].sum(dim=0).clamp(0, 1)
    labels_KHW[objects_K] = given_KHW[objects_K]
    if is_given_K[0]:
        labels_KHW[0] = given_KHW[0]
    return labels_KHW


# ---- joints


def joints_to_grid(points_J2: np.ndarray, grid: MapGrid, protocol: PropagationProtocol) -> Tensor:
    """Soft labels of joints: a Gaussian around the cell of each, cut off at 3 sigma, and a background where none is.

    Differs: videowalk's label has one row and one column more, up and left, whose weight is 0.0003 and less.

    Args:
        points_J2: x and y in pixels of the frame that the grid lies over; NaN where a joint is not known, and its class
            stays empty.
    """
    points_J2 = np.asarray(points_J2, dtype=np.float64)
    start_2, pitch_2 = np.array(grid.start_px[::-1]), np.array(grid.pitch_px[::-1])
    nearest_J2 = grid.to_cells(points_J2) if protocol.joint_half_cell else (points_J2 - start_2) / pitch_2
    cells_J2 = torch.from_numpy(np.floor(nearest_J2 + 0.5))
    dy_JH1 = (torch.arange(grid.height) - cells_J2[:, 1:]).unsqueeze(2)
    dx_J1W = (torch.arange(grid.width) - cells_J2[:, :1]).unsqueeze(1)
    reach = 3 * protocol.joint_sigma_cells
    weights_JHW = torch.exp(-(dy_JH1**2 + dx_J1W**2) / (2 * protocol.joint_sigma_cells**2))
    is_near_JHW = torch.maximum(dy_JH1.abs(), dx_J1W.abs()) <= reach  # false for NaN
    weights_JHW = torch.where(is_near_JHW, weights_JHW, 0.0).float()
    background_1HW = (weights_JHW.sum(dim=0, keepdim=True) == 0).float()
    return torch.cat([background_1HW, weights_JHW])


def joints_from_grid(labels_KHW: Tensor, grid: MapGrid, protocol: PropagationProtocol) -> tuple[np.ndarray, np.ndarray]:
    """Where joints are: the mean of the cells with most weight, weighted.

    Returns:
        points_J2: x and y in pixels of the frame that the grid lies over, NaN for a joint that is nowhere.
        is_found_J: whether the joint's class has any weight.
    """
    flat_JN = labels_KHW[1:].flatten(1).double().cpu()
    ordered_JN, order_JN = flat_JN.sort(dim=1, descending=True, stable=True)  # of equal cells the upper left ones
    top_Jk, cells_Jk = ordered_JN[:, : protocol.joint_cells], order_JN[:, : protocol.joint_cells]
    top_Jk = top_Jk / top_Jk.sum(dim=1, keepdim=True)
    middle = 0.5 if protocol.joint_half_cell else 0.0
    cells_Jk2 = torch.stack([cells_Jk % grid.width, cells_Jk // grid.width], dim=-1) + middle
    mean_J2 = (cells_Jk2 * top_Jk[..., None]).sum(dim=1)
    points_J2 = mean_J2 * torch.tensor(grid.pitch_px[::-1]) + torch.tensor(grid.start_px[::-1]) - middle
    is_found_J = flat_JN.sum(dim=1) > 0
    points_J2[~is_found_J] = torch.nan
    return points_J2.numpy(), is_found_J.numpy()
