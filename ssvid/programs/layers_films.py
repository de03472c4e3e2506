"""Layers for the eye: the contact sheet of masks, films of each layer, all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssvid.evals.label_propagation.drawing import captioned, draw_small, evened, key_frame_sheet, key_frames
from ssvid.evals.label_propagation.films import CRF_SMALL, write_film
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import Layer
from ssvid.pictures import row, sheet
from ssvid.programs.layers_folder import ids_of_masks
from ssvid.programs.speed_films import page_size

_SHEET_FRAMES, _SHEET_PX = 12, 320
_FEW_GIVEN = 3
_CHECK_PX, _LIGHT, _DARK = 8, 205, 160
_GAP_PX = 4


def mask_sheet(clip: LayerClip, given: Sequence[int] = ()) -> np.ndarray:
    """Frames with their masks on them, uint8 HWC. given: frames whose masks were not carried; a few are all shown."""
    shown = key_frames(clip.num_frames, _SHEET_FRAMES, given if len(given) <= _FEW_GIVEN else ())
    pictures = []
    for t in shown:
        number = clip.first_frame + t * clip.stride_frames
        told = f"frame {number}, mask given" if t in given else f"frame {number}"
        pictures.append((told, draw_small(clip.frames_THWC[t], ids_of_masks(clip.masks_NTHW[:, t]), most_px=_SHEET_PX)))
    return key_frame_sheet(pictures)


def on_checks(layer: Layer) -> np.ndarray:
    """A layer on gray squares, which show where it is transparent: uint8 THWC."""
    height, width = layer.rgba_THW4.shape[1:3]
    y_HW, x_HW = np.indices((height, width)) // max(_CHECK_PX, height // 30)
    checks_HW1 = np.where((y_HW + x_HW) % 2 == 0, _LIGHT, _DARK)[..., None]
    alpha_THW1 = layer.rgba_THW4[..., 3:].astype(np.float32) / 255
    shown = alpha_THW1 * layer.rgba_THW4[..., :3] + (1 - alpha_THW1) * checks_HW1
    return shown.round().astype(np.uint8)


def write_films(folder: Path, films: Mapping[str, np.ndarray], fps: float) -> dict[str, np.ndarray]:
    """A film of each, and ``preview.mp4`` of all side by side; the poster of each.

    Args:
        films: name -> frames, uint8 THWC, all of one shape.
    """
    folder.mkdir(parents=True, exist_ok=True)
    small = {name: np.stack([evened(page_size(frame)) for frame in frames]) for name, frames in films.items()}
    for name, frames in small.items():
        write_film(folder / f"{name}.mp4", frames, fps, crf=CRF_SMALL)
    count = len(next(iter(small.values())))
    write_film(folder.parent / "preview.mp4", (_side_by_side(small, t) for t in range(count)), fps)
    return {name: frames[count // 2] for name, frames in small.items()}


def _side_by_side(films: Mapping[str, np.ndarray], t: int) -> np.ndarray:
    """At most three to a row."""
    told = [captioned(frames[t], name) for name, frames in films.items()]
    across = 2 if len(told) <= 4 else 3
    rows = [row(told[start : start + across], _GAP_PX) for start in range(0, len(told), across)]
    return sheet(rows)
