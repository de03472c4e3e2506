"""One page of HTML about a run: curves, numbers, pictures, machine, recipe. It holds everything and loads nothing."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ssvid import __version__
from ssvid.protocols.metrics import title_of
from ssvid.results.curves import STYLE as CURVES_STYLE
from ssvid.results.curves import Panel, describe, draw_panel, number
from ssvid.results.formats import DIFFERENCES, PUBLISHED, published_title
from ssvid.results.page_style import page_head
from ssvid.results.reading import Result
from ssvid.results.summaries import Summary
from ssvid.results.table import PRETRAINED, Line, Table

T = TypeVar("T")
_AS_IT_IS_BYTES = 60_000  # larger pictures are packed anew
_WIDEST_PX = 1600
_HALF_PX = 700  # of pictures as wide as this or less two stand side by side
_MOST_PICTURES = 24
_MOST_BYTES = 8_000_000  # what a page may weigh and still be mailed


@dataclass(frozen=True)
class Picture:
    """One picture of the page. uri: the whole file. where: "pretraining", or the evaluation it belongs to."""

    name: str
    where: str
    uri: str
    width_px: int
    height_px: int


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
        except (OSError, ValueError) as error:  # Pillow's errors for what is no picture
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
    return Picture(path.name, where, f"data:{kind};base64,{base64.b64encode(content).decode()}", *size)


# ---- the page

_STYLE = """
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .8rem 0 0; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--paper); padding: .3rem .6rem; }
thead th, td { white-space: nowrap; } th[scope=row] { text-align: left; font-weight: 600; overflow-wrap: anywhere; min-width: 8rem; max-width: 26rem; } thead th { border-bottom: 2px solid var(--edge); } thead th:first-child, .facts thead th { text-align: left; }
th small, td small { display: block; color: var(--soft); font-weight: 400; } td.left { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
tr.chance th, tr.chance td { font-style: italic; } .warn { border-left: 4px solid var(--warn); padding: .2rem .8rem; background: var(--shade); }
.panels { display: flex; flex-wrap: wrap; gap: 1rem; } .panels figure { margin: 0; width: 376px; max-width: 100%; } svg.curves { width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem; } .pictures figure { margin: 0; max-width: 100%; } @media (min-width: 60rem) { .pictures .half { max-width: calc(50% - .6rem); } } .pictures img { max-width: 100%; height: auto; display: block; border: 1px solid var(--edge); background: #fff; }
pre { background: var(--shade); padding: .8rem; overflow: auto; max-height: 32rem; font-size: 13px; line-height: 1.4; }
@media print { pre { max-height: none; } nav, .skip { display: none; } }
"""


def render_page(page: RunPage) -> str:
    """The page: no script, nothing from outside, and a policy in its head that would forbid both."""
    sections = [
        ("outcome", "Outcome", _outcome(page)),
        ("results", "Results", _results(page)),
        ("curves", "Curves", _curves(page.panels)),
        ("pictures", "Pictures", _pictures(page)),
        ("environment", "Environment", _environment(page.environment)),
        ("recipe", "Recipe", _recipe(page.recipe)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in shown)
    body = "\n".join(f'<section aria-labelledby="{n}"><h2 id="{n}">{t}</h2>\n{b}\n</section>' for n, t, b in shown)
    title = _text(page.title)
    return (
        f"{page_head(f'{title} - ssvid', _STYLE + CURVES_STYLE)}<body>\n"
        f'<a class="skip" href="#main">Skip to the content</a>\n<header>\n<h1>{title}</h1>\n'
        f'<p class="soft">{page.kind}{"" if page.is_complete else ", not complete"}</p>\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n<main id="main">\n{body}\n</main>\n'
        f'<footer><p class="soft">Written by ssvid {__version__}. This page holds everything that it shows.</p></footer>\n'
        "</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Text that stays text, whatever stands in it; what no page may hold becomes a mark."""
    plain = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in str(value))
    return html.escape(plain, quote=True)


def _table(caption: str, head: Sequence[str], lines: Iterable[str], kind: str = "") -> str:
    """head, lines: HTML. A table wider than the window is scrolled, with the keyboard too."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    label, of = _text(caption), f' class="{kind}"' if kind else ""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}"><table{of}><caption>{label}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(name: str, cells: Iterable[str], kind: str = "") -> str:
    """name, cells: HTML."""
    of = f' class="{kind}"' if kind else ""
    return f'<tr{of}><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


# ---- outcome


def _outcome(page: RunPage) -> str:
    outcome = page.outcome
    if not outcome:
        return "" if page.is_complete else "<p>The run goes on, or was broken off: it wrote no results yet.</p>"
    advice = outcome.get("advice") or {}
    parts = [
        f'<p class="warn"><strong>Warning:</strong> {_text(text)}</p>'
        for text in (advice.get("warnings") or {}).values()
    ]
    if "take" in advice:
        which = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}.get(
            advice["take"], "neither checkpoint"
        )
        parts.append(f"<p><strong>Advice:</strong> take {which}: {_text(advice.get('why', ''))}.</p>")
        parts += [f'<p class="soft">{_text(advice[key])}.</p>' for key in ("known", "unknown") if advice.get(key)]
    parts.append(f"<p>{_text(outcome.get('num_steps', 0))} optimizer steps done.</p>")
    parts.append(_at_the_end(outcome))
    for key, told in (("unreadable", "could not be read"), ("too_short", "are too short"), ("missing", "are missing")):
        names = list(outcome.get(key) or ())
        if names:
            parts.append(
                f"<p>{len(names)} videos {told}: {_text(', '.join(names[:5]))}{', ...' * (len(names) > 5)}</p>"
            )
    return "\n".join(parts)


def _at_the_end(outcome: Mapping[str, Any]) -> str:
    chance = outcome.get("chance", {})
    lines = [
        _row(_text(f"{series}/{name}"), [f"<td>{number(value)}</td>", f"<td>{number(chance[name]) if name in chance else '-'}</td>"])
        for series, values in (("val", outcome.get("metrics")), ("val_ood", outcome.get("out_of_domain")))
        for name, value in (values or {}).items()
        if isinstance(value, int | float)
    ]  # fmt: skip
    return (
        _table("The task's own numbers on held-out videos at the end", ["metric", "value", "chance"], lines)
        if lines
        else ""
    )


# ---- results


def _results(page: RunPage) -> str:
    if page.table is None:
        return "<p>Nothing was evaluated yet.</p>"
    table = page.table
    head = [
        "",
        *(
            f"{_text(metric)}<small>{_text(protocol)}</small><small>{_text(videos)}</small>"
            for metric, protocol, videos in table.heads
        ),
    ]
    count = range(len(table.columns))
    lines = [_row(_line_name(line), [_cell(line.cells.get(i)) for i in count]) for line in table.lines]
    lines.append(_row("chance", [f"<td>{100 * chance:.1f}</td>" for chance in table.chances], "chance"))
    parts = [_table("In percent; below each number its 95 % interval over the test videos", head, lines)]
    if table.differences:
        lines = [
            _row(_line_name(line), [_cell(line.cells.get(i), signed=True) for i in count]) for line in table.differences
        ]
        parts += ["<h3>Differences</h3>", _table(f"{DIFFERENCES[0].upper()}{DIFFERENCES[1:]}", head, lines)]
    parts += _published(table, head)
    parts.append(_list([*(f"protocol {line}" for line in table.about), *table.notes]))
    parts += [part for result in page.results for part in _per_class(result)]
    return "\n".join(parts)


def _line_name(line: Line) -> str:
    marks = "".join(f"[{mark}]" for mark in line.marks)
    return f"{_text(line.title)}{f' <small>note {marks}</small>' if marks else ''}"


def _cell(cell: Summary | None, *, signed: bool = False) -> str:
    if cell is None:
        return "<td>-</td>"
    plus = "+" if signed else ""
    low, high = cell.interval
    spread = [f"<small>sd {100 * value:.1f} over {count} {what}</small>" for value, count, what in cell.spreads]
    interval = f"<small>{100 * low:{plus}.1f} to {100 * high:{plus}.1f}</small>"
    return f"<td>{100 * cell.value:{plus}.1f}{interval}{''.join(spread)}</td>"


def _published(table: Table, head: Sequence[str]) -> list[str]:
    if not table.published:
        return []
    lines = [
        _row(
            _text(published_title(line)),
            [
                *(
                    f"<td>{100 * line.values[i]:.1f}</td>" if i in line.values else "<td>-</td>"
                    for i in range(len(head) - 1)
                ),
                f'<td class="left">{_text(line.source)}</td>',
            ],
        )
        for line in table.published
    ]
    return ["<h3>Published</h3>", _table(f"{PUBLISHED[0].upper()}{PUBLISHED[1:]}", [*head, "source"], lines)]


def _per_class(result: Result) -> list[str]:
    """Class by class for the first network, folded away."""
    network = PRETRAINED if PRETRAINED in result.per_class else next(iter(result.per_class), "")
    metrics = result.per_class.get(network, {})
    if not metrics:
        return []
    classes = list(dict.fromkeys(name for of in metrics.values() for name in of))
    lines = [
        _row(_text(name), [f"<td>{100 * right / total:.0f}<small>{right:.4g} of {total}</small></td>" if total else "<td>-</td>" for right, total in (of.get(name, (0, 0)) for of in metrics.values())])
        for name in classes
    ]  # fmt: skip
    name = result.path.parent.name
    caption = f"{name}, {network}: percent of each class's test videos that were right"
    table = _table(caption, ["class", *(_text(title_of(metric)) for metric in metrics)], lines)
    return [f"<details><summary>Class by class: {_text(name)}</summary>{table}</details>"]


# ---- curves, pictures, environment, recipe


def _curves(panels: Sequence[Panel]) -> str:
    if not panels:
        return ""
    drawn = "".join(f"<figure>{draw_panel(panel, f'curve{i}')}</figure>" for i, panel in enumerate(panels))
    told = _list(f"{panel.title}: {describe(panel)}" for panel in panels)
    return f'<div class="panels">{drawn}</div>\n<details><summary>The curves in words</summary>{told}</details>'


def _pictures(page: RunPage) -> str:
    figures = [
        f'<figure{" class=half" * (picture.width_px <= _HALF_PX)}><img src="{picture.uri}" width="{picture.width_px}" height="{picture.height_px}" '
        f'alt="{_text(_what_it_shows(picture))}"><figcaption>{_text(f"{picture.where}: {picture.name}")}</figcaption></figure>'
        for picture in page.pictures
    ]
    left_out = f"<p>Left out:</p>{_list(page.left_out)}" if page.left_out else ""
    return f'<div class="pictures">{"".join(figures)}</div>{left_out}' if figures or left_out else ""


def _what_it_shows(picture: Picture) -> str:
    """The alternative text: what kind of picture it is; what it shows in numbers stands in the tables."""
    known = {
        "confusion.png": "which classes were taken for which; the numbers stand under class by class",
        "neighbors.png": "queries with their five nearest training videos, right and wrong ones framed",
    }
    return f"{picture.name}: {known.get(picture.name, 'clips as the task sees them')}"


def _environment(environment: Mapping[str, Any]) -> str:
    lines = [_row(_text(name), [f'<td class="left">{_text(value)}</td>']) for name, value in _leaves(environment)]
    return _table("Machine and versions", ["what", "value"], lines, "facts") if lines else ""


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, where)
        elif isinstance(value, list | tuple):
            yield where, ", ".join(map(str, value)) or "none"
        else:
            yield where, value


def _recipe(recipe: str) -> str:
    return (
        f'<pre tabindex="0" aria-label="Resolved recipe"><code>{_text(recipe)}</code></pre>' if recipe.strip() else ""
    )
