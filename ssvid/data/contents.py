"""Which videos are the same, and which belong together. No file is opened and no torch is imported here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssvid.video.identity import is_quick

if TYPE_CHECKING:
    from ssvid.data.manifest import VideoRow

QUICK_WORDS = (
    "compared by size, first and last 64 KiB, as ssvid once told videos apart: different videos may count as one"
)
NOT_COMPARABLE_WORDS = (
    "their table knows no identity that the weights know; write it again with ssvid data index ROOT --overwrite"
)


@dataclass(frozen=True)
class Contents:
    """The contents of a set of videos, however they are known, and which other videos are among them.

    Tables, checkpoints and exports of today know the whole content of a file, old ones its quick id
    (``ssvid.video.identity``). A video of today is compared with an old set by its quick id, which stands in its row.

    ids: of every video the best that is known. quick: the quick ids of all, as far as they are known.
    """

    ids: frozenset[str]
    quick: frozenset[str] = frozenset()

    @classmethod
    def of_ids(cls, ids: Iterable[str]) -> Contents:
        """Of what a checkpoint or an export holds."""
        return cls(frozenset(ids) - {""})

    @classmethod
    def of_rows(cls, rows: Iterable[VideoRow]) -> Contents:
        """Of the rows of a table."""
        rows = list(rows)
        own = frozenset(row.source_id or row.content_id for row in rows) - {""}
        return cls(own, frozenset(row.quick_id for row in rows) - {""})

    @property
    def has_quick(self) -> bool:
        """Whether something in it is known by its quick id alone."""
        return any(map(is_quick, self.ids))

    def holds(self, row: VideoRow) -> bool:
        """Whether a video is in the set, as far as that can be told."""
        return bool(_known_as(row) & self.ids) or row.content_id in self.quick

    def can_tell(self, row: VideoRow) -> bool:
        """Whether ``holds`` means anything: what is known of the video is of a kind that is known of the whole set."""
        if self.holds(row):
            return True
        kinds = {is_quick(identity) for identity in _known_as(row)}
        of_set = {is_quick(identity) for identity in self.ids}
        return of_set <= kinds or (True in kinds and len(self.quick) >= len(self.ids))


def _known_as(row: VideoRow) -> frozenset[str]:
    return frozenset((row.content_id, row.source_id, row.quick_id)) - {""}


def units_of(rows: Sequence[VideoRow]) -> list[str]:
    """For every row, the name of the smallest set of rows that must not be torn apart.

    Rows that share a group or the same content belong together (union-find over these keys); a row that has neither
    stands alone, by its path. This is the one rule for hold-outs, folds and fits.
    """
    parents: dict[str, str] = {}

    def find(key: str) -> str:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    by_quick = any(is_quick(row.source_id or row.content_id) for row in rows)
    keys = [_unit_keys(row, by_quick=by_quick) for row in rows]
    for first, *others in keys:
        for other in others:
            # The smaller name leads, and "1 group" sorts before "2 content": a group keeps its draw as files join it.
            low, high = sorted((find(first), find(other)))
            parents[high] = low
    return [find(first) for first, *_ in keys]


def _unit_keys(row: VideoRow, *, by_quick: bool) -> list[str]:
    contents = {row.source_id or row.content_id, row.quick_id if by_quick else ""} - {""}
    keys = [f"1 group {row.group}"] if row.group else []
    keys += [f"2 content {content}" for content in sorted(contents)]
    return keys or [f"3 path {row.path}"]


def drawn_names(rows: Sequence[VideoRow], units: Sequence[str]) -> Mapping[str, str]:
    """Unit -> the name by which its side is drawn.

    Content without a group is drawn by its quick id where that is its alone: so a folder that is indexed anew holds out
    the videos that its old table held out.
    """
    quick = {
        unit: f"2 content {row.quick_id}"
        for row, unit in zip(rows, units, strict=True)
        if unit.startswith("2 content") and row.quick_id and not row.source_id
    }
    owners = Counter(quick.values())
    return {unit: quick[unit] if unit in quick and owners[quick[unit]] == 1 else unit for unit in units}
