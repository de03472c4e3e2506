"""SIGReg: the values that its quadrature gives for known distributions, a float64 loop, its gradient, one process and two."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from ssvid.gaussianity import distance_of_normal, knots, normal_distance, random_directions, sigreg
from ssvid.projector import BatchNormOfAll, Projector
from tests.two_ranks import averaged, on_two_ranks

QUANTILES = torch.from_numpy(norm.ppf((np.arange(20000) + 0.5) / 20000)).unsqueeze(
    1
)  # as good as infinitely many draws


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(z, directions, num_knots=17, t_max=3.0):
    """The mean over directions of N times the integral, one cosine and one sine at a time."""
    total = 0.0
    for direction in directions.T.tolist():
        x = [sum(a * b for a, b in zip(row, direction, strict=True)) for row in z.tolist()]
        for k in range(num_knots):
            t = t_max * k / (num_knots - 1)
            real = sum(math.cos(t * value) for value in x) / len(x)
            imaginary = sum(math.sin(t * value) for value in x) / len(x)
            distance = (real - math.exp(-t * t / 2)) ** 2 + imaginary**2
            width = t_max / (num_knots - 1) * (1 if k in (0, num_knots - 1) else 2)
            total += len(x) * distance * math.exp(-t * t / 2) * width
    return total / directions.shape[1]


# ---- reference values


def test_the_mean_under_a_normal_distribution():
    assert distance_of_normal() == pytest.approx(1.0525, abs=1e-3)
    for size in (3, 40):
        found = normal_distance(drawn(size, 4000))
        assert float(found.mean()) == pytest.approx(1.0525, abs=5 * float(found.std()) / math.sqrt(4000))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_collapsed_batch(size):
    assert float(normal_distance(torch.zeros(size, 2))[0]) / size == pytest.approx(0.4020, abs=1e-3)


@pytest.mark.parametrize(
    ("mean", "sigma", "value"),
    [(0, 0.5, 0.1512), (0, 0.9, 0.0051), (0, 1, 0.0), (0, 1.1, 0.0045), (0, 2, 0.2361), (1, 1, 0.4443)],
)
def test_other_normal_distributions(mean, sigma, value):
    found = normal_distance(mean + sigma * QUANTILES, scale_by_n=False)
    assert float(found) == pytest.approx(value, abs=1e-3)


def test_two_points():
    both = torch.tensor([[1.0], [-1.0]])
    assert float(normal_distance(both, scale_by_n=False)) == pytest.approx(0.1028, abs=1e-3)
    assert float(normal_distance(both)) == pytest.approx(2 * 0.1028, abs=2e-3)


# ---- the same by other ways


@pytest.mark.parametrize("options", [{}, {"num_knots": 5, "t_max": 1.0}, {"num_knots": 41, "t_max": 5.0}])
def test_a_loop_in_float64(options):
    z, directions = drawn(6, 4) * 1.5 + 0.3, drawn(4, 3, seed=1)
    assert float(sigreg(z, directions, **options)) == pytest.approx(by_loops(z, directions, **options), abs=1e-10)
    assert float(sigreg(z.float(), directions, **options)) == pytest.approx(
        by_loops(z, directions, **options), abs=1e-4
    )


def test_the_weights_integrate_what_is_even_over_both_sides():
    t, weights = knots(17, 3.0, torch.zeros(()))
    assert t.tolist() == pytest.approx([3 * k / 16 for k in range(17)])
    assert float(weights.sum()) == pytest.approx(6.0)
    assert float((weights * t.square()).sum()) == pytest.approx(18.0, rel=3e-3)  # the trapezoidal rule is above


def test_neither_the_order_of_a_batch_nor_that_of_views_counts():
    z, directions = drawn(3, 8, 4), drawn(4, 5, seed=1)
    value = float(sigreg(z, directions))
    assert float(sigreg(z[:, [5, 2, 0, 7, 6, 1, 3, 4]], directions)) == pytest.approx(value, abs=1e-12)
    assert float(sigreg(z[[2, 0, 1]], directions)) == pytest.approx(value, abs=1e-12)
    assert np.mean([float(sigreg(view, directions)) for view in z]) == pytest.approx(value, abs=1e-12)
    assert float(sigreg(z, directions, scale_by_n=False)) == pytest.approx(value / 8, abs=1e-12)


def test_the_gradient_is_that_of_differences():
    z, directions = drawn(5, 3).requires_grad_(), drawn(3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda z: sigreg(z, directions), z)


def test_a_collapsed_batch_gets_the_same_gradient_everywhere_and_one_that_is_spread_is_spread_further():
    z = torch.full((6, 3), 0.4, dtype=torch.float64, requires_grad=True)
    sigreg(z, random_directions(3, 64, np.random.default_rng(0))).backward()
    assert torch.equal(z.grad, z.grad[:1].expand(6, 3)) and float(z.grad.norm()) > 0
    narrow = (0.5 * QUANTILES[::200]).requires_grad_()
    sigreg(narrow, torch.ones(1, 1, dtype=torch.float64)).backward()
    assert float((narrow.grad * narrow.detach()).sum()) < 0  # descent makes it wider


def test_directions_are_of_length_one_and_point_everywhere():
    found = random_directions(3, 20000, np.random.default_rng(0))
    assert found.dtype == torch.float32 and torch.allclose(found.norm(dim=0), torch.ones(20000), atol=1e-5)
    assert found.mean(dim=1).abs().max() < 0.02 and torch.allclose(found @ found.T / 20000, torch.eye(3) / 3, atol=0.02)


def test_autocast_changes_nothing():
    z, directions = drawn(6, 4).float(), drawn(4, 3, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sigreg(z, directions)
    assert torch.equal(inside, sigreg(z, directions))


# ---- one process and two


def loss_of(projector, x, directions):
    z = projector(x)
    return z.square().mean() + sigreg(z, directions, over_all=True)


def inputs(norm_name):
    torch.manual_seed(0)
    projector = Projector(4, (5,), 3, norm_name).train()
    nn.init.normal_(projector[1].weight), nn.init.normal_(projector[1].bias)
    return projector, drawn(6, 4, seed=3).float() * 2 + 1, drawn(3, 8, seed=4).float()


def outcome(norm_name, rank=0, world=1):
    """Loss, gradients and buffers, as one of so many processes gets them."""
    projector, x, directions = inputs(norm_name)
    loss = loss_of(projector, x.chunk(world)[rank], directions)
    loss.backward()
    return [loss.detach(), *(p.grad for p in projector.parameters())], list(projector.buffers())


def on_rank(rank, norm_name):
    values, buffers = outcome(norm_name, rank, 2)
    return averaged(values) + [buffer.tolist() for buffer in buffers]


@pytest.mark.parametrize("norm_name", ["batch", "layer"])
def test_two_processes_get_the_loss_gradient_and_statistics_of_one(norm_name, tmp_path):
    values, buffers = outcome(norm_name)
    expected = [*values, *buffers]
    assert len(expected) == (9 if norm_name == "batch" else 6)
    for found in on_two_ranks(on_rank, tmp_path, norm_name):
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(torch.tensor(one).double(), other.double(), atol=1e-5)


def test_alone_it_is_torchs_batch_normalization():
    ours, theirs = BatchNormOfAll(4), nn.BatchNorm1d(4)
    x = drawn(6, 4).float()
    assert torch.equal(ours(x), theirs(x)) and ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_projector_by_hand():
    projector = Projector(4, (5, 6), 3, "layer")
    x = drawn(7, 4).float()
    one, two, last = projector[0], projector[3], projector[6]
    hidden = torch.relu(projector[1](x @ one.weight.T))
    hidden = torch.relu(projector[4](hidden @ two.weight.T))
    assert torch.allclose(projector(x), hidden @ last.weight.T + last.bias, atol=1e-6)
    assert torch.allclose(projector(x[:1]), projector(x)[:1], atol=1e-6)  # a row depends on itself alone
    assert len(Projector(4, (), 3)) == 1
