"""The README.md of an export: what the weights are, what they saw, what is known of them, how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.templates import render


def model_card(config: Mapping[str, Any], info: BackboneInfo, *, torchvision: Backbone | None = None) -> str:
    """The text of the card, from ``config.json``. torchvision: the network, if torchvision builds the very same one."""
    provenance = config["provenance"]
    title = info.name
    if provenance["task"]:
        title += f", pretrained without labels by {provenance['task']['name']}"
    elif provenance.get("init"):
        title += f", weights of {provenance['init']['from']}"
    return render(
        "model_card.md",
        config=config,
        info=info,
        provenance=provenance,
        stage=info.stage(config["stage"]),
        title=title,
        torchvision=torchvision,
    )
