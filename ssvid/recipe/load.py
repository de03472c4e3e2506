"""From a recipe's name and overrides to typed options: defaults, then the named protocol, the recipe, the overrides.

Every problem is reported at once. What leaves here is plain: dicts, lists, text, numbers, booleans, None.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ssvid.errors import RecipeError, SsvidError, did_you_mean
from ssvid.files import expanded, takes_paths
from ssvid.protocols.contract import NamedProtocol, leaves_of
from ssvid.protocols.named import is_protocol, named_protocol
from ssvid.recipe.check import (
    Typing,
    build,
    build_defaults,
    field_hints,
    group_at,
    join,
    leaf_paths,
    marks,
    merge,
    missing_paths,
    plain_problems,
    to_plain,
)
from ssvid.recipe.find import RESOLVED, find_recipe, read_recipe_text
from ssvid.recipe.options import backbone_options, evaluation_options, task_options
from ssvid.recipe.schema import KINDS, PretrainRecipe, Recipe, TaskEntry, dead_rules
from ssvid.recipe.yaml_text import MISSING, cut, parse_value, parse_yaml
from ssvid.settings import as_today
from ssvid.types import COMPOSITE
from ssvid.video.decoders.choice import decoder_problem

SCALED = "scaled"  # where a value comes from that follows from others
_KEY = re.compile(r"[^.=\s]+(\.[^.=\s]+)*")


class LoadedRecipe(NamedTuple):
    """A recipe that has been checked.

    recipe: typed. resolved: the same as plain types, every default written out. text: the file as it was read.
    path: of that file. origins: ``key.path`` -> "protocol", "recipe", "command line" or "call", for every value that was
    set; "scaled" for a warm-up that was shortened with its epochs. notes: what was decided, to be told.
    protocol: id of the named protocol, "" without one. changed: ``key.path`` -> (the protocol's value, the one used),
    where they differ.
    """

    recipe: Recipe
    resolved: dict[str, Any]
    text: str
    path: Path | None
    origins: dict[str, str]
    protocol: str = ""
    changed: Mapping[str, tuple[Any, Any]] = MappingProxyType({})
    notes: tuple[str, ...] = ()


@takes_paths("source")
def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    nested: Mapping[str, Any] | None = None,
    kind: str | None = None,
    allow_missing: bool = False,
    with_options: bool = True,
) -> LoadedRecipe:
    """Find, merge and check a recipe.

    Args:
        source: a path, a shipped name (``demo/speediness``), a named protocol (``ucf101-linear@1``), which then is all of
            the recipe but for where the videos are, or the recipe itself as a mapping.
        overrides: ``key.path=value``; the value is read as YAML. Later ones win.
        nested: the same as a mapping, from Python; wins over ``overrides``.
        kind: the kind that the caller can run; any kind where it is None.
        allow_missing: leave values that are still ``???`` (to show a recipe without running it).
        with_options: check the options of the task and of the backbone, which imports torch; without, they stay as said.

    Raises:
        RecipeError: with every problem that was found: unknown keys, wrong types, missing values.
    """
    values, text, path = _read(source)
    problems: list[str] = []
    said = _parse_overrides(overrides, problems)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = [("recipe", values), ("command line", said), ("call", to_plain(nested or {}))]
    protocol = _protocol_of([content for _, content in layers], problems)
    if protocol is not None:
        settings = merge(to_plain(protocol.videos), to_plain(protocol.settings))
        layers.insert(0, ("protocol", {"kind": protocol.kind, **settings}))
        layers.append(("protocol", {"protocol": protocol.id}))  # with its version, also where none was said
    notes: list[str] = []
    for layer, content in layers:
        for group in _named_anew(merged, content):
            left_out = dict(leaves_of({group: {"options": merged[group].pop("options")}}))
            origins = {path: origin for path, origin in origins.items() if path not in left_out}
            name = f"{group}.name={content[group]['name']}"
            notes.append(f"{name}: the {group}.options of {merged[group]['name']} are left out")
        merged = merge(merged, content)
        origins |= {path: layer for path, _ in leaves_of(content)}
    problems += plain_problems(merged)
    schema = _kind_schema(merged, kind, problems)
    if schema is None:
        raise _all_problems(source, problems)
    for group, (warmup, note) in _scaled_warmups(schema, layers).items():
        merged = merge(merged, {group: {"warmup_epochs": warmup}})
        origins[f"{group}.warmup_epochs"] = SCALED
        notes.append(note)
    typed_values = _check(schema, merged, allow_missing, problems, origins, with_options)
    if protocol is not None and merged.get("kind") != protocol.kind:
        problems.append(
            f"protocol ({protocol.id}) is one of kind {protocol.kind!r}. Run it with: ssvid {protocol.kind}"
        )
    problems += _decoder_problems(typed_values, use=not allow_missing)
    if problems:
        raise _all_problems(source, problems)
    resolved = to_plain(typed_values)
    loaded = LoadedRecipe(build(schema, typed_values), resolved, text, path, origins, notes=tuple(notes))
    if protocol is None:
        return loaded
    return loaded._replace(protocol=protocol.id, changed=changed_settings(protocol, resolved))


def _named_anew(merged: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Groups that name another thing than before: its options are those of another network, task or evaluation."""
    both = {group: (merged.get(group), content.get(group)) for group in ("backbone", "task", "evaluation")}
    return [
        group
        for group, (old, new) in both.items()
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("name") and old.get("options")
        if new.get("name", old["name"]) != old["name"]
    ]


def first_line(source: str, overrides: Sequence[str]) -> str:
    """What a recipe is about, in a line that is ready before torch is imported; "" where something is wrong with it.

    Nothing is refused here: what is wrong is told with all the rest, by ``load_recipe``.
    """
    folder = Path(expanded(source))
    file = folder / RESOLVED if (folder / RESOLVED).is_file() else source
    try:
        recipe = load_recipe(file, overrides, allow_missing=True, with_options=False).recipe
    except SsvidError:
        return ""
    if not isinstance(recipe, PretrainRecipe):
        return f"recipe {source}: {recipe.kind}, seed {recipe.seed}"
    named = [entry.get("name", "") if isinstance(entry, Mapping) else entry for entry in recipe.tasks]
    tasks = " + ".join(map(str, named)) or recipe.task.name
    return f"recipe {source}: {tasks} on {recipe.backbone.name}, optim.epochs={recipe.optim.epochs}, seed {recipe.seed}"


def _decoder_problems(values: Mapping[str, Any], use: bool) -> list[str]:
    """What is wrong with the decoders that a recipe names: told before a file is read."""
    groups = {name: values[name] for name in ("loader", "features") if isinstance(values.get(name), Mapping)}
    named = {f"{name}.decoder": group.get("decoder", "auto") for name, group in groups.items()}
    problems = (decoder_problem(str(decoder), setting, use=use) for setting, decoder in named.items())
    return [problem for problem in problems if problem]


def _protocol_of(layers: Sequence[Mapping[str, Any]], problems: list[str]) -> NamedProtocol | None:
    """The protocol that the last layer names that names one."""
    named = [layer["protocol"] for layer in layers if isinstance(layer.get("protocol"), str)]
    if not named or not named[-1]:
        return None
    try:
        return named_protocol(named[-1])
    except RecipeError as error:
        problems.append(str(error))
        return None


def _scaled_warmups(schema: type, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, tuple[float, str]]:
    """Group -> its warm-up where fewer epochs were asked for than it was written for, and a sentence on it."""
    found: dict[str, tuple[float, str]] = {}
    for option in dataclasses.fields(schema):
        default = option.default_factory() if dataclasses.is_dataclass(option.default_factory) else None
        if hasattr(default, "warmup_epochs") and hasattr(default, "epochs"):
            said = [(layer, group) for layer, values in layers if isinstance(group := values.get(option.name), Mapping)]
            scaled = _scaled_warmup(option.name, default, said)
            found |= {option.name: scaled} if scaled else {}
    return found


def _scaled_warmup(name: str, default: Any, said: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[float, str] | None:
    """A run that is shortened on the command line keeps the share of its warm-up; elsewhere only one that does not fit is
    shortened. A warm-up that is set together with the epochs, or later, stays.
    """
    epochs, warmup, note = default.epochs, default.warmup_epochs, ""
    for layer, values in said:
        now, own = values.get("epochs", epochs), values.get("warmup_epochs")
        if not _is_count(now) or not (own is None or isinstance(own, int | float)):
            return None  # the check of types tells
        if own is not None:
            warmup, note = own, ""
        elif now < epochs and warmup > 0 and (warmup > now or layer in ("command line", "call")):
            share = warmup * now / epochs
            note = f"{name}.warmup_epochs={share:g}: {now} epochs keep the share of warm-up of {epochs} ({warmup:g})"
            warmup = share
        epochs = now
    return (warmup, note) if note else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def changed_settings(protocol: NamedProtocol, resolved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where the recipe or the command line says something else than the protocol, or than the default that it rests on."""
    schema = KINDS[protocol.kind]
    defaults = build_defaults(schema)
    rests_on = {
        path: value_at(defaults, path)
        for path in leaf_paths(schema)
        if path.partition(".")[0] not in _BESIDE_A_PROTOCOL and not marks(schema, path).get("speed_only")
    }
    said = {path: to_plain(own) for path, own in (rests_on | protocol.leaves()).items()}
    return {path: (own, value_at(resolved, path)) for path, own in said.items() if own != value_at(resolved, path)}


# Weights, videos and seeds are not settings of a protocol, but where it names them.
_BESIDE_A_PROTOCOL = ("kind", "protocol", "data", "seed", "seeds", "folds", "backbone")


def diff_recipes(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lines ``key.path: old -> new`` for every value in which two resolved recipes differ."""
    lines: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        where, before, after = join(path, key), old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += diff_recipes(before, after, where)
        elif before != after or type(before) is not type(after):
            lines.append(f"{where}: {before!r} -> {after!r}")
    return lines


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


_ABSENT = _Absent()


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str, Path | None]:
    if isinstance(source, Mapping):
        return to_plain(source), "", None
    if isinstance(source, str) and is_protocol(source) and not Path(source).exists():
        return {"kind": named_protocol(source).kind, "protocol": source}, "", None
    path = find_recipe(source)
    text = read_recipe_text(path)
    values = parse_yaml(text, f"recipe {source}")
    if not isinstance(values, dict):
        held = "nothing" if values is None else f"a {type(values).__name__}"
        raise RecipeError(f"recipe {source} holds {held}; it must hold keys such as kind and data. See: ssvid recipes")
    return as_today(values) if path.name == RESOLVED else values, text, path


def _parse_overrides(overrides: Sequence[str], problems: list[str]) -> dict[str, Any]:
    """``["optim.epochs=5"]`` to ``{"optim": {"epochs": 5}}``; what is not an override goes to ``problems``."""
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not _KEY.fullmatch(key):
            problems.append(f"override {cut(override)!r} must read key.path=value, such as optim.epochs=5.")
            continue
        try:
            value = parse_value(text, f"the value of override {cut(override)!r}")
        except RecipeError as error:
            problems.append(f"{error} If it is text, quote it twice: \"{key}='...'\".")
            continue
        values = merge(values, _nested(key, value))
    return values


def _nested(path: str, value: Any) -> dict[str, Any]:
    key, dot, rest = path.partition(".")
    return {key: _nested(rest, value) if dot else value}


def _kind_schema(values: Mapping[str, Any], wanted: str | None, problems: list[str]) -> type | None:
    """The dataclass of the recipe's kind; None, and a problem more, where nothing else can be checked."""
    kind = values.get("kind")
    if kind is None:
        problems.append(f"kind is not set. Add a line 'kind: {wanted or 'pretrain'}'. Known: {', '.join(KINDS)}.")
    elif not isinstance(kind, str) or kind not in KINDS:
        problems.append(f"kind: unknown kind {kind!r}. {did_you_mean(str(kind), KINDS)}")
    elif wanted is not None and kind != wanted:
        problems.append(f"its kind is {kind!r}, and {wanted!r} is asked for. Run it with: ssvid {kind}")
    else:
        return KINDS[kind]
    return None


def _check(
    schema: type,
    merged: Mapping[str, Any],
    allow_missing: bool,
    problems: list[str],
    origins: Mapping[str, str],
    with_options: bool,
) -> dict[str, Any]:
    """Typed values; what is wrong with them is added to ``problems``."""
    merged = _with_composite(merged, problems)
    typed = Typing(_with_options(schema, merged, problems) if with_options else schema)
    values = with_whole_paths(schema, typed.apply(merged))
    problems += typed.problems
    if isinstance(merged.get("tasks"), list) and with_options:
        values["tasks"] = [_task_entry(entry, f"tasks.{i}", problems) for i, entry in enumerate(merged["tasks"])]
    if not allow_missing:
        way_out = "Add {0}=... to the command, or write it in the recipe."
        problems += [f"{path} is not set. {way_out.format(path)}" for path in missing_paths(values)]
    problems += _dead_keys(merged, values, schema, origins)
    return values if problems else with_idle_at_default(values, schema)


def with_idle_at_default(
    values: Mapping[str, Any], schema: type, but: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values, but that of a key that another one has switched off is its default: so the whole can be read again as one
    recipe, where nobody knows what had been said first.

    Args:
        but: keys that stay as they are, so that they are refused where they do nothing.
    """
    defaults, found = dataclasses.asdict(schema()), dict(values)
    for path, rule in dead_rules(set(leaf_paths(schema))):
        default, own = value_at(defaults, path), value_at(found, path)
        if None in (default, own) or own == default or value_at(but, path) is not None:
            continue
        if not rule.is_used(to_plain(value_at(found, rule.decider))):
            found = merge(found, _nested(path, default))
    return found


def with_whole_paths(schema: type, values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values with every path that is set written out from the root of the file system: ``~`` is the home folder, and
    a run that goes on from another folder finds its videos.
    """
    whole: dict[str, Any] = {}
    for key, value in values.items():
        where = join(path, key)
        if isinstance(value, Mapping) and group_at(schema, where) is not None:
            whole[key] = with_whole_paths(schema, value, where)
        elif value not in ("", MISSING) and marks(schema, where).get("is_path"):
            whole[key] = os.path.abspath(expanded(value))
        else:
            whole[key] = value
    return whole


def _with_composite(merged: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Where several tasks are listed, the group ``task`` says how they share the training."""
    group = merged.get("task")
    named = group.get("name") if isinstance(group, Mapping) else None
    if not merged.get("tasks"):
        if named == COMPOSITE:
            problems.append("task.name (composite) needs a list of tasks. Add tasks: [{name: ...}, {name: ...}].")
        return dict(merged)
    if named not in (None, "", MISSING, COMPOSITE):
        problems.append(f"task.name ({named!r}) and tasks are both set. Leave one of them out.")
    return dict(merged) | {"task": {**(group if isinstance(group, Mapping) else {}), "name": COMPOSITE}}


def _task_entry(entry: Any, path: str, problems: list[str]) -> dict[str, Any]:
    """One of several tasks, its options typed by the task's own Config."""
    legal = ", ".join(field_hints(TaskEntry))
    if not isinstance(entry, Mapping):
        problems.append(f"{path} ({entry!r}) must be a group of keys: {legal}.")
        return {}
    name = entry.get("name", MISSING)
    schema: type = TaskEntry
    if isinstance(name, str) and name != MISSING:
        try:
            schema = _retyped(TaskEntry, task_options(name))
        except SsvidError as error:
            problems.append(f"{path}.name: {error}")
            return dict(entry)
    typed = Typing(schema)
    values = typed.apply(entry, path)
    problems += typed.problems
    problems += [f"{path}.{missing} is not set." for missing in missing_paths(values)]
    return values


def _with_options(schema: type, merged: Mapping[str, Any], problems: list[str]) -> type:
    """The schema with ``task.options`` and ``backbone.options`` typed by what the recipe names."""
    groups = {f.name: f for f in dataclasses.fields(schema)}
    typed: list[tuple[str, Any, Any]] = []
    finders: dict[str, Callable[[str], type]] = {
        "task": task_options,
        "backbone": backbone_options,
        "evaluation": evaluation_options,
    }
    for group, options_for in finders.items():
        said = merged.get(group)
        name = said.get("name") if isinstance(said, Mapping) else None
        if group not in groups or not isinstance(name, str) or name in ("", MISSING):
            continue
        try:
            options = options_for(name)
            changed = _retyped(groups[group].default_factory, options)  # type: ignore[arg-type]
            Typing(changed).apply({})
        except SsvidError as error:
            problems.append(f"{group}.name: {error}")
        except Exception as error:  # a stranger's Config may use types that have no place in a recipe
            reason = f"{type(error).__name__}: {error}"
            problems.append(f"{group}.name: the options of {group} {name!r} cannot be typed ({reason}).")
        else:
            typed.append((group, changed, dataclasses.field(default_factory=changed)))
    if not typed:
        return schema
    return dataclasses.make_dataclass(schema.__name__, typed, bases=(schema,))


def _retyped(group: type, options: type) -> type:
    default = dataclasses.field(default_factory=lambda: options)
    return dataclasses.make_dataclass(group.__name__, [("options", options, default)], bases=(group,))


_LAYERS = ("protocol", "recipe", "command line", "call")


def _dead_keys(
    merged: Mapping[str, Any], values: Mapping[str, Any], schema: type, origins: Mapping[str, str]
) -> Iterator[str]:
    """Keys that were set and do nothing, because another key says so. A key at its default is left alone, and so is one
    that was in use until a later layer (the command line, over the recipe) switched it off.
    """
    defaults = to_plain(dataclasses.asdict(schema()))
    known = set(leaf_paths(schema))
    for path, rule in dead_rules(known):
        said, default, deciding = value_at(merged, path), value_at(defaults, path), value_at(values, rule.decider)
        own = to_plain(value_at(values, path))
        if said is None or default is None or own == default or rule.is_used(to_plain(deciding)):
            continue
        if _layer(origins, rule.decider) <= _layer(origins, path) or rule.decider == "kind":
            yield (
                f"{path} ({said!r}) does nothing where {rule.decider} is {to_plain(deciding)!r}; it is used with "
                f"{rule.words}. Remove it."
            )


def _layer(origins: Mapping[str, str], path: str) -> int:
    """How late a value was set; one of a list or a group counts as the whole."""
    said = [layer for at, layer in origins.items() if at == path or at.startswith(f"{path}.")]
    return max((_LAYERS.index(layer) for layer in said if layer in _LAYERS), default=-1)


def value_at(values: Any, path: str) -> Any:
    """What stands at a path of nested groups; None where nothing does."""
    for key in path.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values


def _all_problems(source: str | Path | Mapping[str, Any], problems: Sequence[str]) -> RecipeError:
    name = "the recipe" if isinstance(source, Mapping) else f"recipe {source}"
    if len(problems) == 1:
        return RecipeError(f"{name} cannot be used: {problems[0]}")
    return RecipeError("\n".join([f"{name} has {len(problems)} problems:", *(f"  - {p}" for p in problems)]))
