"""The options of the task and of the backbone that a recipe names, typed by the thing itself: a stranger's too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from ssvid.errors import PluginError, RecipeError
from ssvid.recipe.check import Typing, build, missing_paths, options_of
from ssvid.types import COMPOSITE


def task_options(name: str) -> type:
    """The Config dataclass of a registered task; one without fields where it takes no options.

    Raises:
        PluginError: no task has that name, or its Config is not a dataclass.
    """
    from ssvid.composite import CompositeConfig  # here, because they import torch
    from ssvid.tasks import tasks

    if name == COMPOSITE:
        return CompositeConfig
    return _config_of("task", name, tasks.get(name))


def evaluation_options(name: str) -> type:
    """The Config dataclass of a registered evaluation; one without fields where it takes no options.

    Raises:
        PluginError: no evaluation has that name, or its Config is not a dataclass.
    """
    from ssvid.evals.contract import evaluations  # here, because it imports torch

    return _config_of("evaluation", name, evaluations.get(name))


def _config_of(kind: str, name: str, plugin: Any) -> type:
    config = plugin.Config
    if config is type(None):
        return dataclasses.make_dataclass("Options", [])
    if not dataclasses.is_dataclass(config):
        raise PluginError(f"{kind} {name!r} cannot be configured: its Config ({config!r}) must be a dataclass.")
    return cast(type, config)


def backbone_options(name: str) -> type:
    """A dataclass of the keyword arguments of a registered backbone.

    Raises:
        PluginError: no backbone has that name.
    """
    from ssvid.backbones import backbones  # here, because it imports torch

    return options_of(backbones.get(name))


def make_task_config(name: str, options: Mapping[str, Any]) -> Any:
    """The task's Config with these options, converted to the declared types.

    Raises:
        RecipeError: an option is unknown, missing or of a wrong type. All of them are named.
        PluginError: no task has that name.
    """
    return build(task_options(name), _converted(task_options(name), options, f"task {name}"))


def make_evaluation_config(name: str, options: Mapping[str, Any]) -> Any:
    """The evaluation's Config with these options, converted to the declared types. Errors as of ``make_task_config``."""
    schema = evaluation_options(name)
    return build(schema, _converted(schema, options, f"evaluation {name}"))


def make_backbone_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for ``create_backbone(name, ...)``, defaults included, converted to the declared types.

    Raises:
        RecipeError: an option is unknown, missing or of a wrong type. All of them are named.
        PluginError: no backbone has that name.
    """
    return _converted(backbone_options(name), options, f"backbone {name}")


def _converted(schema: type, options: Mapping[str, Any], whose: str) -> dict[str, Any]:
    typed = Typing(schema)
    values = typed.apply(options)
    problems = typed.problems + [f"{path} is not set." for path in missing_paths(values)]
    if problems:
        raise RecipeError("\n".join([f"the options of {whose} cannot be used:", *(f"  - {p}" for p in problems)]))
    return values
