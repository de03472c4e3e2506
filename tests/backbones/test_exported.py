"""What others get of each network: torchvision's own class with the card's code, or a program for torch alone.

Neither may need ssvid: the code runs in a process that cannot import it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ssvid.backbones import Backbone, backbones, initialize_backbone, list_backbones
from ssvid.exports import export, load_backbone
from tests.weights.test_checkpoints import content_of

TORCHVISION = ["mc3_18", "r2plus1d_18", "r3d_18", "resnet18", "resnet50", "s3d"]
PROGRAMS = [
    "c3d",
    "caffenet",
    "cnn_m",
    "context_fovea",
    "early_fusion",
    "i3d_resnet18",
    "i3d_resnet50",
    "s3dg",
    "slow_fusion",
    "timesformer",
    "tiny3d",
    "vit",
]


# Each takes a process of its own; tests/test_exports.py does the same with r3d_18 in every run of the tests.
LATER = {"mc3_18", "r2plus1d_18", "r3d_18", "resnet18", "resnet50", "s3d"}


def some_later(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LATER else name for name in names]


def network(name: str) -> Backbone:
    """A network whose batch statistics are not the initial ones."""
    backbone = initialize_backbone(name, seed=3).train()
    with torch.no_grad():
        info = backbone.info
        backbone(torch.rand(2, 3, max(3, info.min_frames), *(max(40, info.min_px),) * 2))
    return backbone.eval()


def save(folder: Path, backbone: Backbone) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content_of(backbone, stage=backbone.info.stages[-1].name), path)
    return path


def run_without_ssvid(code: str, *blocked: str) -> None:
    guard = f"import sys\nfor name in {['ssvid', 'pretext_tasks', *blocked]!r}: sys.modules[name] = None\n"
    subprocess.run([sys.executable, "-I", "-c", guard + code], check=True)


def test_every_network_is_one_or_the_other() -> None:
    own = [name for name in list_backbones() if not backbones.get(name).torchvision]
    assert (sorted({*list_backbones()} - {*own}), own) == (TORCHVISION, PROGRAMS)


@pytest.mark.parametrize("name", some_later(TORCHVISION))
def test_the_code_of_the_card_gives_the_same_map_with_torchvision_alone(tmp_path: Path, name: str) -> None:
    backbone = network(name)
    export(save(tmp_path / "run", backbone), tmp_path / "out")
    assert not (tmp_path / "out" / "backbone.pt2").exists(), "torchvision has the class"
    card = (tmp_path / "out" / "README.md").read_text()
    code = next(block for block in card.split("```") if block.startswith("python\nimport torch, torchvision"))
    clip = torch.rand(2, 3, 3, 48, 40)  # odd numbers of cells on the way down
    with torch.no_grad():
        torch.save({"clip": clip, "map": backbone(clip), "vector": backbone.embed(clip)}, tmp_path / "expected.pt")
    run_without_ssvid(f"""
import os, torch
os.chdir({str(tmp_path / "out")!r})
torch.set_grad_enabled(False)
expected = torch.load({str(tmp_path / "expected.pt")!r})
clip = expected["clip"]
def keep(module, ins, out): global last; last = out
{code.removeprefix("python").replace("vectors =", f"network.{backbone.torchvision_last}.register_forward_hook(keep); vectors =")}
if last.ndim == 4: last = last.unflatten(0, (2, 3)).transpose(1, 2)
scale = max(1.0, expected["map"].abs().max().item())
torch.testing.assert_close(vectors, expected["vector"], atol=1e-5 * scale, rtol=0)
torch.testing.assert_close(last, expected["map"], atol=1e-5 * scale, rtol=0)
""")


@pytest.mark.slow  # torch.export takes ten seconds and more; tiny3d is exported in every run of the tests
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "tiny3d"])
def test_the_program_gives_the_same_map_with_torch_alone(tmp_path: Path, name: str) -> None:
    backbone = network(name)
    report = export(save(tmp_path / "run", backbone), tmp_path / "out")
    assert not report.notes
    least = json.loads((tmp_path / "out" / "config.json").read_text())["program"]["least"]
    longer = least["T"] if backbone.info.max_frames else least["T"] + 3
    shapes = [(1, 3, least["T"], least["H"], least["W"]), (2, 3, longer, least["H"] + 17, least["W"] + 2)]
    clips = [torch.rand(shape) for shape in shapes]
    with torch.no_grad():
        torch.save([(clip, backbone(clip)) for clip in clips], tmp_path / "expected.pt")
    run_without_ssvid(
        f"""
import torch
network = torch.export.load({str(tmp_path / "out" / "backbone.pt2")!r}).module()
for clip, want in torch.load({str(tmp_path / "expected.pt")!r}):
    torch.testing.assert_close(network(clip), want, atol=1e-5, rtol=1e-5)
""",
        "torchvision",
    )
    again = load_backbone(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(again(clips[0]), backbone(clips[0]))
