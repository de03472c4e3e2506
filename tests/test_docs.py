"""The documentation holds: links lead somewhere, commands parse, snippets compile, the tutorial's task keeps the contract."""

from __future__ import annotations

import re
import shlex
import string
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ssvid.cli import build_parser
from ssvid.cli.parser import parse
from ssvid.protocols.named import is_protocol
from ssvid.recipe.find import list_recipes
from tests.benchmarks import bench_demo

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = sorted({*ROOT.glob("*.md"), ROOT / "tests" / "README.md"} - set(PAGES))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The axis letters of the house, and those of the tensors in its code.
AXES = "BVCTHWDKNM"


class Block(NamedTuple):
    """A fenced block: the page it stands in, its language, its text."""

    page: Path
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page, language, text)
        for page in PAGES
        for language, text in FENCE.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    kept = string.ascii_lowercase + string.digits + " -_"
    return {"".join(c for c in h.lower() if c in kept).replace(" ", "-") for h in headings}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every ``ssvid ...`` line of every fenced block: where it stands, and the words after ``ssvid``."""
    for block in blocks("bash", "console", "sh", "", "text", "yaml"):
        for line in block.text.splitlines():
            command = line.removeprefix("$ ").removeprefix("#").strip()
            if re.match(r"(Command: +)?ssvid [a-z]", command):
                words = shlex.split(command.removeprefix("Command:").strip(), comments=True)
                yield f"{block.page.name}: {' '.join(words)}", words[1:]


COMMANDS = sorted(dict(commands()).items())


def test_there_is_something_to_check():
    assert len(PAGES) >= 9
    assert len(COMMANDS) >= 20
    assert len(blocks("python")) >= 8


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_page_can_be_reached_from_the_readme(page):
    reached, left = set(), [ROOT / "README.md"]
    while left:
        here = left.pop()
        if here in reached or here.suffix != ".md":
            continue
        reached.add(here)
        links = (link.partition("#")[0] for link in LINK.findall(prose(here)) if not re.match(r"[a-z]+:", link))
        left += [(here.parent / link).resolve() for link in links if link]
    assert page in reached


@pytest.fixture
def reader_of_the_page(monkeypatch):
    """The reader of docs/add_a_reader.md, which its commands name."""
    from ssvid.data.readers.shelf import readers

    readers.load()
    monkeypatch.setattr(readers, "_entries", dict(readers._entries))
    code = dict(FENCE.findall((ROOT / "docs" / "add_a_reader.md").read_text(encoding="utf-8")))["python"]
    exec(compile(code, "json_list.py", "exec"), {"__name__": "my_readers.json_list"})


@pytest.mark.usefixtures("reader_of_the_page")
@pytest.mark.parametrize("words", [w for _, w in COMMANDS], ids=[where for where, _ in COMMANDS])
def test_every_command_parses_and_its_recipe_exists(words):
    args = parse(build_parser(), words)
    assert callable(args.run)
    recipe = getattr(args, "recipe", None) or (args.name if args.verb == "recipes" else None)
    own_files = ("backward.yaml", "means.yaml", "runs/mine", "RECIPE")  # of the tutorials
    if recipe and recipe not in own_files:
        assert recipe in {known.name for known in list_recipes()} or is_protocol(recipe)


@pytest.mark.usefixtures("reader_of_the_page")
@pytest.mark.parametrize("words", [w for _, w in COMMANDS if "=" in " ".join(w)])
def test_every_setting_is_one_that_the_recipe_takes(words):
    from ssvid.recipe.load import load_recipe

    args = parse(build_parser(), words)
    if getattr(args, "recipe", None) in {known.name for known in list_recipes()}:
        load_recipe(args.recipe, args.overrides, allow_missing=True)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda b: f"{b.page.name}: {b.text.splitlines()[0]}")
def test_every_snippet_compiles(block):
    compile(block.text, block.page.name, "exec")


def test_the_glossary_names_every_axis_letter():
    rows = re.findall(r"^\| ([A-Z]) \| \S", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(AXES)


def test_the_words_of_the_glossary_are_in_order():
    words = re.findall(r"^\*\*([^*]+)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(words, key=str.lower)


def test_the_readme_fits_a_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_the_readmes_numbers_are_means_over_the_seeds_of_the_demos_page():
    page = (ROOT / "docs" / "results" / "demo.md").read_text(encoding="utf-8")
    values = {}
    for metric, table in re.findall(r"^##+ (\w+)\n\n((?:\|.*\n)+)", page, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
        values[metric] = {name: [float(row[header.index(name)]) for row in rows] for name in bench_demo.NETWORKS}
    assert len(values["probe_top1"]["pretrained"]) >= 5
    told = bench_demo.summary(values)
    for text in (page, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"```text\n{told}\n```" in text, f"the table of means must be:\n{told}"


@pytest.fixture
def tutorial(monkeypatch):
    """The task of docs/add_a_task.md as a module of its own; the registry is as before afterwards."""
    from ssvid.tasks import tasks

    tasks.load()
    monkeypatch.setattr(tasks, "_entries", dict(tasks._entries))
    text = (ROOT / "docs" / "add_a_task.md").read_text(encoding="utf-8")
    snippets = [code for language, code in FENCE.findall(text) if language == "python"]
    for name in ("my_tasks", "my_tasks.backward"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules["my_tasks.backward"]
    sys.modules["my_tasks"].backward = module  # type: ignore[attr-defined]
    exec(compile(snippets[0], "backward.py", "exec"), module.__dict__)
    recipe = next(code for language, code in FENCE.findall(text) if language == "yaml")
    return module, snippets[1:], recipe


def test_the_tutorials_task_keeps_the_contract_and_its_snippets_run(tutorial):
    _, snippets, _ = tutorial
    quick = [code for code in snippets if "ssvid.pretrain(" not in code]
    assert len(quick) == len(snippets) - 1 == 2
    for code in quick:
        exec(compile(code, "add_a_task.md", "exec"), {})


def test_the_tutorials_recipe_fits_its_task(tutorial, tmp_path):
    from ssvid.recipe.load import load_recipe

    path = tmp_path / "backward.yaml"
    path.write_text(tutorial[2], encoding="utf-8")
    resolved = load_recipe(path, ["data.root=videos"], kind="pretrain").resolved
    assert resolved["task"] == {
        "name": "backward", "options": {"num_frames": 16, "frame_px": 56, "flip": True}, "placebo": False,
    }  # fmt: skip
