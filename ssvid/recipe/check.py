"""Plain values against dataclasses: every unknown key and every wrong type is found, not only the first.

OmegaConf's structured configs do the typing of each value; they stop at the first wrong key, hence the walk here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssvid import bounds
from ssvid.errors import did_you_mean
from ssvid.recipe.synonyms import settings_for
from ssvid.recipe.yaml_text import MISSING, cut
from ssvid.settings import GONE, RENAMED

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


# What no 64-bit number holds, and what no machine could decode or keep, by the unit at the end of a name.
LARGEST = 2**63 - 1
_MOST = {"num_frames": 10_000, "_px": 16_384, "num_clips": 100_000, "batch": 1_000_000, "batch_size": 1_000_000}


def plain_problems(value: Any, path: str = "") -> Iterator[str]:
    """What in a value is not a plain type, not a number, or asks for interpolation; with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path or 'the top level'}: key {key!r} must be text."
            yield from plain_problems(item, join(path, str(key)))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from plain_problems(item, f"{path}[{i}]")
    elif isinstance(value, str) and "${" in value:
        yield f"{path} ({value!r}) holds '${{', and recipes are not interpolated. Write the value itself."
    elif isinstance(value, float) and math.isnan(value):
        yield f"{path} (nan) must be a number."
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{path} ({cut(str(value))}) must lie between -{LARGEST} and {LARGEST}. Write a smaller number."
    elif not isinstance(value, str | int | float | bool | None):
        plain = "text, a number, true/false, null, a list or a group"
        yield f"{path} ({value!r}) is a {type(value).__name__}; it must be {plain}."


def to_plain(value: Any) -> Any:
    """Dicts, lists, text, numbers, booleans and None; tuples become lists, paths text, enums their names."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if is_scalar else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``: groups are merged key by key, everything else is replaced. An empty group is {}.

    A list takes a group whose keys are numbers of its items: ``tasks.0.weight=2``.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(old, list)
            and isinstance(value, Mapping)
            and all(k.isdigit() and int(k) < len(old) for k in value)
        ):
            merged[key] = [merge(item, value[str(i)]) if str(i) in value else item for i, item in enumerate(old)]
        elif isinstance(value, Mapping):
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        elif value is None and isinstance(old, Mapping):
            continue
        else:
            merged[key] = value
    return merged


class Typing:
    """One check of plain values against a tree of dataclasses. ``problems`` collects what is wrong.

    Args:
        schema: the dataclass of the top level.
    """

    def __init__(self, schema: type) -> None:
        self.schema = schema
        self.problems: list[str] = []
        self._paths = list(leaf_paths(schema))

    def apply(self, values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """Defaults with ``values`` on top, converted to the declared types; tuples stay tuples, ``???`` stays.

        path: where the values stand in the recipe.
        """
        config = OmegaConf.structured(self.schema)
        self._group(config, self.schema, values, path)
        return OmegaConf.to_container(config)  # type: ignore[return-value]

    def _group(self, node: Any, schema: type, values: Mapping[str, Any], path: str) -> None:
        OmegaConf.set_readonly(node, False)  # frozen dataclasses are read-only configs
        legal, rules = field_hints(schema), bounds.rules_of(schema)
        for key, value in values.items():
            where = join(path, key)
            if key not in legal:
                self.problems.append(self._unknown(where, key, legal))
            elif (group := group_of(legal[key])) is not None:
                self._subgroup(node, group, key, value, where, hint=legal[key])
            else:
                was_fine = len(self.problems)
                self._leaf(node, key, value, where, hint=legal[key])
                if key in rules and len(self.problems) == was_fine:
                    self._bounds(node, schema, key, where)

    def _subgroup(self, node: Any, group: type, key: str, value: Any, where: str, *, hint: Any) -> None:
        if value is None:
            if hint is not group:  # an optional group is switched off
                node[key] = None
            return  # "optim:" with nothing below it is an empty group
        if not isinstance(value, Mapping):
            keys = ", ".join(field_hints(group)) or "(none)"
            meant = [path for path in settings_for(key, self._paths) if path.startswith(f"{where}.")]
            way = f" Did you mean {meant[0]}={value}?" if meant else ""
            self.problems.append(f"{where} ({value!r}) must be a group of keys: {keys}.{way}")
            return
        if node[key] is None:
            node[key] = OmegaConf.structured(group)
        self._group(node[key], group, value, where)

    def _leaf(self, node: Any, key: str, value: Any, where: str, *, hint: Any) -> None:
        try:
            if isinstance(value, bool) and not _takes(hint, bool):
                raise ValueError("OmegaConf turns a boolean into text")
            OmegaConf.update(node, key, value, merge=False)
        except (OmegaConfBaseException, ValueError, OverflowError):
            self.problems.append(f"{where} ({cut(repr(value))}) must be {describe(hint)}. Set {where}=...")
        else:
            self.problems += _beyond(where, key, value)

    def _bounds(self, node: Any, schema: type, key: str, where: str) -> None:
        value = OmegaConf.to_container(node[key]) if OmegaConf.is_config(node[key]) else node[key]
        if problem := bounds.problem(where, value, bounds.rules_of(schema)[key]):
            self.problems.append(f"{problem}. {bounds.way_out(schema, key, where.removesuffix(key))}")

    def _unknown(self, where: str, key: str, legal: Mapping[str, Any]) -> str:
        if key in GONE:
            return f"{where} is gone: {GONE[key]}. Take it out; no number depends on it."
        if where in RENAMED:
            return f"{where} is called {RENAMED[where]} now. Write {RENAMED[where]}{'=...' * ('.' in where)} instead."
        meant = settings_for(key, self._paths)
        if meant:
            return f"unknown key {where!r}. Did you mean {meant[0]!r}? Known here: {', '.join(sorted(legal))}."
        elsewhere = [p for p in self._paths if p.rpartition(".")[2] == key]
        if elsewhere:
            near = " or ".join(map(repr, elsewhere))
            return f"unknown key {where!r}. Did you mean {near}? Known here: {', '.join(sorted(legal))}."
        return f"unknown key {where!r}. {did_you_mean(key, legal)}"


def _beyond(where: str, key: str, value: Any) -> Iterator[str]:
    """Numbers that mean nothing or would take all memory: seeds below 0, clips of a billion frames."""
    values = value if isinstance(value, list | tuple) else [value]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if key in ("seed", "seeds") and any(number < 0 for number in numbers):
        yield f"{where} ({value!r}) must be 0 or more. Set {where}=0, say."
    most = next((most for unit, most in _MOST.items() if key.endswith(unit)), None)
    if most is not None and any(abs(number) > most for number in numbers):
        yield f"{where} ({value!r}) must be at most {most:,}. Set {where}=..."


def missing_paths(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the values that are still ``???``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from missing_paths(value, join(path, key))
        elif isinstance(value, str) and value == MISSING:
            yield join(path, key)


def leaf_paths(schema: type, path: str = "") -> Iterator[str]:
    """Every ``key.path`` that the schema knows, groups left out."""
    for key, hint in field_hints(schema).items():
        group = group_of(hint)
        if group is None:
            yield join(path, key)
        else:
            yield from leaf_paths(group, join(path, key))


def marks(schema: type, path: str) -> dict[str, Any]:
    """The metadata (``ssvid.settings``) of a field and of the groups that it stands in; {} for an unknown one."""
    key, _, rest = path.partition(".")
    own = next((f for f in dataclasses.fields(schema) if f.name == key), None)
    if own is None:
        return {}
    group = group_of(field_hints(schema).get(key))
    return {**own.metadata, **(marks(group, rest) if group is not None and rest else {})}


def group_at(schema: type, path: str) -> type | None:
    """The dataclass of the group at a path; None where there is a value, or nothing."""
    key, _, rest = path.partition(".")
    group = group_of(field_hints(schema).get(key))
    return group if group is None or not rest else group_at(group, rest)


def build_defaults(schema: type) -> dict[str, Any]:
    """The defaults of a schema as plain types; ``???`` where there is none."""
    return to_plain(dataclasses.asdict(schema()))


def build(schema: type, values: Mapping[str, Any]) -> Any:
    """The dataclass itself, from values that ``Typing.apply`` has converted."""
    ready = {}
    for key, hint in field_hints(schema).items():
        group = group_of(hint)
        is_group = group is not None and isinstance(values[key], Mapping)
        value = values[key]
        if is_group:
            ready[key] = build(typing.cast(type, group), value)
        else:
            ready[key] = to_plain(value) if isinstance(value, dict) else value
    return schema(**ready)


def options_of(function: Any) -> type:
    """A dataclass with a field for each keyword argument that a class or function takes, typed and with its default."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    keywords = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"
    ]
    return dataclasses.make_dataclass(
        "Options", [(p.name, hints.get(p.name, Any), _default(p.default, p.empty)) for p in keywords], kw_only=True
    )


def _default(value: Any, empty: Any) -> Any:
    if value is empty:
        return dataclasses.field(default=MISSING)
    if isinstance(value, list | dict | set):
        return dataclasses.field(default_factory=lambda: value.copy())
    return dataclasses.field(default=value)


@functools.lru_cache(maxsize=1024)
def field_hints(schema: type) -> dict[str, Any]:
    """Field name -> resolved type of a dataclass, in order; worked out once, since a recipe asks for it some hundred times."""
    hints = typing.get_type_hints(schema)
    return {f.name: hints.get(f.name, Any) for f in dataclasses.fields(schema) if f.init}


def group_of(hint: Any) -> type | None:
    """The dataclass behind a type, also behind ``Config | None``; None for everything else."""
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        groups = [group for arg in typing.get_args(hint) if (group := group_of(arg)) is not None]
        return groups[0] if len(groups) == 1 and len(typing.get_args(hint)) == 2 else None
    return None


def describe(hint: Any) -> str:
    """A type in words: ``list[int]`` is "a list of whole numbers"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, args))}"
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if origin is tuple and args and args[-1] is not Ellipsis:
        one_kind = len(set(args)) == 1 and args[0] in _PLURALS
        return f"a list of {len(args)} {_PLURALS[args[0]]}" if one_kind else f"a list of {len(args)} values"
    if origin in (list, tuple, Sequence) and args:
        return f"a list of {_PLURALS.get(args[0], f'values, each {describe(args[0])}')}"
    if hint in (list, tuple):
        return "a list"
    if origin in (dict, Mapping) or hint is dict:
        return "a group of keys"
    return _WORDS.get(hint, f"of type {getattr(hint, '__name__', hint)}")


def legal_values(schema: type, key: str) -> str:
    """What a field may be, in words: its type and its range, or the names that it may have."""
    kind, values = describe(field_hints(schema)[key]), bounds.range_of(schema, key)
    return values if values.startswith("one of") else ", ".join(filter(None, (kind, values)))


def _takes(hint: Any, kind: type) -> bool:
    """Whether a value of that type is meant by the hint without conversion."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes(a, kind) for a in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return any(type(a) is kind for a in typing.get_args(hint))
    return hint is Any or hint is kind


def join(path: str, key: str) -> str:
    """``optim`` and ``epochs`` to ``optim.epochs``."""
    return f"{path}.{key}" if path else key
