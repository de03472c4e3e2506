"""Early fusion, slow fusion, context and fovea: what the first filters compute, which frames and pixels a cell has seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInputError, create_backbone, initialize_backbone
from ssvid.errors import RecipeError
from ssvid.testing import check_backbone


def seen(network: Backbone, shape: tuple[int, ...], stage: str, cell: tuple[int, int, int]) -> Tensor:
    """Of each value THW of the clip: whether the cell's values depend on it."""
    clip = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network(clip, stage)[0, :, cell[0], cell[1], cell[2]].square().sum().backward()
    assert clip.grad is not None
    return clip.grad[0].abs().sum(0) > 0


def frames_seen(network: Backbone, num_frames: int, stage: str, time: int) -> list[int]:
    return torch.nonzero(seen(network, (num_frames, 46, 46), stage, (time, 0, 0)).flatten(1).any(1)).flatten().tolist()


def test_a_filter_that_is_a_frame_difference_gives_the_difference() -> None:
    """One tap at the middle of frame 5 minus one of frame 3, green: the filter's response is that difference of pixels.

    After ReLU and local response normalization, of one nonzero channel among 5: x / (1 + 1e-4 / 5 x^2)^0.75; then maxima
    of 2 x 2 responses, which are 3 pixels apart.
    """
    network = initialize_backbone("early_fusion", {"num_frames": 8}).eval()
    convolution = network.get_submodule("conv1.0")
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.zero_()
        convolution.get_parameter("weight")[7, 1, 5, 5, 5] = 1
        convolution.get_parameter("weight")[7, 1, 3, 5, 5] = -1
        clip = torch.rand(1, 3, 8, 34, 34, generator=torch.Generator().manual_seed(0))
        difference = (clip[0, 1, 5] - clip[0, 1, 3]) / 0.224  # the std of green; the mean cancels
        responses = difference[::3, ::3]  # places 0, 3, ..., 33
        torch.testing.assert_close(convolution(network.normalize(clip))[0, 7, 0], responses, atol=1e-5, rtol=0)
        map_ = network(clip, "conv1")
    positive = responses.clamp(min=0)
    normalized = positive / (1 + 1e-4 / 5 * positive.square()) ** 0.75
    want = normalized.unfold(0, 2, 2).unfold(1, 2, 2).amax((2, 3))
    torch.testing.assert_close(map_[0, 7, 0], want, atol=1e-5, rtol=0)
    assert not map_[0, :7].any()
    assert not map_[0, 8:].any()


def test_early_fusion_sees_all_frames_at_once() -> None:
    network = initialize_backbone("early_fusion").eval()
    assert frames_seen(network, 10, "conv1", 0) == list(range(10))
    assert network(torch.rand(1, 3, 10, 46, 46)).shape == (1, 256, 1, 2, 2)


def test_a_shifted_clip_is_another_input_to_early_fusion_and_a_shifted_one_to_slow_fusion() -> None:
    """Slow fusion has a stride of 8 frames; nothing in early fusion is shared over time."""
    long = torch.rand(1, 3, 26, 46, 46, generator=torch.Generator().manual_seed(3))
    slow, early = initialize_backbone("slow_fusion").eval(), initialize_backbone("early_fusion").eval()
    with torch.no_grad():
        whole = slow(long)
        assert whole.shape[2] == 3
        torch.testing.assert_close(slow(long[:, :, 8:18]), whole[:, :, 1:2], atol=1e-5, rtol=1e-4)
        still = early(long[:, :, :1].expand(-1, -1, 10, -1, -1))
        moved = [early(long[:, :, t : t + 10]) for t in (0, 1)]
    gap = (moved[0] - moved[1]).norm()
    assert gap > 0.1 * (moved[0] - still).norm(), "the same frames one frame later look like another clip"


def test_which_frames_a_response_of_slow_fusion_has_seen() -> None:
    """By hand (Karpathy 2014, sec. 3.1): 4 frames at stride 2, then two responses at stride 2, twice."""
    network = initialize_backbone("slow_fusion").eval()
    with torch.no_grad():
        lengths = [m.shape[2] for m in network(torch.rand(1, 3, 10, 46, 46), network.info.stage_names)]
    assert lengths == [4, 2, 1, 1, 1]
    assert frames_seen(network, 10, "conv1", 1) == [2, 3, 4, 5]
    assert frames_seen(network, 10, "conv2", 0) == [0, 1, 2, 3, 4, 5]
    assert frames_seen(network, 10, "conv2", 1) == [4, 5, 6, 7, 8, 9]
    assert frames_seen(network, 10, "conv3", 0) == list(range(10))


def test_both_streams_end_in_7x7_cells_as_the_whole_frame_does() -> None:
    with torch.device("meta"):
        fovea = create_backbone("context_fovea", fc=True).eval()
        maps = fovea(torch.rand(1, 3, 2, 178, 178), ["conv5", "fc7"])
        assert [tuple(m.shape) for m in maps] == [(1, 512, 2, 7, 7), (1, 4096, 2, 1, 1)]
        early = create_backbone("early_fusion", fc=True).eval()
        maps = early(torch.rand(1, 3, 10, 170, 170), ["conv5", "fc7"])
        assert [tuple(m.shape) for m in maps] == [(1, 256, 1, 7, 7), (1, 4096, 1, 1, 1)]


def test_the_streams_see_the_whole_at_half_resolution_and_the_middle() -> None:
    network = create_backbone("context_fovea")
    clip = torch.rand(1, 3, 2, 44, 48)
    scaled = (clip - network.mean_C111) / network.std_C111
    context, fovea = network.normalize(clip).chunk(2, dim=1)
    assert context.shape == fovea.shape == (1, 3, 2, 22, 24)
    torch.testing.assert_close(fovea, scaled[..., 11:33, 12:36], atol=0, rtol=0)
    torch.testing.assert_close(context[0, 1, 1, 3, 5], scaled[0, 1, 1, 6:8, 10:12].mean())


def test_the_channels_of_the_fovea_do_not_see_the_border() -> None:
    network = initialize_backbone("context_fovea").eval()
    clip = torch.rand(1, 3, 1, 64, 64)
    other = clip.clone()
    other[..., :8] = 0  # left of the middle 32 columns
    with torch.no_grad():
        before, after = network(clip), network(other)
    assert torch.equal(before[:, 256:], after[:, 256:])
    assert not torch.equal(before[:, :256], after[:, :256])


@pytest.mark.parametrize("num_frames", [9, 11, 20])
def test_a_clip_of_another_length_is_refused_in_one_paragraph(num_frames: int) -> None:
    network = create_backbone("early_fusion")
    with pytest.raises(BackboneInputError) as caught:
        network(torch.rand(1, 3, num_frames, 46, 46))
    rule = "needs at least 10" if num_frames < 10 else "takes at most 10"
    assert f"clip has {num_frames} frames; early_fusion {rule}." in str(caught.value)
    assert num_frames < 10 or f"Use shorter clips, or build it with num_frames={num_frames}." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_options_are_named() -> None:
    with pytest.raises(RecipeError, match=r"num_frames \(1\) must be a whole number of at least 2.*such as caffenet"):
        create_backbone("early_fusion", num_frames=1)
    with pytest.raises(RecipeError, match=r"slow_fusion: norm \('none'\) must be one of lrn, batch"):
        create_backbone("slow_fusion", norm="none")
    with pytest.raises(RecipeError, match=r"context_fovea: fc \('yes'\) must be true or false"):
        create_backbone("context_fovea", fc="yes")


@pytest.mark.slow  # the default options are checked in every run
def test_options_keep_the_contract() -> None:
    check_backbone("early_fusion", num_frames=4, norm="batch")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["early_fusion", "slow_fusion", "context_fovea"])
def test_fully_connected_layers_keep_the_contract(name: str) -> None:
    check_backbone(name, fc=True)
