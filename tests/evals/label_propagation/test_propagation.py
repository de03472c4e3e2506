"""Labels carried through made-up videos whose answer is known, for the knobs of every protocol."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import RecipeError, SsvidError
from ssvid.evals.label_propagation.affinity import FrameCells
from ssvid.evals.label_propagation.labels import joints_from_grid, joints_to_grid, masks_from_grid, masks_to_grid
from ssvid.evals.label_propagation.propagation import Given, propagate
from ssvid.features.maps import MapGrid
from ssvid.features.propagation_protocol import PropagationProtocol
from tests.evals.label_propagation.published import DISTINCT, PROTOCOLS
from tests.evals.label_propagation.reference import propagated

CELL_PX = 8
CONTEXTS = list(itertools.product((True, False), (True, False), (1, 3)))


def all_given(labels_KHW: Tensor) -> Given:
    return Given(labels_KHW, torch.ones(len(labels_KHW), dtype=torch.bool))


def blocks(height: int, width: int) -> np.ndarray:
    """A mask of two objects, HW in cells."""
    mask_HW = np.zeros((height, width), dtype=np.uint8)
    mask_HW[height // 4 : height // 2, width // 4 : width // 2] = 1
    mask_HW[height // 2 : 3 * height // 4, width // 3 : 2 * width // 3] = 2
    return mask_HW


def soft(mask_HW: np.ndarray) -> Tensor:
    return F.one_hot(torch.from_numpy(mask_HW).long()).permute(2, 0, 1).float()


def texture(num_channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(num_channels, height, width, generator=torch.Generator().manual_seed(seed))


def shifted(
    num_frames: int, height: int, width: int, step: tuple[int, int], alone: Sequence[tuple[int, int]] = ()
) -> list[Tensor]:
    """Frames of one large texture whose content moves by ``step`` cells a frame, down and right.

    alone: cells of the first frame that are like no other.
    """
    down, right = (abs(s) * num_frames for s in step)
    large = F.pad(texture(96, height + 2 * down, width + 2 * right), (0, 0, 0, 0, 0, len(alone)))
    for n, (y, x) in enumerate(alone):
        large[:, y + down, x + right] = F.one_hot(torch.tensor(96 + n), len(large)).float()
    tops = [down - t * step[0] for t in range(num_frames)]
    lefts = [right - t * step[1] for t in range(num_frames)]
    return [large[:, y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)]


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize(("height", "width"), [(9, 14), (12, 7)])
def test_position_features_give_the_identity(name: str, height: int, width: int) -> None:
    position = torch.eye(height * width).unflatten(1, (height, width))
    mask_HW = blocks(height, width)
    protocol = PROTOCOLS[name]
    grid = MapGrid.stretched((height, width), (height * CELL_PX, width * CELL_PX))
    ids = (1, 2)
    first = soft(mask_HW)
    expected = masks_from_grid(first, ids, grid, grid.frame_px, protocol)
    found = list(propagate([position] * 5, {0: all_given(first)}, protocol))
    assert len(found) == 5
    for labels_KHW in found:
        assert np.array_equal(labels_KHW.argmax(dim=0).numpy(), mask_HW)
        wrong = masks_from_grid(labels_KHW, ids, grid, grid.frame_px, protocol) != expected
        assert wrong.mean() <= (0 if protocol.primed else 0.01)  # a lone match shares its weight with cells unlike it


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize("step", [(1, 2), (-1, 1), (0, -3)])
def test_a_shift_moves_masks_exactly(name: str, step: tuple[int, int]) -> None:
    height, width, num_frames = 16, 27, 4
    mask_HW = blocks(height, width)
    maps = shifted(num_frames, height, width, step)
    for t, labels_KHW in enumerate(propagate(maps, {0: all_given(soft(mask_HW))}, PROTOCOLS[name])):
        moved_HW, is_known_HW = _moved(mask_HW, t * step[0], t * step[1])
        found_HW = labels_KHW.argmax(dim=0).numpy()
        assert np.array_equal(found_HW[is_known_HW], moved_HW[is_known_HW])


def _moved(mask_HW: np.ndarray, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """The mask moved, and which cells were in the frame before."""
    height, width = mask_HW.shape
    y, x = np.mgrid[:height, :width]
    is_known_HW = (y - down >= 0) & (y - down < height) & (x - right >= 0) & (x - right < width)
    moved_HW = mask_HW[np.clip(y - down, 0, height - 1), np.clip(x - right, 0, width - 1)]
    return moved_HW, is_known_HW


@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if protocol.measure == "joints"])
@pytest.mark.parametrize(("num_cells", "tolerance_px"), [(1, 0.0), (5, 1e-4)])
def test_a_shift_moves_joints_exactly(name: str, num_cells: int, tolerance_px: float) -> None:
    """Cells that come into view at the border look like none of a joint's: else they may well take its label."""
    height, width, step = 16, 27, (1, 2)
    protocol = replace(PROTOCOLS[name], joint_cells=num_cells)
    grid = MapGrid.stretched((height, width), (height * CELL_PX, width * CELL_PX))
    points_J2 = np.array([[60.0, 40.0], [100.0, 63.0], [np.nan, np.nan]])
    first = joints_to_grid(points_J2, grid, protocol)
    start_J2, _ = joints_from_grid(first, grid, protocol)
    alone = [(y, x) for y, x in (first[1:].sum(dim=0) > 0).nonzero().tolist()]
    maps = shifted(4, height, width, step, alone)
    for t, labels_KHW in enumerate(propagate(maps, {0: all_given(first)}, protocol)):
        found_J2, is_found_J = joints_from_grid(labels_KHW, grid, protocol)
        expected_J2 = start_J2 + t * CELL_PX * np.array(step[::-1])
        np.testing.assert_allclose(found_J2[:2], expected_J2[:2], rtol=0, atol=tolerance_px)
        assert is_found_J.tolist() == [True, True, False]


@pytest.mark.parametrize("name", DISTINCT)
def test_all_cells_of_features_without_a_difference_give_the_mean_label(name: str) -> None:
    protocol = replace(PROTOCOLS[name], top_k=0, radius_cells=0.0, feedback="soft", num_previous=2)
    first = soft(blocks(9, 14))
    _, *later = propagate([torch.ones(4, 9, 14)] * 3, {0: all_given(first)}, protocol)
    for labels_KHW in later:
        mean_KHW = first.mean(dim=(1, 2), keepdim=True).expand_as(first)
        torch.testing.assert_close(labels_KHW, mean_KHW, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize("feedback", ["soft", "min_max", "hard"])
def test_a_video_is_as_the_plain_loop(name: str, feedback: str) -> None:
    """The radius and the context are shrunk to the grid, and two of three frames have a full context."""
    own = PROTOCOLS[name]
    protocol = replace(own, feedback=feedback, num_previous=2, radius_cells=min(own.radius_cells, 2.0))
    maps = [texture(5, 4, 6, seed=n) for n in range(5)]
    first = texture(3, 4, 6, seed=9).softmax(dim=0)
    expected = propagated([m.numpy() for m in maps], first.numpy(), protocol)
    for found, reference in zip(propagate(maps, {0: all_given(first)}, protocol), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), reference, atol=2e-5)


@pytest.mark.parametrize(("first_frame", "primed", "num_previous"), CONTEXTS)
def test_every_context_is_as_the_plain_loop(first_frame: bool, primed: bool, num_previous: int) -> None:
    protocol = PropagationProtocol(
        first_frame=first_frame, primed=primed, num_previous=num_previous, radius_cells=2.0, top_k=4, temperature=0.3
    )
    maps = [texture(5, 4, 6, seed=n) for n in range(6)]
    first = texture(3, 4, 6, seed=9).softmax(dim=0)
    expected = propagated([m.numpy() for m in maps], first.numpy(), protocol)
    for found, reference in zip(propagate(maps, {0: all_given(first)}, protocol), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), reference, atol=1e-5)


def test_only_the_first_frame_may_be_the_context() -> None:
    protocol = PropagationProtocol(num_previous=0, radius_cells=0.0, top_k=3)
    maps = [texture(5, 4, 6, seed=n) for n in range(4)]
    first = texture(3, 4, 6, seed=9).softmax(dim=0)
    found = list(propagate(maps, {0: all_given(first)}, protocol))
    alone = list(propagate([maps[0], maps[3]], {0: all_given(first)}, protocol))
    torch.testing.assert_close(found[3], alone[1])


def test_maps_are_read_one_by_one_and_no_more_than_the_context_is_held() -> None:
    num_read = 0

    def maps() -> Iterator[Tensor]:
        nonlocal num_read
        for n in range(12):
            num_read += 1
            yield texture(5, 4, 6, seed=n)

    for n, _ in enumerate(propagate(maps(), {0: all_given(soft(blocks(4, 6)))}, PropagationProtocol(num_previous=2))):
        assert num_read == n + 1
        assert sum(type(held) is FrameCells for held in gc.get_objects()) <= 3  # the first one and two before
    assert num_read == 12


# ---- objects that are given later


def test_an_object_that_is_given_later_is_carried_on_from_there() -> None:
    height, width = 9, 14
    position = torch.eye(height * width).unflatten(1, (height, width))
    mask_HW = blocks(height, width)
    only_first = np.where(mask_HW == 1, 1, 0).astype(np.uint8)
    first = F.one_hot(torch.from_numpy(only_first).long(), 3).permute(2, 0, 1).float()
    late = torch.zeros_like(first)
    late[2] = torch.from_numpy(mask_HW == 2)
    given = {0: Given(first, torch.tensor([True, True, False])), 3: Given(late, torch.tensor([False, False, True]))}
    protocol = PropagationProtocol(num_previous=3, primed=True, top_k=2)
    for t, labels_KHW in enumerate(propagate([position] * 7, given, protocol)):
        expected = only_first if t < 3 else mask_HW
        torch.testing.assert_close(labels_KHW.sum(dim=0), torch.ones(height, width))
        assert np.array_equal(labels_KHW.argmax(dim=0).numpy(), expected)


def given_late(num_frames: int, late: int, protocol: PropagationProtocol, maps: Sequence[Tensor]) -> list[np.ndarray]:
    """Found masks where the first object of ``blocks`` is given in frame 0 and the second one in a later one."""
    mask_HW = blocks(*maps[0].shape[1:])
    first, second = (soft(np.where(mask_HW == number, number, 0)) for number in (1, 2))
    first = F.pad(first, (0, 0, 0, 0, 0, 3 - len(first)))
    given = {
        0: Given(first, torch.tensor([False, True, False])),
        late: Given(second, torch.tensor([False, False, True])),
    }
    return [labels_KHW.argmax(dim=0).numpy() for labels_KHW in propagate(maps[:num_frames], given, protocol)]


@pytest.mark.parametrize("name", DISTINCT)
def test_an_object_that_stands_still_and_is_given_late_is_followed(name: str) -> None:
    """It was to be seen all the time, in frame 0 too, whose background knew nothing of it."""
    height, width = 9, 14
    protocol = replace(PROTOCOLS[name], normalization="l2")
    still = texture(96, height, width)
    found = given_late(12, 5, protocol, [still] * 12)
    for mask_HW in found[5:]:
        assert np.array_equal(mask_HW, blocks(height, width))
    assert all(
        np.array_equal(mask_HW == 1, blocks(height, width) == 1) and not (mask_HW == 2).any() for mask_HW in found[:5]
    )


def test_an_object_that_was_lost_is_put_right_by_a_mask_that_is_given_again() -> None:
    """A wrong mask was carried on to frame 4; the right one of frame 5 outweighs what the frames before it were told."""
    height, width = 9, 14
    mask_HW = np.where(blocks(height, width) == 2, 1, 0).astype(np.uint8)
    wrong_HW = np.roll(mask_HW, 6, axis=1)
    wrong, right = (Given(soft(labels_HW), torch.tensor([False, True])) for labels_HW in (wrong_HW, mask_HW))
    protocol = PropagationProtocol(num_previous=4, top_k=3, first_frame=False)
    found = propagate([texture(96, height, width)] * 10, {0: wrong, 5: right}, protocol)
    for t, labels_KHW in enumerate(found):
        assert np.array_equal(labels_KHW.argmax(dim=0).numpy(), wrong_HW if t < 5 else mask_HW)


def test_an_object_that_comes_into_view_takes_nothing_of_what_it_covered() -> None:
    """It enters in frame 4, goes on by a cell a frame, and uncovers what had been seen before, which is background again."""
    height, width = 9, 20
    ground, thing = texture(96, height, width), texture(96, 3, 3, seed=1)
    maps, masks = [], []
    for t in range(12):
        map_DHW, mask_HW = ground.clone(), np.zeros((height, width), dtype=np.uint8)
        if t >= 4:
            map_DHW[:, 3:6, t : t + 3], mask_HW[3:6, t : t + 3] = thing, 2
        mask_HW[0:2, 0:4] = 1
        maps.append(map_DHW)
        masks.append(mask_HW)
    first, late = (F.pad(soft(masks[0]), (0, 0, 0, 0, 0, 1)), soft(np.where(masks[4] == 2, 2, 0)))
    given = {0: Given(first, torch.tensor([False, True, False])), 4: Given(late, torch.tensor([False, False, True]))}
    protocol = PropagationProtocol(num_previous=20, top_k=5)
    for labels_KHW, mask_HW in zip(propagate(maps, given, protocol), masks, strict=True):
        assert np.array_equal(labels_KHW.argmax(dim=0).numpy(), mask_HW)


def test_a_given_object_cuts_the_others_and_an_object_can_be_given_again() -> None:
    first = torch.tensor([[[0.0, 0.0, 1.0]], [[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    late = torch.tensor([[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.25]]])
    again = torch.tensor([[[0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]])
    given = {
        0: Given(first, torch.tensor([True, True, False])),
        1: Given(late, torch.tensor([False, False, True])),
        2: Given(again, torch.tensor([False, True, False])),
    }
    maps = [torch.eye(3).reshape(3, 1, 3)] * 3
    protocol = PropagationProtocol(num_previous=1, first_frame=False, top_k=1)
    found = list(propagate(maps, given, protocol))
    torch.testing.assert_close(found[1], torch.tensor([[[0.0, 0.0, 0.75]], [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.25]]]))
    torch.testing.assert_close(found[2], torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]))


def test_frames_before_the_first_given_one_are_background() -> None:
    mask_HW = blocks(9, 14)
    position = torch.eye(9 * 14).unflatten(1, (9, 14))
    found = list(propagate([position] * 5, {2: all_given(soft(mask_HW))}, PropagationProtocol()))
    assert [labels.argmax(dim=0).any().item() for labels in found] == [False, False, True, True, True]
    assert np.array_equal(found[4].argmax(dim=0).numpy(), mask_HW)


# ---- what cannot be


@pytest.mark.parametrize(
    ("given", "shapes", "words"),
    [
        ({}, [(4, 3, 5)], "no frame has labels"),
        ({0: (3, 5), 4: (3, 5)}, [(4, 3, 5)] * 3, "given for frame 4, and the video has 3 frames"),
        ({0: (3, 6)}, [(4, 3, 5)], "frame 0 lie on 3 x 6 cells and its features on 3 x 5"),
        ({0: (3, 5), 1: (2, 5)}, [(4, 3, 5)] * 2, "frame 1 lie on 2 x 5 cells"),
        ({0: (3, 5)}, [(4, 3, 5), (4, 3, 6)], "must have one size"),
    ],
)
def test_what_does_not_go_together_is_told(
    given: dict[int, tuple[int, int]], shapes: list[tuple[int, ...]], words: str
) -> None:
    known = {t: all_given(soft(np.ones(shape, dtype=np.uint8))) for t, shape in given.items()}
    with pytest.raises(SsvidError, match=words):
        list(propagate([torch.ones(shape) for shape in shapes], known, PropagationProtocol()))


def test_a_wrong_protocol_is_told_at_once() -> None:
    with pytest.raises(RecipeError, match="temperature"):
        next(propagate([], {}, PropagationProtocol(temperature=0.0)))


def test_half_precision_tracks_alike() -> None:
    """Of a noisy moving texture 99 of 100 cells have the same label, and soft labels differ by 0.01 in the mean."""
    height, width = 16, 27
    mask_HW = blocks(height, width)
    maps = [m + 0.5 * texture(96, height, width, seed=50 + n) for n, m in enumerate(shifted(6, height, width, (1, 1)))]
    exact, half = (
        torch.stack(list(propagate(maps, {0: all_given(soft(mask_HW))}, PropagationProtocol(precision=precision))))
        for precision in ("float32", "float16")
    )
    assert (exact.argmax(dim=1) == half.argmax(dim=1)).float().mean() > 0.99
    assert 0 < (exact - half).abs().mean() < 0.01


def test_labels_of_a_frame_under_a_mask_have_a_class_for_the_background() -> None:
    grid = MapGrid.stretched((9, 14), (72, 112))
    pixels_HW = blocks(9, 14).repeat(8, axis=0).repeat(8, axis=1)
    torch.testing.assert_close(masks_to_grid(pixels_HW, (1, 2), grid, "area"), soft(blocks(9, 14)))
