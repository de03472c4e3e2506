"""ssvid: pretrain video backbones without labels, tell honestly what they are worth, hand them to the next project.

Importing this package does not import torch: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "pretrain": "ssvid.programs.pretrain",
    "probe": "ssvid.programs.probe",
    "finetune": "ssvid.programs.finetune",
    "retrieve": "ssvid.programs.retrieve",
    "track": "ssvid.programs.track",
    "track_video": "ssvid.programs.track_video",
    "Footage": "ssvid.programs.footage",
    "evaluate": "ssvid.programs.evaluate",
    "report": "ssvid.programs.report",
    "embed": "ssvid.programs.embed",
    "audit": "ssvid.programs.audit",
    "speed": "ssvid.programs.speed",
    "speed_curve": "ssvid.programs.speed_curves",
    "speed_up": "ssvid.programs.speed_curves",
    "fit_layers": "ssvid.programs.layers_fit",
    "resume_layers": "ssvid.programs.layers_fit",
    "preview_masks": "ssvid.programs.layers_fit",
    "edit_layers": "ssvid.programs.layers_edit",
    "compose_layers": "ssvid.programs.layers_compose",
    "explain_layers": "ssvid.programs.layers_why",
    "LayerFootage": "ssvid.programs.layers_footage",
    "LayerSettings": "ssvid.programs.layers_fit",
    "Composition": "ssvid.programs.layers_compose",
    "Edits": "ssvid.programs.layers_edit",
    "diff": "ssvid.programs.diff",
    "show": "ssvid.programs.show",
    "demo": "ssvid.programs.demo",
    "export": "ssvid.exports",
    "load_backbone": "ssvid.exports",
    "from_pretrained": "ssvid.exports",
    "push_to_hub": "ssvid.exports",
    "create_backbone": "ssvid.backbones",
    "list_backbones": "ssvid.backbones",
    "list_tasks": "ssvid.tasks",
    "list_recipes": "ssvid.recipe.find",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ssvid' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
