"""Weights of another program become an export, so that they can be evaluated beside ours."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.cli import main
from ssvid.errors import CheckpointError
from ssvid.exports import export, load_backbone
from ssvid.results.leaks import leak_note
from tests.weights.test_checkpoints import content_of

Put = Callable[[str, str], dict[str, torch.Tensor]]


def test_torchvisions_weights_become_an_export(
    hub_cache: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = hub_cache("video.r3d_18", "KINETICS400_V1")
    out = tmp_path / "out"
    assert main(["export", "torchvision:KINETICS400_V1", str(out), "--backbone-name", "r3d_18"]) == 0
    assert "120 keys matched, 0 missing" in capsys.readouterr().out
    backbone = load_backbone(out)
    origin = backbone.provenance
    assert torch.equal(backbone.state_dict()["stem.0.weight"], state["stem.0.weight"])
    assert (origin["stage"], origin["content_ids"], origin["task"], origin["seed"]) == ("layer4", None, None, 0)
    assert origin["init"]["from"] == "torchvision:r3d_18.KINETICS400_V1"
    assert leak_note([], [], origin)["pretrained_on_test"] is None, "unknown is not none"
    assert not (out / "content_ids.json").exists()
    card = (out / "README.md").read_text()
    assert "# r3d_18, weights of torchvision:r3d_18.KINETICS400_V1\n" in card
    assert "without labels" not in card
    assert "which had seen videos or pictures that are not known" in card
    again = tmp_path / "again"
    export(out, again)
    assert load_backbone(again).provenance["weights_sha256"] == origin["weights_sha256"]


def test_a_state_dict_becomes_an_export(tmp_path: Path) -> None:
    source = initialize_backbone("tiny3d", seed=4).eval()
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, tmp_path / "theirs.pth")
    export(tmp_path / "theirs.pth", tmp_path / "out", backbone_name="tiny3d")
    clip = torch.rand(1, 3, 8, 32, 32)
    assert torch.equal(load_backbone(tmp_path / "out")(clip), source(clip))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["provenance"]["init"]["undone"] == ["cut prefix 'module.' from 24 keys"]
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


def test_what_does_not_fit_or_needs_no_name_is_refused(tmp_path: Path) -> None:
    source = initialize_backbone("tiny3d", {"width": 2}, seed=4)
    torch.save(dict(source.state_dict()), tmp_path / "theirs.pth")
    torch.save(content_of(source), tmp_path / "ours.ckpt")
    with pytest.raises(CheckpointError, match=r"do not fit backbone tiny3d.*mismatched"):
        export(tmp_path / "theirs.pth", tmp_path / "out", backbone_name="tiny3d")
    with pytest.raises(CheckpointError, match=r"say themselves which network.*Leave --backbone-name out"):
        export(tmp_path / "ours.ckpt", tmp_path / "out", backbone_name="tiny3d")
    with pytest.raises(CheckpointError, match=r"ssvid export .*theirs\.pth OUT --backbone-name"):
        export(tmp_path / "theirs.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_an_export_advises_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = dict(initialize_backbone("tiny3d", seed=4).state_dict())
    flat = {k: v.sum(2) if v.ndim == 5 else v for k, v in state.items()}
    less = {k: v for k, v in state.items() if k != "stage1.0.weight"}
    both = {f"encoder_{side}.{k}": v for side in "qk" for k, v in state.items()}
    advice = {"--inflate": flat, "--partial": less, "--which encoder_k": both}
    for number, (option, content) in enumerate(advice.items()):
        torch.save(content | {"queue": torch.ones(2)}, tmp_path / "theirs.pth")
        command = ["export", str(tmp_path / "theirs.pth"), str(tmp_path / f"out{number}"), "--backbone-name", "tiny3d"]
        assert main(command) == 2
        assert option in capsys.readouterr().err
        assert main([*command, *option.split()]) == 0
        assert "queue" in capsys.readouterr().out
    assert load_backbone(tmp_path / "out1").provenance["partial"] is True
    assert load_backbone(tmp_path / "out2").provenance["partial"] is False


def test_a_foreign_file_given_to_a_probe_is_told_the_way(tmp_path: Path) -> None:
    state = dict(initialize_backbone("tiny3d", seed=4).state_dict())
    torch.save({"model": state, "args": argparse.Namespace(lr=1)}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"holds argparse\.Namespace.*init_from=FILE and ssvid export FILE OUT"):
        load_backbone(tmp_path / "theirs.pth")
