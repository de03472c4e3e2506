"""A run that waits for its data says why, and what would help."""

from types import SimpleNamespace

import pytest

import ssvid.train.progress as progress_module
from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.feed.module import ClipDataModule
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.train.progress import ShowProgress
from ssvid.train.waiting import Footage, look_at, waiting_text
from ssvid.video import write_video
from tests.conftest import moving_square
from tests.data.test_cuts import Whole
from tests.video.clocked import clock_frames, encode

EASY = Footage(240, 320, 12)


@pytest.mark.parametrize(
    ("footage", "loader", "cores", "told"),
    [
        (EASY, {"workers_per_device": 0}, 2, ["in the training process itself", "loader.workers_per_device=1;"]),
        (EASY, {"workers_per_device": 1}, 2, ["1 reading process on 2 cores;", "loader.workers_per_device=2;"]),
        (EASY, {"workers_per_device": 2}, 2, ["2 reading processes on 2 cores, so more of them do not help"]),
        (EASY, {"clips_per_video": 1}, 2, ["one clip is taken of each opened file", "loader.clips_per_video=4"]),
        (EASY, {"clips_per_video": 2}, 8, ["2 clips are taken of each opened file", "loader.workers_per_device=8;"]),
        (Footage(240, 320, 250), {}, 2, ["one key frame in 250 frames: about 125 are decoded", "-g 12 OUT.mp4"]),
        (Footage(720, 1280, 12), {}, 2, ["frames have 1280 x 720 pixels", "scale=-2:256"]),
        (Footage(1280, 720, 12), {}, 2, ["frames have 720 x 1280 pixels", "scale=-2:256"]),
        (Footage(240, 320, 12, "a/b.vob"), {}, 2, ["files such as a/b.vob", "from the file's start", "ffmpeg -i IN -c:v libx264"]),
        (EASY, {"clips_per_video": 4}, 2, ["so more of them do not help. What helps: faster cores, or more of them."]),
    ],
)  # fmt: skip
def test_the_likely_cause_and_the_way_out_are_named(footage, loader, cores, told):
    text = waiting_text(0.88, footage, LoaderConfig(**loader), cores=cores)
    assert text.startswith("the run waits for data 88% of its time. Likely why: ")
    for words in told:
        assert words in text


def test_what_is_not_the_cause_is_not_named():
    text = waiting_text(0.6, EASY, LoaderConfig(clips_per_video=4), cores=2)
    assert not any(words in text for words in ("key frame", "pixels", "start", "clips_per_video"))


def test_the_footage_is_looked_at_without_decoding(tmp_path):
    write_video(tmp_path / "0.mp4", moving_square(120), fps=25, gop=60)
    write_video(tmp_path / "1.mp4", moving_square(120), fps=25, gop=60)
    encode(tmp_path / "2.h264", clock_frames(120), b_frames=2)
    rows = [VideoRow(f"{i}.mp4", 120, 25.0, 48, 64, decoders_ok=("pyav",)) for i in range(2)]
    rows += [VideoRow("2.h264", 120, 25.0, 64, 96, decoders_ok=("pyav",)), VideoRow("gone.mp4", 9, 25.0, 48, 64)]
    (tmp_path / "broken.mp4").write_bytes(bytes(5000))  # since it was indexed: no reason to end the run
    rows.append(VideoRow("broken.mp4", 120, 25.0, 48, 64, decoders_ok=("pyav",)))
    assert look_at(ClipDataset(Manifest(tmp_path, tuple(rows)), rows, Whole(), seed=0)) == Footage(48, 64, 60, "2.h264")


def test_a_video_that_broke_since_it_was_indexed_does_not_end_the_run_that_waits_for_it(tmp_path):
    write_video(tmp_path / "0.mp4", moving_square(120), fps=25, gop=60)
    (tmp_path / "1.mp4").write_bytes(bytes(1000))
    rows = [VideoRow(f"{i}.mp4", 120, 25.0, 48, 64, decoders_ok=("pyav",)) for i in range(2)]
    assert look_at(ClipDataset(Manifest(tmp_path, tuple(rows)), rows, Whole(), seed=0)) == Footage(48, 64, 60)


class Clock:
    """Time that passes only where it is told to."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("waits", "works", "steps", "is_told"), [(3, 1, 4, True), (1, 3, 9, False), (0.3, 0.1, 4, False)]
)
def test_a_run_that_waits_says_so_once(waits, works, steps, is_told, tmp_path, monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    write_video(tmp_path / "0.mp4", moving_square(40), fps=25)
    rows = [VideoRow("0.mp4", 40, 25.0, 48, 64)]
    data = ClipDataModule.__new__(ClipDataModule)
    data.train_set = ClipDataset(Manifest(tmp_path, tuple(rows)), rows, Whole(), seed=0)
    data.loader = LoaderConfig()
    trainer = SimpleNamespace(
        datamodule=data, num_devices=1, loggers=[], callback_metrics={}, accumulate_grad_batches=1, global_step=0,
        estimated_stepping_batches=steps, current_epoch=0, max_epochs=1, is_global_zero=True,
    )  # fmt: skip
    callback = ShowProgress({}, 4, every_steps=1)
    callback.on_train_start(trainer, None)
    for _ in range(steps):
        clock.now += waits
        callback.on_train_batch_start(trainer, None, None, 0)
        clock.now += works
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, None, None, None, 0)
    callback.on_train_end(trainer, None)
    told = capsys.readouterr().err
    assert told.count("the run waits for data") == is_told
    assert told.count("waiting for data") == steps
