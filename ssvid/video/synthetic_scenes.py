"""Scenes whose layers are known, each as one thing: a video, masks, layers with their effects, what stands behind, points that stick.

Two sorts: round walkers with shadows (``ssvid.video.synthetic_effects``), and bodies that turn, grow and bend before a ground that pans
(``ssvid.video.synthetic_layers``). Units: px of the frame, x to the right, y down, pixel centers at whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ssvid.errors import DataError, did_you_mean
from ssvid.video.synthetic_effects import EffectScene, over, walkers
from ssvid.video.synthetic_layers import LayeredScene, draw_layered_scene, pixels_of, render_layers

_POINTS_PER_OBJECT, _GROUND_POINTS = 8, 16
_SURE = 0.99  # how much of an object is seen where its points lie
_TRAVEL, _PAN = 70 / 96, 44 / 96  # how far walkers and the camera go, in widths of the frame
_BENDING_PX = 2.0
_BODIES = ("body", "other")

Size = tuple[int, int]


class Placed(Protocol):
    """Where the points of each layer are, in px of the layer itself and of the frame. Layers are objects, that in front first, then the ground."""

    def to_frame(self, layer: int, canonical_N2: np.ndarray, time: int) -> np.ndarray:
        """Where points of a layer are seen in a frame."""

    def to_canonical(self, layer: int, xy_N2: np.ndarray, time: int) -> np.ndarray:
        """Which points of a layer are at places of a frame."""

    def opacity(self, body: int, xy_N2: np.ndarray, time: int) -> np.ndarray:
        """Alpha of an object, without its effects, at places of a frame, (N,)."""


@dataclass(frozen=True)
class StuckPoints:
    """Points that stick to what is seen: correspondences through the known maps.

    xy_TP2: float64. visible_TP: inside the frame, and no object hides it; shadows do not. owner_P: number of the object, that in front is 0; -1
    is the ground.
    """

    xy_TP2: np.ndarray
    visible_TP: np.ndarray
    owner_P: np.ndarray


@dataclass(frozen=True)
class KnownScene:
    """A video, and all that is known of it. names: of N objects, that in front first, as everywhere here.

    frames_THWC: uint8. masks_NTHW: bool, what is seen of each object without its effects. layers_NTHW4: float32 in [0, 1], each object by itself
    with its effects, colors not multiplied by alpha. background_THWC: float32, what stands behind.
    """

    names: tuple[str, ...]
    frames_THWC: np.ndarray
    masks_NTHW: np.ndarray
    layers_NTHW4: np.ndarray
    background_THWC: np.ndarray
    points: StuckPoints

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames_THWC)

    def ids(self) -> np.ndarray:
        """Which object is seen at each pixel, uint8 THW: 0 is none, 1 that in front."""
        numbers_N111 = np.arange(1, len(self.names) + 1, dtype=np.uint8).reshape(-1, 1, 1, 1)
        return np.asarray((self.masks_NTHW * numbers_N111).max(axis=0))

    def without(self, *names: str) -> np.ndarray:
        """The scene without some objects and their effects, float32 THWC."""
        pictures_THWC = self.background_THWC
        for name, layer_THW4 in reversed(list(zip(self.names, self.layers_NTHW4, strict=True))):
            if name not in names:
                pictures_THWC = over(pictures_THWC, layer_THW4)
        return pictures_THWC


def draw_known_scene(kind: str, seed: int, *, num_frames: int = 20, size: Size | None = None) -> KnownScene:
    """Draw one of the ``SCENES``; the same seed, the same scene.

    Args:
        size: height and width; None is 64 x 96 of walkers, 72 x 128 of bodies.

    Raises:
        DataError: there is no such kind.
    """
    if kind not in SCENES:
        raise DataError(f"kind ({kind!r}) is no scene. {did_you_mean(kind, SCENES)}")
    return _DRAWN_BY[kind](seed, num_frames, size)


def _walkers(seed: int, num_frames: int, size: Size | None, *, num_objects: int, pans: bool = False) -> KnownScene:
    height, width = size or (64, 96)
    scene = walkers(
        seed,
        num_objects=num_objects,
        num_frames=num_frames,
        travel_px=_TRAVEL * width,
        pan_px=_PAN * width if pans else 0.0,
        size=(height, width),
    )
    return known_effects(scene)


def known_effects(scene: EffectScene) -> KnownScene:
    """All that is known of a scene with effects."""
    layers = [[scene.layer(actor, t, t) for t in range(scene.num_frames)] for actor in scene.actors]
    points = _points(scene, len(scene.actors), scene.num_frames, (scene.height, scene.width), scene.seed)
    return KnownScene(scene.names, scene.frames(), scene.masks(), np.array(layers), scene.background(), points)


def _bodies(seed: int, num_frames: int, size: Size | None, *, bending_px: float = 0.0) -> KnownScene:
    height, width = size or (72, 128)
    scene = draw_layered_scene(
        seed, num_bodies=2, bending_px=bending_px, height=height, width=width, num_frames=num_frames
    )
    drawn, num_bodies = render_layers(scene), len(scene.bodies)
    ground_THW = np.ones((num_frames, height, width))
    layers = [_seen(scene, number, alpha_THW) for number, alpha_THW in enumerate(drawn.alphas_NTHW)]
    points = _points(scene, num_bodies, num_frames, (height, width), seed)
    background_THWC = _seen(scene, num_bodies, ground_THW)[..., :3]
    return KnownScene(_BODIES, drawn.frames_THWC, drawn.masks(), np.stack(layers), background_THWC, points)


def _seen(scene: LayeredScene, layer: int, alpha_THW: np.ndarray) -> np.ndarray:
    """A layer by itself, float32 THW4, black where its alpha is 0."""
    pixels_P2 = pixels_of(scene.height, scene.width)
    found_TP4 = np.zeros((len(alpha_THW), len(pixels_P2), 4), np.float32)
    for t, alpha_P in enumerate(alpha_THW.reshape(len(alpha_THW), -1)):
        there_P = alpha_P > 0
        found_TP4[t, :, 3] = alpha_P
        found_TP4[t, there_P, :3] = scene.color(layer, scene.to_canonical(layer, pixels_P2[there_P], t))
    return found_TP4.reshape(*alpha_THW.shape, 4)


def _points(scene: Placed, num_objects: int, num_frames: int, size: Size, seed: int) -> StuckPoints:
    """Points drawn on each object and on the ground in the middle frame, in all frames."""
    rng, (height, width), middle = np.random.default_rng([seed, 21]), size, num_frames // 2
    pixels_P2, starts = pixels_of(height, width), []
    for number in range(num_objects):
        own_P2 = pixels_P2[scene.opacity(number, pixels_P2, middle) > _SURE]
        starts.append(own_P2[rng.integers(0, len(own_P2), _POINTS_PER_OBJECT)])
    starts.append(rng.uniform(0, [width - 1, height - 1], (_GROUND_POINTS, 2)))
    ways = []
    for layer, start_N2 in enumerate(starts):
        canonical_N2 = scene.to_canonical(layer, start_N2, middle)
        ways.append(np.stack([scene.to_frame(layer, canonical_N2, t) for t in range(num_frames)]))
    xy_TP2 = np.concatenate(ways, axis=1)
    owner_P = np.repeat([*range(num_objects), -1], [len(start) for start in starts])
    nearest_TP2 = np.rint(xy_TP2)
    inside_TP = ((nearest_TP2 >= 0) & (nearest_TP2 < (width, height))).all(axis=2)
    return StuckPoints(xy_TP2, inside_TP & ~_hidden(scene, xy_TP2, owner_P, num_objects), owner_P)


def _hidden(scene: Placed, xy_TP2: np.ndarray, owner_P: np.ndarray, num_objects: int) -> np.ndarray:
    """Whether an object in front of its own is seen in the place of a point: bool TP."""
    hidden_TP = np.zeros(xy_TP2.shape[:2], bool)
    for number in range(num_objects):
        behind_P = (owner_P > number) | (owner_P == -1)
        opacity_TP = np.stack([scene.opacity(number, xy_P2, t) for t, xy_P2 in enumerate(xy_TP2)])
        hidden_TP |= (opacity_TP > 0.5) & behind_P
    return hidden_TP


# Two walkers with shadows, one, one while the camera pans; two bodies that turn and grow, the same with waves through them.
_DRAWN_BY: Mapping[str, Callable[[int, int, Size | None], KnownScene]] = MappingProxyType(
    {
        "walkers": partial(_walkers, num_objects=2),
        "walker": partial(_walkers, num_objects=1),
        "panning": partial(_walkers, num_objects=1, pans=True),
        "bodies": _bodies,
        "bending": partial(_bodies, bending_px=_BENDING_PX),
    }
)
SCENES = tuple(_DRAWN_BY)
