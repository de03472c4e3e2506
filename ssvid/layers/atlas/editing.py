"""Edits of atlases, brought to the frames as they were filmed, in their full size; and pictures made into edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ssvid.errors import DataError
from ssvid.layers.atlas.model import AtlasModel
from ssvid.layers.atlas.pictures import sampled, to_bytes
from ssvid.video.optical_flow import one_thread, require_opencv, resized

_SAME_LEVELS = 2  # what saving a picture again may change
_COVERED = 0.5
_NOT_SEEN = 0.1  # a layer that is seen by less is not seen, and one by as much less than 1 is seen as a whole


def apply_edit(
    frames_THWC: np.ndarray, model: AtlasModel, name: str, exported_HW4: np.ndarray, painted_HW4: np.ndarray
) -> np.ndarray:
    """Frames with an edit of one atlas: what differs between the painted picture and the exported one is laid on the frames themselves.

    Nothing but the edit comes from the atlas, so that the frames stay as sharp as they were. What lies in front of the layer stays in
    front of the edit. Several edits are applied one after the other.

    Args:
        frames_THWC: uint8, those that the model was fitted to, in any size, such as that of the video. name: of the layer. exported_HW4:
            uint8, what ``AtlasModel.atlas_rgba`` gave. painted_HW4: uint8, the same picture painted on, or one with transparency to be
            laid over it, such as ``AtlasModel.from_frame`` gives.

    Returns:
        uint8, of the size of the frames.

    Raises:
        DataError: the number of frames or the size of a picture is another one.
    """
    _check(frames_THWC, model, name, exported_HW4, painted_HW4)
    brush_HW4 = difference(exported_HW4, painted_HW4)
    brush_HW4[..., :3] *= brush_HW4[..., 3:]
    height, width = frames_THWC.shape[1:3]
    number, edited = model.number(name), np.empty_like(frames_THWC)
    for t, frame_HWC in enumerate(frames_THWC):
        weight_HW1 = cleaned(model.weights(height, width, [t])[number, 0, ..., None])
        laid_HW4 = weight_HW1 * sampled(brush_HW4, model.uv_px(name, height, width, [t])[0])
        edited[t] = to_bytes(frame_HWC / np.float32(255) * (1 - laid_HW4[..., 3:]) + laid_HW4[..., :3])
    return edited


def cleaned(weights: np.ndarray) -> np.ndarray:
    """How much is seen of a layer without the traces that a fit leaves where nothing is: an edit would tint the whole frame."""
    clean: np.ndarray = ((weights - _NOT_SEEN) / (1 - 2 * _NOT_SEEN)).clip(0, 1)
    return clean


def difference(exported_HW4: np.ndarray, painted_HW4: np.ndarray) -> np.ndarray:
    """The thinnest layer of paint that makes the painted picture of the exported one: float32 HW4 in [0, 1], color and opacity.

    Where opaque paint was meant, a thinner one of a stronger color does the same to the atlas, and lets the finest detail of the frames
    shine through; where only tones were changed, nearly all detail stays. A difference of up to 2 levels is none. Where the painted
    picture is more transparent than the exported one, the latter is seen through it: erasing is no edit, and a picture of strokes
    alone is one.
    """
    exported, painted = (picture.astype(np.float32) / 255 for picture in (exported_HW4, painted_HW4))
    before, share = exported[..., :3], (painted[..., 3:] / np.maximum(exported[..., 3:], 1e-6)).clip(0, 1)
    change = share * (painted[..., :3] - before)
    room = np.where(change > 0, 1 - before, before)
    opacity = (np.abs(change) / np.maximum(room, 1e-6)).max(axis=-1, keepdims=True).clip(0, 1)
    is_edit = (np.abs(change).max(axis=-1, keepdims=True) > (_SAME_LEVELS + 0.5) / 255) & (opacity > 0)
    color = (before + change / np.where(is_edit, opacity, 1)).clip(0, 1)
    found: np.ndarray = np.concatenate([color, np.where(is_edit, opacity, 0)], axis=-1).astype(np.float32)
    return found


def _check(
    frames_THWC: np.ndarray, model: AtlasModel, name: str, exported_HW4: np.ndarray, painted_HW4: np.ndarray
) -> None:
    if len(frames_THWC) != model.layout.num_frames:
        raise DataError(
            f"there are {len(frames_THWC)} frames; the atlases were fitted to {model.layout.num_frames}. Give the same frames."
        )
    want = (*model.atlas_size(name), 4)
    for what, picture in (("exported", exported_HW4), ("painted", painted_HW4)):
        if picture.shape != want or picture.dtype != np.uint8:
            raise DataError(
                f"the {what} atlas of {name} has shape {picture.shape} and type {picture.dtype}; it must be uint8 of shape {want}. Paint on the "
                "picture that was exported, and keep its size."
            )


# ---- pictures made into edits


def textured(exported_HW4: np.ndarray, picture_HW3: np.ndarray) -> np.ndarray:
    """An atlas whose seen part shows a picture instead: uint8 HW4.

    The picture is scaled so that it fills the box of what is seen, its middle on the middle of the box; it keeps its shape.

    Args:
        picture_HW3: uint8 RGB, of any size.
    """
    seen_HW = exported_HW4[..., 3] > 255 * _COVERED
    if not seen_HW.any():
        return exported_HW4.copy()
    rows, columns = np.flatnonzero(seen_HW.any(axis=1)), np.flatnonzero(seen_HW.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    times = max(height / picture_HW3.shape[0], width / picture_HW3.shape[1])
    sides = [
        max(wanted, round(side * times)) for wanted, side in zip((height, width), picture_HW3.shape[:2], strict=True)
    ]
    large = resized(picture_HW3, *sides)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    painted = exported_HW4.copy()
    painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, :3] = large[top : top + height, left : left + width]
    return painted


def stylized(exported_HW4: np.ndarray, style: str) -> np.ndarray:
    """An atlas painted in one of the ``STYLES``: uint8 HW4. Its alpha stays.

    Raises:
        DataError: there is no such style.
    """
    if style not in STYLES:
        raise DataError(f"there is no style {style!r}. Take one of: {', '.join(STYLES)}; or a picture of your own.")
    cv2: Any = require_opencv()
    with one_thread(cv2):
        rgb_HW3 = STYLES[style](cv2, np.ascontiguousarray(exported_HW4[..., :3]))
    return np.concatenate([rgb_HW3, exported_HW4[..., 3:]], axis=-1)


def _watercolor(cv2: Any, rgb_HW3: np.ndarray) -> np.ndarray:
    """Edges kept, all else smooth (Gastal and Oliveira, SIGGRAPH 2011)."""
    painted: np.ndarray = cv2.stylization(rgb_HW3, sigma_s=30, sigma_r=0.45)
    return painted


def _pencil(cv2: Any, rgb_HW3: np.ndarray) -> np.ndarray:
    drawn: np.ndarray = cv2.pencilSketch(rgb_HW3, sigma_s=30, sigma_r=0.08, shade_factor=0.04)[1]
    return drawn


def _poster(cv2: Any, rgb_HW3: np.ndarray) -> np.ndarray:
    """Few levels of each color, smooth in between."""
    smooth = cv2.bilateralFilter(rgb_HW3, 9, 60, 9).astype(np.float32)
    poster: np.ndarray = (np.floor(smooth / 64) * 64 + 32).astype(np.uint8)
    return poster


STYLES: Final[Mapping[str, Callable[[Any, np.ndarray], np.ndarray]]] = MappingProxyType(
    {"watercolor": _watercolor, "pencil": _pencil, "poster": _poster}
)
