"""Batches are pure functions of (seed, epoch, step): whatever the ranks, micro-batches and restarts."""

import numpy as np
import pytest

from ssvid.data.feed.sampler import BatchLayout, EvalBatches, TrainBatches, epoch_order
from ssvid.errors import DataError
from ssvid.types import Stream, Ticket, batch_rng, sample_rng


def batches(num=37, global_batch=8, *, world=1, rank=0, accumulate=1, clips=1, seed=3, at=(0, 0)):
    layout = BatchLayout(global_batch, world, accumulate, clips)
    return TrainBatches(num, layout, seed=seed, rank=rank, position=lambda: at)


def flat(groups):
    return [ticket for group in groups for ticket in group]


def test_one_process_visits_a_permutation_cut_into_global_batches():
    got = [[t.index for t in flat(groups)] for groups in batches()]
    order = list(np.random.default_rng([3, 0, 0]).permutation(37))
    assert got == [order[i * 8 : i * 8 + 8] for i in range(4)]


@pytest.mark.parametrize(("world", "accumulate", "clips"), [(2, 1, 1), (1, 2, 1), (2, 2, 1), (4, 1, 2), (2, 2, 2)])
def test_ranks_and_micro_batches_together_are_the_single_process_batch(world, accumulate, clips):
    reference = [sorted(flat(g)) for g in batches(clips=clips)]
    per_rank = [list(batches(world=world, rank=r, accumulate=accumulate, clips=clips)) for r in range(world)]
    for step, expected in enumerate(reference):
        micro = [rank[step * accumulate + a] for rank in per_rank for a in range(accumulate)]
        assert len({len(flat(m)) for m in micro}) == 1
        assert sorted(t for m in micro for t in flat(m)) == expected
        assert all(t.step == step for m in micro for t in flat(m))


def test_clips_of_one_video_stay_in_one_group_and_differ_only_in_clip():
    for groups in batches(clips=4):
        for group in groups:
            assert [t.clip for t in group] == [0, 1, 2, 3]
            assert len({t.index for t in group}) == 1


@pytest.mark.parametrize("done", range(9))
def test_a_start_in_mid_epoch_continues_the_same_sequence(done):
    whole = list(batches(accumulate=2)) + list(batches(accumulate=2, at=(1, 0)))
    resumed = list(batches(accumulate=2, at=(0, done)))
    assert resumed == (whole[done:8] if done < 8 else whole[8:])


def test_the_length_is_always_that_of_the_full_epoch():
    assert len(batches(at=(0, 3))) == 4 == len(batches())


def test_epochs_and_seeds_and_streams_have_different_orders():
    orders = [tuple(epoch_order(50, s, stream, e)) for s in (0, 1) for stream in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 8
    assert all(sorted(order) == list(range(50)) for order in orders)


@pytest.mark.parametrize(("num", "world", "batch"), [(13, 1, 4), (13, 2, 4), (13, 3, 4), (7, 3, 2), (1, 3, 2)])
def test_validation_scores_each_sample_once_and_ranks_take_equally_many_batches(num, world, batch):
    per_rank = [list(EvalBatches(num, batch, world_size=world, rank=r)) for r in range(world)]
    tickets = [t for rank in per_rank for groups in rank for t in flat(groups)]
    assert sorted(t.index for t in tickets if t.attempt != EvalBatches.PADDING) == list(range(num))
    assert len({len(rank) for rank in per_rank}) == 1
    assert all(t.epoch == 0 and t.stream == Stream.VAL for t in tickets)


def test_a_global_batch_that_does_not_divide_names_the_nearest_that_does():
    with pytest.raises(
        DataError, match=r"loader.global_batch \(10\) must be a multiple of .* = 4. Set loader.global_batch=8"
    ):
        BatchLayout(10, world_size=2, accumulate=2)


def test_too_few_videos_names_a_batch_that_would_work():
    with pytest.raises(DataError, match=r"only 5 are left to train on. Set loader.global_batch=5 or less"):
        batches(num=5)


def test_every_address_has_its_own_randomness_and_the_step_does_not_matter():
    tickets = [Ticket(s, e, 0, i, c, a) for s in (0, 1) for e in (0, 1) for i in (0, 1) for c in (0, 1) for a in (0, 1)]
    assert len({sample_rng(0, t).integers(2**62) for t in tickets}) == 32
    assert sample_rng(0, Ticket(0, 1, 2, 3)).integers(2**62) == sample_rng(0, Ticket(0, 1, 9, 3)).integers(2**62)
    assert batch_rng(0, Ticket(0, 1, 2, 3)).integers(2**62) == batch_rng(0, Ticket(0, 1, 2, 8)).integers(2**62)
    assert batch_rng(0, Ticket(0, 1, 2, 3)).integers(2**62) != batch_rng(0, Ticket(0, 1, 3, 3)).integers(2**62)
