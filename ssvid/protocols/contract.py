"""What a protocol with a name and a version is: everything that a number depends on, and what it may be compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A number that others report under a protocol. It was not measured here.

    method, backbone, pretraining: as the source names them. values: metric -> percent. source: where it stands.
    """

    method: str
    backbone: str
    pretraining: str
    values: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class NamedProtocol:
    """One version of a protocol.

    kind: of the recipes that may use it. summary: one line. settings: recipe keys, nested as in a recipe. videos: recipe keys
    that say where its videos are, taken where nobody says otherwise; another place is no change of the protocol.
    metrics: what its number is called: the metrics that start with one of these are the protocol's.
    reproduces, source: whose protocol it is; "" where it is our own. differs: how ours differs from the released
    program, each with its reason. defects: what the released program does that ours does not -> the setting that
    switches it on, to compare. published: numbers to stand beside, labeled as published.
    """

    name: str
    version: int
    kind: str
    summary: str
    settings: Mapping[str, Any]
    metrics: tuple[str, ...]
    reproduces: str = ""
    source: str = ""
    differs: tuple[str, ...] = ()
    defects: Mapping[str, str] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    videos: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name and version, as recipes and results say it: ``ucf101-linear@1``."""
        return f"{self.name}@{self.version}"

    def leaves(self) -> dict[str, Any]:
        """``key.path`` -> value of every setting."""
        return dict(leaves_of(self.settings))


def leaves_of(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """``key.path`` and value of every setting of nested ones; an empty group is one."""
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield from leaves_of(value, where)
        else:
            yield where, value
