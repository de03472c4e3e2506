"""ONNX: onnxruntime gives the backbone's maps at any size, the file says what it is, and nothing wrong is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.errors import SsvidError
from ssvid.exports import export, onnx_file
from tests.weights.test_checkpoints import content_of


def checkpoint(folder: Path, name: str, **options: Any) -> tuple[Path, Backbone]:
    backbone = initialize_backbone(name, options, seed=2).eval()
    torch.save(content_of(backbone), folder / "last.ckpt")
    return folder / "last.ckpt", backbone


@pytest.mark.parametrize(
    ("name", "options"), [("tiny3d", {"width": 4}), pytest.param("r3d_18", {}, marks=pytest.mark.slow)]
)
def test_onnxruntime_gives_the_maps_at_other_sizes(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, backbone = checkpoint(tmp_path, name, **options)
    report = export(path, tmp_path / "out.onnx", format="onnx")
    assert "dynamic: batch, frames, height, width" in str(report)
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["map", "vector"]
    assert session.get_inputs()[0].shape == ["batch", 3, "frames", "height", "width"]
    assert [o.shape[0] for o in session.get_outputs()] == ["batch", "batch"]
    for shape in ((1, 3, 11, 40, 52), (3, 3, 16, 33, 33)):
        clip = torch.rand(shape)
        map_, vector = session.run(None, {"clip": clip.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(map_), backbone(clip), atol=1e-4, rtol=0)
            torch.testing.assert_close(torch.from_numpy(vector), backbone.embed(clip), atol=1e-4, rtol=0)
    model = onnx.load(tmp_path / "out.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["ssvid.backbone"] == name
    assert said["ssvid.weights_sha256"] == report.weights_sha256
    assert said["ssvid.stage"] == backbone.info.stages[-1].name
    assert "inside the graph" in said["ssvid.normalization"]
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [onnx_file.OPSET]
    content = (tmp_path / "out.onnx").read_bytes()
    told = [str(tmp_path), str(Path(__file__).resolve().parents[2]), str(Path(torch.__file__).parent)]
    assert not [path for path in told if path.encode() in content], "the file tells where its maker keeps files"
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "out.onnx"}, "one file, nothing left behind"


@pytest.mark.slow
def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in onnx_file.PACKAGES:
        pytest.importorskip(package)
    path, _ = checkpoint(tmp_path, "tiny3d", width=2)
    monkeypatch.setattr(onnx_file, "ONNX_TOLERANCE", -1.0)
    with pytest.raises(SsvidError, match=r"differs from the backbone by .*nothing was written"):
        export(path, tmp_path / "out.onnx", format="onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt"}


def test_refusals_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = checkpoint(tmp_path, "tiny3d", width=2)
    with pytest.raises(SsvidError, match=r"must end in \.onnx"):
        export(path, tmp_path / "out", format="onnx")
    monkeypatch.setattr(onnx_file, "PACKAGES", ("torch", "onnx_that_is_absent"))
    with pytest.raises(SsvidError, match=r"needs onnx_that_is_absent.*pip install 'ssvid\[onnx\]'"):
        export(path, tmp_path / "out.onnx", format="onnx")
