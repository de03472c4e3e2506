"""The bootstrap draws videos, not clips, and draws alike for both sides of a difference."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryAUROC

from ssvid.audits.intervals import Resampler, draw_videos


def test_a_draw_takes_a_video_with_all_its_clips():
    videos = np.array([5, 5, 5, 9, 9, 2])
    values = torch.tensor([1.0, 0.0, 1.0, 0.5, 0.5, 0.0])
    resampler = Resampler(videos, num_draws=40, seed=3)
    estimate = resampler.estimate((values,))
    assert estimate.value == pytest.approx(0.5)
    draws = draw_videos(3, 40, 3)
    assert (draws.sum(axis=1) == 3).all()
    clips_of = {0: [5], 1: [0, 1, 2], 2: [3, 4]}  # videos in the order of their numbers: 2, 5, 9
    for row, got in zip(draws, estimate.draws_R, strict=True):
        drawn = [float(values[clip]) for video in range(3) for _ in range(row[video]) for clip in clips_of[video]]
        assert got == pytest.approx(np.mean(drawn))


def test_equal_clips_of_one_video_make_nothing_surer():
    rng = np.random.default_rng(0)
    per_video = torch.from_numpy(rng.random(50))
    one = Resampler(np.arange(50)).estimate((per_video,)).interval()
    many = Resampler(np.repeat(np.arange(50), 20)).estimate((per_video.repeat_interleave(20),)).interval()
    assert many == pytest.approx(one)


def test_the_interval_of_a_mean_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        resampler = Resampler(np.arange(60), num_draws=400)
        low, high = resampler.estimate((torch.from_numpy((rng.random(60) < 0.7).astype(np.float64)),)).interval()
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_paired_difference_is_surer_than_its_sides():
    rng = np.random.default_rng(2)
    hard = rng.random(300)
    clean = torch.from_numpy((hard < 0.8).astype(np.float64))
    changed = torch.from_numpy((hard < 0.7).astype(np.float64))
    resampler = Resampler(np.arange(300))
    a, b = resampler.estimate((clean,)), resampler.estimate((changed,))
    difference = b.minus(a)
    assert difference.value == pytest.approx(float(changed.mean() - clean.mean()))
    width = np.diff(difference.interval())[0]
    assert width < np.diff(a.interval())[0]
    assert resampler.estimate((clean,)).minus(a).interval() == (0.0, 0.0)
    narrow, wide = difference.interval(0.5), difference.interval(0.999)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_metric_of_the_whole_epoch_is_computed_anew_in_every_draw():
    rng = np.random.default_rng(4)
    videos = np.repeat(np.arange(12), 2)
    labels = torch.from_numpy(rng.integers(0, 2, (24, 2)))
    scores = torch.from_numpy(rng.normal(0, 1, (24, 2))) + labels
    estimate = Resampler(videos, epoch_metric=BinaryAUROC, num_draws=20, seed=5).estimate((scores, labels))

    def auc(clips):
        s, y = scores[clips].flatten().tolist(), labels[clips].flatten().tolist()
        wins = [
            (a > b) + 0.5 * (a == b) for a, p in zip(s, y, strict=True) if p for b, n in zip(s, y, strict=True) if not n
        ]
        return sum(wins) / len(wins)

    assert estimate.value == pytest.approx(auc(list(range(24))), abs=1e-5)
    for row, got in zip(draw_videos(12, 20, 5), estimate.draws_R, strict=True):
        clips = [clip for video in range(12) for _ in range(row[video]) for clip in (2 * video, 2 * video + 1)]
        assert got == pytest.approx(auc(clips), abs=1e-5)
