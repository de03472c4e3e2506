"""What stands beside a network that follows labels: labels that stay where they are, pixels in the place of features, and flow.

They are subjects of the table as networks are. Two of them look at no features: they carry labels themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, StageInfo
from ssvid.evals.label_propagation.labels import with_given
from ssvid.features.maps import Size
from ssvid.video.optical_flow import Dis, require_opencv

# Of photographs, as networks are shown them: around 0, so that the cosine of two patches tells more than that both are light.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Carrier(Protocol):
    """Whoever carries labels through a video. Frames are uint8 HWC, all of one size, and are read one by one."""

    def masks(
        self, frames: Iterable[np.ndarray], size_px: Size, given: Mapping[int, np.ndarray], ids: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """The ids of each frame, uint8 HW. given: frame -> ids HW of objects that are set anew there. ids: of all objects."""

    def joints(self, frames: Iterable[np.ndarray], size_px: Size, points_J2: np.ndarray) -> np.ndarray:
        """x and y of the joints in each frame, TJ2 in pixels, NaN where lost. points_J2: in the first one."""

    def points(
        self, frames: Iterable[np.ndarray], size_px: Size, points_Q3: np.ndarray, *, both_ways: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """x and y of points in each frame, TQ2 in pixels, and whether they are seen, TQ. points_Q3: frame, x and y of each."""


class Stand(Backbone):
    """What carries labels without features, in the place of a network. carrier: who does it."""

    carrier: ClassVar[Carrier]

    def __init__(self, name: str) -> None:
        super().__init__(BackboneInfo(name, (StageInfo("none", 1, 1, 1),)))
        self.provenance = {"content_ids": []}


# ---- nothing moves


class _Still:
    """Labels stay where they were given."""

    def masks(
        self, frames: Iterable[np.ndarray], size_px: Size, given: Mapping[int, np.ndarray], ids: Sequence[int]
    ) -> Iterator[np.ndarray]:
        labels_HW = np.zeros(size_px, np.uint8)
        for frame, _ in enumerate(frames):
            if frame in given:
                labels_HW = with_given(labels_HW, given[frame])
            yield labels_HW

    def joints(self, frames: Iterable[np.ndarray], size_px: Size, points_J2: np.ndarray) -> np.ndarray:
        return np.stack([points_J2 for _ in frames])

    def points(
        self, frames: Iterable[np.ndarray], size_px: Size, points_Q3: np.ndarray, *, both_ways: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        points_TQ2 = np.stack([points_Q3[:, 1:] for _ in frames])
        return points_TQ2, np.ones(points_TQ2.shape[:2], dtype=bool)


class CopiedLabels(Stand):
    """The given labels, copied to all frames; points are always seen. Any use of the video beats it, or is none."""

    carrier = _Still()

    def __init__(self) -> None:
        super().__init__("identity")


# ---- flow


class _Flow:
    """Labels go with the optical flow from frame to frame: Dense Inverse Search, preset MEDIUM."""

    def masks(
        self, frames: Iterable[np.ndarray], size_px: Size, given: Mapping[int, np.ndarray], ids: Sequence[int]
    ) -> Iterator[np.ndarray]:
        cv2, dis = require_opencv(), Dis()
        labels_HW, before = np.zeros(size_px, np.uint8), None
        for frame, frame_HWC in enumerate(frames):
            gray = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY)
            if before is not None:
                back_HW2 = dis(gray, before)
                x_HW, y_HW = _places(back_HW2)
                border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": 0}
                labels_HW = cv2.remap(labels_HW, x_HW, y_HW, cv2.INTER_NEAREST, **border)
            before = gray
            if frame in given:
                labels_HW = with_given(labels_HW, given[frame])
            yield labels_HW

    def joints(self, frames: Iterable[np.ndarray], size_px: Size, points_J2: np.ndarray) -> np.ndarray:
        queries_J3 = np.column_stack([np.zeros(len(points_J2)), points_J2])
        return self.points(frames, size_px, queries_J3)[0]

    def points(
        self, frames: Iterable[np.ndarray], size_px: Size, points_Q3: np.ndarray, *, both_ways: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        cv2, dis = require_opencv(), Dis()
        starts_Q = np.rint(points_Q3[:, 0]).astype(int)
        points_TQ2: list[np.ndarray] = []
        back_T: list[np.ndarray] = []  # flow from each frame to the one before
        before = None
        for frame, frame_HWC in enumerate(frames):
            gray = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY)
            places_Q2 = points_Q3[:, 1:].astype(np.float64)
            if before is not None:
                moved_Q2 = _moved(cv2, points_TQ2[-1], dis(before, gray))
                places_Q2 = np.where((starts_Q < frame)[:, None], moved_Q2, places_Q2)
                if both_ways:
                    back_T.append(dis(gray, before).astype(np.float16))
            points_TQ2.append(places_Q2)
            before = gray
        for frame in range(len(back_T) - 1, -1, -1):
            earlier_Q2 = _moved(cv2, points_TQ2[frame + 1], back_T[frame].astype(np.float32))
            points_TQ2[frame] = np.where((starts_Q > frame)[:, None], earlier_Q2, points_TQ2[frame])
        found_TQ2 = np.stack(points_TQ2)
        height, width = size_px
        is_seen_TQ = np.asarray(((found_TQ2 >= -0.5) & (found_TQ2 < (width - 0.5, height - 0.5))).all(axis=-1))
        if not both_ways:
            is_seen_TQ &= np.arange(len(found_TQ2))[:, None] >= starts_Q
        return found_TQ2, is_seen_TQ


def _places(flow_HW2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's flow ends: x and y, float32."""
    y_H1, x_1W = np.mgrid[: flow_HW2.shape[0], : flow_HW2.shape[1]].astype(np.float32)
    return x_1W + flow_HW2[..., 0], y_H1 + flow_HW2[..., 1]


def _moved(cv2: Any, points_Q2: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    """Points after the flow at their places, between pixels too; outside the frame that of its border."""
    x_Q1, y_Q1 = (np.nan_to_num(points_Q2[:, axis, None]).astype(np.float32) for axis in (0, 1))
    found_Q12 = cv2.remap(flow_HW2, x_Q1, y_Q1, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return points_Q2 + found_Q12[:, 0]


class FlowChain(Stand):
    """Labels that go with optical flow, chained from frame to frame: no learning, no memory, and a hard baseline.

    A mask is fetched back from the frame before, nearest pixel; a point moves on and is seen while it is inside the frame.
    """

    carrier = _Flow()

    def __init__(self) -> None:
        super().__init__("optical flow")


# ---- pixels


class PixelPatches(Backbone):
    """Raw pixels in the place of features: the patch of pixels under each cell, stretched out.

    Colors are normalized as networks are shown them. What is missing at the right and below repeats the border.

    Args:
        stride_px: side of a patch, and pixels from one cell to the next.
    """

    per_frame = True

    def __init__(self, stride_px: int) -> None:
        stage = StageInfo("patches", 3 * stride_px**2, stride_px, 1)
        super().__init__(BackboneInfo("raw pixels", (stage,), mean=_MEAN, std=_STD))
        self.stride_px = stride_px
        self.provenance = {"content_ids": []}

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        frames = x_BCTHW.transpose(1, 2).flatten(0, 1)
        right, below = (-side % self.stride_px for side in (x_BCTHW.shape[4], x_BCTHW.shape[3]))
        patches = F.pixel_unshuffle(F.pad(frames, (0, right, 0, below), mode="replicate"), self.stride_px)
        return patches.unflatten(0, (len(x_BCTHW), x_BCTHW.shape[2])).transpose(1, 2)
