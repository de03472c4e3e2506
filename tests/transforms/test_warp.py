"""Turned squares against plain loops, against torch's own grid_sample, and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssvid.transforms.warp import (
    alignment_loss,
    bilinear_weights,
    cell_centers,
    crop_frames,
    crop_map,
    crop_squares_of,
    fit_square,
    keep_inside,
    make_placement,
    placed_points,
    placement_angle,
)


def some_placements(num=4, scale=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    center = 1.2 * torch.rand(num, 2, generator=generator, dtype=torch.float64) - 0.6
    angle = 2 * torch.rand(num, generator=generator, dtype=torch.float64) - 1
    return make_placement(center, angle, scale), center, angle


def placed(cells_xy, side=10, patch=4, angle=0.0):
    """The placement of a square whose first cell is the given one; (B, 2, 3)."""
    center = (2 * torch.tensor(cells_xy, dtype=torch.float64) + patch) / side - 1
    return make_placement(center, torch.full((len(center),), angle, dtype=torch.float64), patch / side)


def test_cells_lie_row_by_row_between_the_edges():
    assert cell_centers(2, torch.zeros(())).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    assert cell_centers(1, torch.zeros(())).tolist() == [[0, 0]]


def test_a_placement_turns_scales_and_shifts():
    placement = make_placement(torch.tensor([[0.3, -0.2]]), torch.tensor([math.pi / 2]), 0.5)
    right, down = placed_points(placement, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))[0].tolist()
    assert right == pytest.approx([0.3, 0.3], abs=1e-6)  # what was at the right is now below
    assert down == pytest.approx([-0.2, -0.2], abs=1e-6)
    placements, _, angle = some_placements()
    torch.testing.assert_close(placement_angle(placements), angle)


def test_weights_are_the_bilinear_ones_of_a_loop():
    placements, center, angle = some_placements(num=3)
    side, patch = 5, 3
    got = bilinear_weights(placed_points(placements, cell_centers(patch, placements)), side)
    assert got.shape == (3, 25, 9)
    for b in range(3):
        cos, sin = math.cos(float(angle[b])), math.sin(float(angle[b]))
        for m in range(9):
            u, v = (2 * (m % 3) + 1) / 3 - 1, (2 * (m // 3) + 1) / 3 - 1
            x = 0.4 * (cos * u - sin * v) + float(center[b, 0])
            y = 0.4 * (sin * u + cos * v) + float(center[b, 1])
            column = min(max(((x + 1) * side - 1) / 2, 0), side - 1)
            row = min(max(((y + 1) * side - 1) / 2, 0), side - 1)
            for n in range(25):
                want = max(0, 1 - abs(row - n // side)) * max(0, 1 - abs(column - n % side))
                assert float(got[b, n, m]) == pytest.approx(want, abs=1e-12)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(3, 9, dtype=torch.float64))


def test_a_crop_is_that_of_grid_sample_with_borders_repeated():
    placements, *_ = some_placements(num=4, scale=0.7)
    maps = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.manual_seed(1))
    grid = F.affine_grid(placements, [4, 3, 4, 4], align_corners=False)
    want = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(crop_map(maps.flatten(2), placements, 4).unflatten(2, (4, 4)), want)
    torch.testing.assert_close(crop_frames(maps, placements, 4), want)


def test_a_square_on_whole_cells_is_cut_out_exactly():
    maps = torch.randn(1, 2, 10, 10, dtype=torch.float64, generator=torch.manual_seed(2))
    # Cells 3..6 across and 5..8 down: their middle is (5 / 5 - 1, 7 / 5 - 1).
    placement = make_placement(
        torch.tensor([[0.0, 0.4]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0.4
    )
    torch.testing.assert_close(crop_map(maps.flatten(2), placement, 4).unflatten(2, (4, 4)), maps[..., 5:9, 3:7])


def test_gradients_are_those_of_finite_differences():
    maps = torch.randn(2, 2, 16, dtype=torch.float64, requires_grad=True, generator=torch.manual_seed(3))
    placements = some_placements(num=2)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda m, p: crop_map(m, p, 2), (maps, placements))


def test_a_turned_square_is_kept_inside():
    rng = np.random.default_rng(0)
    center = torch.from_numpy(rng.uniform(-1, 1, (500, 2)))
    angle = torch.from_numpy(rng.uniform(-0.8, 0.8, 500))
    kept = keep_inside(center, angle, 0.4)
    corners = make_placement(kept, angle, 0.4)
    for u in (-1.0, 1.0):
        for v in (-1.0, 1.0):
            at = corners[:, :, 0] * u + corners[:, :, 1] * v + corners[:, :, 2]
            assert float(at.abs().max()) <= 1 + 1e-9
    inside = (center.abs() <= 0.4).all(dim=1)  # 1 - 0.4 sqrt 2 = 0.43
    assert torch.equal(kept[inside], center[inside]) and inside.sum() > 50


def test_a_fit_has_a_finite_gradient_where_the_affinity_says_nothing():
    logits = torch.zeros(1, 25, 4, dtype=torch.float64, requires_grad=True)
    center, angle = fit_square(logits.softmax(dim=1), 0.4)
    assert center.abs().max() < 1e-12 and angle.abs().max() < 1e-9
    (center.sum() + angle.sum()).backward()
    assert float(logits.grad.abs().max()) < 100


def test_the_gradient_of_a_fit_is_that_of_finite_differences():
    logits = torch.randn(2, 16, 4, dtype=torch.float64, requires_grad=True, generator=torch.manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: fit_square((2 * x).softmax(dim=1), 0.5), (logits,))


def test_alignment_is_the_mean_over_a_grid_in_a_loop():
    one, other = (placed([[2, 3]], angle=a)[0] for a in (0.3, -0.5))
    other = other + 0.1
    total = 0.0
    for i in range(20):
        for j in range(20):
            u, v = 2 * j / 19 - 1, 2 * i / 19 - 1
            ends = [[float(m[r, 0] * u + m[r, 1] * v + m[r, 2]) for r in range(2)] for m in (one, other)]
            total += sum((a - b) ** 2 for a, b in zip(*ends, strict=True))
    assert float(alignment_loss(one[None], other[None])) == pytest.approx(total / 400, rel=1e-12)
    shift = placed([[2, 3]]), placed([[4, 3]])  # two cells are 0.4
    assert float(alignment_loss(*shift)) == pytest.approx(0.16, rel=1e-12)


def test_several_squares_of_a_frame_are_those_cut_out_one_by_one():
    frames = torch.rand(2, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    center, angle = (some_placements(8)[i] for i in (1, 2))
    scales = torch.linspace(0.2, 0.6, 8, dtype=torch.float64)
    placement = make_placement(center, angle, scales).unflatten(0, (2, 4))
    cut = crop_squares_of(frames, placement, 5)
    assert cut.shape == (2, 3, 4, 5, 5)
    for n in range(4):
        torch.testing.assert_close(cut[:, :, n], crop_frames(frames, placement[:, n], 5))
    for number, scale in enumerate(scales.tolist()):  # a tensor of scales has one for each square
        alone = make_placement(center[number : number + 1], angle[number : number + 1], scale)
        torch.testing.assert_close(placement.flatten(0, 1)[number : number + 1], alone)
