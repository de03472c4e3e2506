"""One page of HTML about a run: curves, numbers, pictures, films, machine, recipe. It holds everything and loads nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ssvid import __version__
from ssvid.errors import DecodeError
from ssvid.protocols.contract import leaves_of
from ssvid.protocols.metrics import title_of
from ssvid.results.curves import Panel, describe, draw_panel, number
from ssvid.results.formats import DIFFERENCES, PUBLISHED
from ssvid.results.reading import Result
from ssvid.results.table import PRETRAINED, Table
from ssvid.templates import data_uri, render
from ssvid.video.streams import open_stream

T = TypeVar("T")
_AS_IT_IS_BYTES = 60_000  # larger pictures are packed anew
_WIDEST_PX = 1600
_HALF_PX = 700  # of pictures as wide as this or less two stand side by side
_MOST_PICTURES = 24
_MOST_BYTES = 8_000_000  # what a page may weigh and still be mailed
_FILM = "video/mp4"
_SIZE_OF_SVG = re.compile(rb'<svg [^>]*\bwidth="(\d+)" height="(\d+)"')
_SHOWN = {
    "confusion": "which classes were taken for which; the numbers stand under class by class",
    "neighbors": "queries with their five nearest training videos, right and wrong ones framed",
}
_TAKE = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}


@dataclass(frozen=True)
class Picture:
    """One picture or film of the page. uri: the whole file. where: "pretraining", or the evaluation it belongs to."""

    name: str
    where: str
    uri: str
    width_px: int
    height_px: int

    @property
    def kind(self) -> str:
        """How wide it stands."""
        return "half" if self.width_px <= _HALF_PX else "whole"

    @property
    def is_film(self) -> bool:
        """Whether it is played."""
        return self.uri.startswith(f"data:{_FILM}")

    @property
    def alt(self) -> str:
        """What kind of picture it is, for those who do not see it; what it shows in numbers stands in the tables."""
        otherwise = "a film of a test video" if self.is_film else "clips as the task sees them"
        return f"{self.name}: {_SHOWN.get(Path(self.name).stem, otherwise)}"


@dataclass(frozen=True)
class RunPage:
    """What the page shows. outcome: ``results.json`` of a pretraining, {} without one. left_out: pictures, with reasons.

    recipe: YAML. table: None where nothing was evaluated.
    """

    title: str
    kind: str
    outcome: Mapping[str, Any]
    is_complete: bool
    panels: Sequence[Panel]
    table: Table | None
    results: Sequence[Result]
    pictures: Sequence[Picture]
    left_out: Sequence[str]
    environment: Mapping[str, Any]
    recipe: str

    @property
    def warnings(self) -> list[str]:
        """What the run itself found wrong."""
        return list(((self.outcome.get("advice") or {}).get("warnings") or {}).values())

    @property
    def advice(self) -> str:
        """Which checkpoint to take, and why; "" where nothing is advised."""
        advice = self.outcome.get("advice") or {}
        return (
            f"take {_TAKE.get(advice['take'], 'neither checkpoint')}: {advice.get('why', '')}"
            if "take" in advice
            else ""
        )

    @property
    def told(self) -> list[str]:
        """What is known, and what is not."""
        advice = self.outcome.get("advice") or {}
        return [advice[key] for key in ("known", "unknown") if "take" in advice and advice.get(key)]

    @property
    def at_the_end(self) -> list[tuple[str, float, float | None]]:
        """(metric, value, chance) of the task on held-out videos."""
        chance = self.outcome.get("chance", {})
        measured = {"val": self.outcome.get("metrics") or {}, "val_ood": self.outcome.get("out_of_domain") or {}}
        return [
            (f"{series}/{name}", value, chance.get(name))
            for series, values in measured.items()
            for name, value in values.items()
            if isinstance(value, int | float)
        ]

    @property
    def not_used(self) -> list[tuple[list[str], str]]:
        """Names of videos that took no part, and why."""
        why = {"unreadable": "could not be read", "too_short": "are too short", "missing": "are missing"}
        return [(list(self.outcome[key]), told) for key, told in why.items() if self.outcome.get(key)]

    @property
    def per_class(self) -> list[tuple[str, str, list[list[str]], list[tuple[str, list[Any]]]]]:
        """For each result with classes: its name, its first network, titles of metrics, and each class's (right, all)."""
        found = []
        for result in self.results:
            network = PRETRAINED if PRETRAINED in result.per_class else next(iter(result.per_class), "")
            metrics = result.per_class.get(network, {})
            labels = dict.fromkeys(label for of in metrics.values() for label in of)
            classes = [(label, [of.get(label, (0, 0)) for of in metrics.values()]) for label in labels]
            if classes:
                found.append((result.path.parent.name, network, [[title_of(metric)] for metric in metrics], classes))
        return found

    @property
    def facts(self) -> list[tuple[str, object]]:
        """What is known of the machine: a path of names, and its value."""
        listed = (list, tuple)
        return [
            (path, (", ".join(map(str, value)) or "none") if isinstance(value, listed) else value)
            for path, value in leaves_of(self.environment)
        ]


# ---- pictures


def embed_pictures(files: Sequence[tuple[str, Path]]) -> tuple[list[Picture], list[str]]:
    """(where, file) as pictures of a page, and what was left out: damaged ones, and the middle ones of very many."""
    chosen = _spread(files, _MOST_PICTURES)
    most = f"one of {len(files)}, and the page holds {_MOST_PICTURES}"
    left_out = [f"{path.name}: {most}" for where, path in files if (where, path) not in chosen]
    pictures: list[Picture] = []
    for where, path in chosen:
        try:
            pictures.append(_embedded(where, path))
        except (OSError, ValueError, DecodeError) as error:  # those of Pillow are for what is no picture
            left_out.append(f"{path.name}: cannot be read ({type(error).__name__})")
    count = len(pictures)
    while count and sum(len(picture.uri) for picture in _spread(pictures, count)) > _MOST_BYTES:
        count -= 1
    shown = _spread(pictures, count)
    left_out += [
        f"{picture.name}: the page would be larger than {_MOST_BYTES / 1e6:.0f} MB"
        for picture in pictures
        if picture not in shown
    ]
    return shown, left_out


def _spread(items: Sequence[T], most: int) -> list[T]:
    """The first, the last, and evenly spread ones between them; of one alone the last."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[len(items) - most :])
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _embedded(where: str, path: Path) -> Picture:
    content = path.read_bytes()
    if path.suffix == ".mp4":
        with open_stream(str(path)) as (_, stream):
            size = stream.codec_context.width, stream.codec_context.height
        return Picture(path.name, where, data_uri(_FILM, content), *size)
    if path.suffix == ".svg" and (drawing := _SIZE_OF_SVG.search(content)):
        uri = data_uri("image/svg+xml", content)
        return Picture(path.name, where, uri, int(drawing[1]), int(drawing[2]))
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        kind, size = f"image/{(picture.format or 'png').lower()}", picture.size
        if len(content) > _AS_IT_IS_BYTES:
            smaller = picture.convert("RGB")
            smaller.thumbnail((_WIDEST_PX, 4 * _WIDEST_PX))
            packed = io.BytesIO()
            smaller.save(packed, "WEBP", quality=80)
            if packed.tell() < len(content):
                content, kind, size = packed.getvalue(), "image/webp", smaller.size
    return Picture(path.name, where, data_uri(kind, content), *size)


# ---- the page


def render_page(page: RunPage) -> str:
    """The page: no script, nothing from outside, and a policy in its head that would forbid both."""
    return render(
        "run.html",
        page=page,
        title=page.title,
        version=__version__,
        differences=f"{DIFFERENCES[0].upper()}{DIFFERENCES[1:]}",
        published=f"{PUBLISHED[0].upper()}{PUBLISHED[1:]}",
        percent=lambda share, plus="": f"{100 * share:{plus}.1f}",
        draw_panel=draw_panel,
        describe=describe,
        number=number,
    )
