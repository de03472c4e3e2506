"""The keys of public video transformers and ours: one table, read both ways.

Ours are those of V-JEPA and timm. A row says where a tensor of ours, or its third of queries, keys or values, stands in a
public file; ``{n}`` is the number of a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ssvid.errors import CheckpointError, name_some

QKV = "blocks.{n}.attn.qkv"
_OURS = (
    "patch_embed.proj",
    "blocks.{n}.norm1",
    "blocks.{n}.attn.proj",
    "blocks.{n}.norm2",
    "blocks.{n}.mlp.fc1",
    "blocks.{n}.mlp.fc2",
    "norm",
)
# Modules of a layout, in the order of ours.
_VJEPA2_HF = (
    "embeddings.patch_embeddings.proj",
    "layer.{n}.norm1",
    "layer.{n}.attention.proj",
    "layer.{n}.norm2",
    "layer.{n}.mlp.fc1",
    "layer.{n}.mlp.fc2",
    "layernorm",
)
_VIDEOMAE_HF = (
    "embeddings.patch_embeddings.projection",
    "encoder.layer.{n}.layernorm_before",
    "encoder.layer.{n}.attention.output.dense",
    "encoder.layer.{n}.layernorm_after",
    "encoder.layer.{n}.intermediate.dense",
    "encoder.layer.{n}.output.dense",
    "layernorm",
)
_VIDEOMAE_HF_ATTENTION = "encoder.layer.{n}.attention.attention"


class Row(NamedTuple):
    """A key of ours and of a public file. third: 0, 1, 2 for queries, keys, values; None for the whole tensor."""

    ours: str
    third: int | None
    theirs: str


def _rows(modules: tuple[str, ...]) -> Iterator[Row]:
    for ours, theirs in zip(_OURS, modules, strict=True):
        for kind in ("weight", "bias"):
            yield Row(f"{ours}.{kind}", None, f"{theirs}.{kind}")


def _thirds(kind: str, *theirs: str) -> Iterator[Row]:
    """Rows of queries, keys and values apart; "" where the file has none."""
    for third, key in enumerate(theirs):
        if key:
            yield Row(f"{QKV}.{kind}", third, key)


# The first row of a tensor is the one that is written; later ones are read too.
LAYOUTS: dict[str, tuple[Row, ...]] = {
    "vjepa": (*_rows(_OURS), Row(f"{QKV}.weight", None, f"{QKV}.weight"), Row(f"{QKV}.bias", None, f"{QKV}.bias")),
    "videomae": (
        *_rows(_OURS),
        Row(f"{QKV}.weight", None, f"{QKV}.weight"),
        *_thirds("bias", "blocks.{n}.attn.q_bias", "", "blocks.{n}.attn.v_bias"),
    ),
    "hf_vjepa2": (
        *_rows(_VJEPA2_HF),
        *(
            row
            for kind in ("weight", "bias")
            for row in _thirds(kind, *(f"layer.{{n}}.attention.{part}.{kind}" for part in ("query", "key", "value")))
        ),
    ),
    "hf_videomae": (
        *_rows(_VIDEOMAE_HF),
        *_thirds("weight", *(f"{_VIDEOMAE_HF_ATTENTION}.{part}.weight" for part in ("query", "key", "value"))),
        *_thirds("bias", f"{_VIDEOMAE_HF_ATTENTION}.query.bias", "", f"{_VIDEOMAE_HF_ATTENTION}.value.bias"),
        *_thirds("bias", f"{_VIDEOMAE_HF_ATTENTION}.q_bias", "", f"{_VIDEOMAE_HF_ATTENTION}.v_bias"),
    ),
}
# What no other layout has, most telling first.
_MARKS = {
    "hf_videomae": r"(^|\.)encoder\.layer\.\d+\.attention\.attention\.query\.weight$",
    "hf_vjepa2": r"(^|\.)layer\.\d+\.attention\.query\.weight$",
    "videomae": r"(^|\.)blocks\.\d+\.attn\.q_bias$",
    "vjepa": r"(^|\.)blocks\.\d+\.attn\.qkv\.weight$",
}
# Where the keys have no bias, as in VideoMAE: one of zeros gives the same attention.
_WITHOUT_KEY_BIAS = ("videomae", "hf_videomae")


def layout_of(state: Mapping[str, Tensor]) -> str:
    """The layout that the keys of a file are in, "" where it is none of these. Prefixes before the keys do not matter."""
    for name, mark in _MARKS.items():
        if any(re.search(mark, key) for key in state):
            return name
    return ""


def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a public file under our keys.

    Prefixes before the keys stay, and what is in no row (predictors, decoders, heads) keeps its name: what is loaded and
    what is left over is for the report of the loader, which is strict.

    Raises:
        CheckpointError: queries, keys or values of a block are missing.
    """
    layout = layout_of(state)
    if layout in ("", "vjepa"):
        return dict(state)
    patterns = [(_pattern(row.theirs), row) for row in LAYOUTS[layout]]
    ours: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        row, name = _found(key, patterns)
        if row is None:
            ours[key] = value
        elif row.third is None:
            ours[name] = value
        else:
            thirds.setdefault(name, {})[row.third] = value
    return ours | {name: _joined(name, parts, layout) for name, parts in thirds.items()}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(r"(?P<prefix>(?:.*\.)?)" + re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)"))


def _found(key: str, patterns: list[tuple[re.Pattern[str], Row]]) -> tuple[Row | None, str]:
    for pattern, row in patterns:
        match = pattern.fullmatch(key)
        if match:
            return row, match["prefix"] + row.ours.format(n=match.groupdict().get("n"))
    return None, key


def _joined(name: str, parts: Mapping[int, Tensor], layout: str) -> Tensor:
    if layout in _WITHOUT_KEY_BIAS and name.endswith(".bias") and set(parts) == {0, 2}:
        return torch.cat([parts[0], torch.zeros_like(parts[0]), parts[2]])
    if set(parts) != {0, 1, 2}:
        have = ", ".join(("queries", "keys", "values")[third] for third in sorted(parts))
        raise CheckpointError(f"of {name} the file holds only {have}: it is not whole. Download it again.")
    return torch.cat([parts[0], parts[1], parts[2]])


def to_public(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Our tensors under the keys of a public file, without prefix.

    In VideoMAE's layouts the bias of the keys is left out: without rotary positions it changes no attention.

    Raises:
        CheckpointError: no layout has that name, or a tensor of ours has no place in it.
    """
    if layout not in LAYOUTS:
        raise CheckpointError(f"layout ({layout!r}) must be one of {', '.join(LAYOUTS)}.")
    patterns = [(_pattern(ours), ours) for ours in dict.fromkeys(row.ours for row in LAYOUTS[layout])]
    theirs: dict[str, Tensor] = {}
    homeless = []
    for key, value in state.items():
        match, ours = next(((m, own) for p, own in patterns if (m := p.fullmatch(key)) and not m["prefix"]), (None, ""))
        if match is None:
            homeless.append(key)
            continue
        written: set[int | None] = set()
        for row in (row for row in LAYOUTS[layout] if row.ours == ours):
            if row.third not in written:
                written.add(row.third)
                part = value if row.third is None else value.chunk(3)[row.third]
                theirs[row.theirs.format(n=match.groupdict().get("n"))] = part.clone()
    if homeless:
        raise CheckpointError(
            f"layout {layout} has no place for {name_some(homeless, 6)}. Only networks whose positions are not learned "
            "can be written in it."
        )
    return theirs
