"""A few steps of a tiny fit: finite, the same each time, resumed bit for bit; and what a model gives at every size."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.errors import DataError, RecipeError
from ssvid.layers.background import camera_canvas, grown
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import composite
from ssvid.layers.motion import ClipMotion, measure_motion
from ssvid.layers.omnimatte.config import OmnimatteConfig, fit_size
from ssvid.layers.omnimatte.fitting import fit_omnimatte, rate_times
from ssvid.layers.omnimatte.inputs import fit_inputs, onward
from ssvid.video.synthetic_effects import walkers

CONFIG = OmnimatteConfig(iterations=4, batch_frames=3, width=4)


@pytest.fixture(scope="module")
def scene():
    return walkers(0, num_frames=5)


@pytest.fixture(scope="module")
def clip(scene):
    return LayerClip(scene.frames(), scene.masks(), scene.names, 10.0).resized(32, 48)


@pytest.fixture(scope="module")
def motion(clip):
    return measure_motion(clip.frames_THWC)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b):
    assert (a.raw_layers() == b.raw_layers()).all()
    assert (a.canvas_1CHW == b.canvas_1CHW).all()
    assert a.losses == b.losses


def test_the_same_each_time_and_another_with_another_seed(clip, motion):
    first, second = (fit_omnimatte(clip, motion, CONFIG, seed=0) for _ in range(2))
    same(first, second)
    assert first.step == 4
    assert all(np.isfinite(list(first.losses.values())))
    other = fit_omnimatte(clip, motion, CONFIG, seed=1)
    assert not (first.raw_layers() == other.raw_layers()).all()


def test_a_camera_that_is_known_is_not_looked_for_again(clip, motion, monkeypatch):
    looked_for = fit_omnimatte(clip, motion, CONFIG, seed=0)
    camera = camera_canvas(clip, motion, CONFIG.camera, CONFIG.grown_px)
    monkeypatch.setattr("ssvid.layers.omnimatte.inputs.camera_canvas", None)
    same(looked_for, fit_omnimatte(clip, motion, CONFIG, seed=0, camera=camera))


def test_a_fit_that_was_stopped_goes_on_as_if_it_had_not_been(clip, motion):
    kept = []

    def keep(model, losses):
        assert losses == model.losses
        file = io.BytesIO()
        torch.save(model.state(), file)  # plain types and tensors alone
        kept.append(file)

    whole = fit_omnimatte(clip, motion, CONFIG, seed=0, on_step=keep)
    assert len(kept) == 4
    for file in kept[1:]:
        file.seek(0)
        state = torch.load(file, weights_only=True)
        same(whole, fit_omnimatte(clip, motion, CONFIG, seed=0, state=state))


def test_a_state_of_another_fit_is_refused(clip, motion):
    state = fit_omnimatte(clip, motion, CONFIG, seed=0).state()
    brighter = LayerClip(clip.frames_THWC // 2, clip.masks_NTHW, clip.names, 10.0)
    for other in ((clip, CONFIG, 1), (clip, replace(CONFIG, band_px=5), 0), (brighter, CONFIG, 0)):
        with pytest.raises(DataError, match="Give the same again, or begin anew"):
            fit_omnimatte(other[0], motion, other[1], seed=other[2], state=state)
    same_again = fit_omnimatte(clip, motion, CONFIG, seed=0, state=state)
    assert (same_again.state()["canvas"] == state["canvas"]).all()  # it had ended: nothing more is done


def test_one_frame_is_refused(clip, motion):
    one = LayerClip(clip.frames_THWC[:1], clip.masks_NTHW[:, :1], clip.names, 10.0)
    with pytest.raises(DataError, match="has 1 frame"):
        fit_omnimatte(one, motion, CONFIG, seed=0)


def test_an_object_that_hides_everything_is_refused(clip, motion):
    whole = LayerClip(clip.frames_THWC, np.ones_like(clip.masks_NTHW), clip.names, 10.0)
    with pytest.raises(DataError, match="nothing is seen of the background"):
        fit_omnimatte(whole, motion, CONFIG, seed=0)


def test_settings_have_bounds():
    with pytest.raises(RecipeError, match=r"camera .*must be one of auto, static, moving"):
        OmnimatteConfig(camera="handheld")
    with pytest.raises(RecipeError, match="iterations"):
        OmnimatteConfig(iterations=0)


def test_rates_stay_and_then_fall():
    config = OmnimatteConfig(iterations=100, constant_share=0.5, final_rate_times=0.1)
    assert [rate_times(step, config) for step in (0, 25, 50)] == [1, 1, 1]
    assert rate_times(75, config) == pytest.approx(0.55)
    assert rate_times(100, config) == pytest.approx(0.1)
    assert rate_times(3, OmnimatteConfig(iterations=4, constant_share=1.0)) == 1


def test_the_size_of_a_fit():
    assert fit_size(480, 854, 80) == (80, 142)
    assert fit_size(854, 480, 80) == (142, 80)
    assert fit_size(64, 96, 80) == (64, 96)


def test_what_the_network_is_told(clip, motion):
    inputs = fit_inputs(clip, motion, CONFIG, seed=0)
    assert inputs.inputs_NTCHW.shape == (2, 5, 1 + 2 + 4, 32, 48)
    mask = torch.from_numpy(clip.masks_NTHW)
    assert (inputs.inputs_NTCHW[:, :, 0] == mask.float()).all()
    assert (inputs.inputs_NTCHW[:, :, 1:3][~mask[:, :, None].expand(-1, -1, 2, -1, -1)] == 0).all()
    assert (inputs.inputs_NTCHW[0, :, 3:] == inputs.inputs_NTCHW[1, :, 3:]).all()  # a place looks the same to all
    assert (
        inputs.inputs_NTCHW[0, 0, 3:] == inputs.inputs_NTCHW[0, 4, 3:]
    ).all()  # and at all times, where the camera stands
    bare = fit_inputs(clip, motion, OmnimatteConfig(flow=False, noise_channels=0), seed=0)
    assert bare.inputs_NTCHW.shape[2] == 1


def test_the_last_frame_goes_on_as_it_came():
    flow = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    found = onward(ClipMotion(flow, flow + 100, np.ones((2, 3, 4), bool), np.ones((2, 3, 4), bool)))
    assert (found[:2] == flow).all()
    assert (found[2] == -(flow[1] + 100)).all()


def test_what_a_model_gives(clip, motion, scene):
    model = fit_omnimatte(clip, motion, CONFIG, seed=0)
    assert [layer.name for layer in model.layers(32, 48)] == ["other", "walker"]  # that in the back first
    assert model.canvas.shape == (32, 48, 3)
    large = scene.frames()
    for layer in (*model.layers(64, 96), *model.detailed_layers(large)):
        assert layer.rgba_THW4.shape == (5, 64, 96, 4)
    assert model.background_frames(64, 96).shape == (5, 64, 96, 3)
    picture, seen = model.full_canvas(large)
    assert picture.shape == (64, 96, 3) and seen.shape == (64, 96)
    assert model.without("walker", large).shape == large.shape


def test_who_is_not_there_cannot_go(clip, motion, scene):
    model = fit_omnimatte(clip, motion, CONFIG, seed=0)
    with pytest.raises(DataError, match=r"there is no layer 'wolker'. Did you mean 'walker'"):
        model.without("wolker", scene.frames())


def test_what_is_no_layer_is_not_touched(clip, motion, scene):
    model = fit_omnimatte(clip, motion, CONFIG, seed=0)
    small_alpha = np.zeros((2, 5, 32, 48, 4), np.float32)
    small_alpha[..., 3][clip.masks_NTHW] = 1
    model.raw_layers = lambda: small_alpha  # as a perfect fit of objects without effects would have it
    frames = scene.frames()
    removed = model.without("walker", frames)
    away = np.ones((5, 64, 96), bool)
    away[:, :36] = False
    assert (removed[away] == frames[away]).all()
    rebuilt = composite(model.full_background(frames), model.detailed_layers(frames))
    opaque = np.stack([layer.rgba_THW4[..., 3] == 255 for layer in model.detailed_layers(frames)]).any(axis=0)
    assert opaque.any()
    assert np.abs(rebuilt.astype(int) - frames)[opaque].max() <= 1  # details make the reconstruction exact


def test_a_footprint_is_where_a_layer_changes_the_picture(clip, motion):
    model = fit_omnimatte(clip, motion, CONFIG, seed=0)
    behind = model.background_frames(32, 48).astype(np.float32) / 255
    layers = np.zeros((2, 5, 32, 48, 4), np.float32)
    layers[..., :3] = behind
    layers[..., 3] = 0.3  # in the color of the ground
    layers[1, 0, ..., :3], layers[1, 0, ..., 3] = 0, 0.2  # a haze
    layers[0, 2, 28:30, 5:9, :3] = 0  # a shadow
    model.raw_layers = lambda: layers
    expected = clip.masks_NTHW.copy()
    expected[0, 2, 28:30, 5:9] = True
    assert (model.footprints() == grown(expected, 2)).all()
