"""The argument parser of all verbs. Mistakes become one paragraph with a suggestion; nothing heavy is imported."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ssvid.cli import terminal
from ssvid.errors import SsvidError, did_you_mean
from ssvid.recipe.synonyms import option_for, setting_for_option, verb_for

Run = Callable[[argparse.Namespace], None]


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


# ---- verbs


@dataclass(frozen=True)
class Verbs:
    """Where verbs are added. parsers: of the command that has them. common: the options of every verb."""

    parsers: Any
    common: argparse.ArgumentParser

    def add(
        self, verb: str, run: Run, about: str, description: str | Callable[[], str], epilog: str
    ) -> argparse.ArgumentParser:
        """Add a verb that ``run`` answers, with ``--json``. about: its line in the list of verbs."""
        parser: argparse.ArgumentParser = self.parsers.add_parser(
            verb, help=about, description=description, epilog=epilog, parents=[self.common]
        )
        parser.add_argument(
            "--json", action="store_true", help="print the result as JSON on stdout, all else on stderr"
        )
        parser.set_defaults(run=run, parser=parser)
        return parser


def call_program(args: argparse.Namespace, **changed: Any) -> Any:
    """What the Python function of the verb's name returns: its parameters have the names of the verb's options."""
    import ssvid

    positional = [args.recipe, *args.overrides] if "recipe" in args else getattr(args, "results", [])
    no_options = ("verb", "run", "parser", "json", "debug", "recipe", "overrides", "results")
    options = {name: value for name, value in vars(args).items() if name not in no_options}
    return getattr(ssvid, args.verb)(*positional, **options | changed)


def run_program(args: argparse.Namespace) -> None:
    """Call the Python function of the verb's name and print what it returns."""
    terminal.print_result(call_program(args), as_json=args.json)


def run_in_all_processes(args: argparse.Namespace) -> None:
    """The same for one that processes run together: all of them have the result, one tells it."""
    from ssvid.ranks import is_first_process

    result = call_program(args)
    if is_first_process():
        terminal.print_result(result, as_json=args.json)


# ---- types


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


# ---- options of several verbs

_SHARED: Mapping[str, Mapping[str, Any]] = {
    "--backbone-name": {"metavar": "NAME", "help": "the network of '--backbone random'"},
    "--device": {"metavar": "NAME", "default": "auto", "help": "auto, cpu, cuda or mps (default: auto)"},
    "--from": {
        "dest": "from_results",
        "metavar": "RESULTS",
        "help": "repeat this results.json: same recipe, videos and weights, or a refusal",
    },
    "--inflate": {"action": "store_true", "help": "repeat 2D kernels of another program's weights over time"},
    "--partial": {"action": "store_true", "help": "accept weights that fill only a part; what is written says so"},
    "--resume": {
        "action": "store_true",
        "help": "go on with a run, bit for bit: name its folder in place of RECIPE, or with --run-dir; where nothing was "
        "saved yet it starts from its beginning",
    },
    "--untrained-stage": {"action": "store_true", "help": "take stages that pretraining never trained, too"},
    "--workers": {"metavar": "N", "type": whole(0), "default": 2, "help": "reading processes (default: 2)"},
    "--which": {"metavar": "WORD", "default": "", "help": "of a file with several networks: encoder_q, teacher, ..."},
}


def add_shared(parser: argparse.ArgumentParser, *options: str) -> None:
    """Options that several verbs have, in the words of all."""
    for option in options:
        parser.add_argument(option, **_SHARED[option])


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
    add_shared(parser, "--backbone-name", "--partial", "--from")


def add_frozen(verbs: Verbs, verb: str, about: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A verb that evaluates a frozen backbone."""
    parser = verbs.add(verb, run_frozen, about, description, epilog)
    add_evaluated(parser)
    parser.add_argument(
        "--supervised",
        metavar="WEIGHTS",
        help="weights of the same network trained on labels, for a row beside: a file, or torchvision:NAME",
    )
    add_shared(parser, "--untrained-stage")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for results and pictures (default: beside the checkpoint, numbered)"
    )
    return parser


def run_frozen(args: argparse.Namespace) -> None:
    """Score and print the table."""
    from ssvid.ranks import joined_processes

    with joined_processes(args.device) as (device, is_first):
        result = call_program(args, device=device)
    if is_first:
        terminal.print_result(result, as_json=args.json)
