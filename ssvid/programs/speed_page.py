"""The picture of a curve and the page of ``ssvid speed``."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ssvid import __version__
from ssvid.apps.coloring import speed_colors
from ssvid.programs.speed_curves import SpeedCurve, SpeedUp
from ssvid.results.curves import thinned, ticks
from ssvid.templates import data_uri, render

_PANEL_PX, _GAP_PX, _HEAD_PX = 150, 46, 34
_LEAST_LABEL_PX = 56  # from a number of the time axis to the next

Line = tuple[str, str, Sequence[tuple[float, float]]]  # class, name, points in pixels
Picture = tuple[int, np.ndarray]  # beat, uint8 HWC


@dataclass(frozen=True)
class Frame:
    """Where the drawing of a curve lies, in its own pixels."""

    height: int
    axis: int
    width: int = 960
    left: int = 48
    right: int = 950


@dataclass(frozen=True)
class CurvePanel:
    """One drawing over the time axis. ticks: (text, y). levels: dashed lines, y."""

    title: str
    top: int
    bottom: int
    ticks: Sequence[tuple[str, float]]
    levels: Sequence[float]
    lines: Sequence[Line]


@dataclass(frozen=True)
class CurveDrawing:
    """All that the template of the curve shows. cuts: where a shot begins, x."""

    title: str
    told: str
    panels: Sequence[CurvePanel]
    cuts: Sequence[float]
    seconds: Sequence[tuple[str, float]]
    thumbnails: Sequence[tuple[float, str, str]]
    thumb_width: float
    thumb_height: float


def draw_curve(
    curve: SpeedCurve,
    seconds: float,
    thumbnails: Sequence[Picture] = (),
    sped: SpeedUp | None = None,
    truth_N: np.ndarray | None = None,
) -> tuple[str, Frame]:
    """The curve as SVG with thumbnails on its time axis, and where it lies in the drawing. Below it, where a film is sped up, how
    fast the film is.

    Args:
        seconds: how long the video is. thumbnails: spread evenly over it. truth_N: where it is known, the factor that brings
            the video to its natural speed, at the places of ``sped.natural_N``.
    """
    count = 2 if sped is not None else 1
    axis = _HEAD_PX + count * _PANEL_PX + (count - 1) * _GAP_PX
    share = (Frame.right - Frame.left) / max(len(thumbnails), 1)
    width, height = _thumb_size(thumbnails, share)
    frame = Frame(round(axis + 30 + height), axis)
    across = (frame.right - frame.left) / seconds
    panels = [_curve_panel(curve, frame, across)]
    if sped is not None:
        panels.append(_speed_panel(sped, frame, across, truth_N))
    drawing = CurveDrawing(
        f"how surely each stretch is {curve.says}",
        describe_curve(curve),
        panels,
        [frame.left + across * (curve.seconds_T[first] - curve.seconds_T[0]) for first in curve.shots[1:]],
        [(f"{s:g} s", frame.left + across * s) for s in ticks(0, seconds) if across * s < frame.right - frame.left],
        [
            (frame.left + k * share + (share - width) / 2, picture_uri(p), f"beat {n}")
            for k, (n, p) in enumerate(thumbnails)
        ],
        width,
        height,
    )
    return render("speed_curve.svg", d=drawing, f=frame, px=lambda place: f"{place:.1f}"), frame


def _thumb_size(thumbnails: Sequence[Picture], share: float) -> tuple[float, float]:
    if not thumbnails:
        return 0.0, 0.0
    height, width = thumbnails[0][1].shape[:2]
    scale = min((share - 4) / width, 90 / height)
    return scale * width, scale * height


def _curve_panel(curve: SpeedCurve, frame: Frame, across: float) -> CurvePanel:
    top, bottom = _HEAD_PX, _HEAD_PX + _PANEL_PX
    start = curve.seconds_T[0]
    points = thinned([(float(s), float(p)) for s, p in zip(curve.seconds_T - start, curve.probs_T, strict=True)])
    placed = [(frame.left + across * s, bottom - (bottom - top) * p) for s, p in points]
    levels = [(f"{p:g}", bottom - (bottom - top) * p) for p in (0.0, 0.5, 1.0)]
    title = f"probability: {curve.says} (1) or {curve.otherwise} (0)"
    return CurvePanel(title, top, bottom, levels, [levels[1][1]], [("one", "probability", placed)])


def _speed_panel(sped: SpeedUp, frame: Frame, across: float, truth_N: np.ndarray | None) -> CurvePanel:
    """On a scale of octaves: what looks natural, and how fast the film is."""
    top = _HEAD_PX + _PANEL_PX + _GAP_PX
    bottom = top + _PANEL_PX
    octaves = max(1, math.ceil(math.log2(max(sped.natural_N.max(), sped.speeds_N.max(), 2)) - 1e-9))

    def y(value: float) -> float:
        return bottom - (bottom - top) * math.log2(value) / octaves

    def line(values_N: np.ndarray) -> list[tuple[float, float]]:
        points = thinned([(number / sped.fps, float(value)) for number, value in enumerate(values_N)])
        return [(frame.left + across * s, y(value)) for s, value in points]

    named = [(f"{2**k}x", y(2.0**k)) for k in range(octaves + 1)]
    lines: list[Line] = [
        ("three", "looks natural to", line(sped.natural_N)),
        ("two", "adaptive film", line(sped.speeds_N)),
    ]
    if truth_N is not None:
        lines.append(("one", "truth", line(truth_N)))
    return CurvePanel("speed of the film", top, bottom, named, [y(sped.factor)], lines)


def describe_curve(curve: SpeedCurve) -> str:
    """The curve in words, for those who do not see it."""
    probs_T, seconds_T = curve.probs_T, curve.seconds_T - curve.seconds_T[0]
    low, high = int(probs_T.argmin()), int(probs_T.argmax())
    cuts = ", ".join(f"{seconds_T[first]:.1f} s" for first in curve.shots[1:])
    return (
        f"probability {curve.says}: mean {probs_T.mean():.2f}, lowest {probs_T[low]:.2f} at {seconds_T[low]:.1f} s, highest "
        f"{probs_T[high]:.2f} at {seconds_T[high]:.1f} s" + (f"; cuts at {cuts}" if cuts else "")
    )


def picture_uri(picture_HWC: np.ndarray) -> str:
    """A picture as an address that holds it all."""
    packed = io.BytesIO()
    Image.fromarray(picture_HWC).save(packed, "WEBP", quality=80)
    return data_uri("image/webp", packed.getvalue())


# ---- the page


@dataclass(frozen=True)
class PairFilm:
    """One of the two films that are played side by side."""

    name: str
    uri: str
    alt: str
    sound: bool


@dataclass(frozen=True)
class SpeedPage:
    """What the page shows. film, map: addresses of films of the same frames; "" for no map. files: (name, what it is)."""

    title: str
    about: str
    film: str
    poster: str
    curve: SpeedCurve
    drawing: str
    frame: Frame
    seconds: float
    files: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    map: str = ""
    sheet: str = ""
    sped: SpeedUp | None = None
    has_sound: bool = False
    is_speed: bool = True


def render_speed_page(page: SpeedPage) -> str:
    """The page as HTML. Its script is in it, and it loads nothing but the films beside it."""
    curve, sped = page.curve, page.sped
    values: dict[str, Any] = {
        "title": page.title,
        "about": page.about,
        "notes": page.notes,
        "film": page.film,
        "poster": page.poster,
        "film_alt": f"the video; below it how surely each stretch is {curve.says}",
        "map": page.map,
        "curve": page.drawing,
        "curve_caption": f"{describe_curve(curve)}. Click on the curve, or move with the arrow keys.",
        "seconds": page.seconds,
        "scale": ["rgb({:.0f},{:.0f},{:.0f})".format(*color) for color in speed_colors(np.linspace(0, 1, 5))],
        "low": "slower than usual here" if page.is_speed else f"more {curve.otherwise} than usual here",
        "high": "as usual, or faster" if page.is_speed else f"more {curve.says}",
        "pair": _pair(page, sped) if sped is not None else [],
        "factor": f"{sped.factor:.2f}" if sped is not None else "",
        "film_seconds": sped.seconds if sped is not None else 0.0,
        "pair_about": _pair_about(page.seconds, sped) if sped is not None else "",
        "sheet": page.sheet,
        "sheet_alt": "frames of the video with the map on them",
        "sheet_about": f"What speaks for {curve.says} is green and blue, what speaks for {curve.otherwise} yellow and orange, "
        "beside what is usual in this video; the color is strong where there is much to judge by.",
        "files": page.files,
        "facts": page.facts,
        "told": _told(page),
    }
    return render("speed.html", page=values, title=page.title, version=__version__)


def _pair(page: SpeedPage, sped: SpeedUp) -> list[PairFilm]:
    how = {"adaptive": "sped up more where it looks natural", "uniform": "sped up alike everywhere"}
    return [
        PairFilm(
            name, f"./{name}.mp4", f"the video in {sped.seconds:.1f} s, {what}", page.has_sound and name == "adaptive"
        )
        for name, what in how.items()
    ]


def _pair_about(seconds: float, sped: SpeedUp) -> str:
    return (
        f"{seconds:.1f} s of video in {sped.seconds:.1f} s, twice: adaptive, between {sped.speeds_N.min():.1f} and "
        f"{sped.speeds_N.max():.1f} times as fast, and uniform. What looks slow is passed quickly, what looks fast is given time. "
        f"The mean of the speeds is {sped.speeds_N.mean():.2f}; what counts for the length is their harmonic mean, {sped.factor:.2f}."
    )


def _told(page: SpeedPage) -> str:
    """What the script must know, as JSON that cannot end the tag in which it stands."""
    sped = page.sped
    told: dict[str, Any] = {
        "seconds": page.seconds,
        "curve": np.round(page.curve.probs_T, 3).tolist(),
        "says": page.curve.says,
        "left": page.frame.left,
        "right": page.frame.right,
        "width": page.frame.width,
        "film": page.film,
        "map": page.map,
    }
    if sped is not None:
        start = page.curve.seconds_T[0]
        places = page.curve.seconds_T[sped.film_frames] - start
        rates = np.interp(places, np.arange(len(sped.speeds_N)) / sped.fps, sped.speeds_N)
        told |= {
            "filmSeconds": sped.seconds,
            "rates": np.round(rates, 2).tolist(),
            "places": np.round(places, 3).tolist(),
        }
    return json.dumps(told).replace("<", "\\u003c")
