"""Flow of a table's videos: measured once, found again, gone on with after a kill, refused where it is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssvid.classifiers.classification import TrainingClips
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.cli import main
from ssvid.data.collection import load_manifest
from ssvid.data.config import DataConfig, LoaderConfig
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import BatchLayout, TrainBatches
from ssvid.data.index.building import build_manifest
from ssvid.data.index.flow import as_flow, kept_flow, measure_flow_of
from ssvid.data.index.places import failure_path, flow_path
from ssvid.data.manifest import Manifest
from ssvid.data.readers import list_videos
from ssvid.errors import DataError, DecodeError
from ssvid.video import write_video
from ssvid.video.flow import FlowSettings
from tests.conftest import moving_square

SETTINGS = FlowSettings(short_side_px=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Five short videos, one of them a copy, and the table of them."""
    root = tmp_path_factory.mktemp("flow-videos")
    for i in range(4):
        write_video(root / f"{i}.mp4", moving_square(12 + i, seed=i), fps=25)
    (root / "copy.mp4").write_bytes((root / "0.mp4").read_bytes())
    manifest = build_manifest(root, list_videos("folder", root), workers=1)
    manifest.save(root / "manifest.csv")
    return manifest


@pytest.fixture(scope="module")
def measured(videos: Manifest) -> Manifest:
    """The same, read as flow."""
    measure_flow_of(videos, SETTINGS, workers=1)
    return as_flow(videos, SETTINGS)


def test_each_content_is_measured_once(measured: Manifest, videos: Manifest) -> None:
    again = measure_flow_of(videos, SETTINGS, workers=1)
    assert (again.num_measured, again.num_remembered, again.failed) == (0, 4, {})
    kept = kept_flow(videos, SETTINGS)
    assert (kept.num_files, kept.num_frames) == (4, 12 + 13 + 14 + 15)
    same = [flow_path(row, SETTINGS) for row in videos.rows if row.path in ("0.mp4", "copy.mp4")]
    assert same[0] == same[1]


def test_a_row_of_flow_opens_as_many_frames_of_two_channels(measured: Manifest) -> None:
    for row in measured.rows:
        info = row.video_info(measured.root)
        assert (info.channels, info.num_frames, min(info.height, info.width)) == (2, row.num_frames, 32)
        with row.open(measured.root) as reader:
            frames = reader.frames_at(np.array([0, row.num_frames - 1]))
        assert frames.shape == (2, 2, info.height, info.width)
        assert frames.dtype == torch.uint8


def test_a_table_of_flow_is_another_data_set_and_survives_its_file(
    measured: Manifest, videos: Manifest, tmp_path: Path
) -> None:
    centered = as_flow(videos, replace(SETTINGS, subtract_mean=True))
    assert len({videos.sha256(), measured.sha256(), centered.sha256()}) == 3
    measured.save(tmp_path / "m.csv")
    assert Manifest.load(tmp_path / "m.csv", measured.root) == measured
    text = (tmp_path / "m.csv").read_text().replace("dis-32px-2.5", "dis-32px")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=r"flow \('dis-32px'\) must name a measurement"):
        Manifest.load(tmp_path / "m.csv", measured.root)


def test_flow_that_was_not_measured_is_refused_with_the_command_that_measures_it(videos: Manifest, capsys) -> None:
    other = FlowSettings(short_side_px=40, bound_px=3.5)
    config = DataConfig(name="manifest", root=str(videos.root), modality="flow", flow=other)
    with pytest.raises(
        DataError, match=r"of 5 of 5 videos there is none of dis-40px-3.5, the first is '0.mp4'"
    ) as refused:
        load_manifest(config)
    command = str(refused.value).rpartition("Measure once with: ")[2].rstrip(".")
    assert command == f"ssvid data flow {videos.root} --short-side 40 --bound 3.5"
    assert main([*command.split()[1:], "--workers", "1"]) == 0  # what is advised works
    assert "flow: measured in 4 files" in capsys.readouterr().out
    assert {row.flow for row in load_manifest(config).rows} == {"dis-40px-3.5"}


def test_a_file_that_fails_is_listed_noted_down_and_read_as_unreadable(videos: Manifest, tmp_path: Path) -> None:
    for name in ("0.mp4", "1.mp4"):
        (tmp_path / name).write_bytes((videos.root / name).read_bytes())
    manifest = Manifest(tmp_path, tuple(row for row in videos.rows if row.path in ("0.mp4", "1.mp4")))
    own = FlowSettings(short_side_px=24)
    (tmp_path / "1.mp4").write_bytes(b"another file")
    report = measure_flow_of(manifest, own, workers=1)
    assert (report.num_measured, report.failed) == (1, {"1.mp4": "it changed since it was indexed"})
    row = as_flow(manifest, own).rows[1]
    with pytest.raises(DecodeError, match="its flow could not be measured: it changed since"):
        row.open(tmp_path)
    assert failure_path(flow_path(row, own)).is_file()
    with pytest.raises(DataError, match="flow could be measured in none of the 1 files"):
        measure_flow_of(manifest.with_rows([row]), own, workers=1)


def is_alive(temporary: Path) -> bool:
    """Whether the process that writes a temporary file is there."""
    try:
        os.kill(int(temporary.name.split(".")[-2]), 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_done_stays_done_when_the_command_is_killed(videos: Manifest) -> None:
    own = FlowSettings(short_side_px=480)  # slow enough to be caught
    command = [sys.executable, "-m", "ssvid", "data", "flow", str(videos.root), "--short-side", "480", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    wanted = {flow_path(row, own) for row in videos.rows}
    until = time.monotonic() + 120
    while not any(path.is_file() for path in wanted) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path for path in wanted if path.is_file()}
    assert done
    folders = {path.parent for path in wanted}
    while any(is_alive(path) for folder in folders for path in folder.glob(".*.tmp")):
        assert time.monotonic() < until, "what a killed command had started goes on"
        time.sleep(0.1)
    report = measure_flow_of(videos, own, workers=1)
    assert (report.num_measured + report.num_remembered, report.failed) == (4, {})
    assert report.num_remembered >= len(done)
    assert all(path.is_file() for path in wanted)
    for row in as_flow(videos, own).rows:
        with row.open(videos.root) as reader:
            reader.frames_at(np.arange(row.num_frames))
    assert not [path for folder in folders for path in folder.glob(".*")], "nothing half written is left"


def batches(manifest: Manifest, workers: int) -> list[dict[str, torch.Tensor]]:
    protocol = FinetuneProtocol(num_frames=4, crop_px=24, resize_px=28)
    data = ClipDataset(manifest, manifest.rows, TrainingClips(protocol), seed=3)
    loader = LoaderConfig(global_batch=2, workers_per_device=workers)
    order = TrainBatches(len(data), BatchLayout(2, 1, 1, 1), seed=3, rank=0, position=lambda: (0, 0))
    return list(ClipLoader(data, order, loader))


def test_batches_of_flow_are_the_same_for_any_number_of_workers(measured: Manifest) -> None:
    alone, helped = batches(measured, 0), batches(measured, 1)
    assert len(alone) == len(helped) == 2
    for one, other in zip(alone, helped, strict=True):
        assert one["clips"].shape == (2, 4, 2, 24, 24)
        assert torch.equal(one["clips"], other["clips"])
        assert torch.equal(one["tickets"], other["tickets"])


def test_the_verb_tells_what_it_did_and_draws(videos: Manifest, measured: Manifest, tmp_path: Path, capsys) -> None:
    picture = tmp_path / "flow.png"
    assert (
        main(["data", "flow", str(videos.root), "--short-side", "32", "--workers", "1", "--picture", str(picture)]) == 0
    )
    told = capsys.readouterr().out
    assert "flow: measured in 0 files" in told and "remembered of 4" in told
    assert "of 54 frames" in told and "dis-32px-2.5" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
    for words, problem in (
        ([str(videos.root), "--picture", "x.jpg"], "must name a file that ends in .png"),
        ([str(tmp_path / "none")], "must be a folder of videos"),
        ([str(videos.root), "--method", "farneback"], "farneback"),
        ([str(videos.root), "--table", "t.csv", "--reader", "folder"], "both say which videos are meant"),
    ):
        assert main(["data", "flow", *words]) == 2
        assert problem in " ".join(capsys.readouterr().err.split())
