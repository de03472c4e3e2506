"""Shadows as thin as they can be."""

from __future__ import annotations

import numpy as np


def tightened(layer_HW4: np.ndarray, behind_HWC: np.ndarray, sure_HW: np.ndarray) -> np.ndarray:
    """The layer with the smallest alpha that gives the same picture over its background, but for where it is sure.

    A shadow may be fitted as an opaque patch in the color of the shaded ground; over another ground it would show. Of all colors and alphas
    with a x color + (1 - a) x behind = the same picture, that with the smallest alpha has a channel at 0 or at 1:
    a = max over channels of (behind - picture) / behind where it is darker, (picture - behind) / (1 - behind) where it is brighter.

    Args:
        layer_HW4: RGBA in [0, 1], not multiplied; any leading axes. behind_HWC: colors in [0, 1]. sure_HW: bool, where nothing changes.
    """
    colors, alpha = layer_HW4[..., :3], layer_HW4[..., 3:]
    change = alpha * (colors - behind_HWC)  # of the picture, by the layer
    room = np.where(change < 0, behind_HWC, 1 - behind_HWC)
    smallest = np.divide(np.abs(change), room, out=np.zeros_like(change), where=room > 0).max(axis=-1, keepdims=True)
    least = np.minimum(smallest, alpha)
    thin = behind_HWC + np.divide(change, least, out=np.zeros_like(change), where=least > 0)
    found = np.concatenate([thin.clip(0, 1), least], axis=-1)
    return np.where(sure_HW[..., None], layer_HW4, found).astype(layer_HW4.dtype)
