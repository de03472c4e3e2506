"""Between plan and transform only the frames change: answers, crops and every other draw stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.audits.clips import CHANGED, AuditedClips, frames_in, gathered, other_videos, repainted_batch, stretches
from ssvid.audits.counterfactuals import Counterfactual, all_counterfactuals, bordered, grayed, static
from ssvid.transforms.cuts import Cut, CutFirst, Cuts, cut_view, cuts_of
from ssvid.types import ClipPlan, VideoInfo
from tests.video.clocked import clock_frames, clocks

VIDEO = VideoInfo("v", 60, 25.0, 16, 24)


class Pairs:
    """Two views and a label; the transform draws a number, as a crop would."""

    min_frames = 20
    signals = ("motion",)

    def plan(self, video, rng, batch_rng):
        start = int(rng.integers(20))
        return ClipPlan((start + np.arange(8), start + 2 * np.arange(8)), {"label": np.array([0, 1])})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        if type(plan) is not ClipPlan:
            raise TypeError("the task must get its own plan back")
        return {
            "clips": torch.stack(list(views_TCHW)),
            "label": torch.from_numpy(plan.targets["label"]),
            "draw": torch.tensor(rng.random()),
        }


def video_frames():
    """60 frames of noise."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3, 16, 24), dtype=np.uint8))


def sample_of(maker, film=None):
    film = video_frames() if film is None else film
    rngs = [np.random.default_rng([3, 4, 0, 5, i, 0]) for i in range(2)]
    plan = maker.plan(VIDEO, *rngs)
    return maker.transform(tuple(film[view] for view in plan.views), plan, *rngs)


def on_video():
    return [c for c in all_counterfactuals() if c.place == "video"]


@pytest.mark.parametrize("counterfactual", on_video(), ids=lambda c: c.label)
def test_the_answer_and_the_tasks_own_draws_stay(counterfactual):
    clean, changed = sample_of(Pairs()), sample_of(AuditedClips(Pairs(), counterfactual))
    assert torch.equal(changed["label"], clean["label"])
    assert torch.equal(changed["draw"], clean["draw"])
    assert changed["clips"].shape == clean["clips"].shape
    assert bool(changed[CHANGED]) is not torch.equal(changed["clips"], clean["clips"])
    assert bool(changed[CHANGED])
    again = sample_of(AuditedClips(Pairs(), counterfactual))
    assert torch.equal(changed["clips"], again["clips"])


class Squares(CutFirst):
    """One view, of which each frame's corner is cut and shrunk."""

    min_frames = 20

    def plan(self, video, rng, batch_rng):
        return ClipPlan((int(rng.integers(20)) + np.arange(8),), {"label": np.array([0])})

    def cuts(self, height, width, plan, rng, batch_rng):
        corner = int(rng.integers(4))
        return Cuts((Cut.squares(0, [(corner, corner, 12)], 6),), lambda clips_TCHW: {"clips": clips_TCHW[0]})


@pytest.mark.parametrize("counterfactual", on_video(), ids=lambda c: c.label)
def test_frames_are_cut_as_they_come_where_no_clip_is_painted_as_a_whole(counterfactual):
    maker = AuditedClips(Squares(), counterfactual)
    rngs = [np.random.default_rng([3, 4, 0, 5, i, 0]) for i in range(2)]
    plan = maker.plan(VIDEO, *rngs)
    cuts = cuts_of(maker, 16, 24, plan, *rngs)
    assert all(
        bool(cut.rectangles) is (counterfactual.repaint is None or counterfactual.by_frame) for cut in cuts.wanted
    )
    film = video_frames()
    cut = cuts.finish(tuple(cut_view(film[plan.views[cut.view]], cut) for cut in cuts.wanted))
    assert cut["clips"].shape == (8, 3, 6, 6)
    whole = sample_of(maker)
    assert all(torch.equal(cut[name], whole[name]) for name in ("clips", CHANGED))
    at_once = sample_of(AuditedClips(Squares(), replace(counterfactual, by_frame=False)))
    assert all(torch.equal(at_once[name], whole[name]) for name in ("clips", CHANGED)), "as painted all at once"


@pytest.mark.parametrize("counterfactual", [c for c in on_video() if c.name == "reencoded"], ids=lambda c: c.label)
def test_reencoded_frames_are_those_that_were_planned(counterfactual):
    """Each frame shows its own number, and still does after the encoder."""
    film = torch.from_numpy(np.stack(clock_frames(60))).permute(0, 3, 1, 2)
    clean, changed = sample_of(Pairs(), film), sample_of(AuditedClips(Pairs(), counterfactual), film)
    assert not torch.equal(clean["clips"], changed["clips"])
    for view, again in zip(clean["clips"], changed["clips"], strict=True):
        assert clocks(again) == clocks(view)


def test_what_changes_nothing_says_so():
    class Single(Pairs):
        def plan(self, video, rng, batch_rng):
            return ClipPlan((np.zeros(8, np.int64),), {"label": np.array([0])})

    assert not bool(sample_of(AuditedClips(Single(), Counterfactual("static", reindex=static)))[CHANGED])


def test_what_the_dataset_asks_a_clip_maker_is_passed_on():
    class Several(Pairs):
        video_makers = (Pairs(), Pairs())

    maker = AuditedClips(Several(), Counterfactual("gray", repaint=grayed))
    assert (maker.min_frames, maker.signals, len(maker.video_makers)) == (20, ("motion",), 2)
    assert maker.video_makers[0].counterfactual is maker.counterfactual
    with pytest.raises(ValueError, match="must act on the video"):
        AuditedClips(Pairs(), Counterfactual("gray", place="clip"))


def test_stretches_hold_every_frame_once_and_start_at_any_phase():
    views = (np.array([30, 33, 31]), np.array([90, 95]))
    starts = set()
    for i in range(40):
        parts = stretches(views, 12, np.random.default_rng(i))
        assert len(parts) == 2
        assert all((np.diff(part) == 1).all() for part in parts)
        assert (parts[0][-1], parts[1][-1]) == (33, 95)
        starts.add((30 - parts[0][0], 90 - parts[1][0]))
        assert 2 <= min(starts)[0] and max(starts)[0] < 14, "at least two: an encoder treats its first frames otherwise"
        frames = [torch.from_numpy(part.astype(np.uint8))[:, None, None, None] for part in parts]
        held = [view.flatten().tolist() for view in gathered(frames, parts, views)]
        assert held == [[30, 33, 31], [90, 95]]
    assert len({first for first, _ in starts}) > 8
    assert stretches((np.array([2]),), 12, np.random.default_rng(0))[0][0] >= 0


def test_on_a_batch_only_what_is_shown_is_repainted():
    frame = Counterfactual("border", "1/8", "clip", repaint=lambda x, rng: bordered(x, rng, share=1 / 8))
    batch = {
        "clips": torch.full((2, 3, 4, 3, 16, 16), 9, dtype=torch.uint8),
        "answers": torch.full((2, 3, 16, 16), 9, dtype=torch.uint8),
        "map": torch.full((2, 3, 3, 4, 4), 9, dtype=torch.uint8),
        "label": torch.zeros(2),
        "unreadable": [],
    }
    batch["clips"][1] = 0
    assert frames_in(batch, ["answers"]) == ["clips"]
    painted, changed = repainted_batch(batch, frame, 0, ["answers"])
    assert changed.tolist() == [True, False]
    assert painted["answers"] is batch["answers"] and painted["map"] is batch["map"]
    assert painted["clips"][0, 2, 3, :, 0].sum() == 0
    assert (painted["clips"][0, ..., 2:14, 2:14] == 9).all()
    assert (batch["clips"][0] == 9).all()
    assert repainted_batch({"clip": torch.zeros(2, 4, 3, 8, 8)}, frame, 0)[1] is None, "floats are not frames"


def test_foreign_frames_are_those_of_another_video_but_the_last():
    foreign = Counterfactual("foreign", place="clip", from_others=True)
    videos = [4, 4, 7, 9]
    clips = torch.arange(4 * 2 * 3, dtype=torch.uint8).view(4, 2, 3, 1, 1, 1).expand(4, 2, 3, 3, 16, 16)
    tickets = torch.tensor([[4, 0, 0, video, clip, 0] for clip, video in enumerate(videos)])
    batch = {"clips": clips, "map": torch.zeros(4, 3, 4, 4, dtype=torch.uint8), "tickets": tickets}
    assert other_videos(videos) == [2, 2, 3, 0]
    borrowed, changed = repainted_batch(batch, foreign, 0)
    assert changed.tolist() == [True] * 4
    for sample, lender in enumerate(other_videos(videos)):
        assert torch.equal(borrowed["clips"][sample, :, :2], clips[lender, :, :2])
        assert torch.equal(borrowed["clips"][sample, :, 2], clips[sample, :, 2])
    assert borrowed["map"] is batch["map"]
    alone = {name: values[:2] for name, values in batch.items()}
    assert repainted_batch(alone, foreign, 0)[1].tolist() == [False, False], "one video has nobody to borrow from"
    assert repainted_batch({"clips": clips}, foreign, 0)[1] is None
