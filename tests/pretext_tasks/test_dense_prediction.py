"""Dense prediction: the recurrent unit, targets and loss against float64 loops; blocks; colors; canaries."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pretext_tasks.dense_prediction import (
    EASY,
    SAME,
    SPATIAL,
    TEMPORAL,
    BlockClips,
    ConvGRU,
    DensePrediction,
    DensePredictionConfig,
    contrast_loss,
    drift,
    kinds_of_targets,
    predict,
    right_among,
    split_channels,
)
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import ClipPlan, Ticket, VideoInfo

SMALL = {"frame_px": 32, "num_blocks": 4, "num_predicted": 2, "block_frames": 3, "embed_channels": 8, "stage": "stage3"}


def draws(num):
    return BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(num)])


def task_and_backbone(seed=0, **options):
    torch.manual_seed(seed)
    backbone = create_backbone("tiny3d", width=4)
    return DensePrediction(DensePredictionConfig(**SMALL | options), backbone.info), backbone


def noise(num=3, past=2, future=2, frames=3, px=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (num, past + future, frames, 3, px, px), dtype=torch.uint8, generator=generator)
    return {"past": clips[:, :past], "future": clips[:, past:]}


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- sampling


def test_blocks_follow_one_another_and_the_last_are_the_future():
    config = DensePredictionConfig(frame_px=8, num_blocks=5, num_predicted=2, block_frames=3)
    video = VideoInfo("v", 60, 24.0, 8, 8)
    maker = BlockClips(config, False)
    starts = set()
    for seed in range(400):
        (view,) = maker.plan(video, np.random.default_rng(seed), None).views
        assert view.dtype == np.int64 and (np.diff(view) == 3).all() and len(view) == 15 == maker.min_frames
        starts.add(int(view[0]))
    assert starts == set(range(60 - 42))
    film = torch.arange(15, dtype=torch.uint8).view(15, 1, 1, 1).expand(-1, 3, 8, 8)
    sample = maker.transform((film,), ClipPlan((np.arange(15),)), np.random.default_rng(0), None)
    assert sample["past"][:, :, 0, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert sample["future"][:, :, 0, 0, 0].tolist() == [[9, 10, 11], [12, 13, 14]]


def test_a_short_video_is_taken_frame_by_frame():
    config = DensePredictionConfig()
    (view,) = BlockClips(config, True).plan(VideoInfo("v", 40, 25.0, 8, 8), np.random.default_rng(0), None).views
    assert view.tolist() == list(range(40))
    (view,) = BlockClips(config, True).plan(VideoInfo("v", 500, 25.0, 8, 8), np.random.default_rng(0), None).views
    assert view[-1] - view[0] == 3 * 39  # the setting of UCF101: every third frame of 25 a second


# ---- augmenting


def test_a_clip_has_one_flip_and_one_jitter_for_past_and_future():
    task, _ = task_and_backbone(channel_prob=0.0)
    still = noise(12, past=1, future=1, frames=1)["past"].expand(-1, 4, 3, -1, -1, -1)
    out = task.train().augment({"past": still[:, :2], "future": still[:, 2:]}, draws(12))
    blocks = torch.cat([out["past"], out["future"]], dim=1)
    assert torch.equal(blocks, blocks[:, :1, :, :1].expand_as(blocks))
    assert not torch.allclose(blocks[:, 0, :, 0], still[:, 0, 0] / 255, atol=0.02)
    plain, _ = task_and_backbone(channel_prob=0.0, jitter=(0, 0, 0, 0))
    out = plain.train().augment({"past": still[:, :2], "future": still[:, 2:]}, draws(12))
    pixels = still[:, 0, 0].float() / 255
    is_flipped = [torch.equal(out["future"][i, 1, :, 2], pixels[i].flip(-1)) for i in range(12)]
    is_kept = [torch.equal(out["past"][i, 0, :, 0], pixels[i]) for i in range(12)]
    assert 2 < sum(is_flipped) < 10 and [*map(bool.__xor__, is_flipped, is_kept)] == [True] * 12
    out = task.eval().augment({"past": still[:, :2], "future": still[:, 2:]}, draws(12))
    assert torch.equal(out["past"][:, 0, :, 0], pixels)


def test_half_of_the_frames_show_one_channel_each_frame_by_itself():
    clips = random(20, 3, 50, 1, 1).float()
    out = split_channels(clips, draws(20).samples, 0.5)[:, :, :, 0, 0]
    alone = (out == out[:, :1]).all(dim=1)
    assert float(alone.float().mean()) == pytest.approx(0.5, abs=4 * (0.25 / 1000) ** 0.5)
    assert torch.equal(out.movedim(1, 2)[~alone], clips[:, :, :, 0, 0].movedim(1, 2)[~alone])
    shown = (out[:, :1] == clips[:, :, :, 0, 0]).float().argmax(dim=1)[alone]
    assert np.bincount(shown.numpy(), minlength=3).min() > 0.25 * len(shown)
    assert 0 < int(alone[0].sum()) < 50  # not a whole clip alike


# ---- the recurrent unit and what it predicts


def test_the_unit_is_that_of_loops_over_cells():
    unit = ConvGRU(3, 1).double()
    for bias in (unit.gates.bias, unit.candidate.bias):
        nn.init.normal_(bias)
    x, state = random(2, 3, 2, 2), random(2, 3, 2, 2, seed=1)
    got = unit(x, state)
    gates, candidate = unit.gates.weight[:, :, 0, 0].tolist(), unit.candidate.weight[:, :, 0, 0].tolist()

    def line(weights, bias, values):
        return [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(weights, bias, strict=True)]

    for b in range(2):
        for i in range(4):
            here, old = (t[b].flatten(1)[:, i].tolist() for t in (x, state))
            opened = [1 / (1 + math.exp(-v)) for v in line(gates, unit.gates.bias.tolist(), here + old)]
            update, reset = opened[:3], opened[3:]
            kept = [r * h for r, h in zip(reset, old, strict=True)]
            new = [math.tanh(v) for v in line(candidate, unit.candidate.bias.tolist(), here + kept)]
            want = [(1 - z) * h + z * n for z, h, n in zip(update, old, new, strict=True)]
            assert got[b].flatten(1)[:, i].tolist() == pytest.approx(want, rel=1e-12)


def test_the_weights_of_the_unit_are_orthogonal_at_the_start():
    unit = ConvGRU(4, 1)
    for weight in (*unit.gates.weight.chunk(2), unit.candidate.weight):
        rows = weight.detach()[:, :, 0, 0]
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)


def test_each_step_is_predicted_from_the_past_and_from_what_was_predicted_before():
    past = random(1, 3, 2, 1, 1)
    told = []

    def gru(x, state):
        told.append(x.flatten().tolist())
        return 0.5 * state + x

    out = predict(past, 3, gru, lambda state: state - 1)
    state = np.zeros(2)
    for t in range(3):
        state = 0.5 * state + past[0, t].flatten().numpy().clip(0)
    want = []
    for _ in range(3):
        want.append(state - 1)
        state = 0.5 * state + want[-1].clip(0)
    np.testing.assert_allclose(out[0, :, :, 0, 0].numpy(), want)
    assert len(told) == 3 + 2  # no step beyond the last block


# ---- the loss


def kinds_by_hand(first, second):
    """Of (clip, step, cell) and (clip, step, cell)."""
    if first[0] != second[0]:
        return EASY
    if first[2] != second[2]:
        return SPATIAL
    return SAME if first[1] == second[1] else TEMPORAL


PLACES = [(b, p, n) for b in range(2) for p in range(3) for n in range(4)]


def test_kinds_of_targets_and_how_many_there_are():
    kinds = kinds_of_targets(2, 3, 4)
    assert kinds.tolist() == [[kinds_by_hand(a, b) for b in PLACES] for a in PLACES]
    of_one = np.bincount(kinds[0], minlength=4)
    assert of_one[[SAME, TEMPORAL, SPATIAL, EASY]].tolist() == [1, 2, 9, 12]


@pytest.mark.parametrize("against", [(SPATIAL, TEMPORAL, EASY), (SPATIAL,), (TEMPORAL,), (EASY,), (SPATIAL, EASY)])
def test_the_loss_is_that_of_loops(against):
    rows, targets = random(24, 5), random(24, 5, seed=1)
    scores = rows @ targets.T
    total = 0.0
    for m, place in enumerate(PLACES):
        told = [n for n, other in enumerate(PLACES) if kinds_by_hand(place, other) in (SAME, *against)]
        powers = {n: math.exp(sum(float(rows[m, d] * targets[n, d]) for d in range(5))) for n in told}
        total -= math.log(powers[m] / sum(powers.values()))
    got = contrast_loss(scores, kinds_of_targets(2, 3, 4), against)
    assert float(got) == pytest.approx(total / 24, rel=1e-12)


def test_scores_that_tell_nothing_lose_the_logarithm_of_the_number_of_targets():
    got = contrast_loss(torch.zeros(24, 24), kinds_of_targets(2, 3, 4), (SPATIAL, TEMPORAL, EASY))
    assert float(got) == pytest.approx(math.log(24))


def test_the_loss_of_the_task_is_put_together_from_its_parts_in_any_order_of_the_batch():
    task, backbone = task_and_backbone()
    batch = task.eval().augment(noise(), draws(3))
    output = task(batch, backbone.eval())
    maps = task.embed(torch.cat([batch["past"], batch["future"]], dim=1), backbone)
    predicted = predict(maps[:, :2], 2, task.gru, task.head)
    rows, targets = (x.double().movedim(2, 4).reshape(-1, 8) for x in (predicted, maps[:, 2:]))
    cells = task.map_side**2
    want = torch.nn.functional.cross_entropy(rows @ targets.T, torch.arange(3 * 2 * cells))
    torch.testing.assert_close(output.loss.double(), want, rtol=1e-4, atol=1e-5)
    other = task({name: blocks[[2, 0, 1]] for name, blocks in batch.items()}, backbone)
    torch.testing.assert_close(other.loss, output.loss)
    for name, values in output.metrics.items():
        torch.testing.assert_close(other.metrics[name], values[[2, 0, 1]])


# ---- measures


def test_what_is_told_from_what_by_loops():
    scores = random(2, 12, 12)
    found = right_among(scores, 4)
    places = [(p, n) for p in range(3) for n in range(4)]
    for b in range(2):
        for m, (p, n) in enumerate(places):
            own = scores[b, m, m]
            among = {
                "clip": [scores[b, m, k] for k in range(12)],
                "place": [scores[b, m, k] for k, other in enumerate(places) if other[0] == p],
                "step": [scores[b, m, k] for k, other in enumerate(places) if other[1] == n],
            }
            for name, values in among.items():
                assert bool(found[name][b, p, n]) == bool(max(values) == own), (name, b, p, n)


def test_targets_that_are_all_alike_are_told_from_nothing():
    assert not any(hits.any() for hits in right_among(torch.ones(2, 12, 12), 4).values())


def test_random_scores_are_at_the_stated_chance():
    task, _ = task_and_backbone()
    steps, cells = 2, task.map_side**2
    found = right_among(random(400, steps * cells, steps * cells), cells)
    names = {"accuracy": "clip", "accuracy_place": "place", "accuracy_step": "step"}
    for name, chance in task.chance().items():
        share = float(found[names[name]].float().mean())
        assert share == pytest.approx(chance, abs=5 * (chance / found["clip"].numel()) ** 0.5)


def test_drifting_colors_by_hand():
    last = torch.tensor([[[0.0], [0.0], [0.0]]])
    future = torch.tensor([[[[1.0], [2.0], [1.0]], [[2.0], [1.0], [1.0]], [[3.0], [3.0], [2.0]]]])  # B P N C
    assert drift(last, future)[0].T.tolist() == [[True] * 3, [False, False, True], [False, False, True]]


# ---- canaries


def test_where_all_blocks_are_alike_no_step_is_told_from_another():
    task, backbone = task_and_backbone()
    still = noise(4, past=1, future=1, frames=1)["past"].expand(-1, 4, 3, -1, -1, -1)
    batch = task.eval().augment({"past": still[:, :2], "future": still[:, 2:]}, draws(4))
    metrics = task(batch, backbone.eval()).metrics
    assert float(metrics["accuracy_step"].max()) <= 0.5 + 1e-6  # of two that differ by no more than rounding, one
    assert float(metrics["accuracy_step_of_drift"].max()) == 0


def test_a_network_that_knows_the_place_alone_has_one_step_in_two():
    """Predictions and targets that tell their cell, and of the block only noise."""
    cells = 16
    place = torch.eye(cells, dtype=torch.float64)
    rows = place.repeat(2, 1).expand(200, -1, -1) + 0.01 * random(200, 2 * cells, cells)
    targets = place.repeat(2, 1).expand(200, -1, -1) + 0.01 * random(200, 2 * cells, cells, seed=1)
    found = right_among(torch.einsum("bmd,bnd->bmn", rows, targets), cells)
    assert float(found["place"].float().mean()) == 1
    for name in ("step", "clip"):
        assert float(found[name].float().mean()) == pytest.approx(0.5, abs=0.03)


# ---- the placebo, the contract, refusals


def test_the_placebo_predicts_the_future_of_another_video():
    task, _ = task_and_backbone()
    batch = task.train().augment(noise(8), draws(8))
    changed = task.placebo(batch, np.random.default_rng(0))
    assert torch.equal(changed["past"], batch["past"])
    order = [next(j for j in range(8) if torch.equal(changed["future"][i], batch["future"][j])) for i in range(8)]
    assert sorted(order) == list(range(8)) and all(i != j for i, j in enumerate(order))


@pytest.mark.parametrize(
    "options", [{"grid": 0, "gru_kernel": 3}, {"num_predicted": 1, "easy": False}, {"temporal": False}]
)
def test_check_task(options):
    check_task(
        "dense_prediction",
        **{
            "num_blocks": 3,
            "num_predicted": 2,
            "block_frames": 2,
            "embed_channels": 8,
            "frame_px": 16,
            "stage": "stage2",
        }
        | options,
    )


def test_past_and_future_teach_the_encoder():
    task, backbone = task_and_backbone()
    backbone.freeze_after(task.stage)
    batch = task.train().augment(noise(), draws(3))
    for name in ("past", "future"):
        batch[name].requires_grad_()
    task(batch, backbone.train()).loss.backward()
    for tensor in (batch["past"], batch["future"], *(p for p in backbone.parameters() if p.requires_grad)):
        assert float(tensor.grad.abs().max()) > 0


def test_pictures_show_the_blocks_and_how_the_future_was_told():
    task, backbone = task_and_backbone()
    batch = task.eval().augment(noise(5), draws(5))
    picture = task.visualize(batch, task(batch, backbone.eval()))["blocks"]
    assert picture.dtype == np.uint8 and picture.shape == (3 * 98, 4 * 98, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_predicted": 4}, r"num_predicted \(4\) must be below num_blocks \(4\), or there is no past"),
        ({"gru_kernel": 2}, r"gru_kernel \(2\) must be odd"),
        ({"spatial": False, "temporal": False, "easy": False}, r"easy \(False\) must be true, or spatial, or temporal"),
        ({"grid": 1, "num_predicted": 1}, r"num_predicted \(1\) must be at least 2 where the map has a single cell"),
        ({"block_frames": 0}, r"block_frames \(0\) must be at least 1"),
    ],
)
def test_what_predicts_nothing_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        task_and_backbone(**options)


def test_networks_that_cannot_see_a_block_are_refused():
    for name, options, words in (
        ("early_fusion", {}, r"block_frames \(3\) must be at least 10, which backbone early_fusion needs"),
        ("caffenet", {}, r"frame_px \(32\) must be at least 35, which backbone caffenet needs"),
    ):
        with torch.device("meta"):
            info = create_backbone(name, **options).info
        with pytest.raises(RecipeError, match=words):
            DensePrediction(DensePredictionConfig(**SMALL | {"stage": ""}), info)
