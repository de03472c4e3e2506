"""``probe``: frozen backbone -> features -> linear probe and k-NN, with the random row (and the placebo's) beside."""

from __future__ import annotations

from ssvid.programs.evaluate import program

probe = program("probe", "Score a frozen backbone on labeled videos, beside its own random initialization.")
