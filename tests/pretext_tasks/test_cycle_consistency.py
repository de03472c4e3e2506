"""Cycle consistency: affinity, tracker and losses against float64 loops; the patch and its place; schedules; canaries."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretext_tasks.cycle_consistency import (
    ConvLocalizer,
    CycleClips,
    CycleConsistency,
    CycleConsistencyConfig,
    frame_offsets,
    long_cycles,
    skip_cycles,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.transforms.correspondence import affinity, cut_patch
from ssvid.transforms.moving import window_motion
from ssvid.transforms.warp import alignment_loss, cells_apart, degrees_apart, fit_square, keep_inside, make_placement
from ssvid.types import ClipPlan, Ticket, VideoInfo
from tests.pretext_tasks.torn import whole_and_torn
from tests.transforms.test_correspondence import features
from tests.transforms.test_warp import placed

# tiny3d's stage2 has stride 4: maps of 8 x 8, patches of 3 x 3.
SMALL = {"frame_px": 32, "stage": "stage2", "embed_channels": 16, "patch_scale": 0.4, "num_past": 3, "sample_fps": 0}
SIDE, PATCH, SCALE = 10, 4, 0.4


def draws(num):
    return BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(num)])


def task_and_backbone(seed=0, width=2, **options):
    torch.manual_seed(seed)
    backbone = create_backbone("tiny3d", width=width)
    return CycleConsistency(CycleConsistencyConfig(**SMALL | options), backbone.info), backbone


def pixels(num=3, num_frames=4, px=32, seed=0):
    """A batch as a worker makes it: noise, with a motion score of its own for each window."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num, num_frames, 3, px, px), dtype=torch.uint8, generator=generator)
    return {"frames": frames, "motion": torch.rand(num, 7, 7, generator=generator)}


def sharp(patch_BDM, frame_BDN):
    """A tracker with nothing to be learned and a cold softmax."""
    return make_placement(*fit_square(affinity(frame_BDN, patch_BDM, 1e-3), SCALE), SCALE)


# ---- sampling


def test_the_window_of_the_paper():
    config = CycleConsistencyConfig(sample_fps=0)
    assert frame_offsets(config, 30.0, 100).tolist() == [0, 2, 4, 6, 15, 17]  # and one more, to see what moves
    assert frame_offsets(CycleConsistencyConfig(), 24.0, 100).tolist() == [0, 4, 8, 12, 30, 34]
    assert frame_offsets(CycleConsistencyConfig(motion_windows=0), 12.0, 100).tolist() == [0, 2, 4, 6, 15]


def test_gaps_shrink_with_a_short_video_and_frames_stay_apart():
    for fps in (5.0, 12.0, 30.0):
        for num_frames in (6, 7, 9, 13, 17, 18, 40):
            offsets = frame_offsets(CycleConsistencyConfig(), fps, num_frames)
            assert offsets[0] == 0 and offsets[-1] < num_frames and (np.diff(offsets) > 0).all()
    assert frame_offsets(CycleConsistencyConfig(sample_fps=0), 25.0, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_windows_start_anywhere_or_where_the_video_moves():
    video = VideoInfo("v", 40, 25.0, 48, 64)
    maker = CycleClips(CycleConsistencyConfig(sample_fps=0), 16, True)
    starts = {int(maker.plan(video, np.random.default_rng(i), None).views[0][0]) for i in range(600)}
    assert starts == set(range(23)) and maker.signals == ()
    moving = CycleClips(CycleConsistencyConfig(sample_fps=0, motion_power=1.0), 16, True)
    assert moving.signals == ("motion",)
    motion = np.zeros(40, np.float32)
    motion[30] = 1.0
    held = VideoInfo("v", 40, 25.0, 48, 64, signals={"motion": motion})
    starts = {int(moving.plan(held, np.random.default_rng(i), None).views[0][0]) for i in range(200)}
    assert starts == set(range(13, 23))  # every window of 18 frames that holds frame 30, but not as its first
    with pytest.raises(
        DataError, match=r"plans from the motion of each video.*data index ROOT --motion.*motion_power=0"
    ):
        moving.plan(video, np.random.default_rng(0), None)


def test_a_worker_sends_the_target_last_and_scores_it_where_it_moves():
    config = CycleConsistencyConfig(frame_px=40, motion_grid=5, num_past=2, sample_fps=0)
    film = torch.full((12, 3, 40, 40), 90, dtype=torch.uint8)
    film[11, :, 27:40, :13] = 250  # between target and what follows it, the lower left changes
    film[:, 0, 0, 0] = torch.arange(12)
    view = np.array([0, 2, 9, 11])
    sample = CycleClips(config, 13, False).transform((film[view],), ClipPlan((view,)), None, None)
    assert sample["frames"][:, 0, 0, 0].tolist() == [0, 2, 9]
    assert int(sample["motion"].argmax()) == 4 * 5
    still = CycleClips(CycleConsistencyConfig(frame_px=40, motion_windows=0, num_past=2), 13, False)
    assert still.min_frames == 3 and not still.transform((film[:3],), None, None, None)["motion"].any()


def test_shifted_frames_are_cut_out_by_themselves_and_motion_is_that_of_one_square():
    config = CycleConsistencyConfig(frame_px=24, num_past=3, frame_shift=0.4, patch_scale=0.4)
    noise = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8, generator=torch.manual_seed(0)).expand(
        5, -1, -1, -1
    )
    sample = CycleClips(config, 8, True).transform((noise,), None, np.random.default_rng(1), None)
    frames = sample["frames"]
    assert not any(torch.equal(frames[0], frames[t]) for t in (1, 2, 3))
    assert not sample["motion"].any(), "the video is still: where the target was cut out must not look like motion"


# ---- the patch and its place


def test_the_patch_is_what_lies_at_its_place():
    """Frames whose pixels tell their own coordinates: the patch shows where it was cut out."""
    task, _ = task_and_backbone()
    line = (2 * torch.arange(32) + 1) / 32 - 1
    coordinates = torch.stack([line.expand(32, 32), line[:, None].expand(32, 32), torch.zeros(32, 32)])
    levels = (127.5 + 120 * coordinates).round().byte()
    batch = {"frames": levels.expand(4, 4, 3, 32, 32), "motion": torch.rand(4, 7, 7, generator=torch.manual_seed(0))}
    out = task.eval().augment(dict(batch), draws(4))
    shown = (out["patch"][:, :2] * 255 - 127.5) / 120  # x and y, (B, 2, px, px)
    px = task.patch_px
    for b in range(4):
        for row, column in ((0, 0), (2, 7), (px - 1, px - 1)):
            own = torch.tensor([(2 * column + 1) / px - 1, (2 * row + 1) / px - 1, 1.0])
            want = out["placement"][b] @ own
            assert shown[b, :, row, column].tolist() == pytest.approx(want.tolist(), abs=0.01)


def test_places_are_those_of_the_windows_that_move_within_the_jitter():
    task, _ = task_and_backbone(max_angle=0.0)
    motion = torch.zeros(200, 7, 7)
    motion[:, 2, 4] = 1.0
    draw = torch.rand(200, 6, generator=torch.manual_seed(0))
    options = CycleConsistencyConfig(**SMALL | {"max_angle": 0.0, "motion_windows": 1})
    one = CycleConsistency(options, task.backbone_info)
    placements = one.draw_placement(motion, draw)
    way = 1 - one.scale
    middle = torch.tensor([(2 * 4 / 6 - 1) * way, (2 * 2 / 6 - 1) * way])
    away = (placements[:, :, 2] - middle).abs()
    assert float(away.max()) <= 2 * way / 12 + 1e-6 and float(away.max()) > 0.9 * 2 * way / 12
    anywhere = CycleConsistency(CycleConsistencyConfig(**SMALL | {"motion_windows": 0}), task.backbone_info)
    center = anywhere.draw_placement(motion, draw)[:, :, 2]
    assert float(center.min()) < -0.4 and float(center.max()) > 0.4 and float(center.abs().max()) <= way + 1e-6


def test_in_a_mirrored_sample_the_patch_still_shows_what_moves():
    """The authors' code mirrors the chosen column once more, so that half of its patches are not the moving ones."""
    task, _ = task_and_backbone(motion_windows=1, max_angle=0.0, place_jitter=0.0)
    frames = torch.zeros(40, 4, 3, 32, 32, dtype=torch.uint8)
    frames[..., 10:22, 20:32] = 255  # the thing that moves, at the right
    motion = torch.stack([window_motion(frames[0, 0], torch.zeros_like(frames[0, 0]), task.patch_px, 7)] * 40)
    out = task.train().augment({"frames": frames, "motion": motion}, draws(40))
    mirrored = out["frames"][:, 0, -1, 16, 0] > 0.5
    assert 8 < int(mirrored.sum()) < 32
    assert float(out["patch"].flatten(1).mean(dim=1).min()) > 0.8
    x = out["placement"][:, 0, 2]
    assert (x[mirrored] < -0.3).all() and (x[~mirrored] > 0.3).all()


def test_validation_never_mirrors():
    task, _ = task_and_backbone()
    batch = pixels(8)
    out = task.eval().augment(dict(batch), draws(8))
    assert torch.equal(out["frames"], batch["frames"].float().div(255).transpose(1, 2))


def test_the_placebo_moves_patch_and_place_together_and_nothing_else():
    task, _ = task_and_backbone()
    batch = task.augment(pixels(8), draws(8))
    changed = task.placebo(batch, np.random.default_rng(0))
    assert {name for name in batch if not torch.equal(batch[name], changed[name])} == {"patch", "placement"}
    order = [next(j for j in range(8) if torch.equal(changed["patch"][i], batch["patch"][j])) for i in range(8)]
    assert sorted(order) == list(range(8))
    assert all(i != j for i, j in enumerate(order))
    assert torch.equal(changed["placement"], batch["placement"][order])


# ---- the tracker


def test_a_patch_tracked_through_identical_frames_closes_its_cycle_exactly():
    (frame,) = features()
    truth = placed([[3, 5], [0, 6]])
    patch = cut_patch(frame, truth, PATCH)
    long, skip = (walk(patch, [frame] * 4, frame, sharp) for walk in (long_cycles, skip_cycles))
    assert [len(walk) for walk in long] == [2, 4, 6, 8] and [len(walk) for walk in skip] == [2] * 4
    for walk in (*long, *skip):
        for placement in walk:
            torch.testing.assert_close(placement, truth, atol=1e-9, rtol=0)
        assert float(alignment_loss(walk[-1], truth).max()) < 1e-17


def shifted_maps(cells, num, side=SIDE, D=24, seed=0):
    """Maps of one large picture, seen further to the right and below by so many cells from each to the next."""
    generator = torch.Generator().manual_seed(seed)
    large = torch.randn(1, D, 3 * side, 3 * side, dtype=torch.float64, generator=generator)
    large = F.normalize(F.avg_pool2d(large, 3, 1, 1), dim=1)  # smooth: a fraction of a cell can be told
    maps = []
    for t in range(num):
        center = torch.tensor(
            [[2 * (1.5 * side + cells[0] * t) / (3 * side) - 1, 2 * (1.5 * side + cells[1] * t) / (3 * side) - 1]]
        )
        view = make_placement(center.double(), torch.zeros(1, dtype=torch.float64), 1 / 3)
        maps.append(cut_patch(large.flatten(2), view, side))
    return maps


@pytest.mark.parametrize("cells", [(1.0, 0.0), (0.5, 0.75), (-1.0, 0.4)])
def test_a_known_translation_is_recovered_to_under_half_a_cell(cells):
    oldest, middle, target = maps = shifted_maps(cells, 3)
    truth = placed([[3, 4]])
    patch = cut_patch(target, truth, PATCH)

    def locate(patch_BDM, frame_BDN):
        return make_placement(*fit_square(affinity(frame_BDN, patch_BDM, 0.03), SCALE), SCALE)

    for steps, frame in ((1, middle), (2, oldest)):
        found = locate(patch, frame)[0, :, 2] * SIDE / 2
        want = truth[0, :, 2] * SIDE / 2 + steps * torch.tensor(cells, dtype=torch.float64)
        assert float((found - want).norm()) < 0.5
    for walk in (*long_cycles(patch, maps[1::-1], target, locate), *skip_cycles(patch, maps[1::-1], target, locate)):
        assert float(cells_apart(walk[-1], truth, SIDE)) < 0.5
        assert float(degrees_apart(walk[-1], truth)) < 5


@pytest.mark.parametrize("degrees", [-40, -15, 0, 25, 45])
def test_a_fit_recovers_a_known_rotation_within_three_degrees(degrees):
    (frame,) = shifted_maps((0, 0), 1, side=20)
    truth = placed([[7, 6]], side=20, patch=6, angle=math.radians(degrees))
    patch = cut_patch(frame, truth, 6)
    found = make_placement(*fit_square(affinity(frame, patch, 0.01), 0.3), 0.3)
    assert float(degrees_apart(found, truth)) < 3.0
    assert float(cells_apart(found, truth, 20)) < 0.1


def test_the_localizer_is_that_of_the_paper_where_patches_have_its_size():
    net = ConvLocalizer(30, 10)
    assert net.conv1.weight.shape == (128, 900, 4, 4) and net.conv2.weight.shape == (64, 128, 4, 4)
    assert net.place.weight.shape == (3, 1024)
    for patch in (1, 2, 3, 4, 5, 7):
        center, angle = ConvLocalizer(6, patch)(torch.rand(2, 36, patch**2))
        assert center.shape == (2, 2) and angle.shape == (2,)


@pytest.mark.slow
def test_a_trained_localizer_recovers_translation_and_rotation():
    """Within 5 degrees and half a cell, on features that it has not seen, once it was trained on others."""
    torch.manual_seed(0)
    net, generator = ConvLocalizer(SIDE, PATCH), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

    def asked(num):
        large = torch.randn(num, 32, SIDE, SIDE, generator=generator)
        frame = F.normalize(F.avg_pool2d(large, 3, 1, 1).flatten(2), dim=1)
        angle = 1.5 * torch.rand(num, generator=generator) - 0.75
        center = keep_inside(1.2 * torch.rand(num, 2, generator=generator) - 0.6, angle, SCALE)
        truth = make_placement(center, angle, SCALE)
        return make_placement(*net(affinity(frame, cut_patch(frame, truth, PATCH), 0.05)), SCALE), truth

    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / 1500))
        optimizer.zero_grad()
        alignment_loss(*asked(64)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        found, truth = asked(256)
    assert float(degrees_apart(found, truth).median()) < 5
    assert float(cells_apart(found, truth, SIDE).median()) < 0.5


def test_gradients_reach_through_every_step_of_the_longest_cycle():
    """A probe that adds nothing to the place found at each step: the end moves with it, and with every frame."""
    maps = [f.requires_grad_() for f in features(5)]
    patch = features(side=PATCH, seed=9)[0].requires_grad_()
    probes = []

    def locate(patch_BDM, frame_BDN):
        probes.append(torch.zeros(2, 2, 3, dtype=torch.float64, requires_grad=True))
        found = make_placement(*fit_square(affinity(frame_BDN, patch_BDM, 0.2), SCALE), SCALE)
        return found + probes[-1]

    long_cycles(patch, maps[:4], maps[4], locate)[-1][-1][:, :, 2].square().sum().backward()
    assert len(probes) == 14
    of_the_longest = [*range(4), *range(10, 14)]  # four steps back, and the last four calls: forth, and into the target
    for number, probe in enumerate(probes):
        if number in of_the_longest:
            assert float(probe.grad.abs().max()) > 1e-9, f"nothing comes through step {number}"
        else:
            assert probe.grad is None, "a step of a shorter cycle"
    for tensor in (*maps, patch):
        assert float(tensor.grad.abs().max()) > 1e-9


@pytest.mark.parametrize("localizer", ["convolutions", "fit"])
def test_long_cycles_alone_teach_the_encoder(localizer):
    task, backbone = task_and_backbone(sim_weight=0, skip_weight=0, long_weight=1, localizer=localizer)
    backbone.freeze_after(task.stage)
    task.train()(task.augment(pixels(), draws(3)), backbone.train()).loss.backward()
    weights = {n: p.grad for n, p in backbone.named_parameters() if p.requires_grad and p.ndim > 1}
    assert len(weights) == 2 and all(float(g.abs().max()) > 0 for g in weights.values())
    assert float(task.project.weight.grad.abs().max()) > 0


def only_the_longest(patch, maps, locate):
    """The longest cycle by itself, step by step."""
    here, walk = patch, []
    for frame in [*maps[:4], *maps[2::-1], maps[4]]:
        walk.append(locate(here, frame))
        here = cut_patch(frame, walk[-1], PATCH)
    return walk


def test_the_cycles_visit_the_frames_in_their_order():
    maps, patch = features(5), features(side=PATCH, seed=9)[0]
    visited = []

    def locate(patch_BDM, frame_BDN):
        visited.append(next(i for i, m in enumerate(maps) if m is frame_BDN))
        return sharp(patch_BDM, frame_BDN)

    long = long_cycles(patch, maps[:4], maps[4], locate)
    assert visited == [0, 1, 2, 3, 4, 0, 4, 1, 0, 4, 2, 1, 0, 4]  # back; then forth from each, and into the target
    for placement, want in zip(long[-1], only_the_longest(patch, maps, sharp), strict=True):
        torch.testing.assert_close(placement, want)
    visited.clear()
    skip_cycles(patch, maps[:4], maps[4], locate)
    assert visited == [0, 4, 1, 4, 2, 4, 3, 4]


def test_patches_are_cut_from_normalized_or_from_raw_maps_as_the_option_says():
    """Two cells of one direction, a long one and a short one of another: their mean is along the long one, or between them."""
    frame = torch.zeros(1, 3, 9, dtype=torch.float64)
    frame[0, 0, :], frame[0, :2, 4] = 9.0, torch.tensor([0.0, 1.0])
    between = make_placement(
        torch.tensor([[-1 / 3, 0.0]], dtype=torch.float64), torch.zeros(1), 1 / 3
    )  # cells 3 and 4, half each
    raw = cut_patch(frame, between, 1)[0, :, 0]
    normalized = cut_patch(F.normalize(frame, dim=1), between, 1)[0, :, 0]
    torch.testing.assert_close(raw, F.normalize(torch.tensor([9.0, 1.0, 0.0], dtype=torch.float64), dim=0))
    torch.testing.assert_close(normalized, F.normalize(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), dim=0))
    for cut_from in ("normalized", "raw"):
        task, backbone = task_and_backbone(cut_from=cut_from)
        maps = task.eval().embed(task.augment(pixels(), draws(3))["frames"], backbone.eval())
        lengths = task.compared(maps[:, 0]).norm(dim=1)
        assert torch.equal(maps[:, 0], task.compared(maps[:, 0])) is (cut_from == "normalized")
        torch.testing.assert_close(lengths[lengths > 0], torch.ones_like(lengths[lengths > 0]))


# ---- the losses


def test_long_and_skip_losses_are_those_computed_by_hand():
    """Cycles that end so many cells to the right of the truth: each costs (2 cells / side)^2, whatever the angle."""
    task, _ = task_and_backbone(sim_weight=2.0, skip_weight=0.5, long_weight=0.25)
    side, patch = task.frame_side, task.patch_side
    truth = placed([[2, 3]], side=side, patch=patch)

    def end(cells):
        return [placed([[2 + cells, 3]], side=side, patch=patch)]

    long, skip = [end(1), end(2), end(-1)], [end(0), end(3), end(1)]
    unit = (2 / side) ** 2
    similarity = torch.tensor([[0.5, 0.25, 0.0]], dtype=torch.float64)
    want = 0.25 * (1 + 4 + 1) * unit + 0.5 * (0 + 9 + 1) * unit - 2 * 0.75
    assert float(task.loss(long, skip, similarity, truth)) == pytest.approx(want / 3, rel=1e-9)
    summed, _ = task_and_backbone(sim_weight=2.0, skip_weight=0.5, long_weight=0.25, sum_cycles=True)
    assert float(summed.loss(long, skip, similarity, truth)) == pytest.approx(want, rel=1e-9)


def test_the_loss_is_put_together_from_its_parts():
    for similarity, cut_from in (("inliers", "normalized"), ("dot", "normalized"), ("inliers", "raw"), ("dot", "raw")):
        task, backbone = task_and_backbone(similarity=similarity, localizer="fit", cut_from=cut_from)
        batch = task.eval().augment(pixels(), draws(3))
        output = task(batch, backbone.eval())
        *earlier, target = task.embed(batch["frames"], backbone).unbind(1)
        patch = F.normalize(task.embed(batch["patch"].unsqueeze(2), backbone)[:, 0], dim=1)
        past = earlier[::-1]
        long, skip = (walk(patch, past, target, task.locate) for walk in (long_cycles, skip_cycles))
        alike = torch.stack([task.similarity(patch, f, w[0]) for f, w in zip(past, skip, strict=True)], 1)
        likely = affinity(F.normalize(past[0], dim=1), patch, task.temperature)  # of the first step, from scratch
        torch.testing.assert_close(skip[0][0], make_placement(*fit_square(likely, task.scale), task.scale))
        torch.testing.assert_close(output.loss, task.loss(long, skip, alike, batch["placement"]))
        torch.testing.assert_close(output.metrics["similarity"], alike.mean(1))
        for n, walk in enumerate(long, start=1):
            error = (walk[-1] - batch["placement"])[:, :, 2].norm(dim=1) * task.frame_side / 2
            torch.testing.assert_close(output.metrics[f"error_long{n}"], error)


# ---- measures


def test_errors_closed_cycles_and_the_middle_by_hand():
    task, _ = task_and_backbone()
    side, patch = task.frame_side, task.patch_side
    truth = placed([[2, 3]], side=side, patch=patch)
    ends = {
        "long": [placed([[2 + d, 3]], side=side, patch=patch, angle=math.radians(10)) for d in (0.5, 1.5, 3)],
        "skip": [placed([[2, 3 + d]], side=side, patch=patch) for d in (0, 0, 2)],
    }
    found = {name: float(value) for name, value in task.measures(ends, truth).items()}
    assert [found[f"error_long{n}"] for n in (1, 2, 3)] == pytest.approx([0.5, 1.5, 3])
    assert [found[f"closed_skip{n}"] for n in (1, 2, 3)] == [1, 1, 0]
    assert found["error_long"] == pytest.approx(5 / 3) and found["closed_long"] == pytest.approx(1 / 3)
    assert found["angle_error_long"] == pytest.approx(10) and found["angle_error_skip"] == pytest.approx(0, abs=1e-6)
    middle = [2 + patch / 2 - side / 2, 3 + patch / 2 - side / 2]
    assert found["error_of_center"] == pytest.approx(math.hypot(*middle))


def test_relative_errors_are_ratios_of_sums_over_the_epoch():
    task, _ = task_and_backbone()
    metrics = task.epoch_metrics()
    for batch in (([1.0, 2.0], [4.0, 4.0]), ([0.0, 3.0], [1.0, 3.0])):
        for metric in metrics.values():
            metric.update(*map(torch.tensor, batch))
    assert float(metrics["relative_error"].compute()) == pytest.approx(6 / 12)
    assert float(metrics["gain_over_center"].compute()) == pytest.approx(1 - 6 / 12)
    assert task.chance() == {"gain_over_center": 0.0, "relative_error": 1.0}


def test_whoever_says_in_the_middle_has_gained_nothing():
    task, backbone = task_and_backbone()
    task.localizer.place.weight.data.zero_()
    output = task(task.eval().augment(pixels(), draws(3)), backbone.eval())
    metrics = task.epoch_metrics()
    for name, metric in metrics.items():
        metric.update(*output.scores[name])
    assert float(metrics["relative_error"].compute()) == pytest.approx(1.0)
    torch.testing.assert_close(output.metrics["error_long"], output.metrics["error_of_center"])


# ---- schedules


def test_while_frozen_the_backbone_gets_gradients_of_zero_and_the_head_its_own():
    task, backbone = task_and_backbone(freeze_steps=2)
    batch = task.augment(pixels(), draws(3))
    backbone.freeze_after(task.stage)
    for step, frozen in ((0, True), (1, True), (2, False)):
        task.steps_done.fill_(step)
        backbone.zero_grad(), task.zero_grad()
        task.train()(batch, backbone.train()).loss.backward()
        trained = [p for p in backbone.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)
        assert all(not p.grad.any() for p in trained) is frozen
        assert task.project.weight.grad.any()


def test_the_curriculum_grows_the_longest_cycle_and_validation_has_all():
    task, backbone = task_and_backbone(num_past=4, curriculum_steps=40, frame_px=16)
    lengths = []
    for step in (0, 9, 10, 19, 20, 30, 39, 40, 400):
        task.steps_done.fill_(step)
        lengths.append(task.train().longest)
        assert task.eval().longest == 4
    assert lengths == [1, 1, 2, 2, 3, 4, 4, 4, 4]
    task.train().steps_done.fill_(15)
    output = task(task.augment(pixels(num_frames=5, px=16), draws(3)), backbone)
    assert "error_long2" in output.metrics and "error_long3" not in output.metrics
    assert task.visualize(task.augment(pixels(num_frames=5, px=16), draws(3)), output)["cycles"].dtype == np.uint8


def test_the_schedule_travels_in_the_state():
    task, backbone = task_and_backbone(curriculum_steps=10)
    for step in range(7):
        task.after_step(backbone, step)
    other, _ = task_and_backbone(curriculum_steps=10)
    other.load_state_dict(task.state_dict())
    assert int(other.steps_done) == 7 and other.train().longest == task.train().longest == 3


@pytest.mark.slow
def test_a_run_that_was_stopped_in_the_midst_of_its_schedules_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    schedules = ["task.options.curriculum_steps=9", "task.options.freeze_steps=7"]
    options = ["optim.epochs=2", "trainer.max_steps=12", *schedules]
    whole, torn = whole_and_torn("cycle_consistency", CycleConsistency, tmp_path, monkeypatch, *options)
    assert int(whole.task_state["steps_done"]) == 12
    for one, other in ((whole.task_state, torn.task_state), (whole.backbone_state, torn.backbone_state)):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- canaries


def test_with_features_that_tell_frames_of_other_videos_do_not_let_cycles_close():
    target, *foreign = features(4, B=64, seed=3)
    truth = placed(np.random.default_rng(0).integers(0, 7, (64, 2)).tolist())
    patch = cut_patch(target, truth, PATCH)
    own, other = (
        torch.stack([cells_apart(walk[-1], truth, SIDE) for walk in long_cycles(patch, past, target, sharp)])
        for past in ([target] * 3, foreign)
    )
    center = (truth[:, :, 2].norm(dim=1) * SIDE / 2).mean()
    assert float(own.max()) < 1e-6
    assert (other.mean(dim=1) > 0.9 * center).all()


def test_where_a_frame_was_cut_does_not_matter_to_a_tracker_of_contents():
    """Each frame of a still scene shifted by itself: every cycle closes, though the place in each frame is another."""
    (large,) = features(1, B=1, side=16)
    views = [cut_patch(large, placed([xy], side=16, patch=SIDE), SIDE) for xy in ([0, 3], [6, 1], [4, 6], [3, 3])]
    truth = placed([[3, 3]])
    patch = cut_patch(views[-1], truth, PATCH)
    for walk in (*long_cycles(patch, views[:3], views[3], sharp), *skip_cycles(patch, views[:3], views[3], sharp)):
        torch.testing.assert_close(walk[-1], truth, atol=1e-9, rtol=0)
        assert float(cells_apart(walk[0], truth, SIDE)) > 1


# ---- contract and refusals


@pytest.mark.parametrize(
    "options", [{"localizer": "fit", "similarity": "dot"}, {"curriculum_steps": 9, "freeze_steps": 3}]
)
def test_check_task(options):
    check_task("cycle_consistency", stage="stage2", embed_channels=16, patch_scale=0.4, num_past=2, **options)


def test_pictures_show_two_rows_for_each_sample():
    task, backbone = task_and_backbone()
    batch = task.eval().augment(pixels(5), draws(5))
    picture = task.visualize(batch, task(batch, backbone.eval()))["cycles"]
    assert picture.dtype == np.uint8 and picture.shape == (6 * 114, 8 * 114, 3)


def test_what_cannot_work_is_refused_all_at_once():
    info = create_backbone("tiny3d", width=2).info
    config = CycleConsistencyConfig(
        frame_px=30, localizer="argmax", similarity="cosine", num_past=0, temperature=-1, skip_weight=0, long_weight=0,
        patch_scale=1.5, frame_shift=0.7,
    )  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        CycleConsistency(config, info)
    for words in (
        r"frame_px (30) must be a multiple of 16, the stride of stage4, such as 32",
        "localizer ('argmax') must be one of convolutions, fit",
        "similarity ('cosine') must be one of inliers, dot",
        "num_past (0) must be at least 1",
        "temperature (-1) must be at least 0",
        "must not both be 0",
        "patch_scale (1.5) must be above 0 and at most 1",
        "frame_shift (0.7) must be between 0 and 0.5",
        "Set task.options.localizer=",
    ):
        assert words in str(caught.value)


def test_networks_that_cannot_see_single_frames_or_borders_are_refused():
    difference = create_backbone("tiny3d", width=2, input="difference").info
    with pytest.raises(RecipeError, match=r"frames are shown one by one, and backbone tiny3d needs 2"):
        CycleConsistency(CycleConsistencyConfig(**SMALL), difference)
    with pytest.raises(RecipeError, match=r"maps of backbone caffenet leave out the borders"):
        CycleConsistency(CycleConsistencyConfig(), create_backbone("caffenet").info)
    reflecting = create_backbone("resnet18", stride_space=8, padding="reflect").info
    with pytest.raises(RecipeError, match=r"patch_scale \(0.1\) gives patches of 8 px, and resnet18 needs 9"):
        CycleConsistency(CycleConsistencyConfig(frame_px=80, patch_scale=0.1, stage="layer3"), reflecting)
