"""``ssvid audit``: what a trained pretext network really reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssvid.cli.parser import Verbs, add_shared, run_program, whole

_DESCRIPTION = """\
Measures the pretext metric on clean clips and on the same clips changed in one respect at a time: static, shuffled,
re-encoded, resized, with a border, without color, as noise, with a part covered, and more. What makes the network fail
is what it had read. A table with paired 95 % intervals, a picture of examples, and a verdict in words for every row.
"""
_EPILOG = """\
examples:
  ssvid audit --checkpoint runs/mine
  ssvid audit --checkpoint runs/mine --only static,reencoded,border --num-clips 2000
  ssvid audit pretrain/speediness_tiny data.root=others --checkpoint runs/mine --split all

The exit code is 0 whatever the verdict.
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("audit", run, "find out what a trained task really reads", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a YAML file, or a shipped name (default: that of the checkpoint)"
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[], help="change the recipe: data.root=others"
    )
    parser.add_argument("--checkpoint", metavar="PATH", required=True, help="a run folder or a checkpoint")
    parser.add_argument(
        "--num-clips",
        metavar="N",
        type=whole(1),
        default=1000,
        help="at least so many clips, of at most so many videos (default: 1000)",
    )
    parser.add_argument("--only", metavar="NAMES", default="", help="counterfactuals, with commas (default: all)")
    parser.add_argument("--metric", metavar="NAME", default="", help="of the task (default: its first)")
    parser.add_argument(
        "--split", metavar="NAME", default="", help="videos of this split, or 'all' (default: those held out)"
    )
    parser.add_argument("--batch-size", metavar="N", type=whole(1), default=32, help="clips per pass (default: 32)")
    add_shared(parser, "--workers", "--device")
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default: in the run folder, numbered)")


def run(args: argparse.Namespace) -> None:
    """Audit and print the report."""
    args.recipe, args.overrides = recipe_and_overrides([*filter(None, [args.recipe]), *args.overrides])
    run_program(args)


def recipe_and_overrides(words: list[str]) -> tuple[str | None, list[str]]:
    """Tell the recipe from the settings: it may stand anywhere, or be left out."""
    names = [word for word in words if "=" not in word or Path(word).is_file()]
    recipe = names[0] if names else None
    rest = list(words)
    if recipe is not None:
        rest.remove(recipe)
    return recipe, rest
