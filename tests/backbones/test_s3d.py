"""S3D against torchvision, an independent oracle; S3D-G by hand: gates, counts, and SpeedNet's time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models.video import S3D_Weights
from torchvision.models.video import s3d as torchvision_s3d

from ssvid.backbones import Backbone, create_backbone, initialize_backbone
from ssvid.backbones.s3d import SelfGating
from ssvid.errors import RecipeError

# Widths of the four branches of each mixed block, as in the paper's code (Inception v1).
BRANCHES = [
    (64, 128, 32, 32),
    (128, 192, 96, 64),
    (192, 208, 48, 64),
    (160, 224, 64, 64),
    (128, 256, 64, 64),
    (112, 288, 64, 64),
    (256, 320, 128, 128),
    (256, 320, 128, 128),
    (384, 384, 128, 128),
]
SPEEDNET = {"conv1_stride_time": 1, "pool4_stride_time": 1, "pool5_stride_time": 1}


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def s3d() -> Backbone:
    return initialize_backbone("s3d").eval()


@pytest.fixture(scope="module")
def s3dg() -> Backbone:
    return initialize_backbone("s3dg").eval()


def test_keys_and_maps_are_torchvisions(s3d: Backbone) -> None:
    oracle = torchvision_s3d(weights=None).eval()
    report = oracle.load_state_dict(s3d.state_dict(), strict=False)
    assert report.missing_keys == ["classifier.1.weight", "classifier.1.bias"]
    assert not report.unexpected_keys

    clip = torch.rand(1, 3, 16, 64, 64)
    steps = S3D_Weights.KINETICS400_V1.transforms()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (steps.mean, steps.std))
    with torch.no_grad():
        got, want = s3d(clip), oracle.features((clip - mean) / std)
    assert want.shape == (1, 1024, 2, 2, 2)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_parameters_are_counted_by_hand(s3d: Backbone, s3dg: Backbone) -> None:
    classifier = 1024 * 400 + 400
    assert count(s3d) + classifier == S3D_Weights.KINETICS400_V1.meta["num_params"] == 8_320_048
    gates = 192**2 + sum(width**2 for branches in BRANCHES for width in branches)
    assert gates == 1_219_328
    assert count(s3dg) == count(s3d) + gates == 9_129_376
    assert [sum(branches) for branches in BRANCHES] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_one_gate_after_each_separable_convolution_and_branch(s3dg: Backbone) -> None:
    paths = [path for path, module in s3dg.named_modules() if isinstance(module, SelfGating)]
    blocks = (5, 6, 8, 9, 10, 11, 12, 14, 15)
    assert paths == ["features.3.gate", *(f"features.{b}.gates.{i}" for b in blocks for i in range(4))]


def test_gate_by_hand() -> None:
    gate = SelfGating(2)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    x = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).view(1, 2, 2, 1, 1)  # means 2 and 3
    first = 1 / (1 + torch.exp(torch.tensor(-3.0)))
    want = torch.stack([x[0, 0] * first, x[0, 1] * 0.5])[None]
    torch.testing.assert_close(gate(x), want)


def test_open_gates_leave_s3d(s3d: Backbone, s3dg: Backbone) -> None:
    """Weights of s3d fill all but the gates, and a gate that lets all through changes nothing."""
    twin = initialize_backbone("s3dg").eval()
    report = twin.load_state_dict(s3d.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert all(".gate" in key for key in report.missing_keys) and len(report.missing_keys) == 37
    clip = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(twin(clip), s3d(clip))
        for module in twin.modules():
            if isinstance(module, SelfGating):
                module.register_forward_hook(lambda module, inputs, output: inputs[0])
        assert torch.equal(twin(clip), s3d(clip))


def test_shapes_and_strides_are_those_of_the_paper(s3dg: Backbone) -> None:
    """64 frames of 224 px give 8 x 7 x 7 cells of 1024 channels (comments in the code of CoCLR)."""
    assert [(s.name, s.channels, s.stride_time, s.stride_space) for s in s3dg.info.stages] == [
        ("conv1", 64, 2, 2),
        ("conv2", 192, 2, 4),
        ("mixed3", 480, 2, 8),
        ("mixed4", 832, 4, 16),
        ("mixed5", 1024, 8, 32),
    ]
    with torch.no_grad(), torch.device("meta"):
        assert create_backbone("s3dg")(torch.rand(1, 3, 64, 224, 224)).shape == (1, 1024, 8, 7, 7)
        assert create_backbone("s3dg", **SPEEDNET)(torch.rand(1, 3, 64, 224, 224)).shape == (1, 1024, 64, 7, 7)


@pytest.mark.parametrize("name", ["s3d", "s3dg"])
@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (SPEEDNET, 9),
        ({"pool4_stride_time": 1, "pool5_stride_time": 1}, 5),
        ({"conv1_stride_time": 1, "pool5_stride_time": 1}, 5),
        ({"pool5_stride_time": 1}, 3),
        ({"pool4_stride_time": 1}, 3),
        ({}, 2),
    ],
)
def test_time_strides_are_options_of_the_network_not_of_the_weights(
    name: str, options: dict[str, Any], frames: int, s3d: Backbone, s3dg: Backbone
) -> None:
    usual = s3d if name == "s3d" else s3dg
    network = create_backbone(name, **options).eval()
    network.load_state_dict(usual.state_dict())
    with torch.no_grad():
        assert network(torch.rand(1, 3, 9, 32, 32)).shape == (1, 1024, frames, 1, 1)
    assert network.info.stages[-1].stride_time == {9: 1, 5: 2, 3: 4, 2: 8}[frames]


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_short_clips_are_taken(num_frames: int, s3d: Backbone) -> None:
    with torch.no_grad():
        map_BCTHW = s3d(torch.rand(1, 3, num_frames, 40, 17))
    assert map_BCTHW.shape == (1, 1024, 1, 2, 1)
    assert map_BCTHW.isfinite().all()


def test_batch_statistics_follow_within_a_short_run(s3d: Backbone) -> None:
    norms = [m for m in s3d.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.1, 0.001)}


def test_wrong_strides_are_named() -> None:
    with pytest.raises(RecipeError, match=r"backbone s3dg: pool4_stride_time \(4\) must be one of 1, 2"):
        create_backbone("s3dg", pool4_stride_time=4)
