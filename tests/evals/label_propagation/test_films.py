"""Films: read back by the project's own reader; pairs and choices by hand."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.evals.label_propagation.drawing import CAPTION_PX, COLORS
from ssvid.evals.label_propagation.films import (
    beside_truth,
    worth_a_look,
    write_film,
)
from ssvid.video import open_video


def gray(value, height=40, width=60):
    return np.full((height, width, 3), value, np.uint8)


def test_a_film_of_odd_sides_is_a_pixel_larger_and_plays_at_its_rate(tmp_path):
    written = write_film(tmp_path / "a.mp4", (gray(30 * i, 33, 47) for i in range(5)), 12.5)
    with open_video(tmp_path / "a.mp4") as reader:
        assert written == reader.info.num_frames == 5
        assert (reader.info.height, reader.info.width, reader.info.fps) == (34, 48, pytest.approx(12.5))
        frames = reader.frames_at(np.arange(5)).numpy()
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 30, 60, 90, 120], atol=3)


def test_a_film_without_pictures_is_none(tmp_path):
    with pytest.raises(DataError, match="no frames"):
        write_film(tmp_path / "a.mp4", iter(()), 25)
    assert not list(tmp_path.iterdir())


def test_what_was_found_stands_beside_the_truth():
    found, true = np.zeros((200, 300), np.uint8), np.zeros((200, 300), np.uint8)
    found[50:150, 25:125], true[50:150, 175:275] = 1, 1
    frame = gray(120, 200, 300)
    first, second = beside_truth([frame] * 2, [found, found], [true, None])
    assert first.shape == (200 + CAPTION_PX, 2 * 300 + 4, 3) == second.shape
    left, right = first[CAPTION_PX:, :300], first[CAPTION_PX:, 304:]
    assert tuple(left[75, 25]) == COLORS[0] and tuple(right[75, 175]) == COLORS[0]
    assert (left[75, 200] == 120).all() and (right[75, 75] == 120).all()
    assert (second[CAPTION_PX:, 304:] == 120).all(), "no truth, and the frame as it is"


def test_a_tiny_video_is_shown_five_times_as_large():
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 5:25] = 1
    (pair,) = beside_truth([gray(120)], [labels], [labels])
    assert pair.shape == (200 + CAPTION_PX, 604, 3)
    line = pair[CAPTION_PX + 100, :300]
    assert np.flatnonzero((line == COLORS[0]).all(axis=1)).tolist() == [25, 124]


def test_a_large_video_is_made_small_before_it_is_drawn_on():
    labels = np.zeros((800, 1200), np.uint8)
    labels[200:600, 300:900] = 2
    (pair,) = beside_truth([gray(120, 800, 1200)], [labels], [labels], most_px=300)
    assert pair.shape == (200 + CAPTION_PX, 604, 3)
    line = pair[CAPTION_PX + 100, :300]
    is_contour = (line == COLORS[1]).all(axis=1)
    assert is_contour.sum() == 2, "contours one pixel wide, one on each side"


def test_the_best_the_median_and_the_worst_are_worth_a_look():
    scores = {"swan": 0.9, "car": 0.2, "dog": 0.5, "bus": 0.5, "cat": 0.4}
    assert worth_a_look(scores) == {"best": "swan", "worst": "car", "median": "dog"}
    assert worth_a_look({"swan": 0.9, "car": 0.2}) == {"best": "swan", "worst": "car"}
    assert worth_a_look({"swan": 0.9}) == {"best": "swan"}
    assert worth_a_look({}) == {}
