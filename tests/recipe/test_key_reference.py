"""The page of all keys: none is missing, each has a meaning, and the page of the documentation is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssvid.recipe.key_reference import groups_of, meanings_of, page_of_keys
from ssvid.recipe.schema import KINDS
from ssvid.train.config import OptimConfig

PAGE = Path(__file__).parents[2] / "docs" / "recipe_keys.md"


def leaves(values: dict[str, Any], path: str = "") -> list[str]:
    """Paths of a recipe as OmegaConf lays it out: an oracle that does not read docstrings."""
    found = []
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        found += leaves(value, where) if isinstance(value, dict) and value else [where]
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_key_is_on_the_page_with_a_meaning(kind: str) -> None:
    laid_out = OmegaConf.to_container(OmegaConf.structured(KINDS[kind]))
    assert isinstance(laid_out, dict)
    keys = [key for group in groups_of(kind) for key in group.keys]
    assert sorted(key.path for key in keys) == sorted(leaves(laid_out))  # type: ignore[arg-type]
    assert len(keys) > 40
    page = page_of_keys()
    for key in keys:
        assert len(key.meaning) > 5, f"the docstring says nothing of {key.path}"
        assert f"| `{key.path}` |" in page


def test_a_meaning_ends_where_the_next_key_begins() -> None:
    said = meanings_of(OptimConfig)
    assert said["epochs"] == "passes over the training videos."
    assert said["step_gamma"] == "by what factor."


def test_what_a_resumed_run_may_change_is_told() -> None:
    keys = {key.path: key.resume for group in groups_of("pretrain") for key in group.keys}
    told = (keys["data.root"], keys["optim.epochs"], keys["optim.base_lr"], keys["logger.wandb"])
    assert told == ("yes", "longer", "no", "yes")


def test_the_page_of_the_documentation_is_up_to_date() -> None:
    assert PAGE.read_text() == page_of_keys(), "write it anew: ssvid recipes --keys > docs/recipe_keys.md"
    assert not re.search(r"\| +\|", PAGE.read_text()), "an empty cell"
