"""Random walk: steps, palindromes and loss against float64 loops; nodes and where they are again; edges; canaries."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretext_tasks.random_walk import (
    NOWHERE,
    RandomWalk,
    RandomWalkConfig,
    WalkClips,
    nearest_walk,
    node_centers,
    nodes_again,
    palindromes,
    share_at,
    walk_nll,
    walk_steps,
)
from ssvid.backbones import create_backbone
from ssvid.errors import RecipeError
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.types import ClipPlan, Ticket, VideoInfo

SMALL = {"frame_px": 32, "embed_channels": 16, "stage": "stage2"}  # patches of 8 px, 4 apart: 7 x 7
UNCUT = {"frame_area": (1.0, 1.0), "max_aspect": 1.0, "eval_shift": 0.0, "patch_area": (1.0, 1.0)}


def draws(num, step=0):
    return BatchRandom.of(0, [Ticket(0, 0, step, i) for i in range(num)])


def task_and_backbone(seed=0, **options):
    torch.manual_seed(seed)
    backbone = create_backbone("tiny3d", width=4)
    return RandomWalk(RandomWalkConfig(**SMALL | options), backbone.info), backbone


def nodes(B=2, T=4, D=6, N=5, seed=0):
    """Features of length 1 at every node, float64 (B, T, D, N)."""
    drawn = torch.randn(B, T, D, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=2)


def batch_of(task, frames_BTCHW, **more):
    home = torch.arange(task.num_nodes).expand(len(frames_BTCHW), -1)
    return {"frames": frames_BTCHW, "home": home} | more


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# ---- the walk, from scratch


def step_in_loops(here_DN, next_DN, temperature, dropped_NN=None):
    """Row i: how likely node i goes to each node of the next frame."""
    D, N = here_DN.shape
    rows = []
    for i in range(N):
        powers = [math.exp(sum(here_DN[d, i] * next_DN[d, j] for d in range(D)) / temperature) for j in range(N)]
        if dropped_NN is not None:
            powers = [0.0 if dropped_NN[j][i] else power for j, power in enumerate(powers)]
        rows.append([power / sum(powers) for power in powers])
    return rows


def walked(steps, start):
    """Where a walker is after the steps, as probabilities."""
    at = [float(i == start) for i in range(len(steps[0]))]
    for step in steps:
        at = [sum(at[i] * step[i][j] for i in range(len(at))) for j in range(len(at))]
    return at


def losses_from_scratch(nodes_TDN, temperature):
    """For each number of steps ahead from 1: the mean surprise, in nats, of walkers at where they end."""
    T, _, N = nodes_TDN.shape
    there = [step_in_loops(nodes_TDN[t], nodes_TDN[t + 1], temperature) for t in range(T - 1)]
    back = [step_in_loops(nodes_TDN[t + 1], nodes_TDN[t], temperature) for t in range(T - 1)]
    found = []
    for k in range(1, T):
        way = [*there[:k], *reversed(back[:k])]
        found.append(sum(-math.log(walked(way, i)[i] + 1e-20) for i in range(N)) / N)
    return found


def test_the_loss_is_that_of_loops_over_walkers():
    for temperature in (0.05, 0.07, 0.5):
        drawn = nodes()
        walks = palindromes(*walk_steps(drawn, temperature))
        got = torch.stack([walk_nll(walk, torch.arange(5).expand(2, -1)).mean(dim=1) for walk in walks])
        for b in range(2):
            want = losses_from_scratch(drawn[b].numpy(), temperature)
            assert got[:, b].tolist() == pytest.approx(want, rel=2e-5)


def test_the_loss_of_features_that_anybody_can_write_down():
    """Features cos and sin of angles a(t, i) = 1.3 i + 0.4 t i, four frames, three nodes, temperature 0.5; the numbers were
    computed by ``losses_from_scratch`` above, in float64 without torch or numpy."""
    angles_TN = 1.3 * torch.arange(3) + 0.4 * torch.arange(4)[:, None] * torch.arange(3)
    drawn = torch.stack([angles_TN.double().cos(), angles_TN.double().sin()], dim=1)[None]
    walks = palindromes(*walk_steps(drawn, 0.5))
    got = [float(walk_nll(walk, torch.arange(3)[None]).mean()) for walk in walks]
    assert got == pytest.approx([0.5104371, 0.6948417, 0.8448483], rel=1e-5)
    task, _ = task_and_backbone()
    assert task.config.shortest == 2  # the loss of the task: the mean of the last two


def test_the_task_averages_the_palindromes_from_the_shortest_on():
    for shortest in (1, 2, 3):
        task, backbone = task_and_backbone(shortest=shortest, edge_dropout=0.0)
        batch = task.eval().augment(batch_of(task, noise(2, 5, 3, 32, 32)), draws(2)) | {
            "again": torch.arange(49)[None]
        }
        embedded = task.embed(batch, backbone.eval())[:, :-1]
        want = np.mean([losses_from_scratch(one.double().numpy(force=True), 0.05)[shortest - 1 :] for one in embedded])
        assert float(task(batch, backbone).loss.detach()) == pytest.approx(want, rel=1e-4)


def test_features_that_tell_nothing_lose_log_n_and_features_that_tell_all_lose_nothing():
    blank = F.normalize(torch.ones(1, 4, 6, 49), dim=2)
    for walk in palindromes(*walk_steps(blank, 0.05)):
        assert float(walk_nll(walk, torch.arange(49)[None]).mean()) == pytest.approx(math.log(49), rel=1e-5)
    own = torch.eye(49).expand(1, 4, -1, -1)
    for walk in palindromes(*walk_steps(own, 0.01)):
        assert float(walk_nll(walk, torch.arange(49)[None]).mean()) == pytest.approx(0, abs=1e-6)


def test_a_walk_does_not_know_in_which_order_the_nodes_on_its_way_are():
    drawn, order = nodes(N=9), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    other = drawn.clone()
    other[:, 1:3] = drawn[:, 1:3][..., order]
    for walk, same in zip(palindromes(*walk_steps(drawn, 0.1)), palindromes(*walk_steps(other, 0.1)), strict=True):
        torch.testing.assert_close(walk, same)
    other[:, 0] = drawn[:, 0][..., order]  # of the first frame: walkers are renumbered, and do as before
    for walk, moved in zip(palindromes(*walk_steps(drawn, 0.1)), palindromes(*walk_steps(other, 0.1)), strict=True):
        torch.testing.assert_close(walk[:, order][:, :, order], moved)


def test_steps_and_walks_lead_somewhere_and_do_not_depend_on_the_batch():
    drawn = nodes(B=3)
    there, back = walk_steps(drawn, 0.1)
    alone = walk_steps(drawn[1:2], 0.1)
    for step, own in zip(
        (*there, *back, *palindromes(there, back)), (*alone[0], *alone[1], *palindromes(*alone)), strict=True
    ):
        torch.testing.assert_close(step.sum(dim=1), torch.ones(3, 5))
        torch.testing.assert_close(step[1:2], own)


# ---- edges that are left out


@pytest.mark.parametrize("inherited", [True, False])
def test_edges_that_are_left_out_have_no_probability_and_the_others_share_it(inherited):
    drawn = nodes(B=1)
    dropped = torch.rand(1, 3, 2, 5, 5, generator=torch.Generator().manual_seed(3)) < 0.3
    there, back = walk_steps(drawn, 0.2, dropped, inherited=inherited)
    for t in range(3):
        out, back_out = dropped[0, t].numpy()
        back_out = back_out | out.T if inherited else back_out
        here, following = drawn[0, t].numpy(), drawn[0, t + 1].numpy()
        for got, want in (
            (there[t], step_in_loops(here, following, 0.2, out)),
            (back[t], step_in_loops(following, here, 0.2, back_out)),
        ):
            np.testing.assert_allclose(got[0].numpy().T, want, rtol=2e-5, atol=1e-7)


def test_a_tenth_of_the_edges_is_left_out_there_and_nearly_a_fifth_on_the_way_back():
    task, _ = task_and_backbone()
    dropped = task.train().augment(batch_of(task, noise(8, 4, 3, 32, 32)), draws(8))["dropped"]
    assert dropped.shape == (8, 3, 2, 49, 49)
    doubt = 4 * (0.1 * 0.9 / dropped[:, :, 0].numel()) ** 0.5
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=doubt)
    both = dropped[:, :, 1] | dropped[:, :, 0].transpose(2, 3)
    assert float(both.float().mean()) == pytest.approx(1 - 0.9**2, abs=2 * doubt)
    assert "dropped" not in task.eval().augment(batch_of(task, noise(2, 5, 3, 32, 32)), draws(2))
    off, _ = task_and_backbone(edge_dropout=0.0)
    assert "dropped" not in off.train().augment(batch_of(off, noise(2, 4, 3, 32, 32)), draws(2))


# ---- sampling


def test_plans_are_evenly_spaced_and_in_validation_the_first_frame_comes_again():
    video = VideoInfo("v", 40, 24.0, 48, 64)
    starts = set()
    for seed in range(600):
        (view,) = WalkClips(RandomWalkConfig(), np.arange(7), True).plan(video, np.random.default_rng(seed), None).views
        assert view.dtype == np.int64 and np.diff(view).tolist() == [3, 3, 3]
        starts.add(int(view[0]))
    assert starts == set(range(31))
    maker = WalkClips(RandomWalkConfig(), np.arange(7), False)
    (view,) = maker.plan(video, np.random.default_rng(0), None).views
    assert np.diff(view).tolist() == [3, 3, 3, -9]
    short = maker.plan(VideoInfo("v", 4, 24.0, 48, 64), np.random.default_rng(0), None).views[0]
    assert short.tolist() == [0, 1, 2, 3, 0] and maker.min_frames == 4


def test_every_frame_is_a_rectangle_of_its_own_with_the_stated_areas_and_shapes():
    maker = WalkClips(RandomWalkConfig(crop_scale=0.9, num_frames=4), np.arange(7), True)
    shares, aspects = [], []
    for seed in range(400):
        cuts = maker.cuts(200, 300, ClipPlan((np.arange(4),)), np.random.default_rng(seed), None)
        boxes = np.array(cuts.wanted[0].rectangles)
        assert len({*map(tuple, boxes)}) == 4
        low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
        assert (low >= 0).all() and (high <= (200, 300)).all() and (high - low <= 200).all()
        shares += (boxes[:, 2] * boxes[:, 3] / 200**2).tolist()
        aspects += (boxes[:, 3] / boxes[:, 2]).tolist()
    assert (
        0.8 * 0.9**2 - 0.02 < min(shares) and np.mean(np.array(shares) > 0.96) < 0.005
    )  # one in a thousand fits nowhere
    assert max(aspects) <= 1.4 and min(aspects) >= 0.71 and abs(np.mean(np.log(aspects))) < 0.02
    same = WalkClips(RandomWalkConfig(**UNCUT), np.arange(7), True)
    cuts = same.cuts(48, 48, ClipPlan((np.arange(4),)), np.random.default_rng(0), None)
    assert set(cuts.wanted[0].rectangles) == {(0, 0, 48, 48)}


def test_nodes_are_a_grid_in_the_middle_of_the_frame():
    paper = node_centers(RandomWalkConfig(), 8) * 256
    assert paper.tolist() == [32, 64, 96, 128, 160, 192, 224]  # 7 patches of 64 px, 32 apart
    uneven = (
        node_centers(RandomWalkConfig(frame_px=70, patch_scale=0.25), 8) * 70
    )  # 18 px, 9 apart: 6, and 7 px are left
    assert np.diff(uneven).tolist() == pytest.approx([9] * 5) and uneven[0] + uneven[-1] == pytest.approx(70)
    cells = node_centers(RandomWalkConfig(nodes="cells", frame_px=32), 8) * 32
    assert cells.tolist() == [4, 12, 20, 28]


def test_where_a_node_is_again_is_told_by_the_pixels_of_the_two_cuts():
    """A picture whose pixels tell their own coordinates, cut out twice: the nearest patch in the second is the one named."""
    maker = WalkClips(RandomWalkConfig(frame_px=56), centers := node_centers(RandomWalkConfig(frame_px=56), 8), False)
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(150.0), indexing="ij")
    picture = torch.stack([x + 50, y + 50, 0 * x]).byte()
    seen = 0
    for seed in range(12):
        plan = ClipPlan((np.array([0, 1, 2, 3, 0]),))
        sample = maker.transform((picture.expand(5, -1, -1, -1),), plan, np.random.default_rng(seed), None)
        first, last = sample["frames"][0].float(), sample["frames"][-1].float()
        at = [round(c * 56) for c in centers]
        places = [torch.stack([frame[:2, r, c] for r in at for c in at]) for frame in (first, last)]
        step = float(places[1][1, 0] - places[1][0, 0])
        apart = (places[0][:, None] - places[1]).abs()
        for node, again in enumerate(sample["again"].tolist()):
            if again == NOWHERE:
                assert (apart[node].amax(dim=1) > step / 2 - 2.5).all()
            else:
                assert (apart[node, again] <= step / 2 + 2.5).all()
                seen += 1
        assert (sample["again"] != NOWHERE).any()
    assert 100 < seen < 12 * 49


def test_nodes_again_by_hand():
    centers = np.array([0.25, 0.5, 0.75])
    assert nodes_again((0, 0, 8, 8), (0, 0, 8, 8), centers).tolist() == list(range(9))
    moved = nodes_again((0, 0, 8, 8), (0, 2, 8, 8), centers)  # seen a node further to the left
    assert moved.tolist() == [NOWHERE, 0, 1, NOWHERE, 3, 4, NOWHERE, 6, 7]
    # A frame that shows the middle of the other one: places 0.375, 0.5, 0.625 of it; a place in the middle of two is the first's.
    larger = nodes_again((2, 2, 4, 4), (0, 0, 8, 8), centers)
    assert larger.reshape(3, 3).tolist() == [[0, 1, 1], [3, 4, 4], [3, 4, 4]]


# ---- patches


def coordinates(num, T, px=32):
    line = (2 * torch.arange(px) + 1) / px - 1
    picture = torch.stack([line.expand(px, px), line[:, None].expand(px, px), torch.zeros(px, px)])
    return (127.5 + 120 * picture).round().byte().expand(num, T, -1, -1, -1)


def test_patches_show_what_lies_at_their_nodes():
    task, _ = task_and_backbone()
    shown = task.eval().augment(batch_of(task, coordinates(2, 5)), draws(2))["patches"]
    assert shown.shape == (2, 3, 5 * 49, 8, 8)
    middle = (shown[:, :2].mean(dim=(3, 4)) * 255 - 127.5) / 120
    for n in range(49):
        want = [2 * task.centers_G[n % 7] - 1, 2 * task.centers_G[n // 7] - 1]
        assert middle[1, :, 49 + n].tolist() == pytest.approx(want, abs=0.01)
    side = (
        (shown[0, 0, 0, 0, -1] - shown[0, 0, 0, 0, 0]) * 255 / 120 * 8 / 7
    )  # from the first pixel's center to the last's
    assert float(side) == pytest.approx(2 * 0.25 * 0.8**0.5, abs=0.02)


def test_in_training_each_patch_is_a_square_of_its_own_within_the_node():
    task, _ = task_and_backbone()
    shown = task.train().augment(batch_of(task, coordinates(6, 4)), draws(6))["patches"]
    px = (shown[:, :2] * 255 - 127.5) / 120
    sides = (px[:, 0, :, 0, -1] - px[:, 0, :, 0, 0]) * 8 / 7
    areas = (sides / (2 * 0.25)) ** 2
    assert float(areas.min()) > 0.64 and float(areas.max()) < 0.97
    assert float(areas.mean()) == pytest.approx(0.8, abs=0.02)
    centers = torch.from_numpy(2 * task.centers_G - 1).float()
    off = px.mean(dim=(3, 4))[:, 0].unflatten(1, (4, 7, 7)) - centers
    reach = 0.25 * (1 - 0.7**0.5)
    assert float(off.abs().max()) <= reach + 0.01 and float(off.abs().max()) > 0.7 * reach
    assert not torch.equal(shown[:, :, :49], shown[:, :, 49:98])


# ---- canaries


def accuracy_of(task, nodes_BTDN, again_BN):
    ends = task.walks_again(nodes_BTDN, *walk_steps(nodes_BTDN[:, :-1], 0.05))
    return [float(share_at(end.argmax(dim=1), again_BN).mean()) for end in ends]


def test_on_noise_walkers_return_to_their_nodes_but_do_not_find_them_again():
    """Why validation ends in the first frame cut anew: to return the way one came needs no correspondence at all."""
    task, _ = task_and_backbone()
    drawn = nodes(B=60, T=5, D=32, N=49).float()
    again = torch.arange(49).expand(60, -1)
    doubt = 4 * (1 / 49 * 48 / 49 / (60 * 49)) ** 0.5
    assert accuracy_of(task, drawn, again) == pytest.approx([1 / 49] * 4, abs=doubt)
    returned = palindromes(*walk_steps(drawn[:, :-1], 0.05))[-1].argmax(dim=1)
    assert float(share_at(returned, again).mean()) > 0.15


def test_a_way_through_another_video_does_not_lead_back():
    task, _ = task_and_backbone()
    own, foreign = nodes(B=60, T=1, D=32, N=49), nodes(B=60, T=1, D=32, N=49, seed=1)
    again = torch.arange(49).expand(60, -1)
    assert accuracy_of(task, own.expand(-1, 5, -1, -1), again) == pytest.approx([1.0] * 4)
    lost = torch.cat([foreign.expand(-1, 4, -1, -1), own], dim=1)
    assert accuracy_of(task, lost, again) == pytest.approx([1 / 49] * 4, abs=0.015)


def test_whoever_knows_no_more_than_its_place_gets_as_far_as_by_staying():
    task, backbone = task_and_backbone(nodes="cells")
    maker = task.clip_maker(False)
    views = (noise(5, 3, 60, 60),)
    samples = [maker.transform(views, ClipPlan((np.arange(5),)), np.random.default_rng(i), None) for i in range(40)]
    batch = task.eval().augment({k: torch.stack([s[k] for s in samples]) for k in samples[0]}, draws(40))
    staying = float(task(batch, backbone.eval()).metrics["accuracy_of_staying"].mean())
    places = torch.eye(task.num_nodes).expand(40, 5, -1, -1)
    assert accuracy_of(task, places, batch["again"])[-1] == pytest.approx(staying)
    assert 1 / task.num_nodes < staying < 0.25


def test_identical_frames_are_walked_there_and_back_without_a_mistake():
    task, backbone = task_and_backbone(temperature=1e-4, **UNCUT)
    frames = noise(3, 1, 3, 32, 32).expand(-1, 5, -1, -1, -1)
    batch = task.eval().augment(batch_of(task, frames, again=torch.arange(49).expand(3, -1)), draws(3))
    metrics = task(batch, backbone.eval()).metrics
    for name in ("accuracy", "accuracy0", "accuracy1", "returned", "accuracy_of_colors", "accuracy_of_staying"):
        assert float(metrics[name].min()) == 1.0, name


def test_the_walk_of_nearest_colors_by_hand():
    colors = torch.tensor([[[0.0], [0.5], [1.0]], [[0.9], [0.1], [0.4]], [[0.45], [0.2], [0.8]], [[1.0], [0.1], [0.5]]])
    # 0 -> 1 (0.1) -> 1 (0.2) -> 1 (0.1) -> 1 (0.1); 0.5 -> 2 (0.4) -> 0 (0.45) -> 2 (0.4) -> 2 (0.5); 1 -> 0 -> 2 -> 0 -> 0
    assert nearest_walk(colors[None]).tolist() == [[1, 2, 0]]


def test_shares_count_what_is_known():
    ends, truth = (
        torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        torch.tensor([[0, 1, NOWHERE], [1, 1, 0], [NOWHERE] * 3]),
    )
    assert share_at(ends, truth).tolist() == pytest.approx([1.0, 1 / 3, 0.0])


# ---- the placebo


def test_the_placebo_draws_homes_evenly_and_changes_nothing_else():
    task, _ = task_and_backbone()
    batch = task.train().augment(batch_of(task, noise(8, 4, 3, 32, 32)), draws(8))
    right, counts = [], np.zeros(49)
    for seed in range(200):
        changed = task.placebo(batch, np.random.default_rng(seed))
        assert {name for name in batch if not torch.equal(batch[name], changed[name])} == {"home"}
        right.append(float((changed["home"] == batch["home"]).float().mean()))
        counts += np.bincount(changed["home"].flatten().numpy(), minlength=49)
    assert np.mean(right) == pytest.approx(1 / 49, abs=4 * (1 / 49 / (200 * 8 * 49)) ** 0.5)
    assert counts.min() > 0.9 * counts.mean() and counts.max() < 1.1 * counts.mean()


# ---- contract and refusals


@pytest.mark.parametrize("options", [{"nodes": "cells"}, {"shortest": 1, "edge_dropout": 0.0}])
def test_check_task(options):
    check_task("random_walk", stage="stage2", embed_channels=16, num_frames=3, **options)


def test_the_encoder_learns_from_walks():
    for kind in ("patches", "cells"):
        task, backbone = task_and_backbone(nodes=kind)
        backbone.freeze_after(task.stage)
        task.train()(task.augment(batch_of(task, noise(2, 4, 3, 32, 32)), draws(2)), backbone.train()).loss.backward()
        weights = [p.grad for p in (*backbone.parameters(), task.project.weight) if p.requires_grad and p.ndim > 1]
        assert len(weights) == 3 and all(float(grad.abs().max()) > 0 for grad in weights)


def test_pictures_show_the_way_of_three_walkers():
    task, backbone = task_and_backbone()
    for training, num in ((True, 4), (False, 5)):
        task.train(training)
        more = {} if training else {"again": torch.full((5, 49), NOWHERE)}
        batch = task.augment(batch_of(task, noise(5, num, 3, 32, 32), **more), draws(5))
        picture = task.visualize(batch, task(batch, backbone))["walks"]
        assert picture.dtype == np.uint8 and picture.shape == (3 * 114, 5 * 114, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_frames": 2}, r"num_frames \(2\) must be above shortest \(2\)"),
        ({"patch_scale": 1.0}, r"patch_scale \(1\) must be below 1, or there is a single node"),
        ({"nodes": "cells", "frame_px": 30}, r"frame_px \(30\) must be a multiple of 4"),
        ({"nodes": "cells", "frame_px": 4}, r"frame_px \(4\) must be at least 8, or there is a single node"),
        ({"frame_area": (0.9, 0.5)}, r"frame_area .* must be in rising order"),
        ({"temperature": 0.0}, r"temperature \(0.0\) must be above 0"),
        ({"nodes": "points"}, r"nodes \('points'\) must be one of patches, cells"),
    ],
)
def test_what_makes_no_walk_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        task_and_backbone(**options)


def test_networks_that_cannot_see_a_patch_are_refused():
    for name, words in (
        ("caffenet", "gives patches of 8 px, and caffenet needs 35"),
        ("early_fusion", "needs 10 of them"),
    ):
        with torch.device("meta"):
            info = create_backbone(name).info
        with pytest.raises(RecipeError, match=words):
            RandomWalk(RandomWalkConfig(frame_px=32), info)
