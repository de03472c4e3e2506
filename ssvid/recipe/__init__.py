"""What to run, as a short YAML: schema (dataclasses), load (find, merge, check), programs (wire the rooms together).

Names are loaded when first used, so that listing recipes imports neither torch nor omegaconf.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "RecipeFile": "find",
    "find_recipe": "find",
    "header_of": "find",
    "list_recipes": "find",
    "read_recipe_text": "find",
    "shipped_recipes_dir": "find",
    "LoadedRecipe": "load",
    "diff_recipes": "load",
    "load_recipe": "load",
    "make_backbone_options": "options",
    "make_task_config": "options",
    "BackboneConfig": "schema",
    "FinetuneRecipe": "schema",
    "PretrainRecipe": "schema",
    "ProbeRecipe": "schema",
    "RetrieveRecipe": "schema",
    "TaskConfig": "schema",
    "parse_yaml": "yaml_text",
    "to_yaml": "yaml_text",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ssvid.recipe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssvid.recipe.{_PUBLIC[name]}"), name)
