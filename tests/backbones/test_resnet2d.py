"""2-D ResNets against torchvision, an independent oracle; per frame; padding and strides as options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ResNet18_Weights

from ssvid.backbones import BackboneInputError, create_backbone, initialize_backbone
from ssvid.errors import RecipeError


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_keys_and_maps_are_torchvisions_on_each_frame(name: str) -> None:
    network = initialize_backbone(name).eval()
    oracle = getattr(torchvision.models, name)(weights=None).eval()
    report = oracle.load_state_dict(network.state_dict(), strict=False)
    assert (report.missing_keys, report.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    oracle.fc = nn.Identity()
    clip = torch.rand(2, 3, 2, 33, 40)
    steps = ResNet18_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (steps.mean, steps.std))
    with torch.no_grad():
        map_BCTHW = network(clip)
        for b in range(2):
            for t in range(2):
                want = oracle((clip[b : b + 1, :, t] - mean) / std)
                got = map_BCTHW[b : b + 1, :, t].mean((2, 3))
                scale = want.abs().max()  # untrained bottlenecks have maps far above 1
                torch.testing.assert_close(got / scale, want / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stride", "cells"), [(32, 2), (16, 4), (8, 8)])
def test_stride_is_an_option_of_the_network_not_of_the_weights(stride: int, cells: int) -> None:
    usual = initialize_backbone("resnet18").eval()
    network = create_backbone("resnet18", stride_space=stride).eval()
    network.load_state_dict(usual.state_dict())
    clip = torch.rand(1, 3, 2, 64, 64)
    with torch.no_grad():
        assert network(clip).shape == (1, 512, 2, cells, cells)
        assert torch.equal(network(clip, "layer2"), usual(clip, "layer2")), "shallow stages keep their strides"
    assert network.info.stage().stride_space == stride


def test_stride_8_of_layer3_is_that_of_timecycle() -> None:
    """240 px give 30 x 30 cells of 1024 channels, and 80 px give 10 x 10."""
    with torch.device("meta"):
        network = create_backbone("resnet50", stride_space=8)
        assert network(torch.rand(1, 3, 4, 240, 240), "layer3").shape == (1, 1024, 4, 30, 30)
        assert network(torch.rand(1, 3, 1, 80, 80), "layer3").shape == (1, 1024, 1, 10, 10)


def test_no_dilation_takes_the_place_of_strides() -> None:
    network = create_backbone("resnet50", stride_space=8)
    assert {m.dilation for m in network.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_reflect_padding_by_hand() -> None:
    """The first convolution on the reflected picture, padded by hand."""
    network = initialize_backbone("resnet18", {"padding": "reflect"}).eval()
    assert list(network.state_dict()) == list(create_backbone("resnet18").state_dict())
    convolution = network.get_submodule("conv1")
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    order = [3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4]
    want = nn.functional.conv2d(x[:, :, order][:, :, :, order], convolution.weight, stride=2)  # type: ignore[arg-type]
    torch.testing.assert_close(convolution(x), want)
    modes = {m.padding_mode for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)}
    assert modes == {"reflect"}


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_least_size_for_reflection_is_the_least_that_works(stride: int) -> None:
    network = create_backbone("resnet18", stride_space=stride, padding="reflect").eval()
    least = network.info.min_px
    assert least == stride + 1
    with torch.no_grad():
        assert network(torch.rand(1, 3, 1, least, least)).isfinite().all()
        with pytest.raises(BackboneInputError, match=f"needs at least {least}"):
            network(torch.rand(1, 3, 1, least - 1, least))
        network.info = dataclasses.replace(network.info, min_px=1)
        with pytest.raises(RuntimeError, match=r"[Pp]adding size"):
            network(torch.rand(1, 3, 1, stride, stride))


@pytest.mark.parametrize("make", [lambda v: {"padding": v}, lambda v: {"stride_space": v}])
def test_wrong_options_are_named(make: Callable[[str], dict[str, str]]) -> None:
    with pytest.raises(
        RecipeError, match=r"backbone resnet18: (padding|stride_space) \('mirror'\) must be one of (8|zeros)"
    ):
        create_backbone("resnet18", **make("mirror"))
