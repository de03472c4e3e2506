"""Every counterfactual against what it says it does, by hand or by a plain loop."""

import pickle

import numpy as np
import pytest
import torch

from ssvid.audits.counterfactuals import (
    NAMES,
    Counterfactual,
    all_counterfactuals,
    bordered,
    channel_swapped,
    chosen_counterfactuals,
    duplicated,
    grayed,
    irregular,
    noise,
    occluded,
    resampled,
    resized,
    shifted,
    shuffled,
    static,
)
from ssvid.errors import RecipeError

EVEN = np.arange(3, 17, 2)  # 3 5 ... 15


def rng(seed=0):
    return np.random.default_rng([1, 2, seed])


def frames(num_frames=4, height=16, width=24, seed=0):
    return torch.from_numpy(rng(seed).integers(0, 256, (num_frames, 3, height, width), dtype=np.uint8))


# ---- which frames


def test_static_repeats_the_first_and_duplicated_every_second():
    assert static(EVEN, 40, rng()).tolist() == [3] * 7
    assert duplicated(EVEN, 40, rng()).tolist() == [3, 3, 7, 7, 11, 11, 15]
    assert duplicated(EVEN[:6], 40, rng()).tolist() == [3, 3, 7, 7, 11, 11]


def test_shuffled_keeps_the_frames_and_loses_their_order():
    orders = {tuple(shuffled(EVEN, 40, rng(i))) for i in range(20)}
    assert all(sorted(order) == EVEN.tolist() for order in orders)
    assert len(orders) > 15


def test_irregular_moves_each_frame_by_half_a_step_at_most_and_keeps_the_direction():
    for i in range(50):
        moved = irregular(EVEN, 16, rng(i))
        assert np.abs(moved - EVEN).max() <= 1
        assert (np.diff(moved) >= 0).all()
        assert moved.min() >= 0 and moved.max() <= 15
        assert (np.diff(irregular(EVEN[::-1], 16, rng(i))) <= 0).all()
    assert len({tuple(irregular(EVEN, 16, rng(i))) for i in range(50)}) > 40
    unordered = np.array([8, 2, 14])
    assert np.abs(irregular(unordered, 40, rng()) - unordered).max() <= 4


@pytest.mark.parametrize(("numerator", "denominator"), [(4, 5), (3, 5), (1, 2)])
def test_another_frame_rate_holds_each_kept_frame_until_the_next_is_due(numerator, denominator):
    """A player of the converted video at time i / fps shows its frame floor(i r), made of frame floor(k / r)."""
    got = resampled(np.arange(30), 30, rng(), numerator=numerator, denominator=denominator)
    for i in range(30):
        k = max(k for k in range(31) if k * denominator <= i * numerator)  # the last frame that began by then
        source = max(j for j in range(31) if j * numerator <= k * denominator)
        assert got[i] == min(source, i)
    assert len(set(got.tolist())) == 30 * numerator // denominator
    assert (got <= np.arange(30)).all()


def test_views_of_one_frame_are_one_sequence():
    one_by_one = tuple(EVEN[i : i + 1] for i in range(5))
    changed = Counterfactual("static", reindex=static).other_frames(one_by_one, 40, rng())
    assert [view.tolist() for view in changed] == [[3]] * 5
    two = Counterfactual("static", reindex=static).other_frames((EVEN, EVEN[2:]), 40, rng())
    assert [set(view.tolist()) for view in two] == [{3}, {7}]


def test_all_indices_stay_in_the_video():
    for counterfactual in all_counterfactuals():
        for i in range(20):
            for view in counterfactual.other_frames((np.arange(8), np.arange(0, 16, 2)), 16, rng(i)):
                assert 0 <= view.min() and view.max() < 16


# ---- what they look like


def test_border_gray_swap():
    clip = frames()
    framed = bordered(clip, rng(), share=1 / 8)
    assert (framed[..., 2:-2, 2:-2] == clip[..., 2:-2, 2:-2]).all()
    assert framed.sum() == framed[..., 2:-2, 2:-2].sum()
    narrow = bordered(clip, rng(), share=1 / 100)
    assert narrow[..., 0, :].sum() == 0 and (narrow[..., 1:-1, 1:-1] == clip[..., 1:-1, 1:-1]).all()
    gray = grayed(clip, rng())
    r, g, b = (float(v) for v in clip[1, :, 3, 5])
    assert gray[1, :, 3, 5].tolist() == [round(0.299 * r + 0.587 * g + 0.114 * b)] * 3
    assert channel_swapped(clip, rng())[2, :, 1, 1].tolist() == clip[2, :, 1, 1].tolist()[::-1]


def test_occlusion_covers_one_cell_in_every_frame():
    clip = frames(height=16, width=24)
    covered = occluded(clip, rng(), row=1, column=3, grid=4)
    assert (covered[..., 4:8, 18:24] == 128).all()
    rest = torch.ones(16, 24, dtype=torch.bool)
    rest[4:8, 18:24] = False
    assert (covered[..., rest] == clip[..., rest]).all()
    cells = [c for c in all_counterfactuals() if c.name == "occluded"]
    white = torch.full((1, 3, 17, 23), 255, dtype=torch.uint8)
    times = sum((c.repaint(white, rng())[0, 0] == 128).int() for c in cells)
    assert len(cells) == 16 and (times == 1).all(), "together the cells cover each pixel once"


def test_resizing_removes_a_checkerboard_and_keeps_a_slope():
    y, x = np.mgrid[:32, :32]
    checkers = torch.from_numpy(((x + y) % 2 * 200).astype(np.uint8)).expand(2, 3, 32, 32)
    blurred = resized(checkers, rng(), numerator=1, denominator=2)
    assert blurred.float().std() < 10
    slope = torch.from_numpy((x * 6).astype(np.uint8)).expand(2, 3, 32, 32)
    kept = resized(slope, rng(), numerator=1, denominator=2)
    assert (kept[..., 2:-2].int() - slope[..., 2:-2].int()).abs().max() <= 2


def test_shifted_frames_show_parts_of_their_own_enlarged():
    y, x = np.mgrid[:32, :48]
    slope = torch.from_numpy(np.stack([x * 4, y * 6, x * 0]).astype(np.uint8)).expand(40, 3, 32, 48)
    moved = shifted(slope, rng(), share=1 / 4)
    assert moved.shape == slope.shape and moved.dtype == torch.uint8
    # Of a part that starts at (top, left), pixel (16, 24) of the enlarged frame shows about (top + 12, left + 18).
    left, top = (moved[:, 0, 16, 24] / 4 - 18).round().int(), (moved[:, 1, 16, 24] / 6 - 12).round().int()
    assert (left.min(), left.max(), top.min(), top.max()) == (0, 12, 0, 8), "every place, and never beyond the frame"
    widths = (moved[:, 0, 16, 40].int() - moved[:, 0, 16, 8].int()) / 4
    assert (widths - 24).abs().max() <= 1, "32 pixels of the enlarged frame are 24 of the old one"


def test_noise_holds_nothing_of_the_video_nor_of_the_frame_before():
    first, second = noise(frames(seed=1), rng(5)), noise(frames(seed=2), rng(5))
    assert torch.equal(first, second)
    pixels = first.float().flatten(1).numpy()
    correlation = np.corrcoef(pixels)
    assert np.abs(correlation - np.eye(4)).max() < 0.12


# ---- the list


def test_the_names_are_those_that_tasks_declare():
    declared = {
        "static", "shuffled", "reencoded", "resized", "border", "duplicated", "irregular", "frame_rate", "gray",
        "channel_swapped", "noise", "shifted", "foreign",
    }  # fmt: skip
    assert declared < set(NAMES)
    assert len({(c.label, c.place) for c in all_counterfactuals()}) == len(all_counterfactuals())
    assert {c.name for c in chosen_counterfactuals(["noise", "border"])} == {"noise", "border"}
    with pytest.raises(RecipeError, match=r"counterfactual \('boarder'\) is unknown. Did you mean 'border'\?"):
        chosen_counterfactuals(["boarder"])


def test_they_reach_the_workers_and_draw_from_the_sample_s_address():
    for counterfactual in all_counterfactuals():
        assert pickle.loads(pickle.dumps(counterfactual)) == counterfactual
    sample = np.random.default_rng([7, 4, 0, 3, 0, 0])
    before = sample.bit_generator.state
    a, b = (Counterfactual(name).rng(sample).integers(1 << 40) for name in ("noise", "shuffled"))
    assert a != b
    assert a == Counterfactual("noise").rng(np.random.default_rng([7, 4, 0, 3, 0, 0])).integers(1 << 40)
    assert a != Counterfactual("noise").rng(np.random.default_rng([7, 4, 0, 4, 0, 0])).integers(1 << 40)
    assert sample.bit_generator.state == before
