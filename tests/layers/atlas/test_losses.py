"""Each loss against loops in float64 and cases that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from ssvid.layers.atlas.losses import (
    alpha_flow_loss,
    bootstrap_loss,
    flow_loss,
    gradient_loss,
    rgb_loss,
    rigidity,
    sparsity_loss,
)

RNG = np.random.default_rng(0)


def drawn(*shape):
    return torch.from_numpy(RNG.uniform(0, 1, shape))


def test_rgb():
    assert float(rgb_loss(torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.tensor([[0.0, 2, 0], [0, 0, 0]]))) == 2.5


def test_gradient_is_blind_to_a_shift_and_sees_each_neighbor():
    found, true = drawn(2, 4, 4, 3), drawn(2, 4, 4, 3)
    assert float(gradient_loss(found + 0.3, found)) == pytest.approx(0, abs=1e-12)
    gap = (found - true).numpy()
    across = [((gap[b, y, x + 1] - gap[b, y, x]) ** 2).sum() for b in range(2) for y in range(4) for x in range(3)]
    down = [((gap[b, y + 1, x] - gap[b, y, x]) ** 2).sum() for b in range(2) for y in range(3) for x in range(4)]
    assert float(gradient_loss(found, true)) == pytest.approx(np.mean(across) + np.mean(down))


def test_sparsity_counts_what_is_not_shown_and_not_hidden():
    colors, alphas = drawn(2, 5, 3), drawn(2, 5)
    expected = 0.0
    for p in range(5):
        for n in range(2):
            passed = 1.0 if n == 0 else 1 - float(alphas[0, p])
            expected += passed * sum(((1 - float(alphas[n, p])) * float(c)) ** 2 for c in colors[n, p]) / 5
    assert float(sparsity_loss(colors, alphas)) == pytest.approx(expected)
    opaque = torch.ones(1, 5, dtype=torch.float64)
    assert float(sparsity_loss(colors[:1], opaque)) == 0


def test_what_hides_an_object_learns_nothing_from_its_darkness():
    colors, alphas = drawn(2, 5, 3), drawn(2, 5)
    front = alphas[:1].clone().requires_grad_()
    sparsity_loss(colors, torch.cat([front, alphas[1:]])).backward()
    alone = alphas[:1].clone().requires_grad_()
    sparsity_loss(colors[:1], alone).backward()
    assert torch.allclose(front.grad, alone.grad)


def test_flow_is_weighted_by_what_is_seen_and_believed():
    here, weights = drawn(2, 3, 2), torch.tensor([[1.0, 0.25, 1], [0, 0.75, 0]], dtype=torch.float64)
    there = here.clone()
    there[0, 0] += torch.tensor([3.0, 4.0])
    there[1, 1] += torch.tensor([0.0, 2.0])
    there[0, 2] += 100
    valid = torch.tensor([True, True, False])
    assert float(flow_loss(here, there, weights, valid)) == pytest.approx((5 + 0.75 * 2) / 2)
    assert float(flow_loss(here, there, weights, torch.zeros(3, dtype=torch.bool))) == 0


def test_alpha_along_flow():
    here, there = torch.tensor([[0.2, 0.9], [0.5, 0.5]]), torch.tensor([[0.3, 0.0], [0.1, 0.0]])
    assert float(alpha_flow_loss(here, there, torch.tensor([True, False]))) == pytest.approx(0.5)


def matrix_rigidity(jacobian):
    """By general matrices."""
    squared = jacobian.T @ jacobian
    return np.linalg.norm(squared) + np.linalg.norm(np.linalg.inv(squared)) - 2 * math.sqrt(2)


def test_rigidity_is_that_of_matrices():
    jacobians = RNG.normal(0, 1, (30, 2, 2)) + np.eye(2)
    columns = torch.from_numpy(jacobians)
    found = rigidity(columns[:, :, 0], columns[:, :, 1])
    assert found.numpy() == pytest.approx([min(matrix_rigidity(j), 50) for j in jacobians], rel=1e-6, abs=1e-9)


def test_what_turns_shifts_or_mirrors_is_rigid():
    c, s = math.cos(0.7), math.sin(0.7)
    for sign in (1, -1):
        value = rigidity(torch.tensor([[c, s]]), torch.tensor([[-s * sign, c * sign]]))
        assert float(value) == pytest.approx(0, abs=1e-5)
    assert float(rigidity(torch.tensor([[2.0, 0]]), torch.tensor([[0.0, 2]]))) == pytest.approx(
        math.sqrt(2) * (4 + 1 / 4 - 2), rel=1e-5
    )
    assert float(rigidity(torch.zeros(1, 2), torch.zeros(1, 2))) == pytest.approx(-2 * math.sqrt(2), abs=2)


def test_bootstrap_with_one_object_is_binary_cross_entropy():
    alphas, mask = drawn(1, 40), torch.from_numpy(RNG.random(40) > 0.5)
    weights = torch.cat([alphas, 1 - alphas])
    squeezed = 0.998 * alphas[0] + 0.001
    expected = torch.nn.functional.binary_cross_entropy(squeezed, mask.double())
    everywhere = torch.ones(40, dtype=torch.bool)
    assert float(bootstrap_loss(weights, 1 - mask.long(), everywhere)) == pytest.approx(float(expected))
    some = torch.arange(40) < 10
    assert float(bootstrap_loss(weights, 1 - mask.long(), some)) == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy(squeezed[:10], mask[:10].double()))
    )
