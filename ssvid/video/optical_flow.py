"""Optical flow from one frame to another, by OpenCV or by a network of torchvision.

Flow is float32 HW2: how far each pixel moves, u to the right and v down, in pixels. OpenCV comes with the extra ``motion``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ssvid.errors import SsvidError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

# From the frame that flow starts at and the one that it ends at, uint8 RGB HWC, to flow HW2.
Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]
_LEAST_DIS_PX = 16
_RAFT_MULTIPLE, _LEAST_RAFT_PX = 8, 128


# ---- OpenCV


def require_opencv() -> ModuleType:
    """OpenCV's module.

    Raises:
        SsvidError: it is not installed, or cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        reason = "" if importlib.util.find_spec("cv2") is None else f" ({error})"
        raise SsvidError(
            f"optical flow needs OpenCV, which cannot be imported{reason}. Install it with: pip install 'ssvid[motion]'"
        ) from error
    return cv2


@contextmanager
def one_thread(cv2: Any) -> Iterator[None]:
    """Other processes measure other videos meanwhile: threads within one would only be in their way."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class Dis:
    """Dense Inverse Search (Kroeger et al., ECCV 2016) with one of OpenCV's presets, "FAST" or "MEDIUM", on one thread.

    Frames with a side of less than 16 px are repeated at the border: the search needs as many.

    Args:
        every_px: search to the last pixel; the presets stop where two are one, which in small frames draws the flow of small objects
            towards that of what lies behind them.
    """

    def __init__(self, preset: str = "MEDIUM", *, every_px: bool = False) -> None:
        self._cv2: Any = require_opencv()
        self._search = self._cv2.DISOpticalFlow_create(getattr(self._cv2, f"DISOPTICAL_FLOW_PRESET_{preset}"))
        if every_px:
            self._search.setFinestScale(0)

    def __call__(self, start_HW: np.ndarray, end_HW: np.ndarray) -> np.ndarray:
        """Flow HW2 from one gray frame to another."""
        height, width = start_HW.shape
        pad = [(0, max(0, _LEAST_DIS_PX - height)), (0, max(0, _LEAST_DIS_PX - width))]
        start_HW, end_HW = (np.pad(gray_HW, pad, mode="edge") for gray_HW in (start_HW, end_HW))
        with one_thread(self._cv2):
            flow_HW2: np.ndarray = self._search.calc(start_HW, end_HW, None)[:height, :width]
        return flow_HW2

    def of_colors(self, start_HWC: np.ndarray, end_HWC: np.ndarray) -> np.ndarray:
        """The same of frames in color, of their gray values."""
        gray = (self._cv2.cvtColor(frame_HWC, self._cv2.COLOR_RGB2GRAY) for frame_HWC in (start_HWC, end_HWC))
        return self(*gray)


def resized(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame at another size: means of areas where it shrinks, bilinear where it grows."""
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    cv2: Any = require_opencv()
    kind = cv2.INTER_AREA if height < frame_HWC.shape[0] else cv2.INTER_LINEAR
    small: np.ndarray = cv2.resize(frame_HWC, (width, height), interpolation=kind)
    return small


# ---- torchvision


class Raft:
    """RAFT (Teed & Deng, ECCV 2020) by torchvision, its default weights, 12 updates, on the processor, one thread.

    Frames are repeated at the right and below up to a multiple of 8 and to 128 px. The weights are taken from torch's
    folder of downloads and are never downloaded.

    Raises:
        SsvidError: they are not there.
    """

    def __init__(self, name: str) -> None:
        import torch
        from torchvision.models import get_model, get_model_weights

        self._torch = torch
        weights = get_model_weights(name).DEFAULT
        file = os.path.join(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
        if not os.path.isfile(file):
            raise SsvidError(
                f"flow by {name} needs torchvision's weights, and there is no {file}. Nothing is downloaded unasked: put "
                f"{weights.url} there (torch.hub.load_state_dict_from_url does), or take --method dis, which needs none."
            )
        self._network = get_model(name, weights=None).eval()
        self._network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))

    def __call__(self, start_HWC: np.ndarray, end_HWC: np.ndarray) -> np.ndarray:
        """Flow HW2 from one frame to another."""
        height, width = start_HWC.shape[:2]
        with self._torch.inference_mode():
            flow_12HW = self._network(self._prepared(start_HWC), self._prepared(end_HWC))[-1]
        flow_HW2: np.ndarray = flow_12HW[0, :, :height, :width].permute(1, 2, 0).numpy()
        return flow_HW2

    def _prepared(self, frame_HWC: np.ndarray) -> Tensor:
        """Float 1CHW in [-1, 1], padded."""
        sides = (max(_LEAST_RAFT_PX, -(-side // _RAFT_MULTIPLE) * _RAFT_MULTIPLE) for side in frame_HWC.shape[:2])
        pad = [(0, side - own) for side, own in zip(sides, frame_HWC.shape[:2], strict=True)]
        padded_HWC = np.pad(frame_HWC, [*pad, (0, 0)], mode="edge")
        return self._torch.from_numpy(padded_HWC).permute(2, 0, 1)[None].float() / 127.5 - 1


def estimator(method: str) -> Estimate:
    """What measures flow from one frame in color to another.

    Args:
        method: one of ``ssvid.video.flow.METHODS``.

    Raises:
        SsvidError: OpenCV, or the weights of the network, are not there.
    """
    require_opencv()  # which brings frames to their size, whatever measures flow
    return Dis().of_colors if method == "dis" else _raft(method)


_raft = cache(Raft)  # one process measures many videos
