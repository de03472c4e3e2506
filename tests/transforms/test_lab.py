"""Lab against scikit-image, gray against Pillow."""

import numpy as np
import torch
from PIL import Image

from ssvid.transforms.lab import lab_to_rgb, rgb_to_lab, to_gray


def test_lab_is_that_of_scikit_image_and_of_the_textbook():
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb[0, :6] = [[0, 0, 0], [255, 255, 255], [1, 2, 3], [255, 0, 0], [10, 10, 10], [0, 0, 255]]
    got = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1).double() / 255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, rgb2lab(rgb), atol=1e-3)
    np.testing.assert_allclose(got[0, 1], [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(got[0, 3], [53.24, 80.09, 67.20], atol=0.02)  # sRGB red


def test_lab_in_float32_is_near_enough_and_goes_back():
    rgb = torch.rand(5, 3, 16, 16, generator=torch.manual_seed(0))
    lab = rgb_to_lab(rgb)
    torch.testing.assert_close(lab, rgb_to_lab(rgb.double()).float(), atol=2e-3, rtol=0)
    torch.testing.assert_close(lab_to_rgb(lab), rgb, atol=1e-3, rtol=0)


def test_colors_outside_srgb_are_clipped():
    rgb = lab_to_rgb(torch.tensor([50.0, 120.0, -120.0]).view(3, 1, 1))
    assert 0 <= float(rgb.min()) and float(rgb.max()) <= 1


def test_gray_is_that_of_pillow_in_all_three_channels():
    rgb = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    gray = to_gray(torch.from_numpy(rgb).permute(2, 0, 1).float())
    want = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float32)
    for channel in gray:
        assert float((channel - torch.from_numpy(want)).abs().max()) <= 1.0
