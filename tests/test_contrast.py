"""Queue of keys, losses against loops in float64, and the same loss and gradients on one and on two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssvid.contrast import NOBODY, KeyQueue, collecting, nearer_than_others, nt_xent
from ssvid.momentum import MomentumCopy
from ssvid.ranks import mean_of_all, rows_of_all
from tests.two_ranks import averaged, on_two_ranks

VIDEOS = torch.tensor([3, 5, 3, 8])  # the first and the third clip are of one video


def looks(seed=0, num=4):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num, 5, generator=generator, dtype=torch.float64) for _ in range(2))


def by_loops(one, two, videos, temperature):
    one, two = (F.normalize(z.float().double(), dim=1) for z in (one, two))
    total = 0.0
    for own, other in ((one, two), (two, one)):
        for b in range(len(one)):
            positive = math.exp(float(own[b] @ other[b]) / temperature)
            negatives = sum(
                math.exp(float(own[b] @ look[n]) / temperature)
                for look in (one, two)
                for n in range(len(one))
                if videos[n] != videos[b]
            )
            total -= math.log(positive / (positive + negatives))
    return total / (2 * len(one))


def test_nt_xent_by_loops_and_in_any_order():
    one, two = looks()
    value = float(nt_xent(one, two, VIDEOS, 0.5))
    assert value == pytest.approx(by_loops(one, two, VIDEOS, 0.5), abs=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    assert float(nt_xent(one[order], two[order], VIDEOS[order], 0.5)) == pytest.approx(value, abs=1e-6)
    assert float(nt_xent(two, one, VIDEOS, 0.5)) == pytest.approx(value, abs=1e-6)


def test_nt_xent_of_one_video_alone_is_zero():
    one, two = looks()
    assert float(nt_xent(one, two, torch.zeros(4), 0.5)) == 0.0


def test_nt_xent_of_embeddings_alike_is_the_logarithm_of_the_candidates():
    same = torch.ones(4, 5)
    assert float(nt_xent(same, same, torch.arange(4), 0.1)) == pytest.approx(math.log(1 + 6), abs=1e-5)


def test_queue_overwrites_the_oldest_and_counts_only_others():
    queue = KeyQueue(3, 2)
    assert queue.videos_N.tolist() == [NOBODY] * 3
    assert not queue.of_others(torch.tensor([1])).any()
    queue.enqueue(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 2]))
    queue.enqueue(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([3, 4]))
    assert queue.videos_N.tolist() == [4, 2, 3]
    assert queue.of_others(torch.tensor([2, 9])).tolist() == [[True, False, True], [True, True, True]]
    assert queue.similarity(torch.tensor([[1.0, 3.0]])).tolist() == [[6.0, 3.0, 2.0]]
    queue.enqueue(torch.arange(8.0).view(4, 2), torch.arange(4))  # more than there is room for: the last ones
    assert sorted(queue.videos_N.tolist()) == [1, 2, 3]


def test_a_query_keeps_its_gradient_when_the_queue_moves_on():
    queue = KeyQueue(2, 2)
    queue.enqueue(torch.eye(2), torch.tensor([1, 2]))
    query = torch.ones(1, 2, requires_grad=True)
    products = queue.similarity(query)
    queue.enqueue(5 * torch.eye(2), torch.tensor([3, 4]))
    products.sum().backward()
    assert query.grad.tolist() == [[1.0, 1.0]]


def test_a_copy_follows_weights_statistics_and_counters():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    copy = MomentumCopy({"net": module})
    before = {key: value.clone() for key, value in copy["net"].state_dict().items()}
    module(torch.randn(4, 3))
    with torch.no_grad():
        module[0].weight.add_(1.0)
    copy.follow({"net": module}, 0.75)
    now, trained = copy["net"].state_dict(), module.state_dict()
    for key, old in before.items():
        expected = 0.75 * old + 0.25 * trained[key] if old.is_floating_point() else trained[key]
        assert torch.allclose(now[key].double(), expected.double(), atol=1e-7), key
    assert int(now["1.num_batches_tracked"]) == 1
    assert not any(p.requires_grad for p in copy.parameters())
    assert not copy.train().training
    assert not copy["net"].training


def test_nearer_than_others_is_a_metric_over_batches():
    metric = collecting(nearer_than_others, ("anchors", "keys", "videos"))
    anchors, keys = torch.eye(3), F.normalize(torch.tensor([[1.0, 0.0, 0.9], [0.0, 1.0, 0.0], [1.0, 0.0, 0.1]]), dim=1)
    metric.update(anchors[:2], keys[:2], torch.tensor([0, 1]))
    metric.update(anchors[2:], keys[2:], torch.tensor([2]))
    # Anchor 0 (.74) is ahead of key 1 and behind key 2 (.995); anchor 1 beats both; anchor 2 (.1) beats key 1 and loses to key 0 (.67).
    assert float(metric.compute()) == pytest.approx(4 / 6)


# ---- processes that train together


def global_loss(weight, x, videos):
    """A loss over a batch, and one of its mean."""
    one, two = x @ weight, (x + 0.1) @ weight.tanh()
    return nt_xent(one, two, videos, 0.5) + mean_of_all(one.mean()).square() + rows_of_all(two).std()


def on_rank(rank):
    weight, x = inputs()
    global_loss(weight, x[2 * rank : 2 * rank + 2], VIDEOS[2 * rank : 2 * rank + 2]).backward()
    return averaged([weight.grad])


def inputs():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, generator=generator).requires_grad_(), torch.randn(4, 4, generator=generator)


def test_two_processes_get_the_gradient_of_one(tmp_path):
    weight, x = inputs()
    global_loss(weight, x, VIDEOS).backward()
    for (found,) in on_two_ranks(on_rank, tmp_path):
        assert torch.allclose(torch.tensor(found), weight.grad, atol=1e-6)
