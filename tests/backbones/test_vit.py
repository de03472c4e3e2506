"""The video transformer: positions by hand, attention against its definition, dropped tokens, parameters of the papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInputError, create_backbone, initialize_backbone
from ssvid.backbones.attention import DropPath, Rotation, SelfAttention, drop_path_rates
from ssvid.backbones.positions import FixedTable, LearnedTables, rope_3d, sincos_3d, sincos_flat
from ssvid.backbones.tokens import map_of_tokens, tokens_of_map
from ssvid.errors import RecipeError
from ssvid.testing import check_backbone

POSITIONS = ("sincos", "sincos_flat", "learned", "rope", "rope_tiled")
SMALL = {"variant": "tiny", "num_frames": 4, "size_px": 32, "patch_px": 8}  # 2 x 4 x 4 tokens


@pytest.fixture(scope="module", params=["sincos", "rope"])
def network(request: pytest.FixtureRequest) -> Backbone:
    return initialize_backbone("vit", SMALL | {"positions": request.param}).eval()


def clips(num: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(num, 3, 4, 32, 32, generator=torch.Generator().manual_seed(seed))


def keeping(*rows: list[int]) -> Tensor:
    """keep_BN of 32 tokens in which these are kept."""
    keep = torch.zeros(len(rows), 32, dtype=torch.bool)
    for row, numbers in zip(keep, rows, strict=True):
        row[numbers] = True
    return keep


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["mini", "tiny", "small", "base", "large"])
def test_parameters_are_those_of_the_papers(variant: str) -> None:
    """By hand; and within half a percent of the papers' millions, which count a classifier of 400 classes.

    Small is VideoMAE's, whose table is computed; base and large are MAE-ST's, whose tables are learned.
    """
    with torch.device("meta"):
        learned = sum(p.numel() for p in create_backbone("vit", variant=variant, positions="learned").parameters())
        computed = sum(p.numel() for p in create_backbone("vit", variant=variant).parameters())
    d, depth = {"mini": (96, 4), "tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}[variant]
    block = (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d) + 4 * d
    assert computed == depth * block + (2 * 16 * 16 * 3 * d + d) + 2 * d
    assert learned == computed + (8 + 196) * d
    papers = {"small": (computed, 22e6), "base": (learned, 87e6), "large": (learned, 304e6)}
    if variant in papers:
        ours, paper = papers[variant]
        assert ours + 400 * d + 400 == pytest.approx(paper, rel=0.005)


# ---- positions -------------------------------------------------------------------------------------------------------


def test_the_table_of_three_axes_by_hand() -> None:
    """12 wide: 4 values per axis, sin and cos of p and of p / 100."""
    table = sincos_3d((2, 3, 4), 12)
    time, row, column = 1, 2, 3
    want = [f(p * w) for p in (time, row, column) for f in (math.sin, math.cos) for w in (1.0, 0.01)]
    torch.testing.assert_close(table[:, time, row, column], torch.tensor(want))
    assert sincos_3d((2, 3, 4), 192).shape == (192, 2, 3, 4)
    assert sincos_3d((1, 1, 1), 16).shape == (16, 1, 1, 1), "3 x 6 values are cut to 16"


def test_the_table_of_one_axis_by_hand() -> None:
    """4 wide, token number n = (1 * 3 + 2) * 4 + 3 = 23."""
    want = [math.sin(23), math.cos(23), math.sin(0.23), math.cos(0.23)]
    torch.testing.assert_close(sincos_flat((2, 3, 4), 4)[:, 1, 2, 3], torch.tensor(want))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_table_at_its_own_grid_is_untouched_and_a_shorter_one_is_cut(mode: str) -> None:
    table = torch.rand(5, 4, 3, 6)
    fixed = FixedTable(table, mode)
    assert torch.equal(fixed((4, 3, 6)), table.flatten(1).T[None])
    assert torch.equal(fixed((2, 3, 6)), table[:, :2].flatten(1).T[None])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_table_that_rises_linearly_does_so_at_another_grid(mode: str) -> None:
    """Cells of half the size lie at a quarter and three quarters of the old ones."""
    rising = torch.arange(6.0).expand(1, 2, 6, 6)
    wider = FixedTable(rising, mode)((2, 6, 12)).reshape(2, 6, 12)
    # Torch's cubic kernel keeps a straight line only up to a twentieth of a step.
    torch.testing.assert_close(
        wider[0, 0, 4:8], torch.tensor([1.75, 2.25, 2.75, 3.25]), atol=0.05 if mode == "bicubic" else 1e-5, rtol=0
    )
    longer = FixedTable(rising.permute(0, 3, 1, 2), mode)((12, 2, 6)).reshape(12, 2, 6)
    torch.testing.assert_close(longer[4:8, 1, 3], torch.tensor([1.75, 2.25, 2.75, 3.25]))


def test_both_at_once_are_what_torch_calls_trilinear() -> None:
    table = torch.rand(1, 5, 4, 3, 6, generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.interpolate(table, (7, 5, 8), mode="trilinear")
    torch.testing.assert_close(FixedTable(table[0], "bilinear")((7, 5, 8)), want.flatten(2).transpose(1, 2))


def test_learned_tables_are_summed() -> None:
    tables = LearnedTables((2, 3, 4), 5)
    got = tables((2, 3, 4)).reshape(2, 3, 4, 5)
    torch.testing.assert_close(got[1, 2, 3], tables.time[0, 1] + tables.space[0, 2 * 4 + 3])


def test_no_table_is_in_the_state_dict_but_the_learned_ones() -> None:
    for positions in POSITIONS:
        with torch.device("meta"):
            keys = list(create_backbone("vit", **SMALL, positions=positions).state_dict())
        own = [key for key in keys if key.partition(".")[0] not in ("patch_embed", "blocks", "norm")]
        assert own == (["positions.time", "positions.space"] if positions == "learned" else [])


def attention_scores(rotation: Rotation) -> Tensor:
    """<turned q, turned k> of one query and one key at all pairs of places, NM."""
    torch.manual_seed(0)
    query, key = (torch.randn(rotation.cos.shape[-1], dtype=torch.float64) for _ in range(2))
    double = Rotation(rotation.cos.double(), rotation.sin.double())
    shape = rotation.cos.shape
    return double.turn(query.expand(shape))[0, 0] @ double.turn(key.expand(shape))[0, 0].T


def test_rotary_attention_depends_on_differences_of_indices_alone_unless_tiled() -> None:
    grid = (3, 4, 5)
    places = torch.cartesian_prod(*(torch.arange(n) for n in grid))
    differences = (places[:, None] - places[None]).flatten(0, 1)
    _, group = differences.unique(dim=0, return_inverse=True)
    spread = {}
    for layout in ("interleaved", "tiled"):
        scores = attention_scores(rope_3d(grid, 64, layout, torch.device("cpu"))).flatten().numpy()
        by_group = [scores[group.numpy() == g] for g in range(int(group.max()) + 1)]
        spread[layout] = max(np.ptp(values) for values in by_group)
        assert np.std([values.mean() for values in by_group]) > 0.1, "positions matter"
    assert spread["interleaved"] < 1e-5
    assert spread["tiled"] > 0.1


def test_rotary_angles_by_hand() -> None:
    """A head of 14: parts of 4 for frame, row and column, 2 values unturned; the second pair turns 100 times slower."""
    interleaved, tiled = (rope_3d((2, 3, 4), 14, layout, torch.device("cpu")) for layout in ("interleaved", "tiled"))
    number = (1 * 3 + 2) * 4 + 3  # frame 1, row 2, column 3
    pairs = [angle for index in (1, 2, 3) for angle in (index, index, index / 100, index / 100)]
    torch.testing.assert_close(interleaved.cos[0, 0, number], torch.tensor([*pairs, 0, 0]).cos())
    torch.testing.assert_close(interleaved.sin[0, 0, number], torch.tensor([*pairs, 0, 0]).sin())
    neighbors = [angle for index in (1, 2, 3) for angle in (index, index / 100, index, index / 100)]
    torch.testing.assert_close(tiled.sin[0, 0, number], torch.tensor([*neighbors, 0, 0]).sin())
    quarter = Rotation(torch.zeros(2), torch.ones(2))
    assert quarter.turn(torch.tensor([[3.0, 5.0]])).tolist() == [[-5.0, 3.0]]


# ---- attention, paths ------------------------------------------------------------------------------------------------


def test_attention_equals_a_loop_in_double_precision() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(6, 2).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        got = attention(x)
        qkv = attention.qkv(x).reshape(2, 4, 3, 2, 3)
        want = torch.zeros(2, 4, 6, dtype=torch.float64)
        for b in range(2):
            for head in range(2):
                for n in range(4):
                    scores = [float(qkv[b, n, 0, head] @ qkv[b, m, 1, head]) / math.sqrt(3) for m in range(4)]
                    total = sum(math.exp(score) for score in scores)
                    for m in range(4):
                        share = math.exp(scores[m]) / total
                        want[b, n, 3 * head : 3 * head + 3] += share * qkv[b, m, 2, head]
        torch.testing.assert_close(got, attention.proj(want), atol=1e-12, rtol=0)


def test_paths_are_dropped_clip_by_clip_in_training_alone() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    assert drop.eval()(x) is x
    got = drop.train()(x)
    assert got.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(got, got[:, :1, :1].expand_as(got)), "all values of a clip or none"
    assert got.mean().item() == pytest.approx(1, abs=0.05)
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_stages_are_quarters_and_the_last_is_normalized() -> None:
    with torch.device("meta"):
        names = [create_backbone("vit", variant=v).info.stage_names for v in ("base", "large")]
    assert names == [("block3", "block6", "block9", "block12"), ("block6", "block12", "block18", "block24")]
    network = initialize_backbone("vit", SMALL | {"final_norm": False}).eval()
    normed = initialize_backbone("vit", SMALL).eval()
    with torch.no_grad():
        raw, want = network(clips()), normed(clips())
        torch.testing.assert_close(
            torch.layer_norm(raw.movedim(1, -1), (192,)).movedim(-1, 1), want, atol=1e-4, rtol=1e-4
        )
        assert torch.equal(network(clips(), "block9"), normed(clips(), "block9"))


def test_a_stage_is_computed_from_the_map_before_it(network: Backbone) -> None:
    with torch.no_grad():
        x = network.normalize(clips())
        for name, want in network.run_stages(x, network.info.stage_names).items():
            x = network.run_stage(name, x)
            torch.testing.assert_close(x, want, atol=1e-5, rtol=1e-4)


# ---- dropped tokens --------------------------------------------------------------------------------------------------


def test_keeping_all_tokens_is_keeping_none_out(network: Backbone) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            network(clips(), keep_BN=torch.ones(2, 32, dtype=torch.bool)), network(clips()), atol=1e-6, rtol=1e-6
        )


def test_pixels_of_a_dropped_tube_have_no_gradient_at_all(network: Backbone) -> None:
    """Token 22 of the grid 2 x 4 x 4 is frame pair 1, row 1, column 2: pixels 8 to 16 and 16 to 24."""
    clip = clips(1).requires_grad_()
    network(clip, keep_BN=keeping([i for i in range(32) if i != 22])).square().sum().backward()
    assert clip.grad is not None
    touched = clip.grad[0].abs().sum(0) > 0
    assert not touched[2:4, 8:16, 16:24].any()
    assert touched[:2].all()
    assert touched.sum() == touched.numel() - 2 * 8 * 8


def test_dropped_tokens_change_nothing_and_are_zero_in_every_stage(network: Backbone) -> None:
    keep = keeping([0, 5, 31], [7, 8, 30])
    other = clips()
    other[0, :, :2, :8, 8:] = 0  # frames 0 and 1, the first row of tokens but its first
    with torch.no_grad():
        maps = network(clips(), network.info.stage_names, keep_BN=keep)
        again = network(other, network.info.stage_names, keep_BN=keep)
    for map_, same in zip(maps, again, strict=True):
        assert map_.shape == (2, 192, 2, 4, 4)
        assert torch.equal(map_, same)
        assert torch.equal(map_.flatten(2).abs().sum(1) > 0, keep)


def test_kept_tokens_know_their_places(network: Backbone) -> None:
    """Or a transformer that numbers the kept tokens anew would pass: one token alone at two places."""
    still = torch.rand(1, 3, 1, 1, 1).expand(1, 3, 4, 32, 32)
    with torch.no_grad():
        pairs = [tokens_of_map(network(still, keep_BN=keeping(p)), keeping(p)) for p in ([0, 1], [0, 31])]
    gap = (pairs[0] - pairs[1]).abs().max()
    if network.info.options["positions"] == "rope":
        assert gap == pytest.approx(0, abs=1e-5), "equal values at all places: no attention weight can show"
    else:
        assert gap > 1e-3


def test_rotary_places_are_those_of_the_grid() -> None:
    """A clip moved by a whole token, with the same tokens kept, is the same to rotary attention that is not tiled."""
    clip = clips(1)
    moved = clip.roll(8, dims=4)  # one token to the right
    keep, keep_moved = keeping([0, 6, 17, 30]), keeping([1, 7, 18, 31])
    for positions, same in (("rope", True), ("rope_tiled", False)):
        network = initialize_backbone("vit", SMALL | {"positions": positions}).eval()
        with torch.no_grad():
            for block in network.get_submodule("blocks").children():
                block.get_parameter("attn.qkv.weight").mul_(20)  # sharp attention, so that places matter
            one, two = network(clip, keep_BN=keep), network(moved, keep_BN=keep_moved)
        gap = (tokens_of_map(one, keep) - tokens_of_map(two, keep_moved)).abs().max().item()
        assert (gap < 1e-3) is same, (positions, gap)


def test_maps_and_tokens_are_inverse() -> None:
    map_, keep = torch.rand(2, 5, 2, 4, 4), keeping([3, 9], [0, 31])
    tokens = tokens_of_map(map_, keep)
    assert torch.equal(tokens[0, 1], map_[0, :, 0, 2, 1])
    again = map_of_tokens(tokens, (2, 4, 4), keep)
    assert torch.equal(again[1, :, 1, 3, 3], map_[1, :, 1, 3, 3])
    assert (again.abs().sum(1) > 0).sum() == 4
    assert torch.equal(map_of_tokens(tokens_of_map(map_), (2, 4, 4)), map_)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (keeping([1, 2], [3]), ["keeps 1 to 2 tokens of a clip", "equally many"]),
        (keeping([], []), ["keeps 0 to 0 tokens", "at least 1"]),
        (torch.ones(2, 31, dtype=torch.bool), ["shape (2, 31)", "2 x 4 x 4 cells", "shape (2, 32)"]),
        (torch.ones(2, 32), ["dtype torch.float32", "must be bool"]),
    ],
)
def test_what_cannot_be_kept_is_named(network: Backbone, keep: Tensor, words: list[str]) -> None:
    with pytest.raises(BackboneInputError) as caught:
        network(clips(), keep_BN=keep)
    for word in words:
        assert word in str(caught.value)


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "giant"}, r"variant \('giant'\) must be one of mini, tiny, small, base, large"),
        ({"positions": "none"}, r"positions \('none'\) must be one of sincos, sincos_flat"),
        ({"num_frames": 15}, r"num_frames \(15\) must be a multiple of tubelet_frames \(2\)"),
        ({"size_px": 100}, r"size_px \(100\) must be a multiple of patch_px \(16\)"),
        ({"patch_px": 0}, r"patch_px \(0\) must be a whole number"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\) must be a number of at least 0 and below 1"),
        ({"final_norm": "no"}, r"final_norm \('no'\) must be true or false"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        create_backbone("vit", **options)


@pytest.mark.parametrize(
    "positions", [p if p == "rope" else pytest.param(p, marks=pytest.mark.slow) for p in POSITIONS]
)
def test_it_keeps_the_contract(positions: str) -> None:
    check_backbone("vit", **SMALL, positions=positions)


@pytest.mark.slow  # torch.export takes many seconds
@pytest.mark.parametrize("name", ["vit", "timesformer"])
def test_an_exported_program_takes_clips_shorter_and_longer_than_its_tables(name: str) -> None:
    network = initialize_backbone(name, SMALL).eval()
    axes = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (torch.rand(2, 3, 8, 24, 40),), dynamic_shapes={"clip_BCTHW": axes})
    for num_frames in (4, 12, 40):
        clip = torch.rand(1, 3, num_frames, 40, 64)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(clip), network(clip), atol=1e-5, rtol=1e-5)
