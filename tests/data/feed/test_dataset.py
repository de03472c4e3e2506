"""Tickets to samples: one read per file, deterministic replacement, long footage in proportion to its duration."""

import shutil
import signal
import time

import numpy as np
import pytest
import torch

from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, collate, cut_segments, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.module import UnreadableReport
from ssvid.data.feed.sampler import BatchLayout, EvalBatches, TrainBatches
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.types import ClipPlan, Ticket
from tests.conftest import moving_square


class Window:
    """A clip maker that takes ``length`` consecutive frames at a random place and says where they were."""

    def __init__(self, length=4):
        self.min_frames = length

    def plan(self, video, rng, batch_rng):
        start = int(rng.integers(video.num_frames - self.min_frames + 1))
        return ClipPlan((np.arange(start, start + self.min_frames),), {"start": np.array(start)})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"clip": views_TCHW[0], "start": torch.from_numpy(plan.targets["start"])}


class DiesOnce(Window):
    """Kills its own worker process the first time it plans (a file marks that it did)."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def plan(self, video, rng, batch_rng):
        if video.path.endswith("07.mp4") and not self.marker.exists():
            self.marker.touch()
            import os

            os.kill(os.getpid(), signal.SIGKILL)
        return super().plan(video, rng, batch_rng)


def rows_of(folder):
    # moving_square(40 + i % 3) is what the fixture wrote
    return [VideoRow(p.name, 40 + int(p.stem) % 3, 25.0, 48, 64) for p in sorted(folder.glob("*.mp4"))]


@pytest.fixture
def dataset(video_folder):
    rows = rows_of(video_folder)
    return ClipDataset(Manifest(video_folder, tuple(rows)), rows, Window(), seed=1)


def test_a_sample_is_the_planned_frames_of_its_video(dataset):
    ticket = Ticket(0, 2, 0, 5)
    (sample,) = dataset[(ticket,)]
    start = int(sample["start"])
    truth = np.stack(moving_square(42, seed=5)[start : start + 4]).transpose(0, 3, 1, 2).astype(int)
    assert np.abs(sample["clip"].numpy().astype(int) - truth).mean() < 12  # H.264 at 4:2:0 is not lossless
    assert sample["tickets"].tolist() == [0, 2, 0, 5, 0, 0]


def test_clips_of_one_open_file_are_those_of_separate_opens(dataset):
    group = tuple(Ticket(0, 0, 0, 3, clip) for clip in range(3))
    together = dataset[group]
    for ticket, sample in zip(group, together, strict=True):
        (alone,) = dataset[(ticket,)]
        assert torch.equal(alone["clip"], sample["clip"])
    assert len({int(s["start"]) for s in together}) > 1


def test_unreadable_videos_are_replaced_alike_every_time_and_named(video_folder, tmp_path):
    shutil.copytree(video_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "05.mp4").write_bytes(b"not a video")
    rows = rows_of(tmp_path)
    dataset = ClipDataset(Manifest(tmp_path, tuple(rows)), rows, Window(), seed=1)
    (first,) = dataset[(Ticket(0, 0, 0, 5),)]
    (again,) = dataset[(Ticket(0, 0, 7, 5),)]
    assert torch.equal(first["clip"], again["clip"])
    assert first["tickets"].tolist() == [0, 0, 0, 5, 0, 1]  # attempt 1 stood in
    ((path, reason),) = first["unreadable"]
    assert path == "05.mp4"
    assert "05.mp4" in reason
    others = [int(dataset[(Ticket(0, epoch, 0, 5),)][0]["clip"].sum()) for epoch in range(6)]
    assert len(set(others)) > 1  # another epoch takes another stand-in
    assert collate([[first]])["unreadable"] == [(path, reason)]


def test_a_folder_of_garbage_ends_with_an_error_and_not_in_a_loop(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.mp4").write_bytes(b"garbage")
    rows = [VideoRow(f"{i}.mp4", 40, 25.0, 48, 64) for i in range(3)]
    dataset = ClipDataset(Manifest(tmp_path, tuple(rows)), rows, Window(), seed=1)
    with pytest.raises(DataError, match=r"11 videos in a row could not be read.*ssvid data index"):
        dataset[(Ticket(0, 0, 0, 0),)]


def test_more_unreadable_videos_than_the_limit_stop_the_run_with_the_list():
    report = UnreadableReport(200, 0.01)
    report.add([("a.mp4", "broken"), ("a.mp4", "broken"), ("b.mp4", "empty")])
    assert report.num_replaced == 3
    assert "a.mp4 (broken); b.mp4 (empty)" in report.summary()
    with pytest.raises(DataError) as caught:
        report.add([("c.mp4", "gone")])
    for text in ("3 of 200 videos", "1.5%", "max_unreadable_fraction (0.01)", "a.mp4: broken", "c.mp4: gone"):
        assert text in str(caught.value)


def test_long_footage_counts_in_proportion_to_its_duration():
    rows = [
        VideoRow("short", 250, 25.0, 48, 64),
        VideoRow("hour", 90_000, 25.0, 48, 64),
        VideoRow("tiny", 3, 25.0, 8, 8),
    ]
    segments = cut_segments(rows, 30.0, min_frames=16)
    per_row = [[s for s in segments if s.row == i] for i in range(3)]
    assert [len(p) for p in per_row] == [1, 120, 0]
    hour = per_row[1]
    assert hour[0].start_frame == 0
    assert all(a.start_frame + a.num_frames == b.start_frame for a, b in zip(hour, hour[1:], strict=False))
    assert hour[-1].start_frame + hour[-1].num_frames == 90_000


def test_segments_respect_the_window_of_a_row_and_its_frames():
    row = VideoRow("v", 1000, 10.0, 48, 64, start_frame=100, end_frame=700)
    segments = cut_segments([row], 20.0, min_frames=8)
    assert [(s.start_frame, s.num_frames) for s in segments] == [(100, 200), (300, 200), (500, 200)]


def test_a_windowed_row_decodes_frames_of_the_whole_file(video_folder):
    row = VideoRow("05.mp4", 42, 25.0, 48, 64, start_frame=30)
    whole = ClipDataset(Manifest(video_folder, ()), [VideoRow("05.mp4", 42, 25.0, 48, 64)], Window(42), seed=0)
    part = ClipDataset(Manifest(video_folder, ()), [row], Window(12), seed=0)
    (everything,), (tail,) = whole[(Ticket(0, 0, 0, 0),)], part[(Ticket(0, 0, 0, 0),)]
    assert torch.equal(tail["clip"], everything["clip"][30:])


def test_a_clip_longer_than_every_video_names_both_lengths(video_folder):
    rows = rows_of(video_folder)
    with pytest.raises(
        DataError,
        match=r"needs 64 frames of one video, the longest of 26 has 42. Have it take fewer frames by task.options",
    ):
        ClipDataset(Manifest(video_folder, tuple(rows)), rows, Window(64), seed=0)


def test_padding_has_no_weight(dataset):
    (sample,) = dataset[(Ticket(1, 0, 0, 3, 0, EvalBatches.PADDING),)]
    assert float(sample["weight"]) == 0.0
    assert float(dataset[(Ticket(1, 0, 0, 3),)][0]["weight"]) == 1.0


def test_loader_survives_the_death_of_a_worker_and_delivers_every_batch_once(video_folder, tmp_path):
    rows = rows_of(video_folder)
    dataset = ClipDataset(Manifest(video_folder, tuple(rows)), rows, DiesOnce(tmp_path / "died"), seed=1)
    batches = TrainBatches(26, BatchLayout(2), seed=1, position=lambda: (0, 0))
    loader = ClipLoader(dataset, batches, LoaderConfig(workers_per_device=2))
    with pytest.warns(UserWarning, match="a data worker died"):
        got = [[t.index for t in tickets_of(batch)] for batch in loader]
    assert got == [[g[0].index for g in groups] for groups in batches]


def test_a_worker_that_hangs_stops_the_run_with_the_file_and_a_way_out(video_folder):
    class Hangs(Window):
        def plan(self, video, rng, batch_rng):
            time.sleep(60)

    rows = rows_of(video_folder)
    dataset = ClipDataset(Manifest(video_folder, tuple(rows)), rows, Hangs(), seed=1)
    loader = ClipLoader(dataset, EvalBatches(2, 2), LoaderConfig(workers_per_device=1, timeout_seconds=0.5))
    with pytest.raises(
        DataError, match=r"worker was late: it hangs, or is only slow .*00.mp4.*timeout_seconds \(now 0.5;"
    ):
        list(loader)
