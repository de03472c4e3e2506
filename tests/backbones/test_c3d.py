"""C3D: sizes and parameters of the paper, and a network written out with torch's functions as an oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssvid.backbones import BackboneInputError, create_backbone, initialize_backbone
from ssvid.backbones.c3d import LinearOverCells
from ssvid.errors import RecipeError
from ssvid.testing import check_backbone


def count(**options: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_backbone("c3d", **options).parameters())


def test_parameters_are_those_of_the_papers() -> None:
    """By hand: 27 weights per pair of channels and a bias each; the papers' figures in millions."""
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(27 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
    norms = 2 * sum(channels[1:])
    connected = 8192 * 4096 + 4096 + 4096 * 4096 + 4096
    assert count(norm="none") == convolutions
    assert count() == convolutions + norms
    assert count(norm="none", fc=True) == convolutions + connected
    assert count() == pytest.approx(27.7e6, rel=0.005)  # of pretext papers
    kinetics_classifier = 4096 * 400 + 400
    assert count(norm="none", fc=True) + kinetics_classifier == pytest.approx(79e6, rel=0.01)  # I3D paper, in millions


def test_maps_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        network = create_backbone("c3d", norm="none", fc=True).eval()
        maps = network(torch.rand(1, 3, 16, 112, 112), network.info.stage_names)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 16, 112, 112),
        (128, 16, 56, 56),
        (256, 8, 28, 28),
        (512, 4, 14, 14),
        (512, 2, 7, 7),
        (4096, 1, 1, 1),
        (4096, 1, 1, 1),
    ]


def test_the_whole_network_equals_one_written_out() -> None:
    """With the usual file's order: conv, pool, ..., pool5, flatten, fc6, fc7; fully connected on 2 x 7 x 7 cells."""
    network = initialize_backbone("c3d", {"norm": "none", "fc": True}, seed=1).eval()
    state = network.state_dict()
    clip = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    cells = torch.rand(1, 512, 2, 7, 7, generator=torch.Generator().manual_seed(0))

    def conv(x: Tensor, name: str) -> Tensor:
        return F.relu(F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))

    with torch.no_grad():
        x = F.max_pool3d(conv(network.normalize(clip), "conv1"), (1, 2, 2))
        x = F.max_pool3d(conv(x, "conv2"), 2)
        x = F.max_pool3d(conv(conv(x, "conv3a"), "conv3b"), 2)
        x = F.max_pool3d(conv(conv(x, "conv4a"), "conv4b"), 2)
        conv5 = conv(conv(x, "conv5a"), "conv5b")
        flat = F.max_pool3d(cells, 2, 2, (0, 1, 1)).flatten(1)
        fc6 = F.relu(F.linear(flat, state["fc6.weight"], state["fc6.bias"]))
        fc7 = F.relu(F.linear(fc6, state["fc7.weight"], state["fc7.bias"]))
        ours = [network.run_stages(network.normalize(clip), ["conv5"])["conv5"], network.run_stage("fc6", cells)]
        ours.append(network.run_stage("fc7", ours[-1]))
    for got, want in zip(ours, (conv5, fc6, fc7), strict=True):
        scale = want.abs().max()
        torch.testing.assert_close(got.flatten() / scale, want.flatten() / scale, atol=1e-5, rtol=0)


def test_a_matrix_slides_over_a_map() -> None:
    layer = LinearOverCells(2, 1, (1, 2, 2))
    with torch.no_grad():
        layer.weight.copy_(torch.arange(8.0)[None])  # of channel, row, column
        layer.bias.fill_(1)
        map_ = torch.zeros(1, 2, 1, 2, 3)
        map_[0, 1, 0, 1, 1] = 10  # the last of the left four cells, the last but one of the right
        assert layer(map_).flatten().tolist() == [71.0, 61.0]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"stride_time": 1}, (8, 2, 2)),
        ({"stride_space": 4}, (1, 8, 8)),
        ({"stride_time": 2, "stride_space": 1}, (4, 32, 32)),
    ],
)
def test_strides_move_no_key(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network, usual = create_backbone("c3d", **options), create_backbone("c3d")
        assert list(network.state_dict()) == list(usual.state_dict())
        assert network(torch.rand(1, 3, 8, 32, 32)).shape == (1, 512, *shape)


def test_wrong_options_and_clips_are_named() -> None:
    with pytest.raises(RecipeError, match=r"c3d: norm \('group'\) must be one of batch, none"):
        create_backbone("c3d", norm="group")
    with pytest.raises(RecipeError, match=r"fc \(True\) needs the strides of the paper"):
        create_backbone("c3d", fc=True, stride_time=4)
    with pytest.raises(RecipeError, match=r"fc \(1\) must be true or false"):
        create_backbone("c3d", fc=1)
    with torch.device("meta"):
        network = create_backbone("c3d", fc=True)
        with pytest.raises(BackboneInputError, match="8 frames; c3d needs at least 9"):
            network(torch.rand(1, 3, 8, 112, 112))
        assert network(torch.rand(1, 3, 9, 81, 81)).shape == (1, 4096, 1, 1, 1)


@pytest.mark.parametrize(("stride_time", "shift", "ends"), [(1, 3, 8), (8, 8, 5)])
def test_a_clip_that_begins_later_gives_the_same_map_later(stride_time: int, shift: int, ends: int) -> None:
    """All filters are shared over time, so that only the padding at the ends of a clip tells when it begins.

    ends: cells that the padding reaches: eight convolutions of 3 frames; with poolings 4 cells of the last map and a part.
    """
    network = initialize_backbone("c3d", {"width": 2, "stride_time": stride_time}).eval()
    cells = 2 * ends + 3
    long = torch.rand(1, 3, cells * stride_time + shift, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, later = network(long), network(long[:, :, shift:])
    moved = shift // stride_time
    inside = slice(ends, later.shape[2] - ends)
    torch.testing.assert_close(later[:, :, inside], whole[:, :, moved:][:, :, inside], atol=1e-6, rtol=1e-4)
    still = slice(ends, whole.shape[2] - ends - moved)
    assert (later[:, :, still] - whole[:, :, still]).abs().max() > 1e-3, "at the same cell it is another map"


def test_fewer_channels_keep_their_ratios_and_no_more_keys() -> None:
    with torch.device("meta"):
        network, usual = create_backbone("c3d", width=8), create_backbone("c3d")
        assert network(torch.rand(1, 3, 8, 32, 32)).shape == (1, 64, 1, 2, 2)
        assert [s.channels for s in network.info.stages] == [s.channels // 8 for s in usual.info.stages]
        assert list(network.state_dict()) == list(usual.state_dict())
    with pytest.raises(RecipeError, match=r"c3d: width \(0\) must be a whole number of at least 1"):
        create_backbone("c3d", width=0)


@pytest.mark.slow
def test_the_paper_s_network_keeps_the_contract() -> None:
    check_backbone("c3d", norm="none", fc=True)
