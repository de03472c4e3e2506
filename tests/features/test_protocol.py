"""Automatic values and stages: what a protocol turns into for a backbone."""

from dataclasses import replace

import pytest

from ssvid.backbones import BackboneInfo, StageInfo
from ssvid.errors import RecipeError
from ssvid.features.protocol import FeatureProtocol, resolve_feature_protocol

INFO = BackboneInfo("net", tuple(StageInfo(n, 8, 2, 1) for n in ("a", "b", "c")), size=112, min_px=8)


def test_automatic_sizes_come_from_the_backbone():
    resolved = resolve_feature_protocol(FeatureProtocol(), INFO)
    assert (resolved.crop_px, resolved.resize_px) == (112, 128)
    assert resolve_feature_protocol(FeatureProtocol(crop_px=56), INFO).resize_px == 64
    assert resolve_feature_protocol(FeatureProtocol(crop_px=224), INFO).resize_px == 256


@pytest.mark.parametrize(
    ("stages", "trained_stage", "expected"),
    [
        ("all", None, ("a", "b", "c")),
        ("all", "b", ("a", "b")),
        ("trained", None, ("c",)),
        ("trained", "b", ("b",)),
        ("b", "b", ("b",)),
        ("c, a", None, ("c", "a")),
    ],
)
def test_stages_end_with_the_deepest_trained_one(stages, trained_stage, expected):
    resolved = resolve_feature_protocol(FeatureProtocol(stages=stages), INFO, trained_stage)
    assert resolved.stage_names == expected
    assert resolve_feature_protocol(resolved, INFO, trained_stage) == resolved


def test_an_untrained_stage_must_be_asked_for():
    protocol = FeatureProtocol(stages="c")
    with pytest.raises(
        RecipeError, match=r"features.stages \(c\) must not be deeper than the deepest trained stage, b"
    ):
        resolve_feature_protocol(protocol, INFO, "b")
    asked = replace(protocol, untrained_stage=True)
    assert resolve_feature_protocol(asked, INFO, "b").stage_names == ("c",)


def test_an_unknown_stage_names_the_nearest():
    with pytest.raises(RecipeError, match=r"backbone net has no stage 'traned'. Did you mean 'trained'\?"):
        resolve_feature_protocol(FeatureProtocol(stages="traned"), INFO)


def test_a_stage_named_twice_is_refused():
    with pytest.raises(RecipeError, match=r"features.stages \(a,a\) must name each stage once"):
        resolve_feature_protocol(FeatureProtocol(stages="a,a"), INFO)
