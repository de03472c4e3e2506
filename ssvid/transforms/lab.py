"""CIE L*a*b* and gray: what of a picture is color, and what is light."""

from __future__ import annotations

import torch
from torch import Tensor

# sRGB (IEC 61966-2-1) to CIE 1931 XYZ, and the D65 white that a, b = 0 stands for.
_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as decoders and PIL make gray


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE L*a*b* (D65, 2 degrees) of sRGB pixels.

    Args:
        rgb: float in [0, 1], axes (..., 3, H, W).

    Returns:
        Same shape: L in [0, 100], a and b within about [-108, 99]; a gray pixel has a = b = 0 (to 0.01).
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(_RGB_TO_XYZ) / rgb.new_tensor(_WHITE)[:, None]
    xyz = _mix(matrix, linear)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse of ``rgb_to_lab``; colors that sRGB lacks are clipped to [0, 1]. Axes (..., 3, H, W)."""
    light, a, b = lab.unbind(-3)
    y = (light + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], dim=-3)
    xyz = torch.where(root > 0.2068966, root.clamp(min=0) ** 3, (root - 16 / 116) / 7.787)
    matrix = torch.linalg.inv(lab.new_tensor(_RGB_TO_XYZ)) * lab.new_tensor(_WHITE)[None, :]
    linear = _mix(matrix, xyz).clamp(0, 1)
    curved = 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)


def _mix(matrix_33: Tensor, pixels: Tensor) -> Tensor:
    """A linear map of the channels. Sums, not a matrix product: autocast would round that to 8 bits."""
    return (matrix_33[:, :, None, None] * pixels.unsqueeze(-4)).sum(dim=-3)


def to_gray(frames: Tensor) -> Tensor:
    """Luma 0.299 R + 0.587 G + 0.114 B in all three channels, so that the network stays one for RGB. Axes (..., 3, H, W)."""
    luma = (frames * frames.new_tensor(LUMA)[:, None, None]).sum(dim=-3, keepdim=True)
    return luma.expand(frames.shape)
