"""Cubic puzzles: the law of the cuboids, places and permutations, the loss and the blind guess against float64 loops."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.cubic_puzzle import (
    PERMUTATIONS,
    SPACE,
    TIME,
    CubicPuzzle,
    CubicPuzzleConfig,
    PuzzleClips,
    cuboid_box,
    cuboid_starts,
    in_place,
    mirrored_place,
    misfit,
    puzzle_loss,
    share_of_places,
)
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import Ticket, VideoInfo

SMALL = CubicPuzzleConfig(num_frames=3, gap_frames=2, cuboid_px=16, cuboid_scale=0.7, hidden=8, dropout=0.0)
FRAMES = 40


def video(frames=FRAMES):
    return VideoInfo("v.mp4", frames, 25.0, 48, 64)


def plan(config=SMALL, seed=0, frames=FRAMES):
    return PuzzleClips(config, True).plan(video(frames), np.random.default_rng(seed), np.random.default_rng(9))


def sample_of(config, pixels, seed=0, training=True):
    maker = PuzzleClips(config, training)
    rng = np.random.default_rng(seed)
    p = maker.plan(video(len(pixels)), rng, rng)
    return maker.transform(tuple(pixels[torch.from_numpy(v)] for v in p.views), p, rng, rng)


def batch_of(config=SMALL, num=4, pixels=None, training=True):
    if pixels is None:
        pixels = torch.randint(0, 256, (FRAMES, 3, 48, 64), generator=torch.manual_seed(1)).byte()
    samples = [sample_of(config, pixels, seed, training) for seed in range(num)]
    batch = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
    return batch | {"video_numbers": torch.arange(num)[:, None]}, BatchRandom.of(
        0, [Ticket(0, 0, 0, i) for i in range(num)]
    )


def built(config=SMALL):
    torch.manual_seed(0)
    backbone = create_backbone("tiny3d", width=2)
    return CubicPuzzle(config, backbone.info), backbone


# ---- sampling


def test_cuboids_in_time_lie_each_in_its_cell_and_follow_the_stated_law():
    """Two frames and a gap of one: cells of three, a window of twelve. Of 13 frames there are two windows, 16 places each."""
    counts = {}
    for seed in range(6400):
        starts = tuple(cuboid_starts(13, 2, 1, np.random.default_rng(seed)).tolist())
        counts[starts] = counts.get(starts, 0) + 1
    expected = {}
    for window in range(2):
        for offsets in itertools.product(range(2), repeat=4):
            key = tuple(window + 3 * k + o for k, o in enumerate(offsets))
            expected[key] = expected.get(key, 0) + 200
    assert set(counts) == set(expected)
    assert all(abs(counts[k] - expected[k]) < 5 * math.sqrt(expected[k]) for k in expected)


@pytest.mark.parametrize("axis", ["space", "time", "both"])
def test_views_fit_the_shortest_legal_video_and_are_shown_in_the_planned_order(axis):
    config = replace(SMALL, axis=axis, stride_frames=2)
    shortest = PuzzleClips(config, True).min_frames
    axes = set()
    for seed in range(200):
        p = plan(config, seed, shortest + seed % 3)
        axes.add(int(p.targets["axis"]))
        assert all(np.diff(v).tolist() == [2, 2] for v in p.views)
        assert min(v[0] for v in p.views) >= 0 and max(v[-1] for v in p.views) < shortest + seed % 3
        if int(p.targets["axis"]) == TIME:
            order = np.argsort([v[0] for v in p.views])  # which shown cuboid is first, second, ...
            assert PERMUTATIONS[int(p.targets["permutation"])][order].tolist() == [0, 1, 2, 3]
        else:
            assert len(p.views) == 1
    assert axes == {"space": {SPACE}, "time": {TIME}, "both": {SPACE, TIME}}[axis]


def test_every_permutation_of_every_axis_is_equally_frequent():
    counts = np.zeros((2, 24))
    for seed in range(9600):
        targets = plan(seed=seed).targets
        counts[int(targets["axis"]), int(targets["permutation"])] += 1
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)
    assert sorted(map(tuple, PERMUTATIONS.tolist())) == list(itertools.permutations(range(4)))


def test_a_cuboid_lies_anywhere_in_its_cell():
    corners = {place: set() for place in range(4)}
    for seed in range(400):
        for place in range(4):
            top, left, side = cuboid_box((10, 20, 12), place, 0.67, np.random.default_rng([seed, place]))
            assert side == 4
            corners[place].add((top, left))
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        rows, columns = range(10 + 6 * row, 13 + 6 * row), range(20 + 6 * column, 23 + 6 * column)
        assert corners[place] == set(itertools.product(rows, columns))
    assert [mirrored_place(place) for place in range(4)] == [1, 0, 3, 2]


@pytest.mark.parametrize("flip", [True, False])
def test_a_puzzle_in_space_is_solved_by_its_permutation_mirrored_or_not(flip):
    """Pixels are their column (red) and row (green): put where they belong, columns and rows rise from cell to cell."""
    grid = torch.stack([torch.arange(64).expand(48, 64), torch.arange(48)[:, None].expand(48, 64), torch.zeros(48, 64)])
    pixels = grid.byte().expand(FRAMES, 3, 48, 64)
    config = replace(SMALL, axis="space", flip=flip, replicate="off")
    mirrored = set()
    for seed in range(40):
        sample = sample_of(config, pixels, seed)
        column_4, row_4 = sample["cuboids"].float().mean(dim=(1, 3, 4))[:, :2].unbind(1)
        at = torch.from_numpy(PERMUTATIONS[int(sample["permutation"])].argsort())
        columns, rows = column_4[at].view(2, 2), row_4[at].view(2, 2)
        mirrored.add(bool(columns[0, 0] > columns[0, 1]))
        assert (columns[:, 0] < columns[:, 1]).all() or (columns[:, 0] > columns[:, 1]).all()
        assert (rows[0] < rows[1]).all()
        inside = sample["cuboids"][0, 0, 0, 0].float()
        assert bool(inside[0] > inside[-1]) == bool(
            columns[0, 0] > columns[0, 1]
        )  # what is in a cuboid is mirrored with it
    assert mirrored == ({True, False} if flip else {False})


def test_a_puzzle_in_time_is_solved_by_its_permutation():
    pixels = torch.arange(FRAMES).byte().view(-1, 1, 1, 1).expand(FRAMES, 3, 48, 64)
    for seed in range(40):
        sample = sample_of(replace(SMALL, axis="time"), pixels, seed)
        first = sample["cuboids"][:, 0, 0, 0, 0][torch.from_numpy(PERMUTATIONS[int(sample["permutation"])].argsort())]
        assert (first.int().diff() >= 3).all()


@pytest.mark.parametrize(("replicate", "most"), [("sample", 1), ("cuboid", 3), ("off", 0)])
def test_one_channel_stands_for_all_three(replicate, most):
    pixels = torch.tensor([10, 20, 30]).byte().view(1, 3, 1, 1).expand(FRAMES, 3, 48, 64)
    seen, within = set(), []
    for seed in range(60):
        cuboids = sample_of(replace(SMALL, replicate=replicate), pixels, seed)["cuboids"]
        if not most:
            assert cuboids[:, 0, :, 0, 0].tolist() == [[10, 20, 30]] * 4
            continue
        values = {int(v) for v in cuboids.flatten(1).unique(dim=1).flatten()}
        assert torch.equal(cuboids, cuboids[:, :, :1].expand_as(cuboids))
        seen |= values
        within.append(len(values))
    assert not most or (seen == {10, 20, 30} and max(within) == most)


# ---- loss and measures


def test_loss_by_a_loop_and_in_any_order_of_the_batch():
    logits = torch.randn(5, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.tensor([3, 23, 0, 7, 7])
    expected = 0.0
    for b in range(5):
        total = sum(math.exp(float(z)) for z in logits[b])
        expected -= math.log(math.exp(float(logits[b, truth[b]])) / total) / 5
    assert float(puzzle_loss(logits, truth)) == pytest.approx(expected, abs=1e-6)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert float(puzzle_loss(logits[order], truth[order])) == pytest.approx(expected, abs=1e-6)
    assert float(puzzle_loss(torch.zeros(2, 24), truth[:2])) == pytest.approx(math.log(24))


def test_share_of_places_by_hand():
    perms = [tuple(p) for p in PERMUTATIONS.tolist()]
    pairs = [((0, 1, 2, 3), (0, 1, 3, 2), 0.5), ((3, 2, 1, 0), (3, 2, 1, 0), 1.0), ((1, 2, 3, 0), (0, 1, 2, 3), 0.0)]
    for guess, truth, share in pairs:
        got = share_of_places(torch.tensor([perms.index(guess)]), torch.tensor([perms.index(truth)]))
        assert got.tolist() == [share]
    every = torch.arange(24)
    mean = torch.stack([share_of_places(every, every.roll(k)) for k in range(24)]).mean()
    assert float(mean) == pytest.approx(1 / 4)  # what chance() says


def test_misfit_by_loops():
    cuboids = torch.rand(2, 4, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = misfit(cuboids, torch.tensor([SPACE, TIME]))

    def apart(one, other):
        return float(
            sum((float(a) - float(b)) ** 2 for a, b in zip(one.flatten(), other.flatten(), strict=True)) / one.numel()
        )

    for number, permutation in enumerate(itertools.permutations(range(4))):
        at = {place: shown for shown, place in enumerate(permutation)}
        space = sum(apart(cuboids[0, at[p], ..., -1], cuboids[0, at[q], ..., 0]) for p, q in ((0, 1), (2, 3)))
        space += sum(apart(cuboids[0, at[p], ..., -1, :], cuboids[0, at[q], ..., 0, :]) for p, q in ((0, 2), (1, 3)))
        time = sum(apart(cuboids[1, at[p], :, -1], cuboids[1, at[p + 1], :, 0]) for p in range(3))
        assert float(got[0, number]) == pytest.approx(space, abs=1e-6)
        assert float(got[1, number]) == pytest.approx(time, abs=1e-6)


def test_the_blind_guess_solves_what_fits_without_a_gap():
    """A smooth surface that is cut without room, and light that grows: faces that touch are nearly alike."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    surface = 60 + 50 * torch.sin(x / 9) + 40 * torch.cos(y / 7) + y
    pixels = (surface + torch.arange(FRAMES).view(-1, 1, 1) / 2).clamp(0, 255).byte()[:, None].expand(-1, 3, -1, -1)
    for axis in ("space", "time"):
        config = replace(SMALL, axis=axis, cuboid_scale=1.0, gap_frames=0, flip=False)
        task, backbone = built(config)
        output = task.eval()(task.augment(*batch_of(config, 30, pixels, training=False)), backbone.eval())
        assert float(output.metrics["fit_accuracy"].mean()) > 0.9


def test_the_network_sees_every_cuboid_by_itself():
    """Showing the cuboids in another order changes their features' places and nothing else."""
    task, backbone = built()
    cuboids, captured = task.eval().augment(*batch_of())["cuboids"], []
    task.join.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    order = torch.tensor([2, 0, 3, 1])
    answers = {"permutation": torch.zeros(4, dtype=torch.long), "axis": torch.zeros(4, dtype=torch.long)}
    for shown in (cuboids, cuboids[:, order]):
        task({"cuboids": shown, **answers}, backbone.eval())
    plain, moved = (c[:, 0] for c in captured)  # class 0 is the order in which they were shown, if that is the answer
    assert torch.allclose(moved, plain[:, order], atol=1e-6)


def test_features_go_to_the_place_where_their_cuboid_belongs():
    permutation = torch.tensor([list(map(tuple, PERMUTATIONS.tolist())).index((2, 0, 3, 1)), 0])
    features = torch.tensor([10.0, 11, 12, 13]).view(1, 4, 1).repeat(2, 1, 1)
    placed = in_place(features, permutation)[..., 0]
    assert placed.tolist() == [[11, 13, 10, 12], [10, 11, 12, 13]]  # the first one shown belongs at place 2


@pytest.mark.parametrize("head", ["joint", "pairs"])
def test_with_every_order_it_does_not_matter_in_which_one_a_puzzle_is_shown(head):
    """The same cuboids shown otherwise, and the answer with them: loss and metrics stay; as a loop over the 24 orders they are."""
    task, backbone = built(replace(SMALL, axis="time", every_order=True, head=head))
    batch, draws = batch_of(replace(SMALL, axis="time"))
    batch, backbone = task.train().augment(batch, draws), backbone.eval()
    if head == "pairs":  # no estimate of batch statistics between the two calls
        task.eval()
    perms = [tuple(p) for p in PERMUTATIONS.tolist()]
    order = [2, 0, 3, 1]
    shown = batch | {
        "cuboids": batch["cuboids"][:, order],
        "permutation": torch.tensor([perms.index(tuple(perms[p][k] for k in order)) for p in batch["permutation"]]),
    }
    one, other = task(batch, backbone), task(shown, backbone)
    assert one.loss.item() == pytest.approx(other.loss.item(), abs=1e-6)
    assert torch.allclose(one.metrics["accuracy"], other.metrics["accuracy"])
    total = 0.0
    for b, p in enumerate(batch["permutation"].tolist()):
        for number, wanted in enumerate(perms):  # the cuboids as they would be shown in this order
            again = [perms[p].index(place) for place in wanted]
            single = {
                "cuboids": batch["cuboids"][b : b + 1, again],
                "permutation": torch.tensor([number]),
                "axis": batch["axis"][b : b + 1],
            }
            logits = task(single, backbone).extras["logits"][0].double()
            total += float(torch.logsumexp(logits, 0) - logits[number]) / (24 * len(batch["permutation"]))
    assert one.loss.item() == pytest.approx(total, abs=1e-5)


def test_validation_puts_every_puzzle_in_all_orders_and_training_in_the_one_drawn():
    task, backbone = built(replace(SMALL, axis="time"))
    batch, draws = batch_of(replace(SMALL, axis="time"))
    seen = []
    task.join.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    for mode in (True, False):
        task.train(mode)(task.augment(batch, draws), backbone.eval())
    assert seen == [1, 24]


def test_each_axis_has_its_own_last_layer():
    task, backbone = built()
    batch, draws = batch_of(num=12)
    batch = task.eval().augment(batch, draws)
    assert set(batch["axis"].tolist()) == {SPACE, TIME}
    with torch.no_grad():
        for name, sure in (("space", 5), ("time", 17)):
            task.heads[name].weight.zero_()
            task.heads[name].bias.copy_(torch.eye(24)[sure])
        output = task(batch, backbone.eval())
    said = output.extras["logits"].argmax(dim=1)
    assert said.tolist() == [5 if axis == SPACE else 17 for axis in batch["axis"].tolist()]


# ---- canaries


@pytest.mark.parametrize("axis", ["space", "time"])
def test_cuboids_that_are_all_alike_are_told_nothing_by(axis):
    """Space: a frame of one color. Time: one frame repeated, cut without room. Every logit is the same for each permutation."""
    pixels = torch.full((FRAMES, 3, 48, 64), 90, dtype=torch.uint8)
    if axis == "time":
        pixels = torch.randint(0, 256, (1, 3, 48, 64), generator=torch.manual_seed(2)).byte().expand(FRAMES, 3, 48, 64)
    config = replace(SMALL, axis=axis, cuboid_scale=1.0, replicate="sample")
    task, backbone = built(config)
    batch = task.eval().augment(*batch_of(config, 48, pixels, training=False))
    cuboids = batch["cuboids"]
    assert torch.equal(cuboids, cuboids[:, :1].expand_as(cuboids))
    output = task(batch, backbone.eval())
    assert float(output.metrics["accuracy"].mean()) < 0.2 and float(output.metrics["fit_accuracy"].mean()) < 0.2
    assert abs(float(output.metrics["place_accuracy"].mean()) - 0.25) < 0.15


def test_a_border_of_the_video_tells_no_place_in_time():
    pixels = torch.full((FRAMES, 3, 48, 64), 90, dtype=torch.uint8)
    pixels[..., :2, :] = pixels[..., -2:, :] = pixels[..., :2] = pixels[..., -2:] = 0
    config = replace(SMALL, axis="time", cuboid_scale=1.0)
    task, _ = built(config)
    cuboids = task.eval().augment(*batch_of(config, 8, pixels, training=False))["cuboids"]
    assert torch.equal(cuboids, cuboids[:, :1].expand_as(cuboids))


# ---- contract, recipes, options


@pytest.mark.parametrize("axis", ["space", "time", "both"])
def test_the_contract_holds_for_every_axis(axis):
    check_task("cubic_puzzle", axis=axis, num_frames=3, gap_frames=1, cuboid_px=16, hidden=8)
    check_task(
        "cubic_puzzle", axis=axis, num_frames=3, gap_frames=1, cuboid_px=16, hidden=8, head="pairs", every_order=True
    )


def test_pictures_show_the_puzzle_and_its_solution():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    picture = task.visualize(batch, task(batch, backbone.eval()))["puzzles"]
    assert picture.dtype == np.uint8 and picture.shape == (4 * 72, 130 + 24 + 8 * 136, 3)


def test_the_papers_recipe_is_in_the_papers_setting():
    recipe = load_recipe("pretrain/cubic_puzzle_r3d18_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.axis, config.num_frames, config.cuboid_px, config.replicate) == ("both", 16, 80, "sample")
    assert round(config.cuboid_scale * 112) == 80
    CubicPuzzle(config, create_backbone(recipe.backbone.name, **recipe.backbone.options).info)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"axis": "tme"}, r"axis \('tme'\) must be one of space, time, both \(did you mean 'time'\?\)"),
        ({"num_frames": 0}, r"num_frames \(0\) must be at least 1"),
        ({"gap_frames": -1}, r"gap_frames \(-1\) must be at least 0"),
        ({"cuboid_scale": 1.5}, r"cuboid_scale \(1.5\) must be above 0 and at most 1"),
        ({"replicate": "video"}, r"replicate \('video'\) must be one of sample, cuboid, off"),
        ({"head": "pair"}, r"head \('pair'\) must be one of joint, pairs \(did you mean 'pairs'\?\)"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must be at least 0 and below 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        CubicPuzzle(CubicPuzzleConfig(**options), create_backbone("tiny3d", width=2).info)


def test_a_network_that_needs_more_frames_says_so():
    with pytest.raises(RecipeError, match=r"num_frames \(1\) must be at least 2 for backbone tiny3d"):
        CubicPuzzle(CubicPuzzleConfig(num_frames=1), create_backbone("tiny3d", width=2, input="difference").info)
