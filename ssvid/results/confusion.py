"""Which classes are told apart: accuracy class by class, and a picture of what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssvid.data.manifest import Manifest, row_id
from ssvid.protocols.metrics import title_of
from ssvid.results.lettering import drawable, short_names, width_px, write
from ssvid.results.rows import ResultRow

UNREADABLE = "(unreadable)"
_LARGEST_CELL_PX, _SMALLEST_CELL_PX, _ABOUT_PX = 44, 8, 800
_LINE_PX, _MARGIN_PX, _LONGEST_NAME = 14, 12, 40
_WRITTEN_FROM_PX = 28  # cells from this size on hold their number
_PAPER, _INK, _RIGHT, _WRONG = (255, 255, 255), (20, 20, 20), (31, 111, 180), (192, 80, 77)


def labels_of(manifest: Manifest) -> dict[str, str]:
    """Name of a video in results -> its label."""
    return {row_id(row): row.label for row in manifest.rows}


def per_class(rows: Sequence[ResultRow], manifest: Manifest) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Network -> metric -> class -> [right, all], over all folds and seeds. Unreadable videos count as wrong.

    Where shares of right views are counted, so is what is right.
    """
    labels = labels_of(manifest)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        classes = found.setdefault(row.name, {}).setdefault(row.metric, {})
        for video, right in zip(row.ids, row.correct_N, strict=True):
            counts = classes.setdefault(labels[video], [0, 0])
            counts[0] += right.item()
            counts[1] += 1
    return {
        name: {metric: dict(sorted(classes.items())) for metric, classes in of.items()} for name, of in found.items()
    }


def confusion(rows: Sequence[ResultRow], labels: Mapping[str, str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes, and counts (true, predicted) over the rows, which must hold ``predictions``; unreadable is a last column."""
    pairs = [
        (labels[video], said or UNREADABLE)
        for row in rows
        for video, said in zip(row.ids, row.context["predictions"], strict=True)
    ]
    classes = sorted({true for true, _ in pairs} | {said for _, said in pairs if said != UNREADABLE})
    columns = [*classes, *([UNREADABLE] if any(said == UNREADABLE for _, said in pairs) else [])]
    counts = np.zeros((len(classes), len(columns)), dtype=np.int64)
    where = {name: i for i, name in enumerate(columns)}
    for true, said in pairs:
        counts[where[true], where[said]] += 1
    return tuple(columns), counts


def confusion_picture(rows: Sequence[ResultRow], manifest: Manifest) -> Image.Image | None:
    """The first network's confusions, each class's videos as shares of a line; None where no class was predicted."""
    predicted = [row for row in rows if row.context.get("predictions")]
    if not predicted:
        return None
    mine = [row for row in predicted if (row.name, row.metric) == (predicted[0].name, predicted[0].metric)]
    columns, counts = confusion(mine, labels_of(manifest))
    title = f"{mine[0].name}, {title_of(mine[0].metric)}: rows: true class; columns: prediction; % of the row"
    return draw_confusion(title, columns, counts)


def draw_confusion(title: str, columns: Sequence[str], counts: np.ndarray) -> Image.Image:
    """One cell for each pair of classes; right answers blue, wrong ones red, darker is more."""
    num_rows, num_columns = counts.shape
    names = short_names(columns, _LONGEST_NAME)
    cell = min(_LARGEST_CELL_PX, max(_SMALLEST_CELL_PX, _ABOUT_PX // num_columns))
    step = max(1, -(-_LINE_PX // cell))  # classes whose names are written, where lines are lower than letters
    side = max(map(width_px, names.values())) + 2 * _MARGIN_PX
    top = side + 2 * _LINE_PX
    width = max(side + num_columns * cell, width_px(drawable(title))) + 2 * _MARGIN_PX
    picture = Image.new("RGB", (width, top + num_rows * cell + _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(picture)
    write(draw, (_MARGIN_PX, _MARGIN_PX // 2), drawable(title), _INK)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i in range(num_rows):
        for j in range(num_columns):
            _draw_cell(draw, (side + j * cell, top + i * cell), cell, float(share[i, j]), i == j)
    for i in range(0, num_rows, step):
        write(draw, (_MARGIN_PX, top + i * cell + (cell - _LINE_PX) // 2), names[columns[i]], _INK)
    for j in range(0, num_columns, step):
        name = _vertical(names[columns[j]])
        picture.paste(name, (side + j * cell + (cell - name.width) // 2, top - name.height - 4))
    return picture


def _draw_cell(draw: ImageDraw.ImageDraw, place: tuple[int, int], cell: int, share: float, is_right: bool) -> None:
    color = _RIGHT if is_right else _WRONG
    depth = share**0.5  # so that one mistake in a hundred is seen
    shade: Any = tuple(round(paper + (ink - paper) * depth) for paper, ink in zip((245, 245, 245), color, strict=True))
    left, top = place
    draw.rectangle((left, top, left + cell - 2, top + cell - 2), fill=shade)
    if cell >= _WRITTEN_FROM_PX and share > 0:
        text = f"{100 * share:.0f}"
        ink = _PAPER if depth > 0.6 else _INK
        write(draw, (left + (cell - width_px(text)) // 2, top + (cell - _LINE_PX) // 2), text, ink)


def _vertical(text: str) -> Image.Image:
    """The text from bottom to top."""
    line = Image.new("RGB", (max(1, width_px(text)) + 2, _LINE_PX), _PAPER)
    write(ImageDraw.Draw(line), (0, 0), text, _INK)
    return line.rotate(90, expand=True)
