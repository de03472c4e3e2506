"""The programs behind the verbs. Each wires rooms together and returns what it found; each has a file of its own."""

from ssvid.recipe.demonstration import DemoResult, demo
from ssvid.recipe.pretraining import PretrainResult, pretrain
from ssvid.recipe.probing import ProbeOutcome, probe
from ssvid.recipe.showing import show

__all__ = ["DemoResult", "PretrainResult", "ProbeOutcome", "demo", "pretrain", "probe", "show"]
