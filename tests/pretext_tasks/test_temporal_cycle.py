"""Temporal cycle-consistency: which moments are drawn, the losses against plain loops, what must not matter and what must."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from pretext_tasks.temporal_cycle import (
    ConvolutionHead,
    MomentClips,
    PairClips,
    TemporalCycle,
    TemporalCycleConfig,
    cycle_back,
    cycle_loss,
    draw_moments,
    even_moments,
    landing,
    order_kept,
    similarity,
    with_context,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, OptionError
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import Ticket, VideoInfo

SMALL = {"num_steps": 5, "context_frames": 2, "context_stride": 3, "frame_px": 32, "head": "none"}
FRAMES = 40


def config(**options):
    return TemporalCycleConfig(**{**SMALL, **options})


def video(frames=FRAMES):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def vectors(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def batch_of(task, num=4, training=True, pixels=None):
    """A batch as a worker makes it, of one video of noise where no pixels (T, 3, 48, 64) are given."""
    maker = task.clip_maker(training)
    if pixels is None:
        pixels = torch.randint(0, 256, (FRAMES, 3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(3))
    samples = []
    for i in range(num):
        rng = np.random.default_rng(i)
        plan = maker.plan(video(), rng, np.random.default_rng(0))
        views = tuple(pixels[torch.from_numpy(view.copy())] for view in plan.views)
        samples.append(maker.transform(views, plan, rng, rng))
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    tickets = [Ticket(0, 0, 0, i) for i in range(num)]
    batch["tickets"] = torch.tensor(tickets)
    return task.train(training).augment(batch, BatchRandom.of(0, tickets))


@pytest.fixture(scope="module")
def network():
    return create_backbone("tiny3d", width=4).eval()


def task_for(network, **options):
    return TemporalCycle(config(**options), network.info)


# ---- which moments


def test_every_set_of_moments_with_its_context_is_equally_likely():
    """5 of the frames 2 to 7: six sets, each a sixth of the draws."""
    seen = [tuple(draw_moments(8, 5, 2, np.random.default_rng(i))) for i in range(3000)]
    sets = list(itertools.combinations(range(2, 8), 5))
    counts = [seen.count(one) for one in sets]
    assert sum(counts) == 3000, "rising, without repeats, none before its context"
    assert max(abs(count - 500) for count in counts) < 4 * math.sqrt(3000 * 5 / 36)


def test_validation_takes_moments_evenly_from_the_first_to_the_last():
    assert even_moments(13, 4, 3).tolist() == [3, 6, 9, 12]
    plans = [MomentClips(config(), False, "a").plan(video(), np.random.default_rng(i), None) for i in range(2)]
    np.testing.assert_array_equal(plans[0].views[0], plans[1].views[0])


def test_a_moment_is_seen_with_what_came_before_it_and_nothing_after():
    assert with_context(np.array([10, 20]), 3, 4).tolist() == [[2, 6, 10], [12, 16, 20]]
    plan = MomentClips(config(), True, "b").plan(video(), np.random.default_rng(1), None)
    frames = plan.views[0].reshape(5, 2)
    assert (frames[:, 0] == frames[:, 1] - 3).all() and frames.min() >= 0
    np.testing.assert_allclose(plan.targets["times_b"], frames[:, 1] / FRAMES, rtol=1e-6)
    assert plan.targets["answers_b"].tolist() == [0, 1, 2, 3, 4]


def test_the_shortest_video_has_room_for_one_set_of_moments_alone():
    maker = MomentClips(config(), True, "a")
    assert maker.min_frames == 3 + 5
    assert maker.plan(video(8), np.random.default_rng(0), None).views[0].reshape(5, 2)[:, 1].tolist() == [3, 4, 5, 6, 7]


def test_the_two_videos_are_planned_by_themselves():
    maker = PairClips(config(group_by="any"), True)
    assert maker.group_by == "any" and len(maker.video_makers) == 2
    pickle.loads(pickle.dumps(maker))
    a, b = (one.plan(video(), np.random.default_rng(0), None) for one in maker.video_makers)
    assert set(a.targets) == {"times_a", "answers_a"} and set(b.targets) == {"times_b", "answers_b"}


# ---- the losses


def loss_of_loops(u, v, times, answers, of, temperature, weight=0.001, smoothing=0.1):
    """The cycles from u through v and back, moment by moment, in plain Python."""
    width = len(u[0])

    def sims(x, ys):
        return [-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / width / temperature for y in ys]

    def softmax(values):
        top = max(values)
        powers = [math.exp(value - top) for value in values]
        return [power / sum(powers) for power in powers]

    losses = []
    for i, start in enumerate(u):
        alpha = softmax(sims(start, v))
        soft = [sum(a * y[d] for a, y in zip(alpha, v, strict=True)) for d in range(width)]
        beta = softmax(sims(soft, u))
        if of == "classification":
            wanted = [(1 - smoothing) * (k == answers[i]) + smoothing / len(u) for k in range(len(u))]
            losses.append(-sum(w * math.log(b) for w, b in zip(wanted, beta, strict=True)))
            continue
        mean = sum(b * t for b, t in zip(beta, times, strict=True))
        variance = sum(b * (t - mean) ** 2 for b, t in zip(beta, times, strict=True)) + 1e-6
        square = (times[answers[i]] - mean) ** 2
        losses.append(square if of == "mse" else square / variance + weight * math.log(variance))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("of", ["regression", "mse", "classification"])
def test_the_loss_is_that_of_plain_loops(of):
    u, v = vectors(3, 6, 4), vectors(3, 7, 4, seed=1)
    times = torch.from_numpy(np.sort(np.random.default_rng(2).random((3, 6)), axis=1))
    answers = torch.from_numpy(np.random.default_rng(3).permuted(np.tile(np.arange(6), (3, 1)), axis=1))
    found = cycle_loss(cycle_back(u, v, 0.7), times, answers, config(loss=of))
    wanted = [loss_of_loops(*(x.tolist() for x in (u[b], v[b], times[b], answers[b])), of, 0.7) for b in range(3)]
    assert float(found) == pytest.approx(sum(wanted) / 3, abs=1e-12)


def test_a_cycle_computed_by_hand():
    """u = v = (0, 1), one channel, temperature 1: a_0 = softmax(0, -1) = (0.731059, 0.268941), so that v~_0 = 0.268941;
    x_0 = (-0.072329, -0.534447), b_0 = (0.613517, 0.386483). With times 0 and 1/2: m_0 = 0.193242, v_0 = 0.25 b (1 - b) =
    0.059278. The second moment is its mirror image, so that the loss is 0.193242^2 / 0.059279 + 0.001 ln 0.059279 = 0.627123.
    """
    u, times = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64), torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    logits = cycle_back(u, u, 1.0)
    assert logits[0, 0].tolist() == pytest.approx([-0.0723295, -0.5344466], abs=1e-6)
    mean, variance = landing(logits, times)
    assert float(mean[0, 0]) == pytest.approx(0.193242, abs=1e-6)
    assert float(variance[0, 0]) == pytest.approx(0.059278, abs=1e-6)
    found = cycle_loss(logits, times, torch.tensor([[0, 1]]), config())
    assert float(found) == pytest.approx(0.627123, abs=2e-5)


def test_seeded_features_have_the_loss_that_was_computed_from_scratch():
    """Features of ``np.random.default_rng(7)``, 2 pairs of 8 and 9 moments with 16 channels, times i / 8, temperature 0.1; the
    numbers are those of ``loss_of_loops`` above, written down on 2026-11-29.
    """
    rng = np.random.default_rng(7)
    u, v = torch.from_numpy(rng.normal(size=(2, 8, 16))), torch.from_numpy(rng.normal(size=(2, 9, 16)))
    times, answers = torch.arange(8).double().expand(2, -1) / 8, torch.arange(8).expand(2, -1)
    logits = cycle_back(u, v, 0.1)
    found = {of: float(cycle_loss(logits, times, answers, config(loss=of))) for of in SEEDED}
    assert found == pytest.approx(SEEDED, abs=1e-9)


SEEDED = {"regression": 3.689642380020236, "mse": 0.13420152917318626, "classification": 3.0246586129834725}


@pytest.mark.parametrize("of", ["regression", "mse", "classification"])
def test_the_order_of_the_other_video_does_not_matter(of):
    u, v = vectors(2, 6, 4), vectors(2, 7, 4, seed=1)
    times, answers = torch.arange(6).double().expand(2, -1) / 6, torch.arange(6).expand(2, -1)
    losses = [
        float(cycle_loss(cycle_back(u, other, 0.5), times, answers, config(loss=of)))
        for other in (v, v.flip(1), v[:, torch.tensor([3, 0, 6, 1, 5, 2, 4])])
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-12)


def test_a_video_beside_itself_comes_back_and_one_that_is_all_alike_does_not():
    u = 10 * vectors(1, 6, 8)
    times, answers = torch.arange(6).double()[None] / 6, torch.arange(6)[None]
    home = cycle_back(u, u, 0.1)
    assert home.argmax(-1).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert float(cycle_loss(home, times, answers, config(loss="mse"))) < 1e-9
    still = cycle_back(u[:, :1].expand(-1, 6, -1), u, 0.1)
    mean, variance = landing(still, times)
    torch.testing.assert_close(mean, torch.full((1, 6), 2.5 / 6).double())
    torch.testing.assert_close(variance, torch.full((1, 6), 35 / 12 / 36).double())  # of six equal steps


def test_similarity_is_the_negative_mean_square_over_the_temperature():
    u, v = vectors(1, 3, 5), vectors(1, 2, 5, seed=4)
    wanted = -((u[0, 1] - v[0, 0]) ** 2).mean() / 0.25
    assert float(similarity(u, v, 0.25)[0, 1, 0]) == pytest.approx(float(wanted), abs=1e-12)


# ---- what is measured


def test_tau_is_that_of_scipy_where_no_neighbor_is_shared():
    for seed in range(20):
        places = np.random.default_rng(seed).permutation(9)
        other = torch.arange(9).double()[None, :, None]
        found = order_kept(torch.from_numpy(places).double()[None, :, None], other)
        assert float(found) == pytest.approx(kendalltau(np.arange(9), places).statistic, abs=1e-6)


def test_moments_that_share_a_neighbor_count_for_neither_order():
    """Neighbors 0, 0, 2, 1: of six pairs (0,2), (0,1), (0,2), (0,1) keep the order, (2,1) does not, (0,0) is neither."""
    one, other = torch.tensor([[[0.0], [0.1], [2.0], [1.0]]]), torch.tensor([[[0.0], [1.0], [2.0]]])
    assert float(order_kept(one, other)) == pytest.approx((4 - 1) / 6)
    assert float(order_kept(torch.zeros(1, 4, 1), other)) == 0


@pytest.mark.parametrize("pixels", ["static", "black"])
def test_where_all_moments_look_alike_every_metric_is_at_chance(network, pixels):
    task = task_for(network)
    frame = torch.zeros(3, 48, 64, dtype=torch.uint8)
    if pixels == "static":
        frame = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(1))
    batch = batch_of(task, training=False, pixels=frame.expand(FRAMES, -1, -1, -1).contiguous())
    with torch.no_grad():
        output = task(batch, network)
    assert output.metrics["tau"].tolist() == [0.0] * 4
    assert output.metrics["cycle_accuracy"].tolist() == pytest.approx([1 / 5] * 4)
    assert task.chance() == {"tau": 0.0, "cycle_accuracy": 1 / 5}


def test_the_order_of_the_batch_does_not_matter(network):
    task = task_for(network)
    batch, order = batch_of(task, training=False), torch.tensor([2, 0, 3, 1])
    noise = {
        side: torch.rand(batch[f"frames_{side}"].shape, generator=torch.manual_seed(i)) for i, side in enumerate("ab")
    }
    batch |= {f"frames_{side}": value for side, value in noise.items()}
    with torch.no_grad():
        one, other = task(batch, network), task({key: value[order] for key, value in batch.items()}, network)
    assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-5)
    torch.testing.assert_close(one.metrics["tau"][order], other.metrics["tau"])


def test_changing_places_of_the_two_videos_changes_nothing(network):
    task = task_for(network)
    batch = batch_of(task, training=False)
    batch["frames_b"] = torch.rand(batch["frames_b"].shape, generator=torch.manual_seed(5))
    swapped = {key: batch[key[:-1] + {"a": "b", "b": "a"}[key[-1]]] for key in batch if key[-2:] in ("_a", "_b")}
    with torch.no_grad():
        one, other = task(batch, network), task(swapped, network)
    assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-5)


# ---- the placebo


def test_the_placebo_draws_the_answers_anew_and_touches_nothing_else(network):
    task = task_for(network)
    batch = batch_of(task, num=6)
    right = []
    for seed in range(200):
        changed = task.placebo(batch, np.random.default_rng(seed))
        assert {key for key in batch if not torch.equal(batch[key], changed[key])} <= set(task.targets)
        for name in task.targets:
            assert changed[name].sort(dim=1).values.equal(batch[name]), "each moment once"
            right.append(float((changed[name] == batch[name]).float().mean()))
    assert np.mean(right) == pytest.approx(1 / 5, abs=0.02)


def test_a_placebo_needs_two_videos_as_any(network):
    task = task_for(network)
    batch = batch_of(task, num=2) | {"video_numbers": torch.zeros(2, 1, dtype=torch.int64)}
    with pytest.raises(DataError, match="the answer of another video"):
        task.placebo(batch, np.random.default_rng(0))


# ---- heads and options


@pytest.mark.parametrize(
    "options",
    [
        {"head": "convolutions", "hidden_channels": 8, "embed_channels": 6},
        {"head": "linear", "pool": "avgmax"},
        {"head": "linear", "pool": "max1x2x2", "loss": "classification"},
        {"head": "none", "pool": "max1x2x2", "loss": "mse"},
    ],
)
def test_every_head_keeps_the_contract(options):
    check_task("temporal_cycle", **{**SMALL, **options})


def test_the_convolution_head_takes_the_maximum_over_all_cells():
    """A map of zeros with one cell, anywhere inside, gives the same vector wherever that cell is."""
    head = ConvolutionHead(2, 4, 3, 0.0).double().eval()
    found = []
    for place in ((2, 3, 3), (3, 4, 2)):
        maps = torch.zeros(1, 2, 6, 8, 8, dtype=torch.float64)
        maps[(0, slice(None), *place)] = 1.0
        found.append(head(maps))
    torch.testing.assert_close(found[0], found[1])


def test_training_changes_color_and_side_of_whole_videos_and_validation_does_not(network):
    pixels = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(1)).expand(
        FRAMES, -1, -1, -1
    )
    task = task_for(network)
    seen = batch_of(task, pixels=pixels)["frames_a"]
    assert all(torch.equal(one[0, :, 0], moment) for one in seen for moment in one.transpose(1, 2).flatten(0, 1))
    assert not torch.equal(
        *(one["frames_a"][0] for one in (batch_of(task, pixels=pixels), batch_of(task, training=False, pixels=pixels)))
    )
    plain = batch_of(task, training=False, pixels=pixels)["frames_a"]
    assert torch.equal(plain[0], plain[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_frames": 1}, r"context_frames \(1\) must be at least 2 for backbone tiny3d"),
        ({"num_steps": 2}, r"num_steps \(2\) must be at least 3"),
        ({"group_by": "class"}, r"group_by \('class'\) must be one of label, group, any"),
    ],
)
def test_options_that_cannot_work_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        task_for(create_backbone("tiny3d", width=4, input="difference"), **options)
