"""A run that starts from other weights: what it prints, stores and hands on to checkpoints, exports and results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import ssvid
from ssvid.data.collection import load_manifest
from ssvid.data.config import DataConfig
from ssvid.errors import CheckpointError, RecipeError
from ssvid.exports import export, load_backbone, read_weights
from ssvid.results.leaks import leak_note
from ssvid.weights.checkpoints import read_checkpoint, weights_sha256

QUICK = [
    "backbone={name: tiny3d, options: {width: 2}}",
    "task.options={num_frames: 6, frame_px: 32, min_px: 16, max_px: 32, eval_px: 24}",
    "optim={epochs: 1, warmup_epochs: 0, base_lr: 1e-9}",
    "loader={global_batch: 4, workers_per_device: 0}",
    "trainer={accelerator: cpu, max_steps: 1, pictures: false}",
    "data.index_workers=1",
]
ROOT = Path(__file__).resolve().parents[2]


def run(videos: Path, folder: Path, *overrides: str, **options: Any) -> Any:
    return ssvid.pretrain(
        "pretrain/speediness_tiny", f"data.root={videos}", *QUICK, *overrides, run_dir=folder, **options
    )


@pytest.fixture(scope="module")
def videos(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders with different videos: half of the session's each."""
    files = sorted(p for p in video_folder.rglob("*") if p.suffix in (".mp4", ".avi", ".mkv"))
    folders = []
    for i in range(2):
        folder = tmp_path_factory.mktemp(f"videos{i}")
        for file in files[i::2]:
            shutil.copy(file, folder / file.name)
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def first(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "run"
    run(videos[0], folder, show_progress=False)
    return folder


@pytest.fixture(scope="module")
def second(videos: list[Path], first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Started from a copy of the first run that is gone afterwards."""
    parent = tmp_path_factory.mktemp("second")
    shutil.copytree(first, parent / "somebodys_start")
    run(videos[1], parent / "run", f"init_from={parent / 'somebodys_start'}", show_progress=False)
    shutil.rmtree(parent / "somebodys_start")
    return parent / "run"


def test_the_start_is_on_record_everywhere(first: Path, second: Path) -> None:
    sha256 = weights_sha256(read_weights(first))
    stored = [json.loads((second / name).read_text())["init"] for name in ("env.json", "results.json")]
    for init in (*stored, read_checkpoint(second / "checkpoints" / "last.ckpt").meta["init"]):
        assert (init["from"], init["sha256"], init["partial"]) == ("run", sha256, False)
        assert init["counts"]["matched"] == 24
        assert sum(init["matched_by_stage"].values()) == 24
    assert "init" not in json.loads((first / "env.json").read_text())
    assert read_checkpoint(first / "checkpoints" / "last.ckpt").meta["init"] is None


def test_weights_have_seen_what_their_start_had_seen(first: Path, second: Path, videos: list[Path]) -> None:
    seen, both = (set(load_backbone(path).provenance["content_ids"]) for path in (first, second))
    assert seen < both
    manifest = load_manifest(DataConfig(root=str(videos[0]), index_workers=1))
    trained_on = [row for row in manifest.rows if row.content_id in seen]
    note = leak_note(trained_on, [], load_backbone(second).provenance)
    assert note["pretrained_on_test"] == len(trained_on) > 0, "a test video of the first run is a leak of the second"


def test_a_run_goes_on_although_its_start_is_gone(second: Path, tmp_path: Path, videos: list[Path]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(second, folder)
    before = read_checkpoint(folder / "checkpoints" / "last.ckpt").meta
    longer = ("trainer.max_steps=2", "optim.epochs=2")
    ssvid.pretrain(str(folder / "recipe.resolved.yaml"), *longer, run_dir=folder, resume=True, show_progress=False)
    after = read_checkpoint(folder / "checkpoints" / "last.ckpt").meta
    assert (before["global_step"], after["global_step"]) == (1, 2)
    assert after["init"] == before["init"]
    assert after["data"]["content_ids"] == before["data"]["content_ids"]


def test_an_export_tells_the_start_and_no_path(second: Path, tmp_path: Path) -> None:
    export(second, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["provenance"]["init"]["from"] == "run"
    assert config["provenance"]["recipe"]["init_from"] == "???"
    assert "- started from: run (hash " in (tmp_path / "out" / "README.md").read_text()
    assert load_backbone(tmp_path / "out").provenance["init"]["counts"]["matched"] == 24
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 5
    told = [str(second.parent), "somebodys_start", str(ROOT), str(Path.home())]
    for file in files:
        content = file.read_bytes()
        assert not [path for path in told if path.encode() in content], f"{file.name} tells where files lie"


def test_a_partial_start_is_said_and_stays(
    first: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {k: v for k, v in read_weights(first).items() if not k.startswith("stage4")}
    torch.save({"model": state}, tmp_path / "less.pth")
    start = f"init_from={tmp_path / 'less.pth'}"
    with pytest.raises(CheckpointError, match="init_partial=true"):
        run(videos[1], tmp_path / "run", start, show_progress=False)
    assert not (tmp_path / "run").exists()
    run(videos[1], tmp_path / "run", start, "init_partial=true")
    err = capsys.readouterr().err
    for text in ("taken from file less.pth", "took key 'model'", "missing       5  stage4.0.weight", "PARTIAL"):
        assert text in err
    export(tmp_path / "run", tmp_path / "out")
    for path in (tmp_path / "run", tmp_path / "out"):
        assert load_backbone(path).provenance["partial"] is True
        assert load_backbone(path).provenance["init"]["unknown_videos"] is True
    assert "(partial)" in (tmp_path / "out" / "README.md").read_text()


def test_keys_that_do_nothing_without_a_start_are_refused(videos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"init_inflate \(True\) does nothing without init_from"):
        run(videos[0], tmp_path / "run", "init_inflate=true", show_progress=False)
