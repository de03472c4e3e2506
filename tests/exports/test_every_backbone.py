"""One body over every registered network: a map, a gradient, an export, and the same features after reloading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssvid.backbones import Backbone, backbones, initialize_backbone, list_backbones
from ssvid.exports import export, load_backbone
from tests.weights.test_checkpoints import content_of

NAMES = list_backbones()
# Networks of which ONNX holds one clip size alone, and why. One that cannot be written at all fails the test below.
FIXED_SIZE = {"early_fusion": "it takes clips of one length alone"}
# Of the classes of smaller ones.
LARGE = {"c3d", "i3d_resnet18", "i3d_resnet50", "mc3_18", "r2plus1d_18", "resnet50", "s3dg", "timesformer", "vit"}


def small_clip(backbone: Backbone, batch: int = 2) -> torch.Tensor:
    """A clip of a single cell of the last map, or the least that the network takes."""
    info = backbone.info
    last = info.stages[-1]
    side = max(info.min_px, last.stride_space)
    num_frames = max(info.min_frames, last.stride_time)
    return torch.rand(batch, info.in_channels, num_frames, side, side)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES])
def test_forward_gradient_export_reload(name: str, tmp_path: Path) -> None:
    backbone = initialize_backbone(name, seed=2)
    clip = small_clip(backbone)
    with torch.no_grad():
        backbone.train()(clip.repeat(2, 1, 1, 1, 1))  # batch statistics that are not the initial ones
    backbone.eval()
    maps = backbone(clip)
    assert maps.shape[:2] == (2, backbone.info.stages[-1].channels)
    maps.square().mean().backward()
    first = next(backbone.parameters())
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    assert first.grad.abs().max() > 0
    torch.save(content_of(backbone), tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "out", program=False)
    again = load_backbone(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(again.embed(clip), backbone.embed(clip), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not backbones.get(name).torchvision])
def test_networks_that_torchvision_lacks_get_a_program(name: str, tmp_path: Path) -> None:
    torch.save(content_of(initialize_backbone(name, seed=2)), tmp_path / "last.ckpt")
    report = export(tmp_path / "last.ckpt", tmp_path / "out")
    assert report.notes == (), "torch.export took it"
    assert (tmp_path / "out" / "backbone.pt2").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnx_takes_it(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    torch.save(content_of(initialize_backbone(name, seed=2)), tmp_path / "last.ckpt")
    report = export(tmp_path / "last.ckpt", tmp_path / "out.onnx", format="onnx")
    reason = FIXED_SIZE.get(name)
    assert ("clips must be" in report.notes[0]) is (reason is not None), report.notes[0]


def test_the_body_runs_over_every_registered_network() -> None:
    assert len(NAMES) >= 17
    assert NAMES == list_backbones()
