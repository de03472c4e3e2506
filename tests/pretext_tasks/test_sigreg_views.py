"""Views with SIGReg: the loss against float64 loops, one process and two, kept tokens, the placebo, collapse, mistakes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.sigreg_views import (
    SigregViews,
    SigregViewsConfig,
    Views,
    finds_own,
    invariance,
    nearer_to_own,
    strangers_in_turn,
)
from ssvid.backbones import create_backbone
from ssvid.composite import CompositeConfig, CompositeTask, Member
from ssvid.errors import DataError, RecipeError
from ssvid.gaussianity import distance_of_normal
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task
from ssvid.train.monitors import COLLAPSE_RANK
from ssvid.train.spread import effective_rank
from ssvid.types import Ticket, VideoInfo
from tests.test_gaussianity import by_loops
from tests.two_ranks import averaged, on_two_ranks

SMALL = SigregViewsConfig(
    num_frames=4,
    stride_frames=2,
    num_locals=2,
    frame_px=16,
    local_px=8,
    token_drop=0.5,
    hidden=(12,),
    width=6,
    num_directions=5,
    sigreg_weight=0.1,
)
TWO = replace(SMALL, num_globals=2, vary="all", combine="mix", norm="layer")
VIT = {"variant": "mini", "num_frames": 4, "size_px": 16, "patch_px": 4}


def built(config=SMALL, seed=0):
    torch.manual_seed(seed)
    backbone = create_backbone("vit", **VIT)
    task = SigregViews(config, backbone.info)
    task.setup(backbone)
    return task, backbone


def batch_of(config=SMALL, num=4, pixels=None):
    """A batch as a worker makes it, of noise or of ``pixels`` (num, T, 3, 40, 60)."""
    maker, video, samples = Views(config), VideoInfo("v.mp4", 20, 25.0, 40, 60), []
    if pixels is None:
        pixels = torch.randint(0, 256, (num, 20, 3, 40, 60), generator=torch.manual_seed(1)).byte()
    for i in range(num):
        rng = np.random.default_rng(i)
        plan = maker.plan(video, rng, rng)
        samples.append(maker.transform((pixels[i][torch.from_numpy(plan.views[0])],), plan, rng, rng))
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return batch | {"video_numbers": torch.arange(num)[:, None]}, BatchRandom.of(
        0, [Ticket(0, 0, 0, i) for i in range(num)]
    )


def embeddings_of(task, backbone, batch):
    """What the projector says of each view, (B, V, D)."""
    said = []
    handle = task.projector.register_forward_hook(lambda module, inputs, output: said.append(output))
    output = task(batch, backbone)
    handle.remove()
    return said[0].unflatten(0, (len(batch["globals"]), -1)).detach().double(), output


# ---- the loss


@pytest.mark.parametrize("config", [SMALL, TWO, replace(SMALL, scale_by_n=False)])
def test_the_loss_by_loops_over_samples_views_and_directions(config):
    task, backbone = built(config)
    batch = task.train().augment(*batch_of(config))
    z, output = embeddings_of(task, backbone, batch)
    B, V, D = z.shape
    pulled = 0.0
    for b in range(B):
        middle = sum(z[b, g] for g in range(config.num_globals)) / config.num_globals
        pulled += sum(float((z[b, v] - middle).square().sum()) for v in range(V)) / (B * V * D)
    assert float(output.metrics["invariance"].mean()) == pytest.approx(pulled, rel=1e-4)
    statistic = sum(by_loops(z[:, v], batch["directions"].double()) for v in range(V)) / V
    assert output.metrics["sigreg"].tolist() == pytest.approx([statistic] * B, rel=1e-4)
    assert output.metrics["sigreg_per_clip"].tolist() == pytest.approx([statistic / B] * B, rel=1e-4)
    used = statistic if config.scale_by_n else statistic / B
    kept = 0.9 if config.combine == "mix" else 1.0
    assert output.loss.item() == pytest.approx(kept * pulled + 0.1 * used, rel=1e-4)


def test_with_one_global_view_all_are_compared_with_it():
    z = torch.randn(3, 4, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    expected = sum((z[:, 0] - z[:, v]).square().mean(dim=1) for v in range(4)) / 4
    assert torch.allclose(invariance(z[:, :1], z[:, 1:]), expected, atol=1e-12)
    assert torch.equal(invariance(z[:, :1], z[:, :1].expand(-1, 3, -1)), torch.zeros(3, dtype=torch.float64))


def test_nothing_is_detached():
    one, others = (torch.randn(2, n, 3, generator=torch.manual_seed(n)).requires_grad_() for n in (1, 2))
    invariance(one, others).sum().backward()
    assert torch.allclose(one.grad.sum(dim=1), -others.grad.sum(dim=1), atol=1e-6) and float(one.grad.norm()) > 0


def test_the_order_of_the_batch_does_not_count():
    task, backbone = built()
    batch = task.train().augment(*batch_of())
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: value[order] if len(value) == 4 else value for name, value in batch.items()}
    with torch.no_grad():
        one, other = task(batch, backbone), task(moved, backbone)
    assert other.loss.item() == pytest.approx(one.loss.item(), rel=1e-5)
    assert torch.allclose(other.metrics["invariance"], one.metrics["invariance"][order], atol=1e-5)


def test_directions_are_new_in_each_step_and_alike_on_all_devices():
    task, _ = built()
    batch = batch_of()[0]

    def drawn(step, indices):
        rng = BatchRandom.of(0, [Ticket(0, 0, step, i) for i in indices])
        return task.train().augment(batch, rng)["directions"]

    assert torch.equal(drawn(0, range(4)), drawn(0, range(4, 8)))
    assert not torch.equal(drawn(0, range(4)), drawn(1, range(4)))
    assert drawn(0, range(4)).shape == (6, 5)


# ---- one process and two


def outcome(config, rank=0, world=1):
    """Loss and gradients, and what the batch as a whole measured, of one process's share of six samples."""
    task, backbone = built(config)
    batch, draws = batch_of(config, num=6)
    own = slice(6 // world * rank, 6 // world * (rank + 1))
    part = {name: value[own] for name, value in batch.items()}
    shared = BatchRandom(draws.shared, draws.samples[own])
    output = task.train()(task.augment(part, shared), backbone.train())
    output.loss.backward()
    parameters = [*task.parameters(), *backbone.parameters()]
    return [output.loss.detach(), *(p.grad for p in parameters)], output.metrics["sigreg"][0]


def on_rank(rank, config):
    values, statistic = outcome(config, rank, 2)
    return averaged(values), float(statistic)


@pytest.mark.parametrize("config", [SMALL, TWO])
def test_two_processes_get_the_loss_and_gradient_of_one(config, tmp_path):
    values, statistic = outcome(config)
    for found in on_two_ranks(on_rank, tmp_path, config):
        assert found[1] == pytest.approx(float(statistic), rel=1e-5)
        for one, other in zip(found[0], values, strict=True):
            assert torch.allclose(torch.tensor(one), other, atol=1e-5, rtol=1e-4)


# ---- views and kept tokens


def test_views_share_their_frames_and_have_the_stated_areas():
    config = replace(SMALL, num_globals=2, global_areas=(0.5, 1.0), local_areas=(0.1, 0.3))
    maker, video = Views(config), VideoInfo("v.mp4", 20, 25.0, 40, 60)
    starts = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        plan = maker.plan(video, rng, rng)
        assert np.diff(plan.views[0]).tolist() == [2, 2, 2]
        starts.add(int(plan.views[0][0]))
        cuts = maker.cuts(40, 60, plan, rng, rng).wanted
        shares = [height * width / 2400 for ((_, _, height, width),) in (cut.rectangles for cut in cuts)]
        assert [cut.view for cut in cuts] == [0] * 4 and [cut.size_px for cut in cuts] == [16, 16, 8, 8]
        assert all(0.48 <= share <= 1 for share in shares[:2]) and all(0.08 <= share <= 0.32 for share in shares[2:])
    assert starts == set(range(20 - 6))


def test_each_view_keeps_its_own_tokens_in_training_and_all_in_validation():
    config = replace(SMALL, token_drop=0.7)
    task, _ = built(config)
    batch = task.train().augment(*batch_of(config))
    large, small = batch["keep_globals"], batch["keep_locals"]
    assert large.shape == (4, 1, 32) and small.shape == (4, 2, 8)  # 2 x 4 x 4 and 2 x 2 x 2 cells
    assert (large.sum(dim=2) == 32 - 22).all() and (small.sum(dim=2) == 8 - 5).all()
    assert len({tuple(keep.tolist()) for keep in large[:, 0]}) == 4 and not torch.equal(small[:, 0], small[:, 1])
    assert not {"keep_globals", "keep_locals"} & task.eval().augment(*batch_of(config)).keys()


def test_dropped_tokens_reach_nothing():
    task, backbone = built()
    batch = task.train().augment(*batch_of())
    clips = batch["globals"].clone().requires_grad_()
    task(batch | {"globals": clips}, backbone).loss.backward()
    cubes = clips.grad[:, 0].reshape(4, 3, 2, 2, 4, 4, 4, 4).abs().amax(dim=(1, 3, 5, 7)).flatten(1)
    assert torch.equal(cubes[~batch["keep_globals"][:, 0]], torch.zeros(4 * 16))
    assert bool((cubes[batch["keep_globals"][:, 0]] > 0).all())


def test_what_changes_is_mirrored_and_recolored_alike_in_all_frames_and_the_rest_is_clean():
    frame = torch.randint(0, 256, (4, 1, 3, 40, 60), generator=torch.manual_seed(2)).byte()
    still = batch_of(pixels=frame.expand(-1, 20, -1, -1, -1))
    for vary, clean in (("local", True), ("all", False)):
        task, _ = built(replace(SMALL, vary=vary))
        views = task.train().augment(*still)
        assert torch.equal(views["globals"], still[0]["globals"].transpose(2, 3) / 255) == clean
        assert not torch.allclose(views["locals"], still[0]["locals"].transpose(2, 3) / 255)
        assert torch.allclose(views["locals"], views["locals"][:, :, :, :1].expand_as(views["locals"]), atol=1e-6)
    gray = built(replace(SMALL, gray_prob=1.0))[0].train().augment(*still)["locals"]
    assert float((gray - gray.mean(dim=2, keepdim=True)).abs().max()) < 1e-5


# ---- the placebo


@pytest.mark.parametrize("count", [1, 2, 3])
def test_strangers_in_turn_are_of_other_videos_each(count):
    videos = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    met = np.zeros((5, 5))
    for seed in range(200):
        orders = strangers_in_turn(videos, count, np.random.default_rng(seed))
        assert orders.shape == (count, 9) and all(sorted(order) == list(range(9)) for order in orders.tolist())
        together = np.stack([videos, *videos[orders]])
        assert all(len(set(column)) == count + 1 for column in together.T.tolist())
        np.add.at(met, (videos, videos[orders[0]]), 1)
    assert (met[~np.eye(5, dtype=bool)] > 0).all()


def test_a_placebo_puts_strangers_together_and_leaves_each_view_as_it_was():
    config = replace(SMALL, num_globals=2)
    task, _ = built(config)
    batch = task.train().augment(*batch_of(config, num=7))
    for name in ("globals", "locals"):  # the sample's number in every pixel
        batch[name] = torch.arange(7.0).view(7, 1, 1, 1, 1, 1).expand_as(batch[name])
    changed = task.placebo(batch, np.random.default_rng(0))
    assert {name for name in batch if not torch.equal(batch[name], changed[name])} == {"globals", "locals"}
    numbers = torch.cat([changed[name][..., 0, 0, 0, 0] for name in ("globals", "locals")], dim=1)
    assert all(sorted(view) == list(range(7)) for view in numbers.T.tolist())
    assert torch.equal(numbers[:, 0], torch.arange(7.0)) and torch.equal(numbers[:, 2], numbers[:, 3])
    assert all(len(set(sample)) == 3 for sample in numbers.tolist())


def test_a_placebo_leaves_sigreg_as_it_is_and_moves_the_invariance():
    config = replace(SMALL, token_drop=0.0)
    task, backbone = built(config)
    batch = task.train().augment(*batch_of(config, num=6))
    with torch.no_grad():
        true, wrong = task(batch, backbone), task(task.placebo(batch, np.random.default_rng(0)), backbone)
    assert wrong.metrics["sigreg"][0].item() == pytest.approx(true.metrics["sigreg"][0].item(), rel=1e-4)
    assert wrong.metrics["embedding_std"][0].item() == pytest.approx(true.metrics["embedding_std"][0].item(), rel=1e-4)
    assert abs(float(wrong.metrics["invariance"].mean() / true.metrics["invariance"].mean()) - 1) > 0.01


def test_a_placebo_of_too_few_videos_is_refused():
    with pytest.raises(DataError, match=r"shows views of 3 videos as one, and 2 of 5 samples .* at most 1 in 3 may be"):
        strangers_in_turn(np.array([0, 0, 1, 2, 3]), 2, np.random.default_rng(0))


# ---- what validation measures


def test_the_own_view_is_found_by_hand():
    large = torch.tensor([[0.0], [1.0], [5.0]])
    small = torch.tensor([[[0.4], [0.6]], [[1.2], [9.0]], [[4.0], [2.9]]])
    assert finds_own(small, large, torch.arange(3)).tolist() == [[1, 0], [1, 0], [1, 0]]
    assert finds_own(small, large, torch.tensor([0, 0, 1])).tolist() == [[1, 1], [1, 0], [1, 0]]
    # 0.6 is nearer to 1 than to its own 0, and not to 5; 9 is nearer to 5, and not to 0; 2.9 is nearer to 1, and not to 0.
    assert nearer_to_own(small[:, 1], large, torch.arange(3)) == 0.5
    assert nearer_to_own(small[:, 0], large, torch.arange(3)) == 1.0


def test_views_that_are_all_alike_find_nothing():
    same = torch.full((40, 3), 0.7)
    assert nearer_to_own(same, same, torch.arange(40)) == 0.5
    assert float(finds_own(same.unsqueeze(1), same, torch.arange(40)).sum()) == 0


def test_colors_alone_find_what_has_a_color_of_its_own():
    colors = torch.randint(0, 256, (12, 1, 3, 1, 1), generator=torch.manual_seed(0)).byte()
    config = replace(SMALL, jitter_prob=0.0, gray_prob=0.0)
    task, backbone = built(config)
    batch = task.eval().augment(*batch_of(config, 12, colors.expand(-1, 20, -1, 40, 60)))
    with torch.no_grad():
        output = task(batch, backbone.eval())
    metric = task.epoch_metrics()["nearer_by_color"]
    metric.update(*output.scores["nearer_by_color"])
    assert float(metric.compute()) == 1.0


# ---- collapse


def test_without_sigreg_all_collapses_and_every_number_says_so():
    """The same network, batch and steps with and without it; the monitors look at the network's own features."""
    found = {}
    for weight in (0.0, 0.5):
        config = replace(SMALL, sigreg_weight=weight, num_directions=32, token_drop=0.0, norm="layer")
        task, backbone = built(config)
        optimizer = torch.optim.Adam([*task.parameters(), *backbone.parameters()], lr=1e-2)
        pixels = torch.randint(0, 256, (10, 1, 3, 1, 1), generator=torch.manual_seed(3)).byte()
        batch = task.train().augment(*batch_of(config, 10, pixels.expand(-1, 20, -1, 40, 60)))
        for _ in range(30):
            optimizer.zero_grad()
            z, output = embeddings_of(task, backbone, batch)
            output.loss.backward()
            optimizer.step()
        ranks = {"rank": effective_rank(z[:, 0]), "features": effective_rank(backbone.embed(batch["globals"][:, 0]))}
        found[weight] = {name: float(value[0]) for name, value in output.metrics.items()} | ranks
    collapsed, spread = found[0.0], found[0.5]
    assert collapsed["embedding_std"] < 0.1 < 0.3 < spread["embedding_std"]
    assert collapsed["sigreg"] > 3 * distance_of_normal() > 1.5 * spread["sigreg"]
    assert collapsed["rank"] < COLLAPSE_RANK < spread["rank"]
    assert collapsed["features"] < COLLAPSE_RANK < spread["features"]


# ---- contract, recipes, mistakes


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("vit", {"token_drop": 0.5}),
        ("tiny3d", {"num_globals": 2, "vary": "all", "combine": "mix", "norm": "layer"}),
        ("tiny3d", {"hidden": (), "scale_by_n": False, "stage": "stage2"}),
    ],
)
def test_the_contract_holds(backbone, options):
    check_task("sigreg_views", backbone, hidden=options.pop("hidden", (16,)), width=8, num_directions=8, **options)


def test_pictures_mark_which_views_were_found():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    with torch.no_grad():
        output = task(batch, backbone.eval())
    output.extras["found"] = torch.tensor([[1.0, 0.0]] * 4)
    picture = task.visualize(batch, output)["views"]
    assert picture.dtype == np.uint8 and picture.shape == (4 * 82, 122 + 3 * 82 + 10 + 2 * 82, 3)
    first, second = picture[0, 122 + 3 * 82 + 10], picture[0, 122 + 4 * 82 + 10]
    assert first[1] > first[0] and second[0] > second[1]


def test_the_papers_recipe_is_in_the_papers_setting():
    recipe = load_recipe("pretrain/sigreg_views_vit_l_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    assert (config.num_globals, config.frame_px, config.local_px, config.token_drop) == (1, 224, 96, 0.95)
    assert (config.num_directions, config.num_knots, config.t_max, config.sigreg_weight) == (1024, 17, 3.0, 0.02)
    assert (config.hidden, config.width, config.norm, config.combine) == ((2048,), 256, "batch", "add")
    assert recipe.backbone.options["tubelet_frames"] == 1 and recipe.trainer.accumulate == 1


def test_micro_batches_are_refused_alone_and_among_several_tasks():
    words = "data.root=none", "trainer.accelerator=cpu"
    config = load_recipe("smoke/sigreg_views", [*words, "trainer.accumulate=2"]).recipe
    with pytest.raises(
        RecipeError, match=r"trainer.accumulate \(2\) must be 1 for task sigreg_views: .* Set trainer.accumulate=1"
    ):
        build_networks(config)
    build_networks(load_recipe("smoke/sigreg_views", [*words]).recipe)
    task, backbone = built()
    assert CompositeTask([Member("one", task, 1.0)], CompositeConfig(), backbone.info).needs_whole_batch


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"local_px": 3}, r"local_px \(3\) must be at least 4 for backbone vit"),
        ({"local_areas": (0.4, 0.1)}, r"local_areas \(\[0.4, 0.1\]\) must be in rising order"),
        ({"global_areas": (0.4,)}, r"global_areas \(\[0.4\]\) must be a list of two"),
        ({"token_drop": 1.0}, r"token_drop \(1.0\) must be at least 0 and below 1"),
        ({"combine": "mix", "sigreg_weight": 2.0}, r"sigreg_weight \(2\) must be at most 1 with combine=mix"),
        ({"norm": "group"}, r"norm \('group'\) must be one of batch, layer"),
        ({"num_knots": 1}, r"num_knots \(1\) must be at least 2"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        built(replace(SMALL, **options))


def test_a_network_without_tokens_is_taken_without_token_drop_alone():
    backbone = create_backbone("tiny3d")
    with pytest.raises(
        RecipeError, match=r"token_drop \(0.5\) must be 0 for backbone tiny3d, which has no tokens to leave out"
    ):
        SigregViews(SMALL, backbone.info).setup(backbone)
    SigregViews(replace(SMALL, token_drop=0.0), backbone.info).setup(backbone)
