"""One map per frame: batches and windows change nothing that they should not; cells know where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo, BackboneInputError, StageInfo, initialize_backbone
from ssvid.errors import RecipeError, SsvidError
from ssvid.features.maps import MapGrid, read_maps, with_stride
from ssvid.weights.provenance import Provenance


def frames(num_frames: int, height: int = 40, width: int = 56, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(num_frames)]


class Clock(Backbone):
    """Its map tells the number of the frame that a cell in time begins with, and how many frames the clip had.

    A frame's first pixel holds its number over 255.
    """

    def __init__(self, stride_time: int = 1, num_frames: int = 8) -> None:
        super().__init__(BackboneInfo("clock", (StageInfo("all", 2, 8, stride_time),), size=16, num_frames=num_frames))
        self.all = nn.Identity()
        self.weight = nn.Parameter(torch.zeros(()))
        self.stride_time = stride_time

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        number_BT = (x_BCTHW[:, 0, :, 0, 0] * 255).round()
        cells_BT = torch.stack([part.mean(dim=1) for part in number_BT.split(self.stride_time, dim=1)], dim=1)
        count_BT = torch.full_like(cells_BT, x_BCTHW.shape[2])
        return torch.stack([cells_BT, count_BT], dim=1)[..., None, None].expand(-1, -1, -1, 2, 2)


def numbered(num_frames: int) -> Iterator[np.ndarray]:
    for n in range(num_frames):
        yield np.full((16, 16, 3), n, dtype=np.uint8)


# ---- networks that see each frame by itself


@pytest.mark.parametrize(
    ("name", "options", "stage"), [("resnet18", {"stride_space": 8}, "layer3"), ("caffenet", {}, "conv5")]
)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_maps_of_batches_are_those_of_each_frame(name: str, options: dict[str, Any], stage: str, batch: int) -> None:
    network = initialize_backbone(name, options).eval()
    pictures = frames(5, 69, 93)
    found = list(read_maps(network, pictures, stage=stage, batch_frames=batch))
    assert len(found) == 5
    for frame_HWC, map_DHW in zip(pictures, found, strict=True):
        clip = torch.from_numpy(frame_HWC).permute(2, 0, 1)[None, :, None].float() / 255
        with torch.inference_mode():
            torch.testing.assert_close(map_DHW, network(clip, stage)[0, :, 0], rtol=1e-4, atol=1e-5)


def test_frames_are_read_a_batch_at_a_time() -> None:
    num_read = 0

    def pictures() -> Iterator[np.ndarray]:
        nonlocal num_read
        for frame_HWC in frames(7):
            num_read += 1
            yield frame_HWC

    maps = read_maps(initialize_backbone("resnet18"), pictures(), batch_frames=3)
    assert [(next(maps) is not None, num_read) for _ in range(7)] == [(True, n) for n in (3, 3, 3, 6, 6, 6, 7)]


def test_frames_may_have_their_channels_first_and_the_mode_comes_back() -> None:
    network = initialize_backbone("resnet18").train()
    own = list(read_maps(network, frames(2)))
    other = list(read_maps(network, [torch.from_numpy(f).permute(2, 0, 1) for f in frames(2)]))
    torch.testing.assert_close(own, other)
    assert network.training


# ---- networks with time


@pytest.mark.parametrize("stride_time", [1, 2, 4])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 9, 12, 13, 29])
def test_every_frame_has_its_own_place_in_time(num_frames: int, stride_time: int) -> None:
    """The numbers of frames are linear in time, so that what lies between two cells is exact, but at a window's ends."""
    found = [map_DHW[0, 0, 0].item() for map_DHW in read_maps(Clock(stride_time), numbered(num_frames))]
    assert len(found) == num_frames
    held_back = (stride_time - 1) / 2  # before the middle of the first cell there is nothing to interpolate
    expected = np.clip(np.arange(num_frames), held_back, max(held_back, num_frames - 1 - held_back))
    if num_frames % stride_time == 0 or num_frames > 8:
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(np.array(found) - np.arange(num_frames)).max() <= held_back + 1e-6


@pytest.mark.parametrize("num_frames", [8, 9, 11, 12, 13, 20, 29])
def test_a_frame_is_seen_in_the_window_that_has_it_nearest_to_its_middle(num_frames: int) -> None:
    length, step = 8, 4
    starts = sorted({*range(0, num_frames - length + 1, step), num_frames - length})

    class Start(Clock):
        """Its map tells the first frame of the window."""

        def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
            return super().run_stage(name, x_BCTHW[:, :, :1].expand_as(x_BCTHW))

    for frame, map_DHW in enumerate(read_maps(Start(), numbered(num_frames))):
        start = map_DHW[0, 0, 0].item()
        assert start in starts
        assert map_DHW[1, 0, 0].item() == length
        off = {other: abs(frame - other - (length - 1) / 2) for other in starts}
        assert off[start] == min(off.values())


def test_a_window_may_have_another_length_and_a_short_video_is_one_window() -> None:
    counts = [map_DHW[1, 0, 0].item() for map_DHW in read_maps(Clock(), numbered(9), window_frames=4)]
    assert set(counts) == {4}
    assert [map_DHW[1, 0, 0].item() for map_DHW in read_maps(Clock(), numbered(3))] == [3, 3, 3]


def test_a_real_network_with_time_gives_one_map_per_frame() -> None:
    network = initialize_backbone("r3d_18", {"stride_space": 8, "stride_time": 4}).eval()
    found = list(read_maps(network, frames(11, 32, 40), window_frames=8))
    assert [tuple(map_DHW.shape) for map_DHW in found] == [(512, 4, 5)] * 11
    assert torch.equal(found[0], found[1])  # both before the middle of the first cell in time
    assert all(not torch.equal(a, b) for a, b in zip(found[1:9], found[2:10], strict=True))


# ---- what cannot be


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(SsvidError, match=r"frame 1 is .*\(3, 40, 48\).*first frame is \(3, 40, 56\)"):
        list(read_maps(initialize_backbone("resnet18"), [*frames(1), *frames(1, width=48)]))


def test_frames_that_are_too_small_are_refused_by_the_network() -> None:
    with pytest.raises(BackboneInputError, match="larger"):
        list(read_maps(initialize_backbone("caffenet"), frames(1, 20, 20)))


def test_maps_that_are_not_finite_are_refused() -> None:
    network = initialize_backbone("resnet18")
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(SsvidError, match="not finite"):
        list(read_maps(network, frames(1)))


# ---- other strides


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [("resnet18", "layer3", 8), ("resnet50", None, 8), ("r3d_18", None, 8), ("i3d_resnet18", None, 8)],
)
def test_the_same_weights_give_a_finer_map(name: str, stage: str | None, expected: int) -> None:
    network = initialize_backbone(name, seed=3)
    network.provenance = Provenance(seed=3)
    finer = with_stride(network, 8, stage)
    assert finer.info.stage(stage).stride_space == expected < network.info.stage(stage).stride_space
    assert finer.provenance is network.provenance
    assert list(finer.state_dict()) == list(network.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(finer.state_dict().values(), network.state_dict().values(), strict=True)
    )
    assert with_stride(finer, 8, stage) is finer


def test_a_stride_that_is_not_to_be_had_becomes_the_next_coarser_one() -> None:
    network = initialize_backbone("resnet18")
    assert with_stride(network, 4).info.stage().stride_space == 8
    assert with_stride(network, 4, "stem").info.stage("stem").stride_space == 4
    assert with_stride(network, 0) is network
    caffenet = initialize_backbone("caffenet")
    assert with_stride(caffenet, 8) is caffenet


def test_frozen_stages_stay_the_deepest_trained_one_counts() -> None:
    network = initialize_backbone("resnet18").eval()
    network.freeze_after("layer3")
    finer = with_stride(network, 8)
    assert finer.default_stage == "layer3"
    assert not finer.training
    with pytest.raises(RecipeError, match="no stage 'layer9'"):
        with_stride(network, 8, "layer9")


def test_no_random_number_is_drawn_from_the_global_generator() -> None:
    network = initialize_backbone("resnet18")
    torch.manual_seed(5)
    with_stride(network, 8)
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(after, torch.rand(3))


# ---- where cells lie


def test_places_of_cells() -> None:
    grid = MapGrid.stretched((6, 11), (48, 85))
    assert grid.to_pixels(np.array([0.0, 0.0])).tolist() == [85 / 11 / 2 - 0.5, 3.5]
    placed = MapGrid.placed((6, 11), (48, 85), 8)
    assert placed.to_pixels(np.array([1.0, 2.0])).tolist() == [11.5, 19.5]
    middle = MapGrid.placed((2, 3), (40, 56), 16, 4.0)
    assert middle.to_pixels(np.array([0.0, 0.0])).tolist() == [11.5, 11.5]
    points = np.random.default_rng(0).uniform(0, 40, (7, 2))
    for each in (grid, placed, middle):
        np.testing.assert_allclose(each.to_pixels(each.to_cells(points)), points, atol=1e-12)


@pytest.mark.parametrize("size", [(227, 227), (240, 320), (101, 150)])
@pytest.mark.parametrize("stage", ["conv1", "conv2"])
def test_cells_of_a_network_without_full_maps_lie_where_they_look(size: tuple[int, int], stage: str) -> None:
    """The middle of what a cell sees, by its gradient, is where the grid has it, to the pixel."""
    network = initialize_backbone("caffenet", {"norm": "batch"}).eval()
    clip = torch.rand(1, 3, 1, *size, requires_grad=True, generator=torch.Generator().manual_seed(0))
    map_DHW = network(clip, stage)[0, :, 0]
    grid = MapGrid.of(network, stage, map_DHW.shape, size)
    row, column = map_DHW.shape[1] // 2, map_DHW.shape[2] // 2
    map_DHW[:, row, column].square().sum().backward()
    assert clip.grad is not None
    seen_HW = clip.grad[0, :, 0].abs().sum(dim=0) > 0
    spans = [seen_HW.any(dim=axis).nonzero() for axis in (0, 1)]
    middle_xy = [(span.min().item() + span.max().item()) / 2 for span in spans]
    np.testing.assert_allclose(grid.to_pixels(np.array([column, row])), middle_xy, atol=1)
