"""A backbone as one ONNX file (extra ``onnx``), written by torch's exporter and compared with onnxruntime on the CPU."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssvid.backbones import Backbone, pool_map
from ssvid.errors import SsvidError

OPSET = 18
ONNX_TOLERANCE = 1e-4
AXES = {0: "batch", 2: "frames", 3: "height", 4: "width"}
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class _MapAndVector(nn.Module):
    """A backbone as a function of the clip alone: the map of one stage and its mean over time and space."""

    def __init__(self, backbone: Backbone, stage: str) -> None:
        super().__init__()
        self.backbone, self.stage = backbone, stage

    def forward(self, clip_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        map_BCTHW = self.backbone(clip_BCTHW, self.stage)
        return map_BCTHW, pool_map(map_BCTHW)


def write_onnx(out: Path, backbone: Backbone, stage: str, *, weights_sha256: str) -> tuple[str, ...]:
    """Write the file and return notes for the next user. Input ``clip`` in [0, 1]; outputs ``map`` and ``vector``.

    Batch, frames, height and width are dynamic; a network that fixes some of them is exported with the batch alone, and the
    notes say at what size. The file appears only after onnxruntime gave the backbone's own values on a clip of another size.

    Raises:
        SsvidError: the suffix, a missing package, a network that cannot be exported, or values that differ.
    """
    if out.suffix != ".onnx":
        raise SsvidError(f"format onnx writes one file, and {out} must end in .onnx. Rename it.")
    _require_packages()
    network = _MapAndVector(backbone.eval(), stage).eval()
    model, dynamic = _convert(network, backbone)
    _describe(model, backbone, stage, weights_sha256)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.onnx")
    try:
        _save(model, temporary)
        worst = _compare(temporary, network, backbone, dynamic)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    size = "x".join(map(str, _clip(backbone, 1).shape[2:]))
    return (
        f"opset {OPSET}; input clip (batch, {backbone.info.in_channels}, frames, height, width) in [0, 1], normalized inside; outputs map and vector "
        f"of stage {stage}; dynamic: {', '.join(AXES[axis] for axis in dynamic)}"
        + ("" if len(dynamic) == len(AXES) else f" (clips must be {size})"),
        f"onnxruntime on the CPU differs by {worst:.1e} at most",
    )


def _require_packages() -> None:
    import importlib.util

    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise SsvidError(
            f"format onnx needs {', '.join(absent)}, which is not installed. Install it with: pip install 'ssvid[onnx]'"
        )


def _convert(network: _MapAndVector, backbone: Backbone) -> tuple[Any, tuple[int, ...]]:
    """The converted network and the axes that are dynamic: all of them, or the batch alone where that fails."""
    failures: list[str] = []
    for axes in (tuple(AXES), (0,)):
        dynamic = {axis: AXES[axis] if axis in axes else torch.export.Dim.STATIC for axis in AXES}
        shown = io.StringIO()
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
                warnings.simplefilter("ignore")  # of torch's own deprecated calls
                program = torch.onnx.export(
                    network,
                    (_clip(backbone, 2),),
                    input_names=["clip"],
                    output_names=["map", "vector"],
                    opset_version=OPSET,
                    dynamo=True,
                    dynamic_shapes={"clip_BCTHW": dynamic},
                    verbose=False,
                )
        except Exception as error:  # the exporter fails in many ways; the last words of each try are shown
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            return program, axes
    raise SsvidError(f"torch.onnx cannot take {backbone.info.name} ({failures[-1]}). Use --format ssvid.")


def _clip(backbone: Backbone, batch: int, cells: Sequence[int] = (2, 2, 2)) -> Tensor:
    """A clip of so many cells of the deepest map along frames, height and width, and one pixel or frame more."""
    info, last = backbone.info, backbone.info.stages[-1]
    strides = (last.stride_time, last.stride_space, last.stride_space)
    least = (info.min_frames, info.min_px, info.min_px)
    size = [max(n * stride + 1, low) for n, stride, low in zip(cells, strides, least, strict=True)]
    size[0] = size[0] if info.max_frames is None else min(size[0], info.max_frames)
    return torch.rand(batch, info.in_channels, *size, generator=torch.Generator().manual_seed(0))


def _describe(program: Any, backbone: Backbone, stage: str, weights_sha256: str) -> None:
    info = backbone.info
    program.model.metadata_props.update(
        {
            "ssvid.backbone": info.name,
            "ssvid.options": repr(dict(info.options)),
            "ssvid.stage": stage,
            "ssvid.weights_sha256": weights_sha256,
            "ssvid.normalization": f"inside the graph: mean {list(info.mean)}, std {list(info.std)}; give pixels in [0, 1]",
            "ssvid.opset": str(OPSET),
        }
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # they hold the paths of the source files on the machine that exports


def _save(program: Any, path: Path) -> None:
    program.save(str(path), external_data=False)


def _compare(path: Path, network: nn.Module, backbone: Backbone, dynamic: Sequence[int]) -> float:
    """The largest difference between onnxruntime and torch, relative to the largest value of an output above 1.

    Also on a clip of another size than the file was made with.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    clips = [_clip(backbone, 1), _clip(backbone, 3, (1, 3, 2))] if len(dynamic) == len(AXES) else [_clip(backbone, 1)]
    worst = 0.0
    for clip in clips:
        with torch.no_grad():
            expected = network(clip)
        for ours, theirs in zip(expected, session.run(None, {"clip": clip.numpy()}), strict=True):
            if tuple(ours.shape) != theirs.shape:
                raise SsvidError(
                    f"onnxruntime gives the shape {theirs.shape} and torch {tuple(ours.shape)}; not written."
                )
            scale = max(1.0, ours.abs().max().item())  # an untrained network may have maps of any size
            worst = max(worst, (ours - torch.from_numpy(theirs)).abs().max().item() / scale)
    if not worst <= ONNX_TOLERANCE:
        raise SsvidError(
            f"onnxruntime differs from the backbone by {worst:.1e}, more than {ONNX_TOLERANCE:.0e}; nothing was written. "
            "Use --format ssvid."
        )
    return worst
