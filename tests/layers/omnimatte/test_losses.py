"""Losses against loops, and the schedule of the mask loss by hand."""

import numpy as np
import pytest
import torch

from ssvid.layers.omnimatte.losses import MaskSchedule, alpha_l0, alpha_l1, mask_loss, over, rgb_loss, trimaps
from ssvid.layers.omnimatte.network import LayerNet


def test_the_first_layer_is_in_front():
    generator = torch.Generator().manual_seed(0)
    layers = torch.rand(3, 2, 4, 3, 5, generator=generator, dtype=torch.float64)
    behind = torch.rand(2, 3, 3, 5, generator=generator, dtype=torch.float64)
    found = over(behind, layers)
    for b, y, x in np.ndindex(2, 3, 5):
        color = behind[b, :, y, x]
        for number in (2, 1, 0):
            alpha = layers[number, b, 3, y, x]
            color = alpha * layers[number, b, :3, y, x] + (1 - alpha) * color
        assert torch.allclose(found[b, :, y, x], color)


def test_colors_by_their_mean_distance():
    assert rgb_loss(torch.full((2, 3, 4, 4), 0.25), torch.full((2, 3, 4, 4), 0.75)) == pytest.approx(0.5)


def test_a_band_around_the_mask_is_free():
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0, 4, 3:6] = 1
    found = trimaps(mask, 2)[0, 0]
    for y, x in np.ndindex(9, 9):
        near = max(abs(y - 4), max(3 - x, x - 5, 0)) <= 2
        assert found[y, x] == (1 if mask[0, 0, y, x] else -1 if near else 0)
    assert (trimaps(mask, 0)[0, 0] == mask[0, 0]).all()


def test_the_mask_loss_weighs_both_sides_alike():
    trimap = torch.zeros(1, 10, 10)
    trimap[0, 0, 0], trimap[0, 0, 1:3] = 1, -1
    alphas = torch.zeros(1, 10, 10)
    assert mask_loss(alphas, trimap) == pytest.approx(0.5)  # one pixel of the mask is missing: all of it
    alphas[:] = 1
    assert mask_loss(alphas, trimap) == pytest.approx(0.5)
    alphas[0, 1:] = 0
    alphas[0, 0, 3:] = 0
    assert mask_loss(alphas, trimap) == 0  # alpha in the band is free
    assert mask_loss(alphas, torch.full((1, 10, 10), -1.0)) == 0  # nothing is known


def test_sparsity_counts_alpha():
    alphas = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert alpha_l1(alphas) == pytest.approx(0.5)
    expected = (2 / (1 + np.exp(-5)) - 1) / 2
    assert alpha_l0(alphas).item() == pytest.approx(expected, rel=1e-6)


def test_the_mask_loss_falls_to_a_tenth_and_then_ends():
    schedule = MaskSchedule(weight=2.0, target=0.02)
    weights = []
    for step, loss in enumerate([0.5, 0.03, 0.019, 0.3, 0.01, 0.01, 0.01, 0.01]):
        weights.append(schedule.at(step))
        schedule = schedule.after(step, loss)
    assert weights == pytest.approx([2, 2, 2, 0.2, 0.2, 0.2, 0, 0])  # below after 3 steps, off after 6
    assert schedule.reached_step == 3


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (16, 16)])
def test_the_network_takes_any_size(size):
    network = LayerNet(7, width=4)
    found = network(torch.rand(2, 7, *size))
    assert found.shape == (2, 4, *size)
    assert found.min() >= 0 and found.max() <= 1
    found.mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())
