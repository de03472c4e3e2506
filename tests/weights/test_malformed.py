"""Plain but malformed files: refused as what they are, before memory is taken for what they claim."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.errors import CheckpointError, SsvidError
from ssvid.exports import export, initialize, load_backbone
from tests.weights.test_checkpoints import content_of

Content = dict[str, Any]
FIRST = "backbone.stage1.0.weight"


@pytest.fixture
def content() -> Content:
    return content_of(initialize_backbone("tiny3d", {"width": 2}, seed=1))


def entry(*keys: str, value: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        inner = content["ssvid"]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def tensor(value: Any, key: Any = FIRST) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        old = content["state_dict"].get(key)
        content["state_dict"][key] = value(old) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (entry("backbone", "options", value=[1]), "'backbone'"),
        (entry("backbone", "options", value={1: 2}), "'backbone'"),
        (entry("backbone", "options", value={"width": 3000}), "do not fit backbone tiny3d"),
        (entry("backbone", "options", value={"width": 10**12}), "tiny3d"),
        (entry("backbone", "options", value={"width": "x"}), "tiny3d"),
        (entry("stage", value=3), "'stage'"),
        (entry("data", value=[1]), "'data'"),
        (entry("data", value=None), "'data'"),
        (entry("data", "content_ids", value=5), "'data'"),
        (entry("task", value="speediness"), "'task'"),
        (entry("recipe", value="x"), "'recipe'"),
        (entry("recipe", value={"data": "x"}), "'recipe'"),
        (entry("pretext_metrics", value={"a": "b"}), "'pretext_metrics'"),
        (entry("versions", value=["a"]), "'versions'"),
        (entry("init", value={}), "'init'"),
        (entry("seed", value="x"), "'seed'"),
        (tensor(torch.ones(1), key=1), "something else than a whole tensor under 1"),
        (tensor([1.0]), f"a whole tensor under {FIRST}"),
        (tensor(lambda old: old.to_sparse()), f"a whole tensor under {FIRST}"),
        (tensor(lambda old: old.to("meta")), f"a whole tensor under {FIRST}"),
        (tensor(torch.ones(1).expand(2_000_000_000), key="task.big"), "a whole tensor under task.big"),
        (tensor(torch.ones(1).expand(2_000_000_000), key="backbone.big"), "a whole tensor under backbone.big"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_a_malformed_checkpoint_is_a_mistake_of_the_file(
    tmp_path: Path, content: Content, change: Callable[[Content], None], words: str
) -> None:
    change(content)
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(SsvidError, match=words):
        load_backbone(tmp_path / "odd.ckpt")
    with pytest.raises(SsvidError, match=words):
        export(tmp_path / "odd.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_that_repeats_one_number_takes_no_memory(tmp_path: Path) -> None:
    state = dict(initialize_backbone("tiny3d", {"width": 2}).state_dict())
    torch.save({"model": state | {"head.weight": torch.ones(1).expand(50_000_000_000)}}, tmp_path / "theirs.pth")
    assert (tmp_path / "theirs.pth").stat().st_size < 200_000
    assert initialize(initialize_backbone("tiny3d", {"width": 2}), tmp_path / "theirs.pth").fits


def test_a_compressed_file_is_not_unfolded(tmp_path: Path) -> None:
    torch.save({"model": {"a.weight": torch.zeros(1_000_000)}}, tmp_path / "stored.pth")
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored, zipfile.ZipFile(tmp_path / "small.pth", "w") as small:
        for name in stored.namelist():
            small.writestr(name, stored.read(name), compress_type=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "small.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"is compressed \(\d+ bytes that unfold to 4\d{6}\)"):
        initialize(initialize_backbone("tiny3d", {"width": 2}), tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("provenance", "x"),
        ("provenance", {"data": 3}),
        ("info", {}),
        ("info", "x"),
        ("backbone", "tiny3d"),
        ("stage", 1),
    ],
)
def test_a_malformed_export_is_a_mistake_of_the_folder(tmp_path: Path, content: Content, key: str, value: Any) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "out", program=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_backbone(tmp_path / "out")
