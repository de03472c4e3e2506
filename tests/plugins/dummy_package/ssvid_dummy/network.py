"""A network of two convolutions."""

from __future__ import annotations

from torch import nn

from ssvid.backbones import Backbone, BackboneInfo, StageInfo, register_backbone


@register_backbone("dummy_net")
class DummyNet(Backbone):
    """Two convolutions.

    Args:
        width: channels of the first; the second has twice as many.
    """

    def __init__(self, *, width: int = 4) -> None:
        stages = (StageInfo("shallow", width, 4, 1), StageInfo("deep", 2 * width, 8, 2))
        super().__init__(BackboneInfo("dummy_net", stages, size=32, options={"width": width}))
        self.shallow = nn.Sequential(nn.Conv3d(3, width, 3, (1, 4, 4), 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv3d(width, 2 * width, 3, (2, 2, 2), 1), nn.ReLU())
