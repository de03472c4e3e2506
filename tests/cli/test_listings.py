"""``ssvid recipes | tasks | backbones``: every registered thing is shown, broken ones are named."""

import json
import re

import pytest

from ssvid.backbones import backbones, create_backbone
from ssvid.cli import main
from ssvid.cli.describe import arguments_of, first_line
from ssvid.recipe.find import list_recipes
from ssvid.recipe.load import load_recipe
from ssvid.recipe.yaml_text import parse_yaml
from ssvid.registry import BrokenPlugin
from ssvid.tasks import PretextTask, tasks


def out(capsys, *argv: str) -> str:
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_recipes_are_listed_with_their_titles(capsys):
    text = out(capsys, "recipes")
    recipes = list_recipes()
    assert len(recipes) >= 4
    for recipe in recipes:
        assert recipe.name in text
    assert f"{len(recipes)} recipes in" in text
    listed = json.loads(out(capsys, "recipes", "--json"))
    assert [r["name"] for r in listed] == [r.name for r in recipes]
    assert all("Command:" in r["header"] for r in listed)


def test_a_printed_recipe_is_a_recipe(capsys, tmp_path):
    text = out(capsys, "recipes", "smoke/speediness")
    (tmp_path / "mine.yaml").write_text(text)
    assert text.startswith("# ")
    mine = load_recipe(tmp_path / "mine.yaml", ["data.root=x"])
    assert mine.resolved == load_recipe("smoke/speediness", ["data.root=x"]).resolved
    assert json.loads(out(capsys, "recipes", "smoke/speediness", "--json"))["text"] == text


def test_tasks_are_listed_and_described(capsys):
    text = out(capsys, "tasks")
    assert re.search(r"^speediness +Is this clip", text, re.MULTILINE)
    text = out(capsys, "tasks", "speediness")
    for part in ["2004.06130", "chance: accuracy 0.5", "task.options.num_frames=", "a whole number", "pretext_tasks."]:
        assert part in text
    listed = json.loads(out(capsys, "tasks", "--json"))
    assert [t["name"] for t in listed["tasks"]] == tasks.names()
    one = json.loads(out(capsys, "tasks", "speediness", "--json"))
    assert one["chance"]["accuracy"] == 0.5
    flip = {"name": "flip", "default": True, "required": False, "type": "true or false"}
    assert any(flip.items() <= option.items() for option in one["options"])


def test_the_printed_defaults_can_be_typed_back(capsys):
    lines = out(capsys, "tasks", "speediness").splitlines()
    overrides = [line.split()[0] for line in lines if line.startswith("  task.options.")]
    assert len(overrides) >= 10
    source = {"kind": "pretrain", "data": {"root": "x"}, "task": {"name": "speediness"}, "backbone": {"name": "tiny3d"}}
    assert load_recipe(source, overrides).resolved == load_recipe(source).resolved


def test_backbones_are_listed_and_described(capsys):
    text = out(capsys, "backbones")
    names = backbones.names()
    assert {"r3d_18", "tiny3d"} <= set(names)
    for name in names:
        assert name in text
    assert "M parameters" in text
    text = out(capsys, "backbones", "r3d_18")
    for part in ["33.17 M parameters", "layer4", "512", "backbone.options.stride_time=8"]:
        assert part in text
    one = json.loads(out(capsys, "backbones", "tiny3d", "--json"))
    assert one["parameters"] == sum(p.numel() for p in create_backbone("tiny3d").parameters())
    assert [s["name"] for s in one["info"]["stages"]][-1] == "stage4"


def test_evaluations(capsys):
    from ssvid.evals.contract import evaluations

    text = out(capsys, "evaluations")
    assert all(f"{name} " in text for name in evaluations.names())
    one = json.loads(out(capsys, "evaluations", "retrieval", "--json"))
    assert (one["name"], one["needs"], one["verb"]) == ("retrieval", "vectors", "evaluate")
    assert "evaluation.options.knn_ks=[20]" in out(capsys, "evaluations", "knn")


def test_broken_plugins_are_named(capsys, monkeypatch):
    monkeypatch.setattr(tasks, "broken", [BrokenPlugin("shelf.bad", "SyntaxError: oops")])
    assert main(["tasks"]) == 0
    captured = capsys.readouterr()
    assert "speediness" in captured.out
    assert "broken plug-in: shelf.bad failed to import: SyntaxError: oops" in captured.err
    assert main(["tasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["broken"] == [{"module": "shelf.bad", "reason": "SyntaxError: oops"}]
    assert main(["tasks", "bad"]) == 2
    assert "shelf.bad failed to import" in " ".join(capsys.readouterr().err.split())


def test_a_task_that_needs_options_is_described_without_chance(capsys, monkeypatch):
    from dataclasses import dataclass

    @dataclass
    class NeedsConfig:
        classes: int

    class Needs(PretextTask):
        """Needs an option.

        More words.
        """

        Config = NeedsConfig

    class Bare(PretextTask):
        def chance(self):
            return {"accuracy": 0.25}

    tasks.load()
    monkeypatch.setitem(tasks._entries, "needs", Needs)
    monkeypatch.setitem(tasks._entries, "bare", Bare)
    text = out(capsys, "tasks", "needs")
    assert "task.options.classes=???" in text
    assert "chance" not in text
    text = out(capsys, "tasks", "bare")
    assert "It takes no options." in text
    assert "chance: accuracy 0.25" in text


@pytest.mark.parametrize(
    ("doc", "line", "arguments"),
    [
        ("One\ntwo ``x``.\n\nMore.", "One two `x`.", ""),
        ("One.\n\nArgs:\n    a: b\n        c\n    d: e\n\nRaises:\n    F: g", "One.", "a: b\n    c\nd: e"),
        ("", "", ""),
    ],
)
def test_docstrings(doc, line, arguments):
    assert first_line(doc) == line
    assert arguments_of(doc) == arguments


def test_show_prints_every_default(capsys):
    text = out(capsys, "show", "smoke/speediness", "optim.epochs=7")
    values = parse_yaml(text, "show")
    assert values["optim"]["epochs"] == 7
    assert values["loader"]["decoder"] == "auto"
    assert values["data"]["root"] == "???"
    assert json.loads(out(capsys, "show", "smoke/speediness", "optim.epochs=7", "--json")) == values
