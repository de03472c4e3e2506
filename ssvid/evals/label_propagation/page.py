"""The page of one's own footage: the film, key frames, J over time where the truth is known. It runs no script."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from ssvid import __version__
from ssvid.evals.label_propagation.drawing import color_of
from ssvid.results.curves import Panel, describe, draw_panel
from ssvid.templates import data_uri, render

MOST_FILM_BYTES = (
    8_000_000  # of one that the page holds itself, so that it can be mailed; a larger one stays beside the page
)
_LINES_PER_PANEL = 4  # curves of one drawing that are told apart by their dashes
_SHEET_PX = 2400


@dataclass(frozen=True)
class Still:
    """A picture that the page holds. uri: the whole file."""

    uri: str
    width_px: int
    height_px: int
    alt: str


@dataclass(frozen=True)
class Film:
    """A film that the page plays. uri: the whole file, or its name where it lies beside the page. poster: uri of a picture."""

    uri: str
    width_px: int
    height_px: int
    poster: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Followed:
    """An object or a point by its number, as it is drawn."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """``object 2``."""
        return f"{self.kind} {self.number}"

    @property
    def color(self) -> str:
        """As CSS has it."""
        return "#{:02x}{:02x}{:02x}".format(*color_of(self.number))


Row = tuple[Followed, Sequence[str]]


@dataclass(frozen=True)
class TrackPage:
    """What the page shows. objects, points: one line of each, with a cell for each name in ``*_columns``.

    files: (address, name, what it is). facts: how it was made, by name. settings: all of them, as text.
    """

    title: str
    about: str
    films: Sequence[Film]
    sheet: Still
    files: Sequence[tuple[str, str, str]]
    facts: Sequence[tuple[str, str]]
    settings: str
    notes: Sequence[str] = ()
    objects: Sequence[Row] = ()
    object_columns: Sequence[str] = ()
    points: Sequence[Row] = ()
    point_columns: Sequence[str] = ()
    panels: Sequence[Panel] = ()


def render_track_page(page: TrackPage) -> str:
    """The page as HTML. It loads nothing but films that lie beside it."""
    return render(
        "track.html", page=page, title=page.title, version=__version__, draw_panel=draw_panel, describe=describe
    )


def still(picture_HWC: np.ndarray, alt: str) -> Still:
    """A picture packed into the page, smaller where it is very wide."""
    image = Image.fromarray(picture_HWC)
    if image.width > _SHEET_PX:
        image = image.resize((_SHEET_PX, round(image.height * _SHEET_PX / image.width)), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=82)
    return Still(data_uri("image/webp", packed.getvalue()), image.width, image.height, alt)


def film(path: Path, poster_HWC: np.ndarray, alt: str, caption: str, *, most_bytes: int = MOST_FILM_BYTES) -> Film:
    """A film of the poster's size, held by the page where it is small enough, and else beside it under its name."""
    is_held = path.stat().st_size <= most_bytes
    uri = data_uri("video/mp4", path.read_bytes()) if is_held else address(path.name)
    height_px, width_px = poster_HWC.shape[:2]
    return Film(uri, width_px, height_px, still(poster_HWC, alt).uri, alt, caption)


def address(name: str) -> str:
    """The address of a file or folder beside the page; any name is legal."""
    return f"./{quote(name)}"


def jaccard_panels(jaccard_T_by_object: Mapping[int, Sequence[tuple[int, float]]]) -> list[Panel]:
    """J over time, a few objects to a drawing. Values: (frame, J)."""
    numbers = list(jaccard_T_by_object)
    panels = []
    for start in range(0, len(numbers), _LINES_PER_PANEL):
        lines = {
            f"object {number}": [(float(frame), value) for frame, value in jaccard_T_by_object[number]]
            for number in numbers[start : start + _LINES_PER_PANEL]
        }
        panels.append(Panel("J over time", lines, along="frame", moment="frame"))
    return panels
