"""Recipe text to plain types and back: safe, strict YAML. No object is ever built, nothing is ever interpolated.

Differs from YAML 1.1: only ``true`` and ``false`` are booleans (``no``, ``off`` are text), ``1e-3`` is a number, ``01``
and ``1:30`` and dates are text. Keys are text and unique; aliases are refused, so that a small file cannot unfold into
a huge one.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ssvid.errors import RecipeError

MISSING = "???"
MAX_BYTES = 1_000_000
MAX_DEPTH = 16

_TAG = "tag:yaml.org,2002:"
_WHOLE = r"(?:0|[1-9][0-9]*)"
_EXPONENT = r"[eE][-+]?[0-9]+"
_SCALARS = {  # tag -> pattern, characters that it can begin with; the first that matches decides
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (rf"[-+]?{_WHOLE}", list("-+0123456789")),
    "float": (
        rf"[-+]?(?:{_WHOLE}\.[0-9]*(?:{_EXPONENT})?|\.[0-9]+(?:{_EXPONENT})?|{_WHOLE}{_EXPONENT}|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Refused(yaml.YAMLError):
    """Legal YAML that a recipe must not contain."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own way to give a loader its scalars

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []
        self._depth = 0

    # PyYAML reads the ??? of {root: ???} as the mark of a complex key; outside of braces it reads it as text.

    def check_key(self) -> bool:
        return bool(not self._at_missing() and super().check_key())

    def check_plain(self) -> bool:
        return bool(self._at_missing() or super().check_plain())

    def scan_plain(self) -> Any:
        if not (self.flow_level and self._at_missing()):
            return super().scan_plain()
        start = self.get_mark()
        self.forward(len(MISSING))
        return yaml.ScalarToken(MISSING, True, start, self.get_mark())

    def _at_missing(self) -> bool:
        return self.prefix(len(MISSING)) == MISSING

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            raise _Refused(f"line {line}: aliases (*name) are not allowed. Write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            short = tag.replace(_TAG, "!!")
            raise _Refused(
                f"line {line}: objects and tags ({short}) are not allowed, only text, numbers, true/false, lists and "
                "groups. Write the value itself"
            )
        if self._depth >= MAX_DEPTH:
            raise _Refused(f"line {line}: nested deeper than {MAX_DEPTH} levels. Recipes are flat: flatten it")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:  # a number of thousands of digits
            kind, line = node.tag.removeprefix(_TAG), node.start_mark
            where = f"line {line.line + 1}: " if line is not None else ""
            raise _Refused(
                f"{where}{cut(str(node.value), 24)} cannot be read as {kind}. Write a smaller number"
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first_line: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag != _TAG + "str":
                self.problems.append(f"line {line}: key {getattr(key, 'value', '')!s} must be text. Put it in quotes.")
            elif key.value in first_line:
                self.problems.append(
                    f"line {line}: key {key.value!r} stands here and in line {first_line[key.value]}. Keep one of them."
                )
            else:
                first_line[key.value] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  the loader's scalars, so that text is quoted where it must be

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        # PyYAML writes these rare line breaks as they are, and reads them back as others.
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar(_TAG + "str", data, style=style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)


_Dumper.add_representer(str, _Dumper.represent_str)

for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def parse_yaml(text: str, origin: str) -> Any:
    """Plain types from YAML text.

    Args:
        text: one YAML document of at most ``MAX_BYTES``.
        origin: where the text came from, for messages.

    Raises:
        RecipeError: the text is not YAML, or holds what a recipe must not (duplicate keys, aliases, objects, depth).
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise RecipeError(f"{origin} has {size:,} bytes; a recipe may have {MAX_BYTES:,}. Is it the right file?")
    try:
        loader = _Loader(text)
        plain = loader.get_single_data()
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin} cannot be read as YAML: {_reason(error)}.") from error
    if loader.problems:
        raise RecipeError("\n".join([f"{origin} cannot be used:", *(f"  - {p}" for p in loader.problems)]))
    return plain


def parse_value(text: str, origin: str) -> Any:
    """Plain types from the right side of ``key=value``: a number, true, false, null, or text as it stands.

    Only what begins with a bracket, a brace or a quote is read as YAML, so that ``#``, ``:``, ``*`` in a path are safe.

    Raises:
        RecipeError: it begins so and is not YAML, or is a number of thousands of digits.
    """
    if text[:1] in ("[", "{", '"', "'"):
        return parse_yaml(text, origin)
    if not text:
        return ""
    loader = _Loader("")
    try:
        return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin} cannot be read: {_reason(error)}.") from error


def to_yaml(plain: Any) -> str:
    """YAML text that ``parse_yaml`` reads back as the same plain types; keys keep their order."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def cut(text: str, most: int = 60) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def _reason(error: yaml.YAMLError) -> str:
    """PyYAML's finding in one line, with the line number where it has one."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = " ".join(str(getattr(error, "problem", error)).split())
    if "but found another document" in str(error):
        problem = "it holds more than one document (---). Keep one"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
