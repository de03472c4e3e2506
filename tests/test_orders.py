"""Orders as classes, the head that compares two by two, and the guess from pixels: against plain loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from ssvid.orders import (
    PairwiseHead,
    class_loss,
    draw_orders,
    gather_orders,
    order_output,
    order_rows,
    orders_of,
    pixel_costs,
    pool_to_grid,
    smoothest_class,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factorial(num):
    return num * factorial(num - 1) if num else 1


# ---- orders


@pytest.mark.parametrize("num", [2, 3, 4])
def test_every_order_is_a_class_once(num):
    orders = orders_of(num)
    assert orders.shape == (factorial(num), num)
    assert {tuple(o) for o in orders.tolist()} == set(itertools.permutations(range(num)))
    assert orders[0].tolist() == list(range(num))


@pytest.mark.parametrize(("num", "classes"), [(3, 3), (4, 12)])
def test_up_to_reversal_each_order_or_its_reverse_is_a_class(num, classes):
    orders = {tuple(o) for o in orders_of(num, up_to_reversal=True).tolist()}
    assert len(orders) == classes
    for order in itertools.permutations(range(num)):
        assert (order in orders) != (order[::-1] in orders)


def test_orders_are_drawn_evenly_or_all_taken():
    orders = orders_of(3)
    drawn = [int(draw_orders(orders, np.random.default_rng(s), every=False)[0]) for s in range(3000)]
    counts = np.bincount(drawn, minlength=6)
    assert ((counts - 500) ** 2 / 500).sum() < 20.5  # chi square of 5 degrees of freedom, p = 0.001
    assert draw_orders(orders, np.random.default_rng(0), every=True).tolist() == [0, 1, 2, 3, 4, 5]


# ---- features, head, loss


def test_grid_pooling_is_the_mean_of_each_cell():
    map_ = noise(2, 3, 2, 5, 7)
    for grid in (1, 2, 3):
        expected = torch.nn.functional.adaptive_avg_pool2d(map_.mean(2), grid).flatten(1)
        assert torch.allclose(pool_to_grid(map_, grid), expected, atol=1e-7)
    total = sum(float(map_[1, 2, t, h, w]) for t in range(2) for h in range(5) for w in range(7))
    assert float(pool_to_grid(map_, 1)[1, 2]) == pytest.approx(total / 70, abs=1e-6)


def by_hand(head, features_ND, *, norm):
    """The logits of one tuple in plain loops: every pair i < j side by side through one layer, then all through one."""
    linear = head.pair[0]
    hidden = []
    for i in range(len(features_ND)):
        for j in range(i + 1, len(features_ND)):
            x = [*features_ND[i].tolist(), *features_ND[j].tolist()]
            for row, bias in zip(linear.weight.tolist(), [0.0] * 5 if norm else linear.bias.tolist(), strict=True):
                hidden.append(bias + sum(w * v for w, v in zip(row, x, strict=True)))
    if norm:  # in evaluation, by its running statistics
        n = head.pair[1]
        scale = [g / math.sqrt(v + n.eps) for g, v in zip(n.weight.tolist(), n.running_var.tolist(), strict=True)]
        shift = zip(n.running_mean.tolist(), n.bias.tolist(), strict=True)
        shift = [b - m * s for (m, b), s in zip(shift, scale, strict=True)]
        hidden = [h * scale[k % 5] + shift[k % 5] for k, h in enumerate(hidden)]
    hidden = [max(0.0, h) for h in hidden]
    last = zip(head.orders.weight.tolist(), head.orders.bias.tolist(), strict=True)
    return [bias + sum(w * h for w, h in zip(row, hidden, strict=True)) for row, bias in last]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("num", [3, 4])
def test_logits_compare_the_moments_two_by_two_in_the_order_shown(num, norm):
    torch.manual_seed(0)
    head = PairwiseHead(3, num, 7, hidden=5, dropout=0.5, pair_norm=norm).double().eval()
    if norm:
        head.pair[1].running_mean.copy_(noise(5, seed=1))
        head.pair[1].running_var.copy_(noise(5, seed=2).abs() + 0.1)
    features, order = noise(2, num, 3), torch.tensor(list(itertools.permutations(range(num)))[:5]).repeat(2, 1, 1)
    logits = head(gather_orders(features, order))
    assert logits.shape == (2, 5, 7)
    for b in range(2):
        for v in range(5):
            shown = torch.stack([features[b, int(n)] for n in order[b, v]])
            assert logits[b, v].tolist() == pytest.approx(by_hand(head, shown, norm=norm), abs=1e-9)


def test_all_orders_at_once_are_those_one_by_one():
    torch.manual_seed(0)
    head = PairwiseHead(3, 3, 6, hidden=4, dropout=0.0).double()
    features, orders = noise(2, 3, 3), torch.from_numpy(orders_of(3).copy())
    together = head(gather_orders(features, orders.repeat(2, 1, 1)))
    for v, order in enumerate(orders):
        shown = features[:, order]  # moments moved, order left: the same tuple
        alone = head(gather_orders(shown, torch.arange(3).view(1, 1, 3).expand(2, 1, 3)))
        assert torch.allclose(together[:, v : v + 1], alone, atol=1e-12)


def test_loss_is_the_cross_entropy_of_the_class():
    logits, truth = noise(2, 3, 4), torch.tensor([[0, 3, 1], [2, 2, 0]])
    expected = 0.0
    for b in range(2):
        for v in range(3):
            z = logits[b, v].tolist()
            expected -= z[int(truth[b, v])] - math.log(sum(math.exp(x) for x in z))
    assert float(class_loss(logits, truth)) == pytest.approx(expected / 6, rel=1e-6)


def test_a_network_that_cannot_tell_is_right_as_often_as_chance():
    orders = torch.from_numpy(orders_of(3).copy())
    output = order_output(
        torch.zeros(2, 6, 6), torch.arange(6).repeat(2, 1), torch.zeros(2, 3, 3), orders.repeat(2, 1, 1), orders
    )
    assert output.metrics["accuracy"].tolist() == pytest.approx([1 / 6] * 2)
    assert output.metrics["pixel_accuracy"].tolist() == pytest.approx([1 / 6] * 2)
    assert float(output.loss) == pytest.approx(math.log(6), rel=1e-6)


# ---- pixels


def test_costs_are_root_mean_squares_from_ends_to_starts():
    ends, starts = noise(2, 3, 2, 4, 5, seed=1), noise(2, 3, 2, 4, 5, seed=2)
    costs = pixel_costs(ends, starts)
    for b, i, j in itertools.product(range(2), range(3), range(3)):
        squares = [(a - c) ** 2 for a, c in zip(ends[b, i].flatten().tolist(), starts[b, j].flatten().tolist(), strict=True)]
        assert float(costs[b, i, j]) == pytest.approx(math.sqrt(sum(squares) / 40), abs=1e-6)


@pytest.mark.parametrize("reversible", [False, True])
def test_the_smoothest_order_is_the_cheapest_of_all(reversible):
    orders = torch.from_numpy(orders_of(4, up_to_reversal=reversible).copy())
    cost = noise(3, 4, 4).abs()
    if reversible:
        cost = cost + cost.transpose(1, 2)
    shown = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(s)) for s in range(6)])
    got = smoothest_class(cost, shown.repeat(3, 1, 1), orders)
    for b in range(3):
        for v, order in enumerate(shown.tolist()):
            prices = []
            for said in orders.tolist():
                in_time = [order[said.index(t)] for t in range(4)]  # which moment the class calls the t-th
                prices.append(sum(float(cost[b, x, y]) for x, y in itertools.pairwise(in_time)))
            assert int(got[b, v]) == int(np.argmin(prices))


def test_a_ramp_of_gray_is_put_in_order_by_its_pixels():
    """What changes steadily needs no understanding: the guess from pixels finds it in every order it is shown in."""
    orders = torch.from_numpy(orders_of(4, up_to_reversal=True).copy())
    frames = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 3, 8, 8)
    classes = smoothest_class(pixel_costs(frames, frames), orders.unsqueeze(0), orders)
    assert classes.tolist() == [list(range(12))]


# ---- pictures


def test_pictures_show_the_order_and_what_was_made_of_it():
    moments = [np.full((40, 30, 3), 10 * n, np.uint8) for n in range(3)]
    picture = order_rows(moments, np.array([2, 0, 1]), np.array([2, 1, 0]))
    assert picture.dtype == np.uint8 and picture.shape == (2 * 40 + 8, 84 + 3 * 30, 3)
    middles = [[int(picture[line, 84 + 30 * place + 15, 0]) for place in range(3)] for line in (20, 60)]
    assert middles == [[20, 0, 10], [10, 0, 20]]  # said to be the third, the second, the first
    edges = [picture[40, 84 + 30 * place].tolist() for place in range(3)]
    assert edges[2][1] > edges[2][0] and all(edge[0] > edge[1] for edge in edges[:2])  # only the last is in its place
