"""``layers compose``: the layers of a folder put together in another way, at the size of the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssvid.errors import DataError, RecipeError, did_you_mean
from ssvid.evals.label_propagation.films import write_film
from ssvid.files import expanded, takes_paths
from ssvid.layers.composing import (
    Layer,
    as_background,
    cloned,
    composite,
    find_layer,
    grayed,
    retimed,
    standing,
    trail,
)
from ssvid.layers.motion import Canvas
from ssvid.layers.time_maps import lasting, parse_time_map
from ssvid.programs.layers_folder import LayersFolder
from ssvid.programs.layers_footage import BACKGROUND
from ssvid.programs.speed_curves import SpeedUp, speed_up

SPEEDINESS = "speediness"


@dataclass(frozen=True)
class Speediness:
    """How an object gets its own time from a trained network. checkpoint: of the task speediness. factor: how many times shorter it becomes."""

    checkpoint: str | Path
    factor: float = 2.0


@dataclass(frozen=True)
class Composition:
    """What is done with layers, in this order.

    drop: objects that are left out. background: a picture in its place; gray_background: the own one without color. inserts: (picture, x, y) on the
    ground, in the first frame. times: layer or ``background`` -> a time map (``ssvid.layers.time_maps``), or ``speediness``. clones: (object,
    px to the right, px down). trails: (object, every so many frames, number of copies). speediness: for such times.
    """

    drop: Sequence[str] = ()
    background: str | Path | None = None
    gray_background: bool = False
    inserts: Sequence[tuple[str | Path, float, float]] = ()
    times: Mapping[str, str] = field(default_factory=dict)
    clones: Sequence[tuple[str, float, float]] = ()
    trails: Sequence[tuple[str, int, int]] = ()
    speediness: Speediness | None = None


@dataclass(frozen=True)
class Film:
    """A film that was written."""

    path: Path
    num_frames: int
    fps: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"path": str(self.path), "num_frames": self.num_frames, "fps": self.fps, "notes": list(self.notes)}

    def __str__(self) -> str:
        told = f"film: {self.path}, {self.num_frames} frames, {self.num_frames / self.fps:.1f} s"
        return "\n".join([told, *(f"note: {note}" for note in self.notes)])


@takes_paths("folder", "out")
def compose_layers(folder: str | Path, composition: Composition, out: str | Path) -> Film:
    """A film of the layers of a folder, as they are asked for.

    Lu et al., *Layered Neural Rendering for Retiming People in Video* (SIGGRAPH Asia 2020) and *Omnimatte* (CVPR 2021), section 4.

    Args:
        folder: of ``fit_layers``; its layers may have been painted on. out: a new .mp4.

    Raises:
        SsvidError: the folder is none, a layer or a file is not there, a time map is none; nothing is written then.
    """
    path = new_film(out)
    opened = LayersFolder.open(folder)
    layers, background_THWC, canvas = opened.layers(), opened.background(), opened.camera()
    names = [layer.name for layer in layers]
    for name in (*composition.drop, *(c[0] for c in composition.clones), *(c[0] for c in composition.trails)):
        find_layer(layers, name)  # before anything is computed
    if unknown := [name for name in composition.times if name not in (*names, BACKGROUND)]:
        raise DataError(
            f"there is no layer {unknown[0]!r} to be retimed. {did_you_mean(unknown[0], [*names, BACKGROUND])}"
        )
    if composition.speediness is not None and SPEEDINESS not in composition.times.values():
        raise RecipeError(
            f"--checkpoint ({composition.speediness.checkpoint}) is asked for nothing: no layer's time is {SPEEDINESS}. Say which: --time "
            f"{names[-1]}={SPEEDINESS}, or leave it out."
        )
    background_THWC = _background(composition, background_THWC)
    times = {
        name: _time(name, text, layers, background_THWC, composition, opened.fps)
        for name, text in composition.times.items()
    }
    maps = {name: time.map_N for name, time in times.items()}
    num_pictures = max([len(one) for one in maps.values()], default=opened.num_frames)
    views_N = np.arange(num_pictures).clip(max=opened.num_frames - 1)
    if BACKGROUND in maps:
        views_N = lasting(maps[BACKGROUND].clip(min=0), num_pictures)
    kept = [layer for layer in layers if layer.name not in composition.drop]
    shown = [_in_time(layer, maps, canvas, views_N) for layer in kept]
    placed = [_inserted(*one, canvas, opened.size, views_N) for one in composition.inserts]
    shown = [*placed, *_repeated(shown, composition, canvas)]
    pictures = composite(background_THWC[views_N], shown)
    write_film(path, pictures, opened.fps)
    doubts = [f"{name}: {note}" for name, time in times.items() for note in time.notes]
    return Film(path, len(pictures), opened.fps, (*_notes(opened, composition), *doubts))


def new_film(out: str | Path) -> Path:
    """The path of a film that is to be written.

    Raises:
        RecipeError: it does not end in .mp4. DataError: it is there.
    """
    path = Path(out)
    if path.suffix.lower() != ".mp4":
        raise RecipeError(
            f"--out ({out}) must end in .mp4: the film is H.264 in MP4. Set --out {path.stem or 'film'}.mp4."
        )
    if path.exists():
        raise DataError(f"{path} exists, and nothing is overwritten. Name another --out, or move it away.")
    return path


def open_picture(path: str | Path, mode: str, named: str) -> np.ndarray:
    """A picture of the user, uint8. mode: RGB or RGBA. named: what gave it, for errors.

    Raises:
        DataError: it cannot be read.
    """
    file = Path(expanded(path))
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert(mode))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "does not exist" if not file.exists() else f"cannot be read as a picture ({type(error).__name__})"
        raise DataError(f"{named} ({file}) {why}. Name a PNG or a JPEG.") from error


# ---- the steps


def _background(composition: Composition, background_THWC: np.ndarray) -> np.ndarray:
    if composition.background is not None:
        picture_HWC = open_picture(composition.background, "RGB", "--background")
        return as_background(picture_HWC, *background_THWC.shape[:3])
    return grayed(background_THWC) if composition.gray_background else background_THWC


class _Time(NamedTuple):
    """Which frame of a layer each picture shows, and what is to be said of it."""

    map_N: np.ndarray
    notes: tuple[str, ...] = ()


def _time(
    name: str, text: str, layers: Sequence[Layer], background_THWC: np.ndarray, composition: Composition, fps: float
) -> _Time:
    if text != SPEEDINESS:
        return _Time(parse_time_map(text, len(background_THWC)))
    if composition.speediness is None:
        raise RecipeError(
            f"--time {name}={SPEEDINESS} asks a trained network. Name a run of it: --checkpoint runs/mine"
        )
    alone_THWC = background_THWC if name == BACKGROUND else composite(background_THWC, [find_layer(layers, name)])
    asked = composition.speediness
    sped = speed_up(alone_THWC, checkpoint=asked.checkpoint, factor=asked.factor, array_fps=fps, show_progress=False)
    return _Time(sped.film_frames, (_told(sped), *sped.curve.notes))


def _told(sped: SpeedUp) -> str:
    """How fast it became, and where the most."""
    least, most = float(sped.speeds_N.min()), float(sped.speeds_N.max())
    return f"{least:.2f} to {most:.2f} times as fast, {sped.factor:.2f} times in the mean, {len(sped.film_frames)} pictures"


def _in_time(layer: Layer, maps: Mapping[str, np.ndarray], canvas: Canvas, views_N: np.ndarray) -> Layer:
    num_frames = len(layer.rgba_THW4)
    own_N = maps.get(layer.name, np.arange(num_frames))
    return retimed(layer, lasting(own_N, len(views_N)), canvas, views_N)


def _inserted(
    path: str | Path, x: float, y: float, canvas: Canvas, size: tuple[int, int], views_N: np.ndarray
) -> Layer:
    lying = standing(open_picture(path, "RGBA", "--insert"), (x, y), canvas, 0, size)
    return replace(lying, rgba_THW4=lying.rgba_THW4[views_N])


def _repeated(layers: Sequence[Layer], composition: Composition, canvas: Canvas) -> list[Layer]:
    """Each layer behind its copies: clones and trails."""
    repeated: list[Layer] = []
    for layer in layers:
        own = [layer]
        for name, every_frames, count in composition.trails:
            if name == layer.name:
                own = trail(
                    layer,
                    every_frames,
                    count,
                    canvas=canvas if len(layer.rgba_THW4) == len(canvas.to_canvas_T33) else None,
                )
        clones = [cloned(layer, f"{name} again", (dx, dy)) for name, dx, dy in composition.clones if name == layer.name]
        repeated += [*clones, *own]
    return repeated


def _notes(opened: LayersFolder, composition: Composition) -> tuple[str, ...]:
    if composition.drop and opened.kind == "atlas":
        return (
            "the layers are those of an atlas, which knows no shadows: what an object casts stays. Fit with --kind omnimatte to remove it too.",
        )
    return ()
