"""Heads over kept vectors of frames: what order alone tells is told by the heads that see it, and by no other."""

import dataclasses

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone, pool_map
from ssvid.errors import RecipeError
from ssvid.evals.contract import Seen, Subject, Tools
from ssvid.evals.frame_probe import Choice, FrameProbe, FrameProbeConfig, head_scores
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.store import Features
from tests.frozen import ask, labeled

T, D = 4, 8
FAST = FrameProbeConfig(epochs=40, batch_size=16, learning_rates=(0.01,), weight_decays=(0.01,), dropout=0.0)


def ordered_frames(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes with the same frames: a number goes up, or down, along a direction; NTD and labels."""
    rng = np.random.default_rng(seed)
    direction_D, other_D = np.random.default_rng(7).normal(size=(2, D))
    frames_NTD = (
        np.sort(rng.normal(size=(num, T)), axis=1)[..., None] * direction_D + rng.normal(size=(num, T, 1)) * other_D
    )
    labels_N = np.where(np.arange(num) % 2, "up", "down").astype(object)
    frames_NTD[labels_N == "down"] = frames_NTD[labels_N == "down", ::-1]
    return frames_NTD.astype(np.float32), labels_N


@pytest.mark.parametrize("head", ["average", "late_pool", "late_concat", "lstm", "attention"])
def test_the_order_of_frames_is_told_by_the_heads_that_see_it(head):
    (train, labels), (test, truth) = ordered_frames(120, 0), ordered_frames(80, 1)
    classes, config = (
        np.array(["down", "up"], dtype=object),
        dataclasses.replace(FAST, head=head, head_width=0 if head in ("average", "attention") else 16),
    )
    choice = Choice(0.001 if head == "attention" else 0.01, 0.01)
    scores = head_scores(train, labels, test, classes, config, choice, Tools())
    right = (classes[scores.argmax(axis=1)] == truth).mean()
    if head in ("average", "late_pool"):
        turned = head_scores(train, labels, test[:, ::-1], classes, config, choice, Tools())
        np.testing.assert_array_equal(scores, turned, "the frames are a set")
        assert abs(right - 0.5) < 0.25
    else:
        assert right > 0.9, head
    again = head_scores(train, labels, test, classes, config, choice, Tools())
    np.testing.assert_array_equal(scores, again)


def test_pixels_are_seen_once_and_the_vector_of_each_frame_is_that_of_the_map():
    map_BDTHW = torch.rand(2, D, T, 5, 6)
    vectors = pool_map(map_BDTHW, "frames").view(2, T, D)
    torch.testing.assert_close(vectors[1, 2], map_BDTHW[1, :, 2].mean(dim=(1, 2)))


def features_of(values_NTD: np.ndarray, labels: np.ndarray, unreadable: int = -1) -> Features:
    values_ND = values_NTD.reshape(len(values_NTD), -1).copy()
    if unreadable >= 0:
        values_ND[unreadable] = np.nan
    ids = tuple(f"{i}.mp4" for i in range(len(labels)))
    return Features(values_ND, ids, tuple(labels), ids, {"layer4": (0, values_ND.shape[1])})


def test_rate_and_decay_are_chosen_on_train_and_test_labels_decide_nothing():
    (train, labels), (test, truth) = ordered_frames(60, 0), ordered_frames(20, 1)
    network = initialize_backbone("resnet18", seed=0)
    network.info = dataclasses.replace(
        network.info, stages=tuple(dataclasses.replace(stage, channels=D) for stage in network.info.stages)
    )
    config = dataclasses.replace(FAST, learning_rates=(1e-6, 0.01), head_width=16, epochs=20)
    subject = Subject("pretrained", network, FeatureProtocol(stages="layer4", pool="frames", num_clips=1))

    def numbers(labels_of_test):
        seen = Seen(features_of(train, labels, 5), features_of(test, labels_of_test, 3))
        return list(FrameProbe().score(subject, seen, None, config, Tools()))

    (number,) = numbers(truth)
    head = number.more["head"]
    assert head["chosen"]["learning_rate"] == 0.01 and head["heldout_top1"] == max(
        p["heldout_top1"] for p in head["grid"]
    )
    assert number.correct_N.mean() > 0.8 and not number.correct_N[3] and number.more["predictions"][3] == ""
    (other,) = numbers(truth[::-1])
    assert other.more["predictions"] == number.more["predictions"] and other.more["head"] == head


def test_it_stands_beside_its_baselines_through_the_one_loop(manifest):
    config = dataclasses.replace(FAST, epochs=2, head="late_pool")
    features = FeatureProtocol(num_frames=4, num_clips=1, crop_px=16, resize_px=20, workers=0)
    rows = ask("frame_probe", initialize_backbone("resnet18", seed=0), labeled(manifest), config, features)
    assert [row.metric for row in rows] and {row.metric.rpartition("_")[0] for row in rows} == {"frame_probe"}
    assert rows[0].context["feature_protocol"]["pool"] == "frames"


@pytest.mark.parametrize(
    ("features", "options", "text"),
    [
        ({"num_clips": 2}, {}, r"features.num_clips \(2\) must be 1"),
        ({"pool": "avgmax"}, {}, r"features.pool \('avgmax'\) must be frames"),
        ({"stages": "layer3,layer4"}, {}, r"features.stages \('layer3,layer4'\) must name one stage"),
        ({"num_frames": 1}, {}, r"features.num_frames \(1\) must be at least 2 for evaluation.options.head=lstm"),
        ({}, {"head_width": 8, "head": "attention"}, r"evaluation.options.head_width \(8\) is for"),
        ({}, {"head_layers": 2, "head": "late_pool"}, r"evaluation.options.head_layers \(2\) is for"),
    ],
)
def test_what_does_not_fit_is_told(features, options, text):
    evaluation, config = FrameProbe(), FrameProbeConfig(**options)
    wanted = FeatureProtocol(**{"num_clips": 1, "num_frames": 4, **features})

    def ask_all():
        evaluation.check(config)
        evaluation.prepare(wanted, config, initialize_backbone("resnet18"), Tools())

    with pytest.raises(RecipeError, match=text):
        ask_all()


def test_a_network_that_has_brought_frames_together_is_refused_with_the_stage_that_has_not():
    network = initialize_backbone("r3d_18")
    with pytest.raises(
        RecipeError, match=r"evaluation.options.head \('lstm'\) needs a map for each frame.*features.stages=layer1"
    ):
        FrameProbe().prepare(FeatureProtocol(num_clips=1), FrameProbeConfig(), network, Tools())
    features, _ = FrameProbe().prepare(
        FeatureProtocol(num_clips=1, stages="layer1"), FrameProbeConfig(), network, Tools()
    )
    assert (features.pool, features.stages) == ("frames", "layer1")
