"""Index arithmetic against hand-computed cases and invariances."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.video import clip_indices, evenly_spaced_clips, is_padded, random_clip


def test_clip_indices_by_hand() -> None:
    assert clip_indices(3, 4).tolist() == [3, 4, 5, 6]
    assert clip_indices(0, 3, 5).tolist() == [0, 5, 10]
    assert clip_indices(2, 1, 100).tolist() == [2]
    assert clip_indices(0, 2).dtype == np.int64


@pytest.mark.parametrize(("num_frames", "stride"), [(1, 1), (16, 1), (8, 4), (3, 7)])
def test_random_clips_fit_and_reach_every_start(num_frames: int, stride: int) -> None:
    span = (num_frames - 1) * stride + 1
    available = span + 4
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        clip = random_clip(rng, available, num_frames, stride)
        assert len(clip) == num_frames
        assert np.all(np.diff(clip) == stride)
        assert clip[-1] < available
        starts.add(int(clip[0]))
    assert starts == set(range(5))


def test_random_starts_are_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([random_clip(rng, 20, 16)[0] for _ in range(5000)], minlength=5)
    assert len(counts) == 5
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 0.8)  # five standard deviations of a binomial


def test_the_same_generator_state_gives_the_same_clip_and_one_draw_is_used() -> None:
    a, b = np.random.default_rng(5), np.random.default_rng(5)
    assert np.array_equal(random_clip(a, 100, 16, 2), random_clip(b, 100, 16, 2))
    assert a.bit_generator.state == b.bit_generator.state


def test_a_video_that_fits_exactly_has_one_clip() -> None:
    assert random_clip(np.random.default_rng(0), 31, 16, 2).tolist() == list(range(0, 31, 2))


def test_a_short_video_is_never_looped() -> None:
    with pytest.raises(
        DataError, match=r"available frames \(30\) must be at least 31 for a clip of 16 frames at stride 2"
    ):
        random_clip(np.random.default_rng(0), 30, 16, 2)


def test_evenly_spaced_clips_by_hand() -> None:
    assert [clip.tolist() for clip in evenly_spaced_clips(10, 1, 4)] == [[3, 4, 5, 6]]
    assert [clip.tolist() for clip in evenly_spaced_clips(10, 2, 4)] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert [clip[0] for clip in evenly_spaced_clips(110, 5, 10)] == [0, 25, 50, 75, 100]
    assert [clip.tolist() for clip in evenly_spaced_clips(11, 2, 3, 4)] == [[0, 4, 8], [2, 6, 10]]


@pytest.mark.parametrize("available", [16, 17, 100])
@pytest.mark.parametrize("num_clips", [1, 2, 7])
def test_long_enough_videos_are_never_padded(available: int, num_clips: int) -> None:
    for clip in evenly_spaced_clips(available, num_clips, 16):
        assert np.all(np.diff(clip) == 1)
        assert 0 <= clip[0] <= clip[-1] < available
    assert not is_padded(available, 16)


def test_short_videos_repeat_their_last_frame() -> None:
    clips = evenly_spaced_clips(5, 2, 4, 2)
    assert [clip.tolist() for clip in clips] == [[0, 2, 4, 4], [0, 2, 4, 4]]
    assert is_padded(5, 4, 2)
    assert not is_padded(7, 4, 2)
    assert evenly_spaced_clips(1, 1, 3)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("arguments", [(0, 1, 4), (5, 0, 4)])
def test_nothing_to_sample_is_an_error(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="must both be at least 1"):
        evenly_spaced_clips(*arguments)


@pytest.mark.parametrize("arguments", [(0, 0, 1), (0, 4, 0)])
def test_empty_clips_are_an_error(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match=r"num_frames \(\d\) and stride_frames \(\d\) must both be at least 1"):
        clip_indices(*arguments)


def test_a_negative_start_is_an_error() -> None:
    with pytest.raises(DataError, match=r"start \(-1\) must not be negative"):
        clip_indices(-1, 4)
