"""Flow, transformations and the canvas against motions that are known."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import (
    ClipMotion,
    apply,
    canvas_of,
    consistent,
    fit_transformation,
    grid_px,
    homographies,
    measure_motion,
    similarities,
)

H, W = 40, 60


def turned(degrees, scale, shift):
    angle = np.deg2rad(degrees)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1]])


def flow_of(matrix):
    grid = grid_px(H, W).reshape(-1, 2).astype(float)
    return (apply(matrix, grid) - grid).reshape(H, W, 2).astype(np.float32)


def motion_of(steps):
    """Frame t + 1 shows at steps[t] @ x what frame t shows at x."""
    forward = np.stack([flow_of(step) for step in steps])
    backward = np.stack([flow_of(np.linalg.inv(step)) for step in steps])
    everywhere = np.ones((len(steps), H, W), dtype=bool)
    return ClipMotion(forward, backward, everywhere, everywhere)


def test_a_texture_that_slides_has_that_flow():
    texture = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)
    texture = np.kron(texture, np.ones((4, 4, 1), dtype=np.uint8))
    frames = np.stack([texture[10:58, 10 + 2 * t : 90 + 2 * t] for t in range(3)])
    motion = measure_motion(frames)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.median(motion.forward_THW2[inner], axis=(0, 1, 2)) == pytest.approx([-2, 0], abs=0.15)
    assert np.median(motion.backward_THW2[inner], axis=(0, 1, 2)) == pytest.approx([2, 0], abs=0.15)
    assert motion.forward_valid_THW[inner].mean() > 0.8


def test_there_and_back():
    there = np.full((H, W, 2), (3.0, -1.0), dtype=np.float32)
    found = consistent(there, -there)
    assert found[1:, : W - 3].all()
    assert not found[:, W - 3 :].any()  # ends outside
    assert not found[0].any()
    assert not consistent(there, -there + 1.0).any()


@pytest.mark.parametrize("kind", ["similarity", "homography"])
def test_a_transformation_is_found_among_outliers(kind):
    matrix = turned(4.0, 1.05, (1.5, -2.0))
    if kind == "homography":
        matrix[2, :2] = (1e-4, -2e-4)
    flow, where = flow_of(matrix), np.ones((H, W), dtype=bool)
    flow[:10] += 5.0
    found, share = fit_transformation(flow, where, kind, 0.5)
    points = np.array([[5.0, 20.0], [50.0, 35.0]])
    assert apply(found, points) == pytest.approx(apply(matrix, points), abs=0.05)
    assert share == pytest.approx(0.75, abs=0.02)


def test_too_few_points_are_no_transformation():
    where = np.zeros((H, W), dtype=bool)
    where[0, :5] = True
    assert fit_transformation(np.zeros((H, W, 2), np.float32), where, "similarity", 0.5) == (None, 0.0)


@pytest.mark.parametrize("chain", [similarities, homographies])
def test_chains_lead_to_the_middle_frame(chain):
    steps = [turned(3, 1.02, (1, 0)), turned(-2, 0.99, (0, 2)), turned(1, 1.0, (2, 1)), turned(5, 1.01, (-1, 1))]
    found = chain(motion_of(steps), np.ones((5, H, W), dtype=bool))
    expected = [steps[1] @ steps[0], steps[1], np.eye(3), np.linalg.inv(steps[2]), np.linalg.inv(steps[3] @ steps[2])]
    points = np.array([[3.0, 4.0], [55.0, 30.0], [20.0, 38.0]])
    for mine, true in zip(found.to_middle_T33, expected, strict=True):
        assert apply(mine, points) == pytest.approx(apply(true, points), abs=0.1)
    assert found.inliers_T.min() > 0.95


def test_a_step_without_flow_repeats_the_one_before():
    steps = [turned(0, 1, (3, 0))] * 4
    where = np.ones((5, H, W), dtype=bool)
    where[4] = False
    found = similarities(motion_of(steps), where)
    assert found.to_middle_T33[4, :2, 2] == pytest.approx([-6, 0], abs=0.05)
    assert found.inliers_T[4] == 0


def test_the_canvas_holds_every_frame():
    to_middle = np.stack([turned(0, 1, (-10, 3)), np.eye(3), turned(0, 1, (12.5, 0))])
    canvas = canvas_of(to_middle, H, W)
    assert (canvas.height, canvas.width) == (H + 3, W + 10 + 13)
    corners = np.array([[0, 0], [W - 1, H - 1]], dtype=float)
    for matrix in canvas.to_canvas_T33:
        placed = apply(matrix, corners)
        assert placed.min() >= 0
        assert (placed <= (canvas.width - 1, canvas.height - 1)).all()


def test_a_lost_camera_is_refused():
    with pytest.raises(DataError, match="times as large as a frame"):
        canvas_of(np.stack([turned(0, 1, (-400, 0)), np.eye(3), turned(0, 1, (400, 0))]), H, W)
    flipped = np.eye(3)
    flipped[2, 0] = -0.1
    with pytest.raises(DataError, match="has no end"):
        canvas_of(np.stack([np.eye(3), flipped]), H, W)


# ---- the clip


def clip(**changed):
    masks = np.zeros((1, 3, H, W), dtype=bool)
    masks[:, :, 10:20, 10:30] = True
    parts = {"frames_THWC": np.zeros((3, H, W, 3), np.uint8), "masks_NTHW": masks, "names": ("car",), "fps": 25.0}
    return LayerClip(**(parts | changed))


def test_masks_shrink_with_their_frames():
    small = clip().resized(20, 30)
    assert small.size == (20, 30)
    assert small.masks_NTHW[0, 0].sum() == 50
    thin = np.zeros((1, 3, H, W), dtype=bool)
    thin[..., 7] = True
    assert clip(masks_NTHW=thin).resized(10, 15).masks_NTHW.any(axis=(2, 3)).all()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"frames_THWC": np.zeros((3, H, W), np.uint8)}, "uint8"),
        ({"masks_NTHW": np.zeros((1, 3, H, W + 1), dtype=bool)}, "of\\s+shape"),
        ({"masks_NTHW": np.zeros((1, 3, H, W), dtype=bool)}, "object car has an empty mask"),
    ],
)
def test_what_does_not_fit_is_refused(changed, text):
    with pytest.raises(DataError, match=text):
        clip(**changed)
