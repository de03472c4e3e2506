"""A named protocol in words: for ``ssvid protocols`` and for the page of the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
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


# Rows of the table of knobs: what it says, and the settings of ``track`` that it is made of.
_KNOBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("size of frames", ("size_rule", "size_px", "width_px")),
    ("sides are multiples of", ("multiple_px", "multiple_rounding", "multiple_sides")),
    ("resized by", ("frame_resampling", "antialias")),
    ("stride in pixels, 0 as it is", ("stride_px",)),
    ("features", ("normalization",)),
    ("frames before", ("num_previous",)),
    ("copies of frame 0 before it", ("primed",)),
    ("temperature", ("temperature",)),
    ("top k, of", ("top_k", "top_k_over")),
    ("softmax over", ("softmax_over",)),
    ("radius in cells, 0 none", ("radius_cells", "radius_shape")),
    ("just at the radius counts", ("radius_includes",)),
    ("frame 0 under the radius", ("radius_on_first",)),
    ("labels to cells by", ("label_resampling",)),
    ("cells lie", ("grid",)),
    ("labels carried on", ("feedback",)),
    ("largest class after min-max", ("decision_min_max",)),
    ("largest class at size of", ("decision_size", "decision_resampling")),
    ("scored at size of", ("score_size", "score_resampling")),
)


def knob_table(start: str) -> str:
    """The settings of the protocols that carry labels, side by side, as a Markdown table.

    Args:
        start: of their names; several, parted by commas.
    """
    shown = [p for p in PROTOCOLS if p.kind == "track" and p.name.startswith(tuple(start.split(",")))]
    rows = [[words, *(_knob(p.settings["track"], keys) for p in shown)] for words, keys in _KNOBS]
    heads = ["", *(p.id for p in shown)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _knob(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The values of one line; a width is told where there is one, and a low-pass where frames go through it."""
    told = {key: _value(settings[key]) for key in keys}
    if told.get("width_px") == "0":
        del told["width_px"]
    if "antialias" in told:
        told["antialias"] = "with low-pass" if told["antialias"] == "true" else ""
    words = {"true": "yes", "false": "no"}
    return " ".join(words.get(value, value) for value in told.values() if value)


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
