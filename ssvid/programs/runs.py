"""Which runs an evaluation consists of: official splits, seeds, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ssvid.data.readers.shelf import several_splits
from ssvid.errors import RecipeError
from ssvid.evals.contract import evaluations
from ssvid.recipe.schema import EvaluationRecipe

Config = TypeVar("Config", bound=EvaluationRecipe)


Weights = str | Path


RANDOM = "random"


@dataclass(frozen=True)
class Run:
    """One of the evaluations of a command. fold: official split, 0 where the recipe names none. seed: what it is summarized
    by: that of the recipe, or the place of the backbone in the command where there are several; used_seed is then the
    recipe's.
    """

    fold: int
    seed: int
    backbone: Weights
    placebo: Weights | None
    used_seed: int | None = None

    @property
    def recipe_seed(self) -> int:
        """What the evaluation draws from."""
        return self.seed if self.used_seed is None else self.used_seed

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"fold{self.fold}-seed{self.seed}" if self.fold else f"seed{self.seed}"


def runs_of(config: EvaluationRecipe, arguments: Mapping[str, Any]) -> list[Run]:
    """The runs of a command, none of them the repetition of another one. Errors as of ``plan_runs``."""
    refuse_repetition(config, arguments["backbone"])
    return plan_runs(config, arguments["backbone"], arguments["placebo"])


def plan_runs(
    config: EvaluationRecipe,
    backbone: Weights | Sequence[Weights],
    placebo: Weights | Sequence[Weights] | None = None,
) -> list[Run]:
    """Every fold with every seed, or with every backbone where several are named.

    Raises:
        RecipeError: several backbones and several seeds, or not a placebo for each backbone.
    """
    backbones, placebos = listed(backbone), listed(placebo) or [None]
    if len(backbones) > 1 and len(config.seeds) > 1:
        raise RecipeError(
            f"seeds ({config.seeds}) must be left out where several backbones are named ({len(backbones)}): each of them "
            "counts as a seed. Set seeds=[]."
        )
    if len(placebos) == 1:
        placebos = placebos * len(backbones) if placebos[0] in (None, "train") or len(backbones) == 1 else placebos
    if len(placebos) != len(backbones):
        raise RecipeError(
            f"there must be one placebo for each backbone, and there are {len(placebos)} for {len(backbones)}. Name each "
            "with --placebo, in the same order, or say --placebo train."
        )
    seeds = config.seeds or [config.seed]
    if len(backbones) > 1:
        seeded = [(i, seeds[0], b, p) for i, (b, p) in enumerate(zip(backbones, placebos, strict=True))]
    else:
        seeded = [(seed, seed, backbones[0], placebos[0]) for seed in seeds]
    folds = config.folds or [config.data.fold if config.data.name in several_splits() else 0]
    return [Run(fold, place, b, p, seed) for fold in folds for place, seed, b, p in seeded]


def refuse_repetition(config: EvaluationRecipe, backbone: Weights | Sequence[Weights]) -> None:
    """Raise RecipeError where one evaluation would be done several times: its spread would be 0.0 and mean nothing."""
    backbones = listed(backbone)
    trains = any(evaluations.get(name).needs == "training" for name in config.asks())
    if not trains and len(config.seeds) > 1 and str(backbones[0]) != RANDOM:
        raise RecipeError(
            f"seeds ({config.seeds}) have no effect on the frozen features of {backbones[0]}: every number would be the same. "
            "Set seeds=[], and name the checkpoints of several pretrainings with --backbone again and again."
        )
    if len(config.folds) > 1 and config.data.name not in (official := several_splits()):
        raise RecipeError(
            f"folds ({config.folds}) are official splits of {', '.join(official[:-1])} and {official[-1]}, and data.name={config.data.name} has one "
            "split: every number would be the same. Set folds=[]."
        )
    named: dict[str, list[Any]] = {
        "seeds": config.seeds,
        "folds": config.folds,
        "--backbone": [str(one) for one in backbones],
    }
    for name, values in named.items():
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise RecipeError(f"{name} names {twice[0]} twice: its numbers would be the same. Name each once.")


def listed(value: Any) -> list[Any]:
    """One thing, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def config_of(config: Config, run: Run) -> Config:
    """The recipe at one fold and seed."""
    data = replace(config.data, fold=run.fold) if run.fold else config.data
    return replace(config, data=data, seed=run.recipe_seed)


def more_overrides(kind: str, arguments: Mapping[str, Any]) -> list[str]:
    """Overrides of the recipe that options of the command line stand for."""
    name, group = arguments["backbone_name"], "track" if kind == "track" else "features"
    untrained = [f"{group}.untrained_stage=true"] * bool(arguments.get("untrained_stage"))
    return [f"backbone.name={name}"] * bool(name) + untrained
