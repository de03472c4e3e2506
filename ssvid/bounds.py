"""Legal values stand on the field: ``num_frames: Annotated[int, AtLeast(2)] = 64``. One checker and one text for all.

Rules that tie several fields, or a field and the network, stay functions beside their class and say it by ``told``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ssvid.errors import OptionError, RecipeError
from ssvid.settings import default_of


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value must be. A rule of items holds for each item of a list.

    words: after "must be". allows: whether a value obeys. legal: the names among which it must be.
    """

    words: str
    allows: Callable[[Any], bool]
    of_items: bool = True
    legal: tuple[Any, ...] = ()

    def breaks(self, value: Any) -> str:
        """The rule in words where a value breaks it, "" where it does not."""
        several = isinstance(value, list | tuple) and self.of_items
        if all(map(self.allows, value)) if several else self.allows(value):
            return ""
        near = [] if several else difflib.get_close_matches(str(value), map(str, self.legal), n=1, cutoff=0.6)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{'a list, each item ' if several else ''}{self.words}{meant}"


def _number(words: str, allows: Callable[[float], bool]) -> Rule:
    return Rule(words, lambda value: math.isfinite(value) and allows(value))


def AtLeast(low: float) -> Rule:  # noqa: N802 - it stands where types do
    """That number or more."""
    return _number(f"at least {low:g}", lambda value: value >= low)


def Between(low: float, high: float) -> Rule:  # noqa: N802
    """From one number to the other, both included."""
    return _number(f"between {low:g} and {high:g}", lambda value: low <= value <= high)


def OneOf(*legal: Any) -> Rule:  # noqa: N802
    """One of these."""
    return Rule(f"one of {', '.join(map(str, legal))}", lambda value: value in legal, legal=legal)


Positive = _number("above 0", lambda value: value > 0)
Share = _number("above 0 and at most 1", lambda value: 0 < value <= 1)
UpToHalf = _number("above 0 and at most 0.5", lambda value: 0 < value <= 0.5)
Inside = _number("above 0 and below 1", lambda value: 0 < value < 1)
BelowOne = _number("at least 0 and below 1", lambda value: 0 <= value < 1)
NotEmpty = Rule("a list that is not empty", bool, of_items=False)
Pair = Rule("a list of two", lambda values: len(values) == 2, of_items=False)
Rising = Rule("in rising order", lambda values: list(values) == sorted(values), of_items=False)


@functools.lru_cache(maxsize=1024)  # a recipe asks some twenty times
def rules_of(schema: type) -> dict[str, tuple[Rule, ...]]:
    """Field -> its rules; fields without any are left out."""
    hints = typing.get_type_hints(schema, include_extras=True).items()
    rules = {name: tuple(r for r in getattr(hint, "__metadata__", ()) if isinstance(r, Rule)) for name, hint in hints}
    return {name: own for name, own in rules.items() if own}


def range_of(schema: type, name: str) -> str:
    """The legal values of a field in words; "" where its type says all."""
    is_list = typing.get_origin(typing.get_type_hints(schema)[name]) in (list, tuple)
    rules = rules_of(schema).get(name, ())
    return ", ".join(f"{'each ' if is_list and rule.of_items else ''}{rule.words}" for rule in rules)


def problem(name: str, value: Any, rules: Iterable[Rule]) -> str:
    """``crop ('hole') must be one of square, whole``; "" where nothing is wrong."""
    broken = [words for rule in rules if (words := rule.breaks(value))]
    return f"{name} ({shown(value)}) must be {', '.join(broken)}" if broken else ""


def told(key: str, value: Any, rule: str, way_out: Any) -> str:
    """``features.workers (-1) must be at least 0. Set features.workers=2.``"""
    return f"{key} ({shown(value)}) {rule}. Set {key}={typed(way_out)}."


def way_out(schema: type, name: str, group: str = "") -> str:
    """``Set optim.epochs=100.``, the default; ``...`` where there is none."""
    field = next(field for field in dataclasses.fields(schema) if field.name == name)
    default = default_of(field)
    return f"Set {group}{name}={'...' if default is dataclasses.MISSING else typed(default)}."


def check(config: Any, group: str = "", more: Iterable[str] = ()) -> None:
    """Make sure that every value of a dataclass is legal.

    Args:
        group: what stands before the names of its fields in texts ("features.").
        more: what else is wrong, as ``told``; of a field, it is told instead of the rule on the field.

    Raises:
        RecipeError: all that is wrong, each with its rule and way out.
    """
    if problems := all_problems(config, group, more):
        raise RecipeError("\n".join(problems))


def all_problems(config: Any, group: str = "", more: Iterable[str] = ()) -> list[str]:
    """What ``check`` would tell."""
    told_already = list(more)
    broken = _broken(config, group, told_already)
    return told_already + [f"{text}. {way_out(type(config), name, group)}" for name, text in broken]


def check_options(task: str, config: Any, more: Iterable[str] = ()) -> None:
    """The same for the options of a pretext task.

    Args:
        task: its name.
        more: what else is wrong, without a way out, as ``OptionError`` takes it.

    Raises:
        OptionError: all that is wrong, each with its rule and way out.
    """
    told_already = list(more)
    problems = told_already + [text for _, text in _broken(config, "", told_already)]
    if problems:
        raise OptionError(task, [field.name for field in dataclasses.fields(config)], problems)


def _broken(config: Any, group: str, told_already: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, problem) of each field whose value its rules forbid, but for fields that were told already."""
    keys = {text.split(maxsplit=1)[0] for text in told_already}
    schema: type = type(config)
    for name, rules in rules_of(schema).items():
        text = problem(f"{group}{name}", getattr(config, name), rules)
        if text and f"{group}{name}" not in keys:
            yield name, text


def shown(value: Any) -> str:
    """A value as texts show it: tuples as lists, text in quotes."""
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def typed(value: Any) -> str:
    """A value as it is typed after ``key=``."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
