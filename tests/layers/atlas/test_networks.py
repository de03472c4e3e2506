"""Layers put together, encodings, where mappings begin, grids."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ssvid.layers.atlas import AtlasConfig
from ssvid.layers.atlas.networks import (
    AlphaGrid,
    AtlasGrid,
    AtlasNetwork,
    LayeredAtlases,
    Mapping,
    encode,
    front_to_back,
)
from tests.layers.atlas.conftest import H, T, W


def test_front_to_back_is_painting_from_the_back():
    rng = np.random.default_rng(0)
    alphas, colors = rng.random((3, 6)), rng.random((4, 6))
    weights = front_to_back(torch.from_numpy(alphas))
    assert weights.sum(dim=0).numpy() == pytest.approx(1)
    painted = colors[3]
    for alpha, color in zip(alphas[::-1], colors[2::-1], strict=True):
        painted = alpha * color + (1 - alpha) * painted
    assert (weights.numpy() * colors).sum(axis=0) == pytest.approx(painted)


def test_encoding_by_hand():
    found = encode(torch.tensor([[0.25, -0.5]]), 2)
    x, y = math.pi * 0.25, math.pi * -0.5
    expected = [
        *map(math.sin, (x, 2 * x)),
        *map(math.cos, (x, 2 * x)),
        *map(math.sin, (y, 2 * y)),
        *map(math.cos, (y, 2 * y)),
    ]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_mapping_begins_with_its_chain_and_lies_between_frames():
    chain = torch.eye(3)[:2].repeat(3, 1, 1)
    chain[1, 0, 2], chain[2] = 0.5, torch.tensor([[0.0, -2, 1], [2, 0, 0]])
    mapping = Mapping(chain, AtlasConfig())
    points = torch.tensor([[0.1, 0.2, -1.0], [0.1, 0.2, -0.5], [0.1, 0.2, 0.0], [0.1, 0.2, 1.0]])
    expected = [[0.1, 0.2], [0.35, 0.2], [0.6, 0.2], [-0.4 + 1, 0.2]]
    assert mapping(points).tolist() == [pytest.approx(place, abs=1e-6) for place in expected]


def test_a_mapping_that_is_not_to_be_learned_has_nothing_to_learn(begun):
    frozen = LayeredAtlases(begun.layout, AtlasConfig(learn_mapping=False))
    ids = {id(p) for p in frozen.mappings.parameters()}
    assert not ids & {id(p) for kind in ("network", "grid") for p in frozen.parameters_of(kind)}


def test_a_grid_of_alpha_begins_as_the_mask(begun, clip_motion):
    grid = AlphaGrid(begun.layout)
    mask = torch.from_numpy(clip_motion[0].masks_NTHW[0])
    grid.start_from(mask)
    logits = torch.stack([grid(begun.layout.frame_points(H, W, t)).view(H, W) for t in range(T)])
    assert logits.detach().numpy() == pytest.approx(np.where(mask, 3.0, -3.0), abs=1e-3)
    halfway = grid(begun.layout.frame_points(H, W, 1.5)).view(H, W)
    assert halfway.detach().numpy() == pytest.approx(logits[1:3].mean(dim=0).detach().numpy(), abs=1e-3)


def test_an_atlas_grid_is_as_fine_as_asked():
    box = torch.tensor([[-1.0, -0.5], [1.0, 0.5]])
    grid = AtlasGrid(box, half_px=40, texels_per_px=1.25)
    assert [tuple(level.shape[2:]) for level in grid.levels] == [(4, 8), (8, 16), (16, 32), (32, 64), (50, 100)]
    assert grid(torch.zeros(2, 2)).tolist() == [[0.5] * 3] * 2
    with torch.no_grad():
        grid.levels[-1][0, 1, -1, 0] = 2.0  # the lower left corner
    corner, outside, far = grid(torch.tensor([[-1.0, 0.5], [-3.0, 2.0], [1.0, 0.5]]))
    assert corner[1].item() == outside[1].item() == pytest.approx(1 / (1 + math.exp(-2)))
    assert far.tolist() == [0.5] * 3


@pytest.mark.parametrize(("alpha", "atlas"), [("grid", "mlp"), ("mlp", "grid"), ("mlp", "mlp")])
def test_every_parameter_is_of_one_kind_and_learns(begun, alpha, atlas):
    config = dataclasses.replace(AtlasConfig(), alpha=alpha, atlas=atlas)
    network = LayeredAtlases(begun.layout, config)
    kinds = {kind: network.parameters_of(kind) for kind in ("network", "grid")}
    assert sum(map(len, kinds.values())) == len(list(network.parameters()))
    assert bool(kinds["grid"]) == ("grid" in (alpha, atlas))
    assert isinstance(network.atlases[0], AtlasNetwork) == (atlas == "mlp")
    seen = network(begun.layout.frame_points(4, 6, 1.0))
    seen.composed().square().sum().backward()
    last = [parameters[-1].grad for parameters in kinds.values() if parameters]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in last)
