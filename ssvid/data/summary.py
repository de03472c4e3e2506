"""What is in a table, in words for the terminal. No file is opened here."""

from __future__ import annotations

from collections import Counter

from ssvid.data.manifest import UNREADABLE, Manifest, VideoRow
from ssvid.video.identity import is_quick


def summarize(manifest: Manifest, *, max_listed: int = 10) -> str:
    """A paragraph for the terminal: how many videos, how long, how large, which are unreadable and why."""
    rows = [row for row in manifest.rows if row.is_readable]
    facts = [_count(len(manifest.rows), "video"), format_duration(sum(row.window_seconds for row in rows))]
    if rows:
        facts += [_span([row.fps for row in rows]) + " fps", _sizes(rows)]
    facts += _naming_facts(manifest)
    lines = [", ".join(facts), *_leak_lines(rows), *_quick_lines(rows), *_missing_lines(manifest, max_listed)]
    lines += [*_unreadable_lines(manifest, max_listed), *_note_lines(rows, max_listed), *_decoder_lines(rows)]
    return "\n".join(lines)


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
    return [
        *([_count(len(manifest.labels()), "label")] if manifest.labels() else []),
        *(f"split {name}: {splits[name]}" for name in sorted(splits)),
        *([_count(len(groups), "group")] if groups else []),
        *([_count(copies, "exact duplicate")] if copies else []),
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
    "range": "with few gray values",
    "access": "without random access",
}


def _note_lines(rows: list[VideoRow], max_listed: int) -> list[str]:
    lines = []
    for subject, words in _NOTED.items():
        # Windows of one file share its notes.
        told = {row.path: note for row in rows for note in row.notes.split("; ") if note.startswith(f"{subject}: ")}
        if told:
            listed = list(told.items())[: max(max_listed // 3, 1)]
            lines += [f"{len(told)} {words}:", *(f"  {path}: {note.partition(': ')[2]}" for path, note in listed)]
            lines += [f"  and {len(told) - len(listed)} more"] if len(told) > len(listed) else []
    return lines


def _missing_lines(manifest: Manifest, max_listed: int) -> list[str]:
    names = manifest.missing
    if not names:
        return []
    more = [f"  and {len(names) - max_listed} more"] if len(names) > max_listed else []
    return [f"{len(names)} listed videos missing:", *(f"  {name}" for name in names[:max_listed]), *more]


def _unreadable_lines(manifest: Manifest, max_listed: int) -> list[str]:
    bad = [row for row in manifest.rows if not row.is_readable]
    if not bad:
        return []
    lines = [f"  {row.path}: {row.status.removeprefix(UNREADABLE).lstrip(': ')}" for row in bad[:max_listed]]
    more = [f"  and {len(bad) - max_listed} more"] if len(bad) > max_listed else []
    return [f"{len(bad)} unreadable:", *lines, *more]


def _decoder_lines(rows: list[VideoRow]) -> list[str]:
    counts = Counter(name for row in rows for name in row.decoders_ok)
    told = [f"{name} right for {'all' if count == len(rows) else count}" for name, count in counts.most_common()]
    return ["decoders: " + ", ".join(told)] if told else []
