"""Time contrast: the law of windows and looks, the losses against float64 loops, and that times reach the loss by the answer alone."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretext_tasks.time_contrast import (
    Embedded,
    TimeContrast,
    TimeContrastConfig,
    WindowLooks,
    claimed_parts,
    clips_of,
    in_order,
    local_loss,
    matching_loss,
    share_matched,
    time_slots,
)
from ssvid.backbones import create_backbone
from ssvid.backbones.contract import without_weights
from ssvid.errors import RecipeError
from ssvid.pictures import RIGHT, WRONG
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task, refusal_of
from ssvid.types import Stream, Ticket, VideoInfo

P, T = 4, 4
SMALL = TimeContrastConfig(num_frames=T, frame_px=20, hidden_channels=8, embed_channels=6, jitter_prob=0.0)
PARTS = [0, 1, 2, 3]


def plan(config=SMALL, seed=0, frames=40):
    video = VideoInfo("v.mp4", frames, 25.0, 24, 32)
    return WindowLooks(config).plan(video, np.random.default_rng(seed), np.random.default_rng(9))


def built(config=SMALL):
    torch.manual_seed(0)
    backbone = create_backbone("tiny3d", width=2, stride_time=1)
    return TimeContrast(config, backbone.info), backbone


def batch_of(num=4, config=SMALL, pixels=None, stream=Stream.TRAIN):
    """A batch as a worker makes it; pixels (40, 3, 24, 32) default to noise, the same in both looks."""
    maker = WindowLooks(config)
    if pixels is None:
        pixels = torch.randint(0, 256, (40, 3, 24, 32), generator=torch.manual_seed(1)).byte()
    samples = []
    for i in range(num):
        rng, p = np.random.default_rng([i, int(stream)]), plan(config, [i, int(stream)])
        samples.append(maker.transform(tuple(pixels[torch.from_numpy(v)] for v in p.views), p, rng, rng))
    batch = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
    tickets = [Ticket(int(stream), 0, 0, i) for i in range(num)]
    return batch | {"video_numbers": torch.arange(num)[:, None]}, BatchRandom.of(0, tickets)


def embedded(num=3, seed=0):
    """Embeddings as a network might give them, float64."""
    draws = torch.Generator().manual_seed(seed)
    sizes = ((num, 2, 6), (num, 2, P, 6), (num, 2, P, 6))
    return Embedded(*(torch.randn(size, generator=draws, dtype=torch.float64) for size in sizes))


def asked(found, order, config=SMALL, shown=None, **more):
    """What the task makes of given embeddings; ``order`` and ``shown`` of every sample alike."""
    task, backbone = built(config)
    task.embed = lambda looks, backbone: found
    num = len(found.whole_B2D)
    alike = {
        name: torch.tensor([o] * num) for name, o in (("order", order), ("shown", PARTS if shown is None else shown))
    }
    batch = {"looks": None, "partner": torch.arange(num), "video_numbers": torch.arange(num)[:, None], **alike, **more}
    return task.train()(batch, backbone)


# ---- sampling


@pytest.mark.parametrize("stride", [1, 3])
def test_a_window_fits_the_shortest_legal_video_and_both_looks_are_of_it(stride):
    config = replace(SMALL, stride_frames=stride)
    shortest = WindowLooks(config).min_frames
    assert shortest == (P * T - 1) * stride + 1
    starts = Counter()
    for seed in range(300):
        one, two = plan(config, seed, shortest + 2).views
        assert np.array_equal(one, two) and len(one) == P * T
        assert set(np.diff(one)) == {stride} and 0 <= one[0] and one[-1] < shortest + 2
        starts[int(one[0])] += 1
    assert set(starts) == {0, 1, 2} and min(starts.values()) > 60


def test_parts_are_shown_in_every_order_alike_and_the_answer_is_that_order():
    counts = Counter()
    for seed in range(4800):
        targets = plan(seed=seed).targets
        assert np.array_equal(targets["shown"], targets["order"]) and targets["shown"] is not targets["order"]
        counts[tuple(targets["order"].tolist())] += 1
    assert set(counts) == set(permutations(range(P)))
    assert all(abs(n - 200) < 5 * math.sqrt(200) for n in counts.values())


def test_the_whole_window_is_thinned_and_its_parts_share_no_frame():
    looks = torch.arange(2 * P * T).view(1, 2, 1, P * T, 1, 1)
    clips = clips_of(looks, P)[0, :, :, 0, :, 0, 0]
    assert clips[0, 0].tolist() == [0, 4, 8, 12]  # of 16 frames every fourth
    assert clips[0, 1:].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert torch.equal(clips[1], clips[0] + P * T)


@pytest.mark.parametrize("training", [True, False])
def test_each_look_has_a_square_a_flip_and_colors_of_its_own_for_all_its_frames(training):
    columns = torch.arange(32, dtype=torch.uint8).mul(7).view(1, 1, 1, 32).expand(40, 3, 24, 32)
    config = replace(SMALL, jitter_prob=1.0)
    task, _ = built(config)
    looks = task.train(training).augment(*batch_of(12, config, columns))["looks"]
    assert torch.allclose(looks, looks[:, :, :, :1].expand_as(looks), atol=1e-6)  # alike in all frames
    frame_BVCHW = looks[:, :, :, 0]
    rising_BV = frame_BVCHW[..., 0, -1].mean(dim=2) > frame_BVCHW[..., 0, 0].mean(dim=2)
    assert (rising_BV[:, 0] != rising_BV[:, 1]).any() and (rising_BV[:, 0] == rising_BV[:, 1]).any()
    spread_BV = (frame_BVCHW[:, :, 0, 0, -1] - frame_BVCHW[:, :, 0, 0, 0]).abs()
    assert (spread_BV[:, 0] - spread_BV[:, 1]).abs().min() > 1e-4  # other sides, other colors


def test_validation_has_draws_of_its_own_and_repeats_them():
    task, _ = built(replace(SMALL, jitter_prob=1.0))
    val = [task.augment(*batch_of(stream=Stream.VAL))["looks"] for _ in range(2)]
    assert torch.equal(*val)
    assert not torch.equal(val[0], task.augment(*batch_of(stream=Stream.TRAIN))["looks"])


# ---- slots and losses


@pytest.mark.parametrize("num_cells", [4, 5, 7, 8, 16])
def test_slots_are_those_of_adaptive_pooling(num_cells):
    maps = torch.randn(3, 5, num_cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(time_slots(maps, P), F.adaptive_avg_pool1d(maps, P).transpose(1, 2))
    assert time_slots(torch.arange(8.0).view(1, 1, 8), P).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def unit(vector):
    return vector / vector.norm()


def similarity(one, two, temperature):
    return math.exp(float(unit(one) @ unit(two)) / temperature)


def nt_xent_by_loop(looks, temperature):
    """Of two sets of vectors: each is told from all of other numbers, in both sets; mean over all."""
    total, num = 0.0, len(looks[0])
    for own in range(2):
        for n in range(num):
            positive = similarity(looks[own][n], looks[1 - own][n], temperature)
            others = [looks[look][m] for look in range(2) for m in range(num) if m != n]
            negatives = sum(similarity(looks[own][n], other, temperature) for other in others)
            total -= math.log(positive / (positive + negatives)) / (2 * num)
    return total


def local_by_loop(one, two, temperature):
    return sum(nt_xent_by_loop((one[b], two[b]), temperature) for b in range(len(one))) / len(one)


def matching_by_loop(one, two, temperature):
    total, num = 0.0, len(one)
    for b in range(num):
        s = [[similarity(x, y, temperature) for y in two[b]] for x in one[b]]
        for t in range(P):
            total -= math.log(s[t][t] / sum(s[t])) + math.log(s[t][t] / sum(s[u][t] for u in range(P)))
    return total / (2 * num * P)


@pytest.mark.parametrize(("loss", "loop"), [(local_loss, local_by_loop), (matching_loss, matching_by_loop)])
def test_losses_by_a_loop_and_what_does_not_change_them(loss, loop):
    parts = embedded(5).parts_B2PD
    one, two = parts[:, 0], parts[:, 1]
    value = float(loss(one, two, 0.3))
    assert value == pytest.approx(loop(one, two, 0.3), abs=1e-12)
    assert value == pytest.approx(float(loss(two, one, 0.3)), abs=1e-12)  # looks change places
    assert value == pytest.approx(float(loss(one.flip(0), two.flip(0), 0.3)), abs=1e-12)  # the order of the batch
    assert value == pytest.approx(float(loss(one.flip(1), two.flip(1), 0.3)), abs=1e-12)  # time runs backward in both
    assert value == pytest.approx(float(loss(3 * one, two / 7, 0.3)), abs=1e-12)  # lengths
    assert value != pytest.approx(float(loss(one, two.flip(1), 0.3)), abs=1e-3)


def test_losses_by_hand():
    alike, apart = torch.ones(2, P, 3, dtype=torch.float64), torch.eye(P, dtype=torch.float64).repeat(2, 1, 1)
    assert float(local_loss(alike, alike, 0.1)) == pytest.approx(math.log(1 + 2 * (P - 1)))
    assert float(matching_loss(alike, alike, 0.1)) == pytest.approx(math.log(P))
    assert float(local_loss(apart, apart, 0.5)) == pytest.approx(math.log(1 + 2 * (P - 1) / math.exp(2)))
    assert float(matching_loss(apart, apart, 0.5)) == pytest.approx(math.log(1 + (P - 1) / math.exp(2)))


def whole_loss(found, config):
    """All three losses by loops, of looks whose parts stand in the order of time."""
    (one, two), (s1, s2) = found.parts_B2PD.unbind(1), found.slots_B2PD.unbind(1)
    t = config.temperature
    across = (matching_by_loop(s1, two, t) + matching_by_loop(s2, one, t)) / 2
    instances = nt_xent_by_loop(found.whole_B2D.unbind(1), t)
    return (
        config.instance_weight * instances
        + config.local_weight * local_by_loop(one, two, t)
        + config.global_weight * across
    )


@pytest.mark.parametrize("weights", [(1, 1, 1), (0, 1, 0), (0.5, 0, 2), (1, 0.25, 0)])
def test_the_whole_loss_by_loops(weights):
    config = replace(
        SMALL, temperature=0.4, **dict(zip(("instance_weight", "local_weight", "global_weight"), weights, strict=True))
    )
    found = embedded()
    assert float(asked(found, PARTS, config).loss) == pytest.approx(
        whole_loss(found, config), rel=1e-6 if weights[0] else 1e-12
    )


def test_the_loss_is_that_of_the_networks_own_embeddings():
    task, backbone = built()
    task.train(), backbone.train()
    batch = task.augment(*batch_of(3))
    with torch.no_grad():
        loss = float(task(batch, backbone).loss)
        backbone.zero_grad()
        found = Embedded(*(x.double() for x in task.embed(batch["looks"], backbone)))
    assert loss == pytest.approx(whole_loss(found, SMALL), rel=1e-4)


def test_embeddings_belong_to_their_clips():
    """Clip by clip through network and head: the whole, each part, each slot."""
    task, backbone = built()
    task.eval(), backbone.eval()
    looks = task.augment(*batch_of(2))["looks"]
    found = task.embed(looks, backbone)
    head = lambda vector: task.head(vector[None])[0]  # noqa: E731
    for b in range(2):
        for v in range(2):
            whole = backbone(looks[b, v][None, :, ::P]).mean(dim=(3, 4))[0]
            torch.testing.assert_close(found.whole_B2D[b, v], head(whole.mean(dim=1)), atol=1e-4, rtol=1e-4)
            for t in range(P):
                part = backbone(looks[b, v][None, :, t * T : (t + 1) * T]).mean(dim=(2, 3, 4))[0]
                torch.testing.assert_close(found.parts_B2PD[b, v, t], head(part), atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(found.slots_B2PD[b, v, t], head(whole[:, t]), atol=1e-4, rtol=1e-4)


def test_all_clips_share_one_pass_so_that_no_time_has_statistics_of_its_own():
    task, backbone = built()
    passes = []
    backbone.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    task(task.augment(*batch_of(3)), backbone)
    assert passes == [3 * 2 * (1 + P)]


# ---- the answer


def test_claimed_parts_by_hand():
    shown, order = torch.tensor([[2, 0, 3, 1]]), torch.tensor([[2, 0, 3, 1]])
    assert claimed_parts(shown, order).tolist() == [PARTS]  # the right answer undoes the order shown
    # The answer says: place 0 is time 1, place 1 time 0, place 2 time 2, place 3 time 3.
    assert claimed_parts(shown, torch.tensor([[1, 0, 2, 3]])).tolist() == [[0, 2, 3, 1]]
    assert in_order(torch.tensor([[10, 11, 12, 13]]), torch.tensor([[0, 2, 3, 1]])).tolist() == [[10, 12, 13, 11]]


def test_how_parts_are_shown_does_not_matter_where_the_answer_says_it():
    found = embedded()
    values = {float(asked(found, order, shown=order).loss) for order in permutations(range(P))}
    assert max(values) - min(values) < 1e-12


def test_looks_may_change_places():
    found = embedded()
    swapped = Embedded(*(x.flip(1) for x in found))
    one, two = asked(found, PARTS), asked(swapped, PARTS)
    assert float(one.loss) == pytest.approx(float(two.loss), abs=1e-12)
    for name in ("accuracy", "global_accuracy"):
        assert torch.equal(one.metrics[name], two.metrics[name])


def test_the_order_of_the_batch_does_not_matter():
    task, backbone = built()
    task.eval(), backbone.eval()
    batch = task.augment(*batch_of(5))
    turned = {key: value.flip(0) for key, value in batch.items()} | {"partner": batch["partner"]}
    one, two = task(batch, backbone), task(turned, backbone)
    assert float(one.loss.detach()) == pytest.approx(float(two.loss.detach()), rel=1e-5)
    for name, values in one.metrics.items():
        torch.testing.assert_close(values, two.metrics[name].flip(0))


@pytest.mark.parametrize("weights", [{"global_weight": 0.0}, {"local_weight": 0.0}])
def test_averaged_over_all_answers_the_loss_knows_no_times(weights):
    """A placebo's answer is any order. If times leaked otherwise, rearranging what the second look really shows would matter."""
    config, found = replace(SMALL, instance_weight=0.0, **weights), embedded()

    def averaged(parts, slots):
        at = torch.stack([found.parts_B2PD[:, 0], found.parts_B2PD[:, 1, list(parts)]], dim=1)
        of = torch.stack([found.slots_B2PD[:, 0], found.slots_B2PD[:, 1, list(slots)]], dim=1)
        each = [float(asked(Embedded(found.whole_B2D, at, of), o, config).loss) for o in permutations(range(P))]
        return sum(each) / len(each), max(each) - min(each)

    mean, spread = averaged(PARTS, PARTS)
    assert spread > 0.1
    for parts, slots in (((1, 0, 2, 3), (1, 0, 2, 3)), ((3, 2, 0, 1), (0, 1, 2, 3)), ((2, 3, 1, 0), (1, 2, 3, 0))):
        assert averaged(parts, slots)[0] == pytest.approx(mean, abs=1e-10)


def test_a_placebo_takes_order_and_window_from_one_other_video():
    task, _ = built()
    batch = task.augment(*batch_of(8))
    batch["order"] = torch.arange(8)[:, None].expand(8, P)
    for seed in range(50):
        changed = task.placebo(batch, np.random.default_rng(seed))
        assert torch.equal(changed["order"][:, 0], changed["partner"])
        assert sorted(changed["partner"].tolist()) == list(range(8))
        assert all(int(p) != i for i, p in enumerate(changed["partner"]))
        assert {key for key in batch if not torch.equal(batch[key], changed[key])} == {"order", "partner"}


def test_by_a_placebo_every_part_is_said_to_be_of_every_time_equally_often():
    task, _ = built()
    counts, orders, num = np.zeros((P, P)), Counter(), 600
    for seed in range(num):
        shown = torch.stack([torch.from_numpy(plan(seed=[seed, i]).targets["shown"]) for i in range(4)])
        batch = {"shown": shown, "order": shown.clone(), "partner": torch.arange(4)}
        changed = task.placebo(batch, np.random.default_rng(seed))
        for of_time in claimed_parts(changed["shown"], changed["order"]).tolist():
            counts[range(P), of_time] += 1
            orders[tuple(of_time)] += 1
    assert np.abs(counts - num).max() < 5 * math.sqrt(num)
    assert len(orders) == 24 and all(abs(n - num / 6) < 5 * math.sqrt(num / 6) for n in orders.values())


def test_a_placebo_calls_the_window_of_another_video_its_own():
    found, partner = embedded(4), torch.tensor([2, 3, 1, 0])
    config = replace(SMALL, local_weight=0.0, global_weight=0.0)
    one, two = found.whole_B2D.unbind(1)
    loss = float(asked(found, PARTS, config, partner=partner).loss)
    assert loss == pytest.approx(nt_xent_by_loop((one, two[partner]), config.temperature), rel=1e-6)


# ---- measures, chance, what pixels tell


def test_share_matched_by_hand():
    similarity = torch.tensor([[[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.0, 0.2, 0.2]]])
    # Rows: 0 is right; 1 is nearest to 0; 2 is as near to 1 as to 2: a half. Columns: 0 right, 1 right, 2 right.
    assert float(share_matched(similarity)) == pytest.approx((1.5 / 3 + 3 / 3) / 2)
    assert float(share_matched(similarity.transpose(1, 2))) == float(share_matched(similarity))
    assert share_matched(torch.ones(2, P, P)).tolist() == [1 / P] * 2


def test_of_wrong_answers_accuracy_counts_those_that_are_right():
    found = embedded()
    same = Embedded(found.whole_B2D, found.parts_B2PD[:, :1].expand(-1, 2, -1, -1), found.slots_B2PD)
    assert asked(same, PARTS).metrics["accuracy"].tolist() == [1.0] * 3
    assert asked(same, [1, 0, 2, 3]).metrics["accuracy"].tolist() == [0.5] * 3
    assert asked(same, [1, 2, 3, 0]).metrics["accuracy"].tolist() == [0.0] * 3


@pytest.mark.parametrize("input", ["rgb", "difference"])
def test_still_clips_are_at_chance_exactly(input):
    task, _ = built(replace(SMALL, jitter_prob=1.0))
    backbone = create_backbone("tiny3d", width=2, stride_time=1, input=input)
    task.eval(), backbone.eval()
    still = torch.randint(0, 256, (1, 3, 24, 32), dtype=torch.uint8).expand(40, 3, 24, 32)
    metrics = task(task.augment(*batch_of(20, pixels=still)), backbone).metrics
    for name in ("accuracy", "color_accuracy", "change_accuracy"):
        torch.testing.assert_close(metrics[name], torch.full((20,), 1 / P), atol=1e-6, rtol=0)
    assert set(task.chance().values()) == {1 / P}


def test_noise_of_its_own_in_each_look_stays_at_chance():
    task, backbone = built()
    task.eval(), backbone.eval()
    batch, draws = batch_of(150)
    batch["looks"] = torch.randint(0, 256, batch["looks"].shape, generator=torch.manual_seed(3)).byte()
    with torch.no_grad():
        metrics = task(task.augment(batch, draws), backbone).metrics
    assert set(metrics) == {"accuracy", "global_accuracy", "color_accuracy", "change_accuracy"}
    for values in metrics.values():
        assert abs(float(values.mean()) - 1 / P) < 5 * float(values.std()) / math.sqrt(150)


def test_mean_colors_solve_what_grows_brighter_whatever_the_colors_of_a_look():
    brighter = torch.arange(40, dtype=torch.uint8).mul(4).add(40).view(40, 1, 1, 1).expand(40, 3, 24, 32)
    config = replace(SMALL, jitter=(0.2, 0.2, 0.2, 0.0), jitter_prob=1.0)
    task, backbone = built(config)
    metrics = task.eval()(task.augment(*batch_of(20, config, brighter)), backbone.eval()).metrics
    assert metrics["color_accuracy"].tolist() == [1.0] * 20


def test_the_amount_of_change_solves_what_flickers_more_and_more():
    task, backbone = built()
    flicker = (torch.arange(40) % 2 * torch.arange(40) * 3).byte().view(40, 1, 1, 1).expand(40, 3, 24, 32)
    metrics = task.eval()(task.augment(*batch_of(5, pixels=flicker)), backbone.eval()).metrics
    assert metrics["change_accuracy"].tolist() == [1.0] * 5


def test_a_fixed_batch_is_learned():
    task, backbone = built()
    batch, draws = batch_of(4, pixels=torch.randint(0, 256, (40, 3, 24, 32), generator=torch.manual_seed(5)).byte())
    batch = task.augment(batch, draws)
    optimizer = torch.optim.Adam([*task.parameters(), *backbone.parameters()], 0.01)
    losses = []
    for _ in range(25):
        output = task(batch, backbone)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert float(output.metrics["accuracy"].mean()) > 0.9


# ---- pictures


def test_a_line_leads_from_each_part_to_its_nearest_green_where_it_is_right():
    task, _ = built()
    batch = task.augment(*batch_of(2))
    similarity = torch.eye(P).repeat(2, 1, 1)
    similarity[1] = similarity[1].flip(1)
    output = type("Output", (), {"extras": {"similarity": similarity, "of_time": torch.tensor([PARTS, PARTS])}})
    picture = task.visualize(batch, output)["parts"]
    assert picture.dtype == np.uint8 and picture.shape == (2 * (64 + 28 + 64 + 12), 150 + P * (2 * 64 + 6), 3)
    strips = picture[64 : 64 + 28, 150:], picture[168 + 64 : 168 + 64 + 28, 150:]
    has = lambda strip, color: bool((strip == np.array(color)).all(axis=2).any())  # noqa: E731
    assert has(strips[0], RIGHT) and not has(strips[0], WRONG)
    assert has(strips[1], WRONG) and not has(strips[1], RIGHT)


# ---- recipes, options, networks


@pytest.mark.parametrize("weights", [{}, {"instance_weight": 0.0}, {"local_weight": 0.0, "global_weight": 0.0}])
def test_the_contract_holds_with_any_of_the_losses(weights):
    check_task("time_contrast", hidden_channels=8, embed_channels=4, **weights)


def test_the_papers_recipe_is_in_the_papers_setting():
    recipe = load_recipe("pretrain/time_contrast_r3d18_ucf101", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.num_parts, config.num_frames, config.stride_frames, config.frame_px) == (4, 16, 1, 112)
    assert (config.temperature, config.hidden_channels, config.embed_channels) == (0.1, 512, 128)
    assert recipe.optim.base_lr * recipe.loader.global_batch / 256 == pytest.approx(1e-3)
    assert (recipe.optim.name, recipe.loader.global_batch) == ("adam", 40)
    TimeContrast(config, without_weights(recipe.backbone.name, **recipe.backbone.options).info)


def test_a_network_with_too_few_cells_in_time_is_refused_and_each_way_out_works():
    told = refusal_of("time_contrast", without_weights("r3d_18"))
    assert "num_parts (4) must be at most 2, the cells in time of the whole window's map" in told and "\n" not in told
    assert refusal_of("time_contrast", without_weights("r3d_18", stride_time=4)) == ""
    assert refusal_of("time_contrast", without_weights("tiny3d")) == ""
    info = without_weights("r3d_18").info
    TimeContrast(TimeContrastConfig(num_parts=2), info)
    TimeContrast(TimeContrastConfig(num_frames=25), info)
    with pytest.raises(RecipeError, match=r"num_parts \(4\) must be at most 3, the cells in time"):
        time_slots(torch.zeros(2, 5, 3), 4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_parts": 1}, r"num_parts \(1\) must be at least 2"),
        ({"stride_frames": 0}, r"stride_frames \(0\) must be at least 1"),
        ({"temperature": 0.0}, r"temperature \(0.0\) must be above 0"),
        ({"crop_scale": 0.0}, r"crop_scale \(0.0\) must be above 0 and at most 1"),
        ({"space_pool": "max2"}, r"space_pool \('max2'\) must be one of mean, max"),
        (
            {"instance_weight": 0.0, "local_weight": 0.0, "global_weight": 0.0},
            r"local_weight \(0.0\) must be above 0, or instance_weight, or global_weight",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        TimeContrast(TimeContrastConfig(**options), without_weights("tiny3d").info)
