"""What is known of weights: the shapes it has in files are those of older versions, and a file is read once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.exports import export, initialize, load_backbone
from ssvid.recipe.building import start_backbone
from ssvid.recipe.schema import FinetuneRecipe, ProbeBackboneConfig
from ssvid.weights import checkpoints
from ssvid.weights.checkpoints import read_checkpoint
from ssvid.weights.loading import read_source
from ssvid.weights.provenance import Provenance

GOLDEN = json.loads((Path(__file__).parent / "provenance_of_0_1.json").read_text())
INIT = {
    "from": "run",
    "sha256": "0" * 64,
    "counts": {"matched": 24},
    "partial": False,
    "num_videos": 3,
    "unknown_videos": False,
}
LATER = [("in_channels", 3), ("averaged", 0), ("averaged", [])]
KNOWN = Provenance.of_training(
    INIT,
    seen=["v3", "v1"],
    before=["v2"],
    backbone={"name": "tiny3d", "options": {"width": 4}},
    task={"name": "speediness", "options": {"num_frames": 16}},
    stage="stage4",
    recipe={"kind": "pretrain", "data": {"name": "folder", "root": "/home/somebody/videos"}},
    data={"manifest_sha256": "abc", "num_videos": 3},
    seed=7,
    placebo=True,
    epoch=2,
    global_step=30,
    pretext_metrics={"accuracy": 0.75},
    out_of_domain_metrics={"accuracy": 0.5},
    chance={"accuracy": 0.5},
    versions={"torch": "2.11"},
)


def write_run(folder: Path, meta: dict[str, Any]) -> Path:
    backbone = initialize_backbone("tiny3d", {"width": 4}, seed=1)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, "ssvid": meta}, folder / "checkpoints" / "last.ckpt")
    return folder / "checkpoints" / "last.ckpt"


def row_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return Provenance.of(provenance).to_row()


def recipe() -> FinetuneRecipe:
    return FinetuneRecipe(seed=5, backbone=ProbeBackboneConfig("tiny3d", {"width": 4}))


def shapes(folder: Path) -> dict[str, Any]:
    """What is written, and what a row says, for weights from everywhere."""
    path = write_run(folder / "run", KNOWN.to_checkpoint())
    old = KNOWN.to_checkpoint()
    for key in ("init", "placebo_answers", "out_of_domain_metrics", "partial"):  # as the first versions wrote it
        del old[key]
    torch.save({"state_dict": initialize_backbone("tiny3d", {"width": 4}).state_dict()}, folder / "theirs.pth")
    found: dict[str, Any] = {"checkpoint": read_checkpoint(path).meta}
    for name, spec in (("run", path), ("old", write_run(folder / "old", old))):
        export(spec, folder / f"{name}_export", program=False)
        found[f"export of {name}"] = json.loads((folder / f"{name}_export" / "config.json").read_text())
        for kind, place in (("checkpoint", spec), ("export", folder / f"{name}_export")):
            network = load_backbone(place)
            found[f"{kind} of {name} loaded"] = dict(network.provenance)
            found[f"row of {kind} of {name}"] = row_of(network.provenance)
    export(
        folder / "theirs.pth", folder / "theirs", backbone_name="tiny3d", backbone_options={"width": 4}, program=False
    )
    found["export of theirs"] = json.loads((folder / "theirs" / "config.json").read_text())
    found["row of export of theirs"] = row_of(load_backbone(folder / "theirs").provenance)
    found["random"] = row_of(load_backbone("random", "tiny3d", {"width": 4}, seed=3).provenance)
    for name, spec in (("run", path), ("theirs", folder / "theirs.pth"), ("random", "random")):
        found[f"finetuned {name}"] = dict(start_backbone(spec, recipe()).provenance)
    return json.loads(json.dumps(found))


def told(value: Any) -> Any:
    """Without the hashes, which depend on torch's random numbers, and without what options of networks came later."""
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items() if key != "info" and (key, item) not in LATER}
    if isinstance(value, list):
        return [told(item) for item in value]
    return "a hash" if isinstance(value, str) and len(value) == 64 else value


@pytest.mark.filterwarnings("ignore:checkpoint .* wrote no checksum")
def test_files_and_rows_have_the_shapes_of_older_versions(tmp_path):
    found = told(shapes(tmp_path))
    for what, golden in GOLDEN.items():
        assert found[what] == golden, what
    assert found.keys() == GOLDEN.keys()


def test_it_comes_back_from_a_checkpoint_and_from_an_export(tmp_path):
    path = write_run(tmp_path / "run", KNOWN.to_checkpoint())
    assert read_checkpoint(path).provenance == KNOWN
    export(path, tmp_path / "export", program=False)
    hidden = {"kind": "pretrain", "data": {"name": "folder", "root": "???"}}
    found = read_source(tmp_path / "export").provenance
    assert found.backbone["options"] == {
        "width": 4,
        "input": "rgb",
        "stride_time": 4,
        "in_channels": 3,
    }  # with those that were not said
    assert replace(found, backbone=KNOWN.backbone) == replace(KNOWN, recipe=hidden)


def test_weights_of_a_teacher_say_so_everywhere_and_others_say_nothing(tmp_path):
    of_teacher = replace(KNOWN, exported="teacher.backbone")
    for known, said in ((of_teacher, "teacher.backbone"), (KNOWN, None)):
        assert known.to_checkpoint().get("exported") == known.to_export().get("exported") == said
        assert known.to_row().get("exported") == said
        assert Provenance.from_dict(known.to_checkpoint()) == known
        assert (said is None) == ("exported" not in known.to_checkpoint())


def test_it_can_be_read_as_a_dict_and_made_of_one():
    assert KNOWN["placebo"] is True and KNOWN.get("start") is None and "start" not in KNOWN
    assert Provenance.of({"stage": "stage2", "content_ids": []}).to_row() == {
        "stage": "stage2",
        "placebo": False,
        "partial": False,
        "num_pretraining_videos": 0,
    }
    with pytest.raises(TypeError, match="plcebo"):
        Provenance.of({"plcebo": True})


def export_any(path: Path) -> Any:
    named = {"backbone_name": "tiny3d", "backbone_options": {"width": 4}} if path.suffix == ".pth" else {}
    return export(path, path.parent / "out", program=False, **named)  # type: ignore[arg-type]


WAYS_IN: dict[str, Callable[[Path], Any]] = {
    "load_backbone, as probe and retrieve do": load_backbone,
    "start_backbone, as finetune does": lambda path: start_backbone(path, recipe()),
    "export": export_any,
    "init_from": lambda path: initialize(initialize_backbone("tiny3d", {"width": 4}), path),
}


@pytest.mark.filterwarnings("ignore:checkpoint .* wrote no checksum")
@pytest.mark.parametrize("way", WAYS_IN)
def test_a_file_of_ours_is_read_from_disk_once(tmp_path, monkeypatch, way):
    assert_read_once(monkeypatch, WAYS_IN[way], write_run(tmp_path / "run", KNOWN.to_checkpoint()))


@pytest.mark.parametrize("way", [way for way in WAYS_IN if not way.startswith("load_backbone")])
def test_a_file_of_another_program_is_read_from_disk_once(tmp_path, monkeypatch, way):
    torch.save({"state_dict": initialize_backbone("tiny3d", {"width": 4}).state_dict()}, tmp_path / "theirs.pth")
    assert_read_once(monkeypatch, WAYS_IN[way], tmp_path / "theirs.pth")


def assert_read_once(monkeypatch: pytest.MonkeyPatch, enter: Callable[[Path], Any], path: Path) -> None:
    loaded, checked = [], []
    load, is_whole = torch.load, checkpoints._is_whole
    monkeypatch.setattr(torch, "load", lambda *args, **options: loaded.append(args[0]) or load(*args, **options))
    monkeypatch.setattr(checkpoints, "_is_whole", lambda file: checked.append(file) or is_whole(file))
    enter(path)
    assert loaded == checked == [path]
