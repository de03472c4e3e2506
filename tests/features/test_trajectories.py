"""Dense trajectories: known motion is followed, what does not move gives none, and a mirror mirrors all."""

import numpy as np
import pytest

from ssvid.features.orientations import MOTION_BINS
from ssvid.features.trajectories import (
    DESCRIPTORS,
    NUM_VALUES,
    TRACK_STEPS,
    are_moving,
    describe,
    follow,
    join_tracks,
    new_points,
)
from tests.features.test_orientations import mirrored_bins, split

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'ssvid[motion]'")

SIDE_PX = 80


def texture(side_px, seed=0):
    noise = np.random.default_rng(seed).normal(size=(side_px, side_px)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return (128 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def sliding(step_x, step_y, num_frames=18, *, side_px=SIDE_PX, seed=0):
    """The view of a camera over a plane that moves by whole pixels in each frame."""
    plane = texture(side_px + 2 * 60, seed)
    x, y = 60 - step_x * np.arange(num_frames), 60 - step_y * np.arange(num_frames)
    return [plane[b : b + side_px, a : a + side_px].copy() for a, b in zip(x, y, strict=True)]


@pytest.fixture(scope="module")
def slid():
    return join_tracks(follow(sliding(2, -1)))


def test_a_moving_plane_is_followed(slid):
    """To a tenth of a pixel for each step in the median of all scales, and to half a pixel for nine in ten."""
    steps = np.diff(slid.points_NL2, axis=1).reshape(-1, 2)
    assert len(slid.points_NL2) > 200
    np.testing.assert_allclose(np.median(steps, axis=0), (2, -1), atol=0.1)
    assert (np.abs(steps - (2, -1)).max(axis=1) < 0.5).mean() > 0.9
    assert sorted(set(slid.starts_N.tolist())) == [0, 1, 2], "of 18 frames, each track has 16"


def test_a_moving_camera_has_flow_along_its_tracks_and_next_to_no_boundaries(slid):
    hof, mbh = (split(slid.sums_NTYXD, *names).sum(axis=(1, 2, 3, 4)) for names in (("hof",), ("mbhx", "mbhy")))
    assert np.median(mbh / hof) < 0.05
    flow = split(slid.sums_NTYXD, "hof").sum(axis=(0, 1, 2, 3))
    assert flow.argmax() == 7 and flow[[7, 0]].sum() > 0.95 * flow.sum(), "right and up: between bins 7 and 0"


def test_what_stands_still_has_no_trajectories():
    for frames in ([texture(SIDE_PX)] * 20, [np.full((SIDE_PX, SIDE_PX), 90, np.uint8)] * 20, sliding(2, 0, 15), []):
        tracks = join_tracks(follow(frames))
        assert len(tracks.points_NL2) == 0
        assert describe(tracks).shape == (0, NUM_VALUES)


def test_a_frame_that_is_smaller_than_a_volume_has_none():
    assert not len(join_tracks(follow([frame[:, :31] for frame in sliding(2, 0)])).points_NL2)


def test_every_descriptor_has_length_one_and_the_shape_says_where_it_went(slid):
    values = describe(slid)
    assert values.shape == (len(slid.points_NL2), NUM_VALUES) and values.dtype == np.float32
    assert {name: end - start for name, (start, end) in DESCRIPTORS.items()} == {
        "shape": 30, "hog": 96, "hof": 108, "mbhx": 96, "mbhy": 96
    }  # fmt: skip
    for name in MOTION_BINS:
        np.testing.assert_allclose(np.linalg.norm(values[:, slice(*DESCRIPTORS[name])], axis=1), 1, rtol=1e-5)
    shape = values[:, slice(*DESCRIPTORS["shape"])].reshape(-1, TRACK_STEPS, 2)
    np.testing.assert_allclose(np.hypot(shape[..., 0], shape[..., 1]).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.median(shape, axis=(0, 1)), np.array([2, -1]) / 5**0.5 / TRACK_STEPS, atol=0.005)


def test_a_mirrored_video_has_mirrored_descriptors(slid):
    """On average over tracks: flow, and squares of even side, are not the same to the last pixel from the other side."""
    values, there = describe(slid), describe(join_tracks(follow([frame[:, ::-1] for frame in sliding(2, -1)])))
    assert abs(len(there) / len(values) - 1) < 0.1
    start = DESCRIPTORS["hog"][0]
    bins = np.split(mirrored_bins(), np.cumsum(list(MOTION_BINS.values()))[:-1])
    for name, own, first in zip(MOTION_BINS, bins, np.cumsum([0, *MOTION_BINS.values()]), strict=False):
        a, b = (part[:, slice(*DESCRIPTORS[name])].mean(axis=0).reshape(3, 2, 2, -1) for part in (values, there))
        np.testing.assert_allclose(b[:, :, ::-1], a[..., own - first], atol=0.03)
    turned = there[:, :start].reshape(-1, TRACK_STEPS, 2).mean(axis=0) * (-1, 1)
    np.testing.assert_allclose(turned, values[:, :start].reshape(-1, TRACK_STEPS, 2).mean(axis=0), atol=0.005)


def test_static_jumping_and_straying_tracks_are_left_out():
    time = np.arange(TRACK_STEPS + 1.0)
    moving, slow, far = (np.stack([speed * time, 0 * time], axis=1) for speed in (1, 0.3, 20))
    jumping = np.where(time[:, None] < 8, 0, [30, 0]) + np.stack([0.1 * time, 0 * time], axis=1)
    assert are_moving(np.stack([moving, slow, far, jumping])).tolist() == [True, False, False, False]


def test_points_are_begun_where_there_is_texture_and_no_track():
    gray = np.full((40, 60), 100, np.uint8)
    gray[:, :30] = texture(60)[:40, :30]
    found = new_points(gray, np.empty((0, 2)))
    assert len(found) > 20 and found[:, 0].max() <= 32 and set((found % 5).ravel()) == {2}
    taken = found[::2] + np.array([2.4, -2.4])  # still in the squares of these
    left = new_points(gray, taken)
    assert {*map(tuple, left)} == {*map(tuple, found[1::2])}
