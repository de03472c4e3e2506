"""Clips of a video as positives: the law of their gaps, the losses against float64 loops, the queue, the slower network, its collapse."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretext_tasks.clip_contrast import (
    ClipContrast,
    ClipContrastConfig,
    ContrastClips,
    color_histograms,
    draw_starts,
    momentum_at,
    own_first,
    pairs_loss,
    prediction_loss,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.train.spread import effective_rank
from ssvid.types import Ticket, VideoInfo
from tests.pretext_tasks.torn import whole_and_torn

MOCO = ClipContrastConfig(
    num_frames=4,
    stride_frames=1,
    frame_px=24,
    head_width=8,
    embed_channels=8,
    predictor_width=8,
    queue=16,
    momentum=0.5,
    jitter_prob=0.0,
    gray_prob=0.0,
    blur_prob=0.0,
)
SIMCLR, BYOL = replace(MOCO, method="simclr"), replace(MOCO, method="byol", temperature=0.5)
ALL = [MOCO, SIMCLR, BYOL, replace(MOCO, num_clips=3), replace(SIMCLR, num_clips=3), replace(BYOL, num_clips=3)]


def video(frames=60):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def built(config=MOCO):
    torch.manual_seed(0)
    backbone = create_backbone("tiny3d", width=2)
    task = ClipContrast(config, backbone.info)
    task.setup(backbone)
    return task, backbone


def batch_of(num=4, config=MOCO, pixels=None, seed=0):
    """A batch as a worker makes it; pixels (60, 3, 48, 64) default to noise."""
    maker = ContrastClips(config)
    if pixels is None:
        pixels = torch.randint(0, 256, (60, 3, 48, 64), generator=torch.manual_seed(seed)).byte()
    samples = []
    for i in range(num):
        rng = np.random.default_rng([seed, i])
        p = maker.plan(video(), rng, rng)
        samples.append(maker.transform(tuple(pixels[torch.from_numpy(v)] for v in p.views), p, rng, rng))
    batch = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
    tickets = [Ticket(0, 0, 0, i) for i in range(num)]
    return batch | {"video_numbers": torch.arange(num)[:, None]}, BatchRandom.of(seed, tickets)


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


# ---- sampling


@pytest.mark.parametrize("config", [*ALL, replace(MOCO, gap="decreasing"), replace(MOCO, gap="even")])
def test_clips_fit_the_shortest_legal_video(config):
    maker = ContrastClips(replace(config, stride_frames=3))
    assert maker.min_frames == 10
    for seed in range(200):
        frames = maker.min_frames + seed % 3
        views = maker.plan(video(frames), np.random.default_rng(seed), np.random.default_rng(9)).views
        assert len(views) == config.num_clips
        assert all(len(view) == 4 and set(np.diff(view)) == {3} for view in views)
        assert min(view[0] for view in views) >= 0 and max(view[-1] for view in views) < frames


def counted(gap, places, num):
    rng = np.random.default_rng(0)
    pairs = np.array([draw_starts(places, 2, gap, rng) for _ in range(num)])
    return pairs, np.bincount(np.abs(pairs[:, 0] - pairs[:, 1]), minlength=places)


def test_gaps_follow_the_stated_laws():
    """Density 2 (1 - g / G) / G over [0, G), rounded down: P(k) = (2 G - 2 k - 1) / G^2. Two uniform starts: 1/G, then 2 (G - k) / G^2."""
    G, num, k = 6, 20_000, np.arange(6)
    laws = {
        "decreasing": (2 * G - 2 * k - 1) / G**2,
        "even": np.full(G, 1 / G),
        "independent": np.where(k == 0, 1 / G, 2 * (G - k) / G**2),
    }
    for gap, law in laws.items():
        assert law.sum() == pytest.approx(1)
        _, counts = counted(gap, G, num)
        assert np.abs(counts - num * law).max() < 5 * math.sqrt(num / 4), gap


def test_a_pair_lies_anywhere_where_it_fits_in_either_order():
    pairs, _ = counted("even", 6, 20_000)
    assert pairs.min() == 0 and pairs.max() == 5
    of_two = pairs[np.abs(pairs[:, 0] - pairs[:, 1]) == 2]
    early = np.bincount(of_two.min(axis=1), minlength=4)
    assert len(early) == 4 and np.abs(early - len(of_two) / 4).max() < 5 * math.sqrt(len(of_two) / 4)
    assert abs((of_two[:, 0] < of_two[:, 1]).mean() - 0.5) < 5 * 0.5 / math.sqrt(len(of_two))


def test_a_clip_has_one_rectangle_one_flip_one_color_and_another_clip_others():
    columns = torch.arange(64).view(1, 1, 1, 64) * torch.tensor([3, 2, 1]).view(1, 3, 1, 1)
    columns = columns.byte().expand(60, 3, 48, 64)
    config = replace(MOCO, jitter_prob=1.0, gray_prob=0.5, blur_prob=0.5)
    task, _ = built(config)
    for training in (True, False):
        batch = task.train(training).augment(*batch_of(8, config, columns))
        clips = torch.cat([batch["query"][:, None], batch["keys"]], dim=1)
        frame_BVCHW = clips[:, :, :, 0]
        assert torch.allclose(clips, frame_BVCHW.unsqueeze(3).expand_as(clips), atol=1e-6)
        assert (frame_BVCHW[:, 0] - frame_BVCHW[:, 1]).abs().amax(dim=(1, 2, 3)).min() > 0.01
        rising = frame_BVCHW[:, :, 0, 0, -1] > frame_BVCHW[:, :, 0, 0, 0]
        assert rising.any() and not rising.all() and (rising[:, 0] != rising[:, 1]).any()
        gray = (frame_BVCHW - frame_BVCHW.mean(dim=2, keepdim=True)).abs().amax(dim=(2, 3, 4)) < 1e-3
        assert gray.any() and not gray.all()


# ---- losses


def test_pairs_loss_by_loops_and_in_any_order():
    clips, videos, T = doubles(4, 3, 5), torch.tensor([0, 1, 2, 0]), 0.2
    total = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        for own, other in ((i, j), (j, i)):
            for b in range(4):
                positive = math.exp(cosine(clips[b, own], clips[b, other]) / T)
                negative = sum(
                    math.exp(cosine(clips[b, own], clips[n, v]) / T)
                    for n in range(4)
                    if videos[n] != videos[b]
                    for v in (i, j)
                )
                total -= math.log(positive / (positive + negative)) / (4 * 2 * 3)
    assert float(pairs_loss(clips, videos, T)) == pytest.approx(total, rel=1e-5)  # nt_xent computes in float32
    order = torch.tensor([2, 0, 3, 1])
    assert float(pairs_loss(clips[order], videos[order], T)) == pytest.approx(total, rel=1e-5)
    assert float(pairs_loss(clips.flip(1), videos, T)) == pytest.approx(total, rel=1e-5)


def test_prediction_loss_by_loops_and_in_any_order():
    predicted, keys, T = doubles(4, 3, 5), doubles(4, 3, 5, seed=1), 0.5
    total = 0.0
    for b in range(4):
        for i in range(3):
            others = [cosine(predicted[b, i], keys[b, j]) for j in range(3) if j != i]
            total -= sum(others) / len(others) / T / 4
    assert float(prediction_loss(predicted, keys, T)) == pytest.approx(total, abs=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    assert float(prediction_loss(predicted[order], keys[order], T)) == pytest.approx(total, abs=1e-12)
    # Two clips: both directions are summed; where all agree that is -2 / T.
    assert float(prediction_loss(keys[:, :1].expand(4, 2, 5), keys[:, :1].expand(4, 2, 5), T)) == pytest.approx(-4)


def test_the_loss_with_a_queue_from_the_networks_own_embeddings():
    """From scratch: two keys of each video against what two steps have left in the queue, float64."""
    config = replace(MOCO, num_clips=3, queue=10)
    task, backbone = built(config)
    task.train(), backbone.eval()
    task(task.augment(*batch_of(config=config)), backbone)
    task.after_step(backbone, 1)
    batch = task.augment(*batch_of(config=config, seed=1))
    batch["video_numbers"] = torch.tensor([[2], [3], [4], [5]])
    queue, videos = task.queue.keys_ND.clone().double(), task.queue.videos_N.clone()
    assert videos.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, -1, -1]
    loss = float(task(batch, backbone).loss.detach())

    def unit(clip, network, head):
        return F.normalize(head(network(clip[None]).mean(dim=(2, 3, 4))).double().flatten(), dim=0)

    expected = 0.0
    with torch.no_grad():
        for b in range(4):
            q = unit(batch["query"][b], backbone, task.head)
            own = int(batch["video_numbers"][b])
            others = sum(math.exp(float(q @ queue[n]) / 0.1) for n in range(10) if videos[n] not in (-1, own))
            for key in batch["keys"][b]:
                positive = math.exp(float(q @ unit(key, task.slower["backbone"], task.slower["head"])) / 0.1)
                expected -= math.log(positive / (positive + others)) / (4 * 2)
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("config", ALL)
def test_the_order_of_a_batch_does_not_change_the_loss(config):
    task, backbone = built(config)
    task.train(), backbone.eval()
    task(task.augment(*batch_of(config=config)), backbone)
    batch, order = task.augment(*batch_of(config=config, seed=1)), torch.tensor([2, 0, 3, 1])
    batch["video_numbers"] = torch.tensor([[3], [1], [7], [8]])
    mixed = {key: value[order] for key, value in batch.items()}
    task.eval()  # the queue stays as it is
    with torch.no_grad():
        assert float(task(mixed, backbone).loss) == pytest.approx(float(task(batch, backbone).loss), rel=1e-5)


@pytest.mark.parametrize("config", [SIMCLR, replace(MOCO, queue=8)])
def test_where_all_clips_are_of_one_video_there_is_nothing_to_be_told_apart(config):
    task, backbone = built(config)
    task.train(), backbone.eval()
    for seed in (0, 1):
        batch = task.augment(*batch_of(config=config, seed=seed))
        batch["video_numbers"] = torch.full((4, 1), 7)
        assert float(task(batch, backbone).loss.detach()) == 0.0


# ---- the queue and the slower network


@pytest.mark.parametrize(("size", "kept"), [(6, [11, 12, 12, 13, 13, 11]), (3, [13, 12, 13])])
def test_a_queue_forgets_the_oldest_also_one_smaller_than_a_batch(size, kept):
    config = replace(MOCO, num_clips=3, queue=size)
    task, backbone = built(config)
    task.train()
    for step in range(2):
        batch = task.augment(*batch_of(config=config))
        batch["video_numbers"] = torch.arange(4)[:, None] + 10 * step
        assert math.isfinite(float(task(batch, backbone).loss.detach()))
    assert sorted(task.queue.videos_N.tolist()) == sorted(kept)
    assert torch.allclose(task.queue.keys_ND.norm(dim=1), torch.ones(size))
    of_others = task.queue.of_others(batch["video_numbers"][:, 0])
    assert all(int(task.queue.videos_N[n]) != 10 + b for b in range(4) for n in range(size) if of_others[b, n])


def test_the_queue_is_left_alone_in_validation_and_without_gradients():
    task, backbone = built()
    batch = task.train().augment(*batch_of())
    with torch.no_grad():
        task(batch, backbone)
    task.eval()(batch, backbone)
    assert task.queue.videos_N.tolist() == [-1] * 16


@pytest.mark.parametrize("head_norm", ["none", "batch", "layer"])
def test_a_key_depends_on_its_own_clip_alone_and_gets_no_gradient(head_norm):
    task, _ = built(replace(BYOL, head_norm=head_norm))
    clips = task.train().augment(*batch_of(config=BYOL))["keys"]
    together, alone = task.keys(clips), torch.cat([task.keys(clip[None]) for clip in clips])
    assert torch.allclose(together, alone, atol=1e-5) and not together.requires_grad
    assert not task.train().slower.training and not any(p.requires_grad for p in task.slower.parameters())


def test_the_map_is_pooled_over_space_and_then_over_time():
    clips = batch_of()[0]["keys"].float().div(255).transpose(2, 3)
    for space_pool in ("mean", "max"):
        task, backbone = built(replace(MOCO, space_pool=space_pool))
        map_NDTHW = backbone.eval()(clips[:, 0])
        over_space = {"mean": map_NDTHW.flatten(3).mean(dim=3), "max": map_NDTHW.flatten(3).max(dim=3).values}[
            space_pool
        ]
        found = task.embed(clips, backbone, nn.Identity())
        assert torch.allclose(found[:, 0], over_space.mean(dim=2), atol=1e-6)


def test_momentum_rises_to_1_as_a_cosine():
    assert [momentum_at(step, 0.994, 0) for step in (0, 7, 10**6)] == [0.994] * 3
    for share, value in ((0, 0.994), (0.5, 0.997), (1, 1.0), (3, 1.0)):
        assert momentum_at(round(1000 * share), 0.994, 1000) == pytest.approx(value, abs=1e-12)
    assert momentum_at(250, 0.9, 1000) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2, abs=1e-12)


def test_the_slower_network_is_the_stated_moving_average():
    task, backbone = built(replace(BYOL, momentum=0.75, momentum_steps=4))
    expected = {name: value.clone().double() for name, value in task.slower.state_dict().items()}
    for step in (1, 2, 3):
        with torch.no_grad():
            for value in [*backbone.state_dict().values(), *task.head.state_dict().values()]:
                value.add_(step)
        task.after_step(backbone, step)
        m = 1 - 0.25 * (math.cos(math.pi * step / 4) + 1) / 2
        now = {f"backbone.{k}": v for k, v in backbone.state_dict().items()} | {
            f"head.{k}": v for k, v in task.head.state_dict().items()
        }
        assert now.keys() == expected.keys()
        for name, value in now.items():
            expected[name] = m * expected[name] + (1 - m) * value.double() if value.is_floating_point() else value
    for name, value in task.slower.state_dict().items():
        assert torch.allclose(value.double(), expected[name].double(), atol=1e-5), name
    assert not any(name.startswith("predictor") for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("method=moco", "queue=24"), ("method=byol", "head_norm=batch", "predictor_width=16")]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_keys_and_queue(tmp_path, monkeypatch, options):
    words = [f"task.options.{option}" for option in (*options, "momentum_steps=10")]
    whole, torn = whole_and_torn("clip_contrast", ClipContrast, tmp_path, monkeypatch, *words)
    assert any(name.startswith("slower.") for name in whole.task_state)
    for one, other in ((whole.task_state, torn.task_state), (whole.backbone_state, torn.backbone_state)):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("config", ALL)
def test_the_contract_holds_for_every_method(config):
    check_task(ClipContrast(config, create_backbone("tiny3d").info))


# ---- what is learned and what is not


@pytest.mark.parametrize("config", [MOCO, SIMCLR, BYOL])
def test_noise_stays_at_chance_and_so_do_its_colors(config):
    task, backbone = built(config)
    task.eval(), backbone.eval()
    found = {name: [] for name in task.epoch_metrics()}
    for seed in range(4):
        parts = [batch_of(1, config, seed=100 * seed + i)[0] for i in range(40)]
        batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        torch.manual_seed(seed)
        for key in ("query", "keys"):
            batch[key] = torch.randint(0, 256, batch[key].shape).byte()
        batch["video_numbers"] = torch.arange(40)[:, None]
        draws = BatchRandom.of(seed, [Ticket(0, 0, 0, i) for i in range(40)])
        output = task(task.augment(batch, draws), backbone)
        for name, metric in task.epoch_metrics().items():
            metric.update(*output.scores[name])
            found[name].append(float(metric.compute()))
    assert abs(np.mean(found["accuracy"]) - 0.5) < 0.1 and abs(np.mean(found["color_accuracy"]) - 0.5) < 0.1
    assert np.mean(found["top1"]) < 0.1 and np.mean(found["color_top1"]) < 0.1


def steps_on_one_batch(config, num_steps, learning_rate=0.01):
    """The embeddings of 16 clips of noise in three brightnesses, and the cosines of the clips, after some steps on them alone."""
    task, backbone = built(config)
    pixels = [
        torch.randint(0, 256, (60, 3, 48, 64), generator=torch.manual_seed(i)).byte() // (1 + i % 3) for i in range(8)
    ]
    parts = [batch_of(1, config, pixels[i], seed=i)[0] for i in range(8)]
    batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    batch["video_numbers"] = torch.arange(8)[:, None]
    batch = task.augment(batch, BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(8)]))
    task.train(), backbone.train()
    trained = [p for p in [*task.parameters(), *backbone.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, learning_rate)
    for step in range(1, num_steps + 1):
        optimizer.zero_grad()
        output = task(batch, backbone)
        output.loss.backward()
        optimizer.step()
        task.after_step(backbone, step)
    with torch.no_grad():
        clips = torch.cat([batch["query"], batch["keys"][:, 0]])
        return task.head(backbone(clips).mean(dim=(2, 3, 4))), output.extras["cosine"]


def test_a_prediction_without_batch_statistics_collapses_and_the_rank_shows_it():
    """Nothing keeps the two networks from the constant answer here; told from others they keep their rank."""
    collapsed, cosines = steps_on_one_batch(replace(BYOL, momentum=0.0), 60)
    spread, apart = steps_on_one_batch(SIMCLR, 60)
    assert float(cosines.min()) > 0.95 and effective_rank(collapsed) < 2
    assert float(apart.diagonal().mean() - apart.mean()) > 0.3 and effective_rank(spread) > 2


# ---- the placebo


@pytest.mark.parametrize("config", ALL)
def test_a_placebo_takes_the_other_clips_from_one_other_video(config):
    task, _ = built(config)
    batch = task.train().augment(*batch_of(8, config))
    changed = task.placebo(batch, np.random.default_rng(0))
    assert {key for key in batch if not torch.equal(batch[key], changed[key])} == {"keys"}
    whose = [[i for i in range(8) if torch.equal(batch["keys"][i], given)] for given in changed["keys"]]
    assert sorted(i for given in whose for i in given) == list(range(8)) and all(
        i not in given for i, given in enumerate(whose)
    )


# ---- measures


def test_histograms_of_colors_by_hand():
    clips = torch.zeros(2, 3, 1, 2, 2)
    clips[0, 0, 0, 0, 0] = 1.0  # one of four pixels is red
    clips[1, 2] = 0.6  # all are blue, level 2
    histograms = color_histograms(clips)
    assert histograms.shape == (2, 64) and torch.allclose(histograms.norm(dim=1), torch.ones(2))
    assert histograms[0, 0] == pytest.approx(math.sqrt(0.75)) and histograms[0, 3 * 16] == 0.5
    assert histograms[1].tolist() == [0, 0, 1] + [0] * 61


def test_own_first_by_hand():
    anchors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # Anchor 0: own 1 against .6. Anchor 1: own .8 against 0 and 1. Anchor 2, of video 0 too: own 0 against .6.
    assert own_first(anchors, keys, torch.tensor([0, 1, 0])) == pytest.approx(1 / 3)
    assert own_first(anchors, keys.flip(0), torch.tensor([0, 1, 2])) == pytest.approx(1 / 3)
    assert own_first(torch.ones(4, 2), torch.ones(4, 2), torch.arange(4)) == 0.0  # all alike: told from nothing


@pytest.mark.parametrize("config", [MOCO, BYOL])
def test_an_epoch_is_measured_alike_however_it_is_cut(config):
    task, backbone = built(config)
    task.eval(), backbone.eval()
    batch = task.augment(*batch_of(6, config))
    values = []
    for parts in ([slice(0, 6)], [slice(0, 1), slice(1, 4), slice(4, 6)]):
        metrics = task.epoch_metrics()
        for part in parts:
            scores = task({key: value[part] for key, value in batch.items()}, backbone).scores
            for name, metric in metrics.items():
                metric.update(*scores[name])
        values.append({name: float(metric.compute()) for name, metric in metrics.items()})
    assert values[0] == values[1] and len(values[0]) == 4


def test_pictures_show_both_clips_of_a_video():
    task, backbone = built()
    batch = task.eval().augment(*batch_of(2))
    picture = task.visualize(batch, task(batch, backbone.eval()))["clips"]
    assert picture.dtype == np.uint8 and picture.shape == (2 * (64 + 6), 4 * 64 + 170 + 4 * 64, 3)


# ---- recipes and options


def test_the_papers_recipes_are_in_the_papers_setting():
    recipe = load_recipe("pretrain/clip_contrast_i3d50_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.method, config.num_clips, config.num_frames, config.stride_frames) == ("moco", 4, 8, 8)
    assert (config.queue, config.momentum, config.temperature, config.embed_channels) == (65536, 0.994, 0.1, 128)
    assert (config.min_area, config.max_area, config.jitter) == (0.2, 0.766, (0.6, 0.6, 0.6, 0.15))
    assert (config.frame_px, config.gray_prob, config.gap, config.head_layers) == (224, 0.2, "independent", 3)
    recipe = load_recipe("pretrain/clip_contrast_byol_i3d50_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.method, config.num_clips, config.temperature, config.momentum) == ("byol", 2, 0.5, 0.996)
    assert (config.head_layers, config.head_width, config.predictor_width, config.embed_channels) == (
        2,
        4096,
        4096,
        256,
    )
    assert config.head_norm == "batch"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "mocov2"}, r"method \('mocov2'\) must be one of moco, simclr, byol \(did you mean 'moco'\?\)"),
        ({"num_clips": 1}, r"num_clips \(1\) must be at least 2"),
        (
            {"num_clips": 3, "gap": "even"},
            r"num_clips \(3\) must be 2 where gap is even, .* set gap=independent for more",
        ),
        ({"min_area": 0.9, "max_area": 0.5}, r"min_area \(0.9\) must be at most max_area \(0.5\)"),
        ({"queue": 0}, r"queue \(0\) must be at least 1"),
        ({"momentum": 1.0}, r"momentum \(1.0\) must be at least 0 and below 1"),
        ({"frame_px": 0}, r"frame_px \(0\) must be at least 1"),
        ({"temperature": 0.0}, r"temperature \(0.0\) must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        ClipContrast(ClipContrastConfig(**options), create_backbone("tiny3d", width=2).info)


def test_statistics_of_a_single_clip_are_refused_with_a_way_out_that_works():
    config = replace(MOCO, head_norm="batch")
    task, backbone = built(config)
    batch = task.train().augment(*batch_of(1, config))
    with pytest.raises(DataError, match=r"head_norm .* task.options.head_norm=layer"):
        task(batch, backbone)
    task, backbone = built(replace(config, head_norm="layer"))
    assert math.isfinite(float(task.train()(batch, backbone).loss.detach()))


def test_a_batch_of_one_video_is_refused_where_videos_of_a_batch_are_told_apart():
    task, backbone = built(SIMCLR)
    batch = task.train().augment(*batch_of(1, SIMCLR))
    with pytest.raises(DataError, match=r"method \(simclr\) must see two or more videos .* task.options.method=moco"):
        task(batch, backbone)
    assert float(task.eval()(batch, backbone).loss.detach()) == 0.0  # the last batch of a validation
    task, backbone = built(MOCO)
    assert float(task.train()(batch, backbone).loss.detach()) == 0.0
