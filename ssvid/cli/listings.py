"""``ssvid recipes | tasks | backbones | evaluations [NAME]``: what there is, and what one of them does."""

from __future__ import annotations

import argparse
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
    parser.epilog = (
        "examples:\n  ssvid recipes pretrain/speediness_tiny > mine.yaml\n  ssvid recipes --keys > keys.md\n"
    )
    parser.add_argument("--keys", action="store_true", help="every key of every kind of recipe, with its meaning")
    parser.set_defaults(run=run_recipes)


def add_tasks(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid tasks``."""
    parser = _add(verbs, common, "tasks", "list pretext tasks, or the options of one")
    parser.description = "Lists the pretext tasks found, also those of other packages. With a NAME, its options."
    parser.epilog = "example:\n  ssvid tasks speediness\n"
    parser.set_defaults(run=run_tasks)


def add_protocols(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid protocols``."""
    parser = _add(verbs, common, "protocols", "list evaluation protocols, or the page of one")
    parser.description = (
        "Lists the named protocols. With a NAME, every setting, what it reproduces, how it differs from the released\n"
        "program, and what was published under it. A name can stand where probe, retrieve and finetune take a recipe."
    )
    parser.epilog = "example:\n  ssvid protocols ucf101-linear@1\n"
    parser.add_argument("--markdown", action="store_true", help="as Markdown, for a page")
    parser.set_defaults(run=run_protocols)


def add_backbones(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid backbones``."""
    parser = _add(verbs, common, "backbones", "list networks, or the options of one")
    parser.description = "Lists the networks found, also those of other packages. With a NAME, its stages and options."
    parser.epilog = "example:\n  ssvid backbones r3d_18\n"
    parser.set_defaults(run=run_backbones)


def add_evaluations(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add ``ssvid evaluations``."""
    parser = _add(verbs, common, "evaluations", "list evaluations, or the options of one")
    parser.description = "Lists the evaluations found, also those of other packages. With a NAME, its options."
    parser.epilog = "example:\n  ssvid evaluations knn\n"
    parser.set_defaults(run=run_evaluations)


def _add(verbs: Any, common: argparse.ArgumentParser, verb: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(verb, help=text, parents=[common])
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of them")
    add_json(parser)
    parser.set_defaults(parser=parser)
    return parser


def run_recipes(args: argparse.Namespace) -> None:
    """List recipes, or print one; only the list of keys imports torch."""
    if args.keys:
        from ssvid.recipe.key_reference import page_of_keys

        print(page_of_keys(), end="")
        return
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


def run_tasks(args: argparse.Namespace) -> None:
    """List tasks, or describe one."""
    from ssvid.cli import describe

    describe.print_tasks(args.name, as_json=args.json)


def run_protocols(args: argparse.Namespace) -> None:
    """List protocols, or describe one."""
    from ssvid.protocols.named import PROTOCOLS, named_protocol
    from ssvid.protocols.pages import as_plain, page, page_of_all

    if args.name:
        protocol = named_protocol(args.name)
        if args.json:
            terminal.print_json(as_plain(protocol))
        else:
            print(page(protocol, markdown=args.markdown))
    elif args.json:
        terminal.print_json([as_plain(protocol) for protocol in PROTOCOLS])
    elif args.markdown:
        print(page_of_all(), end="")
    else:
        terminal.print_columns([(p.id, f"{p.kind}: {p.summary}") for p in PROTOCOLS])
        print(f"\n{terminal.counted(PROTOCOLS, 'protocol')}. All of one: ssvid protocols NAME")


def run_backbones(args: argparse.Namespace) -> None:
    """List networks, or describe one."""
    from ssvid.cli import describe

    describe.print_backbones(args.name, as_json=args.json)


def run_evaluations(args: argparse.Namespace) -> None:
    """List evaluations, or describe one."""
    from ssvid.cli import describe

    describe.print_evaluations(args.name, as_json=args.json)
