"""What the options of a recipe say of themselves, as metadata of their dataclass fields.

One mechanism for all who ask: ``--resume`` (what may change), the hash of a protocol (what tells two numbers apart), and
the loader of recipes (which values are paths).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

Metadata = Mapping[str, Any]

# Nothing that is computed depends on the value: where and how fast things run, and what is shown of them.
IDLE: Final[Metadata] = MappingProxyType({"computes": False, "speed_only": True})
# Another kernel or decoder: the same but for rounding. It stands beside a number, and tells no two numbers apart.
ROUNDING: Final[Metadata] = MappingProxyType({"computes": False, "speed_only": True, "rounds": True})
# How many processes: a run may go on with others, but batch statistics are of each one's part, so that numbers depend on it.
PROCESSES: Final[Metadata] = MappingProxyType({"computes": False})
# A file or folder: it may lie elsewhere tomorrow. What it holds is checked by its content.
PLACE: Final[Metadata] = MappingProxyType({"computes": False, "speed_only": True, "is_path": True})
# Changes when the run ends: one that goes on may end later.
EXTENDABLE: Final[Metadata] = MappingProxyType({"extends": True})

# Settings that had no effect and are gone, with the reason. A recipe that names one is told; what was recorded stays readable.
GONE: Final[Mapping[str, str]] = MappingProxyType({"num_bootstrap": "intervals are computed without drawing"})


# What older versions called the settings of a fine-tuning's optimizer, in the group "finetune" -> in the group "optim".
OLD_OPTIM: Final[Mapping[str, str]] = MappingProxyType(
    {"optimizer": "name", "milestones": "step_epochs", "gamma": "step_gamma"}
    | {
        key: key
        for key in ("momentum", "base_lr", "epochs", "weight_decay", "grad_clip_norm", "warmup_epochs", "schedule")
    }
)


# Settings of a fine-tuning that older versions had no name for -> what those did.
NEW_FINETUNE: Final[Mapping[str, Any]] = MappingProxyType({"head_width": 0, "head_layers": 1})


# Groups and settings of recipes that older versions called otherwise: the old name -> today's.
RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {"anchors": "baselines", "baselines.floor": "baselines.histograms"}
    | {f"finetune.{old}": f"optim.{new}" for old, new in OLD_OPTIM.items()}
)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; ``dataclasses.MISSING`` where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def as_today(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that an older version wrote down, as it would be written today."""
    recipe: dict[str, Any] = {
        RENAMED.get(name, name): {key: value for key, value in group.items() if key not in GONE}
        if isinstance(group, Mapping)
        else group
        for name, group in recorded.items()
    }
    for old, new in RENAMED.items():
        (group, _, key), (to, _, name) = old.partition("."), new.partition(".")
        if isinstance(recipe.get(group), dict) and key in recipe[group]:
            recipe[to] = recipe.get(to) or {}
            recipe[to].setdefault(name, recipe[group].pop(key))
    return recipe


def as_older(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a fine-tuning in the names of older versions, in which they are hashed and stand beside a number.

    What those had no name for stays only where it is not what they did.
    """
    usual: dict[str, Any] = {"betas": [0.9, 0.999], "extended_from": [], "max_skipped_steps": 10}
    optim = dict(recipe.get("optim") or {})
    moved = {old: optim.pop(new) for old, new in OLD_OPTIM.items() if new in optim}
    left = {key: value for key, value in optim.items() if value != usual.get(key)}
    rest = {key: value for key, value in recipe.items() if key != "optim"} | ({"optim": left} if left else {})
    own = {k: v for k, v in recipe.get("finetune", {}).items() if k not in NEW_FINETUNE or v != NEW_FINETUNE[k]}
    return rest | {"finetune": {**own, **moved}}


def without_speed(schema: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that tell one number from another: fields and groups marked ``speed_only``, and what is gone, are left out."""
    marks: dict[str, Metadata] = {field.name: field.metadata for field in dataclasses.fields(schema)}
    groups = typing.get_type_hints(schema)
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if marks.get(key, {}).get("speed_only") or (key in GONE and key not in marks):
            continue
        is_group = isinstance(value, Mapping) and dataclasses.is_dataclass(groups.get(key))
        kept[key] = without_speed(groups[key], value) if is_group else value
    return kept
