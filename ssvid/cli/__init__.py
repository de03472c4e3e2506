"""The command ``ssvid``: one file per verb, each imports what it needs when it runs.

Exit codes: 0 success; 2 the user's mistake, told in one paragraph; 1 ours, with a traceback; 130 interrupted;
75 stopped by SIGTERM or SIGUSR1 with all saved: run it again with --resume.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ssvid import __version__
from ssvid.cli import terminal
from ssvid.cli.parser import Parser, UsageError, Verbs, parse
from ssvid.errors import SsvidError
from ssvid.files import disk_full, is_disk_full
from ssvid.recipe.find import check_early

OK, OURS, YOURS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

# The file of each verb (``listings`` has several), in the order in which --help lists them: from the first try to the last detail.
_FILES = (
    *("demo", "pretrain", "probe", "finetune", "retrieve", "track", "evaluate", "report", "audit", "speed", "layers"),
    *("embed", "export", "data", "show", "diff", "listings", "doctor"),
)

_TAKE_RECIPES = ("pretrain", "finetune", "probe", "retrieve", "track", "evaluate", "show")

_EPILOG = """\
first steps:
  ssvid demo                                               pretrain, score, export on synthetic videos; minutes
  ssvid recipes                                            what can be run
  ssvid pretrain pretrain/speediness_tiny data.root=DIR    learn from a folder of videos, no labels needed
  ssvid VERB --help                                        options of a verb, with an example

exit codes: 0 success; 2 user error (the message says what is wrong and how to fix it); 1 a defect of ssvid;
75 stopped by SIGTERM or SIGUSR1 and saved: run it again with --resume.
"""

# What the system may refuse about a path that the user gave.
_USER_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def build_parser() -> Parser:
    """The parser with every verb."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--debug", action="store_true", help="show the traceback of a mistake too")
    parser = Parser(
        prog="ssvid",
        description="Pretrain video backbones without labels, measure what they are worth, export them.",
        epilog=_EPILOG,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"ssvid {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", parser_class=Parser)
    for file in _FILES:
        importlib.import_module(f"ssvid.cli.{file}").add(Verbs(verbs, common))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: words after ``ssvid``; those of the process where None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except BrokenPipeError:
        _abandon_stdout()
        return PIPE_CLOSED
    except SystemExit as exit_:  # --help and --version
        return exit_.code if isinstance(exit_.code, int) else OK
    except (Exception, KeyboardInterrupt) as error:
        code, told = _outcome(error)
        if code == OURS or "--debug" in words:
            traceback.print_exc()
        terminal.say(f"ssvid: {told}")
        return code


def _outcome(error: BaseException) -> tuple[int, str]:
    """The exit code of what was raised, and what is said of it."""
    if isinstance(error, SsvidError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):  # its text, where it has one, says how to go on
        return INTERRUPTED, f"interrupted. {error}".rstrip()
    path = getattr(error, "filename", None)
    if why := is_disk_full(error):  # told by whatever wrote, often without naming its file
        return YOURS, str(disk_full(path or Path.cwd(), why))
    if isinstance(error, OSError) and error.errno in _USER_ERRNOS and path is not None:
        return YOURS, f"{path}: {error.strerror}. Fix the path, its permissions or the disk and try again."
    return OURS, (
        f"this is a defect of ssvid {__version__}, not of what you typed. "
        "Please report it with the lines above and the output of: ssvid doctor"
    )


def _run(words: list[str]) -> int:
    parser = build_parser()
    if not words:
        parser.print_help()
        return OK
    args = parse(parser, words)
    if args.verb is None:
        raise UsageError("a verb is missing. See: ssvid --help")
    if args.verb in _TAKE_RECIPES and args.recipe and not getattr(args, "video", None):
        check_early(args.recipe)
        _announce(args)
    code = args.run(args)
    sys.stdout.flush()
    return code or OK


def _announce(args: argparse.Namespace) -> None:
    """Say what a recipe is about at once: importing torch and what else a run needs takes seconds."""
    from ssvid.recipe.load import first_line

    is_first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
    if is_first and (line := first_line(args.recipe, args.overrides)):
        terminal.say(line)


def _abandon_stdout() -> None:
    """The reader of our output has gone (``ssvid ... | head``): nothing more can be written, not even at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
