"""One table over any number of results: networks down, metrics across, one protocol and one set of videos to a column.

Two numbers share a column only where they were measured in the same way on the same test videos. Everything that is
printed, in whatever format, comes from ``Table``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.errors import DataError
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol, RetrievalProtocol
from ssvid.intervals import Interval
from ssvid.protocols.metrics import title_of
from ssvid.protocols.named import leaves_of, named_protocol
from ssvid.results.rows import ResultRow, compare_rows, read_results, videos_in_groups
from ssvid.results.summaries import Summary, fold_of, seed_of, summarize, summarize_difference
from ssvid.settings import without_gone, without_speed

PRETRAINED = "pretrained"
ANCHORS = ("placebo", "random")  # what a pretrained network is compared with, in this order


@dataclass(frozen=True)
class Result:
    """One ``results.json``. label: how the table calls it. recipe: resolved, {} where the file holds none.

    per_class: network -> metric -> class -> [right, all].
    """

    path: Path
    label: str
    rows: tuple[ResultRow, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    per_class: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


class Protocol(NamedTuple):
    """How a number was measured. changed: what differs from the protocol's own settings, as JSON. sha256: of all settings."""

    id: str
    changed: str
    sha256: str

    @property
    def title(self) -> str:
        """The name, starred where something was changed; the hash where it has none."""
        return (self.id or f"settings {self.sha256[:8]}") + "*" * (self.changed != "{}")


class Column(NamedTuple):
    """What the numbers below one another have in common. data: which videos: (fold, hash of the names, of the data set)."""

    metric: str
    protocol: Protocol
    data: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Cell:
    """One number in [0, 1] with its 95 % interval; a difference is in [-1, 1].

    over_folds, over_seeds: standard deviations, None with fewer than two. values: fold -> seed -> value. num_groups: of the
    videos; as many as videos where each stands by itself.
    """

    value: float
    interval: Interval
    over_folds: float | None
    over_seeds: float | None
    values: Mapping[int, Mapping[int, float]]
    num_videos: int
    num_groups: int

    @property
    def num_folds(self) -> int:
        return len(self.values)

    @property
    def num_seeds(self) -> int:
        return max(len(seeds) for seeds in self.values.values())

    @property
    def spreads(self) -> list[tuple[float, int, str]]:
        """Each standard deviation there is, over how many, of what: ``(0.012, 3, "folds")``."""
        both = ((self.over_folds, self.num_folds, "folds"), (self.over_seeds, self.num_seeds, "seeds"))
        return [(value, count, what) for value, count, what in both if value is not None]


@dataclass(frozen=True)
class Line:
    """One network, or one difference of two. result: label of the file it stands in, "" where all files agree on it.

    cells: number of the column -> its number there. marks: numbers of the notes that hold for it, from 1.
    """

    result: str
    network: str
    cells: Mapping[int, Cell]
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
                "protocol": {
                    "id": column.protocol.id,
                    "changed": json.loads(column.protocol.changed),
                    "sha256": column.protocol.sha256,
                },
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


def _plain_line(line: Line) -> dict[str, Any]:
    cells = {
        str(i): {
            "value": cell.value,
            "interval95": list(cell.interval),
            "std_over_folds": cell.over_folds,
            "std_over_seeds": cell.over_seeds,
            "values": {str(fold): {str(s): v for s, v in seeds.items()} for fold, seeds in cell.values.items()},
            "num_videos": cell.num_videos,
            "num_groups": cell.num_groups,
        }
        for i, cell in line.cells.items()
    }
    return {"result": line.result, "network": line.network, "cells": cells, "notes": list(line.marks)}


# ---- reading


def read_result(path: Path, label: str) -> Result:
    """One ``results.json`` of an evaluation.

    Raises:
        DataError: it is none.
    """
    rows = read_results(path)
    plain = json.loads(path.read_text(encoding="utf-8"))
    return Result(
        path,
        label,
        tuple(rows),
        without_gone(plain.get("recipe", {})),
        plain.get("per_class", {}),
        plain.get("versions", {}),
    )


# Settings beside the numbers of results that name no protocol, by their key.
_PROTOCOLS = {
    "feature_protocol": FeatureProtocol,
    "probe_protocol": ProbeProtocol,
    "retrieval_protocol": RetrievalProtocol,
    "finetune_protocol": FinetuneProtocol,
}


# And in their recipes.
_GROUPS = {
    "features": FeatureProtocol,
    "probe": ProbeProtocol,
    "retrieval": RetrievalProtocol,
    "finetune": FinetuneProtocol,
}


def protocol_of(row: ResultRow) -> Protocol:
    """How a row was measured. Where nobody wrote it down, the settings beside the number tell."""
    note = row.context.get("protocol")
    if isinstance(note, Mapping):
        return Protocol(note.get("id", ""), json.dumps(note.get("changed", {}), sort_keys=True), note["sha256"])
    settings = {
        key: without_speed(_PROTOCOLS[key], value) | {"seed": None}
        for key, value in row.context.items()
        if key in _PROTOCOLS and isinstance(value, Mapping)
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    return Protocol("", "{}", hashlib.sha256(text.encode()).hexdigest()[:16])


Key = tuple[str, Column]  # of a number within one result: the network and the column


def numbers_of(result: Result) -> dict[Key, list[ResultRow]]:
    """(network, column) -> its rows, one for each fold and seed."""
    alike: dict[tuple[str, str, Protocol], list[ResultRow]] = {}
    for row in result.rows:
        alike.setdefault((row.name, row.metric, protocol_of(row)), []).append(row)
    return {(name, Column(metric, protocol, _data_of(rows))): rows for (name, metric, protocol), rows in alike.items()}


def _data_of(rows: Sequence[ResultRow]) -> tuple[tuple[int, str, str], ...]:
    found = {
        (fold_of(row), hashlib.sha256("\0".join(row.ids).encode("utf-8", "surrogateescape")).hexdigest()[:16],
         str(row.context.get("manifest_sha256", ""))[:16])
        for row in rows
    }  # fmt: skip
    return tuple(sorted(found))


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


Numbers = dict[Key, list[ResultRow]]


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
        if (not metrics or column.metric in metrics) and is_named(column.protocol, protocol)
    }


def is_named(protocol: Protocol, wanted: str) -> bool:
    """Whether ``wanted`` is the protocol's id, with or without a version, or the start of its hash; "" is every one."""
    if not wanted:
        return True
    return wanted in (protocol.id, protocol.id.partition("@")[0]) or (
        len(wanted) >= 6 and protocol.sha256.startswith(wanted)
    )


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


def _cell(rows: list[ResultRow]) -> Cell:
    if len(rows) == 1:
        (row,) = rows
        return _single(row, row.value, row.interval, len(row.ids), row.num_groups)
    (summary,) = summarize(rows)
    return _summary_cell(summary)


def _single(row: ResultRow, value: float, interval: Interval, num_videos: int, num_groups: int) -> Cell:
    """Of one fold and seed."""
    return Cell(value, interval, None, None, {fold_of(row): {seed_of(row): value}}, num_videos, num_groups)


def _summary_cell(summary: Summary) -> Cell:
    return Cell(
        summary.value,
        summary.interval,
        summary.over_folds,
        summary.over_seeds,
        summary.values,
        summary.num_videos,
        summary.num_groups,
    )


def _chance(column: Column, found: Sequence[tuple[str, Numbers]]) -> float:
    levels = [r.chance for _, numbers in found for key, rows in numbers.items() if key[1] == column for r in rows]
    return levels[0] if len(set(levels)) == 1 else float(np.mean(levels))


def _heads(
    columns: Sequence[Column], found: Sequence[tuple[str, Numbers]], settings: Mapping[Protocol, Mapping[str, Any]]
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
    protocol: Protocol, beside: Sequence[Protocol], settings: Mapping[Protocol, Mapping[str, Any]]
) -> str:
    """The settings of a protocol without a name in which it differs from those that the same metric was measured under."""
    if protocol.id or len(beside) < 2:
        return ""
    known = [settings[p] for p in beside if settings.get(p)]
    shared = set.intersection(*(set(k) for k in known)) if len(known) > 1 else set()
    differ = [key for key in settings[protocol] if key in shared and len({repr(k[key]) for k in known}) > 1]
    told = [f"{key}={settings[protocol][key]}" for key in differ[:_MOST_SETTINGS]]
    return ", ".join(told + ["..."] * (len(differ) > _MOST_SETTINGS))


def _settings_of(columns: Sequence[Column], results: Sequence[Result]) -> dict[Protocol, dict[str, Any]]:
    """Protocol -> ``group.key`` -> value, from the recipe of a result that was measured under it; {} where there is none."""
    wanted = {column.protocol for column in columns}
    found: dict[Protocol, dict[str, Any]] = {protocol: {} for protocol in wanted}
    for result in results:
        groups = {key: value for key, value in result.recipe.items() if key in _GROUPS}
        leaves = {
            path: value
            for group, values in groups.items()
            for path, value in leaves_of({group: without_speed(_GROUPS[group], values)})
        }
        for protocol in {protocol_of(row) for row in result.rows} & wanted:
            found[protocol] = found[protocol] or leaves
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
        names[column.data] = videos_in_groups(len(ids), len(groups), "videos") + told
    return {
        data: name + (f" [{data[0][1][:4]}{data[0][2][:4]}]" if list(names.values()).count(name) > 1 else "")
        for data, name in names.items()
    }


# ---- lines


def _merged(lines: Sequence[tuple[Line, dict[int, list[ResultRow]]]]) -> list[tuple[Line, dict[int, list[ResultRow]]]]:
    """Anchors that several results share to the last digit once, without a label; labels only where they tell apart."""
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
    """Pretrained minus each anchor, paired over the videos, in every column that has both."""
    lines = []
    for anchor in ANCHORS:
        cells: dict[int, Cell] = {}
        for column, i in place.items():
            ours, theirs = numbers.get((PRETRAINED, column)), numbers.get((anchor, column))
            if not ours or not theirs:
                continue
            try:
                cells[i] = _difference(ours, theirs)
            except DataError as error:
                facts.setdefault(f"no paired difference {PRETRAINED} - {anchor}: {error}", [])
        if cells:
            lines.append(Line(label, f"{PRETRAINED} - {anchor}", cells))
    return lines


def _difference(ours: list[ResultRow], theirs: list[ResultRow]) -> Cell:
    if len(ours) == len(theirs) == 1:
        found = compare_rows(ours[0], theirs[0])
        return _single(ours[0], found.mean, found.interval, found.num_videos, found.num_groups)
    names = ours[0].name, theirs[0].name
    return _summary_cell(summarize_difference([*ours, *theirs], *names, ours[0].metric))


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
        changed = ", ".join(
            f"{path}={used!r} instead of {own!r}" for path, (own, used) in json.loads(protocol.changed).items()
        )
        own = "" if protocol.id else ", which have no name"
        lines.append(f"{protocol.title}{f', CHANGED: {changed}' if changed else own} [{protocol.sha256}]")
    return lines
