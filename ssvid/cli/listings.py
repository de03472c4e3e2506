"""``ssvid recipes | tasks | backbones | evaluations [NAME]``: what there is, and what one of them does."""

from __future__ import annotations

import argparse

from ssvid.cli import terminal
from ssvid.cli.parser import Run, Verbs

_RECIPES = """\
Lists the recipes that come with ssvid. With a NAME, prints that file: its header says what it does,
the command, the cost and the expected number. Save and change it to make your own.
"""
_RECIPES_EPILOG = """\
examples:
  ssvid recipes pretrain/speediness_tiny > mine.yaml
  ssvid recipes --keys > keys.md
"""
_PROTOCOLS = """\
Lists the named protocols. With a NAME, every setting, what it reproduces, how it differs from the released
program, and what was published under it. A name can stand where probe, retrieve and finetune take a recipe.
"""


def add(verbs: Verbs) -> None:
    """Add the verbs that list."""

    def add_one(verb: str, run: Run, about: str, description: str, epilog: str) -> argparse.ArgumentParser:
        parser = verbs.add(verb, run, about, description, epilog)
        parser.add_argument("name", metavar="NAME", nargs="?", help="one of them")
        return parser

    about = "list the recipes that come with ssvid, or print one"
    recipes = add_one("recipes", run_recipes, about, _RECIPES, _RECIPES_EPILOG)
    recipes.add_argument("--keys", action="store_true", help="every key of every kind of recipe, with its meaning")
    about = "list evaluation protocols, or the page of one"
    protocols = add_one("protocols", run_protocols, about, _PROTOCOLS, "example:\n  ssvid protocols ucf101-linear@1\n")
    protocols.add_argument("--markdown", action="store_true", help="as Markdown, for a page")
    for verb, kind, has, example in (
        ("tasks", "pretext tasks", "its options", "speediness"),
        ("backbones", "networks", "its stages and options", "r3d_18"),
        ("evaluations", "evaluations", "its options", "knn"),
    ):
        about = f"list {kind}, or the options of one"
        description = f"Lists the {kind} found, also those of other packages. With a NAME, {has}."
        add_one(verb, run_plugins, about, description, f"example:\n  ssvid {verb} {example}\n")


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


def run_plugins(args: argparse.Namespace) -> None:
    """List the plug-ins of a kind, or describe one."""
    from ssvid.cli import describe

    describe.print_plugins(args.verb, args.name, as_json=args.json)
