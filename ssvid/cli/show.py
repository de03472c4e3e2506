"""``ssvid show``: what a recipe will do, without doing it."""

from __future__ import annotations

import argparse

from ssvid.cli import terminal
from ssvid.cli.parser import Verbs, add_recipe

_DESCRIPTION = """\
Prints the resolved recipe with every default written out, shapes, learning rate, steps per epoch. Runs nothing.
"""
_EPILOG = """\
example:
  ssvid show pretrain/speediness_tiny optim.epochs=20
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("show", run, "print a resolved recipe, shapes and steps; run nothing", _DESCRIPTION, _EPILOG)
    add_recipe(parser)


def run(args: argparse.Namespace) -> None:
    """Print the recipe; with ``--json`` the resolved values alone."""
    if args.json:
        from ssvid.recipe.load import load_recipe

        terminal.print_json(load_recipe(args.recipe, args.overrides, allow_missing=True).resolved)
        return
    from ssvid.programs.show import show

    print(show(args.recipe, *args.overrides))
