"""3-D ResNets against torchvision, an independent oracle: same keys, same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torchvision.models.video import R3D_18_Weights

from ssvid.backbones import create_backbone

NAMES = ("r3d_18", "mc3_18", "r2plus1d_18")


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_maps_are_torchvisions(name: str) -> None:
    oracle = getattr(torchvision.models.video, name)(weights=None).eval()
    network = create_backbone(name).eval()
    report = network.load_state_dict(oracle.state_dict(), strict=False)
    assert not report.missing_keys
    assert report.unexpected_keys == ["fc.weight", "fc.bias"]

    clip = torch.rand(1, 3, 5, 24, 24)
    steps = R3D_18_Weights.KINETICS400_V1.transforms()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (steps.mean, steps.std))
    x = (clip - mean) / std
    names = network.info.stage_names
    with torch.no_grad():
        for stage, got in zip(names, network(clip, names), strict=True):
            x = oracle.get_submodule(stage)(x)
            torch.testing.assert_close(got, x, atol=1e-6, rtol=1e-5)
        pooled = oracle.avgpool(x).flatten(1)
    torch.testing.assert_close(network.embed(clip), pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("r3d_18", {"stride_time": 1}, (1, 512, 8, 2, 2)),
        ("r3d_18", {"stride_time": 4, "stride_space": 8}, (1, 512, 2, 4, 4)),
        ("mc3_18", {}, (1, 512, 8, 2, 2)),
        ("mc3_18", {"stride_time": 4, "stride_space": 8}, (1, 512, 2, 4, 4)),
        ("r2plus1d_18", {"stride_time": 4, "stride_space": 8}, (1, 512, 2, 4, 4)),
        ("r2plus1d_18", {"stride_time": 1}, (1, 512, 8, 2, 2)),
    ],
)
def test_strides_are_options_of_the_network_not_of_the_weights(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        network, usual = create_backbone(name, **options), create_backbone(name)
        assert {k: v.shape for k, v in network.state_dict().items()} == {
            k: v.shape for k, v in usual.state_dict().items()
        }
        assert network(torch.rand(1, 3, 8, 32, 32)).shape == shape
    last = network.info.stages[-1]
    assert (8 / last.stride_time, 32 / last.stride_space) == (shape[2], shape[3])


def test_one_frame_and_odd_sizes_are_taken() -> None:
    network = create_backbone("r3d_18").eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 1, 33, 17)).shape == (1, 512, 1, 3, 2)
        assert network(torch.rand(1, 3, 1, 1, 1)).shape == (1, 512, 1, 1, 1)
