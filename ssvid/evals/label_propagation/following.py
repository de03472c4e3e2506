"""Masks and points of one video followed by a network: frames are sized, features read, labels carried on, and sized back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat, tee
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import Backbone
from ssvid.errors import SsvidError
from ssvid.evals.label_propagation.labels import (
    joints_from_grid,
    joints_to_grid,
    masks_from_grid,
    masks_to_grid,
    resize_labels,
    with_given,
)
from ssvid.evals.label_propagation.points import each_frame_points, track_points
from ssvid.evals.label_propagation.propagation import Given, propagate
from ssvid.evals.label_propagation.sizing import frame_size, resize_frame
from ssvid.features.maps import MapGrid, Size, read_maps, with_stride
from ssvid.features.propagation_protocol import PropagationProtocol, check_protocol
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol

_MOST_KEPT_BYTES = 2**28  # of the maps of one video


class FoundInFrame(NamedTuple):
    """What was found in one frame. labels_HW: ids, uint8; None where no mask is given. points_Q2: x and y in pixels of the
    video, NaN before the point is given. visible_Q: bool.
    """

    labels_HW: np.ndarray | None
    points_Q2: np.ndarray
    visible_Q: np.ndarray


class KeptMaps:
    """The maps of one video, from the first time that they are all read."""

    def __init__(self) -> None:
        self._maps: list[Tensor] | None = None

    def of(self, maps: Iterator[Tensor]) -> Iterator[Tensor]:
        """All maps of the video in turn; once they are kept, nothing is taken from ``maps``."""
        return self._keeping(maps) if self._maps is None else iter(self._maps)

    def _keeping(self, maps: Iterator[Tensor]) -> Iterator[Tensor]:
        kept: list[Tensor] = []
        room = _MOST_KEPT_BYTES
        for map_DHW in maps:
            room -= map_DHW.numel() * map_DHW.element_size()
            if room < 0:
                kept.clear()
            else:
                kept.append(map_DHW)
            yield map_DHW
        if room >= 0:
            self._maps = kept


@dataclass(frozen=True)
class Follower:
    """A frozen network under a protocol. Frames come as uint8 HWC, all of one size, and are read one by one.

    network: as ``of`` prepares it. batch_frames: in a pass. kept: of one video that is followed several times (``reading_once``).
    """

    network: Backbone
    protocol: PropagationProtocol
    device: str = "cpu"
    batch_frames: int = 4
    kept: KeptMaps | None = None

    @classmethod
    def of(cls, network: Backbone, protocol: PropagationProtocol, device: str = "cpu") -> Follower:
        """The network at the protocol's stride, where it can have it.

        Raises:
            RecipeError: a value of the protocol is not legal, or the network has no such stage.
        """
        check_protocol(protocol)
        finer = with_stride(network, protocol.stride_px, _stage_of(network, protocol))
        return cls(finer.eval(), protocol, device)

    def reading_once(self) -> Follower:
        """The same for one video that is followed several times: the network sees its frames once, where their maps take no more
        than 256 MB.
        """
        return replace(self, kept=KeptMaps())

    @property
    def stage(self) -> str:
        """Whose maps are compared: the protocol's, or the deepest that was trained."""
        return _stage_of(self.network, self.protocol)

    @property
    def stride_px(self) -> int:
        """Pixels from a cell to the next, of the frame that the network sees."""
        return self.network.info.stage(self.stage).stride_space

    def masks(
        self, frames: Iterable[np.ndarray], size_px: Size, given: Mapping[int, np.ndarray], ids: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """The ids of each frame, uint8 HW of the video's size; what is given is there as it was given, to the pixel.

        Args:
            size_px: of the frames. given: frame -> ids HW of that size: all objects that a mask holds are set anew there,
                the others are carried on. ids: of all objects, in ascending order.

        Raises:
            SsvidError: frames differ in size, or a given frame is not there.
        """
        frame_px = frame_size(*size_px, self.protocol)
        first_DHW, maps = self._maps(frames, frame_px)
        yield from self._masks(maps, self._grid(first_DHW, frame_px), size_px, given, ids)

    def together(
        self,
        frames: Iterable[np.ndarray],
        size_px: Size,
        given: Mapping[int, np.ndarray],
        ids: Sequence[int],
        points_Q3: np.ndarray,
    ) -> Iterator[FoundInFrame]:
        """Masks as of ``masks`` and points as of ``points``, frame by frame: the network sees each frame once.

        Args:
            given, ids: of the masks; both empty where only points are followed. points_Q3: frame, x, y; of shape (0, 3) where
                only masks are.
        """
        frame_px = frame_size(*size_px, self.protocol)
        first_DHW, maps = self._maps(frames, frame_px)
        grid = self._grid(first_DHW, frame_px)
        maps, for_masks, for_points = tee(maps, 3)
        masks = self._masks(for_masks, grid, size_px, given, ids) if given else repeat(None)
        points: Iterable[tuple[np.ndarray, np.ndarray]] = repeat((np.zeros((0, 2)), np.zeros(0, dtype=bool)))
        if len(points_Q3):
            queries_Q3 = self._queries(points_Q3, size_px, frame_px)
            points = each_frame_points(for_points, queries_Q3, grid, self.protocol)
        for frame, (_, labels_HW, (places_Q2, visible_Q)) in enumerate(zip(maps, masks, points, strict=False)):
            points_Q2 = self._in_video(places_Q2, size_px, frame_px)
            points_Q2[points_Q3[:, 0] > frame] = np.nan
            yield FoundInFrame(labels_HW, points_Q2, visible_Q)

    def _masks(
        self,
        maps: Iterable[Tensor],
        grid: MapGrid,
        size_px: Size,
        given: Mapping[int, np.ndarray],
        ids: Sequence[int],
    ) -> Iterator[np.ndarray]:
        known = {frame: self._given(labels_HW, ids, grid) for frame, labels_HW in given.items()}
        decided_px = size_px if self.protocol.decision_size == "video" else grid.frame_px
        for frame, labels_KHW in enumerate(propagate(maps, known, self.protocol)):
            labels_HW = masks_from_grid(labels_KHW, ids, grid, decided_px, self.protocol)
            found_HW = resize_labels(labels_HW, size_px, self.protocol.score_resampling)
            yield with_given(found_HW, given[frame]) if frame in given else found_HW

    def joints(self, frames: Iterable[np.ndarray], size_px: Size, points_J2: np.ndarray) -> np.ndarray:
        """Joints of the first frame, followed as labels: x and y in each frame, TJ2 in pixels of the video; NaN where lost.

        Args:
            size_px: of the frames. points_J2: x, y of the joints in the first frame; NaN where unknown.
        """
        frame_px = frame_size(*size_px, self.protocol)
        first_DHW, maps = self._maps(frames, frame_px)
        grid = self._grid(first_DHW, frame_px)
        scale_2 = _scale(size_px, frame_px)
        labels_KHW = joints_to_grid(points_J2 * scale_2, grid, self.protocol)
        given = {0: Given(labels_KHW, torch.ones(len(labels_KHW), dtype=torch.bool))}
        found = [joints_from_grid(labels, grid, self.protocol)[0] for labels in propagate(maps, given, self.protocol)]
        return np.stack(found) / scale_2

    def points(
        self, frames: Iterable[np.ndarray], size_px: Size, points_Q3: np.ndarray, *, both_ways: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points from the frame in which they are given on; before it they are not visible.

        Args:
            size_px: of the frames. points_Q3: frame, and x, y in pixels of the video.
            both_ways: follow points to the frames before theirs, too; the maps of all frames are then held.

        Returns:
            points_TQ2 in pixels of the video, and visible_TQ.
        """
        frame_px = frame_size(*size_px, self.protocol)
        first_DHW, maps = self._maps(frames, frame_px)
        grid, queries_Q3 = self._grid(first_DHW, frame_px), self._queries(points_Q3, size_px, frame_px)
        found = track_points(maps, queries_Q3, grid, self.protocol, both_ways=both_ways)
        return self._in_video(found.points_TQ2, size_px, frame_px), found.visible_TQ

    @staticmethod
    def _queries(points_Q3: np.ndarray, size_px: Size, frame_px: Size) -> np.ndarray:
        """Points of the video (frame, x, y) as queries (frame, y, x) in pixels that the network sees."""
        seen_Q2 = (points_Q3[:, 1:] + 0.5) * _scale(size_px, frame_px) - 0.5
        return np.column_stack([points_Q3[:, 0], seen_Q2[:, ::-1]])

    @staticmethod
    def _in_video(points: np.ndarray, size_px: Size, frame_px: Size) -> np.ndarray:
        """x and y in pixels that the network sees, in those of the video."""
        return (points + 0.5) / _scale(size_px, frame_px) - 0.5

    def _maps(self, frames: Iterable[np.ndarray], frame_px: Size) -> tuple[Tensor, Iterator[Tensor]]:
        """The first map, and all of them."""
        sized = (self._sized(frame_HWC, frame_px) for frame_HWC in frames)
        maps = read_maps(self.network, sized, stage=self.stage, device=self.device, batch_frames=self.batch_frames)
        if self.kept is not None:
            maps = self.kept.of(maps)
        first_DHW = next(maps)
        return first_DHW, chain([first_DHW], maps)

    def _sized(self, frame_HWC: np.ndarray, frame_px: Size) -> Tensor:
        frame_CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)))
        return resize_frame(frame_CHW, frame_px, self.protocol)

    def _grid(self, map_DHW: Tensor, frame_px: Size) -> MapGrid:
        if self.protocol.grid == "stretched":
            return MapGrid.stretched(map_DHW.shape, frame_px)
        return MapGrid.of(self.network, self.stage, map_DHW.shape, frame_px)

    def _given(self, labels_HW: np.ndarray, ids: Sequence[int], grid: MapGrid) -> Given:
        seen_HW = resize_labels(labels_HW, grid.frame_px, self.protocol.score_resampling)
        labels_KHW = masks_to_grid(seen_HW, ids, grid, self.protocol.label_resampling)
        held = set(np.unique(labels_HW).tolist())
        return Given(labels_KHW, torch.tensor([False, *(number in held for number in ids)]))


def _scale(size_px: Size, frame_px: Size) -> np.ndarray:
    """Across and down, from pixels of the video to those that the network sees."""
    return np.array([frame_px[1] / size_px[1], frame_px[0] / size_px[0]])


def with_trained_stage(
    protocol: PropagationProtocol, network: Backbone, features: FeatureProtocol | None = None
) -> PropagationProtocol:
    """The protocol with its stage by name: the deepest that was trained where none is named.

    Args:
        features: how the network is shown clips; one that takes an untrained stage lets the protocol take it, too.

    Raises:
        RecipeError: no such stage, or it was never trained and that is not allowed. SsvidError: more than one stage.
    """
    features = features or FeatureProtocol()
    allowed = protocol.untrained_stage or features.untrained_stage
    wanted = replace(features, stages=protocol.stage or "trained", untrained_stage=allowed)
    resolved = resolve_feature_protocol(wanted, network.info, network.provenance.get("stage"), group="track.")
    if len(resolved.stage_names) != 1:
        raise SsvidError(
            f"track.stage ({protocol.stage}) must be one stage. Set track.stage={resolved.stage_names[-1]}."
        )
    return replace(protocol, stage=resolved.stages)


def _stage_of(network: Backbone, protocol: PropagationProtocol) -> str:
    return protocol.stage or network.provenance.get("stage") or network.default_stage
