"""Hand a backbone to the next project, and take one back: ``export`` and ``load_backbone``.

An export is a folder: ``backbone.safetensors``, ``config.json`` (data, never code), ``content_ids.json`` (which videos were
seen), ``README.md`` (model card) and, for networks that torchvision has no class for, ``backbone.pt2``.
"""

from ssvid.exports.loading import load_backbone, read_weights
from ssvid.exports.writing import ExportReport, export

__all__ = ["ExportReport", "export", "load_backbone", "read_weights"]
