"""How results, mistakes and progress reach the person: stdout for results, stderr for everything else."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol

from ssvid.columns import aligned

_INDENT = re.compile(r"\s*(?:- )?")


class Tell(Protocol):
    """Called with (items done, items in all, what was done last)."""

    def __call__(self, done: int, total: int, what: str = "", /) -> None: ...


def width() -> int:
    """Columns to write in: those of the terminal, at most 120 so that lines stay readable."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def wrap(text: str, columns: int | None = None) -> str:
    """Each line wrapped on its own, so that lists stay lists; words (paths, commands) are never broken."""
    columns = columns or width()
    lines = []
    for line in text.splitlines():
        match = _INDENT.match(line)
        lead = match.group() if match else ""
        lines.append(
            textwrap.fill(
                line[len(lead) :],
                max(columns, 40),
                initial_indent=lead,
                subsequent_indent=" " * len(lead),
                break_long_words=False,
                break_on_hyphens=False,
            )
            or line.strip()
        )
    return "\n".join(lines)


def say(text: str) -> None:
    """A wrapped paragraph on stderr."""
    print(wrap(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_result(result: Any, *, as_json: bool) -> None:
    """What a program returned: its ``as_dict()`` as JSON, or its text."""
    if as_json:
        print_json(result)
    elif isinstance(result, Mapping):
        texts = {
            key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in plain(result).items()
        }
        print_columns(list(texts.items()))
    elif result is not None:
        print(result)


def plain(value: Any) -> Any:
    """Types that JSON can hold."""
    for method in ("as_dict", "to_dict"):
        if hasattr(value, method) and not isinstance(value, Mapping):
            return plain(getattr(value, method)())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def print_columns(rows: Sequence[tuple[str, str]], indent: str = "") -> None:
    """Two columns on stdout; the second is wrapped beside the first."""
    if rows:
        print(columns(rows, indent))


def columns(rows: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Two columns as text; the second is wrapped beside the first."""
    left = len(indent) + max((len(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, text in rows:
        parts = textwrap.wrap(text, max(width() - left, 20), break_long_words=False, break_on_hyphens=False) or [""]
        lines += [(name, parts[0]), *(("", part) for part in parts[1:])]
    return "\n".join(f"{indent}{line}" for line in aligned(lines))


@contextlib.contextmanager
def progress(title: str, *, lines: int = 10) -> Iterator[Tell]:
    """Show how far long work has come: a bar on a terminal, else about ``lines`` lines; always on stderr."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _line_report(title, lines)


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=None)

        def report(done: int, total: int, what: str = "", /) -> None:
            bars.update(bar, completed=done, total=total)

        yield report


def _line_report(title: str, lines: int) -> Tell:
    started = time.monotonic()
    shown = 0

    def report(done: int, total: int, what: str = "", /) -> None:
        nonlocal shown
        if done * lines // max(total, 1) > shown or (done == total and shown < lines):
            shown = done * lines // max(total, 1)
            print(f"{title}: {done}/{total} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)

    return report


def counted(things: Sized, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
