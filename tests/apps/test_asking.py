"""A task asked of a whole video: the right frames in every window of every version, in one pass; what is said adds up."""

import numpy as np
import pytest
import torch
from torch import nn

from ssvid.apps.asking import Asker, MapSums, ask, shrunk
from ssvid.apps.coloring import MapScale, overlaid, speed_colors
from ssvid.apps.timeline import Timeline, version, window_starts
from ssvid.backbones import initialize_backbone
from ssvid.tasks import ClipAnswer, ClipQuestion, pooled_answer, tasks

QUESTION = ClipQuestion("sped up", "natural", 4, 8, is_speed=True)
WINDOW, HOP = 4, 3


class Numbered(nn.Module):
    """Frames carry their number; the answer is the number of the first frame, the map that of each."""

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.clips = [], []

    def answer(self, clips_BCTHW, backbone) -> ClipAnswer:
        numbers_BT = (clips_BCTHW[:, 0, :, 0, 0] * 255).round()
        self.batches.append(len(clips_BCTHW))
        self.clips += numbers_BT.int().tolist()
        cells = numbers_BT[:, ::2, None, None].expand(-1, -1, 2, 3)
        return ClipAnswer(numbers_BT[:, 0], 0.0, cells / 6, cells, torch.ones_like(cells))


class Video:
    """Even gray frames, each as bright as its number."""

    def __init__(self, num_frames, size_px=(8, 8)):
        self.num_frames, self.size_px, self.read = num_frames, size_px, 0

    def frames(self):
        for number in range(self.num_frames):
            self.read += 1
            yield np.full((*self.size_px, 3), number, np.uint8)


def asker(batch_size=5):
    return Asker(Numbered(), nn.Identity(), QUESTION, WINDOW, HOP, batch_size=batch_size)


def test_every_window_of_every_version_has_its_frames_and_the_video_is_read_once():
    one, video, line = asker(), Video(40), Timeline.even(40, 25.0)
    told = []
    answers, maps, changes_N = ask(video, line, one, (1.0, 1.25, 3.0, 50.0), lambda *done: told.append(done))
    assert changes_N.tolist() == [0, *[1] * 39]  # each frame is a gray level brighter than the last
    assert maps is None and video.read == 40 and told[-1] == (40, 40)
    assert [found.factor for found in answers] == [1.0, 1.25, 3.0], "the last one is too short for a window"
    expected = []
    for found in answers:
        beats = version(40, found.factor)
        starts = window_starts(len(beats), WINDOW, HOP)
        assert found.starts.tolist() == starts.tolist()
        assert found.logits.tolist() == beats[starts].tolist()
        expected += [beats[s : s + WINDOW].tolist() for s in starts]
    assert sorted(one.task.clips) == sorted(expected)
    assert max(one.task.batches) == 5 and sum(one.task.batches) == len(expected)


def test_a_frame_that_stays_long_is_shown_for_as_long():
    one, line = asker(), Timeline.of_times(np.array([0.0, 0.1, 0.5, 0.6]), 10.0)
    ask(Video(4), line, one, (1.0,), lambda done, total: None)
    assert one.task.clips == [[0, 1, 1, 1], [1, 1, 2, 3]]


def test_batches_change_nothing():
    line = Timeline.even(30, 25.0)
    logits = []
    for batch_size in (1, 7, 64):
        answers, *_ = ask(Video(30), line, asker(batch_size), (1.0, 2.0), lambda done, total: None)
        logits.append([found.logits.tolist() for found in answers])
    assert logits[0] == logits[1] == logits[2]


def test_maps_are_means_over_the_windows_in_which_a_beat_lies():
    line, sums = Timeline.even(13, 25.0), []

    def keep(size):
        sums.append(MapSums(np.zeros((13, 2, *size), np.float32), np.zeros(13, int)))
        return sums[0]

    ask(Video(13), line, asker(), (1.0, 2.0), lambda done, total: None, keep)
    starts = window_starts(13, WINDOW, HOP)
    for beat in range(13):
        cells = [start + (beat - start) // 2 * 2 for start in starts if start <= beat < start + WINDOW]
        local_HW, strength_HW = sums[0].at(beat)
        assert local_HW == pytest.approx(np.full((2, 3), np.mean(cells)), abs=1e-5)
        assert strength_HW == pytest.approx(np.ones((2, 3)))


def test_the_whole_frame_is_shown_its_short_side_as_in_validation():
    assert asker().shrunk_size(480, 854) == (8, 14) and asker().shrunk_size(100, 50) == (16, 8)
    frame = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    assert np.array_equal(shrunk(frame, (8, 14)).permute(1, 2, 0).numpy(), frame)


# ---- where an answer comes from


@pytest.mark.parametrize("space_pool", ["max", "mean"])
@pytest.mark.parametrize("time_pool", ["max", "mean"])
def test_the_parts_of_an_answer_add_up_to_it(space_pool, time_pool):
    generator = torch.Generator().manual_seed(3)
    map_BCTHW = torch.rand(3, 6, 5, 4, 7, generator=generator, dtype=torch.float64)
    weight_C, bias = torch.randn(6, generator=generator, dtype=torch.float64), torch.tensor(0.3)
    found = pooled_answer(map_BCTHW, weight_C, bias, space_pool, time_pool)
    pooled = map_BCTHW.amax((3, 4)) if space_pool == "max" else map_BCTHW.mean((3, 4))
    pooled = pooled.amax(2) if time_pool == "max" else pooled.mean(2)
    logits_B = pooled @ weight_C + 0.3
    assert torch.allclose(found.logits_B.double(), logits_B, atol=1e-5)
    assert torch.allclose(found.exact_BTHW.sum((2, 3)).mean(1).double() + found.bias, logits_B, atol=1e-5)


def test_with_the_maximum_over_space_only_its_places_count():
    map_BCTHW = torch.zeros(1, 2, 1, 3, 3)
    map_BCTHW[0, 0, 0, 0, 1], map_BCTHW[0, 1, 0, 2, 2] = 5.0, 3.0
    found = pooled_answer(map_BCTHW, torch.tensor([1.0, -2.0]), torch.tensor(0.5), "max", "mean")
    assert found.logits_B.tolist() == [5 - 6 + 0.5]
    exact = torch.zeros(3, 3)
    exact[0, 1], exact[2, 2] = 5.0, -6.0
    assert torch.equal(found.exact_BTHW[0, 0], exact)
    assert found.local_BTHW[0, 0, 2, 2] == -5.5 and found.strength_BTHW[0, 0, 2, 2] == 6


@pytest.mark.parametrize("pools", [("max", "mean"), ("mean", "max")])
def test_speediness_answers_as_it_was_trained(pools):
    backbone = initialize_backbone("tiny3d", {"width": 4, "input": "difference"}, seed=0).eval()
    options = {"num_frames": 8, "space_pool": pools[0], "time_pool": pools[1]}
    kind = tasks.get("speediness")
    torch.manual_seed(0)
    task = kind(kind.Config(**options), backbone.info).eval()
    clips_BCTHW = torch.rand(4, 3, 8, 24, 40)
    with torch.no_grad():
        found = task.answer(clips_BCTHW, backbone)
        batch = {"clips": clips_BCTHW[:, None], "is_sped": torch.zeros(4, 1, dtype=torch.int64)}
        trained = task(batch, backbone).extras["sped_prob"][:, 0]
    assert torch.allclose(found.logits_B.sigmoid(), trained, atol=1e-6)
    assert torch.allclose(found.exact_BTHW.sum((2, 3)).mean(1) + found.bias, found.logits_B, atol=1e-5)
    question = task.clip_question()
    assert (question.num_frames, question.size_px, question.is_speed) == (8, 224, True)


# ---- colors


def test_colors_go_from_orange_over_yellow_and_green_to_blue():
    red, green, blue = speed_colors(np.array([0.0, 0.3, 0.55, 1.0])).T
    assert (red[0] > green[0] > blue[0]) and (red[1] > 200 and green[1] > 200) and blue[1] < 100
    assert green[2] > max(red[2], blue[2]) and blue[3] > max(red[3], green[3])


def test_places_without_anything_to_judge_by_stay_as_they_are():
    frame = np.full((16, 16, 3), 100, np.uint8)
    local, strength = np.full((4, 4), 5.0), np.zeros((4, 4))
    assert np.array_equal(overlaid(frame, local, strength, MapScale(0.0, 1.0)), frame)
    strength[:2] = 1
    painted = overlaid(frame, local, strength, MapScale(0.0, 1.0)).astype(int)
    assert painted[0, :, 2].min() > 150 and np.array_equal(painted[15], frame[15])
    slow = overlaid(frame, -local, strength, MapScale(0.0, 1.0)).astype(int)
    assert slow[0, :, 0].min() > 150 > slow[0, :, 2].max()


def test_what_is_usual_is_the_median_weighted_by_strength():
    sums = np.zeros((3, 2, 1, 2), np.float32)
    sums[:, 0], sums[:, 1] = np.array([[[1.0, 9.0]], [[2.0, 9.0]], [[3.0, 9.0]]]), np.array([[[1.0, 0.0]]] * 3)
    scale = MapScale.of(MapSums(sums, np.ones(3, int)))
    assert scale.local == 2.0 and 0.9 < scale.strength <= 1
