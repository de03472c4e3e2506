"""Contract checks that anybody who writes a plug-in can call from their own tests.

``check_backbone("mine")`` returns nothing, or raises AssertionError with what is broken.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, create_backbone, initialize_backbone


def check_backbone(name: str, **options: Any) -> None:
    """Check a registered network against the contract of ``ssvid.backbones.Backbone``."""
    backbone = initialize_backbone(name, options, seed=0).eval()
    with torch.no_grad():
        _check_info(backbone, name)
        _check_maps(backbone)
        _check_one_pass(backbone)
        _check_depth(backbone)
        _check_sizes(backbone)
        _check_copies(backbone, name)
    _check_gradients(backbone)


def _clip(info: BackboneInfo, *, num_frames: int | None = None, size: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    side = size or max(info.min_px, 32)
    shape = (2, info.in_channels, num_frames or max(info.min_frames, 4), side, side)
    return torch.rand(shape, generator=generator)


def _require(condition: bool, complaint: str) -> None:
    if not condition:  # not the statement ``assert``: python -O would remove the check from a stranger's test run
        raise AssertionError(complaint)


def _check_info(backbone: Backbone, name: str) -> None:
    info = backbone.info
    _require(info.name == name, f"info.name is {info.name!r}, but the network is registered as {name!r}")
    _require(len(info.mean) == len(info.std) == info.in_channels, "mean and std need one value per input channel")
    _require(len(set(info.stage_names)) == len(info.stages) > 0, "stage names must differ and there must be one")
    plain = json.loads(json.dumps(info.to_dict()))
    _require(BackboneInfo.from_dict(plain) == info, "info does not survive JSON: use plain types only")
    rebuilt = create_backbone(name, **info.options)
    _require(rebuilt.info == info, "info.options does not rebuild the same network")
    added = {"mean_C111", "std_C111"} & set(backbone.state_dict())
    _require(not added, f"{added} must not be in the state dict")


def _check_maps(backbone: Backbone) -> None:
    clip = _clip(backbone.info)
    for stage in backbone.info.stages:
        got = tuple(backbone(clip, stage.name).shape)
        cells = (-(-clip.shape[2] // stage.stride_time), *(-(-s // stage.stride_space) for s in clip.shape[3:]))
        want = (2, stage.channels, *cells)
        _require(got == want, f"stage {stage.name}: map {got}, but channels and strides of info say {want}")
        vectors = tuple(backbone.embed(clip, stage.name).shape)
        _require(vectors == (2, stage.channels), f"stage {stage.name}: embed gives {vectors}")


def _check_one_pass(backbone: Backbone) -> None:
    clip = _clip(backbone.info)
    names = backbone.info.stage_names[::-1]
    for name, together in zip(names, backbone(clip, names), strict=True):
        _require(torch.equal(together, backbone(clip, name)), f"stage {name}: one pass for all gives another map")
    last = backbone(clip, names[0])
    _require(torch.equal(backbone(clip), last), "stage=None must be the last stage")


def _check_depth(backbone: Backbone) -> None:
    """Stages deeper than the one asked for must not be computed: they would cost time and move statistics."""
    first = backbone.info.stage_names[0]
    ran: list[str] = []
    hooks = [
        backbone.get_submodule(stage).register_forward_hook(lambda *_, stage=stage: ran.append(stage))
        for stage in backbone.info.stage_names
    ]
    backbone(_clip(backbone.info), first)
    for hook in hooks:
        hook.remove()
    _require(ran == [first], f"stage {first!r} was asked for, but {ran} were computed")


def _check_sizes(backbone: Backbone) -> None:
    info = backbone.info
    for num_frames in (info.min_frames, info.min_frames + 3):
        for size in (max(info.min_px, 33), max(info.min_px, 48)):
            map_BCTHW = backbone(_clip(info, num_frames=num_frames, size=size))
            _require(
                bool(map_BCTHW.isfinite().all()), f"{num_frames} frames of {size} px give values that are not finite"
            )


def _check_copies(backbone: Backbone, name: str) -> None:
    clip = _clip(backbone.info)
    want = backbone(clip)
    for how, twin in (("deepcopy", copy.deepcopy(backbone)), ("pickle", pickle.loads(pickle.dumps(backbone)))):
        _require(torch.equal(twin(clip), want), f"{how} gives another network")
    other = initialize_backbone(name, backbone.info.options, seed=1).eval()
    other.load_state_dict(backbone.state_dict())
    _require(torch.equal(other(clip), want), "the state dict does not hold everything the network computes with")
    again = initialize_backbone(name, backbone.info.options, seed=0).eval()
    _require(torch.equal(again(clip), want), "the same seed gives other weights")


def _check_gradients(backbone: Backbone) -> None:
    """Each parameter up to a stage gets a gradient, none beyond it, and frozen stages stay as they are."""
    names = backbone.info.stage_names
    stage = names[-2] if len(names) > 1 else names[-1]
    backbone = copy.deepcopy(backbone)
    backbone.freeze_after(stage)
    backbone.train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    for name in names:
        frozen = names.index(name) > names.index(stage)
        _require(backbone.get_submodule(name).training is not frozen, f"frozen stage {name} must stay in evaluation")
    backbone(_clip(backbone.info)).pow(2).mean().backward()
    for key, parameter in backbone.named_parameters():
        _require(parameter.requires_grad is (parameter.grad is not None), f"{key}: gradient does not fit freeze_after")
    beyond = tuple(f"{name}." for name in names[names.index(stage) + 1 :])
    moved = [k for k, v in backbone.state_dict().items() if k.startswith(beyond) and not torch.equal(v, before[k])]
    _require(not moved, f"frozen state moved: {moved}")
