"""Speediness: physics of the sampled time, the loss against float64 loops, the three guards, one at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.speediness import (
    Speediness,
    SpeedinessClips,
    SpeedinessConfig,
    draw_offsets,
    dropped_offsets,
    even_offsets,
    frames_needed,
    mean_difference,
    speediness_logits,
    speediness_loss,
)
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.types import Ticket, VideoInfo

SMALL = SpeedinessConfig(num_frames=8, min_px=12, max_px=32, eval_px=24, frame_px=32)


def video(frames=60):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def plan(config=SMALL, seed=0, training=True, frames=60):
    return SpeedinessClips(config, training).plan(video(frames), np.random.default_rng(seed), np.random.default_rng(9))


def batch_of(num=3, config=SMALL, training=True):
    """A batch as a worker makes it, from videos whose pixels are their frame numbers."""
    maker = SpeedinessClips(config, training)
    frames = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 3, 48, 64)
    samples = []
    for i in range(num):
        rng = np.random.default_rng(i)
        p = maker.plan(video(), rng, np.random.default_rng(0))
        samples.append(maker.transform(tuple(frames[torch.from_numpy(v)] for v in p.views), p, rng, rng))
    batch = {k: torch.stack([s[k] for s in samples]) for k in samples[0]}
    tickets = [Ticket(0, 0, 0, i) for i in range(num)]
    return batch, BatchRandom.of(0, tickets)


# ---- time


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.2, 1.7, 2.0, 2.2])
def test_even_offsets_advance_by_the_factor_and_never_stray_half_a_frame(factor):
    offsets = even_offsets(64, factor)
    assert np.all(np.abs(offsets - factor * np.arange(64)) <= 0.5)
    assert offsets[0] == 0
    assert frames_needed(64, factor) == offsets[-1] + 1


@pytest.mark.parametrize("factor", [1.0, 1.2, 1.7, 2.2])
def test_dropping_keeps_each_frame_with_probability_one_over_the_factor(factor):
    rng = np.random.default_rng(0)
    gaps = np.concatenate([np.diff(dropped_offsets(64, factor, rng)) for _ in range(400)])
    assert gaps.min() >= 1
    assert abs(gaps.mean() - factor) < 4 * math.sqrt(factor * (factor - 1) / gaps.size) + 1e-9
    if factor > 1:  # geometric law: P(gap > 1) = 1 - 1/factor
        p = 1 - 1 / factor
        assert abs((gaps > 1).mean() - p) < 4 * math.sqrt(p * (1 - p) / gaps.size)


def test_dropping_alike_leaves_irregularity_that_tells_nothing():
    config = SpeedinessConfig(num_frames=16, spacing="drop")
    for seed in range(200):
        normal, sped = draw_offsets(config, 80, np.random.default_rng(seed))
        assert np.array_equal(2 * np.diff(normal), np.diff(sped))


def test_spacing_off_is_exactly_speed_one_and_two():
    normal, sped = draw_offsets(SpeedinessConfig(num_frames=5, spacing="off"), 20, np.random.default_rng(0))
    assert normal.tolist() == [0, 1, 2, 3, 4]
    assert sped.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("spacing", ["even", "drop", "drop_paper", "off"])
@pytest.mark.parametrize("training", [True, False])
def test_both_versions_fit_the_shortest_legal_video_and_lie_in_one_window(spacing, training):
    config = SpeedinessConfig(num_frames=8, spacing=spacing)
    frames = SpeedinessClips(config, training).min_frames
    for seed in range(200):
        normal, sped = plan(config, seed, training, frames).views
        assert 0 <= min(normal[0], sped[0])
        assert max(normal[-1], sped[-1]) < frames
        inner, outer = sorted((normal, sped), key=lambda v: v[-1] - v[0])
        assert outer[0] <= inner[0] and inner[-1] <= outer[-1]
        assert np.all(np.diff(normal) >= 1) and np.all(np.diff(sped) >= 1)


def test_mean_speeds_match_the_stated_ranges():
    plans = [plan(SpeedinessConfig(num_frames=16), seed) for seed in range(1000)]
    speeds = np.array([[(v[-1] - v[0]) / 15 for v in p.views] for p in plans])
    assert abs(speeds[:, 0].mean() - 1.1) < 0.01
    assert abs(speeds[:, 1].mean() - 1.95) < 0.02
    assert speeds[:, 0].max() < speeds[:, 1].min()


def test_the_start_of_the_window_is_uniform_over_the_video():
    starts = np.array([plan(training=False, seed=s, frames=30).views[1][0] for s in range(3000)])
    counts = np.bincount(starts, minlength=30 - 14)
    assert counts.size == 16  # 30 frames, the sped version spans 15
    assert counts.min() > 0.7 * 3000 / 16


def test_a_plan_is_a_pure_function_of_its_seed():
    assert all(np.array_equal(a, b) for a, b in zip(plan(seed=5).views, plan(seed=5).views, strict=True))
    assert any(not np.array_equal(plan(seed=5).views[1], plan(seed=s).views[1]) for s in range(6, 12))


def test_validation_clips_may_have_another_length():
    config = SpeedinessConfig(num_frames=8, eval_frames=5)
    maker = SpeedinessClips(config, training=False)
    assert maker.min_frames == 9  # four steps of two frames, and the first
    normal, sped = plan(config, training=False).views
    assert np.diff(normal).tolist() == [1] * 4
    assert np.diff(sped).tolist() == [2] * 4
    assert [len(v) for v in plan(config).views] == [8, 8]
    assert SpeedinessClips(SMALL, training=False).min_frames == 15


# ---- guards, one at a time


def test_same_batch_puts_both_versions_of_every_clip_into_the_batch():
    batch, _ = batch_of()
    assert batch["clips"].shape == (3, 2, 8, 3, 32, 32)
    assert batch["clips"].dtype == torch.uint8
    assert batch["is_sped"].tolist() == [[0, 1]] * 3


def test_without_same_batch_a_sample_is_one_version_and_both_occur():
    config = SpeedinessConfig(num_frames=8, same_batch=False, frame_px=32)
    labels = [int(plan(config, seed).targets["is_sped"][0]) for seed in range(400)]
    assert all(len(plan(config, s).views) == 1 for s in range(5))
    assert abs(np.mean(labels) - 0.5) < 0.1


def test_one_resolution_for_the_whole_batch_and_another_for_another_batch():
    task = Speediness(SMALL, create_backbone("tiny3d", width=2).info).train()
    sides = set()
    for step in range(12):
        batch, _ = batch_of(2)
        out = task.augment(batch, BatchRandom.of(0, [Ticket(0, 0, step, 0), Ticket(0, 0, step, 1)]))
        assert out["clips"].dtype == torch.float32
        assert out["clips"].shape[-1] == out["clips"].shape[-2]
        assert 0 <= float(out["clips"].min()) and float(out["clips"].max()) <= 1
        sides.add(out["clips"].shape[-1])
    assert len(sides) > 4
    assert min(sides) >= 12 and max(sides) <= 32


def test_random_resolution_off_and_validation_use_the_stated_side():
    fixed = SpeedinessConfig(num_frames=8, random_resolution=False, eval_px=20, frame_px=32)
    task = Speediness(fixed, create_backbone("tiny3d", width=2).info)
    for mode in (True, False):
        batch, draws = batch_of(2, fixed)
        assert task.train(mode).augment(batch, draws)["clips"].shape[-1] == 20
    batch, draws = batch_of(2)
    assert (
        Speediness(SMALL, create_backbone("tiny3d", width=2).info).eval().augment(batch, draws)["clips"].shape[-1] == 24
    )


def test_the_versions_of_a_sample_share_their_crop_and_flip():
    columns = torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(60, 3, 48, 64)
    maker = SpeedinessClips(SMALL, True)
    task = Speediness(SMALL, create_backbone("tiny3d", width=2).info).train()
    rng = np.random.default_rng(1)
    p = maker.plan(video(), rng, rng)
    sample = maker.transform(tuple(columns[torch.from_numpy(v)] for v in p.views), p, rng, rng)
    batch = {k: v[None].repeat(4, *([1] * v.ndim)) for k, v in sample.items()}
    out = task.augment(batch, BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(4)]))["clips"]
    rising = out[:, :, 0, 0, 0, -1] > out[:, :, 0, 0, 0, 0]
    assert torch.equal(rising[:, 0], rising[:, 1])
    assert rising[:, 0].any() and not rising[:, 0].all()


def columns(height=48, width=64):
    """60 frames whose pixels are their column numbers."""
    return torch.arange(width, dtype=torch.uint8).view(1, 1, 1, width).expand(60, 3, height, width)


def test_a_whole_frame_is_squashed_in_training_and_its_middle_is_validated():
    config = SpeedinessConfig(num_frames=8, crop="whole", frame_px=32)
    for training, first, last in ((True, 0.5, 62.5), (False, 8.25, 54.75)):
        maker = SpeedinessClips(config, training)
        p = maker.plan(video(), np.random.default_rng(0), np.random.default_rng(0))
        views = tuple(columns()[torch.from_numpy(v)] for v in p.views)
        clips = maker.transform(views, p, np.random.default_rng(1), np.random.default_rng(0))["clips"].float()
        assert clips.shape == (2, 8, 3, 32, 32)
        assert float((clips - clips[:1, :1, :1, :1]).abs().max()) == 0  # every row of every frame alike
        # 64 columns become 32: cells of two columns; the middle 48 (8 to 55): cells of one and a half.
        row = clips[0, 0, 0, 0]
        assert abs(float(row[0]) - first) <= 1 and abs(float(row[-1]) - last) <= 1
        assert torch.allclose(row, torch.linspace(first, last, 32), atol=1)


def test_a_random_square_keeps_the_aspect_ratio():
    maker = SpeedinessClips(SpeedinessConfig(num_frames=8, crop_scale=0.5, frame_px=32), True)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p = maker.plan(video(), rng, rng)
        rows = torch.arange(48).view(48, 1).expand(60, 48, 64).byte()
        both = torch.stack([columns()[:, 0], rows, torch.zeros_like(rows)], dim=1)
        clip = maker.transform(tuple(both[torch.from_numpy(v)] for v in p.views), p, rng, rng)["clips"][0, 0].float()
        across, down = clip[0, 0, -1] - clip[0, 0, 0], clip[1, -1, 0] - clip[1, 0, 0]
        assert abs(float(across - down)) <= 2
        assert 24 * 31 / 32 - 2 <= float(across) <= 48


# ---- the loss


def test_head_is_the_maximum_over_space_then_the_mean_over_time():
    gen = torch.Generator().manual_seed(0)
    map_ = torch.randn(2, 3, 4, 5, 6, generator=gen, dtype=torch.float64)
    weight, bias = torch.randn(3, generator=gen, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    for b in range(2):
        logit = 0.3
        for c in range(3):
            total = 0.0
            for t in range(4):
                total += max(float(map_[b, c, t, h, w]) for h in range(5) for w in range(6))
            logit += float(weight[c]) * total / 4
        assert float(speediness_logits(map_, weight, bias)[b]) == pytest.approx(logit, abs=1e-12)


@pytest.mark.parametrize("space_pool", ["max", "mean"])
@pytest.mark.parametrize("time_pool", ["max", "mean"])
def test_the_head_pools_as_it_is_told(space_pool, time_pool):
    pools = {"max": max, "mean": lambda values: sum(values) / len(values)}
    map_ = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, bias = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    got = speediness_logits(map_, weight, bias, space_pool, time_pool)
    for b in range(2):
        logit = 0.1
        for c in range(3):
            frames = [
                pools[space_pool]([float(map_[b, c, t, h, w]) for h in range(5) for w in range(6)]) for t in range(4)
            ]
            logit += float(weight[c]) * pools[time_pool](frames)
        assert float(got[b]) == pytest.approx(logit, abs=1e-12)


def test_the_pooling_of_a_recipe_reaches_the_head():
    backbone = create_backbone("tiny3d", width=2).eval()
    batch, draws = batch_of(training=False)
    scores = set()
    for space_pool, time_pool in (("max", "mean"), ("mean", "max"), ("mean", "mean"), ("max", "max")):
        config = replace(SMALL, space_pool=space_pool, time_pool=time_pool)
        task = Speediness(config, backbone.info).eval()
        with torch.no_grad():
            task.head.weight.fill_(1.0)
            output = task(task.augment(batch, draws), backbone)
        scores.add(round(float(output.extras["sped_prob"][0, 0]), 6))
    assert len(scores) == 4


def test_mean_difference_by_hand_and_for_a_steady_mover():
    clip = torch.tensor([0.0, 0.5, 0.25]).view(1, 1, 3, 1, 1).expand(2, 3, 3, 4, 5)
    assert mean_difference(clip).tolist() == pytest.approx([(0.5 + 0.25) / 2] * 2)
    # A ramp that moves twice as fast changes twice as much.
    ramp = torch.arange(40.0).view(1, 40)
    slow = torch.stack([ramp + t for t in range(8)]).view(1, 1, 8, 1, 40)
    assert float(mean_difference(torch.stack([ramp + 2 * t for t in range(8)]).view(1, 1, 8, 1, 40))) == 2.0
    assert float(mean_difference(slow)) == 1.0


def test_validation_measures_what_a_guess_by_the_amount_of_change_scores():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = Speediness(SMALL, backbone.info).eval()
    batch, draws = batch_of(training=False)  # pixels are frame numbers: the sped-up version changes twice as much
    output = task(task.augment(batch, draws), backbone)
    difference, labels = output.scores["difference_auc"]
    assert torch.allclose(difference, (1 + labels.float()) / 255, atol=1e-5)
    assert set(task.epoch_metrics()) == set(output.scores) == {"auc", "difference_auc"}
    metric = task.epoch_metrics()["difference_auc"]
    metric.update(difference, labels)
    assert float(metric.compute()) == 1.0
    assert "difference_auc" not in task.train()(task.augment(*batch_of()), backbone).scores


def test_loss_is_binary_cross_entropy():
    logits, labels = [0.5, -2.0, 3.0], [1, 0, 0]
    expected = 0.0
    for z, y in zip(logits, labels, strict=True):
        p = 1 / (1 + math.exp(-z))
        expected -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 3
    assert float(speediness_loss(torch.tensor(logits), torch.tensor(labels))) == pytest.approx(expected, rel=1e-6)


def test_a_still_clip_scores_the_same_at_both_speeds():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = Speediness(SMALL, backbone.info).eval()
    still = torch.randint(0, 256, (4, 1, 1, 3, 32, 32), dtype=torch.uint8).expand(4, 2, 8, 3, 32, 32)
    batch = {"clips": still, "is_sped": torch.tensor([[0, 1]] * 4)}
    out = task(task.augment(batch, BatchRandom.of(0, [Ticket(1, 0, 0, i) for i in range(4)])), backbone)
    assert torch.equal(out.extras["sped_prob"][:, 0], out.extras["sped_prob"][:, 1])
    assert out.metrics["accuracy"].tolist() == [0.5] * 4


def test_every_parameter_gets_a_gradient():
    backbone = create_backbone("tiny3d", width=2)
    task = Speediness(SMALL, backbone.info)
    batch, draws = batch_of()
    task(task.augment(batch, draws), backbone).loss.backward()
    for name, parameter in [*backbone.named_parameters(), *task.named_parameters()]:
        assert parameter.grad is not None, name


def test_placebo_permutes_labels_over_clips_and_keeps_the_classes_balanced():
    task = Speediness(SMALL, create_backbone("tiny3d", width=2).info)
    batch = {"is_sped": torch.tensor([[0, 1]] * 50), "clips": torch.zeros(50, 2, 1)}
    changed = task.placebo(batch, np.random.default_rng(0))["is_sped"]
    assert int(changed.sum()) == 50
    agreement = float((changed == batch["is_sped"]).float().mean())
    assert 0.3 < agreement < 0.7
    assert batch["is_sped"].tolist() == [[0, 1]] * 50


def test_pictures_have_one_row_per_version_and_show_truth_and_score():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = Speediness(SMALL, backbone.info).eval()
    batch, draws = batch_of()
    batch = task.augment(batch, draws)
    picture = task.visualize(batch, task(batch, backbone))["clips"]
    assert picture.dtype == np.uint8
    assert picture.shape == (6 * 66, 9 * 64, 3)
    green = np.array([90, 200, 90])
    assert not (picture[18, :64] == green).all(axis=-1).any()  # the normal version: an empty bar
    assert (picture[66 + 18, :64] == green).all()  # the sped-up one: a full bar


@pytest.mark.parametrize("name", ["speediness_s3dg_ucf101", "speediness_s3dg_kinetics400"])
def test_the_papers_recipes_are_in_the_papers_setting(name):
    recipe = load_recipe(f"pretrain/{name}", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.num_frames, config.min_px, config.max_px, config.eval_px) == (64, 64, 336, 224)
    assert (config.normal_factors, config.sped_factors) == ((1.0, 1.2), (1.7, 2.2))
    assert (config.spacing, config.crop, config.same_batch, config.random_resolution) == (
        "drop_paper", "whole", True, True,
    )  # fmt: skip
    assert (config.space_pool, config.time_pool) == ("max", "mean")
    assert config.frame_px >= config.max_px  # no clip is enlarged
    backbone = create_backbone(recipe.backbone.name, **recipe.backbone.options)
    assert backbone.info.stage().stride_time == 1  # the clip keeps its length
    Speediness(config, backbone.info)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_frames": 1}, r"num_frames \(1\) must be at least 2"),
        ({"spacing": "evn"}, r"spacing \('evn'\) must be one of even, drop"),
        ({"normal_factors": (1.0, 1.8)}, r"normal_factors must end \(1.8\) below the start of sped_factors \(1.7\)"),
        ({"sped_factors": (2.2, 1.7)}, r"sped_factors \(\[2.2, 1.7\]\) must be in rising order"),
        ({"min_px": 90, "max_px": 80}, r"min_px \(90\) must be at most max_px \(80\)"),
        ({"crop_scale": 0.0}, r"crop_scale \(0.0\) must be above 0 and at most 1"),
        ({"crop": "hole"}, r"crop \('hole'\) must be one of square, whole"),
        ({"space_pool": "sum"}, r"space_pool \('sum'\) must be one of max, mean"),
        ({"time_pool": "last"}, r"time_pool \('last'\) must be one of max, mean"),
        ({"eval_frames": 1}, r"eval_frames \(1\) must be 0 or at least 2"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        Speediness(SpeedinessConfig(**options), create_backbone("tiny3d", width=2).info)
