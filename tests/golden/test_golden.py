"""Nobody changes what is trained without noticing: the first losses of each smoke recipe are those on record.

A change that is meant to move them writes them anew, and says so: python -m tests.golden.losses NAME
"""

import json
import math

import pytest

from tests.golden.losses import FOLDER, NUM_STEPS, first_losses, golden_file, make_videos, recipe_names


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("golden"))


def recorded(name):
    path = golden_file(name)
    assert path.exists(), f"no losses of smoke/{name} are on record: python -m tests.golden.losses {name}"
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["losses"], content["tolerance"]


def furthest(losses, others):
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def test_every_record_belongs_to_a_smoke_recipe():
    names = recipe_names()
    assert "speediness" in names
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == names


@pytest.mark.parametrize("name", recipe_names())
def test_the_first_losses_are_those_on_record(name, videos, tmp_path):
    expected, tolerance = recorded(name)
    losses = first_losses(name, videos, tmp_path / "run")
    assert len(losses) == len(expected) == NUM_STEPS
    assert all(math.isfinite(loss) for loss in losses)
    moved = furthest(losses, expected)
    assert moved < tolerance, (
        f"smoke/{name}: a loss moved by {moved:.2g}, more than rounding explains: {losses} against {expected}. If that "
        f"is meant, write them anew: python -m tests.golden.losses {name}"
    )


@pytest.mark.parametrize("change", ["seed=1", "task.placebo=true"])
def test_a_run_that_is_not_the_same_is_told_from_the_record(videos, tmp_path, change):
    losses = first_losses("speediness", videos, tmp_path / "run", change)
    expected, tolerance = recorded("speediness")
    assert furthest(losses, expected) > 5 * tolerance
