"""A report as text, Markdown, LaTeX or CSV. All say the same: ``ssvid.results.table.Table``."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ssvid.columns import aligned, rule
from ssvid.results.summaries import Summary
from ssvid.results.table import Line, Table
from ssvid.templates import render

PUBLISHED = "published by others, not measured here"
DIFFERENCES = "paired differences over the same videos, in points"
_HOW = "in percent; [..] is the 95 % interval, over the test videos and their groups; sd is the standard deviation over folds or seeds"

_WIDEST = 150  # characters of a block of text

Grid = list[list[str]]


def cell_text(cell: Summary | None, *, signed: bool = False) -> str:
    """``81.3 [76.0, 87.1] sd 1.2 (3 folds) sd 0.4 (2 seeds)``; ``-`` where nothing was measured."""
    if cell is None:
        return "-"
    plus = "+" if signed else ""
    low, high = cell.interval
    spread = [f"sd {100 * value:.1f} ({count} {what})" for value, count, what in cell.spreads]
    return " ".join([f"{100 * cell.value:{plus}.1f} [{100 * low:{plus}.1f}, {100 * high:{plus}.1f}]", *spread])


def line_title(line: Line) -> str:
    """The network, and the notes that hold for it."""
    marks = "".join(f"[{number}]" for number in line.marks)
    return f"{line.title} {marks}".rstrip()


def grids(table: Table) -> tuple[Grid, Grid, Grid]:
    """Lines of cells without heads: what was measured, chance last; differences; others' numbers, last where they stand."""
    chance = ["chance", *(f"{100 * level:.1f}" for level in table.chances)]
    columns = range(len(table.columns))
    published = [
        [line.title, *(f"{100 * line.values[i]:.1f}" if i in line.values else "-" for i in columns), line.source]
        for line in table.published
    ]
    return [*_cells(table.lines, columns), chance], _cells(table.differences, columns, signed=True), published


def _cells(lines: Iterable[Line], columns: range, *, signed: bool = False) -> Grid:
    return [[line_title(line), *(cell_text(line.cells.get(i), signed=signed) for i in columns)] for line in lines]


def _heads(table: Table) -> Grid:
    """Three lines of heads: metric, protocol, videos."""
    return [[corner, *(head[k] for head in table.heads)] for k, corner in enumerate(("%", "", ""))]


# ---- text


def as_text(table: Table) -> str:
    """Columns of characters with three lines of heads; where they are wider than a screen, one block below another."""
    blocks = [_block(table, columns) for columns in _blocks(table)]
    sources = [f"  {line.title}: {line.source}" for line in table.published]
    parts = [*blocks, "\n".join([f"{PUBLISHED}; where they stand:", *sources])] if sources else blocks
    return "\n\n".join([*parts, "\n".join(_below(table))])


def _blocks(table: Table) -> list[list[int]]:
    """Numbers of the columns that stand side by side: those of one protocol and set of videos, more where they fit."""
    blocks: list[list[int]] = []
    for _, group in itertools.groupby(range(len(table.columns)), key=lambda i: table.columns[i][1:]):
        columns = list(group)
        if blocks and _width(table, [*blocks[-1], *columns]) <= _WIDEST:
            blocks[-1] += columns
            continue
        blocks.append([])
        for i in columns:
            if blocks[-1] and _width(table, [*blocks[-1], i]) > _WIDEST:
                blocks.append([])
            blocks[-1].append(i)
    return blocks


def _width(table: Table, columns: Sequence[int]) -> int:
    return max(map(len, _block(table, columns).splitlines()))


def _block(table: Table, columns: Sequence[int]) -> str:
    """Some columns of the table, without the lines that have nothing there."""
    picked = [0, *(i + 1 for i in columns)]
    heads, *parts = ([[line[i] for i in picked] for line in part] for part in (_heads(table), *grids(table)))
    measured, differences, published = ([line for line in part if set(line[1:]) != {"-"}] for part in parts)
    lines = aligned([*heads, *measured, *differences, *published])
    line = rule(lines)
    lines.insert(len(heads) + len(measured) - 1, line)
    lines.insert(len(heads), line)
    below = len(heads) + len(measured) + 2
    parts_below = [
        (DIFFERENCES, lines[below : below + len(differences)]),
        (PUBLISHED, lines[below + len(differences) :]),
    ]
    told = [text for title, part in parts_below if part for text in ("", f"{title}:", *part)]
    return "\n".join([*lines[:below], *told])


def _below(table: Table) -> list[str]:
    return [_HOW + ".", *(f"protocol {line}" for line in table.about), *table.notes]


# ---- Markdown and LaTeX

_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*_|<>"}


def as_markdown(table: Table) -> str:
    """Pipe tables, as GitHub and Sphinx read them."""
    return _laid_out("table.md", _MARKDOWN, table)


def as_latex(table: Table) -> str:
    """A ``table`` that needs no package: the measured lines, the differences, then what others published."""
    return _laid_out("table.tex", _TEX, table)


def _laid_out(template: str, meaning: Mapping[str, str], table: Table) -> str:
    """The table by a template. meaning: signs that mean something there, and how they are written to mean nothing."""

    def plain(told: Any) -> Any:
        if isinstance(told, str):
            return "".join(meaning.get(sign, sign) for sign in " ".join(told.split()))
        return [plain(part) for part in told]

    measured, differences, published = map(plain, grids(table))
    told = render(
        template,
        columns=[*zip(*plain(_heads(table)), strict=True)][1:],
        measured=measured,
        parts=[(DIFFERENCES, differences, []), (PUBLISHED, published, ["source"])],
        below=plain(_below(table)),
        sources=plain([f"{line.title}: {line.source}" for line in table.published]),
    )
    return told.rstrip("\n")


# ---- CSV

CSV_COLUMNS = (
    "what", "result", "network", "metric", "protocol", "changed", "protocol_sha256", "videos", "fold", "seed", "value",
    "low95", "high95", "std_over_folds", "std_over_seeds", "num_folds", "num_seeds", "num_videos", "num_groups", "chance",
    "source",
)  # fmt: skip


def as_csv(table: Table) -> str:
    """One line for each number, in full precision, shares of 1.

    what: measured, difference or published; ``run`` for one fold and seed of a measured one that has several.
    """
    content = io.StringIO()
    writer = csv.DictWriter(content, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for what, lines in (("measured", table.lines), ("difference", table.differences)):
        for line in lines:
            for i, cell in line.cells.items():
                writer.writerows(_csv_lines(table, what, line, i, cell))
    for published in table.published:
        for i, value in published.values.items():
            own = {"what": "published", "network": published.title, "value": repr(value)}
            writer.writerow(_csv_column(table, i) | own | {"source": published.source})
    return content.getvalue().rstrip("\n")


def _csv_column(table: Table, i: int) -> dict[str, object]:
    column = table.columns[i]
    return {
        "metric": column.metric,
        "protocol": column.protocol.id,
        "changed": json.dumps(column.protocol.changed, sort_keys=True) if column.protocol.changed else "",
        "protocol_sha256": column.protocol.sha256,
        "videos": table.heads[i][2],
        "chance": repr(table.chances[i]),
    }


def _csv_lines(table: Table, what: str, line: Line, i: int, cell: Summary) -> list[dict[str, object]]:
    common = _csv_column(table, i) | {"result": line.result, "network": line.network}
    whole = {
        "what": what,
        "value": repr(cell.value),
        "low95": repr(cell.interval[0]),
        "high95": repr(cell.interval[1]),
        "std_over_folds": "" if cell.over_folds is None else repr(cell.over_folds),
        "std_over_seeds": "" if cell.over_seeds is None else repr(cell.over_seeds),
        "num_folds": cell.num_folds,
        "num_seeds": cell.num_seeds,
        "num_videos": cell.num_videos,
        "num_groups": cell.num_groups,
    }
    runs = [(fold, seed, value) for fold, seeds in cell.values.items() for seed, value in seeds.items()]
    if what != "measured" or len(runs) == 1:
        return [common | whole]
    each: list[dict[str, object]] = [
        common | {"what": "run", "fold": fold, "seed": seed, "value": repr(value)} for fold, seed, value in runs
    ]
    return [common | whole, *each]


TABLE_FORMATS: Mapping[str, Callable[[Table], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}
