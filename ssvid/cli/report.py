"""``ssvid report``: one table over any number of results, and a page of a run."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, run_program

_DESCRIPTION = """\
Puts the results of probe, retrieve and finetune into one table: networks down, metrics across. Numbers share a column
only where they were measured under one protocol on the same test videos; every other number has a column of its own.
Numbers that others published under a protocol stand apart, with their source.
"""
_EPILOG = """\
examples:
  ssvid report runs/mine runs/other
  ssvid report runs/*/probe-folder/results.json --metric probe_top1 --one-column
  ssvid report runs/mine --format latex -o table.tex
  ssvid report runs/mine --html mine.html
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("report", run_program, "one table over results; a page of a run", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "results", metavar="RESULT", nargs="*", help="a results.json, or a folder with some below it, such as a run"
    )
    parser.add_argument(
        "--metric", metavar="NAME", action="append", help="only this one, such as probe_top1; repeatable"
    )
    parser.add_argument(
        "--protocol", metavar="ID", help="only numbers under this one: its name, or the start of its hash"
    )
    parser.add_argument(
        "--one-column", action="store_true", help="refuse where numbers of a metric were measured in several ways"
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "latex", "csv"),
        default="text",
        help="of the table (default: text); csv has one line per number, in full precision",
    )
    parser.add_argument(
        "--html", metavar="FILE", help="write a page of the one run that is named, with nothing to load"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="write the table there")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
