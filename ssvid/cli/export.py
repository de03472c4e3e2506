"""``ssvid export``: hand a backbone to the next project."""

from __future__ import annotations

from ssvid.cli.parser import Verbs, add_shared, run_program

_DESCRIPTION = """\
Format ssvid writes a folder: backbone.safetensors, config.json, a model card (README.md) and, for networks that
torchvision does not provide, backbone.pt2, which loads with torch alone. ssvid.load_backbone(OUT) loads it.
Format torchvision writes one file (.pth or .safetensors) with torchvision's keys; format onnx one file (.onnx), checked
with onnxruntime. With --backbone-name, weights of another program become an export too. Nothing is ever overwritten.
"""
_EPILOG = """\
examples:
  ssvid export runs/mine exports/mine
  ssvid export runs/mine r3d_18.pth --format torchvision
  ssvid export runs/mine mine.onnx --format onnx
  ssvid export torchvision:KINETICS400_V1 exports/supervised --backbone-name r3d_18
  ssvid export moco.pth exports/moco --backbone-name r3d_18 --which encoder_q
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add(
        "export", run_program, "write a backbone as safetensors with a model card", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run folder, or another export")
    parser.add_argument(
        "--backbone-name",
        metavar="NAME",
        help="CHECKPOINT is torchvision:WEIGHTS, or a .pth, .pt or .safetensors state dict, of this network",
    )
    add_shared(parser, "--which", "--inflate", "--partial")
    parser.add_argument("out", metavar="OUT", help="what to write; it must not exist")
    parser.add_argument(
        "--format", choices=("ssvid", "torchvision", "onnx"), default="ssvid", help="default: %(default)s"
    )
