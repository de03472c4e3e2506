"""Heads that bring frames together late: by hand, and what the order of the frames may change."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from ssvid.classifiers.fusion import AverageHead, LateConcatHead, LatePoolHead, log_mean_probability, mean_of_set
from ssvid.errors import RecipeError

ORDERS = [torch.randperm(9, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]


def whole_eighths(*shape: int, seed: int) -> torch.Tensor:
    """Numbers of which every sum and product here is exact, so that no kernel rounds."""
    return torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(seed)) / 8


def test_average_is_the_mean_of_the_softmax_of_each_frame():
    torch.manual_seed(0)
    head = AverageHead(6, 4).double()
    head.classifier.weight.data.normal_()
    head.classifier.bias.data.normal_()
    map_BCTHW = torch.randn(3, 6, 5, 2, 3, dtype=torch.float64)
    weight, bias = head.classifier.weight.detach().numpy(), head.classifier.bias.detach().numpy()
    for clip_CTHW, logits_K in zip(map_BCTHW.numpy(), head(map_BCTHW).detach().numpy(), strict=True):
        frames = [softmax(weight @ clip_CTHW[:, t].mean(axis=(1, 2)) + bias) for t in range(5)]
        np.testing.assert_allclose(softmax(logits_K), np.mean(frames, axis=0), rtol=1e-12)
        np.testing.assert_allclose(np.exp(logits_K), np.mean(frames, axis=0), rtol=1e-12)


def test_an_average_of_one_frame_is_that_frame_and_one_of_equal_frames_too():
    head = AverageHead(6, 4)
    one = torch.randn(2, 6, 1, 2, 2)
    own = head.classifier(one.mean(dim=(2, 3, 4))).log_softmax(1)
    torch.testing.assert_close(head(one), own)
    torch.testing.assert_close(head(one.expand(-1, -1, 7, -1, -1)), own)


def test_frames_that_are_sure_of_a_wrong_class_cost_no_infinite_loss():
    logits = torch.tensor([[[900.0, 0.0], [900.0, 0.0]]], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(log_mean_probability(logits), torch.tensor([1]))
    assert loss.item() == pytest.approx(900)
    loss.backward()
    torch.testing.assert_close(logits.grad[0], torch.tensor([[0.5, -0.5], [0.5, -0.5]]), rtol=1e-3, atol=0)


def test_the_order_of_frames_changes_no_bit_of_an_average():
    head = AverageHead(4, 3)
    head.classifier.weight.data.copy_(whole_eighths(3, 4, seed=0))
    map_BCTHW = whole_eighths(2, 4, 9, 2, 2, seed=1)
    logits = head(map_BCTHW)
    assert all(torch.equal(head(map_BCTHW[:, :, order]), logits) for order in ORDERS)


def test_the_order_of_frames_changes_no_bit_of_late_fusion_with_pooling():
    torch.manual_seed(0)
    head = LatePoolHead(7, 3, hidden_width=5)
    map_BCTHW = torch.randn(2, 7, 9, 3, 5)
    logits = head(map_BCTHW)
    assert all(torch.equal(head(map_BCTHW[:, :, order]), logits) for order in ORDERS)
    plain_BD = map_BCTHW.mean(dim=(2, 3, 4))
    by_hand = torch.relu(plain_BD @ head.hidden[0].weight.T + head.hidden[0].bias) @ head.classifier.weight.T
    torch.testing.assert_close(logits, by_hand + head.classifier.bias)


def test_a_plain_mean_would_depend_on_the_order():
    """What the sorting is for: float32 sums of these values round otherwise in another order."""
    values_BTD = torch.tensor([1e8, 1.0, -1e8, 1.0])[None, :, None]
    moved_BTD = values_BTD[:, [0, 2, 1, 3]]
    assert mean_of_set(values_BTD).item() == mean_of_set(moved_BTD).item()
    one_by_one = [float(np.float32(np.float32(np.float32(a + b) + c) + d)) for a, b, c, d in (
        np.float32(values_BTD[0, :, 0]), np.float32(moved_BTD[0, :, 0]))]  # fmt: skip
    assert one_by_one[0] != one_by_one[1]


def test_every_frame_gets_an_equal_part_of_the_gradient_of_a_mean():
    values_BTD = torch.randn(2, 5, 3, requires_grad=True)
    mean_of_set(values_BTD).sum().backward()
    torch.testing.assert_close(values_BTD.grad, torch.full((2, 5, 3), 1 / 5))


def test_late_fusion_of_two_frames_by_hand():
    head = LateConcatHead(2, 2, num_frames=2, hidden_width=2)
    # The first hidden unit is what channel 0 gained from frame to frame, the second one what it lost.
    head.hidden[0].weight.data.copy_(torch.tensor([[-1.0, 0, 1, 0], [1, 0, -1, 0]]))
    head.hidden[0].bias.data.zero_()
    head.classifier.weight.data.copy_(torch.tensor([[1.0, -1], [0, 2]]))
    head.classifier.bias.data.copy_(torch.tensor([0.5, 0.25]))
    channels_CTHW = torch.tensor([[[[1.0, 3]], [[6, 8]]], [[[9.0, 9]], [[4, 0]]]])  # channel 0: 2, then 7
    map_BCTHW = torch.stack([channels_CTHW, channels_CTHW.flip(1)])
    assert head(map_BCTHW).tolist() == [[5.5, 0.25], [-4.5, 10.25]]


def test_late_fusion_refuses_another_number_of_frames_than_it_has_weights_for():
    head = LateConcatHead(4, 3, num_frames=8, hidden_width=4)
    with pytest.raises(RecipeError) as caught:
        head(torch.zeros(1, 4, 6, 1, 1))
    text = str(caught.value)
    assert "late_concat head has weights for 8 frames, and this map has 6" in text
    assert (
        "Give it 8 frames, or train a head that takes any number (finetune.head=late_pool, lstm or attention)" in text
    )
    assert "\n" not in text
