"""Queries and what they found, for the eye: a picture and a page that needs no other file.

Which queries are shown is drawn by a seed, half of them right as far as available: a page of hand-picked successes proves
nothing.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DecodeError
from ssvid.evals.neighbors.retrieval import NEIGHBORS_SHOWN, Retrieved
from ssvid.protocols.metrics import title_of
from ssvid.results.lettering import drawable, short_names, write
from ssvid.results.page_style import page_head
from ssvid.results.rows import ResultRow
from ssvid.video import open_video

TILE_PX = (144, 108)  # width, height
_FRAME_PX = 5
_CAPTION_PX = 34
_GAP_PX = 10
_LONGEST_NAME = 24
_TEXT, _PAPER, _BLANK = (30, 30, 30), (255, 255, 255), (200, 200, 200)
_COLORS = {True: (26, 127, 55), False: (207, 34, 46), None: (110, 110, 110)}
_WORDS = {True: "\u2713 same class", False: "\u2717 another class", None: "query"}


@dataclass(frozen=True)
class Shown:
    """One video of the page: its middle frame and what is written below it. cosine, is_right: None for the query."""

    tile: Image.Image
    label: str
    name: str
    cosine: float | None = None
    is_right: bool | None = None


def draw_queries(is_right_N: np.ndarray, num_shown: int, seed: int) -> list[int]:
    """Positions of the queries to show: half of them right, half wrong, filled up with the other kind; right ones first."""
    rng = np.random.default_rng([seed, len(is_right_N)])
    right, wrong = (rng.permutation(np.flatnonzero(which)) for which in (is_right_N, ~is_right_N))
    num_shown = min(num_shown, len(is_right_N))
    num_wrong = min(len(wrong), max(num_shown // 2, num_shown - len(right)))
    return [int(i) for i in (*right[: num_shown - num_wrong], *wrong[:num_wrong])]


def shown_queries(
    found: Retrieved, manifest: Manifest, *, rows: Mapping[str, VideoRow], num_shown: int, seed: int
) -> list[list[Shown]]:
    """For each query drawn, the query and its nearest training videos. rows: of the manifest, by the ids of the features."""
    train, test, neighbors = found.train, found.test, found.result.neighbors
    pairs = zip(neighbors.queries_N, neighbors.indices_NK, strict=True)
    nearest_is_right = np.array([test.labels[query] == train.labels[of[0]] for query, of in pairs], dtype=bool)
    lines = []
    for i in draw_queries(nearest_is_right, num_shown, seed):
        query = rows[test.ids[neighbors.queries_N[i]]]
        line = [Shown(middle_frame(manifest, query), query.label, row_id(query))]
        for index, cosine in zip(neighbors.indices_NK[i, :NEIGHBORS_SHOWN], neighbors.cosines_NK[i], strict=False):
            row = rows[train.ids[index]]
            is_right = row.label == query.label
            line.append(Shown(middle_frame(manifest, row), row.label, row_id(row), float(cosine), is_right))
        lines.append(line)
    return lines


def middle_frame(manifest: Manifest, row: VideoRow) -> Image.Image:
    """The frame in the middle of a video's window, fitted into a tile; a gray tile that says so where it cannot be read."""
    whole = replace(row, start_frame=0, end_frame=-1).video_info(manifest.root)
    try:
        with open_video(whole.path, "auto", info=whole, decoders_ok=row.decoders_ok) as reader:
            frame_CHW = reader.frames_at(np.array([row.start_frame + row.window_frames // 2]))[0]
    except DecodeError:  # its features came from the cache, and the file is gone since
        tile = Image.new("RGB", TILE_PX, _BLANK)
        ImageDraw.Draw(tile).text((8, 8), "cannot be read", fill=_TEXT)
        return tile
    picture = Image.fromarray(frame_CHW.permute(1, 2, 0).numpy())
    share = min(TILE_PX[0] / picture.width, TILE_PX[1] / picture.height)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.LANCZOS)


# ---- the picture


def neighbor_picture(lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow]) -> Image.Image:
    """One line per query: the query and its neighbors, framed by color and marked by a check or a cross."""
    width, height = TILE_PX[0] + 2 * _FRAME_PX + _GAP_PX, TILE_PX[1] + 2 * _FRAME_PX + _CAPTION_PX + _GAP_PX
    head = [*heading(rows), recall_line(rows), "left: the query; then its nearest training videos, nearest first"]
    top = 18 * len(head) + 2 * _GAP_PX
    size = (_GAP_PX + width * (1 + NEIGHBORS_SHOWN), top + height * len(lines))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(head):
        write(draw, (_GAP_PX, _GAP_PX + 18 * number), drawable(text)[:150], _TEXT)
    names = short_names(sorted({shown.label for line in lines for shown in line}), _LONGEST_NAME)
    for number, line in enumerate(lines):
        for place, shown in enumerate(line):
            _draw_tile(sheet, draw, shown, names[shown.label], _GAP_PX + width * place, top + height * number)
    return sheet


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, shown: Shown, name: str, left: int, top: int) -> None:
    right, bottom = left + TILE_PX[0] + 2 * _FRAME_PX, top + TILE_PX[1] + 2 * _FRAME_PX
    color = _COLORS[shown.is_right]
    draw.rectangle((left, top, right - 1, bottom - 1), fill=_BLANK, outline=color, width=_FRAME_PX)
    corner = left + (right - left - shown.tile.width) // 2, top + (bottom - top - shown.tile.height) // 2
    sheet.paste(shown.tile, corner)
    _draw_mark(draw, shown.is_right, right - 13, top + 13)
    told = "query" if shown.cosine is None else f"cosine {shown.cosine:.3f}"
    write(draw, (left, bottom + 2), name, _TEXT)
    write(draw, (left, bottom + 16), told, color)


def _draw_mark(draw: ImageDraw.ImageDraw, is_right: bool | None, x: int, y: int) -> None:
    """A check or a cross on a disk: the frame's color alone says nothing to one reader in twelve."""
    if is_right is None:
        return
    draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=_COLORS[is_right], outline=_PAPER, width=2)
    if is_right:
        draw.line([(x - 5, y), (x - 1, y + 5), (x + 6, y - 5)], fill=_PAPER, width=3, joint="curve")
    else:
        draw.line([(x - 5, y - 5), (x + 5, y + 5)], fill=_PAPER, width=3)
        draw.line([(x - 5, y + 5), (x + 5, y - 5)], fill=_PAPER, width=3)


# ---- what both say


def heading(rows: Sequence[ResultRow]) -> list[str]:
    """Protocol, network and videos, one line each."""
    context = rows[0].context
    backbone, sides = context["backbone"]["name"], context["data"]
    return [
        f"Retrieval, {_protocol_name(context)}: {rows[0].name} {backbone}",
        f"{sides['test']['num_videos']} test videos look for their class among {sides['train']['num_videos']} training "
        f"videos, {sides['test']['num_classes']} classes",
        f"weights {context['weights_sha256']}",
    ]


def recall_line(rows: Sequence[ResultRow]) -> str:
    """R@1 40.0 % [35, 45], ..."""
    cells = []
    for row in rows:
        low, high = row.interval
        cells.append(f"{title_of(row.metric)} {100 * row.value:.1f} % [{100 * low:.0f}, {100 * high:.0f}]")
    return ", ".join(cells)


def _protocol_name(context: Mapping[str, Any]) -> str:
    named = context.get("protocol")
    if isinstance(named, Mapping):
        named = named.get("id")
    return f"protocol {named}" if named else f"manner {context['retrieval_protocol']['manner']}"


# ---- the page

_STYLE = """
.line { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; padding-bottom: 1.2rem; border-bottom: 1px solid var(--edge); }
figure { margin: 0; width: 156px; } img { display: block; width: 144px; border: 5px solid #6e6e6e; }
.right img { border-color: var(--right); border-style: solid; } .wrong img { border-color: var(--wrong); border-style: dashed; }
.right b { color: var(--right); } .wrong b { color: var(--wrong); } figcaption { font-size: 13px; }
.intro, figcaption { overflow-wrap: anywhere; }
"""


def neighbor_page(lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow], *, seed: int) -> str:
    """The same as a page of HTML: pictures inside, no script, nothing loaded."""
    title, videos, weights = map(html.escape, heading(rows))
    table = "".join(
        f"<tr><th>{html.escape(title_of(row.metric))}</th><td>{100 * row.value:.1f} %</td>"
        f"<td>{100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}</td><td>{100 * row.chance:.1f} %</td></tr>"
        for row in rows
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in rows[0].context.get("notes", ()))
    body = "".join(f'<div class="line">{"".join(map(_figure, line))}</div>' for line in lines)
    return (
        f'{page_head(title, _STYLE)}<body>\n<h1>{title}</h1>\n<p class="intro">{videos}.<br><small>{weights}</small></p>\n'
        f'<div class="wide"><table><tr><th></th><th>value</th><th>95 % interval</th><th>chance</th></tr>{table}</table></div>\n'
        f"{f'<ul>{notes}</ul>' if notes else ''}"
        f"<p>{len(lines)} queries drawn by seed {seed}, half of them with a correct nearest neighbor as far as "
        f"available; the middle frame of each video. First the query, then its nearest training videos.</p>\n{body}\n"
        "</body></html>\n"
    )


def _figure(shown: Shown) -> str:
    kind = {True: "right", False: "wrong", None: "query"}[shown.is_right]
    cosine = "" if shown.cosine is None else f"<br>cosine {shown.cosine:.3f}"
    alt = html.escape(f"middle frame of {shown.name}", quote=True)
    return (
        f'<figure class="{kind}"><img alt="{alt}" src="{_data_uri(shown.tile)}"><figcaption><b>{_WORDS[shown.is_right]}</b>'
        f"{cosine}<br>{html.escape(shown.label)}<br><small>{html.escape(shown.name)}</small></figcaption></figure>"
    )


def _data_uri(tile: Image.Image) -> str:
    content = io.BytesIO()
    tile.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
