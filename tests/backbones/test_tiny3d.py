"""The small network: size, fixed difference layer, strides that leave the weights alone."""

from __future__ import annotations

import pytest
import torch

from ssvid.backbones import create_backbone, initialize_backbone
from ssvid.backbones.tiny3d import frame_difference


def test_parameters_counted_by_hand() -> None:
    # 3*16*75 + 27*(16*32 + 32*64 + 64*128), and two per channel for batch normalization
    assert sum(p.numel() for p in create_backbone("tiny3d").parameters()) == 3600 + 290304 + 2 * 240 == 294384


def test_difference_by_hand() -> None:
    clip = torch.tensor([0.5, 0.25, 0.25, 1.0]).view(1, 1, 4, 1, 1)
    assert frame_difference(clip).flatten().tolist() == [0.0, -0.25, 0.0, 0.75]


@pytest.mark.parametrize("training", [False, True])
def test_a_still_clip_is_nothing_to_a_difference_network(training: bool) -> None:
    network = initialize_backbone("tiny3d", {"width": 4, "input": "difference"}).train(training)
    still = torch.rand(2, 3, 1, 24, 24).expand(2, 3, 8, 24, 24)
    other = torch.rand(2, 3, 1, 24, 24).expand(2, 3, 8, 24, 24)
    assert network.normalize(still).count_nonzero() == 0
    assert torch.equal(network(still), network(other))


def test_brightness_is_nothing_to_a_difference_network() -> None:
    network = initialize_backbone("tiny3d", {"width": 4, "input": "difference"}).eval()
    clip = torch.rand(1, 3, 8, 24, 24) / 2
    torch.testing.assert_close(network(clip), network(clip + 0.25), atol=1e-4, rtol=1e-4)


def test_rgb_input_is_normalized_inside() -> None:
    network = create_backbone("tiny3d", width=4)
    mean = torch.tensor(network.info.mean).view(1, 3, 1, 1, 1)
    std = torch.tensor(network.info.std).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(
        network.normalize((mean + 2 * std).expand(1, 3, 2, 4, 4)), torch.full((1, 3, 2, 4, 4), 2.0)
    )


@pytest.mark.parametrize(("stride_time", "frames"), [(4, 4), (2, 8), (1, 16)])
def test_time_stride_is_an_option_of_the_network_not_of_the_weights(stride_time: int, frames: int) -> None:
    weights = create_backbone("tiny3d", width=4).state_dict()
    network = create_backbone("tiny3d", width=4, stride_time=stride_time)
    network.load_state_dict(weights)
    assert network(torch.rand(1, 3, 16, 32, 32)).shape == (1, 32, frames, 2, 2)
    assert network.info.stages[-1].stride_time == stride_time


def test_initialization_is_kaiming_fan_out() -> None:
    weight = initialize_backbone("tiny3d", seed=0).state_dict()["stage4.0.weight"]
    assert weight.std().item() == pytest.approx((2 / (128 * 27)) ** 0.5, rel=0.01)
