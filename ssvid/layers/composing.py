"""Layers put together again: without an object, over another background, with a picture between them, twice, with a trail.

All is on arrays: backgrounds uint8 (T, H, W, 3), layers in a list with that in the back first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssvid.errors import DataError, did_you_mean
from ssvid.layers.motion import Canvas
from ssvid.layers.time_maps import lasting
from ssvid.video.optical_flow import one_thread, require_opencv, resized

BACKGROUND = "background"
_GRAY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


@dataclass(frozen=True)
class Layer:
    """An object with its effects in each frame: rgba_THW4 uint8, colors not multiplied by alpha."""

    name: str
    rgba_THW4: np.ndarray

    def __post_init__(self) -> None:
        if self.rgba_THW4.ndim != 4 or self.rgba_THW4.shape[3] != 4 or self.rgba_THW4.dtype != np.uint8:
            raise DataError(
                f"layer {self.name} has shape {self.rgba_THW4.shape} and type {self.rgba_THW4.dtype}; it must be uint8 (T, H, W, 4)."
            )


def composite(background_THWC: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """Layers over a background, that in the back first: uint8 THWC.

    Raises:
        DataError: a layer has other frames or another size.
    """
    for layer in layers:
        if layer.rgba_THW4.shape[:3] != background_THWC.shape[:3]:
            raise DataError(
                f"layer {layer.name} is of (frames, height, width) {layer.rgba_THW4.shape[:3]}, and the background of "
                f"{background_THWC.shape[:3]}; they must be the same."
            )
    pictures = [
        _over(behind_HWC, [layer.rgba_THW4[t] for layer in layers]) for t, behind_HWC in enumerate(background_THWC)
    ]
    return np.stack(pictures)


def _over(behind_HWC: np.ndarray, layers_HW4: Sequence[np.ndarray]) -> np.ndarray:
    picture_HWC = behind_HWC.astype(np.float32)
    for layer_HW4 in layers_HW4:
        alpha_HW1 = layer_HW4[..., 3:].astype(np.float32) / 255
        picture_HWC = alpha_HW1 * layer_HW4[..., :3] + (1 - alpha_HW1) * picture_HWC
    return picture_HWC.round().clip(0, 255).astype(np.uint8)


def find_layer(layers: Sequence[Layer], name: str) -> Layer:
    """The layer of that name.

    Raises:
        DataError: there is none.
    """
    for layer in layers:
        if layer.name == name:
            return layer
    raise DataError(f"there is no layer {name!r}. {did_you_mean(name, [layer.name for layer in layers])}")


def dropped(layers: Sequence[Layer], name: str) -> list[Layer]:
    """All layers but one: an object disappears with its shadow.

    Raises:
        DataError: there is no such layer.
    """
    gone = find_layer(layers, name)
    return [layer for layer in layers if layer is not gone]


def as_background(picture_HWC: np.ndarray, num_frames: int, height: int, width: int) -> np.ndarray:
    """A picture of any size as a still background, THWC: as large as needed to cover the frame, what stands out on both sides cut off."""
    own_height, own_width = picture_HWC.shape[:2]
    scale = max(height / own_height, width / own_width)
    tall, wide = max(height, round(own_height * scale)), max(width, round(own_width * scale))
    top, left = (tall - height) // 2, (wide - width) // 2
    covering = resized(picture_HWC, tall, wide)[top : top + height, left : left + width]
    return np.repeat(covering[None], num_frames, axis=0)


def grayed(pictures_THWC: np.ndarray) -> np.ndarray:
    """Pictures without color, as bright as they were: as a background, what is in front pops out in color."""
    luma = (pictures_THWC @ np.array(_GRAY, np.float32)).round().clip(0, 255).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=3)


def standing(
    picture_HW4: np.ndarray, corner_px: tuple[float, float], canvas: Canvas, frame: int, size: tuple[int, int]
) -> Layer:
    """A picture that lies on the ground as if it had been there: in the back of all layers, shadows fall on it.

    Args:
        picture_HW4: RGBA uint8. corner_px: x, y of its upper left corner in ``frame``. canvas: where the frames lie on the background; it
            says what the camera does. size: height and width of the frames.
    """
    cv2: Any = require_opencv()
    height, width = size
    shift = np.array([[1, 0, corner_px[0]], [0, 1, corner_px[1]], [0, 0, 1.0]])
    to_canvas = canvas.to_canvas_T33[frame] @ shift
    placed = [_moved(cv2, picture_HW4, np.linalg.inv(own) @ to_canvas, height, width) for own in canvas.to_canvas_T33]
    return Layer("picture", np.stack(placed))


def cloned(layer: Layer, name: str, offset_px: tuple[float, float]) -> Layer:
    """The same object once more, so many px to the right and down."""
    cv2: Any = require_opencv()
    height, width = layer.rgba_THW4.shape[1:3]
    shift = np.array([[1, 0, offset_px[0]], [0, 1, offset_px[1]], [0, 0, 1.0]])
    return Layer(name, np.stack([_moved(cv2, one, shift, height, width) for one in layer.rgba_THW4]))


def faded(layer: Layer, share: float) -> Layer:
    """The layer with its alpha times ``share``."""
    rgba_THW4 = layer.rgba_THW4.copy()
    rgba_THW4[..., 3] = (rgba_THW4[..., 3] * share).round().clip(0, 255).astype(np.uint8)
    return replace(layer, rgba_THW4=rgba_THW4)


def retimed(
    layer: Layer, frames_N: np.ndarray, canvas: Canvas | None = None, views_N: np.ndarray | None = None
) -> Layer:
    """The object in other frames: picture n shows it as it was in frame ``frames_N[n]``, where it was in the world.

    Lu et al., *Layered Neural Rendering for Retiming People in Video* (SIGGRAPH Asia 2020), section 3.5.

    Args:
        frames_N: of the layer, -1 for not there; see ``ssvid.layers.time_maps``. canvas: where the frames lie on the background, if the camera
            moves. views_N: the frame from whose camera each picture is seen; None is frame n, the last one after the end.
    """
    cv2: Any = require_opencv()
    num_frames, height, width = layer.rgba_THW4.shape[:3]
    if views_N is None:
        views_N = lasting(np.arange(num_frames), len(frames_N))
    pictures = []
    for frame, view in zip(frames_N, views_N, strict=True):
        if frame < 0:
            pictures.append(np.zeros((height, width, 4), np.uint8))
        elif canvas is None or frame == view:
            pictures.append(layer.rgba_THW4[frame])
        else:
            there = np.linalg.inv(canvas.to_canvas_T33[view]) @ canvas.to_canvas_T33[frame]
            pictures.append(_moved(cv2, layer.rgba_THW4[frame], there, height, width))
    return replace(layer, rgba_THW4=np.stack(pictures))


def played(
    background_THWC: np.ndarray,
    layers: Sequence[Layer],
    maps: Mapping[str, np.ndarray],
    canvas: Canvas | None = None,
) -> np.ndarray:
    """The video with a time of its own for each layer: as many pictures as the longest map has, uint8 NHWC.

    Args:
        maps: of ``ssvid.layers.time_maps``, by the names of layers, and ``background``, whose map moves the camera. What has no map keeps
            its own time, and what ends earlier holds its last frame. canvas: as of ``retimed``.

    Raises:
        DataError: there is no such layer, or the background is not there in some picture.
    """
    for name in maps:
        if name != BACKGROUND:
            find_layer(layers, name)
    own_T = np.arange(len(background_THWC))
    num_pictures = max((len(frames_N) for frames_N in maps.values()), default=len(own_T))
    full = {
        name: lasting(maps.get(name, own_T), num_pictures) for name in (BACKGROUND, *(layer.name for layer in layers))
    }
    views_N = full[BACKGROUND]
    if (views_N < 0).any():
        raise DataError(
            f"the time of the background leaves it out of picture {int(np.argmax(views_N < 0))}. A background is always there: take none "
            "out of its time, or lay the layers over another one."
        )
    return composite(background_THWC[views_N], [retimed(layer, full[layer.name], canvas, views_N) for layer in layers])


def trail(
    layer: Layer, every_frames: int, num_copies: int, *, fade: float = 0.6, canvas: Canvas | None = None
) -> list[Layer]:
    """The object as it was some frames ago, several times, the earlier the fainter and the farther back; then the object itself.

    Args:
        every_frames: from one copy to the one before. fade: share of alpha that each keeps of the next one's. canvas: as of ``retimed``.
    """
    now_T = np.arange(len(layer.rgba_THW4))
    copies = []
    for number in range(num_copies, 0, -1):
        before_T = np.maximum(now_T - number * every_frames, -1)
        copy = faded(retimed(layer, before_T, canvas), fade**number)
        copies.append(replace(copy, name=f"{layer.name}, {number * every_frames} frames ago"))
    return [*copies, layer]


def _moved(cv2: Any, picture_HW4: np.ndarray, matrix_33: np.ndarray, height: int, width: int) -> np.ndarray:
    """RGBA at another place; colors weighed by alpha, so that edges keep theirs."""
    weighed = picture_HW4.astype(np.float32)
    weighed[..., :3] *= weighed[..., 3:] / 255
    with one_thread(cv2):
        moved = cv2.warpPerspective(weighed, matrix_33, (width, height), flags=cv2.INTER_LINEAR)
    alpha_HW1 = moved[..., 3:]
    colors = np.divide(255 * moved[..., :3], alpha_HW1, out=np.zeros_like(moved[..., :3]), where=alpha_HW1 > 0.5)
    return np.concatenate([colors, alpha_HW1], axis=2).round().clip(0, 255).astype(np.uint8)
