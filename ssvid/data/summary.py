"""What is in a table, in words for the terminal. No file is opened here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ssvid.data.manifest import UNREADABLE, Manifest, VideoRow
from ssvid.video.identity import is_quick


def summarize(manifest: Manifest, *, max_listed: int = 10) -> str:
    """A paragraph for the terminal: how many videos, how long, how large, which are unreadable and why."""
    rows = [row for row in manifest.rows if row.is_readable]
    facts = [_count(len(manifest.rows), "video"), format_duration(sum(row.window_seconds for row in rows))]
    if rows:
        facts += [_span([row.fps for row in rows]) + " fps", _sizes(rows)]
    facts += _naming_facts(manifest)
    lines = [", ".join(facts), *_leak_lines(rows), *_quick_lines(rows)]
    lines += _listed("listed videos missing", manifest.missing, max_listed)
    bad = [row for row in manifest.rows if not row.is_readable]
    reasons = [f"{row.path}: {row.status.removeprefix(UNREADABLE).lstrip(': ')}" for row in bad]
    lines += _listed("unreadable", reasons, max_listed)
    return "\n".join([*lines, *_note_lines(rows, max(max_listed // 3, 1)), *_decoder_lines(rows)])


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: "2 h 5 min", "12 min 30 s", "3.2 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low}-{high}"


def _sizes(rows: list[VideoRow]) -> str:
    counts = Counter(f"{row.width}x{row.height}" for row in rows).most_common()
    shown = [f"{size} ({count})" for size, count in counts[:3]]
    return ", ".join(shown + ([_count(len(counts) - 3, "other size")] if len(counts) > 3 else []))


def _naming_facts(manifest: Manifest) -> list[str]:
    groups = {row.group for row in manifest.rows if row.group}
    splits = Counter(row.split for row in manifest.rows if row.split)
    contents = Counter((row.content_id, row.start_frame, row.end_frame) for row in manifest.rows if row.content_id)
    copies = sum(count - 1 for count in contents.values())
    num_known = sum(bool(row.truth) for row in manifest.rows)
    return [
        *([_count(len(manifest.labels()), "label")] if manifest.labels() else []),
        *(f"split {name}: {splits[name]}" for name in sorted(splits)),
        *([_count(len(groups), "group")] if groups else []),
        *([_count(copies, "exact duplicate")] if copies else []),
        *([f"truth of {num_known}"] if num_known else []),
    ]


def _leak_lines(rows: list[VideoRow]) -> list[str]:
    """A warning where the same content stands in several splits: scores on such videos are worth nothing."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.split and (row.source_id or row.content_id):
            splits.setdefault(row.source_id or row.content_id, set()).add(row.split)
    leaked = [row for row in rows if len(splits.get(row.source_id or row.content_id, ())) > 1]
    if not leaked:
        return []
    return [
        f"warning: {len(leaked)} videos have the same content in more than one split, the first is {leaked[0].path}"
    ]


def _quick_lines(rows: list[VideoRow]) -> list[str]:
    count = sum(is_quick(row.content_id) for row in rows)
    if not count:
        return []
    return [
        f"note: this table tells {count} videos apart by size, first and last 64 KiB alone, so that different ones may"
        " count as one. ssvid data index --overwrite writes it with the identity of whole files"
    ]


_NOTED = {
    "damage": "damaged in places",
    "time": "with pauses, a variable rate or a late start",
    "fps": "without time stamps",
    "pictures": "folders of pictures that leave something to ask",
    "range": "with few gray values",
    "access": "without random access",
}


def _note_lines(rows: list[VideoRow], most: int) -> list[str]:
    lines = []
    for subject, words in _NOTED.items():
        # Windows of one file share its notes.
        told = {row.path: note for row in rows for note in row.notes.split("; ") if note.startswith(f"{subject}: ")}
        lines += _listed(words, [f"{path}: {note.partition(': ')[2]}" for path, note in told.items()], most)
    return lines


def _listed(what: str, lines: Sequence[str], most: int) -> list[str]:
    """How many there are, the first of them, and how many more; nothing where there is none."""
    if not lines:
        return []
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return [f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:most]), *more]


def _decoder_lines(rows: list[VideoRow]) -> list[str]:
    counts = Counter(name for row in rows for name in row.decoders_ok)
    told = [f"{name} right for {'all' if count == len(rows) else count}" for name, count in counts.most_common()]
    return ["decoders: " + ", ".join(told)] if told else []
