"""The arrow of time: what is played which way, the loss and the heat map against float64 loops, cues that must not be there."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.arrow_of_time import (
    ActivationHead,
    ArrowClips,
    ArrowOfTime,
    ArrowOfTimeConfig,
    arrow_loss,
    arrow_metrics,
    class_activation,
    grouped_maps,
    inner_square,
    played_backward,
    speeding_up,
)
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import Ticket, VideoInfo

SMALL = ArrowOfTimeConfig(num_frames=8, frame_px=32, groups=2, layers=1)
PLAIN = replace(SMALL, groups=1, layers=0, stabilize=False, flip=False)


def video(frames=40, channels=3):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64, channels=channels)


def plan(config=SMALL, seed=0, training=True, frames=40):
    return ArrowClips(config, training).plan(video(frames), np.random.default_rng(seed), np.random.default_rng(9))


def task_of(config=SMALL, seed=0, **options):
    torch.manual_seed(seed)
    backbone = create_backbone("tiny3d", width=2, **options).eval()
    return ArrowOfTime(config, backbone.info).eval(), backbone


def batch_of(frames_NTCHW, config=SMALL, training=False):
    """A batch as a worker makes it, one sample of each of these videos, and its draws."""
    maker, samples = ArrowClips(config, training), []
    for i, frames_TCHW in enumerate(frames_NTCHW):
        rng = np.random.default_rng(i)
        p = maker.plan(video(len(frames_TCHW)), rng, rng)
        samples.append(maker.transform((frames_TCHW[torch.from_numpy(p.views[0])],), p, rng, rng))
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    return batch, BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(len(samples))])


def asked(task, backbone, batch, draws):
    with torch.no_grad():
        augmented = task.augment(dict(batch), draws)
        return augmented, task(augmented, backbone)


def noise(num=3, frames=8, channels=3, low=0):
    shape = (num, frames, channels, 48, 64)
    return torch.randint(low, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# ---- which frames, which way, which part of the picture


@pytest.mark.parametrize("stride", [1, 3])
def test_a_clip_rises_by_its_stride_and_lies_anywhere_in_the_video(stride):
    config = replace(SMALL, stride_frames=stride)
    starts = []
    for seed in range(2000):
        p = plan(config, seed)
        (frames,) = p.views
        assert np.array_equal(np.diff(frames), np.full(7, stride)) and 0 <= frames[0] and frames[-1] < 40
        assert p.targets["is_backward"].tolist() == [0, 1]
        starts.append(int(frames[0]))
    counts = np.bincount(starts, minlength=40 - 7 * stride)
    assert len(counts) == 40 - 7 * stride
    expected = 2000 / len(counts)
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_without_same_batch_one_direction_is_a_fair_coin_in_training_alone():
    config = replace(SMALL, same_batch=False)
    drawn = [plan(config, seed).targets["is_backward"].tolist() for seed in range(2000)]
    assert {tuple(d) for d in drawn} == {(0,), (1,)}
    assert abs(sum(d[0] for d in drawn) - 1000) < 4 * math.sqrt(500)
    assert plan(config, training=False).targets["is_backward"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("size", "share", "middle"),
    [
        ((48, 64), 0.0, (0, 8, 48)),
        ((48, 64), 0.0625, (3, 11, 42)),
        ((60, 40), 0.01, (11, 1, 38)),
        ((40, 40), 0.4, (16, 16, 8)),
    ],
)
def test_squares_keep_away_from_the_border(size, share, middle):
    assert inner_square(*size, share, None, 1.0) == middle
    height, width = size
    down, right = math.ceil(share * height), math.ceil(share * width)
    edges = set()
    for seed in range(300):
        top, left, side = inner_square(height, width, share, np.random.default_rng(seed), 0.8)
        assert down <= top and top + side <= height - down and right <= left and left + side <= width - right
        assert side >= round(0.8 * min(height - 2 * down, width - 2 * right))
        edges |= {top - down, left - right}
    assert 0 in edges  # all of the rest is used


def test_backward_is_the_same_clip_in_reverse():
    frames = torch.arange(0, 240, 6, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 48, 64)
    task, _ = task_of(PLAIN)
    batch, draws = batch_of([frames, frames], PLAIN)
    clips = task.augment(batch, draws)["clips"][:, :, 0, :, 5, 5] * 255
    for b in range(2):
        forward, backward = clips[b].round().int().tolist()
        assert np.array_equal(np.diff(forward), [6] * 7) and backward == forward[::-1]


def test_flow_played_backward_is_opposite_and_twice_backward_is_forward():
    clips = torch.rand(2, 2, 5, 4, 4, dtype=torch.float64)
    backward = played_backward(clips)
    rest = 128 / 255
    for t in range(5):
        torch.testing.assert_close(backward[:, :, t] - rest, -(clips[:, :, 4 - t] - rest), rtol=0, atol=1e-15)
    torch.testing.assert_close(played_backward(backward), clips)
    pictures = torch.rand(2, 3, 5, 4, 4)
    assert torch.equal(played_backward(played_backward(pictures)), pictures)
    assert torch.equal(played_backward(pictures)[:, :, 0], pictures[:, :, 4])


@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("stabilize", [False, True])
def test_a_video_that_is_itself_reversed_gives_both_clips_in_each_others_place(channels, stabilize):
    """Cuts, guards and network know nothing of where the file begins."""
    config = replace(SMALL, stabilize=stabilize)
    task, backbone = task_of(config, in_channels=channels)
    frames = noise(channels=channels, low=1)
    opposite = frames.flip(1) if channels == 3 else (256 - frames.flip(1).int()).to(torch.uint8)
    clips, logits = zip(
        *(
            (augmented["clips"], output.extras["logits"])
            for augmented, output in (asked(task, backbone, *batch_of(f, config)) for f in (frames, opposite))
        ),
        strict=True,
    )
    torch.testing.assert_close(clips[1], clips[0].flip(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[1], logits[0].flip(1), rtol=1e-3, atol=1e-3)
    assert (clips[0][:, 0] - clips[0][:, 1]).abs().max() > 0.3


# ---- what must stay at chance


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, stabilize=False), PLAIN], ids=["guarded", "camera", "plain"])
@pytest.mark.parametrize("kind", ["still", "palindrome"])
def test_where_time_has_no_direction_the_network_has_no_answer(config, kind):
    frames = noise()
    frames = (
        frames[:, :1].expand_as(frames) if kind == "still" else torch.cat([frames[:, :4], frames[:, :4].flip(1)], 1)
    )
    task, backbone = task_of(config)
    _, output = asked(task, backbone, *batch_of(frames, config))
    torch.testing.assert_close(output.extras["logits"][:, 0], output.extras["logits"][:, 1], rtol=0, atol=1e-5)
    if kind == "still":
        assert output.metrics["accuracy"].tolist() == [0.5] * 3
        assert output.metrics["pair_accuracy"].tolist() == [0.5] * 3


def with_rising_border(width=3):
    """Still pictures whose outermost pixels grow brighter in time."""
    frames = noise()[:, :1].repeat(1, 8, 1, 1, 1)
    for t in range(8):
        frame = frames[:, t]
        for edge in (frame[..., :width, :], frame[..., -width:, :], frame[..., :width], frame[..., -width:]):
            edge.fill_(20 * t)
    return frames


def test_a_border_that_tells_the_direction_is_cut_off():
    for config, is_told in ((SMALL, False), (replace(SMALL, border_share=0.0), True)):
        for training in (True, False):
            batch, draws = batch_of(with_rising_border(), config, training)
            task, backbone = task_of(config)
            clips = task.train(training).augment(batch, draws)["clips"]
            assert bool((clips[:, 0] - clips[:, 1]).abs().max() > 0.02) == is_told or (training and is_told)
    task, backbone = task_of(SMALL)
    _, output = asked(task, backbone, *batch_of(with_rising_border(), SMALL))
    assert output.metrics["pair_accuracy"].tolist() == [0.5] * 3


def test_a_camera_that_always_zooms_in_is_taken_out():
    """Of a still scene, what differs between both directions is a tenth of what it was."""
    texture = torch.nn.functional.interpolate(noise(1, 1)[0].float()[..., ::6, ::6], (192, 256), mode="bicubic").clamp(
        0, 255
    )
    middle = [texture[:, :, 4 * t : 192 - 4 * t, 16 * t // 3 : 256 - 16 * t // 3] for t in range(8)]
    frames = torch.cat([torch.nn.functional.interpolate(m, (48, 64), mode="bilinear") for m in middle]).byte()[None]
    apart = {}
    for stabilize in (False, True):
        config = replace(SMALL, stabilize=stabilize)
        task, _ = task_of(config)
        clips = task.augment(*batch_of(frames, config))["clips"]
        kept = (clips != 0).all(dim=3).all(dim=2).all(dim=1)[0]
        apart[stabilize] = float((clips[0, 0] - clips[0, 1]).abs()[..., kept].mean())
    assert kept.float().mean() > 0.5
    assert apart[True] < 0.25 * apart[False]


# ---- the loss, the head, the heat map


def test_loss_is_binary_cross_entropy():
    logits, labels = [[0.5, -2.0], [3.0, 0.25]], [[0, 1], [0, 1]]
    expected = 0.0
    for z, y in ((0.5, 0), (-2.0, 1), (3.0, 0), (0.25, 1)):
        p = 1 / (1 + math.exp(-z))
        expected -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 4
    got = arrow_loss(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels))
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_the_mean_of_the_heat_map_is_a_linear_layer_on_the_mean_of_the_features():
    gen = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, 6, generator=gen, dtype=torch.float64)
    weight, bias = torch.randn(3, generator=gen, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    heat = class_activation(features, weight, bias)
    for b in range(2):
        logit = 0.3
        for c in range(3):
            pooled = sum(float(features[b, c, t, h, w]) for t in range(4) for h in range(5) for w in range(6)) / 120
            logit += float(weight[c]) * pooled
        assert float(heat[b].mean()) == pytest.approx(logit, abs=1e-12)
        at = 0.3 + sum(float(weight[c] * features[b, c, 1, 2, 3]) for c in range(3))
        assert float(heat[b, 1, 2, 3]) == pytest.approx(at, abs=1e-12)


@pytest.mark.parametrize("layers", [0, 2])
def test_the_heat_map_of_the_whole_network_is_exact(layers):
    """Its mean is the logit that the same network gives with global pooling before its last layer: log p/(1-p) of backward."""
    task, backbone = task_of(replace(SMALL, layers=layers))
    task, backbone = task.double(), backbone.double()
    augmented, _ = asked(*task_of(), *batch_of(noise()))
    clips = augmented["clips"].double()
    with torch.no_grad():
        output = task({**augmented, "clips": clips}, backbone)
        features = task.head.layers(grouped_maps(clips.flatten(0, 1), 2, backbone, None))
        pooled = task.head.last(features.mean(dim=(2, 3, 4)))[:, 0].view(3, 2)
    heat = output.extras["heat"]
    torch.testing.assert_close(heat.mean(dim=(2, 3, 4)), pooled, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output.extras["logits"], pooled, rtol=1e-12, atol=1e-12)
    prob = pooled.sigmoid()
    torch.testing.assert_close(heat.mean(dim=(2, 3, 4)), prob.log() - (1 - prob).log(), rtol=1e-9, atol=1e-9)


def test_groups_go_through_the_network_by_themselves_and_stand_side_by_side():
    _, backbone = task_of()
    clips = torch.rand(2, 3, 8, 32, 32)
    with torch.no_grad():
        maps = grouped_maps(clips, 2, backbone, "stage2")
        alone = [backbone(clips[:, :, half], "stage2") for half in (slice(0, 4), slice(4, 8))]
        torch.testing.assert_close(maps, torch.cat(alone, dim=1))
        torch.testing.assert_close(
            grouped_maps(clips.flip(0), 2, backbone, "stage2"), maps.flip(0), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(grouped_maps(clips, 1, backbone, None), backbone(clips))


def test_the_head_is_convolution_relu_normalization_dropout_twice_and_one_number():
    head = ActivationHead(6, 2, 0.5)
    kinds = [type(module).__name__ for module in head.layers]
    assert kinds == ["Conv3d", "ReLU", "BatchNorm3d", "Dropout"] * 2
    assert [head.layers[i].kernel_size for i in (0, 4)] == [(1, 3, 3)] * 2
    assert head(torch.rand(2, 6, 3, 5, 5)).shape == (2, 3, 5, 5)


def test_metrics_by_hand():
    logits = torch.tensor([[-1.0, 2.0], [0.5, 0.2], [1.0, 1.0], [-3.0, -1.0]])
    found = arrow_metrics(logits, torch.tensor([[0, 1]] * 4))
    assert found["accuracy"].tolist() == [1.0, 0.5, 0.5, 0.5]
    assert found["pair_accuracy"].tolist() == [1.0, 0.0, 0.5, 1.0]
    assert set(arrow_metrics(logits[:, :1], torch.tensor([[1]] * 4))) == {"accuracy"}


def test_a_guess_by_motion_that_grows_by_hand_and_for_a_braking_mover():
    clip = torch.tensor([0.0, 0.5, 0.75, 0.85, 0.9]).view(1, 1, 5, 1, 1).expand(2, 3, 5, 4, 4)
    assert speeding_up(clip).tolist() == pytest.approx([(0.1 + 0.05) / 2 - (0.5 + 0.25) / 2] * 2)
    assert speeding_up(clip.flip(2)).tolist() == pytest.approx([0.3] * 2)
    flow = torch.full((1, 2, 3, 4, 4), 128 / 255)
    flow[:, 0, 0] += 0.3
    flow[:, 1, 0] += 0.4  # of length 0.5, then at rest
    assert speeding_up(flow).tolist() == pytest.approx([-0.5])
    assert speeding_up(played_backward(flow)).tolist() == pytest.approx([0.5])


def test_validation_measures_that_guess_and_training_does_not():
    task, backbone = task_of()
    augmented, output = asked(task, backbone, *batch_of(noise()))
    assert set(output.scores) == set(task.epoch_metrics()) == {"auc", "speeding_auc"}
    assert set(task.chance()) == {"accuracy", "pair_accuracy", "auc"}
    assert "speeding_auc" not in task.train()(augmented, backbone).scores


@pytest.mark.parametrize("same_batch", [True, False])
def test_every_parameter_gets_a_gradient(same_batch):
    config = replace(SMALL, same_batch=same_batch)
    task, backbone = task_of(config)
    batch, draws = batch_of(noise(), config, training=True)
    task.train()(task.augment(batch, draws), backbone.train()).loss.backward()
    for name, parameter in [*backbone.named_parameters(), *task.named_parameters()]:
        assert parameter.grad is not None, name


def test_a_flip_is_one_for_both_directions_and_mirrors_half_of_the_samples():
    columns = torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(8, 3, 48, 64)
    config = replace(PLAIN, flip=True)
    task, _ = task_of(config)
    batch, draws = batch_of([columns] * 16, config, training=True)
    clips = task.train().augment(batch, draws)["clips"]
    rising = clips[:, :, 0, 0, 0, -1] > clips[:, :, 0, 0, 0, 0]
    assert torch.equal(rising[:, 0], rising[:, 1]) and 3 < int(rising[:, 0].sum()) < 13


def test_a_placebo_exchanges_directions_between_videos_and_keeps_them_balanced():
    task, _ = task_of()
    batch = {"is_backward": torch.tensor([[0, 1]] * 50), "clips": torch.zeros(50, 2, 1)}
    changed = task.placebo(batch, np.random.default_rng(0))["is_backward"]
    assert int(changed.sum()) == 50 and 0.3 < float((changed == batch["is_backward"]).float().mean()) < 0.7


def test_the_contract_holds_for_flow_and_one_direction_a_batch():
    check_task("arrow_of_time", same_batch=False, layers=0, groups=1)


def test_pictures_show_each_clip_above_its_heat_and_frame_the_verdict():
    task, backbone = task_of()
    augmented, output = asked(task, backbone, *batch_of(noise()))
    picture = task.visualize(augmented, output)["clips"]
    assert picture.dtype == np.uint8 and picture.shape == (6 * (2 * 64 + 6), 132 + 8 * 64, 3)
    for place, logit in enumerate(output.extras["logits"].flatten().tolist()):
        is_right = (logit > 0) == bool(place % 2)
        assert (picture[134 * place] == ((60, 170, 80) if is_right else (210, 60, 60))).all()


def test_the_papers_recipe_is_in_the_papers_setting():
    recipe = load_recipe("pretrain/arrow_of_time_cnn_m_ucf101", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.num_frames, config.groups, config.frame_px, config.layers, config.dropout) == (20, 2, 224, 2, 0.5)
    assert config.same_batch and config.border_share > 0 and config.stabilize
    assert (recipe.data.modality, recipe.data.flow.short_side_px, recipe.data.flow.symmetric) == ("flow", 256, True)
    assert recipe.optim.base_lr * recipe.loader.global_batch / 256 == pytest.approx(0.01, rel=1e-3)
    backbone = create_backbone(recipe.backbone.name, **recipe.backbone.options)
    assert backbone.info.num_frames == 10  # each group is one stack of 20 channels
    head = ArrowOfTime(config, backbone.info).head
    assert head.last.in_features == 2 * backbone.info.stage().channels == 1024


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_frames": 1, "groups": 1}, r"num_frames \(1\) must be at least 2"),
        ({"num_frames": 15}, r"num_frames \(15\) must be a multiple of groups \(2\)"),
        ({"num_frames": 8, "groups": 8}, r"num_frames \(8\) must be at least 16: 2 for each of 8 groups"),
        ({"border_share": 0.5}, r"border_share \(0.5\) must be at least 0 and below 0.5"),
        ({"crop_scale": 0.0}, r"crop_scale \(0.0\) must be above 0 and at most 1"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must be at least 0 and below 1"),
        ({"groups": 0}, r"groups \(0\) must be at least 1"),
        ({"layers": -1}, r"layers \(-1\) must be at least 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    backbone = create_backbone("tiny3d", width=2, input="difference")
    with pytest.raises(RecipeError, match=text):
        ArrowOfTime(ArrowOfTimeConfig(**options), backbone.info)


def test_a_clip_that_is_asked_about_is_answered_as_in_validation():
    task, backbone = task_of(PLAIN)
    videos = torch.randint(0, 256, (3, 8, 3, 32, 32), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    batch, draws = batch_of(videos, PLAIN)
    seen = task.augment(batch, draws)
    with torch.no_grad():
        logits_BV = task(seen, backbone).extras["logits"]
        answers = [task.answer(seen["clips"][:, v], backbone) for v in range(2)]
    for v, answer in enumerate(answers):
        torch.testing.assert_close(answer.logits_B, logits_BV[:, v], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(answer.exact_BTHW.sum(dim=(2, 3)).mean(dim=1), answer.logits_B, rtol=1e-5, atol=1e-6)
    assert (task.clip_question().num_frames, task.clip_question().says) == (8, "played backward")
