"""Figures of layers by hand."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from ssvid.layers.omnimatte.measures import explained, half_step, iou, is_in_order, mean_alpha, psnr, removal_psnr


def test_psnr_as_another_library_has_it():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3, 8, 9, 3)).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255))
    where = rng.random((3, 8, 9)) < 0.3
    assert psnr(a, b, where) == pytest.approx(peak_signal_noise_ratio(a[where], b[where], data_range=255))
    assert psnr(a, a) == float("inf")
    assert psnr(np.zeros((2, 2)), np.full((2, 2), 25.5)) == pytest.approx(20.0)


def test_regions():
    alphas = np.array([[[0.0, 0.3], [0.2, 1.0]]])
    assert mean_alpha(alphas, np.array([[[False, True], [True, False]]])) == pytest.approx(0.25)
    assert iou(alphas, np.array([[[False, True], [True, False]]])) == pytest.approx(1 / 3)
    assert iou(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool)) == 0


def test_removal_stands_beside_what_takes_no_model():
    truth = np.full((1, 4, 4, 3), 100, np.uint8)
    frames = truth.copy()
    frames[0, 0, 0], frames[0, 0, 1] = 200, 80  # an object and its shadow
    mask, region = np.zeros((2, 1, 4, 4), bool)
    mask[0, 0, 0], region[0, 0, :2] = True, True
    found = removal_psnr(truth, truth, frames, mask, region)
    assert found["removal"] == float("inf")
    assert found["untouched"] == pytest.approx(10 * np.log10(255**2 / ((100**2 + 20**2) / 2)))
    assert found["mask_only"] == pytest.approx(10 * np.log10(255**2 / (20**2 / 2)))


def test_the_share_of_an_effect():
    clean, frames = np.full((1, 3, 3, 3), 200.0), np.full((1, 3, 3, 3), 100.0)
    where = np.zeros((1, 3, 3), bool)
    where[0, 1] = True
    for share in (0.0, 0.3, 1.0):
        assert explained(clean + share * (frames - clean), frames, clean, where) == pytest.approx(share)
    assert half_step([25, 50, 75], [0.1, 0.5, 0.4]) == 50
    assert half_step([25, 50, 75], [0.1, 0.3, 0.7]) == 62.5
    assert half_step([25, 50], [0.6, 0.7]) == 25
    assert half_step([25, 50], [0.1, 0.2]) is None


def test_one_after_the_other():
    order = ("near", "far", "own")
    assert is_in_order({"near": 50, "far": 75, "own": 100}, order)
    assert is_in_order({"near": 50, "far": 75, "own": None}, order)
    assert not is_in_order({"near": 50, "far": None, "own": None}, order)
    assert not is_in_order({"near": 75, "far": 75, "own": 100}, order)
    assert not is_in_order({"near": None, "far": 75, "own": 100}, order)
