"""Clip order: where the clips of a window lie, in which orders they are shown, and that nothing but order tells the order."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from pretext_tasks.clip_order import ClipOrder, ClipOrderClips, ClipOrderConfig, window_offsets
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.testing import check_task
from ssvid.types import VideoInfo
from tests.pretext_tasks.batches import made_by

SMALL = {"num_frames": 4, "gap_frames": 2, "frame_px": 32}
FRAMES = 40


def config(**options):
    return ClipOrderConfig(**{**SMALL, **options})


def video(frames=FRAMES):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def plan(seed=0, training=True, frames=FRAMES, **options):
    return ClipOrderClips(config(**options), training).plan(
        video(frames), np.random.default_rng(seed), np.random.default_rng(9)
    )


def batch_of(num=3, training=True, pixels=None, **options):
    return made_by(ClipOrderClips(config(**options), training), video(), num, pixels)


def task_of(backbone=None, **options):
    return ClipOrder(config(**options), (backbone or create_backbone("tiny3d", width=2)).info)


# ---- the construction


@pytest.mark.parametrize(("N", "T", "stride", "gap"), [(3, 16, 1, 8), (3, 16, 2, 8), (2, 1, 1, 0), (4, 3, 3, 1)])
def test_the_clips_of_a_window_do_not_touch(N, T, stride, gap):
    offsets = window_offsets(N, T, stride, gap)
    frame, expected = 0, []
    for _ in range(N):  # walking through the video
        expected.append([frame + stride * t for t in range(T)])
        frame = expected[-1][-1] + 1 + gap
    assert offsets.tolist() == expected
    assert ClipOrderClips(ClipOrderConfig(N, T, stride, gap), True).min_frames == expected[-1][-1] + 1


def test_the_window_of_the_paper_is_64_frames():
    assert ClipOrderClips(ClipOrderConfig(), True).min_frames == 3 * 16 + 2 * 8


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("every", [True, False])
def test_the_class_says_in_which_order_the_clips_are_shown(training, every):
    for seed in range(100):
        p = plan(seed, training, every_order=every)
        assert np.diff(p.views[0]).min() >= 1  # in time, whatever is asked
        starts = p.views[0].reshape(3, 4)[:, 0]
        for order, label in zip(p.targets["order"], p.targets["order_class"], strict=True):
            shown = starts[order].tolist()
            ranks = tuple(sorted(shown).index(s) for s in shown)
            assert list(itertools.permutations(range(3)))[label] == ranks
        assert len(p.targets["order"]) == (6 if every or not training else 1)


def test_windows_start_anywhere_and_their_order_is_independent_of_where():
    length = ClipOrderClips(config(), True).min_frames
    plans = [plan(s, frames=length + 3) for s in range(2400)]
    counts = np.zeros((4, 6))
    for p in plans:
        counts[p.views[0][0], p.targets["order_class"][0]] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 49.7  # chi square of 23 degrees of freedom, p = 0.001
    assert {int(plan(s, frames=length).views[0][0]) for s in range(20)} == {0}


def test_a_plan_is_a_pure_function_of_its_seed_and_the_maker_travels():
    assert np.array_equal(plan(5).views[0], plan(5).views[0])
    assert plan(5).targets["order_class"] == plan(5).targets["order_class"]
    assert pickle.loads(pickle.dumps(ClipOrderClips(config(), True))).min_frames == 16


# ---- pixels


def test_pixels_stay_with_their_frames():
    for training in (True, False):
        batch, _ = batch_of(4, training)
        assert batch["clips"].dtype == torch.uint8 and batch["clips"].shape == (4, 3, 4, 3, 32, 32)
        for i in range(4):
            assert batch["clips"][i, :, :, 0, 0, 0].flatten().tolist() == plan(i, training).views[0].tolist()


def columns():
    return torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(FRAMES, 3, 48, 64)


def test_each_clip_has_a_square_of_its_own_that_all_its_frames_share():
    batch, _ = batch_of(16, pixels=columns())
    lefts = batch["clips"][:, :, :, 0, 0, 0].long()
    assert (lefts == lefts[:, :, :1]).all()
    assert (lefts[:, 0, 0] != lefts[:, 1, 0]).any() and (lefts[:, 1, 0] != lefts[:, 2, 0]).any()
    same, _ = batch_of(16, pixels=columns(), same_crop=True)
    lefts = same["clips"][:, :, 0, 0, 0, 0].long()
    assert (lefts == lefts[:, :1]).all() and len(set(lefts[:, 0].tolist())) > 4


def test_the_place_of_a_square_is_independent_of_time_and_inside():
    lefts = torch.cat([batch_of(60, pixels=columns(), crop_scale=0.5, frame_px=24)[0]["clips"][:, :, 0, 0, 0, 0]])
    assert lefts.min() >= 0 and lefts.max() <= 40
    means = lefts.double().mean(dim=0)
    assert (means - 20).abs().max() < 4 * math.sqrt((41**2 - 1) / 12 / 60)


def test_validation_takes_the_middle_square_and_mirrors_nothing():
    batch, draws = batch_of(3, training=False, pixels=columns(), crop_scale=1.0, frame_px=48)
    clips = task_of(frame_px=48, flip=True).eval().augment(batch, draws)["clips"]
    assert clips.shape == (3, 3, 3, 4, 48, 48)
    assert (clips[0, 2, 0, 0, 0] * 255).round().tolist() == list(range(8, 56))


def test_one_mirror_for_the_whole_window():
    batch, draws = batch_of(16, pixels=columns(), same_crop=True)
    clips = task_of(flip=True).train().augment(batch, draws)["clips"]
    rising = clips[:, :, 0, 0, 0, -1] > clips[:, :, 0, 0, 0, 0]
    assert (rising == rising[:, :1]).all() and rising.any() and not rising.all()
    still = task_of().train().augment(batch, draws)["clips"]
    assert bool((still[..., -1] > still[..., 0]).all())


# ---- what tells the order


def test_where_nothing_moves_every_order_gets_the_same_answer():
    """The canary of static clips: right once in six times, in every window, whatever the weights are."""
    backbone = create_backbone("tiny3d", width=2).eval()
    still = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8).expand(FRAMES, 3, 48, 64)
    batch, draws = batch_of(4, training=False, pixels=still)
    task = task_of(grid=2).eval()
    output = task(task.augment(batch, draws), backbone)
    assert (output.extras["said"] == output.extras["said"][:, :1]).all()
    assert output.metrics["accuracy"].tolist() == pytest.approx([1 / 6] * 4)
    assert output.metrics["pixel_accuracy"].tolist() == pytest.approx([1 / 6] * 4)


def test_in_training_static_clips_tell_nothing_by_their_squares():
    """With a square for each clip the guess from pixels stays at chance: where a clip was cut out says nothing of when."""
    backbone = create_backbone("tiny3d", width=2)
    still = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8).expand(FRAMES, 3, 48, 64)
    batch, draws = batch_of(150, pixels=still, every_order=True)
    task = task_of().train()
    right = task(task.augment(batch, draws), backbone).metrics["pixel_accuracy"]
    assert abs(float(right.mean()) - 1 / 6) < 4 * float(right.std()) / math.sqrt(150) + 1e-6


def test_showing_clips_in_another_order_is_moving_the_clips():
    """Exact: the answer depends on the clips as they are shown, not on where they stand in the batch."""
    backbone = create_backbone("tiny3d", width=2).eval()
    pixels = torch.randint(0, 256, (FRAMES, 3, 48, 64), dtype=torch.uint8)
    batch, draws = batch_of(2, training=False, pixels=pixels)
    task = task_of(grid=2).eval()
    batch = task.augment(batch, draws)
    said = task(batch, backbone).extras["said"]
    for v in range(6):
        order = batch["order"][:, v]
        moved = torch.stack([clips[o] for clips, o in zip(batch["clips"], order, strict=True)])
        alone = {
            **batch,
            "clips": moved,
            "order": torch.arange(3).expand(2, 1, 3),
            "order_class": torch.full((2, 1), v),
        }
        assert torch.equal(task(alone, backbone).extras["said"][:, 0], said[:, v])


def test_a_batch_in_another_order_gives_the_same_answers():
    backbone = create_backbone("tiny3d", width=2).eval()
    pixels = torch.randint(0, 256, (FRAMES, 3, 48, 64), dtype=torch.uint8)
    batch, draws = batch_of(4, training=False, pixels=pixels)
    task = task_of().eval()
    batch = task.augment(batch, draws)
    forward = task(batch, backbone)
    backward = task({k: v.flip(0) for k, v in batch.items()}, backbone)
    assert torch.equal(forward.extras["said"], backward.extras["said"].flip(0))
    assert forward.loss.item() == pytest.approx(backward.loss.item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"every_order": True, "grid": 2, "num_clips": 4, "dropout": 0.0}])
def test_every_parameter_gets_a_gradient(options):
    backbone = create_backbone("tiny3d", width=2)
    task = task_of(backbone, **options)
    batch, draws = batch_of(**options)
    task(task.augment(batch, draws), backbone).loss.backward()
    for name, parameter in [*backbone.named_parameters(), *task.named_parameters()]:
        assert parameter.grad is not None, name


def test_the_placebo_changes_the_classes_alone_and_is_right_by_chance():
    task = task_of()
    truth, order = torch.arange(6).repeat(400, 1), torch.arange(7200).view(400, 6, 3)
    changed = task.placebo({"order_class": truth, "order": order}, np.random.default_rng(0))
    assert torch.equal(changed["order"], order)
    right = (changed["order_class"] == truth).double().mean()
    assert abs(float(right) - 1 / 6) < 4 * math.sqrt(5 / 36 / 2400)


def test_pictures_show_the_first_and_last_frame_of_each_clip():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = task_of().eval()
    batch, draws = batch_of(2, training=False)
    batch = task.augment(batch, draws)
    picture = task.visualize(batch, task(batch, backbone))["orders"]
    assert picture.shape == (2 * (2 * 72 + 8), 84 + 3 * 2 * 72, 3)
    start = plan(0, False).views[0][0]
    shown = [int(picture[36, 84 + 144 * place + 36, 0]) for place in range(3)]
    assert shown == [start + 6 * n for n in (0, 2, 1)]  # the second of the six orders


# ---- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_clips": 5}, r"num_clips \(5\) must be one of 2, 3, 4"),
        ({"num_frames": 0}, r"num_frames \(0\) must be at least 1"),
        ({"gap_frames": -1}, r"gap_frames \(-1\) must be at least 0"),
        ({"crop_scale": 1.5}, r"crop_scale \(1.5\) must be above 0 and at most 1"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must be at least 0 and below 1"),
        ({"grid": 0, "hidden": 0}, r"(?s)grid \(0\) .*hidden \(0\) must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        task_of(**options)


def test_options_must_suit_the_network():
    difference = create_backbone("tiny3d", width=2, input="difference")
    with pytest.raises(RecipeError, match=r"num_frames \(1\) must be at least 2 for backbone tiny3d"):
        task_of(difference, num_frames=1)
    with pytest.raises(RecipeError, match=r"frame_px \(32\) must be at least 35 for backbone caffenet"):
        task_of(create_backbone("caffenet"))


def test_the_contract_holds():
    check_task("clip_order", every_order=True, num_clips=4, flip=True)
