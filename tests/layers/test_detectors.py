"""Detectors against scenes in which the figure is known by hand, and their words beyond the limit."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.layers.atlas.quality import alpha_iou
from ssvid.layers.detectors import (
    find_alpha,
    find_background,
    find_camera,
    find_copies,
    find_correspondence,
    find_mask_breaks,
    find_movement,
    kept_shares,
    steadiness,
    stray_share,
    travel_sizes,
    uncovered_share,
)
from ssvid.layers.motion import Canvas, ClipMotion, canvas_of, grid_px, measure_motion

H, W = 20, 40


def boxes(lefts, width=10, top=5, height=8):
    masks = np.zeros((len(lefts), H, W), bool)
    for mask, left in zip(masks, lefts, strict=True):
        if left is not None:
            mask[top : top + height, left : left + width] = True
    return masks


def still(count):
    return canvas_of(np.tile(np.eye(3), (count, 1, 1)), H, W)


def panned(count, step_px):
    """The camera goes right: frame t lies step_px further right on the canvas."""
    matrices = np.tile(np.eye(3), (count, 1, 1))
    matrices[:, 0, 2] = step_px * np.arange(count)
    return Canvas(matrices, H, W + step_px * (count - 1))


def flow(count, step_px):
    """Everything moves step_px to the right from frame to frame."""
    there = np.full((count - 1, H, W, 2), (step_px, 0), np.float32)
    valid = np.ones((count - 1, H, W), bool)
    return ClipMotion(there, -there, valid, valid)


def test_what_is_seen_free_is_counted_on_the_canvas():
    assert uncovered_share(boxes([0, 10, 20]), still(3)) == 1.0
    assert uncovered_share(boxes([5, 5, 5]), still(3)) == 0.0
    assert uncovered_share(boxes([0, 5]), still(2)) == pytest.approx(10 / 15)  # columns 0 to 4 and 10 to 14 of 0 to 14
    assert uncovered_share(boxes([10, 10, 10]), panned(3, 10)) == 1.0  # it goes with the camera
    assert uncovered_share(boxes([20, 10, 0]), panned(3, 10)) == 0.0  # it stands on the ground


def test_the_way_is_measured_in_sizes_on_the_canvas():
    assert travel_sizes(boxes([0, 10, 20]), still(3)) == pytest.approx(20 / np.sqrt(80))
    assert travel_sizes(boxes([20, 0, None, 10]), still(4)) == pytest.approx(20 / np.sqrt(80))
    assert travel_sizes(boxes([20, 10, 0]), panned(3, 10)) == pytest.approx(0.0)


def test_what_never_moves_is_refused_and_what_moves_little_is_told():
    with pytest.raises(DataError, match=r"what lies behind car is hardly seen in any frame: 0 % .*--stride"):
        find_movement("car", boxes([5, 5, 5]), still(3), needs_background=True)
    with pytest.raises(DataError, match="33 % of its places are ever free, and at least 40 % must be"):
        find_movement("car", boxes([5, 7]), still(2), needs_background=True)  # 4 of 12 columns
    share, travel = find_movement("car", boxes([5, 5, 5]), still(3), needs_background=False)
    assert "only 0 % of the places" in share.warning and "0.0 times its own size" in travel.warning
    share, travel = find_movement("car", boxes([0, 10, 20]), still(3), needs_background=True)
    assert (share.warning, travel.warning, share.text, travel.text) == ("", "", "100 %", "2.2 times its size")


def test_masks_that_break_are_named():
    steady = steadiness(boxes([0, 3, 6, 20]), flow(4, 3))
    assert steady == pytest.approx([1, 1, 0])
    seen, jump = find_mask_breaks("car", boxes([0, 3, None, 20, 23]), flow(5, 3))
    assert seen.text == "4 of 5" and "no mask in frame 2:" in seen.warning
    assert jump.value == 0 and "--mask 2=FILE" in jump.warning
    assert [one.warning for one in find_mask_breaks("car", boxes([0, 3, 6]), flow(3, 3))] == ["", ""]
    assert np.isnan(steadiness(boxes([None, None]), flow(2, 0))).all()
    with pytest.raises(DataError, match="car has a mask in 1 of 3 frames"):
        find_mask_breaks("car", boxes([None, 3, None]), flow(3, 3))


def test_a_mask_that_goes_on_as_it_went_is_no_break_where_the_flow_is_that_of_the_ground():
    assert steadiness(boxes([0, 4, 8, 12]), flow(4, 0)) == pytest.approx([6 / 14, 1, 1])
    assert steadiness(boxes([0, 4, 8, 24, 40]), flow(5, 0))[2] == 0
    assert steadiness(boxes([0, 4, 30, 12, 16]), flow(5, 4)) == pytest.approx([1, 0, 0, 1])


def test_a_lost_camera_is_told_with_its_frame():
    assert find_camera(np.array([0.8, 1.0, 0.77])).warning == ""
    assert "only 21 % of the background moves as one in frame 2" in find_camera(np.array([0.8, 1.0, 0.21])).warning


def test_layers_that_leave_their_object_are_told():
    masks = boxes([0, 10])
    alphas = masks.astype(float)
    assert alpha_iou(alphas, masks) == 1 and stray_share(alphas, masks) == 0
    alphas[:, 5:9] = 0  # the upper half is lost
    assert alpha_iou(alphas, masks) == pytest.approx(0.5)
    assert "IoU 0.50" in find_alpha("car", alphas, masks, has_effects=False).warning
    alphas = masks.astype(float)
    alphas[:, 13:15, :] = 0.4  # a shadow that touches it
    assert stray_share(alphas, masks) == 0
    alphas[:, 17:19, 20:40] = 0.4  # something else: 2 times 40 px of 160
    alphas[:, 0:2, :] = 0.2  # too faint
    assert stray_share(alphas, masks) == pytest.approx(0.5)
    assert "(50 % of its area)" in find_alpha("car", alphas, masks, has_effects=True).warning


def test_figures_beyond_their_limits_have_words():
    assert find_background(28.3).warning == "" and "only 23.7 dB" in find_background(23.7).warning
    assert find_correspondence("car", [0.1] * 20).warning == ""
    assert "more than 6.9 px away" in find_correspondence("car", [0.1] * 5 + [6.9] * 5).warning
    assert "no place of it could be tracked" in find_correspondence("car", []).text


def test_an_edit_that_is_missing_in_frames_is_found():
    grid = np.stack([grid_px(H, W)] * 4)
    weights = np.ones((4, H, W), np.float32)
    one = grid.copy()
    assert kept_shares(one, weights) == pytest.approx([1, 1, 1, 1])
    one[0] += (1000, 0)  # a second copy
    one[1, :, 20:] += (1000, 0)
    kept = kept_shares(one, weights)
    assert kept == pytest.approx([0, 0.5, 1, 1])
    assert "frame 0 shows 0 %" in find_copies("car", kept, np.ones(4, bool)).warning
    assert find_copies("car", kept, np.array([False, True, True, True])).warning == ""


@pytest.fixture(scope="module")
def sliding():
    """A textured square that goes 2 px to the right in each frame; its masks."""
    rng = np.random.default_rng(3)
    ground, paint = (
        np.kron(rng.integers(0, 256, (n, m, 3)), np.ones((3, 3, 1))).astype(np.uint8) for n, m in ((20, 30), (8, 8))
    )
    frames, masks = [], []
    for t in range(6):
        frame, mask = ground.copy(), np.zeros(ground.shape[:2], bool)
        frame[20:44, 12 + 2 * t : 36 + 2 * t], mask[20:44, 12 + 2 * t : 36 + 2 * t] = paint, True
        frames.append(frame)
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def test_real_flow_keeps_masks_steady(sliding):
    frames, masks = sliding
    assert steadiness(masks, measure_motion(frames)).min() > 0.85
