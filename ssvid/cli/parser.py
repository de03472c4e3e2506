"""The argument parser of all verbs. Mistakes become one paragraph with a suggestion; nothing heavy is imported."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ssvid.cli import terminal
from ssvid.errors import SsvidError, did_you_mean
from ssvid.recipe.synonyms import option_for, setting_for_option, verb_for


class UsageError(SsvidError):
    """The command line itself is wrong."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps paragraphs and examples as written; leaves room for the longest verb and option."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **({"max_help_position": 28, "width": terminal.width() - 2} | options))
        self._action_max_length = 16  # argparse forgets that verbs are indented further, and would break the longest


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises instead of exiting, never guesses abbreviations, and names the nearest word.

    ``description`` may be a function that returns it: what lists a shelf is written when somebody asks for it.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def format_help(self) -> str:
        """The text of ``--help``."""
        if callable(self.description):
            self.description = self.description()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        text = re.sub(r"^argument (\S+): ", r"\1: ", message)
        end = "" if text.endswith("?") else "."
        raise UsageError(f"{text.rstrip('.')}{end} See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            is_verb = isinstance(action, argparse._SubParsersAction)
            meant = verb_for(str(value)) if is_verb else ""
            hint = (
                f"Did you mean {meant!r}?"
                if meant.split(" ")[0] in (*known, "--help")
                else did_you_mean(str(value), known)
            )
            problem = f"unknown {'verb' if is_verb else 'value'} {value!r}. {hint}"
            raise argparse.ArgumentError(None if is_verb else action, problem)

    def option_names(self) -> list[str]:
        """Every option that this parser takes, as it is typed."""
        return sorted(self._option_string_actions)


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. ``key=value`` words may stand before, between and after the options.

    Raises:
        UsageError: a word that no verb takes, with the nearest option.
    """
    args, rest = parser.parse_known_args(argv)
    overrides = getattr(args, "overrides", None)
    unknown = []
    for word in rest:
        if overrides is not None and not word.startswith("-"):
            overrides.append(word)
        else:
            unknown.append(word)
    if unknown:
        verb: Parser = getattr(args, "parser", parser)
        raise UsageError(f"{_unknown_words(verb, unknown, argv)} See: {verb.prog} --help")
    return args


def _unknown_words(verb: Parser, words: Sequence[str], argv: Sequence[str]) -> str:
    word, _, value = words[0].partition("=")
    if not word.startswith("-"):
        return f"{verb.prog} does not know what to do with {' '.join(map(repr, words))}."
    options = verb.option_names()
    if meant := _meant(verb, word, value or _next(argv, words[0])):
        return f"{verb.prog} has no option {word!r}. Did you mean {meant}?"
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    plain = word.lstrip("-")
    if near:
        return f"{verb.prog} has no option {word!r}. Did you mean {near[0]!r}?"
    setting = f" Settings of a recipe are written without dashes: {plain}=..." if "." in plain else ""
    return f"{verb.prog} has no option {word!r}. Known: {', '.join(o for o in options if o.startswith('--'))}.{setting}"


def _meant(verb: Parser, word: str, value: str) -> str:
    """What a word that others use for it is called here: an option, a word without dashes, or a setting of the recipe."""
    own = [*verb.option_names(), *(str(a.metavar) for a in verb._actions if not a.option_strings)]
    option, setting = option_for(word, own), setting_for_option(word, verb.prog.split()[-1])
    if word == "--extend" and option:
        return "--resume optim.epochs=TOTAL"
    if option.startswith("--"):
        return repr(option)
    if option:
        places = [str(a.metavar) for a in verb._actions if not a.option_strings and a.metavar]
        return f"{option}, which has no dashes: {verb.prog} {' '.join(places)}"
    return f"{setting}={value or '...'}" if setting else ""


def _next(argv: Sequence[str], word: str) -> str:
    """The value that stands behind an option."""
    behind = argv[argv.index(word) + 1 :] if word in argv else ()
    return behind[0] if behind and not behind[0].startswith("-") and "=" not in behind[0] else ""


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``: the result as one JSON document on stdout, everything else on stderr."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout, all else on stderr")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """``RECIPE [key=value ...]``."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a shipped name (see: ssvid recipes)")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``[key=value ...]``."""
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="change the recipe: optim.epochs=20 data.root=videos optim.betas=[0.9,0.98]",
    )


def add_evaluated(parser: argparse.ArgumentParser) -> None:
    """``[RECIPE] [key=value ...] --backbone PATH --placebo PATH``: what the evaluations share."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a YAML file, a shipped name (ssvid recipes) or a named protocol (ssvid protocols)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--backbone",
        metavar="PATH",
        action="append",
        default=[],
        help="a checkpoint, a run folder, an export, or 'random' (with --backbone-name); given again: other seeds of it",
    )
    parser.add_argument(
        "--placebo",
        metavar="PATH",
        action="append",
        default=[],
        help="the same recipe run with task.placebo=true, for each backbone; or 'train' to train it now",
    )
    parser.add_argument("--backbone-name", metavar="NAME", help="the network of '--backbone random'")


def add_frozen(verbs: Any, common: argparse.ArgumentParser, verb: str, **words: str) -> None:
    """A verb that evaluates a frozen backbone. words: its help, description and epilog."""
    parser = verbs.add_parser(verb, parents=[common], **words)
    add_evaluated(parser)
    parser.add_argument(
        "--supervised",
        metavar="WEIGHTS",
        help="weights of the same network trained on labels, for a row beside: a file, or torchvision:NAME",
    )
    parser.add_argument(
        "--partial", action="store_true", help="accept weights that fill only a part; every result says so"
    )
    parser.add_argument(
        "--untrained-stage", action="store_true", help="score stages that pretraining never trained, too"
    )
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for results and pictures (default: beside the checkpoint, numbered)"
    )
    add_from(parser)
    add_json(parser)
    parser.set_defaults(run=run_frozen, parser=parser)


def run_frozen(args: argparse.Namespace) -> None:
    """Score and print the table."""
    import ssvid
    from ssvid.ranks import joined_processes

    with joined_processes(args.device) as (device, is_first):
        result = getattr(ssvid, args.verb)(
            args.recipe,
            *args.overrides,
            backbone=args.backbone,
            backbone_name=args.backbone_name,
            placebo=args.placebo,
            supervised=args.supervised,
            out=args.out,
            partial=args.partial,
            untrained_stage=args.untrained_stage,
            device=device,
            from_results=args.from_results,
        )
    if is_first:
        terminal.print_result(result, as_json=args.json)


def add_from(parser: argparse.ArgumentParser) -> None:
    """``--from RESULTS``."""
    parser.add_argument(
        "--from",
        dest="from_results",
        metavar="RESULTS",
        help="repeat this results.json: same recipe, videos and weights, or a refusal",
    )


def whole(least: int) -> Any:
    """An argparse type: a whole number of at least ``least``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return value

    return convert


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def reader_name(*others: str) -> Callable[[str], str]:
    """An argparse type: the name of a reader of videos, or one of some other words."""

    def read(text: str) -> str:
        from ssvid.data.readers.shelf import readers

        if text not in (*readers.names(), *others):
            raise argparse.ArgumentTypeError(f"unknown value {text!r}. {readers.hint(text, *others)}")
        return text

    return read
