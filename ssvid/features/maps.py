"""One feature map for each frame of a video, for whatever compares places: read in batches, memory bounded by the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, create_backbone
from ssvid.errors import RecipeError, SsvidError
from ssvid.features.passes import check_finite, evaluation_mode

Frame = np.ndarray | Tensor
Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class MapGrid:
    """Where the cells of a feature map lie in a frame.

    Cell (i, j) covers the pixels from start + i * pitch to start + (i + 1) * pitch, down and across. Places are in pixels
    with the middle of the first pixel at 0, so that the middle of a cell lies at start + (i + 0.5) * pitch - 0.5.

    shape: H and W of the map. frame_px: height and width of the frame. pitch_px, start_px: down and across.
    is_stretched: whether the cells share the frame out, whatever the network's stride.
    """

    shape: Size
    frame_px: Size
    pitch_px: tuple[float, float]
    start_px: tuple[float, float]
    is_stretched: bool

    @staticmethod
    def stretched(shape: Sequence[int], frame_px: Size) -> MapGrid:
        """Cells that share the frame out, as all published programs for label propagation have it."""
        height, width = shape[-2:]
        return MapGrid((height, width), frame_px, (frame_px[0] / height, frame_px[1] / width), (0.0, 0.0), True)

    @staticmethod
    def placed(shape: Sequence[int], frame_px: Size, stride_px: int, start_px: float = 0.0) -> MapGrid:
        """Cells at every stride of pixels.

        Args:
            start_px: where the first cell begins, down and across.
        """
        height, width = shape[-2:]
        return MapGrid((height, width), frame_px, (stride_px, stride_px), (start_px, start_px), False)

    @staticmethod
    def of(network: Backbone, stage: str | None, shape: Sequence[int], frame_px: Size) -> MapGrid:
        """The cells of a network's map, placed by its stride: from the corner on where it has full maps.

        Where it has not, its borders are not padded: on the smallest frame that it takes, its cells lie in the middle.
        """
        info = network.info
        stride_px = info.stage(stage or network.default_stage).stride_space
        if info.full_maps:
            return MapGrid.placed(shape, frame_px, stride_px)
        like = next(network.parameters())
        smallest = torch.zeros(1, info.in_channels, info.min_frames, info.min_px, info.min_px, device=like.device)
        with evaluation_mode(network):
            num_cells = network(smallest, stage).shape[-1]
        return MapGrid.placed(shape, frame_px, stride_px, (info.min_px - num_cells * stride_px) / 2)

    @property
    def height(self) -> int:
        """Rows of cells."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Columns of cells."""
        return self.shape[1]

    def to_cells(self, points_xy: np.ndarray) -> np.ndarray:
        """Places x, y in pixels as places in cells, (..., 2), where whole numbers are the middles of cells."""
        start, pitch = (np.array(pair[::-1], dtype=np.float64) for pair in (self.start_px, self.pitch_px))
        return (np.asarray(points_xy) + 0.5 - start) / pitch - 0.5

    def to_pixels(self, cells_xy: np.ndarray) -> np.ndarray:
        """The inverse of ``to_cells``."""
        start, pitch = (np.array(pair[::-1], dtype=np.float64) for pair in (self.start_px, self.pitch_px))
        return (np.asarray(cells_xy) + 0.5) * pitch + start - 0.5


def with_stride(network: Backbone, stride_px: int, stage: str | None = None) -> Backbone:
    """The same weights in a network whose map is as fine as wanted, where it can be; the network itself where it cannot.

    The option ``stride_space`` sets it. Where the very stride is not to be had, the next coarser one is taken.
    ``info`` of the result says what it has become; what is known of the weights stays.

    Args:
        stride_px: pixels per cell of the stage's map; 0 leaves the network as it is. stage: None is ``default_stage``.

    Raises:
        RecipeError: the network has no such stage.
    """
    info = network.info
    stage = stage or network.default_stage
    own_px = info.stage(stage).stride_space
    if stride_px in (0, own_px) or "stride_space" not in info.options:
        return network
    doubled = [stride_px * 2**n for n in range(8)]
    for wanted_px in [px for px in doubled if px in (stride_px, *range(own_px))]:
        other = _rebuilt(info, wanted_px)
        if other is None or abs(other.info.stage(stage).stride_space - stride_px) >= abs(own_px - stride_px):
            continue
        other.load_state_dict(network.state_dict())
        if network.default_stage != info.stages[-1].name:
            other.freeze_after(network.default_stage)
        other.provenance = network.provenance
        return other.to(next(network.parameters()).device).train(network.training)
    return network


def _rebuilt(info: BackboneInfo, stride_px: int) -> Backbone | None:
    """A network with another stride; None where it has none like that."""
    try:
        with torch.random.fork_rng(devices=[]):
            return create_backbone(info.name, **{**info.options, "stride_space": stride_px})
    except RecipeError:
        return None


def read_maps(
    network: Backbone,
    frames: Iterable[Frame],
    *,
    stage: str | None = None,
    device: torch.device | str = "cpu",
    batch_frames: int = 8,
    window_frames: int = 0,
) -> Iterator[Tensor]:
    """The map of each frame in turn, DHW float32 on the device.

    A network that sees each frame by itself takes them in batches. Any other sees them in overlapping windows: the map of
    a frame is taken from the window that has it nearest to its middle, and comes from between the two cells in time
    around it where a cell covers several frames.

    Args:
        network: left in the mode that it has. frames: uint8, HWC or CHW, all of one size; they are read one by one.
        stage: a name; None is the deepest one that was trained.
        batch_frames: in a pass, for a network that sees each frame by itself.
        window_frames: of a window, for any other; 0 is what the network is meant for. Half of it is the step.

    Raises:
        SsvidError: a map is not finite, or frames differ in size. BackboneInputError: frames are too small.
    """
    network.to(device)
    clip = _prepared(frames, network.info.in_channels)
    if network.per_frame:
        for batch in _batches(clip, batch_frames):
            yield from _map_of(network, torch.stack(batch)[:, :, None], stage, device)[:, :, 0].unbind(0)
        return
    length = max(window_frames or network.info.num_frames, network.info.min_frames)
    for window in _windows(clip, length):
        yield from _window_maps(network, window, stage, device)


def _prepared(frames: Iterable[Frame], channels: int) -> Iterator[Tensor]:
    """The frames as CHW tensors."""
    shape = None
    for number, frame in enumerate(frames):
        pixels = torch.from_numpy(np.ascontiguousarray(frame)) if isinstance(frame, np.ndarray) else frame
        pixels_CHW = pixels.permute(2, 0, 1) if pixels.shape[0] != channels else pixels
        shape = shape or pixels_CHW.shape
        if pixels_CHW.shape != shape or pixels.dtype != torch.uint8:
            raise SsvidError(
                f"frame {number} is {pixels_CHW.dtype} of shape {tuple(pixels_CHW.shape)} (C, H, W), and the first frame is "
                f"{tuple(shape)}. All frames of a video must be uint8 and have one size: resize them first."
            )
        yield pixels_CHW


def _batches(frames: Iterator[Tensor], most: int) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for frame_CHW in frames:
        batch.append(frame_CHW)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch


def _map_of(network: Backbone, clips_BCTHW: Tensor, stage: str | None, device: torch.device | str) -> Tensor:
    with evaluation_mode(network):
        maps_BDTHW: Tensor = network(clips_BCTHW.to(device).float() / 255, stage).float()
    check_finite(network, maps_BDTHW.sum(dim=(2, 3, 4)).cpu().numpy())
    return maps_BDTHW


class _Window(NamedTuple):
    """Frames that are seen together, and from which to which (not included) of them their maps are taken."""

    frames: list[Tensor]
    start: int
    stop: int


def _windows(frames: Iterator[Tensor], length: int) -> Iterator[_Window]:
    """Windows at every half of their length, and one at the end of the video; a short video is one window."""
    step = max(1, length // 2)
    held: list[Tensor] = []  # frames from ``first`` on
    first, given = 0, 0
    for frame_CHW in frames:
        held.append(frame_CHW)
        if len(held) == length + step:  # the next window is whole: this one gives up to half way between their middles
            stop = first + (step + length) // 2
            yield _Window(held[:length], given - first, stop - first)
            first, given, held = first + step, stop, held[step:]
    if not held:
        return
    last = max(0, len(held) - length)
    if last:
        stop = (last + length) // 2
        yield _Window(held[:length], given - first, stop)
        given, first, held = first + stop, first + last, held[last:]
    yield _Window(held, given - first, len(held))


def _window_maps(network: Backbone, window: _Window, stage: str | None, device: torch.device | str) -> Iterator[Tensor]:
    """The maps of the wanted frames of a window."""
    missing = max(0, network.info.min_frames - len(window.frames))
    clip_CTHW = torch.stack([*window.frames, *window.frames[-1:] * missing], dim=1)
    maps_DTHW = _map_of(network, clip_CTHW[None], stage, device)[0]
    stride = network.info.stage(stage or network.default_stage).stride_time
    start = 0 if network.info.full_maps else max(0, clip_CTHW.shape[1] - maps_DTHW.shape[1] * stride) / 2
    for t in range(window.start, window.stop):
        place = min(max((t + 0.5 - start) / stride - 0.5, 0), maps_DTHW.shape[1] - 1)
        before = int(place)
        after = min(before + 1, maps_DTHW.shape[1] - 1)
        yield maps_DTHW[:, before].lerp(maps_DTHW[:, after], place - before)
