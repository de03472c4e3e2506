"""Files that fail while a run goes on: in training another stands in, in a measurement nothing does, and the right one is named."""

import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

import ssvid
from ssvid.composite import CompositeClips
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.types import Stream, Ticket
from tests.data.test_cuts import Whole

BROKEN = ("02.mp4", "04.mp4")
VAL, TRAIN = int(Stream.VAL), int(Stream.TRAIN)


@pytest.fixture(params=["garbage", "deleted", "folder in its place"])
def folder(request, video_folder, tmp_path):
    """Six videos, two of which were spoilt after they were indexed."""
    for number in range(6):
        shutil.copy(video_folder / f"{number:02d}.mp4", tmp_path)
    for name in BROKEN:
        (tmp_path / name).unlink()
        if request.param == "garbage":
            (tmp_path / name).write_bytes(b"not a video")
        elif request.param != "deleted":
            (tmp_path / name).mkdir()
    return tmp_path


def dataset_of(root, maker):
    rows = [VideoRow(f"{number:02d}.mp4", 40 + number % 3, 25.0, 48, 64) for number in range(6)]
    return ClipDataset(Manifest(root, tuple(rows)), rows, maker, seed=1)


def two_videos():
    return CompositeClips({"a": Whole(), "b": Whole()}, own_videos=True)


def test_an_unreadable_held_out_video_counts_for_nothing_and_none_stands_in(folder):
    dataset = dataset_of(folder, Whole())
    samples = [dataset[(Ticket(VAL, 0, 0, number),)][0] for number in range(6)]
    assert [float(sample["weight"]) for sample in samples] == [1, 1, 0, 1, 0, 1]
    assert [[path for path, _ in sample["unreadable"]] for sample in samples] == [
        [],
        [],
        ["02.mp4"],
        [],
        ["04.mp4"],
        [],
    ]
    assert all(bool(sample["first"].any()) == bool(sample["weight"]) for sample in samples)
    assert [sample["tickets"][3:].tolist() for sample in samples] == [[number, 0, 0] for number in range(6)]


def test_the_same_video_is_replaced_in_training(folder):
    (sample,) = dataset_of(folder, Whole())[(Ticket(TRAIN, 0, 0, 2),)]
    assert float(sample["weight"]) == 1 and sample["first"].any()
    assert "02.mp4" in dict(sample["unreadable"])


def test_the_clip_that_an_idle_rank_is_handed_may_be_unreadable_too(folder):
    (sample,) = dataset_of(folder, Whole())[(Ticket(VAL, 0, 0, 4, 0, -1),)]
    assert float(sample["weight"]) == 0


@pytest.mark.parametrize("is_relative", [True, False])
@pytest.mark.parametrize("stream", [VAL, TRAIN])
def test_of_several_videos_of_a_sample_the_one_that_failed_is_named(stream, is_relative, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    dataset = dataset_of(Path(folder.name) if is_relative else folder, two_videos())
    shift = dataset.shift(1, stream, 0)
    hit = 0
    for number in range(6):
        (sample,) = dataset[(Ticket(stream, 0, 0, number),)]
        pair = {f"{number:02d}.mp4", f"{(number + shift) % 6:02d}.mp4"}
        failed = [path for path, _ in sample["unreadable"]]
        assert bool(failed) == bool(pair & set(BROKEN))
        assert set(failed) <= set(BROKEN) and (not failed or failed[0] in pair)
        assert float(sample["weight"]) == (0.0 if failed and stream == VAL else 1.0)
        hit += bool(failed)
    assert 2 <= hit <= 4


class SpoilHeldOut(pl.Callback):
    """Deletes some of the held-out videos when training begins."""

    def __init__(self, most):
        self.most, self.deleted = most, []

    def on_train_start(self, trainer, pl_module):
        dataset = trainer.datamodule.val_set
        self.deleted = [row.path for row in dataset.rows][: self.most]
        for path in self.deleted:
            (Path(dataset.manifest.root) / path).unlink()


@pytest.mark.parametrize("most", [2, 99])
def test_a_run_whose_held_out_videos_vanish_says_so_and_measures_the_rest(most, video_folder, tmp_path, capsys):
    shutil.copytree(video_folder, tmp_path / "videos")
    rows = (VideoRow(f"{number:02d}.mp4", 40 + number % 3, 25.0, 48, 64) for number in range(26))
    Manifest(tmp_path / "videos", tuple(rows)).save(tmp_path / "videos" / "manifest.csv")
    spoil = SpoilHeldOut(most)
    result = ssvid.pretrain(
        "smoke/speediness",
        f"data.root={tmp_path / 'videos'}",
        "data.val_fraction=0.2",
        "backbone={name: tiny3d, options: {width: 2}}",
        "task.options={num_frames: 6, frame_px: 32, min_px: 16, max_px: 32, eval_px: 24}",
        "loader={global_batch: 4, workers_per_device: 0}",
        "optim={epochs: 1, warmup_epochs: 0}",
        "trainer.accelerator=cpu",
        run_dir=tmp_path / "run",
        callbacks=[spoil],
    )
    num_held_out = result.num_held_out
    assert num_held_out > 2 and spoil.deleted
    assert set(result.unreadable) == set(spoil.deleted)
    assert result.num_measured == num_held_out - len(spoil.deleted)
    assert f"unreadable held-out videos: {len(spoil.deleted)}, which are not in the metrics" in capsys.readouterr().err
    assert ("accuracy" in result.metrics) == (most == 2)
    assert all(torch.isfinite(torch.tensor(value)) for value in result.metrics.values())
