"""TAP-Vid's metrics: what perfect and shifted points score, and plain loops."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.evals.label_propagation.tapvid import (
    TAPVID_THRESHOLDS_PX,
    at_scored_size,
    make_queries,
    mean_scores,
    scored_points,
    tapvid_metrics,
)


def tracks(seed: int = 0, num_frames: int = 12, num_tracks: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 1024, (num_frames, num_tracks, 2)) / 4  # quarters of pixels: differences are exact
    visible = rng.random((num_frames, num_tracks)) < 0.6
    points[~visible & (rng.random(visible.shape) < 0.3)] = np.nan
    return points, visible


def asked(mode: str, seed: int = 0):
    points, visible = tracks(seed)
    queries = make_queries(points, visible, mode)
    return points[:, queries.tracks_Q], visible[:, queries.tracks_Q], queries.places_Q3[:, 0]


# ---- queries


def test_each_track_is_asked_for_once_where_it_is_first_seen():
    visible = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=bool)
    points = np.arange(18.0).reshape(3, 3, 2)
    queries = make_queries(points, visible, "first")
    assert queries.tracks_Q.tolist() == [0, 1]  # track 2 is never seen
    assert queries.places_Q3.tolist() == [[1, points[1, 0, 1], points[1, 0, 0]], [0, points[0, 1, 1], points[0, 1, 0]]]


def test_every_fifth_frame_asks_for_all_that_is_seen_in_it():
    points, visible = tracks()
    queries = make_queries(points, visible, "strided")
    expected = [(t, q) for t in (0, 5, 10) for q in range(7) if visible[t, q]]
    assert len(expected) > 7
    assert [(int(t), q) for t, q in zip(queries.places_Q3[:, 0], queries.tracks_Q, strict=True)] == expected
    for (t, y, x), q in zip(queries.places_Q3, queries.tracks_Q, strict=True):
        assert points[int(t), q].tolist() == [x, y]


def test_what_counts():
    assert scored_points(np.array([0.0, 2.0]), 4, "first").T.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert scored_points(np.array([0.0, 2.0]), 4, "strided").T.tolist() == [[0, 1, 1, 1], [1, 1, 0, 1]]


def test_points_at_the_size_that_is_scored():
    assert at_scored_size(np.array([[[854.0, 240.0]]]), 480, 854).tolist() == [[[256.0, 128.0]]]


# ---- metrics


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_perfect_is_one(mode):
    points, visible, frames = asked(mode)
    scores = tapvid_metrics(points, visible, np.nan_to_num(points), visible, frames, mode)
    assert scores[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("mode", ["first", "strided"])
@pytest.mark.parametrize(("shift", "passed"), [(0.99, 5), (1.0, 4), (3.0, 3), (15.9, 1), (16.0, 0)])
def test_a_shift_passes_the_thresholds_above_it(mode, shift, passed):
    points, visible, frames = asked(mode)
    scores = tapvid_metrics(points, visible, points + np.array([0.0, shift]), visible, frames, mode)
    assert scores.delta == pytest.approx(passed / 5)
    assert scores.oa == 1.0
    # All visible points are found visible: a miss is a false positive beside a truth, so that J is n / (n + 0) or 0 / 2n.
    assert scores.aj == pytest.approx(passed / 5)
    assert scores.delta_D.tolist() == [0.0] * (5 - passed) + [1.0] * passed


def test_always_visible_is_right_as_often_as_points_are_visible():
    points, visible, frames = asked("first")
    scores = tapvid_metrics(points, visible, np.nan_to_num(points), np.ones_like(visible), frames, "first")
    counted = scored_points(frames, len(points), "first")
    share = visible[counted].mean()
    assert 0.2 < share < 0.9
    assert scores.oa == pytest.approx(share)
    assert scores.delta == 1.0
    assert scores.aj == pytest.approx(share)  # hits / (visible + occluded)
    never = tapvid_metrics(points, visible, points, np.zeros_like(visible), frames, "first")
    assert never[:3] == (1.0, pytest.approx(1 - share), 0.0)


def plain(points, visible, found, found_visible, frames, mode):
    """Point by point, from the definitions."""
    deltas, jaccards, right, total = [], [], 0, 0
    for threshold in TAPVID_THRESHOLDS_PX:
        near = seen = hits = false = missed = right = total = 0
        for t in range(points.shape[0]):
            for q in range(points.shape[1]):
                if t == frames[q] or (mode == "first" and t < frames[q]):
                    continue
                total += 1
                right += visible[t, q] == found_visible[t, q]
                is_near = visible[t, q] and np.hypot(*(points[t, q] - found[t, q])) < threshold
                seen += visible[t, q]
                near += is_near
                hit = is_near and found_visible[t, q]
                hits += hit
                false += found_visible[t, q] and not hit
                missed += visible[t, q] and not hit
        deltas.append(near / seen)
        jaccards.append(hits / (hits + false + missed))
    return np.mean(deltas), right / total, np.mean(jaccards), deltas, jaccards


@pytest.mark.parametrize("mode", ["first", "strided"])
@pytest.mark.parametrize("seed", range(4))
def test_the_metrics_are_those_of_plain_loops(mode, seed):
    points, visible, frames = asked(mode, seed)
    rng = np.random.default_rng(seed)
    found = np.nan_to_num(points) + rng.normal(0, 5, points.shape)
    found_visible = visible ^ (rng.random(visible.shape) < 0.2)
    scores = tapvid_metrics(points, visible, found, found_visible, frames, mode)
    delta, oa, aj, deltas, jaccards = plain(points, visible, found, found_visible, frames, mode)
    assert scores[:3] == pytest.approx((delta, oa, aj), abs=1e-12)
    assert scores.delta_D == pytest.approx(deltas, abs=1e-12)
    assert scores.jaccard_D == pytest.approx(jaccards, abs=1e-12)
    assert 0 < scores.aj < scores.delta < 1


def test_frames_before_the_query_do_not_count_when_it_is_the_first():
    points, visible, frames = asked("first")
    early = np.arange(len(points))[:, None] <= frames
    assert early.sum() > len(frames)
    found, wrong = np.nan_to_num(points), visible.copy()
    found[early] = -1000
    wrong[early] ^= True
    assert tapvid_metrics(points, visible, found, wrong, frames, "first")[:3] == (1.0, 1.0, 1.0)


def test_videos_count_the_same_however_many_points_they_have():
    first, second = (
        tapvid_metrics(*(a[:, :n] for a in (points, visible, points + 3.0, visible)), frames[:n], "first")
        for (points, visible, frames), n in ((asked("first", 0), 2), (asked("first", 1), 7))
    )
    assert mean_scores([first, second]).delta == pytest.approx((first.delta + second.delta) / 2)
    hidden = np.zeros((4, 1), dtype=bool)
    hidden[0] = True  # seen at the query alone
    nothing = tapvid_metrics(np.zeros((4, 1, 2)), hidden, np.zeros((4, 1, 2)), hidden, np.zeros(1), "first")
    assert np.isnan(nothing.delta) and np.isnan(nothing.aj) and nothing.oa == 1.0
    assert mean_scores([first, nothing]).delta == first.delta
    assert mean_scores([first, nothing]).oa == (first.oa + 1.0) / 2
    with pytest.raises(DataError, match="no video"):
        mean_scores([nothing])


def test_wrong_input_is_told():
    points, visible, frames = asked("first")
    with pytest.raises(DataError, match="must be one of first, strided"):
        make_queries(points, visible, "last")
    with pytest.raises(DataError, match="no point is visible in a frame that queries"):
        make_queries(points, np.zeros_like(visible), "first")
    with pytest.raises(DataError, match="do not fit"):
        tapvid_metrics(points, visible, points[:, 1:], visible, frames, "first")
    with pytest.raises(DataError, match="do not fit"):
        tapvid_metrics(points, visible, points, visible, frames[1:], "first")
    with pytest.raises(DataError, match="visible and has no place"):
        tapvid_metrics(points * np.nan, visible, points, visible, frames, "first")
