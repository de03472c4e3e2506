"""Legal values on the fields: what they admit, what is told, and that nobody forgets them."""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated

import pytest

from ssvid.bounds import (
    AtLeast,
    Between,
    Inside,
    NotEmpty,
    OneOf,
    Pair,
    Positive,
    Rising,
    check,
    check_options,
    range_of,
    rules_of,
    told,
)
from ssvid.errors import OptionError, RecipeError
from ssvid.recipe.check import field_hints, group_of, legal_values
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import KINDS
from ssvid.tasks import list_tasks, tasks


@dataclass(frozen=True)
class Config:
    count: Annotated[int, AtLeast(2)] = 64
    share: Annotated[float, Inside] = 0.5
    way: Annotated[str, OneOf("even", "drop")] = "even"
    factors: Annotated[tuple[float, float], AtLeast(1), Rising] = (1.0, 1.2)
    rates: Annotated[list[float], Positive, NotEmpty] = field(default_factory=lambda: [0.1])
    free: int = 0


def problems(**changes) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        check(Config(**changes), "some.")
    return str(caught.value).splitlines()


def test_what_is_legal_passes():
    check(Config(), "some.")
    check(Config(2, 0.999, "drop", (1, 1), [1e-9], -5))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"count": 1}, "some.count (1) must be at least 2. Set some.count=64."),
        ({"share": 0}, "some.share (0) must be above 0 and below 1. Set some.share=0.5."),
        ({"share": math.nan}, "some.share (nan) must be above 0 and below 1. Set some.share=0.5."),
        ({"count": math.inf}, "some.count (inf) must be at least 2. Set some.count=64."),
        ({"way": "evn"}, "some.way ('evn') must be one of even, drop (did you mean 'even'?). Set some.way=even."),
        ({"factors": (2, 1)}, "some.factors ([2, 1]) must be in rising order. Set some.factors=[1.0, 1.2]."),
        (
            {"factors": (1, 0)},
            "some.factors ([1, 0]) must be a list, each item at least 1, in rising order. Set some.factors=[1.0, 1.2].",
        ),
        ({"rates": []}, "some.rates ([]) must be a list that is not empty. Set some.rates=[0.1]."),
        ({"rates": [0.1, 0]}, "some.rates ([0.1, 0]) must be a list, each item above 0. Set some.rates=[0.1]."),
    ],
)
def test_what_is_not_is_told_with_name_value_rule_and_way_out(changes, text):
    assert problems(**changes) == [text]


def test_all_is_told_at_once_and_a_rule_of_several_fields_goes_before_that_of_one():
    assert len(problems(count=0, share=2, way="x", rates=[])) == 4
    with pytest.raises(RecipeError) as caught:
        check(Config(count=0), "some.", [told("some.count", 0, "must be at least 8 for backbone tiny3d", 16)])
    assert str(caught.value) == "some.count (0) must be at least 8 for backbone tiny3d. Set some.count=16."


def test_options_of_a_task_are_told_under_their_whole_key():
    with pytest.raises(OptionError) as caught:
        check_options("mine", Config(count=1, way="x"), ["free (0) must not be free"])
    text = str(caught.value.within("tasks.1.options."))
    assert text.startswith("task mine: tasks.1.options.free (0) must not be free. Set tasks.1.options.free=...")
    assert "tasks.1.options.count (1) must be at least 2. Set tasks.1.options.count=" in text


def test_ranges_in_words():
    assert [range_of(Config, f.name) for f in fields(Config)] == [
        "at least 2",
        "above 0 and below 1",
        "one of even, drop",
        "each at least 1, in rising order",
        "each above 0, a list that is not empty",
        "",
    ]
    assert legal_values(Config, "count") == "a whole number, at least 2"
    assert legal_values(Config, "way") == "one of even, drop"
    assert Between(0, 1).allows(1) and not Between(0, 1).allows(1.5)
    assert Pair.allows([1, 2]) and not Pair.allows([1])


def test_a_recipe_tells_all_that_is_not_legal_before_anything_is_read():
    wrong = ["optim.base_lr=0", "loader.global_batch=0", "data.val_fraction=1", "monitor.max_vectors=3"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("smoke/speediness", [*wrong, "data.root=x", "task.options.crop=hole", "online.num_train=1"])
    for text in (
        "optim.base_lr (0.0) must be above 0. Set optim.base_lr=",
        "loader.global_batch (0) must be at least 1",
        "data.val_fraction (1.0) must be at least 0 and below 1",
        "monitor.max_vectors (3) must be at least 8",
        "task.options.crop ('hole') must be one of square, whole",
        "online.num_train (1) must be at least 2",
    ):
        assert text in str(caught.value)


def schemas() -> list[type]:
    """The dataclasses of all kinds of recipes and of all tasks."""
    found: list[type] = []
    waiting = [*KINDS.values(), *(tasks.get(name).Config for name in list_tasks())]
    while waiting:
        schema = waiting.pop()
        found.append(schema)
        waiting += [group for hint in field_hints(schema).values() if (group := group_of(hint)) is not None]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.__name__)
def test_defaults_are_legal(schema):
    check(schema())
    assert all(rules_of(schema).values())
