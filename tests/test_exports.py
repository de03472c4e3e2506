"""Exports: what others get with torchvision or torch alone, and what load_backbone takes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.errors import CheckpointError, PluginError, RecipeError, SsvidError
from ssvid.exports import export, load_backbone, read_weights
from tests.weights.test_checkpoints import content_of


def network(name: str, **options: Any) -> Backbone:
    """A network whose batch statistics are not the initial ones, in channels-last as training leaves it."""
    backbone = initialize_backbone(name, options, seed=3).train()
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.rand(2, 3, 8, 32, 32))
    return backbone.eval()


def save_checkpoint(folder: Path, backbone: Backbone, **changes: Any) -> Path:
    """A run folder with its last checkpoint."""
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content_of(backbone, **changes), path)
    return path


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return network("tiny3d", width=4, input="difference")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "run"
    save_checkpoint(folder, tiny, stage="stage4")
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "export"
    export(run / "checkpoints" / "last.ckpt", out)
    return out


@pytest.fixture(scope="module")
def r3d() -> Backbone:
    return network("r3d_18")


@pytest.fixture(scope="module")
def r3d_run(tmp_path_factory: pytest.TempPathFactory, r3d: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("r3d") / "run"
    save_checkpoint(folder, r3d)
    return folder


def run_without_ssvid(code: str, *blocked: str) -> None:
    """Run code in a process that cannot import ssvid."""
    names = ["ssvid", "pretext_tasks", *blocked]
    guard = f"import sys\nfor name in {names!r}: sys.modules[name] = None\n"
    subprocess.run([sys.executable, "-I", "-c", guard + code], check=True)


# ---- for others ------------------------------------------------------------------------------------------------------


def test_r3d_gives_the_same_map_with_torchvision_alone(tmp_path: Path, r3d_run: Path, r3d: Backbone) -> None:
    """The code of the model card is run as it stands."""
    report = export(r3d_run, tmp_path / "out")
    assert str(report.weights) == f"{len(r3d.state_dict())} keys matched, 0 missing, 0 unexpected, 0 mismatched"
    assert not (tmp_path / "out" / "backbone.pt2").exists(), "torchvision has the class"
    card = (tmp_path / "out" / "README.md").read_text()
    code = next(block for block in card.split("```") if block.startswith("python\nimport torch, torchvision"))
    clip = torch.rand(1, 3, 8, 48, 48)
    with torch.no_grad():
        torch.save({"clip": clip, "map": r3d(clip), "vector": r3d.embed(clip)}, tmp_path / "expected.pt")
    run_without_ssvid(f"""
import os, torch
os.chdir({str(tmp_path / "out")!r})
torch.set_grad_enabled(False)
expected = torch.load({str(tmp_path / "expected.pt")!r})
clip = expected["clip"]
{code.removeprefix("python")}
maps = []
network.layer4.register_forward_hook(lambda module, ins, out: maps.append(out))
torch.testing.assert_close(network((clip - mean) / std), vectors)
torch.testing.assert_close(vectors, expected["vector"], atol=1e-5, rtol=0)
torch.testing.assert_close(maps[0], expected["map"], atol=1e-5, rtol=0)
""")


def test_tiny3d_gives_the_same_map_with_torch_alone(tmp_path: Path, exported: Path, tiny: Backbone) -> None:
    least = json.loads((exported / "config.json").read_text())["program"]["least"]
    assert least == {"B": 1, "T": 5, "H": 17, "W": 17}
    shapes = [(2, 3, 16, 56, 56), (1, 3, least["T"], least["H"], least["W"]), (3, 3, 9, 64, 40)]
    tensors = {}
    with torch.no_grad():
        for i, shape in enumerate(shapes):
            tensors[f"clip{i}"] = torch.rand(shape)
            tensors[f"map{i}"] = tiny(tensors[f"clip{i}"])
    torch.save(tensors, tmp_path / "expected.pt")
    run_without_ssvid(
        f"""
import torch
network = torch.export.load({str(exported / "backbone.pt2")!r}).module()
expected = torch.load({str(tmp_path / "expected.pt")!r})
for i in range({len(shapes)}):
    torch.testing.assert_close(network(expected[f"clip{{i}}"]), expected[f"map{{i}}"], atol=1e-5, rtol=0)
""",
        "torchvision",
        "safetensors",
    )


def test_torchvision_format_lacks_nothing_but_fc(tmp_path: Path, r3d_run: Path, r3d: Backbone) -> None:
    from torchvision.models.video import r3d_18

    num_keys = len(r3d.state_dict())
    for suffix in (".pth", ".safetensors"):
        report = export(r3d_run, tmp_path / f"weights{suffix}", format="torchvision")
        assert report.weights.missing == ("fc.weight", "fc.bias")
        assert report.as_dict()["weights"] == {"matched": num_keys, "missing": 2, "unexpected": 0, "mismatched": 0}
        assert "mean [0.43216" in str(report), "whoever takes the file must be told to normalize"
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in load_file(tmp_path / "weights.safetensors").items())
    result = r3d_18(weights=None).load_state_dict(state, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["fc.weight", "fc.bias"], [])


def test_torchvision_is_not_promised_for_other_strides(tmp_path: Path) -> None:
    fine = initialize_backbone("r3d_18", {"stride_time": 1}, seed=0)
    run = save_checkpoint(tmp_path / "run", fine).parents[1]
    report = export(run, tmp_path / "weights.pth", format="torchvision")
    assert "'stride_time': 1" in str(report)
    assert "torchvision's class has" in str(report)


def test_the_folder_holds_what_the_next_project_asks_for(exported: Path, tiny: Backbone) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"README.md", "backbone.pt2", "backbone.safetensors", "config.json", "content_ids.json"}
    config = json.loads((exported / "config.json").read_text())
    assert config["backbone"] == {"name": "tiny3d", "options": dict(tiny.info.options)}
    assert config["stage"] == "stage4"
    assert (config["info"]["num_frames"], config["info"]["size"]) == (16, 56)
    assert config["num_parameters"] == sum(p.numel() for p in tiny.parameters())
    assert config["provenance"]["pretext_metrics"] == {"accuracy": 0.75}
    assert json.loads((exported / "content_ids.json").read_text()) == ["v1", "v2", "v3"]
    everything = (exported / "config.json").read_text() + (exported / "README.md").read_text()
    assert "/home/somebody" not in everything, "an export must not tell where its maker keeps files"


def test_every_file_follows_the_umask(run: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export(run, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 5
    assert set(modes.values()) == {"0o640"}, modes


def test_the_card_says_how_to_load_what_was_seen_and_what_chance_is(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for words in (
        "library_name: ssvid",
        "pretrained without labels by speediness",
        'ssvid.load_backbone("FOLDER")',
        'torch.export.load("backbone.pt2")',
        "T at least 5",
        "| accuracy | 0.7500 | 0.5000 |",
        "- videos: 3",
        "Choose the license",
    ):
        assert words in card
    assert "placebo" not in card
    assert "torchvision.models" not in card


def test_the_card_shows_what_was_measured_on_videos_from_elsewhere(
    tmp_path: Path, tiny: Backbone, exported: Path
) -> None:
    run = save_checkpoint(tmp_path / "run", tiny, out_of_domain_metrics={"accuracy": 0.625}).parents[1]
    export(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| metric, on held-out videos | value | on videos from elsewhere | a blind guess |" in card
    assert "| accuracy | 0.7500 | 0.6250 | 0.5000 |" in card
    assert "none from elsewhere were measured" in (exported / "README.md").read_text()
    assert "none from elsewhere were measured" not in card


def test_a_placebo_says_so_on_its_card(tmp_path: Path, tiny: Backbone) -> None:
    run = save_checkpoint(tmp_path / "run", tiny, placebo=True).parents[1]
    export(run, tmp_path / "out")
    assert "A control, not a product" in (tmp_path / "out" / "README.md").read_text()
    assert load_backbone(tmp_path / "out").provenance["placebo"] is True
    assert load_backbone(tmp_path / "out").provenance["placebo_answers"] == "of other videos"


# ---- load_backbone ---------------------------------------------------------------------------------------------------


def test_every_way_in_gives_the_same_network(run: Path, exported: Path, tiny: Backbone) -> None:
    again = exported.parent / "again"
    export(exported, again)
    clip = torch.rand(1, 3, 8, 32, 32)
    expected = tiny(clip)
    hashes = set()
    for path in (run, run / "checkpoints" / "last.ckpt", exported, str(exported), again):
        backbone = load_backbone(path)
        assert not backbone.training
        assert torch.equal(backbone(clip), expected)
        hashes.add(backbone.provenance["weights_sha256"])
        assert backbone.provenance["content_ids"] == ["v1", "v2", "v3"]
        for key, value in {"stage": "stage4", "placebo": False, "partial": False, "seed": 7}.items():
            assert backbone.provenance[key] == value
        assert backbone.provenance["weights"] == "24 keys matched, 0 missing, 0 unexpected, 0 mismatched"
    assert hashes == {json.loads((exported / "config.json").read_text())["weights_sha256"]}
    assert read_weights(exported).keys() == tiny.state_dict().keys()


def test_random_is_the_network_of_that_seed() -> None:
    backbone = load_backbone("random", name="tiny3d", options={"width": 4}, seed=5)
    assert torch.equal(
        backbone.state_dict()["stage1.0.weight"],
        initialize_backbone("tiny3d", {"width": 4}, seed=5).state_dict()["stage1.0.weight"],
    )
    assert backbone.provenance["random"] == {"seed": 5}
    assert backbone.provenance["content_ids"] == []
    with pytest.raises(RecipeError, match=r"'random' needs the name of a network.*--backbone-name"):
        load_backbone("random")


def test_strides_may_be_chosen_at_loading(exported: Path) -> None:
    backbone = load_backbone(exported, options={"stride_time": 1})
    assert backbone.info.options == {"width": 4, "input": "difference", "stride_time": 1, "in_channels": 3}
    assert backbone(torch.rand(1, 3, 8, 32, 32)).shape[2] == 8


def test_another_architecture_is_refused(run: Path, exported: Path) -> None:
    for path in (run, exported):
        with pytest.raises(
            CheckpointError, match=r"'tiny3d', but 'r3d_18' was asked for.*backbone\.name=tiny3d.*--partial"
        ):
            load_backbone(path, name="r3d_18")
    with pytest.raises(CheckpointError, match="0 keys matched"):
        load_backbone(run, name="r3d_18", partial=True)
    with pytest.raises(CheckpointError, match="mismatched"):
        load_backbone(run, options={"width": 8})
    with pytest.raises(PluginError, match="unknown backbone 'r3d_99'"):
        load_backbone("random", name="r3d_99")


def test_a_partial_load_is_remembered(tmp_path: Path, tiny: Backbone) -> None:
    content = content_of(tiny)
    del content["state_dict"]["backbone.stage4.0.weight"]
    torch.save(content, tmp_path / "less.ckpt")
    with pytest.raises(CheckpointError, match="1 missing"):
        load_backbone(tmp_path / "less.ckpt")
    backbone = load_backbone(tmp_path / "less.ckpt", partial=True)
    assert backbone.provenance["partial"] is True
    assert backbone.provenance["weights"] == "23 keys matched, 1 missing (stage4.0.weight), 0 unexpected, 0 mismatched"


def test_paths_that_lead_nowhere(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent does not exist\. Name a checkpoint file, a run folder"):
        load_backbone(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"has neither config\.json .* nor checkpoints/last\.ckpt"):
        load_backbone(tmp_path)
    with pytest.raises(CheckpointError, match=r"is one file of an export.*Name the folder"):
        load_backbone(exported / "backbone.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("no weights", "missing or damaged"),
        ("cut weights", "missing or damaged"),
        ("other weights", "their hashes differ"),
        ("not json", "cannot be read as JSON"),
        ("foreign config", "not that of an ssvid export"),
        ("later format", "has export format 2; this ssvid reads format 1"),
        ("other mean", "was trained with mean (0.5, 0.0, 0.0)"),
    ],
)
def test_damaged_exports(tmp_path: Path, exported: Path, damage: str, words: str) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("config.json", "backbone.safetensors", "content_ids.json"):
        (folder / name).write_bytes((exported / name).read_bytes())
    weights, config = folder / "backbone.safetensors", folder / "config.json"
    content = json.loads(config.read_text())
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "other weights":
        save_file({key: value + 1 for key, value in load_file(weights).items()}, weights)
    elif damage == "not json":
        config.write_text("{")
    elif damage == "foreign config":
        config.write_text('{"architectures": ["BertModel"]}')
    elif damage == "later format":
        config.write_text(json.dumps(content | {"format": 2}))
    elif damage == "other mean":
        config.write_text(json.dumps(content | {"info": content["info"] | {"mean": [0.5, 0.0, 0.0]}}))
    with pytest.raises(CheckpointError) as caught:
        load_backbone(folder)
    assert words in str(caught.value)


# ---- refusals of export ----------------------------------------------------------------------------------------------


def test_export_never_overwrites(tmp_path: Path, run: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for format in ("ssvid", "torchvision"):
        with pytest.raises(CheckpointError, match="mine exists, and an export never overwrites"):
            export(run, tmp_path / "mine", format=format)
    assert (tmp_path / "mine").read_text() == "precious"


def test_export_refuses_what_it_cannot_do(tmp_path: Path, run: Path, r3d_run: Path) -> None:
    with pytest.raises(SsvidError, match=r"format \('onx'\) is unknown.*ssvid, torchvision"):
        export(run, tmp_path / "out", format="onx")
    with pytest.raises(SsvidError, match=r"no network like 'tiny3d'.*--format ssvid.*torch alone"):
        export(run, tmp_path / "out.pth", format="torchvision")
    with pytest.raises(SsvidError, match=r"must end in \.pth or \.safetensors"):
        export(r3d_run, tmp_path / "out", format="torchvision")
    with pytest.raises(CheckpointError, match="does not exist"):
        export(tmp_path / "absent.ckpt", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [], "a refused export leaves nothing behind"
