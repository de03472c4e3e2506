"""One table over any number of results: networks down, metrics across, one protocol and one set of videos to a column.

Two numbers share a column only where they were measured in the same way on the same test videos. Everything that is
printed, in whatever format, comes from ``Table``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ssvid.errors import DataError
from ssvid.protocols.contract import leaves_of
from ssvid.protocols.metrics import title_of
from ssvid.protocols.named import named_protocol
from ssvid.results.reading import Column, Numbers, ProtocolUsed, Result, numbers_of, protocol_of, settings_of
from ssvid.results.rows import ResultRow, compare_rows, videos_in_groups
from ssvid.results.summaries import Summary, fold_of, summarize, summarize_difference, summary_of_row

PRETRAINED = "pretrained"
BASELINES = ("placebo", "random")  # what a pretrained network is compared with, in this order


@dataclass(frozen=True)
class Line:
    """One network, or one difference of two. result: label of the file it stands in, "" where all files agree on it.

    cells: number of the column -> its number there. marks: numbers of the notes that hold for it, from 1.
    """

    result: str
    network: str
    cells: Mapping[int, Summary]
    marks: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.result}: {self.network}" if self.result else self.network


@dataclass(frozen=True)
class PublishedLine:
    """Numbers of others, in [0, 1]: number of the column -> value. They were not measured here."""

    method: str
    backbone: str
    pretraining: str
    source: str
    protocol: str
    values: Mapping[int, float]

    @property
    def title(self) -> str:
        """Whose number it is: method, network and what it was pretrained on."""
        return f"{self.method}, {self.backbone}, {self.pretraining}"


@dataclass(frozen=True)
class Table:
    """Everything that a report says. heads: for each column its metric, its protocol and what its videos are.

    chances: for each column. notes: what must be known; those that hold for some lines only are marked there.
    about: what the columns' protocols are.
    """

    columns: tuple[Column, ...]
    heads: tuple[tuple[str, str, str], ...]
    chances: tuple[float, ...]
    lines: tuple[Line, ...]
    differences: tuple[Line, ...]
    published: tuple[PublishedLine, ...]
    about: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, in full precision."""
        columns = [
            {
                "metric": column.metric,
                "protocol": asdict(column.protocol),
                "videos": [{"fold": fold, "names": names, "data_set": data} for fold, names, data in column.data],
                "chance": chance,
            }
            for column, chance in zip(self.columns, self.chances, strict=True)
        ]
        return {
            "columns": columns,
            "lines": [_plain_line(line) for line in self.lines],
            "differences": [_plain_line(line) for line in self.differences],
            "published": [
                {**vars(line), "values": {str(i): value for i, value in line.values.items()}} for line in self.published
            ],
            "about": list(self.about),
            "notes": list(self.notes),
        }


_KEYS_OF_CELLS = (
    *("value", "interval95", "std_over_folds", "std_over_seeds"),
    *("values", "num_videos", "num_groups"),
)


def _plain_line(line: Line) -> dict[str, Any]:
    cells = {str(i): {key: cell.as_dict()[key] for key in _KEYS_OF_CELLS} for i, cell in line.cells.items()}
    return {"result": line.result, "network": line.network, "cells": cells, "notes": list(line.marks)}


# ---- the table


def build_table(results: Sequence[Result], *, metrics: Sequence[str] = (), protocol: str = "") -> Table:
    """The table of the results. metrics: only these, all where there are none. protocol: only columns under this one.

    Raises:
        DataError: nothing is left, or a network lacks a fold or seed that it has for another.
    """
    found = [(label, _wanted(numbers, metrics, protocol)) for label, numbers in _by_label(results).items()]
    columns = _ordered(column for _, numbers in found for _, column in numbers)
    if not columns:
        raise DataError(_nothing_left(results, metrics, protocol))
    place = {column: i for i, column in enumerate(columns)}
    facts: dict[str, list[int]] = {}
    lines, differences = [], []
    for label, numbers in found:
        for name in dict.fromkeys(name for name, _ in numbers):
            mine = {place[column]: rows for (network, column), rows in numbers.items() if network == name}
            cells = {i: _cell(mine[i]) for i in sorted(mine)}
            lines.append((Line(label, name, cells), mine))
        differences += _differences(label, numbers, place, facts)
    if len({result.label for result in results}) == 1:
        differences = [replace(line, result="") for line in differences]
    merged = _merged(lines)
    notes, marked = _noted(merged, facts)
    return Table(
        tuple(columns),
        tuple(_heads(columns, found, _settings_of(columns, results))),
        tuple(_chance(column, found) for column in columns),
        tuple(marked),
        tuple(differences),
        tuple(_published(columns)),
        tuple(_about(columns)),
        tuple(notes),
    )


def _by_label(results: Sequence[Result]) -> dict[str, Numbers]:
    """Label -> the numbers of all results that share it: evaluations of one run, none of which is in two of them."""
    found: dict[str, Numbers] = {}
    for result in results:
        found.setdefault(result.label, {}).update(numbers_of(result))
    return found


def _wanted(numbers: Numbers, metrics: Sequence[str], protocol: str) -> Numbers:
    return {
        (name, column): rows
        for (name, column), rows in numbers.items()
        if (not metrics or column.metric in metrics) and column.protocol.is_named(protocol)
    }


def _nothing_left(results: Sequence[Result], metrics: Sequence[str], protocol: str) -> str:
    known = sorted({row.metric for result in results for row in result.rows})
    protocols = sorted({p.id or p.sha256 for result in results for p in map(protocol_of, result.rows)})
    asked = [f"metric {' or '.join(metrics)}"] * bool(metrics) + [f"protocol {protocol}"] * bool(protocol)
    return (
        f"no number of {' and '.join(asked) or 'any kind'} is in the {len(results)} results. They hold the metrics "
        f"{', '.join(known)} under the protocols {', '.join(protocols)}. Ask for these, or leave --metric and --protocol out."
    )


def _ordered(columns: Iterable[Column]) -> list[Column]:
    """Columns of one protocol and one set of videos beside one another, otherwise as they come."""
    seen = list(dict.fromkeys(columns))
    groups = list(dict.fromkeys((column.protocol, column.data) for column in seen))
    return sorted(seen, key=lambda column: groups.index((column.protocol, column.data)))


def _cell(rows: list[ResultRow]) -> Summary:
    if len(rows) == 1:
        return summary_of_row(rows[0])
    (summary,) = summarize(rows)
    return summary


def _chance(column: Column, found: Sequence[tuple[str, Numbers]]) -> float:
    levels = [r.chance for _, numbers in found for key, rows in numbers.items() if key[1] == column for r in rows]
    return levels[0] if len(set(levels)) == 1 else float(np.mean(levels))


def _heads(
    columns: Sequence[Column], found: Sequence[tuple[str, Numbers]], settings: Mapping[ProtocolUsed, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """(metric, protocol, videos) of each column; what two heads would share gets its hash, and settings that differ."""
    protocols = {column.protocol for column in columns}
    alike = {p for p in protocols if sum(q.title == p.title for q in protocols) > 1}
    videos = _video_names(columns, found)
    heads = []
    for column in columns:
        protocol = column.protocol.title + (f" [{column.protocol.sha256[:8]}]" if column.protocol in alike else "")
        beside = list(dict.fromkeys(c.protocol for c in columns if c.metric == column.metric))
        own = differing_settings(column.protocol, beside, settings)
        heads.append((title_of(column.metric), f"{protocol}: {own}" if own else protocol, videos[column.data]))
    return heads


_MOST_SETTINGS = 4  # that a head names


def differing_settings(
    protocol: ProtocolUsed, beside: Sequence[ProtocolUsed], settings: Mapping[ProtocolUsed, Mapping[str, Any]]
) -> str:
    """The settings of a protocol without a name in which it differs from those that the same metric was measured under."""
    if protocol.id or len(beside) < 2:
        return ""
    known = [settings[p] for p in beside if settings.get(p)]
    shared = set.intersection(*(set(k) for k in known)) if len(known) > 1 else set()
    differ = [key for key in settings[protocol] if key in shared and len({repr(k[key]) for k in known}) > 1]
    told = [f"{key}={settings[protocol][key]}" for key in differ[:_MOST_SETTINGS]]
    return ", ".join(told + ["..."] * (len(differ) > _MOST_SETTINGS))


def _settings_of(columns: Sequence[Column], results: Sequence[Result]) -> dict[ProtocolUsed, dict[str, Any]]:
    """Protocol -> ``group.key`` -> value, of a number that was measured under it; {} where nobody wrote them down."""
    wanted = {column.protocol for column in columns}
    found: dict[ProtocolUsed, dict[str, Any]] = {protocol: {} for protocol in wanted}
    for result in results:
        for row in result.rows:
            protocol = protocol_of(row)
            if protocol in wanted and not found[protocol]:
                found[protocol] = dict(leaves_of(settings_of(result, row)))
    return found


def _video_names(columns: Sequence[Column], found: Sequence[tuple[str, Numbers]]) -> dict[Any, str]:
    """What each set of test videos is called: how many, of which folds, and a hash where two would look the same."""
    names: dict[Any, str] = {}
    for column in columns:
        rows = next(rows for _, numbers in found for key, rows in numbers.items() if key[1] == column)
        folds = sorted({fold_of(row) for row in rows} - {0})
        ids = {video for row in rows for video in row.ids}
        told = f", fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}" if folds else ""
        groups = {group for row in rows for group in (row.groups or row.ids)}
        nouns = [noun.removeprefix("test ") for noun in rows[0].nouns]
        names[column.data] = videos_in_groups(len(ids), len(groups), *nouns) + told
    return {
        data: name + (f" [{data[0][1][:4]}{data[0][2][:4]}]" if list(names.values()).count(name) > 1 else "")
        for data, name in names.items()
    }


# ---- lines


def _merged(lines: Sequence[tuple[Line, dict[int, list[ResultRow]]]]) -> list[tuple[Line, dict[int, list[ResultRow]]]]:
    """Baselines that several results share to the last digit once, without a label; labels only where they tell apart."""
    kept: list[tuple[Line, dict[int, list[ResultRow]]]] = []
    for line, rows in lines:
        same = [i for i, (other, _) in enumerate(kept) if line.network != PRETRAINED and _is_same(line, other)]
        if same:
            other, all_rows = kept[same[0]]
            kept[same[0]] = Line("", other.network, {**line.cells, **other.cells}), {**rows, **all_rows}
        else:
            kept.append((line, rows))
    if len({line.result for line, _ in lines}) == 1:
        return [(Line("", line.network, line.cells), rows) for line, rows in kept]
    return kept


def _is_same(a: Line, b: Line) -> bool:
    shared = a.cells.keys() & b.cells.keys()
    return a.network == b.network and bool(shared) and all(a.cells[i] == b.cells[i] for i in shared)


def _noted(
    lines: Sequence[tuple[Line, dict[int, list[ResultRow]]]], facts: dict[str, list[int]]
) -> tuple[list[str], list[Line]]:
    """Every fact once, and the lines with the numbers of those that hold for them alone."""
    for number, (_, of) in enumerate(lines):
        for fact in dict.fromkeys(
            note for rows in of.values() for row in rows for note in row.context.get("notes", ())
        ):
            if not fact.startswith("protocol "):  # the columns' heads say it
                facts.setdefault(fact, []).append(number)
    some = {fact: holders for fact, holders in facts.items() if 0 < len(holders) < len(lines)}
    numbers = {fact: i + 1 for i, fact in enumerate(some)}
    marked = [
        Line(line.result, line.network, line.cells, tuple(n for fact, n in numbers.items() if i in some[fact]))
        for i, (line, _) in enumerate(lines)
    ]
    return [*(f"[{n}] {fact}" for fact, n in numbers.items()), *(fact for fact in facts if fact not in some)], marked


def _differences(label: str, numbers: Numbers, place: Mapping[Column, int], facts: dict[str, list[int]]) -> list[Line]:
    """Pretrained minus each baseline, paired over the videos, in every column that has both."""
    lines = []
    for baseline in BASELINES:
        cells: dict[int, Summary] = {}
        for column, i in place.items():
            ours, theirs = numbers.get((PRETRAINED, column)), numbers.get((baseline, column))
            if not ours or not theirs:
                continue
            try:
                cells[i] = _difference(ours, theirs)
            except DataError as error:
                facts.setdefault(f"no paired difference {PRETRAINED} - {baseline}: {error}", [])
        if cells:
            lines.append(Line(label, f"{PRETRAINED} - {baseline}", cells))
    return lines


def _difference(ours: list[ResultRow], theirs: list[ResultRow]) -> Summary:
    if len(ours) == len(theirs) == 1:
        found = compare_rows(ours[0], theirs[0])
        whole = summary_of_row(replace(ours[0], value=found.mean, interval=found.interval))
        return replace(whole, num_videos=found.num_videos, num_groups=found.num_groups)
    names = ours[0].name, theirs[0].name
    return summarize_difference([*ours, *theirs], *names, ours[0].metric)


# ---- what stands below


def _published(columns: Sequence[Column]) -> list[PublishedLine]:
    """Numbers of others under the columns' protocols, in percent there and as shares here."""
    lines = []
    for name in dict.fromkeys(column.protocol.id for column in columns if column.protocol.id):
        for p in named_protocol(name).published:
            values = {
                i: p.values[column.metric] / 100
                for i, column in enumerate(columns)
                if column.protocol.id == name and column.metric in p.values
            }
            if values:
                lines.append(PublishedLine(p.method, p.backbone, p.pretraining, p.source, name, values))
    return lines


def _about(columns: Sequence[Column]) -> list[str]:
    """Each protocol in one line: what was changed of it, and the hash of all settings."""
    lines = []
    for protocol in dict.fromkeys(column.protocol for column in columns):
        changed = ", ".join(f"{path}={used!r} instead of {own!r}" for path, (own, used) in protocol.changed.items())
        own = "" if protocol.id else ", which have no name"
        lines.append(f"{protocol.title}{f', CHANGED: {changed}' if changed else own} [{protocol.sha256}]")
    return lines
