"""Order verification: the construction of windows and tuples, what they are drawn by, the loss against plain loops."""

import math
import pickle

import numpy as np
import pytest
import torch

from pretext_tasks.order_verification import (
    OrderClips,
    OrderVerification,
    OrderVerificationConfig,
    corner_square,
    gather_tuples,
    order_loss,
    tuple_weights,
    window_weights,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.programs.show import sample_shapes
from ssvid.testing import check_task
from ssvid.types import VideoInfo
from tests.pretext_tasks.batches import made_by

SMALL = {"tau_max": 8, "tau_min": 3, "frame_px": 32}
FRAMES = 60


def config(**options):
    return OrderVerificationConfig(**{**SMALL, **options})


def video(frames=FRAMES, fps=25.0, **signals):
    return VideoInfo("v.mp4", frames, fps, 48, 64, signals=signals)


def plan(seed=0, training=True, of=None, **options):
    return OrderClips(config(**options), training).plan(
        of or video(), np.random.default_rng(seed), np.random.default_rng(9)
    )


def shown(p, k=1):
    """The frame numbers of each tuple in the order shown: (V, 3, k)."""
    return p.views[0].reshape(-1, k)[p.targets["order"]]


def batch_of(num=3, training=True, pixels=None, **options):
    return made_by(OrderClips(config(**options), training), video(), num, pixels)


def task_of(**options):
    return OrderVerification(config(**options), create_backbone("tiny3d", width=2).info)


def rises_or_falls(values):
    """Plain loop: whether a sequence is strictly rising or strictly falling."""
    rising = falling = True
    for before, after in zip(values[:-1], values[1:], strict=True):
        rising, falling = rising and after > before, falling and after < before
    return rising or falling


# ---- the construction


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tuples_per_window", [1, 3])
def test_a_label_says_whether_time_runs_one_way_through_the_tuple(training, reverse, tuples_per_window):
    for seed in range(300):
        p = plan(seed, training, reverse=reverse, tuples_per_window=tuples_per_window)
        for frames, label in zip(shown(p)[..., 0], p.targets["is_ordered"], strict=True):
            assert bool(label) == rises_or_falls(frames.tolist())
            assert bool(label) == rises_or_falls(frames[::-1].tolist())  # the label of the reversed tuple is the same


def test_both_directions_occur_and_reverse_off_leaves_one():
    forward = [shown(plan(s))[0, 0, 0] < shown(plan(s))[0, 2, 0] for s in range(400)]
    assert 0.4 < np.mean(forward) < 0.6
    assert all(shown(plan(s, reverse=False))[0, 0, 0] < shown(plan(s, reverse=False))[0, 2, 0] for s in range(100))


def test_the_tuples_of_a_window_share_their_ends_and_differ_in_the_middle():
    for seed in range(200):
        p = plan(seed, training=False)
        tuples = shown(p)[..., 0]
        assert len(p.views[0]) == 5
        assert len({(t[0], t[2]) for t in tuples.tolist()}) == 1
        assert len({t[1] for t in tuples.tolist()}) == 3
        assert p.targets["is_ordered"].tolist() == [1, 0, 0]


def five_of(p):
    """a b c d e in time order."""
    return np.sort(p.views[0])


@pytest.mark.parametrize(("tau_max", "tau_min"), [(8, 3), (60, 15), (2, 1), (6, 12), (7.5, 2.5)])
def test_distances_keep_their_bounds_and_reach_them(tau_max, tau_min):
    spreads, gaps = [], []
    for seed in range(600):
        a, b, c, d, e = five_of(plan(seed, False, video(400), tau_max=tau_max, tau_min=tau_min)).tolist()
        assert a < b < c < d < e < 400
        spreads.append(d - b)
        gaps += [b - a, e - d]
    assert max(spreads) <= tau_max and min(spreads) >= max(2, tau_max / 2)
    assert min(gaps) >= tau_min and max(gaps) <= max(math.ceil(tau_min), tau_max)
    assert max(spreads) == math.floor(tau_max) and min(gaps) == math.ceil(tau_min)


@pytest.mark.parametrize("options", [{}, {"frames_per_view": 3}, {"tau_unit": "seconds", "tau_max": 2, "tau_min": 0.5}])
@pytest.mark.parametrize("training", [True, False])
def test_windows_fit_the_shortest_legal_video(options, training):
    frames = OrderClips(config(**options), training).min_frames
    k = options.get("frames_per_view", 1)
    for seed in range(200):
        p = plan(seed, training, video(frames), tuples_per_window=3, **options)
        assert 0 <= p.views[0].min() and p.views[0].max() < frames
        first = np.sort(p.views[0].reshape(-1, k).min(axis=1))
        assert (np.diff(first) >= 1).all()
    if "tau_unit" not in options:
        assert frames == 4 + 2 * 3 + k
        taken = [plan(s, training, video(frames), tuples_per_window=3, **options).views[0].max() for s in range(50)]
        assert set(taken) == {frames - 1}  # nothing to spare


def test_seconds_are_the_same_in_videos_of_other_frame_rates():
    options = {"tau_unit": "seconds", "tau_max": 1.0, "tau_min": 0.4}
    spans = {}
    for fps in (10.0, 25.0, 50.0):
        windows = [five_of(plan(s, False, video(2000, fps), **options)) / fps for s in range(400)]
        spreads = np.array([w[3] - w[1] for w in windows])
        gaps = np.array([(w[1] - w[0], w[4] - w[3]) for w in windows])
        assert 0.5 - 1e-9 <= spreads.min() and spreads.max() <= 1.0 + 1e-9
        assert 0.4 - 1e-9 <= gaps.min() and gaps.max() <= 1.0 + 1e-9
        spans[fps] = spreads.mean()
    assert max(spans.values()) - min(spans.values()) < 0.05
    short = five_of(plan(0, False, video(21, 25.0), **options))  # 1.3 s are 32 frames, there are 21
    assert np.diff(short).min() >= 1 and short[-1] <= 20 and (short[1] - short[0]) >= 6


def test_no_side_of_the_window_is_favored_in_a_tight_video():
    gaps = np.array([np.diff(five_of(plan(s, False, video(20))))[[0, 3]] for s in range(2000)])
    assert abs(gaps[:, 0].mean() - gaps[:, 1].mean()) < 0.2


def test_the_share_of_tuples_out_of_order_is_the_stated_one():
    for fraction in (0.75, 0.5, 0.85):
        labels = [int(plan(s, negative_fraction=fraction).targets["is_ordered"][0]) for s in range(1500)]
        assert abs(1 - np.mean(labels) - fraction) < 4 * math.sqrt(fraction * (1 - fraction) / 1500)
    middles = [shown(plan(s, reverse=False))[0, :, 0] for s in range(1500)]
    before = sum(m[1] < m[0] for m in middles)
    after = sum(m[1] > m[2] for m in middles)
    assert abs(before - after) < 4 * math.sqrt(before + after)


def test_the_ends_of_a_tuple_tell_nothing_of_its_label():
    """Where the ends lie, and how far apart, has the same distribution in both classes."""
    ends = {0: [], 1: []}
    for seed in range(3000):
        p = plan(seed, negative_fraction=0.5)
        frames = shown(p)[0, :, 0]
        ends[int(p.targets["is_ordered"][0])].append((min(frames[0], frames[2]), abs(frames[2] - frames[0])))
    first, second = (np.array(ends[label], float) for label in (0, 1))
    error = np.sqrt(first.var(axis=0) / len(first) + second.var(axis=0) / len(second))
    assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < 4 * error).all()


def test_one_tuple_needs_three_moments_and_all_need_five():
    assert len(plan(0).views[0]) == 3
    assert len(plan(0, tuples_per_window=3).views[0]) == 5
    assert len(plan(0, frames_per_view=2).views[0]) == 6


def test_a_moment_of_several_frames_runs_the_way_of_its_window():
    for seed in range(100):
        clips = shown(plan(seed, False, frames_per_view=3), 3)
        steps = np.diff(clips, axis=-1)
        forward = clips[0, 0, 0] < clips[0, 2, 0]
        assert (steps == (1 if forward else -1)).all()


def test_a_plan_is_a_pure_function_of_its_seed_and_the_maker_travels():
    assert all(np.array_equal(a, b) for a, b in zip(plan(5).views, plan(5).views, strict=True))
    assert len({tuple(plan(s).views[0]) for s in range(20)}) > 15
    assert pickle.loads(pickle.dumps(OrderClips(config(), True))).min_frames == OrderClips(config(), True).min_frames


# ---- drawn by signals


def test_window_weights_are_the_mean_motion_of_each_window():
    motion = np.array([9.0, 1.0, 0.0, 3.0, 2.0, 4.0])
    for power in (1.0, 2.0):
        expected = []
        for start in range(4):
            flows = [motion[t] for t in range(start + 1, start + 3)]  # the flow into the first frame is not inside
            expected.append((sum(flows) / 2) ** power)
        expected = [w / sum(expected) for w in expected]
        assert window_weights(motion, 3, power) == pytest.approx(expected, abs=1e-12)
    assert window_weights(np.zeros(5), 3, 1.0).tolist() == pytest.approx([1 / 3] * 3)


def test_windows_lie_where_something_moves():
    motion = np.full(200, 0.01, np.float32)
    motion[100:140] = 0.09
    of = video(200, motion=motion)
    starts = np.array([five_of(plan(s, False, of, motion_power=1.0))[0] for s in range(1000)])
    uniform = np.array([five_of(plan(s, False, video(200)))[0] for s in range(1000)])
    inside, by_chance = ((s >= 90) & (s < 140) for s in (starts, uniform))
    assert inside.mean() > by_chance.mean() + 0.25
    assert (~inside).mean() > 0.2  # a bias, not a threshold
    squared = np.array([five_of(plan(s, False, of, motion_power=2.0))[0] for s in range(1000)])
    assert ((squared >= 90) & (squared < 140)).mean() > inside.mean()


def test_windows_whose_outer_frames_look_like_the_middle_are_drawn_again():
    thumbnails = np.zeros((FRAMES, 16, 16, 3), np.uint8)
    thumbnails[:] = (100 + 50 * np.sin(np.arange(FRAMES) * 2 * np.pi / 12))[:, None, None, None]
    thumbnails[30:] = 100  # the rest stands still
    of = video(thumbnails=thumbnails)

    def least(five):
        values = thumbnails[five, 0, 0, 0].astype(float)
        return min(abs(values[2] - values[0]), abs(values[2] - values[4]))

    drawn = [least(five_of(plan(s, False, of, lookalike_rms=20.0))) for s in range(100)]
    assert min(drawn) >= 20.0
    assert np.mean([least(five_of(plan(s, False, of))) >= 20.0 for s in range(100)]) < 0.5


def test_where_everything_looks_alike_a_window_comes_out_all_the_same():
    of = video(thumbnails=np.zeros((FRAMES, 16, 16, 3), np.uint8))
    assert len(plan(0, False, of, lookalike_rms=5.0).views[0]) == 5


def test_signals_are_asked_for_only_where_an_option_needs_them():
    assert OrderClips(config(), True).signals == ()
    assert OrderClips(config(motion_power=1.0), True).signals == ("motion",)
    assert OrderClips(config(motion_power=1.0, lookalike_rms=2.0), True).signals == ("motion", "thumbnails")
    with pytest.raises(DataError, match=r"plans from the motion .*ssvid data index ROOT --motion.*motion_power=0"):
        plan(0, motion_power=1.0)


# ---- pixels


def test_pixels_stay_with_their_frames():
    for training in (True, False):
        batch, _ = batch_of(4, training, frames_per_view=2)
        assert batch["frames"].dtype == torch.uint8
        assert batch["frames"].shape == (4, 3 if training else 5, 2, 3, 32, 32)
        for i in range(4):
            numbers = batch["frames"][i, :, :, 0, 0, 0].numpy().astype(int)
            p = plan(i, training, frames_per_view=2)
            assert numbers.flatten().tolist() == p.views[0].tolist()


def test_one_square_and_one_flip_for_the_whole_window():
    columns = torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(FRAMES, 3, 48, 64)
    batch, draws = batch_of(16, pixels=columns)
    frames = task_of().train().augment(batch, draws)["frames"]
    assert frames.shape == (16, 3, 3, 1, 32, 32) and frames.dtype == torch.float32
    assert 0 <= float(frames.min()) and float(frames.max()) <= 1
    assert torch.equal(frames[:, 0], frames[:, 1]) and torch.equal(frames[:, 0], frames[:, 2])
    rising = frames[:, 0, 0, 0, 0, -1] > frames[:, 0, 0, 0, 0, 0]
    assert rising.any() and not rising.all()
    still = task_of(flip=False).train().augment(batch, draws)["frames"]
    assert bool((still[..., -1] > still[..., 0]).all())


def test_corner_squares_lie_inside_at_corners_and_the_middle():
    seen = set()
    for seed in range(400):
        top, left, side = corner_square(48, 64, np.random.default_rng(seed))
        assert 0 <= top <= 48 - side and 0 <= left <= 64 - side
        assert side in (48, 42, 36, 32)
        seen.add((side, top, left))
    assert len([s for s in seen if s[0] == 32]) == 5
    assert len([s for s in seen if s[0] == 48]) == 3  # as high as the frame: left, right, middle


def test_validation_takes_the_middle_square():
    columns = torch.arange(64, dtype=torch.uint8).view(1, 1, 1, 64).expand(FRAMES, 3, 48, 64)
    batch, draws = batch_of(3, training=False, pixels=columns, frame_px=48)
    frames = task_of(frame_px=48).eval().augment(batch, draws)["frames"]
    assert (frames[0, 0, 0, 0, 0] * 255).round().tolist() == list(range(8, 56))


# ---- head and loss


def test_logits_are_one_linear_layer_on_the_features_side_by_side():
    gen = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 4, generator=gen)
    order = torch.tensor([[[1, 2, 3], [1, 0, 3], [3, 4, 1]]] * 2)
    head = torch.nn.Linear(12, 1)
    logits = head(gather_tuples(features, order)).squeeze(-1)
    weight, bias = head.weight[0].detach().double(), float(head.bias.detach())
    for b in range(2):
        for v in range(3):
            logit = bias
            for place in range(3):
                for i in range(4):
                    logit += float(weight[place * 4 + i]) * float(features[b, order[b, v, place], i])
            assert float(logits[b, v]) == pytest.approx(logit, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "fraction"), [([[1, 0, 0], [1, 0, 0]], 0.75), ([[1], [0]], 0.75), ([[1, 0, 0]], 0.5)]
)
def test_loss_is_the_cross_entropy_of_the_stated_class_frequencies(labels, fraction):
    logits = [[0.5, -2.0, 3.0], [-1.0, 0.25, 1.5]][: len(labels)]
    logits = [row[: len(labels[0])] for row in logits]
    expected = 0.0
    for zs, ys in zip(logits, labels, strict=True):
        for z, y in zip(zs, ys, strict=True):
            p = 1 / (1 + math.exp(-z))
            weight = 1.0 if len(ys) == 1 else ((1 - fraction) if y else fraction / 2)
            expected -= weight * (math.log(p) if y else math.log(1 - p)) / len(labels)
    truth = torch.tensor(labels)
    got = order_loss(torch.tensor(logits), truth, tuple_weights(truth, fraction))
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_metrics_of_a_network_that_always_says_the_same_are_those_of_chance():
    for fraction in (0.75, 0.4):
        task = task_of(negative_fraction=fraction)
        truth = torch.tensor([[1, 0, 0]] * 4)
        weights = tuple_weights(truth, fraction)
        says = -5.0 if fraction > 0.5 else 5.0
        metrics = task._metrics(torch.full((4, 3), says), truth, weights)
        assert metrics["accuracy"].mean().item() == pytest.approx(task.chance()["accuracy"])
        assert metrics["balanced_accuracy"].mean().item() == 0.5 == task.chance()["balanced_accuracy"]


def test_accuracy_and_balanced_accuracy_by_hand():
    task = task_of()  # three quarters are not in order: the threshold of balanced accuracy is p = 1/4, logit -1.0986
    truth = torch.tensor([[1, 0, 0]])
    assert task.threshold == pytest.approx(-math.log(3))
    metrics = task._metrics(torch.tensor([[-1.0, -1.2, -0.5]]), truth, tuple_weights(truth, 0.75))
    assert metrics["accuracy"].item() == pytest.approx(0.75)  # all are called "not in order"
    assert metrics["balanced_accuracy"].item() == pytest.approx(0.5 * 1 + 0.5 * 0.5)  # one of the two negatives wrong


def test_where_all_frames_are_one_the_tuples_of_a_window_cannot_be_told_apart():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = task_of(grid=2, hidden=8).eval()
    still = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8).expand(FRAMES, 3, 48, 64)
    batch, draws = batch_of(4, training=False, pixels=still)
    output = task(task.augment(batch, draws), backbone)
    logits = output.scores["auc"][0].view(4, 3)
    assert torch.equal(logits[:, :1].expand(-1, 3), logits)
    assert output.metrics["balanced_accuracy"].tolist() == [0.5] * 4


@pytest.mark.parametrize("options", [{}, {"tuples_per_window": 3, "grid": 2, "hidden": 4}])
def test_every_parameter_gets_a_gradient(options):
    backbone = create_backbone("tiny3d", width=2)
    task = OrderVerification(config(**options), backbone.info)
    batch, draws = batch_of(**options)
    task(task.augment(batch, draws), backbone).loss.backward()
    for name, parameter in [*backbone.named_parameters(), *task.named_parameters()]:
        assert parameter.grad is not None, name


def test_a_per_frame_network_gives_each_moment_the_features_it_has_alone():
    backbone = create_backbone("caffenet").eval()
    task = OrderVerification(config(frame_px=48), backbone.info).eval()
    pixels = torch.randint(0, 256, (FRAMES, 3, 48, 64), dtype=torch.uint8)
    batch, draws = batch_of(1, training=False, pixels=pixels, frame_px=48)
    batch = task.augment(batch, draws)
    with torch.no_grad():
        logits = task(batch, backbone).scores["auc"][0]
        alone = [backbone.embed(batch["frames"][:, n]) for n in range(5)]
    for v, places in enumerate(batch["order"][0].tolist()):
        z = float(task.head.bias) + float(task.head.weight[0].detach() @ torch.cat([alone[n][0] for n in places]))
        assert float(logits[v]) == pytest.approx(z, abs=1e-4)


def test_the_placebo_draws_the_labels_alone_and_is_right_half_of_the_time():
    task = task_of()
    truth = torch.tensor([[1, 0, 0]] * 600)
    order = torch.arange(5400).view(600, 3, 3)
    changed = task.placebo({"is_ordered": truth, "order": order}, np.random.default_rng(0))
    assert torch.equal(changed["order"], order)
    right = (changed["is_ordered"] == truth).double()
    assert abs(float(right.mean()) - 0.5) < 3 * 0.5 / 1800**0.5
    assert abs(float(right[:, 0].mean()) - 0.5) < 3 * 0.5 / 600**0.5  # of those in order alone, too


def test_pictures_show_every_tuple_as_shown_with_its_verdict():
    backbone = create_backbone("tiny3d", width=2).eval()
    task = task_of().eval()
    batch, draws = batch_of(2, training=False)
    batch = task.augment(batch, draws)
    output = task(batch, backbone)
    output.extras["ordered_prob"][:] = 0.9
    picture = task.visualize(batch, output)["tuples"]
    assert picture.dtype == np.uint8
    assert picture.shape == (6 * 72, 112 + 3 * 72, 3)
    green, red = picture[0, -1], picture[72, -1]
    assert green[1] > green[0] and red[0] > red[1]  # the first is in order, the second is not
    numbers = shown(plan(0, False))[0, :, 0]
    for place in range(3):
        assert picture[36, 112 + place * 72 + 36].tolist() == [numbers[place]] * 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tau_unit": "hours"}, r"tau_unit \('hours'\) must be one of frames, seconds"),
        ({"crop": "all"}, r"crop \('all'\) must be one of corners, random, center"),
        ({"tuples_per_window": 2}, r"tuples_per_window \(2\) must be one of 1, 3"),
        ({"tau_max": 0}, r"tau_max \(0\) must be above 0"),
        ({"tau_min": -1}, r"tau_min \(-1\) must be above 0"),
        ({"least_spread": 1.5}, r"least_spread \(1.5\) must be above 0 and at most 1"),
        ({"negative_fraction": 1.0}, r"negative_fraction \(1.0\) must be above 0 and below 1"),
        ({"motion_power": -1.0}, r"motion_power \(-1.0\) must be at least 0"),
        ({"lookalike_rms": -1.0}, r"lookalike_rms \(-1.0\) must be at least 0"),
        ({"grid": 0}, r"grid \(0\) must be at least 1"),
        ({"frames_per_view": 0}, r"frames_per_view \(0\) must be at least 1 for backbone tiny3d"),
        ({"tau_max": 0, "grid": 0}, r"(?s)options.tau_max \(0\) .*task.options.grid \(0\)"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        task_of(**options)


def test_options_must_suit_the_network():
    difference = create_backbone("tiny3d", width=2, input="difference").info
    with pytest.raises(RecipeError, match=r"frames_per_view \(1\) must be at least 2 for backbone tiny3d"):
        OrderVerification(config(), difference)
    with pytest.raises(RecipeError, match=r"frame_px \(32\) must be at least 35 for backbone caffenet"):
        OrderVerification(config(), create_backbone("caffenet").info)


def test_the_contract_holds_and_shapes_are_shown_where_windows_are_drawn_by_signals():
    check_task("order_verification", motion_power=1.0, lookalike_rms=2.0, tau_max=8, tau_min=3, tuples_per_window=3)
    shapes = sample_shapes(task_of(motion_power=1.0, lookalike_rms=2.0))
    assert shapes["frames"] == "uint8 (3, 1, 3, 32, 32)"
