"""A whole audit: from answers to judged rows, their table, and what is written to ``audit.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ssvid.audits.counterfactuals import Counterfactual
from ssvid.audits.intervals import Estimate, Resampler
from ssvid.audits.measuring import CLEAN, Answers
from ssvid.audits.verdicts import AuditRow, Standard, conclusions, judge_all, worst
from ssvid.columns import aligned
from ssvid.intervals import LEVEL

# Of a family of counterfactuals the worst is told, so that its interval must bear being picked (Bonferroni).
FAMILIES = ("occluded",)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. Prints as a table, then the rows in words, then the conclusions.

    standard: task, metric, chance, clean value. rows: one per counterfactual, of a family the worst. all_rows: every
    member too. conclusions: what is held against the network. num_videos, num_clips: behind every number.
    notes: what the reader must know of the clips. context: everything else that the numbers depend on; plain types.
    """

    standard: Standard
    rows: tuple[AuditRow, ...]
    all_rows: tuple[AuditRow, ...]
    conclusions: tuple[str, ...]
    num_videos: int
    num_clips: int
    notes: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json`` and ``audit.json``."""
        return {
            "conclusions": list(self.conclusions),
            **asdict(self.standard),
            "num_videos": self.num_videos,
            "num_clips": self.num_clips,
            "rows": [_plain(row) for row in self.rows],
            "all_rows": [_plain(row) for row in self.all_rows],
            "notes": list(self.notes),
            **self.context,
        }

    def __str__(self) -> str:
        s = self.standard
        low, high = s.clean_interval
        chance = "not known" if s.chance is None else s.number(s.chance)
        head = [
            f"{s.task}: {self.num_clips:,} clips of {self.num_videos:,} videos; {s.metric} on clean clips "
            f"{s.number(s.clean)} ({s.number(low)} to {s.number(high)}), chance {chance}"
        ]
        words = [f"  - {row.label}: {row.verdict}" for row in self.rows]
        notes = [f"note: {note}" for note in self.notes]
        found = ["conclusion:", *(f"  - {line}" for line in self.conclusions)]
        return "\n".join([*head, "", *table(self.rows, s), "", "in words:", *words, "", *notes, *found])


def _plain(row: AuditRow) -> dict[str, Any]:
    return asdict(row) | {"finding": str(row.finding)}


def table(rows: Sequence[AuditRow], standard: Standard) -> list[str]:
    """Lines of text: counterfactual, metric, difference with its interval, what the task declares, whether it is held."""
    cells = [("counterfactual", standard.metric, f"difference in {standard.unit}, 95 %", "declared", "")]
    for row in rows:
        low, high = row.difference_interval
        difference = f"{_signed(row.difference, standard)} ({_signed(low, standard)} to {_signed(high, standard)})"
        mark = "<- held against it" if row.held_against else ""
        cells.append((row.label, standard.number(row.measured), difference, row.declared or "-", mark))
    return aligned(cells, right=(1, 2))


def _signed(difference: float, standard: Standard) -> str:
    return f"{100 * difference:+.1f}" if standard.is_share else f"{difference:+.3g}"


def make_rows(found: Mapping[Counterfactual, Answers], resampler: Resampler) -> tuple[Estimate, list[AuditRow]]:
    """The estimate on clean clips, and a row that is not yet judged for every counterfactual."""
    clean = resampler.estimate(found[CLEAN].records)
    kinds = [c.name for c in found]
    rows = []
    for counterfactual, answers in found.items():
        if counterfactual == CLEAN:
            continue
        looks = kinds.count(counterfactual.name) if counterfactual.name in FAMILIES else 1
        level = 1 - (1 - LEVEL) / looks
        measured = resampler.estimate(answers.records)
        difference = measured.minus(clean)
        rows.append(
            AuditRow(
                name=counterfactual.name,
                value=counterfactual.value,
                place=counterfactual.place,
                measured=measured.value,
                measured_interval=measured.interval(level),
                difference=difference.value,
                difference_interval=difference.interval(level),
                level=level,
                share_changed=answers.share_changed,
            )
        )
    return clean, rows


def report_of(
    rows: Sequence[AuditRow],
    standard: Standard,
    *,
    num_videos: int,
    num_clips: int,
    notes: Sequence[str] = (),
    context: Mapping[str, Any] | None = None,
) -> AuditReport:
    """Judge the rows, of each family the worst, and draw the conclusions."""
    judged = judge_all(rows, standard)
    told = judge_all(_without_families(rows), standard)
    found = tuple(conclusions(told, standard))
    return AuditReport(
        standard, tuple(told), tuple(judged), found, num_videos, num_clips, tuple(notes), dict(context or {})
    )


def _without_families(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """The rows, each family replaced by its worst at the place of its first."""
    told: list[AuditRow] = []
    for row in rows:
        family = [other for other in rows if other.name == row.name]
        if row.name not in FAMILIES:
            told.append(row)
        elif row is family[0]:
            told.append(worst(family))
    return told
