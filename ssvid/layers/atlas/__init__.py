"""A VIDEO → ATLASES: pictures of an object and of the background that all frames are looked up in, so that an edit of one sticks to all."""

from ssvid.layers.atlas.config import FAST, PRESETS, PUBLISHED, AtlasConfig, LossWeights
from ssvid.layers.atlas.fitting import fit_atlas
from ssvid.layers.atlas.model import AtlasModel

__all__ = ["FAST", "PRESETS", "PUBLISHED", "AtlasConfig", "AtlasModel", "LossWeights", "fit_atlas"]
