"""``ssvid evaluate``: any evaluation, also one of another package."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_frozen

_DESCRIPTION = """\
Asks the evaluation that the recipe names (evaluation.name) of a frozen backbone and of all its baselines.
Evaluations of other packages are found by their name, as tasks and backbones are: docs/add_an_evaluation.md.
"""
_EPILOG = """\
examples:
  ssvid evaluate evaluate/folder data.root=videos --backbone runs/mine --placebo train
  ssvid evaluate evaluate/folder data.root=videos evaluation.options.knn_ks=[5] --backbone runs/mine
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    about = "ask any evaluation of a backbone, also that of another package"
    add_frozen(verbs, "evaluate", about, _DESCRIPTION, _EPILOG)
