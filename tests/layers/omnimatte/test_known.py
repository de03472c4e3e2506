"""Watching fits of scenes whose layers are known: curves, orders, and what figures stand beside."""

from functools import partial

import numpy as np
import pytest

from ssvid.layers.motion import measure_motion
from ssvid.layers.omnimatte import known as known_scenes
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.fitting import fit_omnimatte
from ssvid.layers.omnimatte.known import (
    ABLATION,
    EFFECTS,
    LEARNING,
    LESS_IS_BETTER,
    SHOWS,
    Learned,
    ablated,
    filmed,
    known_figures,
    learned,
)
from ssvid.layers.omnimatte.measures import explained, mean_alpha
from ssvid.video.synthetic_effects import followers as whole_followers
from ssvid.video.synthetic_effects import to_bytes
from ssvid.video.synthetic_effects import walkers as whole_walkers

walkers, followers = (partial(scene, num_frames=6) for scene in (whole_walkers, whole_followers))


@pytest.fixture(scope="module", autouse=True)
def _short_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_scenes, "walkers", walkers)
        patch.setattr(known_scenes, "followers", followers)
        yield


@pytest.fixture(scope="module")
def line(_short_scenes):
    steps = []
    return ablated("no sparsity", 0, iterations=3, every=2, on_step=steps.append), steps


def test_every_ablation_leaves_out_one_thing_and_has_a_figure(line):
    assert ABLATION["complete"] == LEARNING["complete"] == OmnimatteConfig()
    assert set(SHOWS) == set(ABLATION) - {"complete"}
    configs = [ABLATION[name] for name in ABLATION]
    assert all(one not in configs[:n] for n, one in enumerate(configs))
    figures = set(line[0].figures)
    assert {figure for figure, _, _ in SHOWS.values()} | set(LESS_IS_BETTER) <= figures


def test_an_ablation_is_watched(line):
    found, steps = line
    assert steps == [1, 2, 3]
    assert found.steps == (2, 3)
    alphas_NTHW = found.model.raw_layers()[..., 3]
    scene = walkers(0)
    for n, name in enumerate(scene.names):
        mine, others = (scene.effect_mask(scene.names[k], "shadow") for k in (n, 1 - n))
        assert found.own[name][-1] == pytest.approx(mean_alpha(alphas_NTHW[n], mine))
        assert found.other[name][-1] == pytest.approx(mean_alpha(alphas_NTHW[n], others))
    assert found.figures["alpha in its own shadow"] == pytest.approx(min(own[-1] for own in found.own.values()))
    assert found.figures["alpha in the other's shadow"] == pytest.approx(
        max(other[-1] for other in found.other.values())
    )


def test_what_takes_no_model_does_not_hang_on_the_model(line):
    scene = walkers(0)
    clip = filmed(scene)
    other = fit_omnimatte(clip, measure_motion(clip.frames_THWC), OmnimatteConfig(iterations=1), seed=5)
    figures = known_figures(other, scene, clip)
    for name in ("video untouched, dB", "mask alone replaced by the truth, dB", "IoU of the mask alone"):
        assert figures[name] == line[0].figures[name]
    assert figures["reconstruction, dB"] != line[0].figures["reconstruction, dB"]


def test_learning_is_watched():
    found = learned("mask alone as input", 0, iterations=3, every=2)
    assert found.steps == (2, 3)
    assert list(found.shares) == list(EFFECTS) and all(len(shares) == 2 for shares in found.shares.values())
    scene = followers(0)
    middle = scene.num_frames // 2
    assert np.array_equal(found.frame_HWC, scene.frames()[middle])
    clean, frames = to_bytes(scene.background()), scene.frames()
    region = scene.effect_mask("walker", "near")
    assert explained(frames, frames, clean, region) == pytest.approx(1)
    assert found.pictures_NHWC.shape == (2, *found.frame_HWC.shape)


def test_halves_are_read_off_the_curves():
    none = np.zeros((3, 2, 2, 3), np.uint8)
    shares = {"near": (0.6, 0.9, 1.0), "far": (0.1, 0.5, 0.4), "own": (0.0, 0.1, 0.49)}
    assert Learned("complete", (25, 50, 75), shares, none, none[0]).halves == {"near": 25, "far": 50, "own": None}
