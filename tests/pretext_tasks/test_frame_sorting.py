"""Frame sorting: where the moments of a window lie, in which orders they are shown, the patches, and what is kept from telling."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from pretext_tasks.frame_sorting import (
    FrameSorting,
    FrameSortingClips,
    FrameSortingConfig,
    draw_moments,
    jittered,
    moving_corner,
    split_channels,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import Ticket, VideoInfo
from ssvid.video.synthetic import draw_scene, render
from ssvid.video.synthetic_motions import MOTIONS
from tests.pretext_tasks.batches import made_by

SMALL = {"min_step": 2, "max_step": 5, "frame_px": 24, "jitter_px": 2, "patch_share": 0.5}
PLAIN = {"jitter_px": 0, "patch_share": 1.0, "channels": "rgb"}
FRAMES = 40


def config(**options):
    return FrameSortingConfig(**{**SMALL, **options})


def video(frames=FRAMES, **signals):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64, signals=signals)


def plan(seed=0, training=True, of=None, **options):
    return FrameSortingClips(config(**options), training).plan(
        of or video(), np.random.default_rng(seed), np.random.default_rng(9)
    )


def batch_of(num=3, training=True, pixels=None, **options):
    return made_by(FrameSortingClips(config(**options), training), video(), num, pixels)


def task_of(backbone=None, **options):
    return FrameSorting(config(**options), (backbone or create_backbone("tiny3d", width=2)).info)


def noisy():
    return torch.randint(0, 256, (FRAMES, 3, 48, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def still():
    return noisy()[:1].expand(FRAMES, 3, 48, 64)


# ---- the construction


@pytest.mark.parametrize(("low", "high"), [(2, 5), (1, 1), (3, 10)])
def test_steps_keep_their_bounds_reach_them_and_are_even(low, high):
    steps = np.array([np.diff(draw_moments(4, low, high, 500, np.random.default_rng(s))) for s in range(1500)])
    assert steps.min() == low and steps.max() == high
    counts = np.bincount(steps.ravel() - low)
    expected = steps.size / (high - low + 1)
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi square of up to 7 degrees of freedom: p < 0.001


def test_no_step_is_favored_where_there_is_little_room():
    steps = np.array([np.diff(draw_moments(4, 2, 9, 9, np.random.default_rng(s))) for s in range(3000)])
    assert steps.sum(axis=1).max() <= 9
    error = steps.std(axis=0).max() / math.sqrt(3000)
    assert np.ptp(steps.mean(axis=0)) < 6 * error


@pytest.mark.parametrize("options", [{}, {"frames_per_moment": 3}, {"num_moments": 3}, {"max_step": 30}])
def test_windows_fit_the_shortest_legal_video(options):
    frames = FrameSortingClips(config(**options), True).min_frames
    assert frames == (options.get("num_moments", 4) - 1) * 2 + options.get("frames_per_moment", 1)
    for seed in range(50):
        p = plan(seed, of=video(frames), **options)
        assert p.views[0].min() == 0 and p.views[0].max() == frames - 1


def ranks(shown):
    return tuple(sorted(shown).index(s) for s in shown)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num", [3, 4])
def test_the_class_says_the_order_whichever_way_time_runs(training, num):
    """A video played backward shows the frames of ranks r as num - 1 - r: of the two the class has the smaller."""
    both = {min(r, tuple(num - 1 - n for n in r)) for r in itertools.permutations(range(num))}
    for seed in range(150):
        p = plan(seed, training, num_moments=num)
        assert len(set(np.sign(np.diff(p.views[0])))) == 1  # one way through time
        for order, label in zip(p.targets["order"], p.targets["order_class"], strict=True):
            forward = ranks(p.views[0][order].tolist())
            backward = tuple(num - 1 - n for n in forward)
            assert sorted(both)[label] == min(forward, backward)
        assert len(p.targets["order"]) == (1 if training else len(both))


def test_classes_are_even_and_half_of_each_run_backward():
    counts = np.zeros((12, 2))
    for seed in range(4800):
        p = plan(seed)
        counts[p.targets["order_class"][0], int(p.views[0][0] > p.views[0][-1])] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # chi square of 23 degrees of freedom, p = 0.001


def test_a_moment_of_several_frames_runs_the_way_of_its_window():
    for seed in range(100):
        clips = plan(seed, frames_per_moment=3).views[0].reshape(4, 3)
        forward = clips[0, 0] < clips[-1, 0]
        assert (np.diff(clips, axis=1) == (1 if forward else -1)).all()


def test_the_frames_tell_nothing_of_the_class():
    """Where the window lies and how long it is has the same distribution for all classes, by correlation with the class."""
    rows = [(p.views[0].min(), np.ptp(p.views[0]), p.targets["order_class"][0]) for p in map(plan, range(3000))]
    start, length, label = np.array(rows, float).T
    for cue in (start, length):
        assert abs(np.corrcoef(cue, label)[0, 1]) < 4 / math.sqrt(3000)


def test_windows_lie_where_something_moves():
    motion = np.full(200, 0.01, np.float32)
    motion[100:140] = 0.09
    starts = np.array([plan(s, of=video(200, motion=motion), motion_power=1.0).views[0].min() for s in range(600)])
    inside = ((starts >= 90) & (starts < 140)).mean()
    assert 0.5 < inside < 0.9  # 25 % by chance; a bias, not a threshold
    with pytest.raises(DataError, match=r"plans from the motion .*ssvid data index ROOT --motion.*motion_power=0"):
        plan(0, motion_power=1.0)
    assert FrameSortingClips(config(), True).signals == ()


def test_a_plan_is_a_pure_function_of_its_seed_and_the_maker_travels():
    assert np.array_equal(plan(5).views[0], plan(5).views[0])
    assert np.array_equal(plan(5).targets["order"], plan(5).targets["order"])
    assert pickle.loads(pickle.dumps(FrameSortingClips(config(), True))).min_frames == 7


# ---- patches


def test_pixels_stay_with_their_frames():
    for training in (True, False):
        batch, _ = batch_of(4, training, frames_per_moment=2)
        assert batch["frames"].dtype == torch.uint8 and batch["frames"].shape == (4, 4, 2, 3, 24, 24)
        for i in range(4):
            numbers = plan(i, training, frames_per_moment=2).views[0].tolist()
            assert batch["frames"][i, :, :, 0, 0, 0].flatten().tolist() == numbers


def test_the_patch_lies_where_most_moves():
    frames = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    for t in range(4):
        frames[t, :, 40:50, 8 + 3 * t : 18 + 3 * t] = 255
    top, left = moving_corner(frames, 24, 1, 0.0)
    assert top <= 40 and top + 24 >= 50 and left <= 8 and left + 24 >= 18 + 9 - 3
    motion = {}  # plain loops over all 64 places
    for top_ in (places := [round(i * 40 / 7) for i in range(8)]):
        for left_ in places:
            cut = frames[:, :, top_ : top_ + 24, left_ : left_ + 24].double()
            motion[top_, left_] = sum(float((cut[t + 1] - cut[t]).abs().sum()) for t in range(3))
    assert motion[top, left] == max(motion.values())
    best = sorted(motion.values())[-10]
    drawn = {moving_corner(frames, 24, 10, d / 40) for d in range(40)}
    assert len(drawn) > 3 and all(motion[corner] >= best for corner in drawn)
    assert moving_corner(frames, 64, 1, 0.0) == (0, 0)


def test_every_moment_is_moved_by_its_own_pixels():
    frames = torch.arange(40).view(1, 1, 1, 1, 40).expand(2, 3, 1, 40, 40) + 100 * torch.arange(40).view(1, 1, 1, 40, 1)
    cut = jittered(frames, (5, 7), np.array([[0, 4], [3, 1]]), 10)
    assert cut.shape == (2, 3, 1, 10, 10)
    assert cut[0, :, 0, 0, 0].tolist() == [511] * 3 and cut[1, :, 0, 0, 0].tolist() == [808] * 3


def test_where_a_patch_is_moved_to_is_independent_of_time():
    columns = torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(FRAMES, 3, 48, 64)
    lefts = batch_of(300, pixels=columns, patch_share=1.0, jitter_px=12)[0]["frames"][:, :, 0, 0, 0, 0].double()
    within = lefts - lefts.mean(dim=1, keepdim=True)
    assert within.std() > 1
    assert (within.mean(dim=0).abs() < 4 * within.std() / math.sqrt(300)).all()


def test_each_moment_shows_one_channel_three_times():
    pixels = noisy()
    batch, draws = batch_of(24, pixels=pixels, frames_per_moment=2, flip=False)
    frames = task_of(flip=False).train().augment(batch, draws)["frames"]
    assert torch.equal(frames[:, :, 0], frames[:, :, 1]) and torch.equal(frames[:, :, 0], frames[:, :, 2])
    given = batch["frames"].transpose(2, 3).float() / 255
    taken = torch.stack([(frames[:, :, 0] == given[:, :, c]).flatten(2).all(dim=2) for c in range(3)], dim=-1)
    assert (taken.sum(dim=-1) == 1).all() and (taken.float().mean(dim=(0, 1)) > 0.2).all()
    assert (taken[:, :1] != taken).any()  # not one channel for a whole window
    gray = task_of(channels="gray", flip=False).train().augment(batch, draws)["frames"]
    assert torch.allclose(gray[:, :, 0], given.mean(dim=2), atol=1e-6)


def test_a_channel_is_the_one_that_was_drawn():
    frames = torch.arange(24.0).view(1, 2, 3, 1, 2, 2)
    chosen = split_channels(frames, torch.tensor([[2, 0]]))
    assert chosen[0, 0, :, 0].tolist() == [[[8, 9], [10, 11]]] * 3
    assert chosen[0, 1, :, 0].tolist() == [[[12, 13], [14, 15]]] * 3


# ---- what tells the order


def test_where_all_frames_are_one_every_order_gets_the_same_answer():
    """The canary of identical frames: right once in twelve times, in every window, whatever the weights are."""
    backbone = create_backbone("tiny3d", width=2).eval()
    batch, draws = batch_of(4, training=False, pixels=still(), **PLAIN)
    task = task_of(grid=2, **PLAIN).eval()
    output = task(task.augment(batch, draws), backbone)
    assert output.metrics["accuracy"].tolist() == pytest.approx([1 / 12] * 4)
    assert output.metrics["pixel_accuracy"].tolist() == pytest.approx([1 / 12] * 4)


def test_the_guards_tell_nothing_either():
    """Identical frames, but for moved patches and channels: both are independent of time, and pixels guess by chance."""
    backbone = create_backbone("tiny3d", width=2)
    batch, draws = batch_of(200, pixels=still(), every_order=True)
    task = task_of().train()
    right = task(task.augment(batch, draws), backbone).metrics["pixel_accuracy"]
    assert abs(float(right.mean()) - 1 / 12) < 4 * float(right.std()) / math.sqrt(200)


@pytest.fixture(scope="module")
def scenes():
    """The first 18 frames of 40 scenes, four of each motion: uint8 TCHW."""
    drawn = (draw_scene(MOTIONS[n % len(MOTIONS)], (8, n), 64) for n in range(40))
    frames = (render(scene, np.arange(18) / 25).frames_THWC for scene in drawn)
    return [torch.from_numpy(frames_THWC).permute(0, 3, 1, 2) for frames_THWC in frames]


def pixels_right(scenes, **options):
    """How often the guess from pixels is right on one window of each scene."""
    options = {"min_step": 3, "max_step": 5, "frame_px": 60, "patch_share": 1.0, **options}
    maker, samples = FrameSortingClips(config(**options), False), []
    for n, frames_TCHW in enumerate(scenes):
        p = maker.plan(VideoInfo("v", 18, 25.0, 64, 64), np.random.default_rng(n), np.random.default_rng(0))
        view = frames_TCHW[torch.from_numpy(p.views[0].copy())]
        samples.append(maker.transform((view,), p, np.random.default_rng([1, n]), np.random.default_rng(0)))
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    backbone = create_backbone("tiny3d", width=1).eval()
    task = task_of(backbone, **options).eval()
    batch = task.augment(batch, BatchRandom.of(0, [Ticket(1, 0, 0, n) for n in range(len(scenes))]))
    with torch.no_grad():
        return float(task(batch, backbone).metrics["pixel_accuracy"].mean())


def test_the_guards_spoil_the_guess_from_pixels(scenes):
    """What moves is most like itself a moment later; with channels and places of their own, frames no longer tell by that."""
    bare = pixels_right(scenes, channels="rgb", jitter_px=0)
    guarded = pixels_right(scenes, channels="split", jitter_px=2)
    assert bare > 0.45
    assert guarded < 0.3


def test_what_pixels_say_of_a_window_is_the_same_backward():
    """Exact: a window that runs backward, shown in the same order, has the same class and the same guess from pixels."""
    backbone = create_backbone("tiny3d", width=2).eval()
    batch, draws = batch_of(3, training=False, pixels=noisy(), **PLAIN)
    task = task_of(**PLAIN).eval()
    batch = task.augment(batch, draws)
    forward = task(batch, backbone).metrics["pixel_accuracy"]
    assert torch.equal(task({**batch, "frames": batch["frames"].flip(1)}, backbone).metrics["pixel_accuracy"], forward)


@pytest.mark.parametrize("options", [{}, {"every_order": True, "grid": 2, "num_moments": 3, "channels": "gray"}])
def test_every_parameter_gets_a_gradient(options):
    backbone = create_backbone("tiny3d", width=2)
    task = task_of(backbone, **options)
    batch, draws = batch_of(pixels=noisy(), **options)
    task(task.augment(batch, draws), backbone).loss.backward()
    for name, parameter in [*backbone.named_parameters(), *task.named_parameters()]:
        assert parameter.grad is not None, name


def test_the_placebo_changes_the_classes_alone_and_is_right_by_chance():
    task = task_of()
    truth, order = torch.arange(12).repeat(300, 1), torch.arange(14400).view(300, 12, 4)
    changed = task.placebo({"order_class": truth, "order": order}, np.random.default_rng(0))
    assert torch.equal(changed["order"], order)
    right = (changed["order_class"] == truth).double().mean()
    assert abs(float(right) - 1 / 12) < 4 * math.sqrt(11 / 144 / 3600)


def test_pictures_show_frames_as_shown_and_as_sorted_whichever_way_time_runs():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = task_of(**PLAIN).eval()
    batch, draws = batch_of(2, training=False, **PLAIN)
    batch = task.augment(batch, draws)
    output = task(batch, backbone)
    output.extras["said"][:] = batch["order_class"]
    picture = task.visualize(batch, output)["orders"]
    assert picture.shape == (2 * (2 * 96 + 8), 84 + 4 * 96, 3)
    for b in range(2):
        top, v = b * (2 * 96 + 8), (5 * b + 1) % 12
        lines = [[int(picture[top + line, 84 + 96 * p + 48, 0]) for p in range(4)] for line in (48, 144)]
        frames = plan(b, False, **PLAIN).views[0]
        assert lines == [frames[batch["order"][b, v].numpy()].tolist(), frames.tolist()]


# ---- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_moments": 5}, r"num_moments \(5\) must be one of 3, 4"),
        ({"min_step": 0}, r"min_step \(0\) must be at least 1"),
        ({"max_step": 1}, r"max_step \(1\) must be at least min_step \(2\)"),
        ({"channels": "red"}, r"channels \('red'\) must be one of split, gray, rgb"),
        ({"patch_share": 0.0}, r"patch_share \(0.0\) must be above 0 and at most 1"),
        ({"jitter_px": -1, "motion_power": -1.0}, r"(?s)motion_power \(-1.0\) .*jitter_px \(-1\) must be at least 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        task_of(**options)


def test_options_must_suit_the_network():
    difference = create_backbone("tiny3d", width=2, input="difference")
    with pytest.raises(RecipeError, match=r"frames_per_moment \(1\) must be at least 2 for backbone tiny3d"):
        task_of(difference)
    with pytest.raises(RecipeError, match=r"frame_px \(24\) must be at least 35 for backbone caffenet"):
        task_of(create_backbone("caffenet"))


def test_the_contract_holds_where_windows_are_drawn_by_motion():
    check_task("frame_sorting", motion_power=1.0, every_order=True, num_moments=3)
