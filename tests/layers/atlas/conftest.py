"""A small scene and its motion as it truly is, so that no test hangs on a flow method."""

import numpy as np
import pytest

from ssvid.layers.atlas import AtlasConfig, AtlasModel
from ssvid.layers.atlas.layout import lay_out
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import ClipMotion, grid_px
from ssvid.video.synthetic_layers import draw_layered_scene, render_layers

H, W, T = 36, 64, 5
TINY = AtlasConfig(mapping_width=8, mapping_layers=2, iterations=6, num_patches=8, warmup_iterations=2)


def true_motion(scene, known) -> ClipMotion:
    """Flow of what is seen most at each pixel."""
    layers_THW = known.weights().argmax(axis=0)
    xy_P2 = grid_px(scene.height, scene.width).reshape(-1, 2).astype(float)

    def flow(t, other):
        each = [scene.moved(layer, xy_P2, t, other) - xy_P2 for layer in range(scene.num_layers)]
        of_layers = np.stack(each).reshape(scene.num_layers, scene.height, scene.width, 2)
        return np.take_along_axis(of_layers, layers_THW[t][None, ..., None], axis=0)[0].astype(np.float32)

    forward = np.stack([flow(t, t + 1) for t in range(scene.num_frames - 1)])
    backward = np.stack([flow(t + 1, t) for t in range(scene.num_frames - 1)])
    everywhere = np.ones(forward.shape[:3], dtype=bool)
    return ClipMotion(forward, backward, everywhere, everywhere)


def filmed(scene, names):
    known = render_layers(scene)
    return LayerClip(known.frames_THWC, known.masks(), names, 25.0), true_motion(scene, known)


@pytest.fixture(scope="session")
def scene():
    return draw_layered_scene(0, height=H, width=W, num_frames=T)


@pytest.fixture(scope="session")
def known(scene):
    return render_layers(scene)


@pytest.fixture(scope="session")
def clip_motion(scene):
    return filmed(scene, ("fg",))


@pytest.fixture(scope="session")
def two_bodies():
    return filmed(draw_layered_scene(0, num_bodies=2, height=H, width=W, num_frames=T), ("left", "right"))


@pytest.fixture(scope="session")
def begun(clip_motion):
    """Before any step: alphas are those of the masks, mappings those that the flow tells. Read only."""
    clip, motion = clip_motion
    return AtlasModel.begin(lay_out(clip, motion, "chain"), TINY, 0, clip.masks_NTHW)
