"""Where layers begin and how large their atlases are; what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from ssvid.errors import DataError, RecipeError
from ssvid.layers.atlas import PRESETS, AtlasConfig, LossWeights
from ssvid.layers.atlas.layout import lay_out
from ssvid.layers.motion import ClipMotion
from tests.layers.atlas.conftest import H, T, W


def test_units_are_halves_of_the_longer_side(begun):
    corner = begun.layout.frame_points(H, W, T - 1)[-1]
    assert corner.tolist() == pytest.approx([(W - 1) / W, (H - 1) / W, 1.0])
    twice = begun.layout.frame_points(2 * H, 2 * W, 0).view(2 * H, 2 * W, 3)
    once = begun.layout.frame_points(H, W, 0).view(H, W, 3)
    assert twice.view(H, 2, W, 2, 3).mean(dim=(1, 3)).numpy() == pytest.approx(once.numpy(), abs=1e-6)


def test_a_chain_leads_to_where_the_points_truly_are_in_the_middle_frame(scene, begun):
    points = np.array([[2.0, 1.0], [-3.0, 4.0]])
    for layer in range(2):
        truly = scene.to_frame(layer, points, T // 2)
        for t in range(T):
            xy = torch.from_numpy(scene.to_frame(layer, points, t)).float()
            places = begun.network.mappings[layer](begun.layout.points(xy[:, 0], xy[:, 1], torch.full((2,), float(t))))
            found = places.detach().numpy() * begun.layout.half_px + [(W - 1) / 2, (H - 1) / 2]
            assert found == pytest.approx(truly, abs=0.1)


def test_an_atlas_holds_all_that_is_seen_of_its_layer(begun, known):
    for name, weights in zip(begun.names, known.weights(), strict=True):
        height, width = begun.atlas_size(name)
        seen = begun.uv_px(name, H, W, range(T))[weights > 0.5]
        assert seen.min() >= 0
        assert (seen.max(axis=0) <= (width - 1, height - 1)).all()


def test_the_published_start_is_a_square_that_frames_fill_by_four_fifths(clip_motion):
    layout = lay_out(*clip_motion, "identity")
    assert layout.boxes_L22.tolist() == [[[-1.25, -1.25], [1.25, 1.25]]] * 2
    assert torch.equal(layout.chains_LT23, torch.eye(3)[:2].expand(2, T, 2, 3))


def shifted(motion, by):
    return ClipMotion(
        motion.forward_THW2 + by, motion.backward_THW2 - by, motion.forward_valid_THW, motion.backward_valid_THW
    )


def test_what_has_no_atlas_is_refused(clip_motion):
    clip, motion = clip_motion
    one = dataclasses.replace(clip, frames_THWC=clip.frames_THWC[:1], masks_NTHW=clip.masks_NTHW[:, :1])
    with pytest.raises(DataError, match="at least 2 frames"):
        lay_out(one, motion, "chain")
    with pytest.raises(DataError, match="no object has a mask"):
        lay_out(dataclasses.replace(clip, names=(), masks_NTHW=clip.masks_NTHW[:0]), motion, "chain")
    with pytest.raises(DataError, match="Measure it on the frames that are fitted"):
        lay_out(clip.resized(H // 2, W // 2), motion, "chain")
    with pytest.raises(DataError, match="Call it otherwise"):
        lay_out(dataclasses.replace(clip, names=("background",)), motion, "chain")
    with pytest.raises(DataError, match=r"the atlas of (fg|background) would be"):
        lay_out(clip, shifted(motion, 200), "chain")


def test_illegal_settings_are_told_together():
    with pytest.raises(RecipeError, match=r"(?s)atlas\.start.*atlas\.iterations"):
        AtlasConfig(start="middle", iterations=0).check()
    with pytest.raises(RecipeError, match=r"atlas\.weights\.flow"):
        AtlasConfig(weights=LossWeights(flow=-1)).check()
    for preset in PRESETS.values():
        preset.check()
    assert set(PRESETS) == {"fast", "published"}
