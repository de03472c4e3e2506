"""Patches lie within frames, half of them on objects; labels of pixels; flow at both ends of the clip."""

import numpy as np
import pytest
import torch

from ssvid.errors import DataError
from ssvid.layers.atlas.sampling import Pixels, labels_of, sure_of
from tests.layers.atlas.conftest import H, T, W


@pytest.fixture(scope="module")
def pixels(clip_motion):
    return Pixels.of(*clip_motion, torch.device("cpu"))


@pytest.fixture(scope="module")
def drawn(pixels):
    return pixels.draw(2000, 4, torch.Generator().manual_seed(0))


def test_patches_are_squares_within_frames(drawn):
    assert drawn.y_BSS.shape == (2000, 4, 4)
    assert (drawn.y_BSS.diff(dim=1) == 1).all() and (drawn.x_BSS.diff(dim=2) == 1).all()
    for values, limit in ((drawn.y_BSS, H), (drawn.x_BSS, W), (drawn.t_BSS, T)):
        assert values.min() == 0 and values.max() == limit - 1
    assert (drawn.t_BSS == drawn.t_BSS[:, :1, :1]).all()


def test_flow_leads_to_frames_that_exist(drawn):
    t = drawn.t_BSS[:, 0, 0]
    assert set(drawn.direction_B[t == 0].tolist()) == {0}
    assert set(drawn.direction_B[t == T - 1].tolist()) == {1}
    assert 0.4 < drawn.direction_B[(t > 0) & (t < T - 1)].float().mean() < 0.6


def test_the_first_half_holds_pixels_near_objects(drawn, pixels):
    near = torch.zeros(T * H * W, dtype=torch.bool)
    near[pixels.near_P] = True
    held = near.view(T, H, W)[drawn.t_BSS, drawn.y_BSS, drawn.x_BSS].flatten(1).any(dim=1)
    assert held[:1000].all()
    assert not held[1000:].all()


def test_every_second_pixel(drawn):
    some = drawn.every_second
    assert some.y_BSS.shape == (2000, 2, 2)
    assert torch.equal(some.x_BSS[:, 0, 1], drawn.x_BSS[:, 0, 2])


def test_flow_and_labels_are_those_of_the_clip(pixels, clip_motion):
    clip, motion = clip_motion
    assert np.array_equal(pixels.flows_2THW2[0, :-1], motion.forward_THW2)
    assert np.array_equal(pixels.flows_2THW2[1, 1:], motion.backward_THW2)
    assert not pixels.valid_2THW[0, -1].any() and not pixels.valid_2THW[1, 0].any()
    assert np.array_equal(pixels.labels_THW == 0, clip.masks_NTHW[0])


def test_the_object_in_front_has_the_label():
    masks = np.zeros((2, 1, 4, 6), dtype=bool)
    masks[0, 0, :, :3], masks[1, 0, :, 2:5] = True, True
    labels = labels_of(masks)
    assert labels[0, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert sure_of(labels)[0, 0].tolist() == [True, True, False, False, False, False]


def test_a_frame_smaller_than_a_patch_is_refused(pixels):
    with pytest.raises(DataError, match=f"atlas.patch_px={H}"):
        pixels.draw(4, H + 1, torch.Generator())
