"""A named protocol in words: for ``ssvid protocols`` and for the page of the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ssvid.protocols.contract import NamedProtocol, leaves_of
from ssvid.protocols.metrics import title_of
from ssvid.protocols.named import PROTOCOLS

_WIDTH = 110
_LAYOUTS = {"class_folder": ": train/<class> and test/<class>"}
_LAYOUTS_MARKED = {"class_folder": " (`FOLDER/train/<class>` and `FOLDER/test/<class>`)"}
_HEAD = """\
# Named protocols

A number can be compared with another one only where both were measured in the same way. A named protocol fixes all that a
number depends on besides the weights; its version never changes. `ssvid protocols` lists them. A name stands where `probe`,
`retrieve`, `finetune` and `track` take a recipe:

```bash
ssvid probe ucf101-linear@1 data.root=UCF-101 --backbone runs/mine
```

What you set otherwise is written beside every number as a change of the protocol. Back to [evaluation](evaluation.md). This page is
written by `ssvid protocols --markdown`.
"""


def as_plain(protocol: NamedProtocol) -> dict[str, Any]:
    """Plain types."""
    return {"id": protocol.id, **asdict(protocol)}


def page(protocol: NamedProtocol, *, markdown: bool = False) -> str:
    """Everything about one protocol."""
    return "\n".join(_markdown(protocol) if markdown else _text(protocol))


def page_of_all() -> str:
    """The page of the documentation."""
    return "\n".join([_HEAD, *(page(protocol, markdown=True) + "\n" for protocol in PROTOCOLS)])


def _text(p: NamedProtocol) -> Iterator[str]:
    yield f"{p.id}: {p.summary}"
    yield f"run with    ssvid {p.kind} {p.id} data.root=FOLDER --backbone PATH"
    if p.reproduces:
        yield from _wrapped("reproduces  ", p.reproduces)
        yield from _wrapped("source      ", p.source)
    else:
        yield "reproduces  nothing; it is our own"
    for said in p.differs:
        yield from _wrapped("differs     ", said)
    for what, setting in p.defects.items():
        yield from _wrapped("not repeated", f"{what}; to compare: {setting}", gap=" ")
    for path, value in leaves_of(p.videos):
        yield f"videos      {path}={_value(value)}, unless you say where they are{_LAYOUTS.get(value, '')}"
    yield "\nsettings:"
    yield from (f"  {path}={_value(value)}" for path, value in p.leaves().items())
    if p.published:
        yield "\npublished under it (not measured here):"
        yield from (f"  {line}" for line in _published(p))


def _markdown(p: NamedProtocol) -> Iterator[str]:
    yield f"## {p.id}\n\n{p.summary[0].upper()}{p.summary[1:]}.\n"
    yield f"```bash\nssvid {p.kind} {p.id} data.root=FOLDER --backbone PATH\n```\n"
    if p.reproduces:
        yield f"* Reproduces: {p.reproduces}\n* Source: {p.source}"
    yield from (f"* Differs: {said}" for said in p.differs)
    yield from (f"* Not repeated: {what}. To compare: `{setting}`" for what, setting in p.defects.items())
    if p.reproduces:
        yield ""
    for path, value in leaves_of(p.videos):
        yield f"Videos: `{path}={_value(value)}`{_LAYOUTS_MARKED.get(value, '')}, unless you say otherwise.\n"
    yield "Settings: " + ", ".join(f"`{path}={_value(value)}`" for path, value in p.leaves().items()) + "."
    if p.published:
        yield "\nPublished under it, not measured here:\n"
        yield from (f"* {line}" for line in _published(p))


def _published(p: NamedProtocol) -> Iterator[str]:
    for row in p.published:
        values = ", ".join(f"{title_of(metric)} {value:g}" for metric, value in row.values.items())
        yield f"{row.method}, {row.backbone}, pretrained on {row.pretraining}: {values} ({row.source})"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(head: str, text: str, gap: str = "") -> Iterator[str]:
    lines = textwrap.wrap(text, _WIDTH - len(head))
    yield f"{head}{gap}{lines[0]}"
    yield from (" " * (len(head) + len(gap)) + line for line in lines[1:])
