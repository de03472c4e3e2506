"""The clean background against medians by hand, and cameras that are known."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.layers.background import at_size, camera_canvas, grown, inpainted, masked_median, refined, views
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import Canvas, apply, canvas_of, homographies, measure_motion
from ssvid.video.synthetic_effects import walkers


def still(num_frames, height, width):
    return Canvas(np.tile(np.eye(3), (num_frames, 1, 1)), height, width)


def test_the_median_of_what_is_free():
    frames = np.random.default_rng(0).integers(0, 256, (6, 70, 9, 3)).astype(np.uint8)
    hidden = np.random.default_rng(1).random((6, 70, 9)) < 0.5
    picture, seen = masked_median(frames, hidden, still(6, 70, 9))
    for y, x in np.ndindex(70, 9):
        free = ~hidden[:, y, x]
        assert seen[y, x] == free.any()
        expected = np.median(frames[free, y, x].astype(float), axis=0) if free.any() else 0
        assert picture[y, x] == pytest.approx(expected, abs=0.51)


def test_a_canvas_is_seen_as_it_was():
    texture = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    offsets = [0, 3, 11]
    matrices = np.tile(np.eye(3), (3, 1, 1))
    matrices[:, 0, 2] = offsets
    canvas = Canvas(matrices, 20, 41)
    frames = np.stack([texture[:, left : left + 29] for left in offsets])
    picture, seen = masked_median(frames, np.zeros(frames.shape[:3], bool), canvas)
    assert seen[:, :40].all() and not seen[:, 40].any()
    assert (picture[:, :40][:, 11:29] == texture[:, 11:29]).all()
    assert (views(texture, canvas, 20, 29) == frames).all()


def test_what_was_never_seen_is_filled_from_around():
    picture = np.full((12, 12, 3), 77, np.uint8)
    seen = np.ones((12, 12), bool)
    assert inpainted(picture, seen) is picture
    seen[4:7, 4:7] = False
    picture[4:7, 4:7] = 0
    assert (np.abs(inpainted(picture, seen).astype(int) - 77) <= 2).all()


def test_masks_grow_by_a_disc():
    mask = np.zeros((1, 15, 15), bool)
    mask[0, 7, 7] = True
    y, x = np.mgrid[-7:8, -7:8]
    for px in (1, 2):
        found = grown(mask, px)[0]
        assert found[np.abs(x) + np.abs(y) <= px].all()
        assert not found[np.hypot(x, y) > px + 0.5].any()
    assert (grown(mask, 0) == mask).all()


def test_corners_of_pixels_stay_corners():
    matrix = np.array([[1.1, 0.05, 4.0], [-0.03, 0.95, 2.0], [0, 0, 1]])
    large = at_size(Canvas(matrix[None], 30, 50), (20, 40), (60, 120))
    assert (large.height, large.width) == (90, 150)
    small_px = np.array([[-0.5, -0.5], [39.5, 19.5], [10.0, 3.0]])
    in_large = 3 * (small_px + 0.5) - 0.5
    expected = 3 * (apply(matrix, small_px) + 0.5) - 0.5
    assert apply(large.to_canvas_T33[0], in_large) == pytest.approx(expected)
    canvas = still(2, 20, 40)
    assert at_size(canvas, (20, 40), (20, 40)) is canvas


def scene_clip(pan_px):
    scene = walkers(0, num_objects=1, num_frames=8, pan_px=pan_px)
    clip = LayerClip(scene.frames(), scene.masks(), scene.names, 10.0)
    return scene, clip, measure_motion(clip.frames_THWC)


def error_px(canvas, scene):
    """How far the outermost pixels are from where they should be on the canvas, at most."""
    corners = np.array([[0, 0], [95, 0], [0, 63], [95, 63.0]])
    middle = scene.num_frames // 2
    shifts = scene.camera_T2 - scene.camera_T2[middle]
    back = np.linalg.inv(canvas.to_canvas_T33[middle])
    return max(
        np.abs(apply(back @ own, corners) - corners - shift).max()
        for own, shift in zip(canvas.to_canvas_T33, shifts, strict=True)
    )


def test_a_camera_that_stands_is_known_as_such():
    _, clip, motion = scene_clip(0.0)
    canvas, inliers_T = camera_canvas(clip, motion, "auto")
    assert (canvas.to_canvas_T33 == np.eye(3)).all()
    assert (inliers_T == 1).all()
    assert (canvas.height, canvas.width) == clip.size
    assert (camera_canvas(clip, motion, "static")[0].to_canvas_T33 == np.eye(3)).all()


def test_a_camera_that_pans_is_followed():
    scene, clip, motion = scene_clip(20.0)
    found, inliers_T = camera_canvas(clip, motion, "auto")
    assert error_px(found, scene) < 1.0
    assert inliers_T.min() > 0.5


def test_refinement_brings_back_frames_that_are_off():
    scene, clip, motion = scene_clip(20.0)
    hidden = grown(clip.masks_NTHW.any(axis=0), 2)
    off = homographies(motion, ~hidden).to_middle_T33.copy()
    off[1::4, 1, 2] += 2.0
    before = canvas_of(off, *clip.size)
    assert error_px(before, scene) > 1.5
    assert error_px(refined(before, clip.frames_THWC, hidden), scene) < 0.7


def test_a_lost_camera_is_told():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3)).astype(np.uint8)
    masks = np.zeros((1, 2, 40, 60), bool)
    masks[..., :5, :5] = True
    clip = LayerClip(frames, masks, ("car",), 10.0)
    motion = measure_motion(np.stack([frames[0], frames[0]]))
    motion.forward_THW2[..., 0] = 40 * np.arange(60)[None, None]
    motion.backward_THW2[..., 0] = 40 * np.arange(60)[None, None]
    with pytest.raises(DataError, match=r"canvas of the background .* choose the static camera"):
        camera_canvas(clip, motion, "moving")
