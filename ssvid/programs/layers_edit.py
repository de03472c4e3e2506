"""``layers edit``: what is painted on atlases, or on a frame, brought to all frames of the video at their full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvid.errors import DataError, RecipeError
from ssvid.evals.label_propagation.films import write_film
from ssvid.files import takes_paths
from ssvid.layers.atlas import AtlasModel
from ssvid.layers.atlas.editing import apply_edit, difference, stylized, textured
from ssvid.programs.layers_compose import Film, new_film, open_picture
from ssvid.programs.layers_folder import LayersFolder


@dataclass(frozen=True)
class Edits:
    """Edits of layers, in this order.

    atlases: (layer, atlas of the folder painted on). frames: (layer, frame of the video, picture over it, or a copy of it painted on). styles: (layer,
    style of ``ssvid.layers.atlas.editing``). textures: (layer, picture in the place of its atlas).
    """

    atlases: Sequence[tuple[str, str | Path]] = ()
    frames: Sequence[tuple[str, int, str | Path]] = ()
    styles: Sequence[tuple[str, str]] = ()
    textures: Sequence[tuple[str, str | Path]] = ()


@takes_paths("folder", "out")
def edit_layers(folder: str | Path, edits: Edits, out: str | Path) -> Film:
    """A film of the video with edits that stick to its layers.

    Kasten et al., *Layered Neural Atlases* (SIGGRAPH Asia 2021), section 4. Only the edit comes from an atlas: the frames stay as sharp as
    they were.

    Args:
        folder: of ``fit_layers`` with the kind ``atlas``. out: a new .mp4.

    Raises:
        SsvidError: the folder is none or has no atlases, a picture is not there or of another size, no edit is given; nothing is
            written then.
    """
    path = new_film(out)
    opened = LayersFolder.open(folder)
    if opened.kind != "atlas":
        raise DataError(
            f"{opened.path} is of kind {opened.kind} and has no atlases to edit. Fit the same video with --kind atlas; layers of this kind are put "
            "together with ssvid layers compose."
        )
    model = _model(opened)
    frames_THWC, before = opened.frames(), 0
    notes: list[str] = []
    for name, painted_HW4 in _painted(edits, model, opened, frames_THWC):
        before += 1
        exported_HW4 = model.atlas_rgba(name)
        frames_THWC = apply_edit(frames_THWC, model, name, exported_HW4, painted_HW4)
        if not difference(exported_HW4, painted_HW4)[..., 3].any():
            notes.append(f"edit {before}, of {name}, changes nothing: the picture is as it was exported")
    if not before:
        raise RecipeError(
            f"no edit is given. Paint on a picture in {opened.path / 'atlas'} and give --atlas NAME=FILE; or give --frame, --style or --texture."
        )
    write_film(path, frames_THWC, opened.fps)
    return Film(path, len(frames_THWC), opened.fps, tuple(notes))


def _model(opened: LayersFolder) -> AtlasModel:
    state = opened.state()
    if state is None:
        raise DataError(f"{opened.path} has lost its fit.pt, which edits need. Put it back, or fit anew.")
    return AtlasModel.from_state(state)


def _painted(
    edits: Edits, model: AtlasModel, opened: LayersFolder, frames_THWC: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """The layer and the picture of its atlas of each edit."""
    for name, file in edits.atlases:
        model.number(name)
        yield name, open_picture(file, "RGBA", "--atlas")
    for name, frame, file in edits.frames:
        model.number(name)
        t = _place_of(frame, opened)
        strokes_HW4 = _strokes(open_picture(file, "RGBA", "--frame"), frames_THWC[t], file)
        yield name, model.from_frame(name, strokes_HW4, t)
    for name, style in edits.styles:
        model.number(name)
        yield name, stylized(model.atlas_rgba(name), style)
    for name, file in edits.textures:
        model.number(name)
        yield name, textured(model.atlas_rgba(name), open_picture(file, "RGB", "--texture"))


def _place_of(frame: int, opened: LayersFolder) -> int:
    numbers = opened.facts["frames"]
    if frame not in numbers:
        raise DataError(
            f"--frame names frame {frame} of the video, and the layers are of frames {numbers[0]} to {numbers[-1]}. Paint on one of these."
        )
    place: int = numbers.index(frame)
    return place


def _strokes(painted_HW4: np.ndarray, frame_HWC: np.ndarray, file: str | Path) -> np.ndarray:
    """What was painted, with alpha around it: of a copy of the frame that was painted on, what differs."""
    if painted_HW4[..., 3].min() < 255:
        return painted_HW4
    if painted_HW4.shape[:2] != frame_HWC.shape[:2]:
        raise DataError(
            f"--frame ({file}) has {painted_HW4.shape[1]}x{painted_HW4.shape[0]} px, and the frame {frame_HWC.shape[1]}x{frame_HWC.shape[0]}: a copy of the "
            "frame that was painted on keeps its size. Or save the paint alone, with alpha around it."
        )
    exported_HW4 = np.concatenate([frame_HWC, np.full_like(frame_HWC[..., :1], 255)], axis=2)
    return (difference(exported_HW4, painted_HW4) * 255).round().astype(np.uint8)
