"""Masks and joints on the grid of features and back, against OpenCV, pillow and cases computed by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ssvid.evals.label_propagation.labels import (
    insert_given,
    joints_from_grid,
    joints_to_grid,
    masks_from_grid,
    masks_to_grid,
    min_max,
    one_hot,
    resize_labels,
)
from ssvid.features.maps import MapGrid
from ssvid.features.propagation_protocol import PropagationProtocol


def random_mask(height: int, width: int, num_ids: int = 3, seed: int = 0) -> np.ndarray:
    """Blobs of several objects, with a border of void."""
    noise = np.random.default_rng(seed).normal(size=(num_ids + 1, height, width))
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 6) for plane in noise])
    mask_HW = smooth.argmax(axis=0).astype(np.uint8)
    mask_HW[:2] = 255
    return mask_HW


def classes(mask_HW: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    own = np.stack([mask_HW == number for number in ids]).astype(np.float32)
    return np.concatenate([1 - own.sum(axis=0, keepdims=True), own])


@pytest.mark.parametrize(("frame", "shape"), [((48, 88), (6, 11)), ((48, 85), (6, 11)), ((100, 61), (13, 8))])
def test_bilinear_labels_are_as_opencv_makes_them(frame: tuple[int, int], shape: tuple[int, int]) -> None:
    mask_HW = random_mask(*frame)
    found = masks_to_grid(mask_HW, (1, 2, 3), MapGrid.stretched(shape, frame), "bilinear")
    resized = cv2.resize(classes(mask_HW, (1, 2, 3)).transpose(1, 2, 0), shape[::-1]).transpose(2, 0, 1)
    np.testing.assert_allclose(found.numpy(), resized, atol=1e-5)


@pytest.mark.parametrize(("frame", "shape"), [((48, 88), (6, 11)), ((48, 85), (6, 11)), ((100, 61), (13, 8))])
def test_nearest_labels_are_as_pillow_and_opencv_make_them(frame: tuple[int, int], shape: tuple[int, int]) -> None:
    mask_HW = random_mask(*frame)
    grid = MapGrid.stretched(shape, frame)
    by_pillow = np.array(Image.fromarray(mask_HW).resize(shape[::-1], Image.Resampling.NEAREST))
    by_opencv = cv2.resize(mask_HW, shape[::-1], interpolation=cv2.INTER_NEAREST)
    for resampling, expected in (("nearest_exact", by_pillow), ("nearest", by_opencv)):
        found = masks_to_grid(mask_HW, (1, 2, 3), grid, resampling)
        np.testing.assert_array_equal(found.numpy(), classes(expected, (1, 2, 3)))
    np.testing.assert_array_equal(resize_labels(mask_HW, shape), by_pillow)
    np.testing.assert_array_equal(resize_labels(mask_HW, shape, "nearest"), by_opencv)


def test_the_share_of_a_cell_is_its_label() -> None:
    mask_HW = np.zeros((8, 16), dtype=np.uint8)
    mask_HW[:, :12] = 5
    mask_HW[0, 0] = 255
    found = masks_to_grid(mask_HW, (5,), MapGrid.stretched((1, 2), (8, 16)), "area")
    np.testing.assert_allclose(found[1].numpy(), [[63 / 64, 0.5]])
    np.testing.assert_allclose(found.sum(dim=0).numpy(), 1)


def test_placed_cells_keep_their_stride_where_the_frame_is_no_multiple() -> None:
    """20 px under cells of 8: the third cell lies half outside, where the border pixels are repeated."""
    mask_HW = np.zeros((8, 20), dtype=np.uint8)
    mask_HW[:, 18:] = 1
    grid = MapGrid.placed((1, 3), (8, 20), 8)
    found = masks_to_grid(mask_HW, (1,), grid, "area")
    np.testing.assert_allclose(found[1].numpy(), [[0, 0, 6 / 8]])
    back = masks_from_grid(torch.tensor([[[1.0, 0, 1]], [[0, 1.0, 0]]]), (1,), grid, (8, 20), PropagationProtocol())
    assert back[0].tolist() == [0] * 8 + [1] * 8 + [0] * 4


def test_a_map_without_all_cells_lies_in_the_middle() -> None:
    """Pixels beyond the outermost cells take the label of the nearest one."""
    grid = MapGrid((1, 2), (8, 24), (8, 8), (0.0, 4.0), False)
    mask_HW = np.zeros((8, 24), dtype=np.uint8)
    mask_HW[:, 4:12] = 1
    assert masks_to_grid(mask_HW, (1,), grid, "area")[1].tolist() == [[1, 0]]
    back = masks_from_grid(torch.tensor([[[0, 1.0]], [[1.0, 0]]]), (1,), grid, (8, 24), PropagationProtocol())
    assert back[0].tolist() == [1] * 12 + [0] * 12


@pytest.mark.parametrize("size", [(48, 85), (96, 170), (37, 61)])
@pytest.mark.parametrize("resampling", ["bilinear", "nearest", "nearest_exact"])
def test_labels_are_decided_as_opencv_and_argmax_do(size: tuple[int, int], resampling: str) -> None:
    grid = MapGrid.stretched((6, 11), (48, 85))
    soft = torch.rand(4, 6, 11, generator=torch.Generator().manual_seed(1))
    how = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST, "nearest_exact": cv2.INTER_NEAREST_EXACT}
    large = cv2.resize(soft.numpy().transpose(1, 2, 0), size[::-1], interpolation=how[resampling])
    protocol = PropagationProtocol(decision_resampling=resampling)
    found = masks_from_grid(soft, (3, 7, 9), grid, size, protocol)
    expected = np.array([0, 3, 7, 9], dtype=np.uint8)[large.argmax(axis=-1)]
    assert found.dtype == np.uint8
    assert (found != expected).mean() <= (0.001 if resampling == "bilinear" else 0)  # OpenCV rounds its weights


def test_the_first_class_wins_where_two_are_equal() -> None:
    grid = MapGrid.stretched((2, 2), (4, 4))
    assert masks_from_grid(torch.full((3, 2, 2), 0.25), (1, 2), grid, (4, 4), PropagationProtocol()).max() == 0


def test_each_class_is_brought_to_its_range_after_it_was_enlarged() -> None:
    """DINO: a weak object wins where it is strongest."""
    soft = torch.tensor([[[0.9, 0.8, 0.9, 0.9]], [[0.1, 0.2, 0.1, 0.1]]])
    grid = MapGrid.stretched((1, 4), (1, 4))
    assert masks_from_grid(soft, (1,), grid, (1, 4), PropagationProtocol()).tolist() == [[0, 0, 0, 0]]
    ranged = masks_from_grid(soft, (1,), grid, (1, 4), PropagationProtocol(decision_min_max=True))
    assert ranged.tolist() == [[0, 1, 0, 0]]


def test_min_max_and_one_hot() -> None:
    soft = torch.tensor([[[0.2, 0.6]], [[0.5, 0.5]], [[0.0, 0.0]]])
    torch.testing.assert_close(min_max(soft), torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]], [[0.0, 0.0]]]))
    assert one_hot(soft).tolist() == [[[0, 1]], [[1, 0]], [[0, 0]]]


def test_given_labels_leave_their_source_alone() -> None:
    before = torch.full((2, 1, 2), 0.5)
    inserted = insert_given(before, torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]]), torch.tensor([False, True]))
    torch.testing.assert_close(inserted, torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]))
    assert before.tolist() == [[[0.5, 0.5]], [[0.5, 0.5]]]


# ---- joints


def test_a_joint_is_a_gaussian_around_the_nearest_cell() -> None:
    """sigma 0.5 cells: exp(-2) beside it and exp(-4) at the corners; nothing else within 3 sigma."""
    grid = MapGrid.stretched((40, 40), (320, 320))
    points_J2 = np.array([[83.0, 165.0], [np.nan, np.nan], [0.0, 319.0]])  # 10.4 and 20.6 cells
    soft = joints_to_grid(points_J2, grid, PropagationProtocol())
    assert soft.shape == (4, 40, 40)
    side, corner = np.exp(-2), np.exp(-4)
    around = np.array([[corner, side, corner], [side, 1, side], [corner, side, corner]])
    np.testing.assert_allclose(soft[1, 20:23, 9:12].numpy(), around, rtol=1e-6)
    assert (soft[1] > 0).sum() == 9
    assert not soft[2].any()
    assert (soft[3] > 0).nonzero().tolist() == [[39, 0], [39, 1]]  # 39.9 is nearest to 40, the first cell outside
    np.testing.assert_array_equal((soft[0] > 0).numpy(), (soft[1:].sum(dim=0) == 0).numpy())


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("num_cells", [1, 5])
def test_joints_come_back_within_half_a_cell(num_cells: int, is_half: bool) -> None:
    protocol = PropagationProtocol(joint_cells=num_cells, joint_half_cell=is_half)
    grid = MapGrid.stretched((30, 40), (240, 320))
    points_J2 = np.random.default_rng(0).uniform((10, 10), (300, 220), (50, 2))
    found_J2, is_found_J = joints_from_grid(joints_to_grid(points_J2, grid, protocol), grid, protocol)
    assert is_found_J.all()
    off_J2 = found_J2 - points_J2
    assert np.abs(off_J2).max() <= 4 + 1e-6
    assert np.abs(off_J2.mean(axis=0)).max() < 1  # to neither side


def test_a_joint_is_the_weighted_mean_of_its_strongest_cells() -> None:
    soft = torch.zeros(3, 4, 6)
    soft[1, 1, 2], soft[1, 1, 4], soft[1, 3, 0] = 0.3, 0.1, 0.05
    grid = MapGrid.stretched((4, 6), (32, 48))
    found_J2, is_found_J = joints_from_grid(soft, grid, PropagationProtocol(joint_cells=2))
    np.testing.assert_allclose(found_J2[0], [8 * (0.3 * 2 + 0.1 * 4) / 0.4, 8.0])
    assert is_found_J.tolist() == [True, False]
    assert np.isnan(found_J2[1]).all()


def test_half_a_cell_makes_a_cell_stand_for_its_middle() -> None:
    soft = torch.zeros(2, 4, 6)
    soft[1, 1, 2] = 1
    grid = MapGrid.stretched((4, 6), (32, 48))
    corner, _ = joints_from_grid(soft, grid, PropagationProtocol(joint_cells=1))
    middle, _ = joints_from_grid(soft, grid, PropagationProtocol(joint_cells=1, joint_half_cell=True))
    assert corner.tolist() == [[16.0, 8.0]]
    assert middle.tolist() == [[19.5, 11.5]]
