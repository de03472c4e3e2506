"""What comes of an evaluation: the rows of all folds and seeds, their summaries, the files beside them, and how they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssvid.data.manifest import Manifest
from ssvid.files import write_text
from ssvid.programs.repeating import Recorded
from ssvid.protocols.contract import NamedProtocol, Published
from ssvid.protocols.metrics import title_of
from ssvid.protocols.named import named_protocol
from ssvid.ranks import is_first_process
from ssvid.recipe.check import to_plain
from ssvid.recipe.load import LoadedRecipe
from ssvid.results.confusion import confusion_picture, per_class
from ssvid.results.rows import ResultRow, render_table, write_results
from ssvid.results.summaries import Summary, fold_of, seed_of, summarize, summarize_difference
from ssvid.results.table import BASELINES, PRETRAINED


@dataclass
class Outcome:
    """The rows of an evaluation, their summaries over folds and seeds, and where they were written. Prints as the table.

    pictures: files beside the results. repeated: what came of the comparison where an older result was repeated.
    """

    rows: list[ResultRow]
    path: Path
    summaries: list[Summary] = field(default_factory=list)
    protocol: NamedProtocol | None = None
    pictures: list[Path] = field(default_factory=list)
    repeated: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the files that hold everything else."""
        rows = [
            {
                "name": r.name,
                "metric": r.metric,
                "fold": fold_of(r),
                "seed": seed_of(r),
                "value": r.value,
                "interval95": list(r.interval),
                "chance": r.chance,
            }
            for r in self.rows
        ]
        return {
            "rows": rows,
            "summaries": [summary.as_dict() for summary in self.summaries],
            "differences": [difference.as_dict() for difference in differences(self.rows)],
            "results": str(self.path),
            "pictures": [str(path) for path in self.pictures],
            "repeated": self.repeated,
        }

    def __str__(self) -> str:
        parts = [render_table(summary_rows(self.rows, self.summaries) or self.rows)]
        parts += [_spread_lines(self.summaries)] if self.summaries else []
        parts += [_difference_lines(differences(self.rows))]
        if self.protocol is not None and self.protocol.published:
            parts.append(published_lines(self.protocol.published, {row.metric for row in self.rows}))
        files = "\n".join([f"full results: {self.path}", *(f"picture: {p}" for p in self.pictures)])
        return "\n\n".join(part for part in (*parts, files, self.repeated) if part)


def summary_rows(rows: Sequence[ResultRow], summaries: Sequence[Summary]) -> list[ResultRow]:
    """The summaries as rows of a table, with the notes of the rows they come from."""
    found = []
    for summary in summaries:
        mine = [row for row in rows if (row.name, row.metric) == (summary.name, summary.metric)]
        notes = list(dict.fromkeys(note for row in mine for note in row.context.get("notes", ())))
        ids = tuple(dict.fromkeys(video for row in mine for video in row.ids))
        context = {**mine[0].context, "notes": notes}
        found.append(
            replace(
                mine[0], value=summary.value, interval=summary.interval, chance=summary.chance, ids=ids, context=context
            )
        )
    return found


def _spread_lines(summaries: Sequence[Summary]) -> str:
    """What each summary is a mean of, and how far it spreads."""
    lines = []
    for s in summaries:
        deviations = {"folds": s.over_folds, "seeds": s.over_seeds}
        spread = [f"over {what} {100 * value:.1f}" for what, value in deviations.items() if value is not None]
        each = "; ".join(
            f"fold {fold}: " * bool(fold) + ", ".join(f"{100 * v:.1f}" for v in seeds.values())
            for fold, seeds in s.values.items()
        )
        lines.append(f"{s.name}, {title_of(s.metric)}: standard deviation {', '.join(spread)} ({each})")
    return "\n".join(lines)


def differences(rows: Sequence[ResultRow]) -> list[Summary]:
    """The pretrained network minus its placebo and minus the random one, in every metric that both have, paired."""
    found = []
    for baseline in BASELINES:
        theirs = {row.metric for row in rows if row.name == baseline}
        for metric in dict.fromkeys(row.metric for row in rows if row.name == PRETRAINED):
            if metric in theirs:
                found.append(summarize_difference(rows, PRETRAINED, baseline, metric))
    return found


def _difference_lines(found: Sequence[Summary]) -> str:
    """One line for each network that the pretrained one is compared with."""
    if not found:
        return ""
    lines = ["paired over the test videos, in points, with 95 % intervals:"]
    for name in dict.fromkeys(d.name for d in found):
        told = (
            f"{title_of(d.metric)} {100 * d.value:+.1f} [{100 * d.interval[0]:+.1f}, {100 * d.interval[1]:+.1f}]"
            for d in found
            if d.name == name
        )
        lines.append(f"  {name}: {'; '.join(told)}")
    return "\n".join(lines)


def published_lines(published: Sequence[Published], metrics: set[str]) -> str:
    """Numbers of others, told apart from those measured here."""
    lines = ["published under this protocol; not measured here:"]
    for p in published:
        values = ", ".join(f"{title_of(metric)} {value:g}" for metric, value in p.values.items() if metric in metrics)
        lines += [f"  {p.method}, {p.backbone}, pretrained on {p.pretraining}: {values}  [{p.source}]"] * bool(values)
    return "\n".join(lines) if len(lines) > 1 else ""


def conclude(
    folder: Path,
    rows: list[ResultRow],
    loaded: LoadedRecipe,
    arguments: Mapping[str, Any],
    manifest: Manifest,
    *,
    recorded: Recorded | None = None,
) -> Outcome:
    """Write ``results.json`` and the picture of what was taken for what; compare with the result that was repeated. Of
    several processes the first one writes.

    arguments: of the program, by which ``--from`` repeats it.
    """
    # The worse form of the random network is another one from fold to fold: only the better one has a mean.
    summaries = summarize(row for row in rows if not row.name.startswith("random, "))
    extra = {
        "kind": loaded.resolved["kind"],
        "recipe": loaded.resolved,
        "arguments": to_plain(arguments),
        "summaries": [summary.as_dict() for summary in summaries],
        "per_class": per_class(rows, manifest),
    }
    is_first, pictures = is_first_process(), []
    path = folder / "results.json"
    if is_first:
        write_results(path, rows, extra=extra)
    if is_first and (picture := confusion_picture(rows, manifest)):
        pictures.append(folder / "confusion.svg")
        write_text(pictures[0], picture)
    protocol = named_protocol(loaded.protocol) if loaded.protocol else None
    repeated = recorded.compare(rows) if recorded is not None else ""
    return Outcome(rows, path, summaries, protocol, pictures, repeated)
