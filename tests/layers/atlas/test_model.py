"""Atlases as pictures, places at any size, paint brought from a frame, files."""

import io

import numpy as np
import pytest
import torch

from ssvid.errors import DataError
from ssvid.layers.atlas import AtlasModel
from ssvid.layers.atlas.pictures import covered, inverted, sampled
from ssvid.layers.motion import grid_px
from tests.layers.atlas.conftest import H, T, W


def test_files_hold_all_of_it(begun):
    file = io.BytesIO()
    torch.save(begun.state(), file)
    file.seek(0)
    again = AtlasModel.from_state(torch.load(file, weights_only=True))
    assert (again.config, again.names, again.step) == (begun.config, begun.names, begun.step)
    for name in begun.names:
        assert np.array_equal(again.uv_px(name, 9, 16, [1.5]), begun.uv_px(name, 9, 16, [1.5]))
        assert np.array_equal(again.atlas_rgba(name), begun.atlas_rgba(name))


def test_places_in_large_frames_are_those_of_the_mapping(begun):
    """With a network that adds something, which at its beginning it does not."""
    model = AtlasModel.from_state(begun.state())
    mapping, low = model.network.mappings[0], model.layout.boxes_L22[0, 0]
    with torch.no_grad():
        mapping.residual[-1].weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
        directly = mapping(model.layout.frame_points(5 * H, 4 * W, 1.0)) - low
        begins = begun.network.mappings[0](model.layout.frame_points(5 * H, 4 * W, 1.0)) - low
    to_px = model.layout.half_px * model.config.export_scale
    assert (directly - begins).abs().max() * to_px > 1
    found = model.uv_px("fg", 5 * H, 4 * W, [1])[0]
    assert found == pytest.approx((directly * to_px).reshape(5 * H, 4 * W, 2).numpy(), abs=0.1)
    large, small = model.uv_px("fg", 3 * H, 3 * W, [2])[0], model.uv_px("fg", H, W, [2])[0]
    assert large[1::3, 1::3] == pytest.approx(small, abs=1e-3)


def test_between_frames_lies_between_them(begun):
    before, between, after = begun.uv_px("background", H, W, [1, 1.5, 2])
    assert between == pytest.approx((before + after) / 2, abs=1e-3)


def test_an_unknown_layer_is_told(begun):
    with pytest.raises(DataError, match=r"there is no layer 'car'. Take one of: fg, background"):
        begun.uv_px("car", H, W, [0])


def test_an_atlas_is_opaque_where_frames_see_it(begun, known):
    for name, weights in zip(begun.names, known.weights(), strict=True):
        rgba = begun.atlas_rgba(name)
        assert rgba.shape == (*begun.atlas_size(name), 4)
        seen = begun.uv_px(name, H, W, range(T))[weights == 1]
        assert sampled(rgba[..., 3], seen[None])[0].mean() > 0.9 * 255
        assert (rgba[..., 3] < 20).mean() > 0.1


def test_cover_is_the_most_that_is_seen():
    uv = np.array([[[[0.2, 0.0], [3.1, 0.9]], [[3.0, 1.0], [-9.0, 0.0]]]])
    found = covered(uv, np.array([[[0.5, 0.4], [0.7, 1.0]]]), 3, 6)
    assert found[0, 0] == pytest.approx(0.5)
    assert found[1, 3] == pytest.approx(0.7)
    assert found[:, 5].max() == 0


def test_a_mapping_is_followed_backward():
    turn = np.array([[0.0, -1.2], [1.2, 0.0]])

    def mapping(xy):
        return (xy + 0.5 * np.sin(xy[:, ::-1] / 4)) @ turn.T + [30, 2]

    uv = mapping(grid_px(20, 24).reshape(-1, 2)).reshape(20, 24, 2)
    xy, found = inverted(mapping, uv, 36, 40)
    assert mapping(xy[found]) == pytest.approx(grid_px(36, 40)[found], abs=0.05)
    assert found.sum() == pytest.approx(1.2**2 * 20 * 24, rel=0.15)
    assert not found[0, 0]


def test_paint_on_a_frame_comes_back_to_its_place(begun, known):
    """On the middle of the body, twice as large as the frames; in the atlas it lies where the frame's pixels lie."""
    y, x = (axis.mean() for axis in np.nonzero(known.masks()[0, 1]))
    painted = np.zeros((2 * H, 2 * W, 4), np.uint8)
    distance = np.hypot(*(grid_px(2 * H, 2 * W) - [2 * x + 0.5, 2 * y + 0.5]).T).T
    painted[distance < 6] = (250, 20, 30, 255)
    brought = begun.from_frame("fg", painted, 1)
    assert brought.shape == (*begun.atlas_size("fg"), 4)
    back = sampled(brought.astype(np.float32), begun.uv_px("fg", 2 * H, 2 * W, [1])[0])
    assert np.abs(back[distance < 4.5] - [250, 20, 30, 255]).max() < 12
    assert back[distance > 8][..., 3].max() < 12


def test_paint_beside_an_object_does_not_stick_to_it(begun, known):
    painted = np.zeros((H, W, 4), np.uint8)
    painted[~(known.alphas_NTHW[0, 0] > 0)] = 255
    assert (begun.from_frame("fg", painted, 0)[..., 3] > 128).mean() < 0.02
    assert (begun.from_frame("background", painted, 0)[..., 3] > 128).mean() > 0.2
