"""Cuts among steady and fast motion, by hand and in rendered scenes."""

import numpy as np
import pytest

from ssvid.apps.shots import shot_starts
from ssvid.apps.speedup import with_every_shot
from ssvid.video.synthetic import draw_scene, render
from ssvid.video.synthetic_motions import MOTIONS

KINDS = MOTIONS[:6]


def changes_of(frames_THWC: np.ndarray) -> np.ndarray:
    steps_T = np.abs(np.diff(frames_THWC.astype(float), axis=0)).mean(axis=(1, 2, 3))
    return np.concatenate([[0.0], steps_T])


def test_one_large_difference_among_small_ones_is_a_cut():
    assert shot_starts(np.array([0, 2, 3, 40, *[2] * 8, 60.0])).tolist() == [0, 3, 12]


@pytest.mark.parametrize(
    "changes", [[0.0], [0, 50.0, 50, 50], [0, 2, 14, 2.0, 2], [0, 20, 21, 39, 20, 20.0], [0, 0, 0.0]]
)
def test_fast_motion_small_jumps_and_a_still_video_are_none(changes):
    assert shot_starts(np.array(changes)).tolist() == [0]


def test_dropped_frames_are_none():
    assert shot_starts(np.array([0, *[5, 5, 35.0] * 10])).tolist() == [0]


def test_a_cut_out_of_stillness_has_no_neighbors_to_exceed():
    assert shot_starts(np.array([0, 0, 30, 0, 0.0])).tolist() == [0, 2]


def test_scenes_one_after_the_other_are_found_where_they_meet():
    times = np.arange(12) / 25
    scenes = [render(draw_scene(kind, (seed,), 48), times).frames_THWC for seed, kind in enumerate(KINDS)]
    assert shot_starts(changes_of(np.concatenate(scenes))).tolist() == [12 * k for k in range(len(KINDS))]
    assert all(shot_starts(changes_of(scene)).tolist() == [0] for scene in scenes)


def test_a_shot_that_would_be_passed_over_takes_a_frame_from_the_longest():
    frames, shots = np.array([0, 10, 20, 30, 40, 99]), np.array([0, 50, 60])
    found = with_every_shot(frames, shots, 100)
    assert found.tolist() == [0, 16, 33, 49, 54, 99]


def test_as_many_frames_as_shots_are_one_of_each():
    shots = np.array([0, 30, 31, 70])
    found = with_every_shot(np.array([0, 33, 66, 99]), shots, 100)
    assert found.tolist() == [0, 30, 50, 99]


def test_a_film_that_shows_every_shot_is_left_as_it_is():
    frames = np.array([0, 4, 50, 77, 99])
    assert np.array_equal(with_every_shot(frames, np.array([0, 50]), 100), frames)
