"""Strict YAML: what is read, what is refused, and that what is written is read back as the same."""

import random

import pytest

from ssvid.errors import RecipeError
from ssvid.recipe.yaml_text import MAX_BYTES, MAX_DEPTH, parse_value, parse_yaml, to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("0", 0),
        ("1e-3", 1e-3),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        # text in YAML 1.2, something else in YAML 1.1
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("01", "01"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("=", "="),
        ("???", "???"),
        ("1e", "1e"),
    ],
)
def test_scalars(text, value):
    for read in (parse_yaml(text, "x"), parse_yaml(f"[{text}]", "x")[0], parse_value(text, "x")):
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["a #b", "/videos: mine", "*star", "&and", "!bang", "@at", "%1", "a, b", "- x", "{"[:0]]
)
def test_the_right_side_of_an_override_is_text_as_it_stands(text):
    assert parse_value(text, "x") == text


def test_the_right_side_of_an_override_may_be_a_list_a_group_or_quoted():
    assert parse_value("[1, 0.5, a]", "x") == [1, 0.5, "a"]
    assert parse_value("{a: 1}", "x") == {"a": 1}
    assert parse_value("'1'", "x") == "1"


def test_missing_mark_is_read_inside_braces_too():
    assert parse_yaml("{name: folder, root: ???, x: [???]}", "x") == {"name": "folder", "root": "???", "x": ["???"]}
    assert parse_yaml("root: ???\nb: 1", "x") == {"root": "???", "b": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", ["line 3", "'a'", "line 1", "Keep one"]),
        ("a: &x 1\nb: *x", ["line 2", "aliases", "Write the value out"]),
        ("a: [", ["YAML", "line 1"]),
        ("1: 2", ["line 1", "key 1", "must be text", "quotes"]),
        (
            "a: !!python/object/apply:os.system ['echo']",
            ["line 1", "objects and tags (!!python/object/apply:os.system) are not allowed"],
        ),
        ("a: 1\n---\nb: 2", ["more than one document"]),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), ["nested deeper", str(MAX_DEPTH)]),
        ("a: \x01", ["YAML"]),
        ("x" * (MAX_BYTES + 1), ["1,000,001 bytes", "1,000,000"]),
    ],
)
def test_refused_with_place_rule_and_way_out(text, words):
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "recipe r.yaml")
    for word in ["recipe r.yaml", *words]:
        assert word in str(caught.value)


def test_all_duplicate_keys_are_named_at_once():
    with pytest.raises(RecipeError) as caught:
        parse_yaml("a: {x: 1, x: 2}\nb: 1\nb: 2", "r")
    assert "'x'" in str(caught.value)
    assert "'b'" in str(caught.value)


def test_a_billion_laughs_stay_one_line():
    laughs = "\n".join(["a0: &a0 [lol, lol]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)])
    with pytest.raises(RecipeError, match="aliases"):
        parse_yaml(laughs, "r")


def _random_plain(rng: random.Random, depth: int = 0):
    texts = [
        "",
        "no",
        "01",
        "1e-3",
        "1_0",
        "???",
        "a: b",
        "#x",
        "null",
        "~",
        "<<",
        "=",
        "é☃",
        "'",
        '"',
        "a\nb",
        " x ",
        "-",
        "[",
        "0x1f",
    ]
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind == 0:
        return rng.choice(texts)
    if kind == 1:
        return rng.randrange(-(10**6), 10**6)
    if kind == 2:
        return rng.choice([0.0, 1e-5, 1e22, -2.5, rng.random(), float("inf")])
    if kind == 3:
        return rng.choice([True, False, None])
    if kind == 4:
        return "".join(chr(rng.choice([*range(32, 127), 0x85, 0x2028, 0x1F600])) for _ in range(rng.randrange(8)))
    if kind == 5:
        return [_random_plain(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {f"{rng.choice(texts)}{i}": _random_plain(rng, depth + 1) for i in range(rng.randrange(4))}


def test_what_is_written_is_read_back_as_the_same():
    rng = random.Random(0)
    for _ in range(500):
        plain = {"top": _random_plain(rng)}
        back = parse_yaml(to_yaml(plain), "x")
        assert back == plain
        assert repr(back) == repr(plain)  # 1 and 1.0 and True are equal, and not the same


@pytest.mark.parametrize(
    "text",
    [
        "a: !!int abc", "a: !!float abc", "a: !!bool abc", "a: !!timestamp x", "a: !!map [1, 2]", "a: !!seq {b: c}",
        "a: !!omap [b]", "a: !!binary x", "a: !!str 3", "[1, !!float x]", "!!map {a: 1}", "a: !own 3",
    ],
)  # fmt: skip
def test_a_value_with_a_tag_is_refused_by_its_line(text):
    with pytest.raises(RecipeError, match=r"line 2: objects and tags \(!\w*!?\w+\) are not allowed"):
        parse_yaml(f"\n{text}", "recipe r")


def test_numbers_of_thousands_of_digits_are_mistakes_of_the_recipe():
    for read in (lambda: parse_yaml("a: " + "9" * 5000, "r"), lambda: parse_value("9" * 5000, "r")):
        with pytest.raises(RecipeError, match=r"9{24}\.\.\. \(5,000 characters\) cannot be read as int"):
            read()
