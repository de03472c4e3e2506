"""CNN-M-2048: weights counted by hand, the stack of a temporal stream against a convolution over 20 channels, other channels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssvid.backbones import Backbone, create_backbone, initialize_backbone, list_backbones
from ssvid.backbones.cnn_m import cells_of, least_px
from ssvid.backbones.contract import BackboneInputError
from ssvid.backbones.inflation import spread_channels
from ssvid.errors import RecipeError


def count(network: Backbone) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_weights_are_those_of_the_papers_layers() -> None:
    convolutions = [(7, 3, 96), (5, 96, 256), (3, 256, 512), (3, 512, 512), (3, 512, 512)]
    by_hand = sum(side * side * ins * outs + outs for side, ins, outs in convolutions)
    dense = (6 * 6 * 512 * 4096 + 4096) + (4096 * 2048 + 2048)
    with torch.device("meta"):
        spatial = create_backbone("cnn_m", fc=True)
        temporal = create_backbone("cnn_m", fc=True, in_channels=2, num_frames=10)
    assert count(spatial) == by_hand + dense == 90_420_864
    assert count(temporal) == by_hand + dense + 7 * 7 * (20 - 3) * 96 == 90_500_832


def test_sizes_are_those_of_the_paper() -> None:
    assert cells_of(224) == 6  # 109, 54, 26, 13, 6
    assert (least_px(1), least_px(6)) == (41, 201)
    assert create_backbone("cnn_m").info.min_px == 41
    with torch.device("meta"):
        assert create_backbone("cnn_m", fc=True).info.min_px == 201


def test_a_stack_of_frames_is_a_picture_of_as_many_channels() -> None:
    network = initialize_backbone("cnn_m", {"in_channels": 2, "num_frames": 10}, seed=1).eval()
    clip = torch.rand(2, 2, 10, 64, 64, generator=torch.Generator().manual_seed(0))
    first = network.conv1[0]
    stacked = network.normalize(clip).flatten(1, 2)  # B (C T) H W: all of u, then all of v
    flat = F.conv2d(stacked, first.weight.flatten(1, 2), first.bias, stride=2)
    assert torch.allclose(first(network.normalize(clip))[:, :, 0], flat, atol=1e-5)
    with pytest.raises(BackboneInputError, match="takes at most 10"):
        network(torch.rand(1, 2, 11, 64, 64))


def test_wrong_options_are_named() -> None:
    for options, words in (
        ({"num_frames": 0}, "num_frames .0. must be a whole number of at least 1"),
        ({"norm": "group"}, "norm .'group'. must be one of lrn, batch"),
        ({"fc": 1}, "fc .1. must be true or false"),
        ({"in_channels": 20}, "in_channels .20. must be one of 3, 2"),
    ):
        with pytest.raises(RecipeError, match=words):
            create_backbone("cnn_m", **options)


def test_every_network_with_the_option_takes_flow_and_sees_no_motion_as_nothing() -> None:
    found = []
    for name in list_backbones():
        with torch.device("meta"):
            if "in_channels" not in create_backbone(name).info.options:
                continue
            usual, network = create_backbone(name), create_backbone(name, in_channels=2)
        info = network.info
        assert (info.in_channels, len(info.mean), len(info.std)) == (2, 2, 2)
        still, most = ((torch.tensor(level) / 255 - info.mean[0]) / info.std[0] for level in (128.0, 255.0))
        assert abs(float(still)) < 1e-6
        assert float(most) == pytest.approx(1, abs=1e-6)
        pairs = list(zip(usual.parameters(), network.parameters(), strict=True))
        other = [(tuple(a.shape), tuple(b.shape)) for a, b in pairs if a.shape != b.shape]
        assert len(other) == 1 and other[0][0][1] == 3 and other[0][1][1] == 2, name  # the first kernel alone
        found.append(name)
    assert len(found) == 15


def test_the_first_kernel_for_flow_starts_with_the_spread_of_all_others() -> None:
    kernel = initialize_backbone("tiny3d", {"in_channels": 2, "width": 64}, seed=0).stage1[0].weight.detach()
    assert kernel.shape == (64, 2, 3, 5, 5)
    assert float(kernel.std()) == pytest.approx((2 / (64 * 3 * 5 * 5)) ** 0.5, rel=0.05)


def test_a_kernel_for_pictures_becomes_one_for_flow_by_its_mean() -> None:
    kernel = torch.arange(2 * 3 * 1 * 1, dtype=torch.float32).view(2, 3, 1, 1)
    assert spread_channels(kernel, 2).flatten().tolist() == [1.0, 1.0, 4.0, 4.0]
    assert spread_channels(torch.rand(4, 3, 2, 5, 5), 2).shape == (4, 2, 2, 5, 5)
