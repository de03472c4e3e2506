"""Recipes that ask for flow: refused, with a way out, where the network, the task or a setting does not fit."""

from __future__ import annotations

from typing import Any

import pytest

import ssvid
from ssvid.classifiers.protocol import FinetuneProtocol, resolve_finetune_protocol
from ssvid.cli import main
from ssvid.data.manifest import Manifest
from ssvid.errors import RecipeError
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol
from ssvid.programs.show import show
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.protocol_notes import settings_sha256

TINY = {"name": "tiny3d", "options": {"width": 2, "in_channels": 2}}
SPEEDINESS = {"name": "speediness", "options": {"num_frames": 4}}


def pretraining(**groups: Any) -> dict[str, Any]:
    recipe = {"kind": "pretrain", "data": {"root": "videos", "modality": "flow"}, "backbone": TINY, "task": SPEEDINESS}
    return recipe | groups


def built(recipe: dict[str, Any]) -> Any:
    return build_networks(load_recipe(recipe).recipe)  # type: ignore[arg-type]


def test_a_task_that_only_mirrors_is_built_and_shown_with_two_channels() -> None:
    backbone, task = built(pretraining())
    assert backbone.info.in_channels == 2 and "flow" in task.modalities
    assert "clips uint8 (2, 4, 2, " in str(show(pretraining()))


def test_a_task_that_reverses_time_takes_flow_that_was_measured_both_ways() -> None:
    data = {"root": "videos", "modality": "flow", "flow": {"symmetric": True}}
    _, task = built(pretraining(data=data, task={"name": "arrow_of_time", "options": {"num_frames": 4}}))
    assert task.reverses_time


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backbone": {"name": "tiny3d"}}, r"gives clips of 2 channels, and backbone tiny3d takes 3. .*in_channels=2"),
        ({"backbone": {"name": "vit"}}, "take a network with the option in_channels"),
        (
            {"data": {"root": "videos"}},
            "Set data.modality=flow, or build the network with backbone.options.in_channels=3",
        ),
        (
            {"task": {"name": "colorization"}},
            "not what task colorization takes: it works on rgb. Set data.modality=rgb",
        ),
        (
            {"task": {"name": "arrow_of_time"}},
            r"data.flow.symmetric \(False\) must be true for task arrow_of_time, .* ssvid data flow ROOT --symmetric",
        ),
        ({"task": {"name": "cycle_consistency"}}, "not what task cycle_consistency takes"),
        ({"online": {"tracking": {"every_epochs": 1}}}, "Set online.tracking.every_epochs=0"),
        ({"data": {"root": "v", "modality": "depth"}}, "modality .'depth'. must be one of rgb, flow"),
        (
            {"data": {"root": "v", "flow": {"bound_px": 3}}},
            "data.flow.bound_px .3. does nothing where data.modality is 'rgb'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        built(pretraining(**changed))


def test_colors_of_flow_cannot_be_changed() -> None:
    info = ssvid.create_backbone("tiny3d", in_channels=2).info
    with pytest.raises(
        RecipeError, match=r"finetune.jitter .* changes colors, and backbone tiny3d takes clips of flow"
    ):
        resolve_finetune_protocol(FinetuneProtocol(jitter=(0.1, 0.0, 0.0, 0.0)), info)
    with pytest.raises(RecipeError, match=r"features.defects .* changes colors"):
        resolve_feature_protocol(FeatureProtocol(defects=("color_jitter",)), info)


def test_tracking_and_audits_are_refused(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"data.root={manifest.root}"
    words = ["track", "track/folder", root, "data.modality=flow", "--backbone", "random", "--backbone-name", "tiny3d"]
    assert main(words) == 2
    assert "is not what label_propagation is asked of. Set data.modality=rgb" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_hash_of_settings_moves_with_the_modality_alone() -> None:
    recipe = {"kind": "finetune", "data": {"root": "videos"}}
    plain = load_recipe(recipe).resolved
    older = {key: value for key, value in plain.items() if key != "streams"}
    older["data"] = {key: value for key, value in plain["data"].items() if key not in ("modality", "flow")}
    assert settings_sha256(older) == settings_sha256(plain)  # a result of before still compares
    flow = load_recipe({**recipe, "data": {"root": "videos", "modality": "flow"}}).resolved
    finer = load_recipe(flow, ["data.flow.short_side_px=256"]).resolved
    assert len({settings_sha256(r) for r in (plain, flow, finer)}) == 3
