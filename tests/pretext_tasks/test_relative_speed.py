"""Relative speed and pace: the law of the sampled clips, the losses against float64 loops, the key encoder and its queue."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.relative_speed import (
    RelativeSpeed,
    RelativeSpeedConfig,
    SpeedClips,
    draw_starts,
    nearest_mean_accuracy,
    ranking_loss,
)
from ssvid.backbones import create_backbone
from ssvid.contrast import info_nce, nearer_than_others
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import Ticket, VideoInfo
from tests.pretext_tasks.torn import whole_and_torn

SMALL = RelativeSpeedConfig(num_frames=6, frame_px=24, queue=16, embed_channels=8, momentum=0.5, jitter_prob=0.0)
PACE = replace(SMALL, motion="pace", speeds=(1, 2, 3, 4))
SPEED_ONLY = replace(SMALL, appearance_weight=0.0)
PACE_ONLY = replace(PACE, appearance_weight=0.0)
ALL = [SMALL, PACE, SPEED_ONLY, PACE_ONLY]


def video(frames=60):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def plan(config=SMALL, seed=0, frames=60):
    return SpeedClips(config, True).plan(video(frames), np.random.default_rng(seed), np.random.default_rng(9))


def built(config=SMALL):
    torch.manual_seed(0)
    backbone = create_backbone("tiny3d", width=2)
    task = RelativeSpeed(config, backbone.info)
    task.setup(backbone)
    return task, backbone


def batch_of(num=4, config=SMALL, pixels=None, training=True):
    """A batch as a worker makes it; pixels (60, 3, 48, 64) default to noise."""
    maker = SpeedClips(config, training)
    if pixels is None:
        pixels = torch.randint(0, 256, (60, 3, 48, 64), generator=torch.manual_seed(1)).byte()
    samples = []
    for i in range(num):
        rng = np.random.default_rng(i)
        p = maker.plan(video(), rng, rng)
        samples.append(maker.transform(tuple(pixels[torch.from_numpy(v)] for v in p.views), p, rng, rng))
    batch = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
    tickets = [Ticket(0, 0, 0, i) for i in range(num)]
    return batch | {"video_numbers": torch.arange(num)[:, None]}, BatchRandom.of(0, tickets)


# ---- sampling


@pytest.mark.parametrize("config", ALL)
def test_clips_fit_the_shortest_legal_video_and_keys_begin_together(config):
    shortest = SpeedClips(config, True).min_frames
    for seed in range(300):
        p = plan(config, seed, shortest + seed % 3)
        steps = [set(np.diff(view).tolist()) for view in p.views]
        assert all(len(step) == 1 and step <= set(config.speeds) for step in steps)
        assert all(len(view) == config.num_frames for view in p.views)
        assert min(v[0] for v in p.views) >= 0 and max(v[-1] for v in p.views) < shortest + seed % 3
        assert len({int(v[0]) for v in p.views[1:]}) <= 1


def test_the_target_says_which_key_has_the_anchors_speed_and_every_case_is_equally_frequent():
    cases = {}
    for seed in range(4000):
        p = plan(seed=seed)
        anchor, *keys = (int(view[1] - view[0]) for view in p.views)
        same = int(p.targets["same_speed"])
        assert keys[same] == anchor != keys[1 - same]
        cases[anchor, same] = cases.get((anchor, same), 0) + 1
    assert set(cases) == {(1, 0), (1, 1), (2, 0), (2, 1)}
    assert all(abs(n - 1000) < 5 * math.sqrt(750) for n in cases.values())


def test_every_pace_is_equally_frequent_and_the_other_clip_has_another_one():
    counts = np.zeros(4)
    for seed in range(4000):
        p = plan(PACE, seed, 100)
        anchor, key = (int(view[1] - view[0]) for view in p.views)
        assert anchor == (1, 2, 3, 4)[int(p.targets["pace"])] != key
        counts[int(p.targets["pace"])] += 1
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(750)


def test_stretches_apart_do_not_overlap_and_follow_the_stated_law():
    """Of 7 frames and spans of 2, u and v are uniform on 0..3: the earlier stretch begins at min, the later at max + 2."""
    counts: dict[tuple[int, int], int] = {}
    for seed in range(8000):
        pair = draw_starts(7, 2, True, np.random.default_rng(seed))
        assert abs(pair[0] - pair[1]) >= 2 and 0 <= min(pair) and max(pair) + 2 <= 7
        counts[pair] = counts.get(pair, 0) + 1
    expected: dict[tuple[int, int], float] = {}
    for u in range(4):
        for v in range(4):
            early, late = min(u, v), max(u, v) + 2
            for pair in ((early, late), (late, early)):
                expected[pair] = expected.get(pair, 0.0) + 8000 / 32
    assert set(counts) == set(expected)
    assert all(abs(counts[p] - expected[p]) < 5 * math.sqrt(expected[p]) for p in counts)


def test_stretches_that_may_overlap_are_each_uniform():
    pairs = np.array([draw_starts(7, 4, False, np.random.default_rng(seed)) for seed in range(4000)])
    both = np.array([[np.sum((pairs == (a, k)).all(axis=1)) for k in range(4)] for a in range(4)])
    assert np.abs(both - 250).max() < 5 * math.sqrt(250)


def test_keys_share_their_square_their_flip_and_their_colors():
    columns = torch.arange(64, dtype=torch.uint8).mul(3).view(1, 1, 1, 64).expand(60, 3, 48, 64)
    config = replace(SMALL, jitter_prob=1.0)
    task, _ = built(config)
    clips = task.train().augment(*batch_of(8, config, columns))["clips"]
    frame_BVCHW = clips[:, :, :, 0]
    assert torch.equal(frame_BVCHW[:, 1], frame_BVCHW[:, 2])
    assert not torch.equal(frame_BVCHW[:, 0], frame_BVCHW[:, 1])
    assert torch.allclose(clips, frame_BVCHW.unsqueeze(3).expand_as(clips), atol=1e-6)  # alike in all frames
    rising = frame_BVCHW[:, :, 0, 0, -1] > frame_BVCHW[:, :, 0, 0, 0]
    assert rising.any() and not rising.all() and (rising[:, 0] != rising[:, 1]).any()


def test_colors_of_each_frame_by_itself_flicker():
    gray = torch.full((60, 3, 48, 64), 128, dtype=torch.uint8)
    config = replace(PACE_ONLY, jitter_prob=1.0, jitter_each=True)
    task, _ = built(config)
    clips = task.train().augment(*batch_of(2, config, gray))["clips"]
    assert float(clips.mean(dim=(2, 4, 5)).diff(dim=2).abs().min()) > 0
    assert float(task.eval().augment(*batch_of(2, config, gray))["clips"].std()) == 0


# ---- losses


def test_ranking_loss_by_a_loop():
    gen = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 2, generator=gen, dtype=torch.float64)
    same = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    expected = 0.0
    for b in range(7):
        ahead = float(scores[b, same[b]]) - float(scores[b, 1 - same[b]])
        expected += max(0.0, 0.7 - ahead) / 7
    assert float(ranking_loss(scores, same, 0.7)) == pytest.approx(expected, abs=1e-12)
    assert float(ranking_loss(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), 2.0)) == 0.0
    assert float(ranking_loss(torch.tensor([[3.0, 1.0]]), torch.tensor([1]), 2.0)) == 4.0


def test_ranking_loss_does_not_depend_on_which_key_comes_first_nor_on_the_order_of_the_batch():
    scores = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    same = torch.tensor([0, 1, 1, 0, 0, 1])
    swapped, order = ranking_loss(scores.flip(1), 1 - same, 0.4), torch.tensor([3, 1, 5, 0, 2, 4])
    assert float(swapped) == float(ranking_loss(scores, same, 0.4))
    assert float(ranking_loss(scores[order], same[order], 0.4)) == pytest.approx(float(swapped), abs=1e-15)


def test_appearance_loss_by_a_loop():
    gen = torch.Generator().manual_seed(3)
    own = torch.randn(4, 2, generator=gen, dtype=torch.float64)
    queue = torch.randn(4, 5, generator=gen, dtype=torch.float64)
    counts = torch.tensor([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]).bool()
    expected = 0.0
    for b in range(4):
        others = sum(math.exp(float(queue[b, n])) for n in range(5) if counts[b, n])
        for k in range(2):
            positive = math.exp(float(own[b, k]))
            expected -= math.log(positive / (positive + others)) / 4
    assert float(info_nce(own, queue, counts)) == pytest.approx(expected, abs=1e-12)
    assert float(info_nce(own[1:2], queue[1:2], counts[1:2])) == 0.0  # nothing to be told from


def test_the_whole_loss_from_the_networks_own_embeddings():
    """From scratch: cosines of what the heads say, both losses, and the queue that the step before left."""
    task, backbone = built()
    task.train(), backbone.eval()
    first, draws = batch_of()
    task(task.augment(first, draws), backbone)  # fills four places of the queue
    batch = task.augment(*batch_of(pixels=torch.randint(0, 256, (60, 3, 48, 64)).byte()))
    batch["video_numbers"] = torch.tensor([[2], [3], [4], [5]])
    queue, videos = task.queue.keys_ND.clone().double(), task.queue.videos_N.clone()
    assert videos.tolist() == [0, 1, 2, 3] + [-1] * 12
    loss = float(task(batch, backbone).loss.detach())

    def unit(clip, name, heads, network):
        vector = heads[name](network(clip[None]).mean(dim=(2, 3, 4))).double().flatten()
        return vector / vector.norm()

    expected = 0.0
    with torch.no_grad():
        for b in range(4):
            anchor, *keys = batch["clips"][b]
            encoder = task.key_encoder["heads"], task.key_encoder["backbone"]
            q = unit(anchor, "motion", task.heads, backbone)
            s = [float(q @ unit(key, "motion", *encoder)) / 0.07 for key in keys]
            same = int(batch["same_speed"][b])
            expected += max(0.0, 2.0 - (s[same] - s[1 - same])) / 4
            q = unit(anchor, "appearance", task.heads, backbone)
            own = int(batch["video_numbers"][b])
            others = sum(math.exp(float(q @ queue[n]) / 0.07) for n in range(16) if videos[n] not in (-1, own))
            for key in keys:
                positive = math.exp(float(q @ unit(key, "appearance", *encoder)) / 0.07)
                expected -= math.log(positive / (positive + others)) / 4
    assert loss == pytest.approx(expected, rel=1e-4)


# ---- the key encoder and the queue


def test_the_queue_forgets_the_oldest_and_never_holds_the_own_video_as_a_negative():
    task, backbone = built(replace(SMALL, queue=6))
    task.train()
    for step in range(3):
        batch, draws = batch_of()
        batch["video_numbers"] = torch.arange(4)[:, None] + 10 * step
        task(task.augment(batch, draws), backbone)
    assert sorted(task.queue.videos_N.tolist()) == [12, 13, 20, 21, 22, 23]
    assert torch.allclose(task.queue.keys_ND.norm(dim=1), torch.ones(6))
    assert int(task.queue.place) == 0


def test_queue_is_left_alone_in_validation_and_without_gradients():
    task, backbone = built()
    batch = task.train().augment(*batch_of())
    with torch.no_grad():
        task(batch, backbone)
    task.eval()(batch, backbone)
    assert task.queue.videos_N.tolist() == [-1] * 16


def test_a_key_depends_on_its_own_clip_alone():
    task, _ = built()
    task.train()
    clips = task.augment(*batch_of())["clips"]
    for name, together in task.keys(clips).items():
        alone = torch.cat([task.keys(clip[None])[name] for clip in clips])
        assert torch.allclose(together, alone, atol=1e-5)
        assert together.shape == (4, 2, 8)


def test_the_key_encoder_follows_weights_and_statistics():
    task, backbone = built()
    before = {name: value.clone() for name, value in task.key_encoder.state_dict().items()}
    with torch.no_grad():
        for value in [*backbone.state_dict().values(), *task.heads.state_dict().values()]:
            value.add_(2)
    task.after_step(backbone, 1)
    after = task.key_encoder.state_dict()
    assert set(before) == set(after) and len(before) > 10
    for name, value in before.items():
        moved = 1.0 if value.is_floating_point() else 2.0  # half the way; counts are copied
        assert torch.allclose(after[name].double(), value.double() + moved), name
    assert not any(p.requires_grad for p in task.key_encoder.parameters())
    assert not task.train().key_encoder.training


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_keys_and_queue(tmp_path, monkeypatch):
    whole, torn = whole_and_torn("relative_speed", RelativeSpeed, tmp_path, monkeypatch, "task.options.queue=24")
    assert int(whole.task_state["queue.place"]) == 36 % 24
    for one, other in ((whole.task_state, torn.task_state), (whole.backbone_state, torn.backbone_state)):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_without_appearance_nothing_is_kept_for_it():
    task, _ = built(PACE_ONLY)
    assert set(task.state_dict()) == {"heads.motion.weight", "heads.motion.bias"}
    task, _ = built(SPEED_ONLY)
    assert not [name for name in task.state_dict() if "queue" in name or "appearance" in name]


@pytest.mark.parametrize("config", ALL)
def test_the_contract_holds_for_every_question(config):
    check_task(RelativeSpeed(replace(config, queue=32), create_backbone("tiny3d").info))


# ---- canaries


@pytest.mark.parametrize("config", ALL)
def test_still_clips_stay_at_chance(config):
    task, backbone = built(config)
    task.eval(), backbone.eval()
    still = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8).expand(60, 3, 48, 64)
    output = task(task.augment(*batch_of(200, config, still, training=False)), backbone)
    if config.motion == "relative":
        assert output.metrics["accuracy"].tolist() == [0.5] * 200
        assert output.metrics["difference_accuracy"].tolist() == [0.5] * 200
    else:
        assert float((output.extras["scores"] - output.extras["scores"][0]).abs().max()) < 1e-5
        assert abs(float(output.metrics["accuracy"].mean()) - 0.25) < 0.15


def test_the_blind_guess_solves_a_steady_pan():
    ramp = (torch.arange(64).view(1, 64) + 2 * torch.arange(60).view(60, 1)).byte()
    pan = ramp.view(60, 1, 1, 64).expand(60, 3, 48, 64)
    for config in (SPEED_ONLY, PACE_ONLY):
        task, backbone = built(config)
        task.eval(), backbone.eval()
        output = task(task.augment(*batch_of(40, config, pan, training=False)), backbone)
        if config.motion == "relative":
            assert output.metrics["difference_accuracy"].tolist() == [1.0] * 40
        else:
            metric = task.epoch_metrics()["difference_accuracy"]
            metric.update(*output.scores["difference_accuracy"])
            assert float(metric.compute()) == 1.0


# ---- the placebo


@pytest.mark.parametrize("config", ALL)
def test_a_placebo_takes_answer_and_partner_from_one_other_video(config):
    task, _ = built(config)
    batch = task.train().augment(*batch_of(8, config))
    batch[task.asked] = torch.arange(8)
    changed = task.placebo(batch, np.random.default_rng(0))
    assert torch.equal(changed[task.asked], changed["partner"])
    assert sorted(changed["partner"].tolist()) == list(range(8))
    assert all(int(p) != i for i, p in enumerate(changed["partner"]))
    assert {key for key in batch if not torch.equal(batch[key], changed[key])} == {task.asked, "partner"}


# ---- measures


def test_appearance_accuracy_by_hand():
    anchors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    videos = torch.tensor([0, 1, 0])
    # Anchor 0: own 1 against .6 of video 1: right. Anchor 1: own .8 against 0 (right) and 1 (wrong). Anchor 2: own 0 against .6.
    assert nearer_than_others(anchors, keys, videos) == pytest.approx(2 / 4)
    assert nearer_than_others(anchors, keys, torch.zeros(3)) == 0.5
    assert nearer_than_others(anchors[:2], keys[:2], videos[:2]) == 1.0


def test_appearance_is_measured_alike_however_a_validation_is_cut():
    task, backbone = built()
    task.eval(), backbone.eval()
    batch = task.augment(*batch_of(6, training=False))
    values = []
    for parts in ([slice(0, 6)], [slice(0, 1), slice(1, 4), slice(4, 6)]):
        metric = task.epoch_metrics()["appearance_accuracy"]
        for part in parts:
            cut = {key: value[part] for key, value in batch.items()} | {"partner": torch.arange(part.stop - part.start)}
            metric.update(*task(cut, backbone).scores["appearance_accuracy"])
        values.append(float(metric.compute()))
    assert values[0] == values[1]


def test_nearest_mean_accuracy_by_hand():
    values, classes = torch.tensor([0.0, 1.0, 2.0, 9.0, 11.0, 0.6]), torch.tensor([0, 0, 0, 3, 3, 3])
    # Means 1 and 6.87: all but the last are nearest to their own.
    assert nearest_mean_accuracy(values, classes) == pytest.approx(5 / 6)


def test_pictures_show_anchor_and_keys():
    for config, num_rows in ((SMALL, 3), (PACE_ONLY, 1)):
        task, backbone = built(config)
        batch = task.eval().augment(*batch_of(2, config, training=False))
        picture = task.visualize(batch, task(batch, backbone.eval()))["clips"]
        assert picture.dtype == np.uint8
        assert picture.shape == (2 * (num_rows * 64 + 6), 150 + 6 * 64, 3)


# ---- recipes and options


def test_the_papers_recipes_are_in_the_papers_setting():
    recipe = load_recipe("pretrain/relative_speed_r3d18_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.num_frames, config.frame_px, config.speeds, config.apart) == (16, 112, (1, 2), False)
    assert (config.queue, config.momentum, config.temperature, config.margin) == (16384, 0.999, 0.07, 2.0)
    assert (config.embed_channels, config.motion_weight, config.appearance_weight) == (128, 1.0, 1.0)
    recipe = load_recipe("pretrain/pace_s3dg_ucf101", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.motion, config.speeds, config.num_frames, config.frame_px) == ("pace", (1, 2, 3, 4), 64, 224)
    assert config.jitter_each and config.jitter == (0.8, 0.8, 0.8, 0.2) and config.jitter_prob == 0.8
    RelativeSpeed(config, create_backbone(recipe.backbone.name, **recipe.backbone.options).info)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"motion": "relativ"}, r"motion \('relativ'\) must be one of relative, pace \(did you mean 'relative'\?\)"),
        ({"speeds": (2,)}, r"speeds \(\[2\]\) must be two or more different numbers"),
        ({"speeds": (2, 2)}, r"speeds \(\[2, 2\]\) must be two or more different numbers"),
        ({"speeds": (0, 2)}, r"speeds \(\[0, 2\]\) must be a list, each item at least 1"),
        ({"num_frames": 1}, r"num_frames \(1\) must be at least 2"),
        ({"momentum": 1.0}, r"momentum \(1.0\) must be at least 0 and below 1"),
        ({"queue": 0}, r"queue \(0\) must be at least 1"),
        ({"motion_weight": 0.0}, r"motion_weight \(0.0\) must be above 0"),
        ({"frame_px": 0}, r"frame_px \(0\) must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        RelativeSpeed(RelativeSpeedConfig(**options), create_backbone("tiny3d", width=2).info)
