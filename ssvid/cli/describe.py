"""What a registered task, network or evaluation is, in words: for ``ssvid tasks``, ``backbones`` and ``evaluations``. Imports torch."""

from __future__ import annotations

import inspect
import itertools
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from ssvid.backbones import backbones, create_backbone
from ssvid.backbones.contract import without_weights
from ssvid.cli import terminal
from ssvid.recipe.check import describe, field_hints, legal_values, to_plain
from ssvid.recipe.options import backbone_options, evaluation_options, task_options
from ssvid.recipe.yaml_text import to_yaml
from ssvid.registry import Registry
from ssvid.settings import default_of
from ssvid.tasks import tasks


def print_plugins(kind: str, only: str | None, *, as_json: bool) -> None:
    """All ``tasks``, ``backbones`` or ``evaluations`` with a line for each; or one of them with its options."""
    registry, facts_of, tell, line_of = _kind(kind)
    names = registry.names()
    if only:
        facts = facts_of(only, registry.get(only))
        if kind == "backbones":
            facts["tasks"] = _tasks_of(only)
        terminal.print_json(facts) if as_json else tell(facts)
    elif as_json:
        found = [facts_of(name, registry.get(name)) for name in names]
        broken = [{"module": b.module, "reason": b.reason} for b in registry.broken]
        terminal.print_json({kind: found, "broken": broken})
    else:
        terminal.print_columns([(name, line_of(name, registry.get(name))) for name in names])
        print(f"\n{terminal.counted(names, registry.kind)}. Options of one: ssvid {kind} NAME")
    for plugin in registry.broken:
        terminal.say(f"broken plug-in: {plugin}")


Facts = dict[str, Any]
Described = tuple[Registry, Callable[[str, Any], Facts], Callable[[Facts], None], Callable[[str, Any], str]]


def _kind(kind: str) -> Described:
    """Where the plug-ins of a kind are, what is told of one as plain types, how that is printed, and its line."""
    if kind == "tasks":
        return tasks, _task, _print_task, lambda name, task: _task_summary(task)
    if kind == "backbones":
        return backbones, _backbone, _print_backbone, _backbone_line
    from ssvid.evals.contract import evaluations  # here, because it imports much

    return evaluations, _evaluation, _print_evaluation, lambda name, evaluation: first_line(evaluation.__doc__ or "")


def _task(name: str, task: Any) -> Facts:
    module = inspect.getmodule(task)
    options = task_options(name)
    return {
        "name": name,
        "summary": _task_summary(task),
        "paper": _second_paragraph(module.__doc__ if module else ""),
        "module": task.__module__,
        "targets": list(task.targets),
        "chance": _chance(task, options),
        "options": _option_rows(options),
        "option_help": inspect.getdoc(options) or "",
    }


def _task_summary(task: Any) -> str:
    """What the file of the task says in its first line, or the class: inherited docstrings tell nothing."""
    module = inspect.getmodule(task)
    return first_line((module.__doc__ if module else "") or task.__doc__ or "")


def _chance(task: Any, options: type) -> dict[str, float] | None:
    """Chance levels with default options; None where the task needs options that have no default."""
    if any(default_of(field) is MISSING for field in fields(options)):
        return None
    return {metric: float(value) for metric, value in task(options(), create_backbone("tiny3d").info).chance().items()}


def _print_task(task: Facts) -> None:
    print(f"{task['name']}: {task['summary']}")
    if task["paper"]:
        print(terminal.wrap(task["paper"]))
    print(f"\nfile: {task['module']}")
    print(f"targets (wrong in a placebo): {', '.join(task['targets']) or '(the task has its own placebo)'}")
    if task["chance"]:
        print("chance: " + ", ".join(f"{metric} {value:g}" for metric, value in task["chance"].items()))
    _print_options(task["options"], "task.options.", task["option_help"])


def _backbone(name: str, backbone: Any) -> Facts:
    network = create_backbone(name)
    return {
        "name": name,
        "summary": first_line(inspect.getdoc(backbone) or ""),
        "module": backbone.__module__,
        "parameters": sum(p.numel() for p in network.parameters()),
        "info": network.info.to_dict(),
        "options": _option_rows(backbone_options(name)),
        "option_help": arguments_of(inspect.getdoc(backbone) or ""),
    }


def _tasks_of(backbone: str) -> Facts:
    """Task -> why it cannot train the network with the default options of both; "" where it can. Found by trying."""
    from ssvid.testing import refusal_of  # here, because it imports much

    network = without_weights(backbone)
    return {name: refusal_of(name, network) for name in tasks.names()}


def _backbone_line(name: str, backbone: Any) -> str:
    found = _backbone(name, backbone)
    return f"{found['summary']} [{found['parameters'] / 1e6:.2f} M parameters]"


def _print_backbone(backbone: Facts) -> None:
    info = backbone["info"]
    print(f"{backbone['name']}: {backbone['parameters'] / 1e6:.2f} M parameters; file: {backbone['module']}")
    longest = "or more" if info["max_frames"] is None else f"to {info['max_frames']}"
    takes = f"takes {info['min_frames']} {longest} frames of {info['min_px']} px or more"
    if info["min_frames"] == info["max_frames"]:
        takes = f"takes {info['min_frames']} frames, no more and no fewer, of {info['min_px']} px or more"
    print(f"meant for {info['num_frames']} frames of {info['size']} px; {takes}\n")
    print("stage     channels  stride in space  in time")
    for stage in info["stages"]:
        print(f"{stage['name']:8}  {stage['channels']:8}  {stage['stride_space']:15}  {stage['stride_time']:7}")
    trains = [name for name, refusal in backbone["tasks"].items() if not refusal]
    print(f"\npretext tasks that train it, with the default options of both: {', '.join(trains) or 'none'}")
    for name, refusal in backbone["tasks"].items():
        if refusal:
            why = " ".join(refusal.removeprefix(f"task {name}: ").split())
            print(terminal.wrap(f"not {name}: {why}"))
    _print_options(backbone["options"], "backbone.options.", backbone["option_help"])


def _evaluation(name: str, evaluation: Any) -> Facts:
    options = evaluation_options(name)
    return {
        "name": name,
        "summary": first_line(evaluation.__doc__ or ""),
        "module": evaluation.__module__,
        "needs": evaluation.needs,
        "verb": evaluation.verb,
        "options": _option_rows(options),
        "option_help": inspect.getdoc(options) or "",
    }


def _print_evaluation(one: Facts) -> None:
    print(f"{one['name']}: {one['summary']}\n\nfile: {one['module']}")
    print(f"made of {one['needs']}; asked by: ssvid {one['verb']}")
    _print_options(one["options"], "evaluation.options.", one["option_help"])


# ---- docstrings and options


def first_line(doc: str) -> str:
    """The first paragraph of a docstring on one line."""
    return unmarked(" ".join(inspect.cleandoc(doc).partition("\n\n")[0].split()))


def arguments_of(doc: str) -> str:
    """The lines below ``Args:`` of a docstring, up to the next section."""
    _, found, below = doc.partition("\nArgs:\n")
    lines = list(itertools.takewhile(lambda line: not line or line[0] == " ", below.splitlines()))
    return textwrap.dedent("\n".join(lines)).strip() if found else ""


def _second_paragraph(doc: str | None) -> str:
    paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    return unmarked(" ".join(paragraphs[1].split())) if len(paragraphs) > 1 else ""


def unmarked(doc: str) -> str:
    """Docstring text for a terminal: without the double backquotes."""
    return doc.replace("``", "`")


def _option_rows(options: type) -> list[dict[str, Any]]:
    rows, hints = [], field_hints(options)
    for field in fields(options):
        default = default_of(field)
        required = default is MISSING or default == "???"
        rows.append(
            {
                "name": field.name,
                "default": None if required else to_plain(default),
                "required": required,
                "type": describe(hints[field.name]),
                "legal": legal_values(options, field.name),
            }
        )
    return rows


def _print_options(rows: list[dict[str, Any]], prefix: str, help_text: str) -> None:
    if not rows:
        print("\nIt takes no options.")
        return
    print("\noptions (default):")
    terminal.print_columns(
        [
            (f"{prefix}{row['name']}={'???' if row['required'] else _typed(row['default'])}", row["legal"])
            for row in rows
        ],
        indent="  ",
    )
    if help_text:
        print(f"\n{unmarked(help_text)}")


def _typed(value: Any) -> str:
    """A value as it is typed after ``key=``."""
    if isinstance(value, str) or value is None:
        return "" if value is None else value
    return "".join(to_yaml([value]).strip()[1:-1]).replace(", ", ",")
