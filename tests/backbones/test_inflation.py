"""Inflation: a still clip gives an inflated network the map that the picture gives the 2-D network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssvid.backbones import Backbone, create_backbone, inflate_weights, initialize_backbone
from ssvid.backbones.i3d import InflatedConv3d, repeat_ends
from ssvid.errors import CheckpointError


def seasoned(name: str) -> Backbone:
    """A 2-D network whose batch statistics are not the initial ones."""
    network = initialize_backbone(name, seed=4).train()
    with torch.no_grad():
        network(torch.rand(4, 3, 1, 40, 40))
    return network.eval()


def test_a_kernel_by_hand() -> None:
    flat = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    inflated = inflate_weights({"w": flat, "b": torch.ones(1)}, {"w": (1, 1, 4, 2, 2), "b": (1,)})
    assert inflated["w"].shape == (1, 1, 4, 2, 2)
    for t in range(4):
        assert torch.equal(inflated["w"][:, :, t], flat / 4)
    assert torch.equal(inflated["b"], torch.ones(1))


@pytest.fixture(scope="module")
def resnet18() -> Backbone:
    return seasoned("resnet18")


@pytest.mark.parametrize("stride_time", [1, 2, 8])
def test_a_still_clip_gives_the_map_of_the_picture_at_every_time(stride_time: int, resnet18: Backbone) -> None:
    flat = resnet18
    network = create_backbone("i3d_resnet18", stride_time=stride_time).eval()
    network.load_state_dict(inflate_weights(flat.state_dict(), network.state_dict()))
    picture = torch.rand(1, 3, 1, 40, 40)
    names = network.info.stage_names
    with torch.no_grad():
        maps = zip(
            network.info.stages, network(picture.expand(1, 3, 5, 40, 40), names), flat(picture, names), strict=True
        )
        for stage, got, want in maps:
            assert got.shape[2] == -(-5 // stage.stride_time)
            torch.testing.assert_close(got, want.expand_as(got), atol=1e-5, rtol=1e-5)


def test_it_holds_for_bottlenecks_and_for_one_frame() -> None:
    flat = seasoned("resnet50")
    network = create_backbone("i3d_resnet50").eval()
    network.load_state_dict(inflate_weights(flat.state_dict(), network.state_dict()))
    picture = torch.rand(1, 3, 1, 33, 33)
    with torch.no_grad():
        want = flat(picture)
        for num_frames in (1, 4):
            got = network(picture.expand(1, 3, num_frames, 33, 33))
            scale = want.abs().max()
            torch.testing.assert_close(got / scale, want.expand_as(got) / scale, atol=1e-5, rtol=0)


def test_it_sees_motion() -> None:
    """Or the tests above would pass for a network that looks at each frame alone."""
    network = initialize_backbone("i3d_resnet18", {"stride_time": 1}).eval()
    clip = torch.rand(1, 3, 9, 32, 32)
    with torch.no_grad():
        before = network(clip)
        clip[:, :, 8] = 0
        after = network(clip)
    assert not torch.allclose(before[:, :, 4], after[:, :, 4])


def test_which_kernels_span_time() -> None:
    """ResNet-50 as in the code of Non-local networks: 5 frames first, then every second block, in layer1 all."""
    spans = {}
    for name in ("i3d_resnet18", "i3d_resnet50"):
        with torch.device("meta"):
            network = create_backbone(name)
        convolutions = [(k, m) for k, m in network.named_modules() if isinstance(m, nn.Conv3d)]
        spans[name] = {k: m.kernel_size for k, m in convolutions if m.kernel_size[0] > 1}
    one = {f"layer{i}.{b}.conv1": (3, 3, 3) for i in range(1, 5) for b in (0, 1)}
    assert spans["i3d_resnet18"] == {"conv1": (5, 7, 7)} | one
    blocks = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 2), (3, 0), (3, 2), (3, 4), (4, 1)]
    assert spans["i3d_resnet50"] == {"conv1": (5, 7, 7)} | {f"layer{i}.{b}.conv1": (3, 1, 1) for i, b in blocks}


def test_ends_are_repeated_by_hand() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1)
    assert repeat_ends(x, 2).flatten().tolist() == [1, 1, 1, 2, 3, 3, 3]
    assert repeat_ends(x, 0) is x
    flat = nn.Conv2d(1, 1, 1, bias=False)
    convolution = InflatedConv3d(flat, 3, (1, 1))
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1, 1))
    assert convolution(x).flatten().tolist() == [211, 321, 332]


def test_the_classifier_is_left_out_and_the_input_is_untouched() -> None:
    flat = {"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(10, 512)}
    with torch.device("meta"):
        network = create_backbone("i3d_resnet18")
    inflated = inflate_weights(flat, network.state_dict())
    assert list(inflated) == ["conv1.weight"]
    inflated["conv1.weight"].add_(1)
    assert flat["conv1.weight"].eq(1).all()


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"none of the 1 keys .*\(features.0\).* Inflate weights of the same"):
        inflate_weights({"features.0": torch.ones(1)}, {"conv1.weight": (1,)})
    with pytest.raises(
        CheckpointError, match=r"w has shape \(2, 3, 3, 3\) .* and \(4, 3, 3, 3, 3\) in the 3-D network"
    ):
        inflate_weights({"w": torch.ones(2, 3, 3, 3)}, {"w": (4, 3, 3, 3, 3)})
