"""Colorization: Lab against scikit-image, the pointer and its loss against float64 loops, baselines, palette, canaries."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from pretext_tasks.colorization import (
    PIXELS_PER_SAMPLE,
    Colorization,
    ColorizationClips,
    ColorizationConfig,
    blind_guesses,
    coordinate_map,
    copied_nll,
    fit_palette,
    nearest_colors,
    paint,
    right_where_moved,
    score_guess,
)
from ssvid.backbones import create_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.tasks import BatchRandom
from ssvid.transforms import shifted_boxes
from ssvid.transforms.correspondence import copied_probs, pointer_logits
from ssvid.transforms.lab import rgb_to_lab
from ssvid.types import ClipPlan, Ticket, VideoInfo
from ssvid.video.sampling import frame_gap

SMALL = ColorizationConfig(
    frame_px=32, stage="stage2", palette_samples=8
)  # tiny3d's stage2 has stride 4: maps of 8 x 8


def video(frames=60, fps=25.0):
    return VideoInfo("v.mp4", frames, fps, 48, 64)


def draws(num):
    return BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(num)])


def blocks(seed, frames=60):
    """Frames TCHW of colored blocks that move one pixel to the right in each frame."""
    rng = np.random.default_rng(seed)
    still = torch.from_numpy(rng.integers(0, 256, (3, 6, 8), dtype=np.uint8)).repeat_interleave(8, 1)
    still = still.repeat_interleave(8, 2)
    return torch.stack([still.roll(t, dims=-1) for t in range(frames)])


def batch_of(num=3, config=SMALL, training=True, make=blocks):
    """A batch as a worker makes it."""
    maker = ColorizationClips(config, config.frame_px // 4, training)
    samples = []
    for i in range(num):
        rng = np.random.default_rng(i)
        plan = maker.plan(video(), rng, rng)
        samples.append(maker.transform((make(i)[torch.from_numpy(plan.views[0])],), plan, rng, rng))
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def prepared(config=SMALL, width=2, seed=0, **options):
    """A task whose palette was measured on the blocks, and its network."""
    torch.manual_seed(seed)
    backbone = create_backbone("tiny3d", width=width, **options)
    task = Colorization(config, backbone.info)
    batch = batch_of(8, config)
    task.prepare([{key: values[i] for key, values in batch.items()} for i in range(8)])
    return task, backbone


def still(seed):
    return blocks(seed)[:1].expand(60, -1, -1, -1)


# ---- color


def test_the_nearest_color_is_the_nearest():
    rng = np.random.default_rng(2)
    ab, palette = rng.uniform(-60, 60, (2, 2, 4, 5)), rng.uniform(-60, 60, (7, 2))
    got = nearest_colors(torch.from_numpy(ab), torch.from_numpy(palette))
    assert got.shape == (2, 4, 5)
    for n in range(2):
        for y in range(4):
            for x in range(5):
                distances = [math.dist(ab[n, :, y, x], color) for color in palette]
                assert int(got[n, y, x]) == distances.index(min(distances))


# ---- palette


def test_the_palette_finds_planted_colors_sorted_and_seeded():
    rng = np.random.default_rng(3)
    planted = np.array([[-40.0, 10.0], [0.0, -30.0], [0.0, 30.0], [50.0, 0.0]])
    pixels = (planted[:, None] + rng.normal(0, 1, (4, 500, 2))).reshape(-1, 2)[rng.permutation(2000)]
    palette = fit_palette(pixels, 4)
    assert palette.dtype == np.float32
    for color in planted:
        assert np.abs(palette - color).max(axis=1).min() < 0.3
    assert np.all(np.diff(palette[:, 0]) > 0)
    np.testing.assert_array_equal(palette, fit_palette(pixels, 4))


def test_gray_videos_are_refused_when_the_palette_is_measured():
    gray = {"reference_colors": torch.full((3, 3, 8, 8), 90, dtype=torch.uint8)}
    gray["target_colors"] = gray["reference_colors"][0]
    task = Colorization(SMALL, create_backbone("tiny3d", width=2).info)
    with pytest.raises(
        DataError, match=r"hold 1 different colors; num_colors \(16\) needs at least as many.*use color"
    ):
        task.prepare([gray])


def test_prepare_reads_what_it_was_told_to_and_leaves_a_buffer_of_fixed_shape():
    task, backbone = prepared()
    before = Colorization(SMALL, backbone.info).state_dict()
    assert {k: v.shape for k, v in task.state_dict().items()} == {k: v.shape for k, v in before.items()}
    assert not torch.equal(task.palette_K2, before["palette_K2"])
    batch = batch_of(8)
    samples = [{key: values[i] for key, values in batch.items()} for i in range(8)]
    read = []
    again = Colorization(SMALL, backbone.info)
    again.prepare(read.append(i) or sample for i, sample in enumerate(samples * 4))
    assert read == list(range(8))  # palette_samples
    assert torch.equal(again.palette_K2, task.palette_K2)
    restored = Colorization(SMALL, backbone.info)
    restored.load_state_dict(task.state_dict())
    assert torch.equal(restored.palette_K2, task.palette_K2)


def test_the_palette_describes_the_colors_better_than_the_one_before_it_was_measured():
    task, backbone = prepared()
    ab = rgb_to_lab(batch_of(8)["target_colors"].float() / 255)[:, 1:]
    assert PIXELS_PER_SAMPLE == 256

    def error(of):
        nearest = of.palette_K2[nearest_colors(ab, of.palette_K2)].movedim(-1, 1)
        return float((nearest - ab).pow(2).mean())

    assert error(task) < 0.4 * error(Colorization(SMALL, backbone.info))


# ---- sampling


@pytest.mark.parametrize(
    ("frames", "fps", "sample_fps", "gap"),
    [(60, 25, 6, 4), (60, 30, 6, 5), (60, 6, 6, 1), (60, 3, 6, 1), (10, 25, 6, 3), (4, 25, 6, 1), (60, 25, 0, 1)],
)
def test_frames_are_taken_at_the_stated_rate_or_as_widely_as_a_short_video_allows(frames, fps, sample_fps, gap):
    assert frame_gap(frames, fps, count=4, sample_fps=sample_fps) == gap
    config = ColorizationConfig(sample_fps=sample_fps)
    starts = set()
    for seed in range(1500):
        (view,) = ColorizationClips(config, 8, True).plan(video(frames, fps), np.random.default_rng(seed), None).views
        assert np.all(np.diff(view) == gap)
        assert view[0] >= 0 and view[-1] < frames
        starts.add(int(view[0]))
    assert starts == set(range(frames - 3 * gap))  # 60 starts: one is left out once in 10^8


def test_the_color_map_is_the_square_scaled_down_as_pillow_does_it():
    frames = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    sample = ColorizationClips(SMALL, 8, False).transform((frames,), ClipPlan((np.arange(4),)), None, None)
    assert torch.equal(sample["frames"], frames)
    got = torch.cat([sample["reference_colors"], sample["target_colors"][None]])
    assert got.shape == (4, 3, 8, 8)
    for t in range(4):
        picture = Image.fromarray(frames[t].permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        want = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert int((got[t].int() - want.int()).abs().max()) <= 1


def test_frames_and_colors_show_the_same_square():
    batch = batch_of(4, ColorizationConfig(frame_px=32, stage="stage2", crop_scale=0.5))
    small = torch.nn.functional.avg_pool2d(batch["frames"][:, -1].float(), 4)
    colors = batch["target_colors"].float()
    for axis in (-1, -2):
        for cells in (-1, 1):
            wrong, right = ((x - colors).narrow(axis, 1, 6).abs().mean() for x in (small.roll(cells, axis), small))
            assert float(right) < 0.5 * float(wrong)


def test_shifted_squares_lie_within_the_common_one_and_reach_its_corners():
    boxes = [box for seed in range(200) for box in shifted_boxes((3, 5, 20), 0.25, 4, np.random.default_rng(seed))]
    assert {side for _, _, side in boxes} == {15}
    assert {top for top, _, _ in boxes} == set(range(3, 9))
    assert {left for _, left, _ in boxes} == set(range(5, 11))
    assert (
        sum(boxes[i] == boxes[i + 1] for i in range(0, 800, 2)) < 400 * 0.1
    )  # frames are moved by themselves: 1 in 36


def test_in_training_frames_and_their_colors_are_shifted_alike_and_in_validation_not_at_all():
    config = ColorizationConfig(**{**vars(SMALL), "frame_shift": 0.4})
    shifted, plain = batch_of(4, config, make=still), batch_of(4, config, training=False, make=still)
    for batch, is_still in ((shifted, False), (plain, True)):
        same = [torch.equal(batch["frames"][b, 0], batch["frames"][b, t]) for b in range(4) for t in (1, 2, 3)]
        assert all(same) if is_still else not any(same)
    small = torch.nn.functional.avg_pool2d(shifted["frames"][:, -1].float(), 4)
    colors = shifted["target_colors"].float()
    wrong, right = ((x - colors).narrow(-1, 1, 6).abs().mean() for x in (small.roll(1, -1), small))
    assert float(right) < 0.5 * float(wrong)


# ---- the pointer and its loss


def pointer_case(seed=0, B=2, D=3, N=10, M=4, K=3):
    rng = np.random.default_rng(seed)
    source, query = rng.normal(size=(B, D, N)), rng.normal(size=(B, D, M))
    return source, query, rng.integers(0, K, (B, N)), rng.integers(0, K, (B, M))


def test_pointer_and_loss_are_those_of_the_paper_in_loops():
    source, query, source_colors, query_colors = pointer_case()
    K, temperature, smoothing = 3, 0.7, 0.01
    logits = pointer_logits(torch.from_numpy(source), torch.from_numpy(query), temperature).double()
    colors = torch.from_numpy(source_colors), torch.from_numpy(query_colors)
    nll = copied_nll(logits, *colors, num_colors=K, smoothing=smoothing)
    probs = copied_probs(logits, colors[0], K)
    for b in range(2):
        for j in range(4):
            weights = []
            for i in range(10):
                product = sum(source[b, d, i] * query[b, d, j] for d in range(3))
                weights.append(math.exp(product / temperature))
            copied = [0.0] * K
            for i in range(10):
                copied[source_colors[b, i]] += weights[i] / sum(weights)
            expected = -math.log((1 - smoothing) * copied[query_colors[b, j]] + smoothing / K)
            assert float(nll[b, j]) == pytest.approx(expected, abs=1e-5)
            assert probs[b, :, j].tolist() == pytest.approx(copied, abs=1e-5)


def test_the_loss_lives_in_log_space():
    logits = torch.tensor([[[300.0], [0.0]]], dtype=torch.float64)  # the right color gets exp(-300) of the pointer
    nll = copied_nll(logits, torch.tensor([[0, 1]]), torch.tensor([[1]]), num_colors=2, smoothing=1e-200)
    assert float(nll) == pytest.approx(300.0, rel=1e-9)


def test_a_color_that_no_reference_holds_costs_a_finite_loss_and_teaches_nothing():
    logits = torch.randn(1, 5, 2, requires_grad=True, generator=torch.manual_seed(0))
    nll = copied_nll(logits, torch.zeros(1, 5, dtype=torch.int64), torch.tensor([[3, 0]]), num_colors=4, smoothing=0.01)
    unseen, seen = nll[0].tolist()
    assert unseen == pytest.approx(math.log(4 / 0.01), rel=1e-6)
    assert seen == pytest.approx(-math.log(0.99 + 0.01 / 4), rel=1e-4)
    nll.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert float(logits.grad[:, :, 0].abs().max()) < 1e-12


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    _, _, source, query = pointer_case(seed=4)
    logits = torch.randn(2, 10, 4, dtype=torch.float64, requires_grad=True, generator=torch.manual_seed(4))
    colors = torch.from_numpy(source), torch.from_numpy(query)
    assert torch.autograd.gradcheck(lambda x: copied_nll(x, *colors, num_colors=3, smoothing=0.01), (logits,))


def test_pointing_at_oneself_costs_only_the_smoothing():
    features = 30 * torch.nn.functional.normalize(torch.randn(1, 64, 50, generator=torch.manual_seed(0)), dim=1)
    colors = torch.arange(50)[None] % 16
    nll = copied_nll(pointer_logits(features, features, 1.0), colors, colors, num_colors=16, smoothing=0.001)
    assert float(nll.max()) < 0.0011


def test_a_blind_pointer_loses_the_cross_entropy_with_the_references_shares():
    source = torch.tensor([[0] * 6 + [1] * 3 + [2]])
    query = torch.tensor([[0, 1, 2, 0]])
    nll = copied_nll(torch.zeros(1, 10, 4), source, query, num_colors=3, smoothing=1e-6)
    assert nll[0].tolist() == pytest.approx([-math.log(p) for p in (0.6, 0.3, 0.1, 0.6)], abs=1e-4)


def test_the_pointer_keeps_its_precision_under_autocast():
    source, query, *_ = pointer_case()
    features = torch.from_numpy(source).float(), torch.from_numpy(query).float()
    want = pointer_logits(*features, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pointer_logits(*features, 1.0), want)


# ---- the guesses that it stands beside


def test_blind_guesses_in_loops():
    rng = np.random.default_rng(5)
    references, target = rng.integers(0, 4, (3, 2, 4, 5)), rng.integers(0, 4, (3, 4, 5))
    references[:, :, :2] = 2  # so that there is a most common one
    guesses = blind_guesses(torch.from_numpy(references), 4)
    query = torch.from_numpy(target).flatten(1)
    for b in range(3):
        counts = [int((references[b] == k).sum()) for k in range(4)]
        common = counts.index(max(counts))
        cells = [(y, x) for y in range(4) for x in range(5)]
        wanted = {
            "common": sum(target[b, y, x] == common for y, x in cells) / 20,
            "place": sum(target[b, y, x] == references[b, -1, y, x] for y, x in cells) / 20,
        }
        nll = -sum(math.log(0.9 * counts[target[b, y, x]] / 40 + 0.1 / 4) for y, x in cells) / 20
        for name, share in wanted.items():
            assert float(score_guess(guesses[name], query, 0.1)[0][b]) == pytest.approx(share)
        assert float(score_guess(guesses["common"], query, 0.1)[1][b]) == pytest.approx(nll, rel=1e-5)


def test_right_where_moved_counts_what_the_same_place_gets_wrong():
    rng = np.random.default_rng(6)
    references, target, predicted = (rng.integers(0, 3, shape) for shape in ((2, 3, 4, 5), (2, 4, 5), (2, 4, 5)))
    got = right_where_moved(*(torch.from_numpy(x) for x in (predicted, references, target)))
    for b in range(2):
        cells = [(y, x) for y in range(4) for x in range(5)]
        hits = [predicted[b, y, x] == target[b, y, x] != references[b, 2, y, x] for y, x in cells]
        assert float(got[b]) == pytest.approx(sum(hits) / 20)
    assert (
        right_where_moved(torch.from_numpy(references[:, 2]), *map(torch.from_numpy, (references, target))).sum() == 0
    )


def test_metrics_stand_beside_the_guesses_on_the_same_pixels():
    task, backbone = prepared()
    task.eval(), backbone.eval()
    out = task(task.augment(batch_of(training=False), draws(3)), backbone)
    for name in ("common", "place"):
        gain = out.metrics["accuracy"] - out.metrics[f"copy_{name}"]
        assert torch.equal(out.metrics[f"gain_over_{name}"], gain)
        assert task.chance()[f"gain_over_{name}"] == 0
    assert next(iter(task.chance())) == "gain_over_common"


def test_perplexity_is_the_exponential_of_the_mean_over_the_epoch():
    task, _ = prepared()
    metric = task.epoch_metrics()["perplexity"]
    metric.update(torch.tensor([1.0, 2.0]))
    metric.update(torch.tensor([3.0, 0.0]))
    assert float(metric.compute()) == pytest.approx(math.exp(1.5))


def test_in_a_still_video_the_same_place_is_right_everywhere():
    task, backbone = prepared()
    out = task(task.augment(batch_of(make=still), draws(3)), backbone)
    assert out.metrics["copy_place"].tolist() == [1.0] * 3
    assert float(out.scores["perplexity_copy_place"][0].max()) < 0.0011


def test_gray_videos_leave_nothing_to_gain():
    task, backbone = prepared()

    def gray(seed):
        return blocks(seed)[:, :1].expand(-1, 3, -1, -1)

    out = task(task.augment(batch_of(make=gray), draws(3)), backbone)
    assert out.metrics["accuracy"].tolist() == [1.0] * 3
    assert out.metrics["gain_over_common"].tolist() == [0.0] * 3


# ---- on the device


def test_colors_become_targets_before_the_frames_lose_theirs():
    task, _ = prepared()
    batch = batch_of(training=False)
    out = task.eval().augment(dict(batch), draws(3))
    frames = out["frames"]
    assert frames.shape == (3, 3, 4, 32, 32) and frames.dtype == torch.float32
    assert torch.equal(frames[:, 0], frames[:, 1]) and torch.equal(frames[:, 0], frames[:, 2])
    assert 0 <= float(frames.min()) and float(frames.max()) <= 1
    assert out["target_colors"].dtype == torch.int64 and out["target_colors"].unique().numel() > 4
    ab = rgb_to_lab(batch["target_colors"].double() / 255)[:, 1:]
    assert torch.equal(out["target_colors"], nearest_colors(ab, task.palette_K2.double()))


def test_a_flip_turns_frames_and_colors_alike():
    task, _ = prepared()
    batch = batch_of(8, training=False)
    plain, turned = task.eval().augment(dict(batch), draws(8)), task.train().augment(dict(batch), draws(8))
    flipped = [not torch.equal(plain["frames"][i], turned["frames"][i]) for i in range(8)]
    assert any(flipped) and not all(flipped)
    for name in ("frames", "reference_colors", "target_colors"):
        for i in range(8):
            assert torch.equal(turned[name][i], plain[name][i].flip(-1) if flipped[i] else plain[name][i])


def test_targets_do_not_depend_on_the_precision_of_training():
    task, _ = prepared()
    want = task.eval().augment(batch_of(), draws(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = task.augment(batch_of(), draws(3))
    for name in ("frames", "reference_colors", "target_colors"):
        assert torch.equal(got[name], want[name])


def test_the_placebo_permutes_the_targets_and_leaves_what_can_be_copied():
    task, _ = prepared()
    batch = task.augment(batch_of(8), draws(8))
    changed = task.placebo(batch, np.random.default_rng(0))
    assert not torch.equal(changed["target_colors"], batch["target_colors"])
    assert torch.equal(changed["reference_colors"], batch["reference_colors"])
    assert torch.equal(changed["frames"], batch["frames"])
    rows = {tuple(row.flatten().tolist()) for row in batch["target_colors"]}
    assert {tuple(row.flatten().tolist()) for row in changed["target_colors"]} == rows
    assert not any(torch.equal(*rows) for rows in zip(changed["target_colors"], batch["target_colors"], strict=True))


# ---- the network and its head


def trained_parameters(task, backbone):
    backbone.freeze_after(task.stage)
    return [(n, p) for n, p in [*task.named_parameters(), *backbone.named_parameters()] if p.requires_grad]


@pytest.mark.parametrize(
    "options", [{}, {"coordinates": True}, {"temporal_layers": 5, "head_channels": 4, "coordinates": True}]
)
def test_every_parameter_gets_a_gradient(options):
    task, backbone = prepared(ColorizationConfig(**{**vars(SMALL), **options}))
    parameters = trained_parameters(task, backbone)
    task(task.augment(batch_of(), draws(3)), backbone).loss.backward()
    for name, parameter in parameters:
        assert parameter.grad is not None, name


def test_coordinates_run_from_minus_one_to_one():
    x, y = coordinate_map(torch.zeros(2, 7, 3, 5, 9))[1, :, 2]
    assert x[0].tolist() == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]
    assert y[:, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.equal(x[0], x[-1]) and torch.equal(y[:, 0], y[:, -1])


def test_temporal_layers_let_frames_see_one_another_and_single_frames_do_not():
    for layers in (0, 1):
        task, backbone = prepared(ColorizationConfig(**{**vars(SMALL), "temporal_layers": layers, "head_channels": 4}))
        task.eval(), backbone.eval()
        frames = task.augment(batch_of(), draws(3))["frames"]
        other = frames.clone()
        other[:, :, 0] = 1 - other[:, :, 0]
        maps = [task.head(task._frame_maps(f, backbone)) for f in (frames, other)]
        assert torch.equal(maps[0][:, :, 1], maps[1][:, :, 1]) is (layers == 0)
        assert torch.equal(maps[0][:, :, 3], maps[1][:, :, 3])  # out of reach of one layer


def test_a_2d_network_gives_the_same_maps_frame_by_frame_and_as_a_clip():
    backbone = create_backbone("resnet18", stride_space=8).eval()
    frames = torch.rand(2, 3, 4, 32, 32, generator=torch.manual_seed(0))
    maps = []
    for together in (False, True):
        config = ColorizationConfig(frame_px=32, stage="layer1", together=together)
        maps.append(Colorization(config, backbone.info)._frame_maps(frames, backbone))
    assert maps[0].shape == (2, 64, 4, 8, 8)
    torch.testing.assert_close(maps[0], maps[1], atol=1e-5, rtol=1e-5)


def test_a_3d_network_with_temporal_stride_1_can_take_the_clip_at_once():
    config = ColorizationConfig(**{**vars(SMALL), "together": True})
    task, backbone = prepared(config, stride_time=1)
    out = task(task.augment(batch_of(), draws(3)), backbone)
    assert torch.isfinite(out.loss)
    task, backbone = prepared(config, stride_time=1, input="difference")  # which needs two frames
    assert torch.isfinite(task(task.augment(batch_of(), draws(3)), backbone).loss)


def test_canary_identical_frames_are_colored_almost_without_loss():
    """A network that is shown a frame four times learns to point at the place itself."""
    config = ColorizationConfig(**{**vars(SMALL), "flip": False})
    task, backbone = prepared(config, width=8)
    optimizer = torch.optim.Adam([p for _, p in trained_parameters(task, backbone)], lr=0.01)
    batch = task.augment(batch_of(4, make=lambda seed: torch.randint(
        0, 256, (1, 3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(seed)).expand(60, -1, -1, -1)), draws(4))  # fmt: skip
    losses = []
    for _ in range(60):
        loss = task(batch, backbone).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.05


# ---- pictures


def test_pictures_show_references_gray_prediction_and_truth():
    task, backbone = prepared()
    batch = task.eval().augment(batch_of(training=False), draws(3))
    picture = task.visualize(batch, task(batch, backbone.eval()))["colors"]
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * 98, 6 * 98, 3)
    tiles = [picture[:96, i * 98 : i * 98 + 96].astype(int) for i in range(6)]
    spread = [np.ptp(tile, axis=-1).mean() for tile in tiles]
    assert spread[3] == 0  # the gray target
    assert all(spread[i] > 10 for i in (0, 1, 2, 4, 5))


def test_painting_keeps_the_lightness_and_takes_the_palette():
    gray = torch.full((3, 8, 8), 0.5)
    palette = torch.tensor([[30.0, 0.0], [0.0, -20.0]])
    colors = torch.tensor([[0, 1], [1, 0]])
    lab = rgb_to_lab(paint(gray, colors, palette))
    torch.testing.assert_close(lab[0], rgb_to_lab(gray)[0], atol=0.05, rtol=0)
    torch.testing.assert_close(lab[1:, 0, 7], palette[1], atol=0.05, rtol=0)
    torch.testing.assert_close(lab[1:, 7, 7], palette[0], atol=0.05, rtol=0)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_references": 0}, r"num_references \(0\) must be at least 1"),
        ({"num_colors": 1}, r"num_colors \(1\) must be at least 2"),
        ({"sample_fps": -1.0}, r"sample_fps \(-1.0\) must be at least 0"),
        ({"temperature": 0.0}, r"temperature \(0.0\) must be above 0"),
        ({"smoothing": 1.0}, r"smoothing \(1.0\) must be above 0 and below 1"),
        ({"temporal_layers": -1}, r"temporal_layers \(-1\) must be at least 0"),
        ({"frame_shift": 0.7}, r"frame_shift \(0.7\) must be between 0 and 0.5"),
        ({"crop_scale": 1.5}, r"crop_scale \(1.5\) must be above 0 and at most 1"),
        ({"frame_px": 100}, r"frame_px \(100\) must be a multiple of 16, the stride of stage4, such as 96"),
        (
            {"together": True},
            r"together \(true\) needs a map that keeps every frame, and stage4 keeps one of 4; set backb",
        ),
        ({"stage": "stage9"}, r"no stage 'stage9'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        Colorization(ColorizationConfig(**options), create_backbone("tiny3d", width=2).info)


def test_networks_that_cannot_be_used_are_refused():
    difference = create_backbone("tiny3d", width=2, input="difference").info
    with pytest.raises(
        RecipeError, match=r"together \(false\) gives single frames, and backbone tiny3d needs 2; set tog"
    ):
        Colorization(ColorizationConfig(), difference)
    with pytest.raises(RecipeError, match=r"num_references \(0\) must be at least 1 for tiny3d"):
        Colorization(ColorizationConfig(together=True, num_references=0), difference)
    with pytest.raises(RecipeError, match=r"the maps of backbone caffenet leave out the borders"):
        Colorization(ColorizationConfig(), create_backbone("caffenet").info)
