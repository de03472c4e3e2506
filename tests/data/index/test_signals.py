"""Signals of a manifest: measured once, found by content, cut to the stretch that a plan sees."""

import shutil

import numpy as np
import pytest
import torch

from ssvid.composite import CompositeClips
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.index.signals import (
    check_signals,
    load_signals,
    measure_signals_of,
    signals_base,
    still_signals,
)
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.types import ClipPlan, Ticket
from ssvid.video import content_id, measure_signals, write_video
from ssvid.video.motion import signal_file, write_signals
from tests.conftest import moving_square

BOTH = ("motion", "thumbnails")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def manifest(tmp_path, cache):
    """Three videos, the third a copy of the first. Not scanned: starting a process for it takes seconds."""
    root = tmp_path / "videos"
    for i in range(2):
        write_video(root / f"{i}.mp4", moving_square(12 + i, seed=i), fps=25)
    shutil.copy(root / "0.mp4", root / "copy.mp4")
    rows = [
        VideoRow(name, frames, 25.0, 48, 64, decoders_ok=("pyav",), content_id=content_id(root / name))
        for name, frames in (("0.mp4", 12), ("1.mp4", 13), ("copy.mp4", 12))
    ]
    return Manifest(root, tuple(rows))


def test_each_content_is_measured_once_and_remembered(manifest, cache):
    seen = []
    report = measure_signals_of(manifest, workers=2, progress=lambda *step: seen.append(step))
    assert (report.num_measured, report.num_remembered, report.failed) == (2, 0, {})
    assert sorted(done for done, _, _ in seen) == [1, 2] and {total for _, total, _ in seen} == {2}
    assert len(list(cache.rglob("*.npy"))) == 4
    for row in manifest.rows:
        own = measure_signals(manifest.path_of(row))
        loaded = load_signals(manifest.root, row, BOTH, 0, row.num_frames)
        assert all(np.array_equal(loaded[name], own[name]) for name in BOTH)
    check_signals(manifest.root, manifest.rows, BOTH)

    again = measure_signals_of(manifest, workers=1)
    assert (again.num_measured, again.num_remembered) == (0, 2)


def test_files_that_cannot_be_measured_are_listed_and_the_others_are_kept(manifest):
    changed = manifest.path_of(manifest.rows[1])
    changed.write_bytes(changed.read_bytes() + b"more")
    first = manifest.rows[0]
    write_signals(signals_base(first), measure_signals(manifest.path_of(first)))  # as if interrupted after it
    report = measure_signals_of(manifest, workers=1, progress=lambda done, total, path: None)
    assert (report.num_measured, report.num_remembered) == (0, 1)
    assert report.failed == {"1.mp4": "it changed since it was indexed"}
    with pytest.raises(
        DataError, match=r"not measured in 1 of 3 videos, the first is '1.mp4'.*index .*videos --motion"
    ):
        check_signals(manifest.root, manifest.rows, BOTH)


def test_nothing_measurable_is_an_error(manifest):
    for row in manifest.rows:
        manifest.path_of(row).unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"in none of the 2 files .*, the first is 0.mp4: .*FileNotFoundError"):
        measure_signals_of(manifest, workers=1)


def row_with(values, **fields):
    """A row whose signals are known, without a file."""
    row = VideoRow("v.mp4", len(values), 25.0, 48, 64, content_id="cd" * 16, **fields)
    thumbnails = (
        np.zeros((len(values), 16, 16, 3), np.uint8) + np.arange(len(values), dtype=np.uint8)[:, None, None, None]
    )
    write_signals(signals_base(row), {"motion": np.array(values, np.float32), "thumbnails": thumbnails})
    return row


def test_a_stretch_has_its_own_signals(cache):
    row = row_with([0, 1, 2, 4, 8, 16, 32, 64])
    loaded = load_signals("root", row, BOTH, 2, 4)
    assert loaded["motion"].tolist() == [0, 4, 8, 16]  # into its first frame nothing has moved
    assert loaded["thumbnails"][:, 0, 0, 0].tolist() == [2, 3, 4, 5]
    assert load_signals("root", row, BOTH, 0, 8)["motion"].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    every_third = load_signals("root", row, BOTH, 0, 8, frame_step=3)
    assert every_third["motion"].tolist() == [0, 1 + 2 + 4, 8 + 16 + 32]
    assert every_third["thumbnails"][:, 0, 0, 0].tolist() == [0, 3, 6]


def test_mistakes_are_told(cache):
    row = row_with([0, 1, 2])
    with pytest.raises(DataError, match=r"signal 'flow' is asked for and never measured"):
        check_signals("root", [row], ("flow",))
    with pytest.raises(DataError, match=r"no content_id of 'v.mp4'.*ssvid data index ROOT --overwrite"):
        check_signals("root", [VideoRow("v.mp4", 3, 25.0, 48, 64)], BOTH)
    longer = VideoRow("v.mp4", 4, 25.0, 48, 64, content_id=row.content_id)
    with pytest.raises(DataError, match=r"holds float32 \(3,\), and 4 frames have .*--motion --no-cache"):
        load_signals("root", longer, BOTH, 0, 4)
    signal_file(signals_base(row), "thumbnails").unlink()
    with pytest.raises(DataError, match=r"motion and thumbnails of each video, which were not measured in 'v.mp4'"):
        load_signals("root", row, BOTH, 0, 3)


def test_signals_of_a_video_without_a_file_have_the_right_shapes():
    made = still_signals(BOTH, 5)
    assert made["motion"].shape == (5,) and made["motion"].dtype == np.float32
    assert made["thumbnails"].shape == (5, 16, 16, 3) and made["thumbnails"].dtype == np.uint8
    assert still_signals((), 5) == {}


class Liveliest:
    """Takes the frame with the most motion."""

    min_frames = 4
    signals = ("motion",)

    def plan(self, video, rng, batch_rng):
        if set(video.signals) != {"motion"} or len(video.signals["motion"]) != video.num_frames:
            raise AssertionError(f"wrong signals: {video.signals}")
        return ClipPlan((np.array([int(np.argmax(video.signals["motion"]))]),), {})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"frame": views_TCHW[0], "number": torch.tensor(int(plan.views[0][0]))}


def test_a_plan_sees_the_signals_of_its_segment(manifest):
    with pytest.raises(DataError, match=r"not measured in 3 of 3 videos.*ssvid data index .*videos --motion"):
        ClipDataset(manifest, manifest.rows, Liveliest(), seed=0)
    for row in manifest.rows:
        write_signals(signals_base(row), measure_signals(manifest.path_of(row)))
    whole = manifest.rows[1]
    window = VideoRow(**{**vars(whole), "start_frame": 3, "end_frame": 10})
    dataset = ClipDataset(Manifest(manifest.root, ()), [whole, window], Liveliest(), seed=0)
    motion = measure_signals(manifest.path_of(whole))["motion"]
    (sample,), (part,) = dataset[(Ticket(0, 0, 0, 0),)], dataset[(Ticket(0, 0, 0, 1),)]
    assert int(sample["number"]) == int(np.argmax(motion))
    assert int(part["number"]) == int(np.argmax(motion[4:10])) + 1


def test_several_tasks_ask_for_what_any_of_them_needs():
    class Looks(Liveliest):
        signals = ("thumbnails", "motion")

    class Blind:
        min_frames = 4

    makers = {"one": Liveliest(), "two": Blind(), "three": Looks()}
    assert CompositeClips(makers).signals == ("motion", "thumbnails")
    assert CompositeClips({"two": Blind()}).signals == ()
