"""Results read from files: which numbers they hold, how each was measured, and on which videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol, RetrievalProtocol
from ssvid.results.rows import ResultRow, list_name, read_results
from ssvid.results.summaries import fold_of
from ssvid.settings import as_today, without_speed

# Groups of a recipe that say how numbers are measured.
PROTOCOL_GROUPS = {
    "features": FeatureProtocol,
    "probe": ProbeProtocol,
    "retrieval": RetrievalProtocol,
    "finetune": FinetuneProtocol,
    "track": PropagationProtocol,
}
# The same settings beside a number of a result that names no protocol.
_GROUP_OF = {f"{group.removesuffix('s')}_protocol": group for group in PROTOCOL_GROUPS}


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


@dataclass(frozen=True)
class ProtocolUsed:
    """How a number was measured: the protocol's name ("" where it has none), and the hash of all settings.

    changed: what differs from the protocol's own settings, by its path: (own, used).
    """

    id: str
    sha256: str
    changed: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        """The name, starred where something was changed; the hash where it has none."""
        return (self.id or f"settings {self.sha256[:8]}") + "*" * bool(self.changed)

    def is_named(self, wanted: str) -> bool:
        """Whether ``wanted`` is the id, with or without a version, or the start of the hash; "" is every one."""
        names = (self.id, self.id.partition("@")[0])
        return not wanted or wanted in names or (len(wanted) >= 6 and self.sha256.startswith(wanted))


class Column(NamedTuple):
    """What the numbers below one another have in common. data: which videos: (fold, hash of the names, of the data set)."""

    metric: str
    protocol: ProtocolUsed
    data: tuple[tuple[int, str, str], ...]


def read_result(path: Path, label: str) -> Result:
    """One ``results.json`` of an evaluation.

    Raises:
        DataError: it is none.
    """
    rows = read_results(path)
    plain = json.loads(path.read_text(encoding="utf-8"))
    recipe = as_today(plain.get("recipe", {}))
    return Result(path, label, tuple(rows), recipe, plain.get("per_class", {}), plain.get("versions", {}))


def protocol_of(row: ResultRow) -> ProtocolUsed:
    """How a row was measured. Where nobody wrote it down, the settings beside the number tell."""
    note = row.context.get("protocol")
    if isinstance(note, Mapping):
        return ProtocolUsed(note.get("id", ""), note["sha256"], note.get("changed", {}))
    settings = {
        key: without_speed(PROTOCOL_GROUPS[group], row.context[key]) | {"seed": None} for key, group in _beside(row)
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    return ProtocolUsed("", hashlib.sha256(text.encode()).hexdigest()[:16])


def settings_of(result: Result, row: ResultRow) -> dict[str, Mapping[str, Any]]:
    """Group -> the settings that a row was measured under, without what no number depends on.

    They are those of the result's recipe. A group that the recipe lacks, as one of ``evaluate`` lacks that of its evaluation,
    is taken from beside the number.
    """
    beside = {group: row.context[key] for key, group in _beside(row)}
    of_recipe = {key: value for key, value in result.recipe.items() if key in PROTOCOL_GROUPS}
    return {group: without_speed(PROTOCOL_GROUPS[group], value) for group, value in (beside | of_recipe).items()}


def _beside(row: ResultRow) -> list[tuple[str, str]]:
    """(key, group) of the settings that stand beside a number."""
    return [
        (key, _GROUP_OF[key]) for key, value in row.context.items() if key in _GROUP_OF and isinstance(value, Mapping)
    ]


Key = tuple[str, Column]  # of a number within one result: the network and the column
Numbers = dict[Key, list[ResultRow]]  # of each fold and seed


def numbers_of(result: Result) -> Numbers:
    """(network, column) -> its rows, one for each fold and seed."""
    alike: dict[tuple[str, str, ProtocolUsed], list[ResultRow]] = {}
    for row in result.rows:
        alike.setdefault((row.name, row.metric, protocol_of(row)), []).append(row)
    return {(name, Column(metric, protocol, _data_of(rows))): rows for (name, metric, protocol), rows in alike.items()}


def _data_of(rows: Sequence[ResultRow]) -> tuple[tuple[int, str, str], ...]:
    found = {(fold_of(row), list_name(row.ids), str(row.context.get("manifest_sha256", ""))[:16]) for row in rows}
    return tuple(sorted(found))
