"""How well layers are, against scenes whose layers are known, and what the same figures are without any model.

Pictures are uint8 or float in [0, 255]; alphas in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

OBJECT_ALPHA = 0.25  # a pixel with more is of a layer


def psnr(found: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of all pixels or of those where ``where`` (without the axis of colors) is true."""
    squared = (found.astype(np.float64) - truth.astype(np.float64)) ** 2
    error = float(squared.mean() if where is None else squared[where].mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def mean_alpha(alphas: np.ndarray, where: np.ndarray) -> float:
    """Mean alpha of a region: of a layer in its own shadow, or in another one's."""
    return float(alphas[where].mean())


def iou(alphas: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of what a layer covers and what it should, over all frames."""
    found = alphas > OBJECT_ALPHA
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def removal_psnr(
    removed_THWC: np.ndarray,
    truth_THWC: np.ndarray,
    frames_THWC: np.ndarray,
    mask_THW: np.ndarray,
    region_THW: np.ndarray,
) -> dict[str, float]:
    """How well an object was removed, within the region where it and its effects were, beside what takes no model.

    Args:
        truth_THWC: the scene without it. mask_THW: the object without its effects. region_THW: with them.

    Returns:
        removal; untouched, the video as it is; mask_only, the object alone replaced by the truth, its effects left.
    """
    masked = np.where(mask_THW[..., None], truth_THWC, frames_THWC)
    pictures = {"removal": removed_THWC, "untouched": frames_THWC, "mask_only": masked}
    return {name: psnr(found, truth_THWC, region_THW) for name, found in pictures.items()}


def explained(found_THWC: np.ndarray, frames_THWC: np.ndarray, clean_THWC: np.ndarray, where_THW: np.ndarray) -> float:
    """Share of an effect that is reconstructed: 0 where the clean background stands in its place, 1 where the video does.

    The part of the video's difference to the clean background that ``found`` has too, by least squares over the region.
    """
    effect = (frames_THWC.astype(np.float64) - clean_THWC)[where_THW]
    reached = (found_THWC.astype(np.float64) - clean_THWC)[where_THW]
    return float((effect * reached).sum() / (effect**2).sum())


def half_step(steps: Sequence[int], shares: Sequence[float]) -> float | None:
    """The step at which half of an effect is reconstructed for the first time, on a straight line between the steps that were asked; None
    if never.
    """
    found = next((place for place, share in enumerate(shares) if share >= 0.5), None)
    if not found:
        return None if found is None else float(steps[0])
    around = slice(found - 1, found + 1)
    return float(np.interp(0.5, shares[around], steps[around]))


def is_in_order(halves: Mapping[str, float | None], order: Sequence[str]) -> bool:
    """Whether effects were half reconstructed one after the other; what never was comes last, once."""
    reached = [np.inf if halves[name] is None else float(halves[name]) for name in order]  # type: ignore[arg-type]
    return all(before < after for before, after in zip(reached, reached[1:], strict=False))
