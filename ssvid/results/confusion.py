"""Which classes are told apart: accuracy class by class, and a picture of what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ssvid.columns import width_of
from ssvid.data.manifest import Manifest, row_id
from ssvid.protocols.metrics import title_of
from ssvid.results.names import short_names
from ssvid.results.rows import ResultRow
from ssvid.templates import render

UNREADABLE = "(unreadable)"
_LARGEST_CELL_PX, _SMALLEST_CELL_PX, _ABOUT_PX = 44, 8, 800
_LINE_PX, _MARGIN_PX, _SIGN_PX, _LONGEST_NAME = 14, 12, 6.6, 40
_WRITTEN_FROM_PX = 28  # cells from this size on hold their number


def labels_of(manifest: Manifest) -> dict[str, str]:
    """Name of a video in results -> its label."""
    return {row_id(row): row.label for row in manifest.rows}


def per_class(rows: Sequence[ResultRow], manifest: Manifest) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Network -> metric -> class -> [right, all], over all folds and seeds. Unreadable videos count as wrong.

    Where shares of right views are counted, so is what is right. Numbers of other things than videos have no classes.
    """
    labels = labels_of(manifest)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in (row for row in rows if "units" not in row.context):
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


def confusion_picture(rows: Sequence[ResultRow], manifest: Manifest) -> str:
    """The first network's confusions as SVG, each class's videos as shares of a line; "" where no class was predicted."""
    predicted = [row for row in rows if row.context.get("predictions")]
    if not predicted:
        return ""
    mine = [row for row in predicted if (row.name, row.metric) == (predicted[0].name, predicted[0].metric)]
    columns, counts = confusion(mine, labels_of(manifest))
    title = f"{mine[0].name}, {title_of(mine[0].metric)}: rows: true class; columns: prediction; % of the row"
    return draw_confusion(title, columns, counts)


def draw_confusion(title: str, columns: Sequence[str], counts: np.ndarray) -> str:
    """One cell for each pair of classes that occurs; right answers blue, wrong ones red, darker is more."""
    num_rows, num_columns = counts.shape
    names = [*short_names(columns, _LONGEST_NAME).values()]
    cell = min(_LARGEST_CELL_PX, max(_SMALLEST_CELL_PX, _ABOUT_PX // num_columns))
    step = max(1, -(-_LINE_PX // cell))  # classes whose names are written, where lines are lower than letters
    side = round(_SIGN_PX * max(map(width_of, names))) + 2 * _MARGIN_PX
    top = side + 2 * _LINE_PX
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = [
        (i, j, share[i, j], share[i, j] ** 0.5, f"{columns[i]} as {columns[j]}: {counts[i, j]} of {counts[i].sum()}")
        for i, j in np.argwhere(counts)
    ]  # the root, so that one mistake in a hundred is seen
    return render(
        "confusion.svg",
        title=title,
        width=max(side + num_columns * cell, round(_SIGN_PX * len(title))) + 2 * _MARGIN_PX,
        height=top + num_rows * cell + _MARGIN_PX,
        cell=cell,
        has_numbers=cell >= _WRITTEN_FROM_PX,
        side=side,
        top=top,
        cells=cells,
        num_rows=num_rows,
        num_columns=num_columns,
        rows=[(i, names[i]) for i in range(0, num_rows, step)],
        columns=[(j, names[j]) for j in range(0, num_columns, step)],
    )
