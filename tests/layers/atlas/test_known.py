"""Figures of a scene that is known, where they can be told beforehand; the ablation and its curves."""

import numpy as np
import pytest

from ssvid.layers.atlas import PUBLISHED, AtlasModel
from ssvid.layers.atlas import known as known_scenes
from ssvid.layers.atlas.known import (
    ABLATION,
    LECTURE_PSNR,
    SHOWS,
    ablated,
    edit_figures,
    known_figures,
    scene_of_ablation,
    track_figures,
)
from ssvid.video.synthetic_layers import draw_layered_scene
from tests.layers.atlas.conftest import H, T, W


def test_mappings_that_follow_the_truth_make_no_error(begun, scene, known):
    figures = known_figures(begun, scene, known)
    assert figures["track_fg_p95"] < 0.2 and figures["track_background_p95"] < 0.2
    assert figures["track_worst"] == max(figures["track_fg"], figures["track_background"])
    assert figures["edit_fg_max"] < 0.5 and figures["edit_background_max"] < 0.5
    assert figures["edit_fg_frames"] == T
    assert figures["alpha_iou"] == 1
    assert figures["folded"] == 0
    assert figures["stretch"] < 0.1


def test_a_mapping_that_stands_still_is_found_out(begun, scene, known):
    still = AtlasModel.from_state(begun.state())
    for mapping in still.network.mappings:
        mapping.chain_T23[:] = mapping.chain_T23[T // 2]
    assert track_figures(still, scene, known, 0)["track_fg"] > 2
    assert edit_figures(still, scene, known, 0)["edit_fg_max"] > 2


def test_every_ablation_leaves_out_one_thing_and_has_a_figure():
    assert ABLATION["complete"] is PUBLISHED
    assert set(SHOWS) == set(ABLATION) - {"complete"}
    assert set(LECTURE_PSNR) <= set(ABLATION)
    assert all(config != PUBLISHED for name, config in ABLATION.items() if name != "complete")


def test_an_ablation_is_watched(monkeypatch):
    steps = []
    monkeypatch.setattr(
        known_scenes, "scene_of_ablation", lambda seed: draw_layered_scene(seed, height=H, width=W, num_frames=T)
    )
    found = ablated("no flow", 0, iterations=5, every=2, on_step=steps.append)
    assert steps == [1, 2, 3, 4, 5]
    assert found.steps == (2, 4, 5)
    assert len(found.psnr) == len(found.track_px) == 3
    assert found.model.step == 5
    assert found.track_px[-1] == pytest.approx(found.figures["track_worst"])


def test_in_the_scene_of_the_ablation_a_body_goes_farther_than_its_colors_are_alike():
    scene = scene_of_ablation(0)
    moved_px = np.linalg.norm(scene.to_frame(0, np.zeros((1, 2)), 1) - scene.to_frame(0, np.zeros((1, 2)), 0))
    places_N2 = np.stack(np.meshgrid(*2 * [np.arange(-15.0, 15.0)]), axis=-1).reshape(-1, 2)
    here, there = (scene.color(0, places_N2 + np.array([shift, 0.0])).mean(axis=1) for shift in (0.0, moved_px))
    assert 4.5 < moved_px < 6
    assert np.corrcoef(here, there)[0, 1] < 0.5
