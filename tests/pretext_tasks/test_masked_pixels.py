"""Masked pixels: cubes, targets and loss against float64 loops, hidden pixels that nothing sees, canaries, mistakes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretext_tasks.masked_pixels import (
    MaskedClips,
    MaskedPixels,
    MaskedPixelsConfig,
    clips_of,
    cubes_of,
    explained,
    mean_squared_errors,
    nearest_seen,
    normalized,
)
from ssvid.backbones import create_backbone
from ssvid.backbones.contract import without_weights
from ssvid.errors import RecipeError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom
from ssvid.testing import check_task, refusal_of
from ssvid.types import Ticket, VideoInfo

SMALL = MaskedPixelsConfig(num_frames=4, stride_frames=2, frame_px=16, ratio=0.75, decoder_width=16, decoder_depth=1)
VIT = {"variant": "mini", "num_frames": 4, "size_px": 16, "patch_px": 4}
GRID, CUBE = (2, 4, 4), (2, 4, 4)


def built(config=SMALL):
    torch.manual_seed(0)
    backbone = create_backbone("vit", **VIT)
    task = MaskedPixels(config, backbone.info)
    task.setup(backbone)
    return task, backbone


def batch_of(config=SMALL, num=3, clips=None):
    V = config.clips_per_decode
    if clips is None:
        clips = torch.randint(0, 256, (num, V, 4, 3, 16, 16), generator=torch.manual_seed(1)).byte()
    tickets = torch.tensor([Ticket(0, 0, 0, i) for i in range(num)])
    batch = {"clips": clips, "tickets": tickets, "video_numbers": torch.arange(num)[:, None]}
    return batch, BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(num)])


def clips(seed=0, shape=(2, 3, 4, 16, 16)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- cubes and targets


def test_cubes_by_loops_and_back():
    x = clips()
    cubes = cubes_of(x, CUBE)
    assert cubes.shape == (2, 32, 32, 3)
    for n, (t, h, w) in enumerate(itertools.product(*(range(cells) for cells in GRID))):
        for p, (dt, dh, dw) in enumerate(itertools.product(range(2), range(4), range(4))):
            assert torch.equal(cubes[:, n, p], x[:, :, 2 * t + dt, 4 * h + dh, 4 * w + dw])
    assert torch.equal(clips_of(cubes, CUBE, GRID), x)


def test_the_cells_of_cubes_are_those_of_the_networks_map():
    """A cube that alone is bright moves the token of its own cell most."""
    backbone = create_backbone("vit", **VIT).eval()
    with torch.no_grad():
        dark = backbone.patch_embed(torch.zeros(1, 3, 4, 16, 16)).flatten(2)
        for n in (0, 5, 17, 31):
            cubes = torch.zeros(1, 32, 32, 3)
            cubes[0, n] = 1.0
            moved = (backbone.patch_embed(clips_of(cubes, CUBE, GRID)).flatten(2) - dark).abs().sum(dim=1)[0]
            assert moved.nonzero().flatten().tolist() == [n]


def test_targets_are_normalized_cube_by_cube_and_channel_by_channel():
    cubes = cubes_of(clips(), CUBE)
    found = normalized(cubes)
    for n, c in ((0, 0), (13, 2), (31, 1)):
        values = cubes[1, n, :, c].tolist()
        mean = sum(values) / 32
        spread = (sum((v - mean) ** 2 for v in values) / 31) ** 0.5
        assert found[1, n, :, c].tolist() == pytest.approx([(v - mean) / (spread + 1e-6) for v in values], abs=1e-12)
    assert float((found**2).mean()) == pytest.approx(31 / 32, abs=1e-4)  # what the answer 0 has


def test_a_flat_cube_has_the_target_zero_and_a_finite_gradient():
    cubes = torch.full((1, 2, 32, 3), 0.3)
    cubes[0, 1] = torch.rand(32, 3)
    cubes.requires_grad_()
    found = normalized(cubes)
    assert found[0, 0].abs().max().item() < 1e-1  # rounding over 1e-6
    exact = normalized(torch.full((1, 1, 32, 3), 0.5))
    assert torch.equal(exact, torch.zeros_like(exact))
    found[0, 1].sum().backward()
    assert bool(torch.isfinite(cubes.grad).all())


def test_with_the_first_frame_as_target_the_second_one_of_a_cube_does_not_matter():
    config = replace(SMALL, target_frames="first")
    task, _ = built(config)
    x = clips().float()
    other = x.clone()
    other[:, :, 1::2] = 0.0
    assert task._targets(x).shape == (2, 32, 48)
    assert torch.equal(task._targets(x), task._targets(other))
    assert not torch.equal(built()[0]._targets(x), built()[0]._targets(other))


# ---- loss and measures


def test_errors_by_a_loop_over_the_cubes_that_count():
    draw = torch.Generator().manual_seed(3)
    said, target = (torch.randn(2, 5, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    counts = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0.0]])
    expected = []
    for b in range(2):
        values = [
            (float(said[b, m, d]) - float(target[b, m, d])) ** 2 for m in range(5) if counts[b, m] for d in range(6)
        ]
        expected.append(sum(values) / len(values))
    assert mean_squared_errors(said, target, counts).tolist() == pytest.approx(expected, abs=1e-6)


def test_explained_by_hand():
    found = explained(torch.tensor([0.0, 0.5, 2.0, 0.7]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert found.tolist() == [1.0, 0.5, -1.0, 0.0]


def test_nearest_seen_by_a_loop():
    draw = np.random.default_rng(2)
    mask = torch.from_numpy(np.stack([draw.permutation(32) < 24 for _ in range(4)]))
    cells = list(itertools.product(*(range(n) for n in GRID)))
    found = nearest_seen(GRID, mask)
    for b in range(4):
        for n in range(32):
            distances = [sum((a - c) ** 2 for a, c in zip(cells[n], cells[m], strict=True)) for m in range(32)]
            seen = [m for m in range(32) if not mask[b, m]]
            assert int(found[b, n]) == min(seen, key=lambda m: (distances[m], m))


@pytest.mark.parametrize("mask", ["tube", "random"])
def test_the_loss_is_that_of_the_hidden_cubes(mask):
    """The decoder's answers, taken as they are, against the clip's own pixels, cube by cube."""
    task, backbone = built(replace(SMALL, mask=mask))
    batch = task.eval().augment(*batch_of())
    said = []
    task.decoder.register_forward_hook(lambda module, inputs, output: said.append(output))
    with torch.no_grad():
        output = task(batch, backbone.eval())
    target = normalized(cubes_of(batch["target"][:, 0].double(), CUBE)).flatten(2)
    total, shares = 0.0, []
    for b in range(3):
        hidden = batch["mask"][b, 0].nonzero().flatten()
        assert len(hidden) == 24 and said[0].shape == (3, 24, 96)
        errors = [(said[0][b, m].double() - target[b, n]).square().mean() for m, n in enumerate(hidden)]
        of_nothing = [target[b, n].square().mean() for n in hidden]
        total += float(sum(errors)) / 24 / 3
        shares.append(1 - float(sum(errors)) / float(sum(of_nothing)))
    assert output.loss.item() == pytest.approx(total, rel=1e-5)
    assert output.metrics["explained"].tolist() == pytest.approx(shares, abs=1e-4)


def test_with_running_cells_training_asks_for_half_and_counts_the_hidden_ones_of_it():
    config = replace(SMALL, decode="running")
    task, backbone = built(config)
    batch = task.train().augment(*batch_of(config))
    assert (batch["cells"].sum(dim=2) == 16).all() and not torch.equal(batch["cells"], batch["mask"])
    said = []
    task.decoder.register_forward_hook(lambda module, inputs, output: said.append(output))
    with torch.no_grad():
        output = task(batch, backbone)
    target = normalized(cubes_of(batch["target"][:, 0], CUBE)).flatten(2)
    total = 0.0
    for b in range(3):
        asked = batch["cells"][b, 0].nonzero().flatten().tolist()
        counted = [(m, n) for m, n in enumerate(asked) if batch["mask"][b, 0, n]]
        total += sum(float((said[0][b, m] - target[b, n]).square().mean()) for m, n in counted) / len(counted) / 3
    assert output.loss.item() == pytest.approx(total, rel=1e-5)
    assert torch.equal(task.eval().augment(*batch_of(config))["cells"], task.augment(*batch_of(config))["mask"])


# ---- what nobody may see


@pytest.mark.parametrize("mask", ["tube", "random"])
def test_hidden_pixels_reach_nothing(mask):
    """The loss moves with the pixels that are seen, and not at all with hidden ones: their gradient is exactly zero."""
    task, backbone = built(replace(SMALL, mask=mask))
    batch = task.train().augment(*batch_of())
    shown = batch["clips"].clone().requires_grad_()
    task(batch | {"clips": shown}, backbone).loss.backward()
    moved = cubes_of(shown.grad[:, 0], CUBE).abs().amax(dim=(2, 3))
    assert torch.equal(moved[batch["mask"][:, 0]], torch.zeros(3 * 24))
    assert bool((moved[~batch["mask"][:, 0]] > 0).all())


def test_the_decoder_does_not_mind_in_which_order_tokens_come():
    task, _ = built()
    draw = torch.Generator().manual_seed(0)
    seen, places = torch.randn(2, 8, 96, generator=draw), torch.randperm(32, generator=draw).expand(2, -1)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    with torch.no_grad():
        one = task.decoder(seen, places[:, :8], places[:, 8:])
        other = task.decoder(seen[:, order], places[:, :8][:, order], places[:, 8:])
    assert torch.allclose(one, other, atol=1e-5)


def test_a_clip_of_one_color_has_nothing_to_explain():
    task, backbone = built()
    batch = task.eval().augment(*batch_of(clips=torch.full((3, 1, 4, 3, 16, 16), 128, dtype=torch.uint8)))
    with torch.no_grad():
        output = task(batch, backbone.eval())
    assert output.metrics["explained"].tolist() == output.metrics["explained_by_nearest"].tolist() == [0.0] * 3
    assert bool(torch.isfinite(output.loss))


def test_the_nearest_cube_explains_what_repeats_and_nothing_of_noise():
    """A pattern as wide as a cube is alike in all cubes; noise is not, and to copy it is worse than to say nothing."""
    pattern = torch.rand(3, 2, 4, 4, generator=torch.manual_seed(5)).mul(255).byte()
    clip = pattern.repeat(1, 2, 4, 4).transpose(0, 1)
    task, backbone = built()
    both = torch.stack([clip, batch_of()[0]["clips"][0, 0]])[:, None]
    batch = task.eval().augment(*batch_of(num=2, clips=both))
    with torch.no_grad():
        output = task(batch, backbone.eval())
    repeated, noise = output.metrics["explained_by_nearest"].tolist()
    assert repeated == pytest.approx(1.0, abs=1e-5) and noise < -0.5


def test_a_placebo_asks_for_another_video_and_shows_the_same():
    task, _ = built()
    batch = task.train().augment(*batch_of())
    changed = task.placebo(batch, np.random.default_rng(0))
    assert {key for key in batch if not torch.equal(batch[key], changed[key])} == {"target"}
    for b in range(3):
        assert any(torch.equal(changed["target"][b], batch["target"][o]) for o in range(3) if o != b)


# ---- sampling, contract, mistakes


def test_squares_are_of_the_stated_sizes_and_lie_anywhere():
    maker = MaskedClips(replace(SMALL, crop_scales=(1.0, 0.5), clips_per_decode=2), True)
    video = VideoInfo("v.mp4", 30, 25.0, 40, 60)
    corners = {1.0: set(), 0.5: set()}
    for seed in range(300):
        draw = np.random.default_rng(seed)
        plan = maker.plan(video, draw, draw)
        assert np.diff(plan.views[0]).tolist() == [2, 2, 2] and 0 <= plan.views[0][0] <= 30 - 7
        for top, left, side, _ in (cut.rectangles[0] for cut in maker.cuts(40, 60, plan, draw, draw).wanted):
            corners[side / 40].add((top, left))
    assert {top for top, _ in corners[1.0]} == {0} and {left for _, left in corners[1.0]} == set(range(21))
    assert {left for _, left in corners[0.5]} == set(range(41)) and {top for top, _ in corners[0.5]} == set(range(21))


@pytest.mark.parametrize(
    "options", [{}, {"mask": "random", "target_frames": "first"}, {"decode": "running", "clips_per_decode": 2}]
)
def test_the_contract_holds(options):
    small = {"num_frames": 4, "frame_px": 32, "decoder_width": 16, "decoder_depth": 1, "ratio": 0.5}
    check_task("masked_pixels", **small, **options)


def test_pictures_show_what_is_seen_and_what_is_said():
    task, backbone = built()
    batch = task.eval().augment(*batch_of())
    with torch.no_grad():
        output = task(batch, backbone.eval())
    picture = task.visualize(batch, output)["cubes"]
    assert picture.dtype == np.uint8 and picture.shape == (6 * 82, 122 + 2 * 82, 3)
    exact = normalized(cubes_of(batch["target"][:, 0], CUBE)).flatten(2)
    output.extras["said"] = torch.stack([exact[b, output.extras["wanted"][b]] for b in range(2)])
    seen, told = task._pictured(
        output.extras["said"][0], output.extras["wanted"][0], batch["target"][0, 0], batch["mask"][0, 0]
    )
    assert torch.allclose(told, batch["target"][0, 0, :, ::2], atol=1e-4)  # the true target gives back the clip
    assert bool((seen == 0.5).float().mean() >= 0.75)


def test_the_papers_recipe_is_in_the_papers_setting():
    recipe = load_recipe("pretrain/masked_pixels_vit_s_kinetics400", allow_missing=True).recipe
    config = make_task_config(recipe.task.name, recipe.task.options)
    task = MaskedPixels(config, create_backbone(recipe.backbone.name, **recipe.backbone.options).info)
    assert (task.grid, config.ratio, config.stride_frames) == ((8, 14, 14), 0.9, 4)
    assert task.decoder.blocks[0].attn.num_heads == 3 and task.decoder.leave.weight.shape == (1536, 192)
    assert len(task.decoder.blocks) == 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mask": "tubes"}, r"mask \('tubes'\) must be one of tube, random \(did you mean 'tube'\?\)"),
        ({"ratio": 1.0}, r"ratio \(1.0\) must be above 0 and below 1"),
        ({"ratio": 0.01}, r"ratio \(0.01\) must hide at least one and leave at least one of 16 cells"),
        ({"frame_px": 18}, r"frame_px \(18\) must be a multiple of 4, the side of a cube of backbone vit"),
        ({"num_frames": 5}, r"num_frames \(5\) must be a multiple of 2, the side of a cube of backbone vit"),
        ({"decoder_width": 12}, r"decoder_width \(12\) must be a multiple of 8"),
    ],
)
def test_options_that_cannot_work_are_refused(options, text):
    with pytest.raises(RecipeError, match=text):
        built(replace(SMALL, **options))


def test_a_network_without_tokens_is_refused_in_one_paragraph():
    told = refusal_of("masked_pixels", without_weights("tiny3d"))
    assert "backbone tiny3d has no tokens to leave out; take one that has, such as vit" in told and "\n" not in told
    assert refusal_of("masked_pixels", without_weights("vit")) == ""
