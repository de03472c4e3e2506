"""Checkpoints: what is read, what is refused and how the refusal reads, and writing that survives a crash."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.checkpoints import (
    FORMAT,
    LoadReport,
    load_backbone_weights,
    make_meta,
    read_checkpoint,
    split_state_dict,
    weights_sha256,
)
from ssvid.errors import CheckpointError


def meta_of(backbone: Backbone, **changes: Any) -> dict[str, Any]:
    """Meta data such as a run writes."""
    values: dict[str, Any] = {
        "backbone": backbone.info.name,
        "backbone_options": backbone.info.options,
        "task": "speediness",
        "task_options": {"num_frames": 16},
        "stage": None,
        "recipe": {"kind": "pretrain", "data": {"name": "folder", "root": "/home/somebody/videos"}},
        "manifest_sha256": "abc",
        "num_videos": 3,
        "content_ids": ["v1", "v2", "v3"],
        "seed": 7,
        "placebo": False,
        "epoch": 2,
        "global_step": 30,
        "pretext_metrics": {"accuracy": 0.75},
        "chance": {"accuracy": 0.5},
        "versions": {"torch": "2.11"},
    }
    return make_meta(**(values | changes))


def content_of(backbone: Backbone, **changes: Any) -> dict[str, Any]:
    """A whole checkpoint such as Lightning saves."""
    state = {f"backbone.{k}": v for k, v in backbone.state_dict().items()} | {"task.head.weight": torch.ones(2, 4)}
    return {"epoch": 2, "global_step": 30, "state_dict": state, "ssvid": meta_of(backbone, **changes)}


@pytest.fixture
def tiny() -> Backbone:
    return initialize_backbone("tiny3d", {"width": 2}, seed=1)


def test_round_trip(tmp_path: Path, tiny: Backbone) -> None:
    torch.save(content_of(tiny), tmp_path / "last.ckpt")
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.meta == meta_of(tiny)
    assert checkpoint.meta["format"] == FORMAT == 1
    assert list(checkpoint.task_state) == ["head.weight"]
    other = initialize_backbone("tiny3d", {"width": 2}, seed=2)
    report = load_backbone_weights(other, checkpoint.backbone_state)
    assert report.is_complete
    assert weights_sha256(other.state_dict()) == weights_sha256(tiny.state_dict())
    assert str(report) == "24 keys matched, 0 missing, 0 unexpected, 0 mismatched"


class Canary:
    """Makes a folder when it is unpickled with a loader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "bare pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, tiny: Backbone, form: str) -> None:
    path, canary = tmp_path / "evil.ckpt", tmp_path / "canary"
    content = content_of(tiny) | {"callbacks": Canary(canary)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch zip")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert not canary.exists(), "code in the checkpoint was run"
    for words in ("evil.ckpt", "refused", "can run code", ".safetensors"):
        assert words in str(caught.value)
    assert "weights_only" not in str(caught.value), "the user must not be told how to switch the guard off"


def test_the_canary_would_run_without_the_guard(tmp_path: Path) -> None:
    torch.save({"x": Canary(tmp_path / "canary")}, tmp_path / "evil.ckpt")
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, tiny: Backbone, keep: float) -> None:
    buffer = io.BytesIO()
    torch.save(content_of(tiny), buffer)
    whole = buffer.getvalue()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt .*damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"conv.weight": torch.ones(1), "fc.weight": torch.ones(1)},
            ["bare state dict", "init_from=", "ssvid export", "--backbone-name"],
        ),
        ({"model": {}, "optimizer": {}}, ["not a checkpoint of ssvid", "'model'", "checkpoints/last.ckpt"]),
        ({}, ["not a checkpoint of ssvid", "it has nothing"]),
        ([1, 2], ["holds a list, not a dict"]),
        ({"ssvid": {"format": FORMAT + 1}, "state_dict": {}}, ["format 2", "formats 1 to 1", "newer ssvid"]),
        ({"ssvid": {"format": "one"}, "state_dict": {}}, ["format 'one'"]),
        ({"ssvid": {"format": True}, "state_dict": {}}, ["format True"]),
        ({"ssvid": {"format": 1, "backbone": None}, "state_dict": {}}, ["does not say which backbone"]),
    ],
)
def test_files_of_other_formats(tmp_path: Path, content: Any, words: list[str]) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    for word in [*words, str(path)]:
        assert word in str(caught.value)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.ckpt"):
        with pytest.raises(CheckpointError, match="is not a file"):
            read_checkpoint(path)


def test_prefixes_are_the_only_two() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert split_state_dict({"backbone.a": one, "task.backbone.a": two}) == ({"a": one}, {"backbone.a": two})
    with pytest.raises(CheckpointError, match=r"1 keys have neither the prefix 'backbone\.'.*module\.a"):
        split_state_dict({"backbone.a": one, "module.a": two})


def test_every_key_must_match_in_name_and_shape(tiny: Backbone) -> None:
    state = dict(tiny.state_dict())
    state["head.weight"] = torch.ones(1)
    del state["stage4.0.weight"]
    state["stage1.0.weight"] = torch.ones(1)
    other = initialize_backbone("tiny3d", {"width": 2}, seed=2)
    before = weights_sha256(other.state_dict())
    with pytest.raises(CheckpointError) as caught:
        load_backbone_weights(other, state)
    for words in ("tiny3d", "1 missing (stage4.0.weight)", "1 unexpected (head.weight)", "1 mismatched", "--partial"):
        assert words in str(caught.value)
    assert weights_sha256(other.state_dict()) == before, "a refused load must change nothing"

    report = load_backbone_weights(other, state, partial=True)
    assert isinstance(report, LoadReport)
    assert (len(report.matched), report.missing, report.mismatched) == (22, ("stage4.0.weight",), ("stage1.0.weight",))
    assert torch.equal(other.state_dict()["stage2.0.weight"], tiny.state_dict()["stage2.0.weight"])


def test_weights_of_another_architecture_are_refused_even_in_part(tiny: Backbone) -> None:
    with pytest.raises(CheckpointError, match="do not fit backbone tiny3d: 0 keys matched"):
        load_backbone_weights(tiny, {"layer1.0.weight": torch.ones(1)}, partial=True)


def test_identity_of_weights_ignores_memory_layout_and_sees_values() -> None:
    value = torch.rand(2, 3, 3, 3, 3)
    other = value.clone()
    other[0, 0, 0, 0, 0] += 1e-6
    scattered = value.contiguous(memory_format=torch.channels_last_3d)
    assert weights_sha256({"a": value}) == weights_sha256({"a": scattered})
    assert len({weights_sha256(s) for s in ({"a": value}, {"b": value}, {"a": other}, {"a": value.double()})}) == 4
    weights_sha256({"scalar": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)})
