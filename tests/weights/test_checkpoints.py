"""Checkpoints: what is read, what is refused and how the refusal reads, and writing that survives a crash."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.errors import CheckpointError
from ssvid.train.run_folder import RunFolder
from ssvid.weights.checkpoints import (
    FORMAT,
    LoadReport,
    checkpoint_of,
    load_backbone_weights,
    load_checkpoint_dict,
    not_finite,
    read_checkpoint,
    split_state_dict,
    weights_sha256,
    write_checkpoint,
)
from ssvid.weights.provenance import Provenance


def meta_of(backbone: Backbone, **changes: Any) -> dict[str, Any]:
    """Meta data such as a run writes."""
    values: dict[str, Any] = {
        "start": None,
        "seen": ["v1", "v2", "v3"],
        "before": (),
        "backbone": {"name": backbone.info.name, "options": dict(backbone.info.options)},
        "task": {"name": "speediness", "options": {"num_frames": 16}},
        "stage": None,
        "recipe": {"kind": "pretrain", "data": {"name": "folder", "root": "/home/somebody/videos"}},
        "data": {"manifest_sha256": "abc", "num_videos": 3},
        "seed": 7,
        "placebo": False,
        "epoch": 2,
        "global_step": 30,
        "pretext_metrics": {"accuracy": 0.75},
        "chance": {"accuracy": 0.5},
        "versions": {"torch": "2.11"},
    }
    return Provenance.of_training(**(values | changes)).to_checkpoint()


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


# ---- checksums


@pytest.fixture
def written(tiny: Backbone, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(path, content_of(tiny) | {"optimizer_states": []})
    return path


def test_a_written_checkpoint_is_what_torch_and_zip_read(written: Path, tiny: Backbone) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_checkpoint(written).meta["global_step"] == 30
    assert torch.load(written, weights_only=True)["epoch"] == 2
    archive = zipfile.ZipFile(written)
    assert archive.testzip() is None
    assert archive.comment.startswith(b"ssvid-sha256:")


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("draw", range(16))
def test_one_flipped_bit_anywhere_is_noticed(written: Path, draw: int) -> None:
    size = written.stat().st_size
    flipped(written, int(np.random.default_rng(draw).integers(8 * size)))
    with pytest.raises(CheckpointError, match="damaged: its bytes are not those that were written"):
        load_checkpoint_dict(written)


def test_one_flipped_bit_in_what_announces_and_holds_the_checksum_is_noticed(written: Path) -> None:
    whole = written.read_bytes()
    for byte in range(len(whole) - 110, len(whole)):
        flipped(written, 8 * byte + byte % 8)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint_dict(written)
        written.write_bytes(whole)


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_cut_file_is_noticed_and_others_beside_it_are_named(written: Path, left: float) -> None:
    (written.parent / "best.ckpt").touch()
    os.truncate(written, int(left * written.stat().st_size))
    with pytest.raises(CheckpointError, match=r"Use another checkpoint of the run \(best.ckpt lies beside it\)"):
        load_checkpoint_dict(written)


@pytest.mark.parametrize("cut", [1, 2, 20, 76, 77, 78, 99])
def test_a_file_that_lacks_its_last_bytes_is_noticed(written: Path, cut: int) -> None:
    os.truncate(written, written.stat().st_size - cut)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint_dict(written)


def test_a_checkpoint_of_before_is_read_and_said_to_be_unchecked(tiny: Backbone, tmp_path: Path) -> None:
    torch.save(content_of(tiny), tmp_path / "old.ckpt")
    with pytest.warns(
        UserWarning, match="old.ckpt was written by an ssvid that wrote no checksum; it could not be checked"
    ):
        assert read_checkpoint(tmp_path / "old.ckpt").meta["seed"] == 7


def test_what_is_not_finite_is_named() -> None:
    weights = {"backbone.a": torch.ones(3), "backbone.b": torch.tensor([1.0, -torch.inf]), "n": torch.tensor(3)}
    assert not_finite({"state_dict": weights}) == "backbone.b"
    assert not_finite({"state_dict": {"a": torch.ones(2), "empty": torch.zeros(0)}, "optimizer_states": []}) == ""
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.tensor([0.0, torch.nan])}}
    found = not_finite({"state_dict": {}, "optimizer_states": [{"state": moments}]})
    assert found == "exp_avg of parameter 0 in the optimizer"


# ---- going on from what is whole


def test_a_run_goes_on_from_its_last_checkpoint_or_from_the_latest_whole_one(written: Path, tiny: Backbone) -> None:
    folder, said = RunFolder(written.parent.parent), []
    assert folder.checkpoint_to_resume(said.append) == written
    for name, step in (("best", 20), ("older", 10)):
        content = content_of(tiny, global_step=step) | {"optimizer_states": []}
        write_checkpoint(written.parent / f"{name}.ckpt", content)
    assert folder.checkpoint_to_resume(said.append) == written
    assert said == []
    whole = written.read_bytes()
    flipped(written, 8000)
    assert folder.checkpoint_to_resume(said.append) == written.parent / "best.ckpt"
    assert "last.ckpt is damaged" in said[0]
    assert "Going on from" in said[0]
    assert "best.ckpt, step 20, instead" in said[0]
    flipped(written.parent / "best.ckpt", 8000)
    assert folder.checkpoint_to_resume(said.append) == written.parent / "older.ckpt"
    (written.parent / "older.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"damaged.*No other checkpoint of the run can go on"):
        folder.checkpoint_to_resume(said.append)
    written.write_bytes(whole)
    assert folder.checkpoint_to_resume(said.append) == written


def test_a_run_does_not_go_on_from_what_is_not_finite(written: Path, tiny: Backbone) -> None:
    folder, said = RunFolder(written.parent.parent), []
    best = written.parent / "best.ckpt"
    written.replace(best)
    spoiled = content_of(tiny) | {"optimizer_states": []}
    spoiled["state_dict"]["task.head.weight"] = torch.tensor([torch.nan])
    write_checkpoint(written, spoiled)
    assert folder.checkpoint_to_resume(said.append) == best
    assert "task.head.weight is not finite" in said[0]
    assert RunFolder(written).checkpoint_to_resume(said.append) is None


def test_a_task_can_name_the_weights_that_are_taken(tmp_path: Path) -> None:
    one, two, other = torch.zeros(2), torch.ones(2), torch.ones(3)
    state = {"backbone.a": one, "task.teacher.backbone.a": two, "task.head.a": other}
    meta = {"format": 1, "backbone": {"name": "tiny3d", "options": {}}}
    taught = checkpoint_of(tmp_path / "x", {"state_dict": state, "ssvid": meta | {"exported": "teacher.backbone"}})
    assert list(taught.exported_state) == ["a"] and torch.equal(taught.exported_state["a"], two)
    assert torch.equal(taught.backbone_state["a"], one)  # the head was trained on it
    plain = checkpoint_of(tmp_path / "x", {"state_dict": state, "ssvid": meta})
    assert plain.exported_state is plain.backbone_state
    with pytest.raises(CheckpointError, match=r"weights to evaluate are 'teacher' of its task, and holds none"):
        checkpoint_of(tmp_path / "x", {"state_dict": {"backbone.a": one}, "ssvid": meta | {"exported": "teacher"}})
    with pytest.raises(CheckpointError, match=r"has 3 as 'exported', which ssvid never writes there"):
        checkpoint_of(tmp_path / "x", {"state_dict": state, "ssvid": meta | {"exported": 3}})
