"""Who may import whom: a room imports only from lower floors, and each heavy package has one door.

Imports are read from the syntax tree, those inside functions too; what stands under ``if TYPE_CHECKING`` is free.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "types": 0, "errors": 0, "registry": 0, "files": 0, "machine": 0, "settings": 0, "intervals": 0, "stopping": 0,
    "ranks": 0, "progress": 0, "bounds": 0, "pictures": 0, "templates": 0, "columns": 0,
    "video": 1, "transforms": 1,
    "backbones": 2, "data": 2,
    "tasks": 3, "orders": 3, "contrast": 3, "momentum": 3, "token_masks": 3, "token_decoder": 3, "gaussianity": 3, "projector": 3,
    "weights": 4, "composite": 4, "layers": 4,
    "train": 5, "exports": 5, "features": 5, "protocols": 5,
    "classifiers": 6, "audits": 6, "apps": 6, "testing": 6,
    "results": 7,
    "evals": 8,
    "recipe": 9,
    "programs": 10,
    "cli": 11,
    "__main__": 12,
}  # fmt: skip
WITHIN_THE_GROUND_FLOOR = {
    *((room, "errors") for room in ("registry", "stopping", "files", "ranks", "bounds", "pictures")),
    *(("ranks", "machine"), ("progress", "ranks"), ("bounds", "settings"), ("pictures", "types")),
}
HIGHEST_FOR_TASKS = 3
DOORS = {
    "av": ("ssvid/video/",),
    "cv2": ("ssvid/video/",),
    "jinja2": ("ssvid/templates/",),
    "decord": ("ssvid/video/",),
    "requests": ("ssvid/data/fetch/",),
    "urllib3": ("ssvid/data/fetch/",),
    "torchcodec": ("ssvid/video/",),
    "omegaconf": ("ssvid/recipe/",),
    "pytorch_lightning": ("ssvid/train/", "ssvid/evals/finetune/", "ssvid/evals/online.py", "ssvid/data/feed/"),
    "lightning": (),
    "wandb": ("ssvid/train/",),
}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


class Arrow(NamedTuple):
    """One import: the dotted module, the name taken from it ("" for ``import x``), the line."""

    module: str
    name: str
    line: int


def arrows(source: str) -> Iterator[Arrow]:
    """All imports of a file, ``import_module("...")`` included."""
    tree = ast.parse(source)
    skipped = {id(inner) for node in ast.walk(tree) for inner in _type_checking(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (Arrow(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Arrow(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            yield from (Arrow(str(a.value), "", node.lineno) for a in node.args[:1] if isinstance(a, ast.Constant))


def _type_checking(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
        for statement in node.body:
            yield from ast.walk(statement)


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with the imports of a file. path: relative to the root, POSIX."""
    found = []
    for arrow in arrows(source):
        reason = _wrong_door(path, arrow) or _wrong_floor(path, arrow)
        if reason:
            found.append(f"{path}:{arrow.line}: {reason}")
    return found


def _wrong_door(path: str, arrow: Arrow) -> str:
    package = arrow.module.split(".")[0]
    if package in DOORS and not path.startswith(DOORS[package] or "nowhere"):
        return f"{package} is imported only in {', '.join(DOORS[package]) or 'no file'}"
    return ""


def _wrong_floor(path: str, arrow: Arrow) -> str:
    if arrow.module.startswith("."):
        return "relative imports hide the room they come from"
    parts = arrow.module.split(".")
    if parts[0] == "pretext_tasks":
        return "pretext_tasks come in through entry points, and do not import one another"
    if parts[0] != "ssvid":
        return ""
    target = parts[1] if len(parts) > 1 else arrow.name
    if target in ("", "__version__"):
        return ""
    if target not in FLOORS:
        return f"ssvid.{target} is no room, or a name that is loaded late: import it from its room"
    return _upward(path, target)


def _upward(path: str, target: str) -> str:
    if path.startswith("pretext_tasks/"):
        too_high = FLOORS[target] > HIGHEST_FOR_TASKS
        return (
            f"a task imports floors 0 to {HIGHEST_FOR_TASKS}, and {target} is on {FLOORS[target]}" if too_high else ""
        )
    room = room_of(path)
    if room == target or (room, target) in WITHIN_THE_GROUND_FLOOR or FLOORS[target] < FLOORS[room]:
        return ""
    return f"{room} (floor {FLOORS[room]}) may not import {target} (floor {FLOORS[target]})"


def room_of(path: str) -> str:
    """The room of a file of ``ssvid/``."""
    return path.split("/")[1].removesuffix(".py")


def source_files() -> list[str]:
    """Every Python file of both packages but the front door, which loads its names late."""
    found = [p.relative_to(ROOT).as_posix() for top in ("ssvid", "pretext_tasks") for p in (ROOT / top).rglob("*.py")]
    return sorted(path for path in found if path != "ssvid/__init__.py")


def test_every_arrow_points_down() -> None:
    files = source_files()
    assert len(files) >= 60, f"only {len(files)} files were seen"
    rooms = {room_of(path) for path in files if path.startswith("ssvid/")}
    assert rooms <= set(FLOORS), f"rooms without a floor: {rooms - set(FLOORS)}"
    assert len(rooms) >= 15, f"only these rooms were seen: {sorted(rooms)}"
    wrong = [line for path in files for line in complaints(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_front_door_names_only_rooms() -> None:
    import ssvid

    assert all(module.split(".")[1] in FLOORS for module in ssvid._PUBLIC.values())
    assert not set(ssvid._PUBLIC) & set(FLOORS), "once its room is imported, the room hides such a name"
    assert not [a for a in arrows((ROOT / "ssvid/__init__.py").read_text()) if a.module.startswith("ssvid")]


def test_every_file_has_a_real_name() -> None:
    files = [path for top in ("ssvid", "pretext_tasks", "tests") for path in (ROOT / top).rglob("*")]
    assert len(files) > 100
    nameless = [path for path in files if NAMELESS & {path.stem, *path.stem.split("_")}]
    assert not nameless


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("ssvid/video/a.py", "from ssvid.data import x", "video (floor 1) may not import data (floor 2)"),
        ("ssvid/data/a.py", "def f():\n    import ssvid.backbones", "a.py:2: data (floor 2) may not import backbones"),
        ("ssvid/evals/a.py", "from ssvid import recipe", "evals (floor 8) may not import recipe"),
        ("ssvid/evals/a.py", "from ssvid import pretrain", "a name that is loaded late"),
        ("ssvid/errors.py", "from ssvid.registry import x", "errors (floor 0) may not import registry"),
        ("ssvid/train/a.py", "import importlib\nimportlib.import_module('ssvid.cli')", "may not import cli"),
        ("ssvid/recipe/a.py", "from pretext_tasks import speediness", "through entry points"),
        ("pretext_tasks/a.py", "from ssvid.train import x", "a task imports floors 0 to 3"),
        ("pretext_tasks/a.py", "from pretext_tasks.speediness import x", "do not import one another"),
        ("pretext_tasks/a.py", "import av", "av is imported only in ssvid/video/"),
        ("ssvid/data/index/building.py", "import decord", "decord is imported only in ssvid/video/"),
        ("ssvid/data/index/signals.py", "def f():\n    import cv2", "cv2 is imported only in ssvid/video/"),
        ("ssvid/data/index/signals.py", "import pytorch_lightning as pl", "ssvid/train/"),
        ("ssvid/cli/a.py", "from omegaconf import OmegaConf", "ssvid/recipe/"),
        ("ssvid/train/a.py", "import lightning", "no file"),
        ("ssvid/cli/a.py", "from .parser import x", "relative imports"),
    ],
)
def test_a_planted_arrow_is_found(path: str, source: str, words: str) -> None:
    found = complaints(path, source)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ssvid/evals/a.py", "from ssvid.train import x\nfrom ssvid.evals.neighbors.knn import y"),
        ("ssvid/registry.py", "from ssvid.errors import x"),
        ("ssvid/cli/a.py", "from ssvid import __version__\nimport ssvid.recipe.load\nimport torch"),
        ("ssvid/data/feed/module.py", "import pytorch_lightning as pl"),
        ("ssvid/tasks.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ssvid.cli import x"),
        ("pretext_tasks/a.py", "from ssvid.tasks import x\nfrom ssvid.video import y"),
    ],
)
def test_what_is_allowed_is_left_alone(path: str, source: str) -> None:
    assert not complaints(path, source)
