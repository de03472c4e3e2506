"""Queries and what they found, for the eye: a picture and a page that needs no other file.

Which queries are shown is drawn by a seed, half of them right as far as available: a page of hand-picked successes proves
nothing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DecodeError
from ssvid.evals.contract import LabeledData, Seen
from ssvid.evals.neighbors.knn import NEIGHBORS_SHOWN, Neighbors
from ssvid.files import write_text
from ssvid.protocols.metrics import title_of
from ssvid.results.names import short_names
from ssvid.results.rows import ResultRow
from ssvid.templates import data_uri, render

TILE_PX = (144, 108)  # width, height
CLIP_FRAMES, CLIP_SECONDS = 16, 2.0  # of the moving tiles of the page, at most
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Shown:
    """One video of the page: its middle frame and what is written below it. cosine, is_right: None for the query.

    clip: frames around the middle one, of the tile's size; clip_ms: how long each is shown.
    """

    tile: Image.Image
    label: str
    name: str
    cosine: float | None = None
    is_right: bool | None = None
    clip: tuple[Image.Image, ...] = ()
    clip_ms: int = 0

    @property
    def kind(self) -> str:
        """What it is in the eyes of the query's class."""
        return {True: "right", False: "wrong", None: "query"}[self.is_right]

    @property
    def uri(self) -> str:
        """The tile as the source of a picture in a page."""
        content = io.BytesIO()
        self.tile.save(content, "JPEG", quality=85)
        return data_uri("image/jpeg", content.getvalue())

    @property
    def clip_uri(self) -> str:
        """The clip as the source of a picture that moves, over and over; "" where there is none."""
        if len(self.clip) < 2:
            return ""
        content = io.BytesIO()
        first, *others = self.clip
        first.save(content, "WEBP", save_all=True, append_images=others, duration=self.clip_ms, loop=0, quality=60)
        return data_uri("image/webp", content.getvalue())


def draw_queries(is_right_N: np.ndarray, num_shown: int, seed: int) -> list[int]:
    """Positions of the queries to show: half of them right, half wrong, filled up with the other kind; right ones first."""
    rng = np.random.default_rng([seed, len(is_right_N)])
    right, wrong = (rng.permutation(np.flatnonzero(which)) for which in (is_right_N, ~is_right_N))
    num_shown = min(num_shown, len(is_right_N))
    num_wrong = min(len(wrong), max(num_shown // 2, num_shown - len(right)))
    return [int(i) for i in (*right[: num_shown - num_wrong], *wrong[:num_wrong])]


def shown_queries(
    seen: Seen, neighbors: Neighbors, data: LabeledData, *, num_shown: int, seed: int
) -> list[list[Shown]]:
    """For each query drawn, the query and its nearest training videos."""
    train, test, manifest = seen.train, seen.test, data.manifest
    rows = {row_id(row): row for row in (*data.train, *data.test)}
    pairs = zip(neighbors.queries_N, neighbors.indices_NK, strict=True)
    nearest_is_right = np.array([test.labels[query] == train.labels[of[0]] for query, of in pairs], dtype=bool)
    lines = []
    for i in draw_queries(nearest_is_right, num_shown, seed):
        query = rows[test.ids[neighbors.queries_N[i]]]
        line = [shown_video(manifest, query)]
        for index, cosine in zip(neighbors.indices_NK[i, :NEIGHBORS_SHOWN], neighbors.cosines_NK[i], strict=False):
            row = rows[train.ids[index]]
            shown = shown_video(manifest, row)
            line.append(replace(shown, cosine=float(cosine), is_right=row.label == query.label))
        lines.append(line)
    return lines


def shown_video(manifest: Manifest, row: VideoRow) -> Shown:
    """A video with its middle frame, and a clip around it; a gray tile that says so where it cannot be read."""
    frames, clip_ms = clip_around_middle(row)
    middle = row.start_frame + row.window_frames // 2
    try:
        with replace(row, flow="").open(manifest.root) as reader:  # of flow too the picture is shown
            read_TCHW = reader.frames_at(np.array([middle, *frames]))
    except DecodeError:  # its features came from the cache, and the file is gone since
        tile = Image.new("RGB", TILE_PX, (200, 200, 200))
        ImageDraw.Draw(tile).text((8, 8), "cannot be read", fill=(30, 30, 30))
        return Shown(tile, row.label, row_id(row))
    tile, *clip = (_tile(frame_CHW.permute(1, 2, 0).numpy()) for frame_CHW in read_TCHW)
    return Shown(tile, row.label, row_id(row), clip=tuple(clip), clip_ms=clip_ms)


def clip_around_middle(row: VideoRow) -> tuple[list[int], int]:
    """Frames of at most ``CLIP_SECONDS`` around the middle of a video's window, spread evenly, and milliseconds for each."""
    fps = row.fps if row.fps > 0 else 25.0
    span = max(1, min(row.window_frames, round(CLIP_SECONDS * fps)))
    count = min(CLIP_FRAMES, span)
    first = row.start_frame + (row.window_frames - span) // 2
    return [first + k * span // count for k in range(count)], round(1000 * span / fps / count)


def _tile(frame_HWC: np.ndarray) -> Image.Image:
    return ImageOps.contain(Image.fromarray(frame_HWC), TILE_PX, Image.Resampling.LANCZOS)


# ---- the page and the picture


def write_page(stem: Path, lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow], *, seed: int) -> list[Path]:
    """Write the page and the picture of some queries; their paths."""
    page, picture = stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.svg")
    write_text(picture, neighbor_picture(lines, rows))
    write_text(page, neighbor_page(lines, rows, seed=seed))
    return [page, picture]


def neighbor_page(lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow], *, seed: int) -> str:
    """The numbers and the queries as a page of HTML: clips that play inside, no script, nothing loaded."""
    title, videos, weights = heading(rows)
    told = {"title": title, "videos": videos, "weights": weights, "notes": rows[0].context.get("notes", ())}
    return render("neighbors.html", lines=lines, rows=rows, seed=seed, title_of=title_of, **told)


def neighbor_picture(lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow]) -> str:
    """The same as one picture, SVG: one line per query, framed by color and marked by a check or a cross."""
    head = [*heading(rows), recall_line(rows), "left: the query; then its nearest training videos, nearest first"]
    names = short_names(sorted({shown.label for line in lines for shown in line}), _LONGEST_NAME)
    return render("neighbors.svg", lines=lines, head=head, names=names, num_tiles=1 + NEIGHBORS_SHOWN)


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
