"""``ssvid recipes | tasks | backbones [NAME]``: what there is, and what one of them does."""

from __future__ import annotations

import argparse
import inspect
import itertools
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from ssvid.cli import terminal
from ssvid.cli.parser import add_json


def add_recipes(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid recipes``."""
    parser = _add(verbs, common, "recipes", "list the recipes that come with ssvid, or print one")
    parser.description = (
        "Lists the recipes that come with ssvid. With a NAME, prints that file: its header says what it does,\n"
        "the command, the cost and the expected number. Save and change it to make your own."
    )
    parser.epilog = "example:\n  ssvid recipes pretrain/speediness_tiny > mine.yaml\n"
    parser.set_defaults(run=run_recipes)


def add_tasks(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid tasks``."""
    parser = _add(verbs, common, "tasks", "list pretext tasks, or the options of one")
    parser.description = "Lists the pretext tasks found, also those of other packages. With a NAME, its options."
    parser.epilog = "example:\n  ssvid tasks speediness\n"
    parser.set_defaults(run=run_tasks)


def add_backbones(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid backbones``."""
    parser = _add(verbs, common, "backbones", "list networks, or the options of one")
    parser.description = "Lists the networks found, also those of other packages. With a NAME, its stages and options."
    parser.epilog = "example:\n  ssvid backbones r3d_18\n"
    parser.set_defaults(run=run_backbones)


def _add(verbs: Any, common: argparse.ArgumentParser, verb: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(verb, help=text, parents=[common])
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of them")
    add_json(parser)
    parser.set_defaults(parser=parser)
    return parser


# ---- recipes ---------------------------------------------------------------------------------------------------------


def run_recipes(args: argparse.Namespace) -> None:
    """List recipes, or print one. Imports no torch."""
    from ssvid.recipe.find import find_recipe, header_of, list_recipes, read_recipe_text, shipped_recipes_dir

    if args.name:
        path = find_recipe(args.name)
        text = read_recipe_text(path)
        if args.json:
            terminal.print_json({"name": args.name, "path": path, "header": header_of(text), "text": text})
        else:
            print(text, end="" if text.endswith("\n") else "\n")
        return
    recipes = list_recipes()
    if args.json:
        terminal.print_json([{"name": r.name, "path": r.path, "header": r.header} for r in recipes])
        return
    terminal.print_columns([(r.name, r.title) for r in recipes])
    print(f"\n{terminal.counted(recipes, 'recipe')} in {shipped_recipes_dir()}. Print one: ssvid recipes NAME")


# ---- tasks -----------------------------------------------------------------------------------------------------------


def run_tasks(args: argparse.Namespace) -> None:
    """List tasks with their chance levels, or describe one."""
    from ssvid.tasks import tasks

    names = [args.name] if args.name else tasks.names()
    described = [_describe_task(name, tasks.get(name)) for name in names]
    if args.json:
        terminal.print_json(described[0] if args.name else {"tasks": described, "broken": _broken(tasks)})
    elif args.name:
        _print_task(described[0])
    else:
        terminal.print_columns([(task["name"], task["summary"]) for task in described])
        print(f"\n{terminal.counted(names, 'task')}. Options of one: ssvid tasks NAME")
    _say_broken(tasks)


def _describe_task(name: str, task: Any) -> dict[str, Any]:
    from ssvid.recipe.check import field_hints
    from ssvid.recipe.options import task_options

    module = inspect.getmodule(task)
    doc = inspect.getdoc(task) if task.__doc__ else None
    options = task_options(name)
    return {
        "name": name,
        "summary": first_line(module.__doc__ if module and module.__doc__ else doc or ""),
        "paper": _second_paragraph(module.__doc__ if module else ""),
        "module": task.__module__,
        "targets": list(task.targets),
        "chance": _chance(task, options),
        "options": _option_rows(options, field_hints(options)),
        "option_help": inspect.getdoc(options) or "",
    }


def _chance(task: Any, options: type) -> dict[str, float] | None:
    """Chance levels with default options; None where the task needs options that have no default."""
    if any(f.default is MISSING and f.default_factory is MISSING for f in fields(options)):
        return None
    from ssvid.backbones import create_backbone

    return {metric: float(value) for metric, value in task(options(), create_backbone("tiny3d").info).chance().items()}


def _print_task(task: dict[str, Any]) -> None:
    print(f"{task['name']}: {task['summary']}")
    if task["paper"]:
        print(terminal.wrap(task["paper"]))
    print(f"\nfile: {task['module']}")
    print(f"targets (permuted by the placebo): {', '.join(task['targets']) or '(the task has its own placebo)'}")
    if task["chance"]:
        print("chance: " + ", ".join(f"{metric} {value:g}" for metric, value in task["chance"].items()))
    _print_options(task["options"], "task.options.", task["option_help"])


# ---- backbones -------------------------------------------------------------------------------------------------------


def run_backbones(args: argparse.Namespace) -> None:
    """List networks with their size, or describe one."""
    from ssvid.backbones import backbones

    names = [args.name] if args.name else backbones.names()
    described = [_describe_backbone(name, backbones.get(name)) for name in names]
    if args.json:
        terminal.print_json(described[0] if args.name else {"backbones": described, "broken": _broken(backbones)})
    elif args.name:
        _print_backbone(described[0])
    else:
        rows = [(b["name"], f"{b['summary']} [{b['parameters'] / 1e6:.2f} M parameters]") for b in described]
        terminal.print_columns(rows)
        print(f"\n{terminal.counted(names, 'backbone')}. Stages and options of one: ssvid backbones NAME")
    _say_broken(backbones)


def _describe_backbone(name: str, backbone: Any) -> dict[str, Any]:
    from ssvid.backbones import create_backbone
    from ssvid.recipe.check import field_hints
    from ssvid.recipe.options import backbone_options

    options = backbone_options(name)
    network = create_backbone(name)
    return {
        "name": name,
        "summary": first_line(inspect.getdoc(backbone) or ""),
        "module": backbone.__module__,
        "parameters": sum(p.numel() for p in network.parameters()),
        "info": network.info.to_dict(),
        "options": _option_rows(options, field_hints(options)),
        "option_help": arguments_of(inspect.getdoc(backbone) or ""),
    }


def _print_backbone(backbone: dict[str, Any]) -> None:
    info = backbone["info"]
    print(f"{backbone['name']}: {backbone['parameters'] / 1e6:.2f} M parameters; file: {backbone['module']}")
    print(f"meant for {info['num_frames']} frames of {info['size']} px; other lengths and sizes work\n")
    print("stage     channels  stride in space  in time")
    for stage in info["stages"]:
        print(f"{stage['name']:8}  {stage['channels']:8}  {stage['stride_space']:15}  {stage['stride_time']:7}")
    _print_options(backbone["options"], "backbone.options.", backbone["option_help"])


# ---- both ------------------------------------------------------------------------------------------------------------


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


def _option_rows(options: type, hints: dict[str, Any]) -> list[dict[str, Any]]:
    from ssvid.recipe.check import describe, to_plain

    rows = []
    for field in fields(options):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        required = default is MISSING or default == "???"
        rows.append(
            {
                "name": field.name,
                "default": None if required else to_plain(default),
                "required": required,
                "type": describe(hints[field.name]),
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
            (f"{prefix}{row['name']}={'???' if row['required'] else _typed(row['default'])}", row["type"])
            for row in rows
        ],
        indent="  ",
    )
    if help_text:
        print(f"\n{unmarked(help_text)}")


def _typed(value: Any) -> str:
    """A value as it is typed after ``key=``."""
    from ssvid.recipe.yaml_text import to_yaml

    if isinstance(value, str) or value is None:
        return "" if value is None else value
    return "".join(to_yaml([value]).strip()[1:-1]).replace(", ", ",")


def _broken(registry: Any) -> list[dict[str, str]]:
    return [{"module": b.module, "reason": b.reason} for b in registry.broken]


def _say_broken(registries: Any) -> None:
    broken: Iterable[Any] = registries.broken
    for plugin in broken:
        terminal.say(f"broken plug-in: {plugin.module} failed to import: {plugin.reason}")
