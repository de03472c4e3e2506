"""CaffeNet: the sizes that Krizhevsky 2012 gives, counts by hand, normalization where Shuffle and Learn has it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ssvid.backbones import BackboneInputError, create_backbone, initialize_backbone
from ssvid.errors import RecipeError


def test_sizes_at_227_px_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = create_backbone("caffenet", fc=True).eval()
        maps = network(torch.rand(2, 3, 3, 227, 227), network.info.stage_names)
        first = network.conv1[0](torch.rand(1, 3, 227, 227))
    assert first.shape == (1, 96, 55, 55)
    assert [(m.shape[1], m.shape[3]) for m in maps] == [
        (96, 27), (256, 13), (384, 13), (384, 13), (256, 13), (4096, 1), (4096, 1)
    ]  # fmt: skip
    assert {m.shape[2] for m in maps} == {3}


def test_parameters_counted_by_hand() -> None:
    convolutions = 96 * 3 * 121 + 256 * 48 * 25 + 384 * 256 * 9 + 384 * 192 * 9 + 256 * 192 * 9
    biases = 96 + 256  # only where no batch normalization follows
    norms = 2 * (384 + 384 + 256)
    fc = 4096 * 256 * 36 + 4096 * 4096 + 2 * 2 * 4096
    with torch.device("meta"):
        count = {fc: sum(p.numel() for p in create_backbone("caffenet", fc=fc).parameters()) for fc in (False, True)}
    assert count == {False: convolutions + biases + norms, True: convolutions + biases + norms + fc}
    assert count[False] == 2_335_104


@pytest.mark.parametrize(
    ("norm", "batch", "local"),
    [("lrn", ["conv3", "conv4", "conv5", "fc6", "fc7"], ["conv1", "conv2"]),
     ("batch", ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"], [])],
)  # fmt: skip
def test_which_layers_are_normalized(norm: str, batch: list[str], local: list[str]) -> None:
    with torch.device("meta"):
        network = create_backbone("caffenet", norm=norm, fc=True)
    kinds = {
        kind: [s for s in network.info.stage_names if any(isinstance(m, kind) for m in network.get_submodule(s))]
        for kind in (nn.BatchNorm2d, nn.LocalResponseNorm)
    }
    assert kinds == {nn.BatchNorm2d: batch, nn.LocalResponseNorm: local}


def test_frames_do_not_see_each_other() -> None:
    network = initialize_backbone("caffenet").eval()
    clip = torch.rand(1, 3, 4, 67, 67)
    with torch.no_grad():
        shuffled = network(clip[:, :, [2, 0, 3, 1]])
        torch.testing.assert_close(shuffled, network(clip)[:, :, [2, 0, 3, 1]], atol=1e-6, rtol=1e-5)


def test_fully_connected_stages_are_the_matrix_products_of_the_paper() -> None:
    network = initialize_backbone("caffenet", {"fc": True}).eval()
    clip = torch.rand(1, 3, 1, 227, 227)
    with torch.no_grad():
        conv5, fc6 = network(clip, ("conv5", "fc6"))
        cells = nn.functional.max_pool2d(conv5[:, :, 0], 3, 2).flatten(1)
        want = nn.functional.linear(cells, network.fc6[1].weight.flatten(1)) / (1 + 1e-5) ** 0.5
    assert cells.shape == (1, 256 * 6 * 6)
    torch.testing.assert_close(fc6.flatten(1), want.relu(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("fc", "least"), [(False, 35), (True, 227)])
def test_least_size_is_the_least_that_works(fc: bool, least: int) -> None:
    with torch.device("meta"):
        network = create_backbone("caffenet", fc=fc).eval()
        assert network(torch.rand(1, 3, 1, least, least)).shape[3:] == (1, 1)
        with pytest.raises(BackboneInputError, match=f"{least - 1} x {least} pixels; caffenet needs at least {least}"):
            network(torch.rand(1, 3, 1, least - 1, least))
        network.info = dataclasses.replace(network.info, min_px=1)
        with pytest.raises(RuntimeError, match=r"too small|greater than actual input size"):
            network(torch.rand(1, 3, 1, least - 1, least - 1))


def test_wrong_options_are_named() -> None:
    with pytest.raises(RecipeError, match=r"norm \('bn'\) must be one of lrn, batch"):
        create_backbone("caffenet", norm="bn")
    with pytest.raises(RecipeError, match=r"fc \('yes'\) must be true or false"):
        create_backbone("caffenet", fc="yes")
