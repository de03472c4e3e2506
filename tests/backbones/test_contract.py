"""The contract: what is refused and how it reads, depth, freezing, pooling, layout."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from ssvid.backbones import (
    Backbone,
    BackboneInfo,
    BackboneInputError,
    StageInfo,
    backbones,
    convert_to_channels_last_3d,
    create_backbone,
    initialize_backbone,
    list_backbones,
    pool_map,
    register_backbone,
)
from ssvid.backbones.contract import spread_stride
from ssvid.errors import PluginError, RecipeError, SsvidError


@pytest.fixture
def tiny() -> Backbone:
    return initialize_backbone("tiny3d", {"width": 4}).eval()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 8, 16, 16), ["(3, 8, 16, 16)", "(B, C, T, H, W)", "clip[None]"]),
        ((2, 8, 3, 16, 16), ["8 channels", "takes 3", "TCHW"]),
        ((2, 3, 0, 16, 16), ["0 frames", "at least 1", "longer clips"]),
        ((2, 3, 8, 0, 16), ["0 x 16 pixels", "at least 1", "larger"]),
    ],
)
def test_wrong_clips_are_named(tiny: Backbone, shape: tuple[int, ...], words: list[str]) -> None:
    with pytest.raises(BackboneInputError) as caught:
        tiny(torch.zeros(shape))
    for word in [*words, "tiny3d"]:
        assert word in str(caught.value)
    assert isinstance(caught.value, SsvidError)
    assert isinstance(caught.value, ValueError)


def test_uint8_is_refused(tiny: Backbone) -> None:
    with pytest.raises(BackboneInputError, match=r"uint8.*clip\.float\(\) / 255"):
        tiny(torch.zeros(1, 3, 4, 16, 16, dtype=torch.uint8))


def test_what_older_versions_wrote_of_a_network_is_read(tiny: Backbone) -> None:
    older = tiny.info.to_dict() | {"modality": "rgb", "takes_mask": False}
    assert BackboneInfo.from_dict(older) == tiny.info


def test_least_frames_and_least_size_are_enforced() -> None:
    difference = create_backbone("tiny3d", width=4, input="difference")
    with pytest.raises(BackboneInputError, match="1 frames; tiny3d needs at least 2"):
        difference(torch.zeros(1, 3, 1, 16, 16))

    class Patches(Backbone):
        def __init__(self) -> None:
            super().__init__(BackboneInfo("patches", (StageInfo("all", 2, 16, 1),), min_px=16))
            self.all = nn.Conv3d(3, 2, (1, 16, 16), (1, 16, 16))

    with pytest.raises(BackboneInputError, match="8 x 32 pixels; patches needs at least 16"):
        Patches()(torch.zeros(1, 3, 1, 8, 32))
    assert Patches()(torch.zeros(1, 3, 1, 16, 32)).shape == (1, 2, 1, 1, 2)


def test_unknown_names_suggest_the_nearest(tiny: Backbone) -> None:
    with pytest.raises(RecipeError, match=r"no stage 'stge2'. Did you mean 'stage2'\? Known: stage1"):
        tiny(torch.zeros(1, 3, 4, 16, 16), "stge2")
    with pytest.raises(RecipeError, match="no stage 'layer9'"):
        tiny.freeze_after("layer9")
    with pytest.raises(RecipeError, match=r"tiny3d: unknown option 'widht'. Did you mean 'width'\?"):
        create_backbone("tiny3d", widht=8)
    with pytest.raises(PluginError, match=r"unknown backbone 'tiny3D'. Did you mean 'tiny3d'\? Known: c3d, caffenet, "):
        create_backbone("tiny3D")
    with pytest.raises(RecipeError, match=r"pool \('max'\) is unknown"):
        tiny.embed(torch.zeros(1, 3, 4, 16, 16), pool="max")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tiny3d", {"width": 0}, "width (0) must be a whole number of at least 1"),
        ("tiny3d", {"width": "16"}, "width ('16') must be a whole number"),
        ("tiny3d", {"input": "flow"}, "input ('flow') must be one of rgb, difference"),
        ("tiny3d", {"stride_time": 3}, "stride_time (3) must be one of 1, 2, 4"),
        ("r3d_18", {"stride_time": 16}, "stride_time (16) must be one of 1, 2, 4, 8"),
        ("r3d_18", {"stride_space": True}, "stride_space (True) must be one of 2, 4, 8, 16"),
    ],
)
def test_wrong_option_values_are_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        create_backbone(name, **options)
    assert words in str(caught.value)


def test_pooling_by_hand() -> None:
    map_BCTHW = torch.tensor([[[[[1.0, 2.0]], [[3.0, 6.0]]]]])  # B1 C1 T2 H1 W2
    assert pool_map(map_BCTHW).tolist() == [[3.0]]
    assert pool_map(map_BCTHW, "avgmax").tolist() == [[3.0, 6.0]]


def test_embed_stages_is_one_pass_over_the_stages(tiny: Backbone) -> None:
    clip = torch.rand(2, 3, 8, 24, 24)
    passes: list[int] = []
    hook = tiny.register_forward_hook(lambda *_: passes.append(1))
    vectors = tiny.embed_stages(clip)
    hook.remove()
    assert len(passes) == 1
    assert {name: tuple(v.shape) for name, v in vectors.items()} == {
        "stage1": (2, 8),
        "stage2": (2, 16),
        "stage3": (2, 32),
        "stage4": (2, 64),
    }
    assert torch.equal(vectors["stage2"], tiny.embed(clip, "stage2", pool="avgmax"))


def test_freezing_makes_the_stage_the_default_and_keeps_later_ones_still(tiny: Backbone) -> None:
    clip = torch.rand(2, 3, 8, 24, 24)
    tiny.freeze_after("stage2")
    assert torch.equal(tiny(clip), tiny(clip, "stage2"))
    assert list(tiny.embed_stages(clip)) == ["stage1", "stage2"]
    assert {k.split(".")[0] for k, p in tiny.named_parameters() if p.requires_grad} == {"stage1", "stage2"}
    tiny.train()
    statistics = tiny.get_submodule("stage4").state_dict()["1.running_mean"].clone()
    tiny(clip, "stage4")  # asked for by name, it runs all the same
    assert torch.equal(statistics, tiny.get_submodule("stage4").state_dict()["1.running_mean"])


def test_seeded_weights_do_not_depend_on_what_was_drawn_before() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one = initialize_backbone("tiny3d", {"width": 4}, seed=3)
    assert torch.equal(torch.rand(1), before), "the global generator moved"
    two = initialize_backbone("tiny3d", {"width": 4}, seed=3)
    other = initialize_backbone("tiny3d", {"width": 4}, seed=4)
    assert torch.equal(one.state_dict()["stage1.0.weight"], two.state_dict()["stage1.0.weight"])
    assert not torch.equal(one.state_dict()["stage1.0.weight"], other.state_dict()["stage1.0.weight"])


def test_channels_last_spares_the_2d_convolution(tiny: Backbone) -> None:
    both = nn.ModuleDict({"three": tiny, "two": nn.Conv2d(3, 4, 3)})
    clip = torch.rand(2, 3, 8, 24, 24)
    want = tiny(clip)
    convert_to_channels_last_3d(both)
    weight = tiny.get_parameter("stage2.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(tiny(clip), want, atol=1e-5, rtol=1e-5)


def test_spread_stride_keeps_the_shallow_stages() -> None:
    native = (2, 1, 2, 2, 2)
    assert spread_stride(16, native) == native
    assert spread_stride(8, native) == (2, 1, 2, 2, 1)
    assert spread_stride(2, native) == (2, 1, 1, 1, 1)
    assert spread_stride(1, native) == (1, 1, 1, 1, 1)


def test_info_ignores_keys_of_later_versions(tiny: Backbone) -> None:
    plain = tiny.info.to_dict() | {"added_in_2031": 1}
    assert BackboneInfo.from_dict(plain) == tiny.info


class Stranger(Backbone):
    def __init__(self, *, width: int = 2) -> None:
        super().__init__(BackboneInfo("stranger", (StageInfo("only", width, 1, 1),), options={"width": width}))
        self.only = nn.Conv3d(3, width, 1)


@pytest.fixture
def stranger() -> Iterator[str]:
    register_backbone("stranger")(Stranger)
    yield "stranger"
    del backbones._entries["stranger"]


def test_a_stranger_is_created_and_checked_by_name(stranger: str) -> None:
    from ssvid.testing import check_backbone

    assert stranger in list_backbones("str*")
    check_backbone(stranger)
    check_backbone(stranger, width=3)


def test_the_check_finds_a_broken_contract() -> None:
    from ssvid.testing import check_backbone

    @register_backbone("broken")
    class Broken(Backbone):
        def __init__(self) -> None:
            super().__init__(BackboneInfo("broken", (StageInfo("only", 4, 2, 1),)))
            self.only = nn.Conv3d(3, 4, 1)

    try:
        with pytest.raises(AssertionError, match=r"stage only: map .* strides of info say"):
            check_backbone("broken")
    finally:
        del backbones._entries["broken"]


def test_listing_networks_needs_neither_torchvision_nor_a_gpu() -> None:
    code = (
        "import sys, ssvid; assert 'torch' not in sys.modules;"
        "ssvid.list_backbones(); assert 'torchvision' not in sys.modules;"
        "import torch; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_maxima_of_blocks_keep_the_places() -> None:
    """One channel of 1 x 4 x 5 cells: the fifth column fills no block. VCOP's map gives the 9,216 of its script."""
    map_ = torch.arange(20.0).reshape(1, 1, 1, 4, 5)
    assert pool_map(map_, "max1x2x2").tolist() == [[6.0, 8.0, 16.0, 18.0]]
    assert pool_map(torch.zeros(2, 512, 2, 7, 7), "max1x2x2").shape == (2, 9216)
    assert pool_map(map_[..., :1, :1], "max1x2x2").tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("scale", "shift", "hint"),
    [(255.0, 0.0, "divide pixels by 255"), (4.0, -2.0, "do not normalize them"), (1.0, 0.0, ""), (1.2, -0.1, "")],
)
@pytest.mark.parametrize("training", [False, True])
def test_pixels_of_another_range_are_warned_of_once(scale: float, shift: float, hint: str, training: bool) -> None:
    backbone = create_backbone("tiny3d", width=2).train(training)
    clip = torch.rand(2, 3, 8, 32, 32) * scale + shift
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backbone(clip)
        backbone.embed(clip)
    assert [hint in str(warning.message) for warning in caught] == ([True] if hint else [])
