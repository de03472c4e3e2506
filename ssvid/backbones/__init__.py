"""Networks without heads, behind one contract. Every file here is a plug-in, and imported when a network is asked for.

A stranger's package adds its own through the entry points ``ssvid.backbones``.
"""

from ssvid.backbones.contract import (
    POOLS,
    Backbone,
    BackboneInfo,
    BackboneInputError,
    StageInfo,
    backbones,
    convert_to_channels_last_3d,
    create_backbone,
    initialize_backbone,
    list_backbones,
    pool_map,
    register_backbone,
)
from ssvid.backbones.inflation import inflate_weights
from ssvid.backbones.per_frame import PerFrameBackbone

__all__ = [
    "POOLS",
    "Backbone",
    "BackboneInfo",
    "BackboneInputError",
    "PerFrameBackbone",
    "StageInfo",
    "backbones",
    "convert_to_channels_last_3d",
    "create_backbone",
    "inflate_weights",
    "initialize_backbone",
    "list_backbones",
    "pool_map",
    "register_backbone",
]
