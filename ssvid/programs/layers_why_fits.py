"""The fits behind ``layers why``, each on a scene whose layers are known; their figures and pictures as they are kept in a folder.

why.json              seed and number of steps
fits/SCENE-NAME.json  figures and curves of a fit that has ended        fits/SCENE-NAME.png   what it shows
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import numpy as np
from PIL import Image

from ssvid import __version__
from ssvid.bounds import AtLeast
from ssvid.errors import DataError
from ssvid.evals.label_propagation.drawing import side_by_side
from ssvid.files import read_json_object, write_json, write_picture
from ssvid.layers.atlas import PUBLISHED
from ssvid.layers.atlas import known as atlas
from ssvid.layers.composing import Layer, composite, dropped
from ssvid.layers.omnimatte import known as omnimatte
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.model import OmnimatteModel
from ssvid.programs.layers_films import on_checks
from ssvid.programs.layers_fit import plain
from ssvid.video.synthetic_effects import walkers
from ssvid.video.synthetic_layers import render_layers

FACTS: Final = "why.json"
_MOST_PICTURES = 8  # of a row
_PICTURE_PX = 144  # high

OnStep = Callable[[int], None]
Record = Mapping[str, Any]  # plain types


@dataclass(frozen=True)
class WhySettings:
    """What must be the same for all fits of a folder. iterations: 0 is as many as are usual."""

    seed: Annotated[int, AtLeast(0)] = 0
    iterations: Annotated[int, AtLeast(0)] = 0
    version: str = __version__

    @property
    def told(self) -> str:
        """In words."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class WhyFit:
    """One fit. scene: which one, and with it which model. name: what of the model is left out."""

    scene: str
    name: str

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.scene}-{self.name.replace(' ', '-')}"

    @property
    def iterations(self) -> int:
        """How many steps are usual."""
        return {
            "followers": OmnimatteConfig.iterations,
            "walkers": omnimatte.ABLATION_STEPS,
            "layered": PUBLISHED.iterations,
        }[self.scene]

    def measure(self, settings: WhySettings, on_step: OnStep) -> tuple[Record, np.ndarray]:
        """Fit, and what came out: figures and curves, and a picture."""
        started = time.process_time()
        measure = {"followers": _effects, "walkers": _shadows, "layered": _atlas}[self.scene]
        record, picture = measure(self.name, settings.seed, settings.iterations or self.iterations, on_step)
        return {"cpu_seconds": round(time.process_time() - started, 1), **record}, picture


ORDER: Final = WhyFit("followers", "complete")
ORDER_BLIND: Final = WhyFit("followers", "mask alone as input")
SHADOWS: Final = WhyFit("walkers", "complete")
# part -> its fits; two parts may share one.
PARTS: Final[Mapping[str, tuple[WhyFit, ...]]] = MappingProxyType(
    {
        "effects": (ORDER,),
        "shadows": (SHADOWS,),
        "omnimatte": (*(WhyFit("walkers", name) for name in omnimatte.ABLATION), ORDER_BLIND),
        "atlas": tuple(WhyFit("layered", name) for name in atlas.ABLATION),
    }
)


def fits_of(parts: Sequence[str]) -> list[WhyFit]:
    """The fits of parts, each once."""
    return list(dict.fromkeys(fit for part in parts for fit in PARTS[part]))


@dataclass(frozen=True)
class WhyFolder:
    """Where the fits are kept."""

    path: Path
    settings: WhySettings

    @classmethod
    def open(cls, path: Path, settings: WhySettings) -> WhyFolder:
        """A folder that was begun with these settings, or a new one.

        Raises:
            DataError: it is of other settings, or holds something else.
        """
        facts = path / FACTS
        if facts.is_file():
            known = _read(facts)
            if known != asdict(settings):
                begun = ", ".join(f"{name} {value}" for name, value in known.items())
                raise DataError(
                    f"{path} holds fits of {begun}; asked for is {settings.told}. Name another folder, or ask for the same."
                )
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                f"{path} exists and is no folder of ssvid layers why: it has no {FACTS}. Nothing is overwritten: name another folder."
            )
        else:
            write_json(facts, asdict(settings))
        return cls(path, settings)

    def record(self, fit: WhyFit) -> Record | None:
        """What came out of a fit; None where it has not ended.

        Raises:
            DataError: the file is damaged.
        """
        file = self._file(fit, "json")
        return _read(file) if file.is_file() else None

    def picture(self, fit: WhyFit) -> np.ndarray:
        """What it shows.

        Raises:
            DataError: the file is gone, or damaged.
        """
        file = self._file(fit, "png")
        try:
            with Image.open(file) as picture:
                return np.asarray(picture)
        except OSError as error:
            figures = self._file(fit, "json")
            raise DataError(
                f"{file} cannot be read ({type(error).__name__}). Remove {figures} too, and give the command again: this fit is done anew."
            ) from error

    def keep(self, fit: WhyFit, record: Record, picture: np.ndarray) -> None:
        """Write both; the figures last, for they say that the fit has ended."""
        figures = {name: plain(value) for name, value in record.get("figures", {}).items()}
        write_picture(self._file(fit, "png"), picture)
        write_json(self._file(fit, "json"), {**record, "figures": figures})

    def _file(self, fit: WhyFit, ending: str) -> Path:
        return self.path / "fits" / f"{fit.slug}.{ending}"


def _read(file: Path) -> Record:
    try:
        return read_json_object(file)
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}). Remove it, and give the command again.") from error


# ---- one fit each


def _effects(name: str, seed: int, iterations: int, on_step: OnStep) -> tuple[Record, np.ndarray]:
    found = omnimatte.learned(name, seed, iterations, on_step=on_step)
    chosen = np.unique(np.linspace(0, len(found.steps) - 1, _MOST_PICTURES - 1).round().astype(int))
    pictures = {"as filmed": found.frame_HWC} | {f"{found.steps[n]} steps": found.pictures_NHWC[n] for n in chosen}
    shares = {effect: list(values) for effect, values in found.shares.items()}
    return {"steps": list(found.steps), "shares": shares, "halves": found.halves}, _strip(pictures)


def _shadows(name: str, seed: int, iterations: int, on_step: OnStep) -> tuple[Record, np.ndarray]:
    found = omnimatte.ablated(name, seed, iterations, on_step=on_step)
    record = {
        "figures": found.figures,
        "steps": list(found.steps),
        "own": {own: list(values) for own, values in found.own.items()},
        "other": {own: list(values) for own, values in found.other.items()},
    }
    return record, _layers_strip(found.model, seed)


def _layers_strip(model: OmnimatteModel, seed: int) -> np.ndarray:
    frames_THWC = walkers(seed).frames()
    middle, size = len(frames_THWC) // 2, frames_THWC.shape[1:3]
    raw_NTHW4 = (model.raw_layers() * 255).round().astype(np.uint8)
    behind_THWC = model.background_frames(*size)
    shown = {"as filmed": frames_THWC[middle]}
    for own, rgba_THW4 in zip(model.names, raw_NTHW4, strict=True):
        shown[f"layer {own}"] = on_checks(Layer(own, rgba_THW4))[middle]
    first = model.names[0]
    without_THWC = composite(behind_THWC, dropped(model.layers(*size), first))
    return _strip(shown | {"background": behind_THWC[middle], f"without {first}": without_THWC[middle]})


def _atlas(name: str, seed: int, iterations: int, on_step: OnStep) -> tuple[Record, np.ndarray]:
    found = atlas.ablated(name, seed, iterations, on_step=on_step)
    record = {
        "figures": found.figures,
        "steps": list(found.steps),
        "psnr": list(found.psnr),
        "track_px": list(found.track_px),
    }
    scene = atlas.scene_of_ablation(seed)
    middle, own = scene.num_frames // 2, found.model.names[0]
    pictures = {
        "as filmed": render_layers(scene, [middle]).frames_THWC[0],
        "put together": found.model.recompose(scene.height, scene.width, [middle])[0],
        "atlas of the object": on_checks(Layer(own, found.model.atlas_rgba(own)[None]))[0],
    }
    return record, _strip(pictures)


def _strip(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of one height in a row, each under its name."""
    return side_by_side({name: _at_height(picture) for name, picture in pictures.items()})


def _at_height(picture_HWC: np.ndarray) -> np.ndarray:
    height, width = picture_HWC.shape[:2]
    size = round(width * _PICTURE_PX / height), _PICTURE_PX
    return np.asarray(Image.fromarray(picture_HWC).resize(size, Image.Resampling.BICUBIC))
