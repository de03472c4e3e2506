"""A video whose features move by whole cells: masks and points must be where they went, to the pixel."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssvid.backbones import Backbone
from ssvid.backbones.contract import BackboneInfo, StageInfo
from ssvid.errors import RecipeError, SsvidError
from ssvid.evals.label_propagation.following import Follower
from ssvid.features.propagation_protocol import PropagationProtocol

CELL = 8
EXACT = PropagationProtocol(
    size_rule="native", temperature=1e-3, top_k=1, radius_cells=3, num_previous=2, decision_resampling="nearest"
)


class Patches(Backbone):
    """Each cell's feature is its pixels: one stage, a cell every 8 pixels, every frame by itself."""

    per_frame = True

    def __init__(self) -> None:
        super().__init__(BackboneInfo("patches", (StageInfo("pixels", 3 * CELL * CELL, CELL, 1),), num_frames=1))
        self.pixels = torch.nn.Linear(1, 1)  # a network has parameters

    def run_stage(self, name, x_BCTHW):
        x_BCTHW = x_BCTHW - 0.5
        frames = x_BCTHW.transpose(1, 2).flatten(0, 1)
        return F.pixel_unshuffle(frames, CELL).unflatten(0, (-1, x_BCTHW.shape[2])).transpose(1, 2)


def rolling(count=6, step=(CELL, -CELL), height=64, width=96):
    """Noise that moves by whole cells, around the border."""
    ground = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [np.roll(ground, (t * step[0], t * step[1]), axis=(0, 1)) for t in range(count)]


def first_mask():
    labels = np.zeros((64, 96), np.uint8)
    labels[8:24, 48:64] = 1
    labels[24:32, 48:80] = 2
    return labels


def test_masks_move_with_their_pixels():
    follower = Follower.of(Patches(), EXACT)
    found = list(follower.masks(rolling(), (64, 96), {0: first_mask()}, [1, 2]))
    assert len(found) == 6 and all(labels.dtype == np.uint8 for labels in found)
    for t, labels in enumerate(found[:4]):
        np.testing.assert_array_equal(labels, np.roll(first_mask(), (t * CELL, -t * CELL), axis=(0, 1)))


class Counting(Patches):
    """Counts the frames that it is shown."""

    num_shown = 0

    def run_stage(self, name, x_BCTHW):
        self.num_shown += len(x_BCTHW)
        return super().run_stage(name, x_BCTHW)


def test_masks_and_points_take_one_reading_and_are_those_of_two():
    follower = Follower.of(Counting(), EXACT)
    given, points_Q3 = {0: first_mask()}, np.array([[0, 51.0, 12.0], [2, 20.0, 30.0], [5, 8.0, 8.0]])
    together = list(follower.together(rolling(), (64, 96), given, [1, 2], points_Q3))
    assert follower.network.num_shown == 6
    masks = follower.masks(rolling(), (64, 96), given, [1, 2])
    points_TQ2, visible_TQ = follower.points(rolling(), (64, 96), points_Q3)
    for t, (found, labels_HW) in enumerate(zip(together, masks, strict=True)):
        np.testing.assert_array_equal(found.labels_HW, labels_HW)
        np.testing.assert_array_equal(found.visible_Q, visible_TQ[t])
        is_known_Q = points_Q3[:, 0] <= t
        np.testing.assert_array_equal(found.points_Q2[is_known_Q], points_TQ2[t, is_known_Q])
        assert np.isnan(found.points_Q2[~is_known_Q]).all()
    assert visible_TQ.any() and not visible_TQ[1, 1:].any()


def test_masks_alone_and_points_alone_are_one_half_of_both():
    follower, given, points_Q3 = Follower.of(Patches(), EXACT), {0: first_mask()}, np.array([[0, 51.0, 12.0]])
    masks = list(follower.together(rolling(), (64, 96), given, [1, 2], np.zeros((0, 3))))
    points = list(follower.together(rolling(), (64, 96), {}, [], points_Q3))
    both = list(follower.together(rolling(), (64, 96), given, [1, 2], points_Q3))
    assert len(masks) == len(points) == len(both) == 6
    for mask, point, whole in zip(masks, points, both, strict=True):
        np.testing.assert_array_equal(mask.labels_HW, whole.labels_HW)
        np.testing.assert_array_equal(point.points_Q2, whole.points_Q2)
        assert point.labels_HW is None and mask.points_Q2.shape == (0, 2)


def test_an_object_that_comes_later_is_followed_from_there_and_others_go_on():
    late = np.zeros((64, 96), np.uint8)
    late[40:48, 8:24] = 3
    moved = np.roll(first_mask(), (2 * CELL, -2 * CELL), axis=(0, 1))
    looks = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    frames = rolling()
    for t in range(2, 6):  # only now it is in the picture
        is_late = np.roll(late, ((t - 2) * CELL, (2 - t) * CELL), axis=(0, 1)) == 3
        frames[t][is_late] = looks[late == 3]
    found = list(Follower.of(Patches(), EXACT).masks(frames, (64, 96), {0: first_mask(), 2: late}, [1, 2, 3]))
    assert 3 not in found[1]
    np.testing.assert_array_equal(found[2], np.where(late, late, moved))
    np.testing.assert_array_equal(found[3] == 3, np.roll(late, (CELL, -CELL), axis=(0, 1)) == 3)
    np.testing.assert_array_equal(found[3] == 1, np.roll(first_mask(), (3 * CELL, -3 * CELL), axis=(0, 1)) == 1)


def test_a_later_mask_sets_its_objects_anew():
    corrected = np.zeros((64, 96), np.uint8)
    corrected[48:56, 80:88] = 1
    found = list(Follower.of(Patches(), EXACT).masks(rolling(3), (64, 96), {0: first_mask(), 1: corrected}, [1, 2]))
    np.testing.assert_array_equal(found[1] == 1, corrected == 1)
    np.testing.assert_array_equal(found[1] == 2, np.roll(first_mask(), (CELL, -CELL), axis=(0, 1)) == 2)


def test_what_is_given_is_there_to_the_pixel_and_void_is_no_object():
    given = np.zeros((64, 96), np.uint8)
    given[11:30, 41:63] = 1
    given[5:9, 5:9] = 255
    found = next(iter(Follower.of(Patches(), EXACT).masks(rolling(1), (64, 96), {0: given}, [1])))
    np.testing.assert_array_equal(found, np.where(given == 255, 0, given))


def test_points_move_with_their_pixels_and_are_not_seen_before_they_are_given():
    points = np.array([[0, 51.5, 19.5], [2, 27.5, 43.5]])
    protocol = PropagationProtocol(size_rule="native", point_radius_cells=0.5, point_min_cosine=0.9)
    places, seen = Follower.of(Patches(), protocol).points(rolling(5), (64, 96), points)
    for t in range(5):
        np.testing.assert_allclose(places[t, 0], (51.5 - t * CELL, 19.5 + t * CELL), atol=1e-6)
    assert seen[:, 0].all() and seen[:, 1].tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(places[3, 1], (19.5, 51.5), atol=1e-6)


def test_places_are_in_pixels_of_the_video_whatever_the_network_sees():
    protocol = PropagationProtocol(size_rule="short_side", size_px=32, point_radius_cells=0.5)
    places, seen = Follower.of(Patches(), protocol).points([rolling(1)[0]] * 2, (64, 96), np.array([[0, 23.5, 39.5]]))
    assert seen.all()
    np.testing.assert_allclose(places[1, 0], (23.5, 39.5), atol=1e-6)
    masks = Follower.of(Patches(), protocol).masks([rolling(1)[0]] * 2, (64, 96), {0: first_mask()}, [1, 2])
    assert [labels.shape for labels in masks] == [(64, 96)] * 2


def test_frames_are_read_as_they_are_needed():
    read = []

    def frames():
        for t, frame in enumerate(rolling(40, step=(0, 0))):
            read.append(t)
            yield frame

    follower = Follower.of(Patches(), EXACT)
    for t, _ in enumerate(follower.masks(frames(), (64, 96), {0: first_mask()}, [1, 2])):
        assert len(read) - t <= 2 * follower.batch_frames, "no more than two batches are ahead"


def test_mistakes_are_told():
    with pytest.raises(RecipeError, match="top_k"):
        Follower.of(Patches(), PropagationProtocol(top_k=-1))
    with pytest.raises(RecipeError, match="layer9"):
        Follower.of(Patches(), PropagationProtocol(stage="layer9"))
    with pytest.raises(SsvidError, match="frame 9"):
        list(Follower.of(Patches(), EXACT).masks(rolling(3), (64, 96), {0: first_mask(), 9: first_mask()}, [1, 2]))
