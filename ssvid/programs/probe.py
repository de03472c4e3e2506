"""``probe``: frozen backbone -> features -> linear probe and k-NN, with the random row (and the placebo's) beside."""

from __future__ import annotations

from ssvid.programs.evaluate import program
from ssvid.programs.outcome import Outcome

ProbeOutcome = Outcome  # the rows of a probe and where they were written

probe = program("probe", "Score a frozen backbone on labeled videos, beside its own random initialization.")
