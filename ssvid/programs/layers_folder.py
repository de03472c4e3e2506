"""The folder of a fit, and what is read from it again.

layers.json         where the frames are, names, settings, camera; whether the fit has ended
masks/00000.png     objects of each frame, PNG with the palette of DAVIS       masks.png   the contact sheet
fit.pt              what the model has learned, also in the midst of a fit
layers/NAME/00000.png   RGBA, colors not multiplied by alpha, size of the video
background.png      the background as one picture                              background/00000.png   behind every frame
atlas/NAME.png      an atlas to paint on, alpha where it is seen               atlas/NAME.npz          place of every pixel in it
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ssvid.errors import DataError
from ssvid.evals.label_propagation.saving import write_labels
from ssvid.files import expanded, read_json_object, write_atomic, write_json
from ssvid.layers.clip import LayerClip
from ssvid.layers.composing import Layer
from ssvid.layers.motion import Canvas
from ssvid.machine import versions
from ssvid.programs.footage import open_own_video
from ssvid.programs.layers_footage import OpenedLayerFootage, read_frames

FACTS, STATE, MASKS, SHEET, REPORT = "layers.json", "fit.pt", "masks", "masks.png", "report.json"
_FORMAT = 1


@dataclass(frozen=True)
class LayersFolder:
    """A folder of ``ssvid layers fit``. facts: what layers.json holds."""

    path: Path
    facts: Mapping[str, Any]

    @classmethod
    def begin(cls, path: Path, opened: OpenedLayerFootage, kind: str, settings: Mapping[str, Any]) -> LayersFolder:
        """Write what a fit needs to be begun, or to go on; the folder is new or empty."""
        row, clip = opened.video.row, opened.clip
        facts = {
            "format": _FORMAT,
            "kind": kind,
            "finished": False,
            "video": {"path": str(opened.video.path), "content_id": row.content_id, "decoder": opened.video.decoder},
            "frames": opened.numbers_T.tolist(),
            "fps": clip.fps,
            "height": clip.size[0],
            "width": clip.size[1],
            "names": list(clip.names),
            "given": list(opened.given),
            "masks": opened.how,
            "notes": list(opened.notes),
            "settings": dict(settings),
            "versions": versions(),
        }
        (path / MASKS).mkdir(parents=True, exist_ok=True)
        for t in range(clip.num_frames):
            write_labels(path / MASKS / f"{t:05d}.png", ids_of_masks(clip.masks_NTHW[:, t]))
        write_json(path / FACTS, facts)
        return cls(path, facts)

    @classmethod
    def open(cls, path: str | Path, *, finished: bool = True) -> LayersFolder:
        """A folder that was begun.

        Raises:
            DataError: it is none, of another version, or not finished where it must be.
        """
        folder = Path(expanded(path))
        if not (folder / FACTS).is_file():
            raise DataError(
                f"{folder} is no folder of ssvid layers fit: it has no {FACTS}. Name one, or make one: ssvid layers fit VIDEO --mask FILE."
            )
        try:
            facts = read_json_object(folder / FACTS)
        except ValueError as error:
            raise DataError(f"{folder / FACTS} is damaged ({error}). Fit the layers anew.") from error
        if facts.get("format") != _FORMAT:
            raise DataError(
                f"{folder} is of format {facts.get('format')!r}; this version reads format {_FORMAT}. Fit the layers anew."
            )
        if finished and not facts["finished"]:
            raise DataError(f"the fit in {folder} has not ended. Go on with it: ssvid layers fit {folder} --resume")
        return cls(folder, facts)

    @property
    def kind(self) -> str:
        """``atlas`` or ``omnimatte``."""
        return str(self.facts["kind"])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the objects, that in front first."""
        return tuple(self.facts["names"])

    @property
    def fps(self) -> float:
        """Frames per second of the clip."""
        return float(self.facts["fps"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video."""
        return self.facts["height"], self.facts["width"]

    @property
    def num_frames(self) -> int:
        """Of the clip."""
        return len(self.facts["frames"])

    def frames(self) -> np.ndarray:
        """The frames of the video, uint8 THWC, read anew.

        Raises:
            DataError: the video is gone, or is another one now.
        """
        known = self.facts["video"]
        video = open_own_video(known["path"], known["decoder"], named="the video that the layers are of")
        if video.row.content_id != known["content_id"]:
            raise DataError(
                f"{video.path} is another video than the one that the layers in {self.path} are of. Put that back, or fit anew."
            )
        return read_frames(video, np.array(self.facts["frames"]))

    def clip(self) -> LayerClip:
        """Frames and masks, at the size of the video.

        Raises:
            DataError: as ``frames``, or a mask cannot be read.
        """
        ids_THW = np.stack([_picture(self.path / MASKS / f"{t:05d}.png") for t in range(self.num_frames)])
        masks_NTHW = np.stack([ids_THW == number for number in range(1, len(self.names) + 1)])
        numbers = self.facts["frames"]
        return LayerClip(self.frames(), masks_NTHW, self.names, self.fps, numbers[0], numbers[1] - numbers[0])

    def camera(self) -> Canvas:
        """Where the frames lie on the background, at the size of the video."""
        camera = self.facts["camera"]
        return Canvas(np.array(camera["to_canvas_T33"]), camera["height"], camera["width"])

    def layers(self) -> list[Layer]:
        """The layers as composition takes them, that in the back first.

        Raises:
            DataError: a picture is gone, or of another size.
        """
        return [Layer(name, self._pictures(Path("layers") / name, 4)) for name in reversed(self.names)]

    def background(self) -> np.ndarray:
        """What is behind all layers in each frame, uint8 THWC."""
        return self._pictures(Path("background"), 3)

    def _pictures(self, folder: Path, channels: int) -> np.ndarray:
        pictures = []
        for t in range(self.num_frames):
            path = self.path / folder / f"{t:05d}.png"
            picture = _picture(path)
            if picture.shape != (*self.size, channels):
                raise DataError(
                    f"{path} has shape {picture.shape} (height, width, channels); it must be {(*self.size, channels)}. Save it in the size of the video."
                )
            pictures.append(picture)
        return np.stack(pictures)

    # ---- the fit

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep what a model has learned so far."""
        packed = io.BytesIO()
        torch.save(dict(state), packed)
        write_atomic(self.path / STATE, lambda file: file.write(packed.getvalue()))

    def state(self) -> dict[str, Any] | None:
        """What was kept; None where nothing was yet.

        Raises:
            DataError: it cannot be read.
        """
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(
                f"{path} is damaged ({type(error).__name__}). Remove it, and the fit begins anew: --resume."
            ) from error
        return found

    def finish(self, staged: Path, more: Mapping[str, Any]) -> LayersFolder:
        """Move what was written into the folder, and note that the fit has ended."""
        for entry in sorted(staged.iterdir()):
            place = self.path / entry.name
            if place.is_dir():  # of a time before, when the end was interrupted
                shutil.rmtree(place)
            os.replace(entry, place)
        facts = {**self.facts, **more, "finished": True}
        write_json(self.path / FACTS, facts)
        return LayersFolder(self.path, facts)


def ids_of_masks(masks_NHW: np.ndarray) -> np.ndarray:
    """The number of the first object at each pixel, uint8 HW: 0 is none."""
    ids_HW = np.zeros(masks_NHW.shape[1:], np.uint8)
    for number, mask_HW in reversed(list(enumerate(masks_NHW, start=1))):
        ids_HW[mask_HW] = number
    return ids_HW


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a picture ({type(error).__name__}: {error}). Put it back, or fit anew."
        ) from error
