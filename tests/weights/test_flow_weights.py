"""Weights of pictures for networks that see flow: by the mean over colors where that is asked for, else refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.errors import CheckpointError
from ssvid.exports import initialize


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights of a network that sees pictures, as another program leaves them."""
    state = initialize_backbone("tiny3d", {"width": 2}, seed=5).state_dict()
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth", state


def test_they_are_refused_unasked_and_the_advice_works(pictures: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state = pictures
    network = initialize_backbone("tiny3d", {"width": 2, "in_channels": 2}, seed=0)
    with pytest.raises(CheckpointError, match=r"stage1.0.weight.*over the colors, for flow, with init_inflate=true"):
        initialize(network, path)
    report = initialize(network, path, inflate=True)
    assert report.averaged == ("stage1.0.weight",)
    assert report.fits and not report.is_partial
    assert "averaged" in str(report)
    own = network.state_dict()
    mean = state["stage1.0.weight"].mean(dim=1)
    for channel in range(2):
        assert torch.equal(own["stage1.0.weight"][:, channel], mean)
    assert torch.equal(own["stage4.0.weight"], state["stage4.0.weight"])


def test_an_inflated_network_takes_them_unasked(hub_cache) -> None:
    state = hub_cache("resnet18", "IMAGENET1K_V1")
    network = initialize_backbone("i3d_resnet18", {"in_channels": 2}, seed=0)
    report = initialize(network, "torchvision:IMAGENET1K_V1")
    assert report.averaged == ("conv1.weight",) and "conv1.weight" in report.inflated
    kernel = network.state_dict()["conv1.weight"]
    mean = state["conv1.weight"].mean(dim=1)
    assert torch.allclose(kernel.sum(dim=2), mean[:, None].expand(-1, 2, -1, -1), atol=1e-6)
    assert torch.allclose(kernel[:, 0, 0], mean / kernel.shape[2], atol=1e-6)
