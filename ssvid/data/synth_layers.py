"""Synthetic videos whose layers are known: truth that evaluations read, and the layers as pictures beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssvid.files import write_pictures
from ssvid.video.synthetic_effects import to_bytes
from ssvid.video.synthetic_scenes import KnownScene


def layer_seed(*address: int) -> int:
    """One number for an address of several, such as seed, split and index."""
    low, high = np.random.SeedSequence(address).generate_state(2, np.uint64)
    return int(high) << 64 | int(low)


def truth_arrays(scene: KnownScene) -> dict[str, Any]:
    """What ``ssvid.data.truth`` reads of an ``.npz``: masks as bits, points and where they are seen; and which object each point is of."""
    return {
        "masks": np.packbits(scene.masks_NTHW, axis=-1),
        "tracks": scene.points.xy_TP2.astype(np.float32),
        "visible": scene.points.visible_TP,
        "point_owner": scene.points.owner_P,
    }


def write_layers(folder: Path, scene: KnownScene) -> None:
    """Pictures of what is known, a folder for each: ``NAME``, an object with its effects as RGBA, colors not multiplied by alpha;
    ``without_NAME``, the scene without them; ``background``, what stands behind all objects.
    """
    write_pictures(folder / "background", to_bytes(scene.background_THWC))
    for name, layer_THW4 in zip(scene.names, scene.layers_NTHW4, strict=True):
        write_pictures(folder / f"without_{name}", to_bytes(scene.without(name)))
        write_pictures(folder / name, to_bytes(layer_THW4))
