"""Frames are cut while they are decoded: the same pixels as of whole frames, and no whole frame is kept."""

import tracemalloc

import numpy as np
import pytest
import torch

from ssvid.backbones import create_backbone
from ssvid.composite import CompositeClips
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.tasks import tasks
from ssvid.transforms import Cut, CutFirst, Cuts, Cutter, crop_squares, cut_view
from ssvid.types import ClipPlan, Ticket, VideoInfo, batch_rng, sample_rng
from ssvid.video import open_video, read_clips, write_video
from ssvid.video.decoders.contract import VideoReader
from tests.conftest import moving_square

OFF = {"motion_power": 0, "lookalike_rms": 0}
CASES = [
    ("speediness", {}),
    ("speediness", {"crop": "whole"}),
    ("speediness", {"frame_px": 48}),  # the short side of the frames: nothing is resampled in validation
    ("speediness", {"frame_px": 80, "crop_scale": 0.5}),
    ("order_verification", OFF),
    ("order_verification", OFF | {"crop": "random"}),
    ("colorization", {"frame_px": 32}),
    ("colorization", {"frame_px": 32, "frame_shift": 0.3}),
    ("clip_order", {"frame_px": 32}),
    ("frame_sorting", {"frame_px": 32}),
    ("cycle_consistency", {"motion_power": 0}),
    ("cycle_consistency", {"motion_power": 0, "frame_shift": 0.3}),
    ("random_walk", {"frame_px": 32}),
    ("dense_prediction", {"frame_px": 32}),
]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Two videos of 90 frames, 48 x 64 pixels."""
    folder = tmp_path_factory.mktemp("footage")
    for number in range(2):
        write_video(folder / f"{number}.mp4", moving_square(90, seed=number), fps=25)
    return folder


def make(name, options):
    task = tasks.get(name)
    small = {"num_frames": 8} if name == "speediness" else {}
    return task(task.Config(**(small | options)), create_backbone("tiny3d").info)


def dataset_of(folder, maker):
    rows = [VideoRow(f"{number}.mp4", 90, 25.0, 48, 64) for number in range(2)]
    return ClipDataset(Manifest(folder, tuple(rows)), rows, maker, seed=1)


def of_whole_frames(dataset, ticket):
    """The sample as ``transform`` makes it of whole frames that were read before."""
    info, maker = dataset.video_info(ticket.index), dataset.clip_maker
    draws = sample_rng(dataset.seed, ticket), batch_rng(dataset.seed, ticket)
    plan = maker.plan(info, *draws)
    with open_video(info.path, "pyav", info=info) as reader:
        return maker.transform(tuple(read_clips(reader, plan.views)), plan, *draws)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_sample_has_the_pixels_of_whole_frames_that_are_cut_afterwards(name, options, training, footage):
    dataset = dataset_of(footage, make(name, options).clip_maker(training))
    tickets = tuple(Ticket(0, 0, 0, 1, clip) for clip in range(3))
    for ticket, sample in zip(tickets, dataset[tickets], strict=True):
        whole = of_whole_frames(dataset, ticket)
        assert whole and all(torch.equal(sample[key], value) for key, value in whole.items())


class Whole:
    """A clip maker that knows nothing of cuts."""

    min_frames = 3

    def plan(self, video, rng, batch_rng):
        return ClipPlan((np.array([2, 0, 2]), np.arange(4)))

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"first": views_TCHW[0], "second": views_TCHW[1], "draw": torch.tensor(rng.random())}


class Corner(CutFirst, Whole):
    """One that takes a corner alone, of its second view."""

    def cuts(self, height, width, plan, rng, batch_rng):
        return Cuts((Cut.squares(1, [(0, 0, 8)], 8),), lambda cuts: {"corner": cuts[0]})


class OverridesTransform(Corner):
    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"corner": views_TCHW[1][..., -8:, -8:].contiguous()}


def test_a_clip_maker_without_cuts_gets_whole_frames(footage):
    dataset = dataset_of(footage, Whole())
    (sample,) = dataset[(Ticket(0, 0, 0, 0),)]
    assert sample["first"].shape == (3, 3, 48, 64) and sample["first"].is_contiguous()
    assert torch.equal(sample["first"], sample["second"][[2, 0, 2]])


def test_a_transform_of_its_own_counts_more_than_inherited_cuts(footage):
    cut, own = (dataset_of(footage, m)[(Ticket(0, 0, 0, 0),)][0]["corner"] for m in (Corner(), OverridesTransform()))
    whole = dataset_of(footage, Whole())[(Ticket(0, 0, 0, 0),)][0]["second"]
    assert torch.equal(cut, whole[..., :8, :8])
    assert torch.equal(own, whole[..., -8:, -8:])


def test_members_with_and_without_cuts_stand_side_by_side(footage):
    maker = CompositeClips({"a": Whole(), "b": Corner(), "c": make("speediness", {}).clip_maker(True)})
    dataset, ticket = dataset_of(footage, maker), Ticket(0, 0, 0, 1)
    (sample,) = dataset[(ticket,)]
    whole = of_whole_frames(dataset, ticket)
    assert {"a/first", "a/draw", "b/corner", "c/clips"} <= set(whole)
    assert all(torch.equal(sample[key], value) for key, value in whole.items())


@pytest.mark.parametrize("size_px", [7, 40, 64])
def test_a_cutter_gives_the_same_pixels_in_any_order_and_the_last_of_two_counts(size_px, monkeypatch):
    monkeypatch.setattr("ssvid.transforms.cuts._BUFFER_BYTES", 3 * 40 * 40 * 3)  # three frames wait together
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 50, 60, 3), np.uint8)
    boxes = [(int(rng.integers(10)), int(rng.integers(20)), 40 - 5 * (i % 2)) for i in range(6)]
    cut = Cut.squares(0, boxes, size_px)
    cutter = Cutter(cut, 8, 50, 60)
    cutter.put(3, frames[0])
    for place in rng.permutation(8).tolist():
        cutter.put(place, frames[place])
    whole_TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert torch.equal(cutter.clip(), crop_squares(whole_TCHW, [*boxes, boxes[-1], boxes[-1]], size_px))
    assert torch.equal(cutter.clip(), cut_view(whole_TCHW, cut))


class Noise(VideoReader):
    """A reader of large pictures that exist one at a time."""

    def __init__(self, path, num_frames, height, width):
        super().__init__(path, VideoInfo(str(path), num_frames, 25.0, height, width))

    def _decode_sorted(self, indices):
        for place, number in enumerate(indices):
            yield place, np.full((self.info.height, self.info.width, 3), number, np.uint8)


@pytest.mark.parametrize("clips_per_video", [2, 8])
def test_memory_does_not_grow_with_clips_times_whole_frames(clips_per_video, footage, monkeypatch):
    """Whole frames of 6 MB: two views of 16 of them were 200 MB for each clip."""
    row = VideoRow("0.mp4", 600, 25.0, 1080, 1920)
    maker = make("speediness", {"num_frames": 16}).clip_maker(True)
    dataset = ClipDataset(Manifest(footage, (row,)), [row], maker, seed=1, segment_seconds=1e9)
    monkeypatch.setattr("ssvid.video.opening.open_video", lambda path, *_, **__: Noise(path, 600, 1080, 1920))
    tracemalloc.start()
    samples = dataset[tuple(Ticket(0, 0, 0, 0, clip) for clip in range(clips_per_video))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == clips_per_video
    assert peak < 200e6
