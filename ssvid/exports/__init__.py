"""Hand a backbone to the next project, and take one back: ``export`` and ``load_backbone``.

An export is a folder: ``backbone.safetensors``, ``config.json`` (data, never code), ``content_ids.json`` (which videos were
seen), ``README.md`` (model card) and, for networks that torchvision has no class for, ``backbone.pt2``.
"""

from ssvid.exports.publishing import from_pretrained, push_to_hub
from ssvid.exports.writing import ExportReport, export
from ssvid.weights.initializing import InitReport, initialize
from ssvid.weights.loading import load_backbone, read_weights

__all__ = [
    "ExportReport",
    "InitReport",
    "export",
    "from_pretrained",
    "initialize",
    "load_backbone",
    "push_to_hub",
    "read_weights",
]
