"""Every key of every kind of recipe on one page, from the dataclasses themselves: meaning, default, what a resumed run may change.

The meanings are those of the docstrings, which say ``key: meaning`` (``key, other_key: meaning``) for each field.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from ssvid.recipe.check import legal_values
from ssvid.recipe.schema import KINDS
from ssvid.recipe.yaml_text import MISSING
from ssvid.settings import default_of

_HEAD = """\
# Keys of recipes

Every key that a recipe may have, with its default. On the command line a key is set as `key.path=value`; the values are YAML.
`ssvid show RECIPE` prints the values that a recipe ends up with, `ssvid recipes` the recipes that come with ssvid. A value that is not
legal is an error that says what is, and an unknown key one that names the nearest. The last column says
whether a run that goes on (`--resume`) may have another value. This page is written by `ssvid recipes --keys`; the guides are in
the [overview](index.md).
"""


class Key(NamedTuple):
    """One key. path: as on the command line. default: as Markdown. legal: its type and range. resume: "yes", "longer" or "no"."""

    path: str
    default: str
    legal: str
    meaning: str
    resume: str


class Group(NamedTuple):
    """Keys that belong together. path: "" for those at the top. about: the first sentences of their class."""

    path: str
    about: str
    keys: tuple[Key, ...]


def groups_of(kind: str) -> list[Group]:
    """The groups of a kind of recipe, its own keys first."""
    return list(_groups(KINDS[kind], "", may_change=False))


def page_of_keys() -> str:
    """The page as Markdown."""
    seen: dict[tuple[str, tuple[Key, ...]], list[str]] = {}
    groups: dict[tuple[str, tuple[Key, ...]], Group] = {}
    for kind in KINDS:
        for group in groups_of(kind):
            seen.setdefault((group.path, group.keys), []).append(kind)
            groups[group.path, group.keys] = group
    return "\n".join([_HEAD, *(_section(groups[at], kinds) for at, kinds in seen.items())])


def _groups(schema: type, path: str, *, may_change: bool) -> Iterator[Group]:
    types, meanings = typing.get_type_hints(schema), meanings_of(schema)
    keys, below = [], []
    for field in dataclasses.fields(schema):
        changes = may_change or field.metadata.get("computes") is False
        where = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(types[field.name]):
            below += list(_groups(types[field.name], where, may_change=changes))  # type: ignore[arg-type]
        else:
            resume = "yes" if changes else "longer" if field.metadata.get("extends") else "no"
            keys.append(
                Key(
                    where,
                    _shown(default_of(field)),
                    legal_values(schema, field.name),
                    meanings.get(field.name, ""),
                    resume,
                )
            )
    yield Group(path, _about(schema), tuple(keys))
    yield from below


def meanings_of(schema: type) -> dict[str, str]:
    """Field -> what the docstring of its class says of it."""
    inherited = [meanings_of(base) for base in schema.__bases__ if dataclasses.is_dataclass(base)]
    known = {field: meaning for base in inherited for field, meaning in base.items()}
    text = " ".join((inspect.getdoc(schema) or "").split())
    name = "|".join(sorted((field.name for field in dataclasses.fields(schema)), key=len, reverse=True))
    found = list(re.finditer(rf"(?:^|(?<=\s))((?:{name})(?:, (?:{name}))*): ", text))
    ends = [*(match.start() for match in found[1:]), *([len(text)] if found else [])]
    return known | {
        field: text[match.end() : end].strip()
        for match, end in zip(found, ends, strict=True)
        for field in match[1].split(", ")
    }


def _about(schema: type) -> str:
    """What stands before the first key."""
    text = " ".join((inspect.getdoc(schema) or "").split())
    names = "|".join(field.name for field in dataclasses.fields(schema))
    first = re.search(rf"(?:^|(?<=\s))(?:{names})(?:, (?:{names}))*: ", text)
    return text[: first.start() if first else None].strip()


def _section(group: Group, kinds: list[str]) -> str:
    title = f"`{group.path}`" if group.path else f"kind: {kinds[0]}"
    of = f"In recipes of kind {', '.join(kinds)}. " if group.path else ""
    lines = [
        f"## {title}\n",
        f"{of}{_markdown(group.about)}\n",
        "| key | default | legal | meaning | resume |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{k.path}` | {k.default} | {k.legal} | {_markdown(k.meaning)} | {k.resume} |" for k in group.keys]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Literals of the docstring as those of Markdown; outside of them nothing is markup."""
    parts = re.split(r"``([^`]*)``", text)
    shown = [f"`{part}`" if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts)]
    return "".join(shown).replace("|", "\\|")


def _shown(value: Any) -> str:
    if value == MISSING:
        return "must be set"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    return f"`{value}`"
