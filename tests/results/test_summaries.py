"""Folds and seeds as one number: hand-computed means and spreads, and intervals that know shared videos."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.intervals import share_interval
from ssvid.results.rows import ResultRow
from ssvid.results.summaries import summarize, summarize_difference


def row(correct, *, fold=0, seed=0, name="pretrained", prefix="v", chance=0.5, groups=None):
    correct = np.array(correct, dtype=bool)
    ids = tuple(f"{prefix}{i}" for i in range(len(correct)))
    return ResultRow.counted(name, "probe_top1", correct, chance, ids, groups or ids, {"fold": fold, "seed": seed})


def test_a_single_run_has_no_summary():
    assert summarize([row([1, 0, 1])]) == []


def test_mean_and_spread_are_those_of_a_hand_computation():
    rows = [
        row([1, 1, 0, 0], fold=1, seed=0, prefix="a"),
        row([1, 1, 1, 0], fold=1, seed=1, prefix="a"),
        row([1, 0], fold=2, seed=0, prefix="b"),
        row([0, 0], fold=2, seed=1, prefix="b", chance=0.7),
    ]
    (found,) = summarize(rows)
    # folds: (0.5 + 0.75) / 2 = 0.625 and (0.5 + 0) / 2 = 0.25; seeds: 0.5 and 0.375
    assert found.value == pytest.approx((0.625 + 0.25) / 2)
    assert found.over_folds == pytest.approx(np.std([0.625, 0.25], ddof=1))
    assert found.over_seeds == pytest.approx(np.std([0.5, 0.375], ddof=1))
    assert found.values == {1: {0: 0.5, 1: 0.75}, 2: {0: 0.5, 1: 0.0}}
    assert found.chance == pytest.approx(0.55)
    assert found.num_videos == 6


def test_seeds_on_the_same_videos_narrow_nothing_by_themselves():
    """Ten seeds that say the same of each video know no more of the choice of videos than one."""
    correct = np.random.default_rng(0).random(200) < 0.6
    (found,) = summarize([row(correct, seed=s) for s in range(10)])
    low, high = share_interval(correct)
    assert found.interval == pytest.approx((low, high))
    assert found.over_seeds == 0.0


def test_disjoint_folds_narrow_it_by_their_root():
    rng = np.random.default_rng(1)
    rows = [row(rng.random(300) < 0.5, fold=f, prefix=f"fold{f}/") for f in (1, 2, 3)]
    (found,) = summarize(rows)
    one = np.mean([np.subtract(*share_interval(r.correct_N)[::-1]) for r in rows])
    assert found.interval[1] - found.interval[0] == pytest.approx(one / np.sqrt(3), rel=0.1)


def test_folds_that_share_videos_are_told_from_disjoint_ones():
    correct = np.random.default_rng(2).random(300) < 0.5
    (shared,) = summarize([row(correct, fold=f) for f in (1, 2, 3)])
    (apart,) = summarize([row(correct, fold=f, prefix=f"{f}/") for f in (1, 2, 3)])
    width = [s.interval[1] - s.interval[0] for s in (shared, apart)]
    assert width[0] == pytest.approx(width[1] * np.sqrt(3), rel=0.1)


def test_a_difference_is_paired():
    """Two networks that are right on the same hard videos differ surely, however wide each one's own interval is."""
    base = np.random.default_rng(3).random(400) < 0.5
    better = base | (np.arange(400) % 10 == 0)
    rows = [r for s in (0, 1) for r in (row(better, seed=s), row(base, seed=s, name="random"))]
    found = summarize_difference(rows, "pretrained", "random", "probe_top1")
    assert found.value == pytest.approx((better & ~base).mean())
    assert found.interval[0] > 0
    own = summarize(rows)[0].interval
    assert found.interval[1] - found.interval[0] < 0.6 * (own[1] - own[0])


def test_groups_are_kept_together_over_folds_and_seeds():
    correct = np.repeat(np.random.default_rng(4).random(20) < 0.5, 5)
    groups = [f"g{i // 5}" for i in range(100)]
    (grouped,) = summarize([row(correct, seed=s, groups=groups) for s in (0, 1)])
    (apart,) = summarize([row(correct, seed=s) for s in (0, 1)])
    assert (grouped.num_groups, apart.num_groups) == (20, 100)
    assert np.diff(grouped.interval)[0] > 1.8 * np.diff(apart.interval)[0]
    other = [row(~correct, seed=s, groups=groups, name="random") for s in (0, 1)]
    rows = [row(correct, seed=s, groups=groups) for s in (0, 1)] + other
    assert summarize_difference(rows, "pretrained", "random", "probe_top1").num_groups == 20


def test_what_never_differed_may_still_differ():
    rows = [row([1] * 90, seed=s, name=name) for s in (0, 1) for name in ("pretrained", "random")]
    found = summarize_difference(rows, "pretrained", "random", "probe_top1")
    assert found.value == 0 and found.interval == pytest.approx((-0.0402, 0.0402), abs=1e-4)
    assert summarize(rows)[0].interval == pytest.approx((0.9598, 1.0), abs=1e-4)


def test_a_missing_run_is_refused():
    rows = [row([1, 0], fold=1, seed=0), row([1, 0], fold=1, seed=1), row([1, 0], fold=2, seed=0)]
    with pytest.raises(DataError, match=r"folds \[1, 2\] must be there once for each of the seeds \[0, 1\]"):
        summarize(rows)
    with pytest.raises(DataError, match="same videos, folds and seeds"):
        summarize_difference([rows[0], row([1], name="random", fold=1)], "pretrained", "random", "probe_top1")
