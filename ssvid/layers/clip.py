"""The frames of a short video with a mask for every object: what all layered models are fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssvid.errors import DataError
from ssvid.video.optical_flow import resized


@dataclass(frozen=True)
class LayerClip:
    """Frames of one video, and where its objects are in them.

    frames_THWC: uint8 RGB. masks_NTHW: bool, one for each of N objects, that in front first. names: of the objects.
    fps: frames per second of these frames. first_frame, stride_frames: which frames of the video they are.

    Raises:
        DataError: shapes do not belong together, or an object is in no frame.
    """

    frames_THWC: np.ndarray
    masks_NTHW: np.ndarray
    names: tuple[str, ...]
    fps: float
    first_frame: int = 0
    stride_frames: int = 1

    def __post_init__(self) -> None:
        frames, masks = self.frames_THWC, self.masks_NTHW
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise DataError(
                f"frames have shape {frames.shape} and type {frames.dtype}; they must be uint8 (T, H, W, 3)"
            )
        want = (len(self.names), *frames.shape[:3])
        if masks.shape != want or masks.dtype != np.bool_:
            raise DataError(
                f"masks have shape {masks.shape} and type {masks.dtype}; for {len(self.names)} objects they must be bool of "
                f"shape {want}"
            )
        for name, mask_THW in zip(self.names, masks, strict=True):
            if not mask_THW.any():
                raise DataError(
                    f"object {name} has an empty mask in every frame. Paint it where it is seen, or leave it out."
                )

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames_THWC)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.frames_THWC.shape[1:3]
        return height, width

    def resized(self, height: int, width: int) -> LayerClip:
        """At another size: frames by means of areas, a mask where at least half of a pixel is of the object.

        An object that is thinner than a pixel keeps the pixels that hold most of it.
        """
        if (height, width) == self.size:
            return self
        frames = np.stack([resized(frame_HWC, height, width) for frame_HWC in self.frames_THWC])
        masks = np.stack([[_small_mask(mask_HW, height, width) for mask_HW in own] for own in self.masks_NTHW])
        return replace(self, frames_THWC=frames, masks_NTHW=masks)


def _small_mask(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    share_HW = resized(mask_HW.astype(np.float32), height, width)
    found: np.ndarray = share_HW >= 0.5
    if mask_HW.any() and not found.any():
        found = share_HW >= share_HW.max()
    return found
