"""``ssvid diff``: where two runs, or two evaluations, differ."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, run_program

_DESCRIPTION = """\
Compares two run folders, or two folders with the results.json of a probe: recipe, versions and hardware, videos
(which are in one alone, which changed), and the numbers at the end side by side. Exits with 0 whether they differ or
not.
"""
_EPILOG = """\
example:
  ssvid diff runs/mine runs/mine-2
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add("diff", run_program, "compare two runs: recipe, versions, data, numbers", _DESCRIPTION, _EPILOG)
    parser.add_argument("first", metavar="RUN", help="a run folder, or a folder with results.json")
    parser.add_argument("second", metavar="RUN", help="another")
