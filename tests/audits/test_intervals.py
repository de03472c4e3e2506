"""Audited intervals are over videos and their groups, not over clips, and differences are paired."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryAUROC

from ssvid.audits.intervals import Resampler
from ssvid.intervals import exact_interval


def test_a_video_counts_with_all_its_clips():
    """Ten videos, each right or wrong in all its clips, are ten trials."""
    estimate = Resampler(np.repeat(np.arange(10), 7)).estimate((torch.tensor([1.0] * 42 + [0.0] * 28),))
    assert estimate.value == pytest.approx(0.6)
    low, high = estimate.interval()
    assert (low, high) == pytest.approx(exact_interval(0.6, 10), abs=1e-9)


def test_videos_of_one_group_count_as_one():
    values = torch.tensor([1.0] * 12 + [0.0] * 8).repeat_interleave(3)
    videos = np.repeat(np.arange(20), 3)
    groups = [f"g{i // 4}" for i in range(20)]
    alone, grouped = Resampler(videos), Resampler(videos, groups=groups)
    assert (grouped.num_videos, grouped.num_groups, alone.num_groups) == (20, 5, 20)
    widths = [np.diff(r.estimate((values,)).interval())[0] for r in (alone, grouped)]
    assert widths[1] > 1.7 * widths[0]


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
        resampler = Resampler(np.arange(60))
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
    low, high = resampler.estimate((clean,)).minus(a).interval()
    assert low == -high and -0.02 < low < -0.01  # three in 300
    narrow, wide = difference.interval(0.5), difference.interval(0.999)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def auc_of(scores, labels):
    pairs = [
        (a, b) for a, p in zip(scores, labels, strict=True) if p for b, n in zip(scores, labels, strict=True) if not n
    ]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_a_metric_of_the_whole_epoch_is_taken_apart_by_leaving_videos_out():
    rng = np.random.default_rng(4)
    videos = np.repeat(np.arange(12), 2)
    labels = torch.from_numpy(rng.integers(0, 2, (24, 2)))
    scores = torch.from_numpy(rng.normal(0, 1, (24, 2))) + labels
    estimate = Resampler(videos, epoch_metric=BinaryAUROC).estimate((scores, labels))
    without = [
        auc_of(scores[videos != v].flatten().tolist(), labels[videos != v].flatten().tolist()) for v in range(12)
    ]
    assert estimate.value == pytest.approx(auc_of(scores.flatten().tolist(), labels.flatten().tolist()), abs=1e-5)
    assert estimate.parts_P == pytest.approx(estimate.value + 11 * (np.mean(without) - np.array(without)), abs=1e-4)
    low, high = estimate.interval()
    assert low < estimate.value < high


def test_an_area_of_one_is_not_sure_and_two_of_them_may_differ():
    labels = torch.tensor([0, 1] * 30)[:, None]
    scores = labels + 0.1 * torch.rand(60, 1, generator=torch.Generator().manual_seed(0))
    resampler = Resampler(np.arange(60), epoch_metric=BinaryAUROC)
    perfect = resampler.estimate((scores, labels))
    assert perfect.value == 1.0
    low, high = perfect.interval()
    assert 0.9 < low < 0.96 and high == 1.0
    low, high = resampler.estimate((scores * 2, labels)).minus(perfect).interval()
    assert low == pytest.approx(-high) and -0.05 < low < -0.01


def test_the_interval_of_an_area_covers_as_often_as_it_says():
    """Two normal distributions a deviation apart: the area is Phi(1 / sqrt(2))."""
    rng, covered = np.random.default_rng(5), 0
    for _ in range(60):
        labels = torch.from_numpy(rng.integers(0, 2, (40, 1)))
        scores = torch.from_numpy(rng.normal(0, 1, (40, 1))) + labels
        low, high = Resampler(np.arange(40), epoch_metric=BinaryAUROC).estimate((scores, labels)).interval()
        covered += low <= 0.7602 <= high
    assert covered >= 53


def test_errors_of_any_size_have_an_interval_too():
    rng = np.random.default_rng(6)
    clean, changed = (torch.from_numpy(rng.exponential(scale, 200)) for scale in (2.0, 3.0))
    resampler = Resampler(np.arange(200))
    low, high = resampler.estimate((clean,)).interval()
    assert 1.5 < low < float(clean.mean()) < high < 2.7
    difference = resampler.estimate((changed,)).minus(resampler.estimate((clean,)))
    assert difference.interval()[0] < 1.0 < difference.interval()[1]
