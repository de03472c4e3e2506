"""Affinities and what lies at a place, against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssvid.transforms.correspondence import affinity, mean_dot, soft_inliers
from tests.transforms.test_warp import placed


def features(num_frames=1, B=2, D=24, side=10, seed=0):
    """Maps of length 1 in every cell, (B, D, N) each, float64."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(num_frames, B, D, side * side, dtype=torch.float64, generator=generator)
    return [*F.normalize(maps, dim=2)]


def test_affinity_is_the_formula_in_loops():
    (frame,), (patch,) = features(D=6, side=5), features(D=6, side=2, seed=1)
    got = affinity(frame, patch, 1.0)
    for b in range(2):
        for i in range(4):
            powers = [math.exp(sum(float(frame[b, d, j] * patch[b, d, i]) for d in range(6))) for j in range(25)]
            for j in range(25):
                assert float(got[b, j, i]) == pytest.approx(powers[j] / sum(powers), rel=1e-12)
    torch.testing.assert_close(affinity(frame, patch, 0.5), affinity(2 * frame, patch, 1.0))


def test_inliers_and_dot_products_in_loops():
    (frame,), (patch,) = features(D=6, side=5), features(D=6, side=2, seed=1)
    # The first cell of the square lies on cell (1, 2); the square covers whole cells.
    placement = placed([[1, 2], [1, 2]], side=5, patch=2)
    likely = affinity(frame, patch, 0.3)
    cells = [2 * 5 + 1, 2 * 5 + 2, 3 * 5 + 1, 3 * 5 + 2]
    inliers, dots = soft_inliers(patch, frame, placement, 0.3), mean_dot(patch, frame, placement)
    for b in range(2):
        assert float(inliers[b]) == pytest.approx(sum(float(likely[b, n, i]) for i, n in enumerate(cells)) / 4)
        products = [sum(float(patch[b, d, i] * frame[b, d, n]) for d in range(6)) for i, n in enumerate(cells)]
        assert float(dots[b]) == pytest.approx(sum(products) / 4)
