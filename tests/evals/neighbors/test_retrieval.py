"""R@k against a plain loop in float64, the two manners, and a whole retrieval of encoded videos."""

from dataclasses import replace

import numpy as np
import pytest

from ssvid.errors import RecipeError
from ssvid.evals.contract import Subject, Tools
from ssvid.evals.measuring import see
from ssvid.evals.neighbors.retrieval import heldout_recall, retrieve
from ssvid.features.protocol import BaselineProtocol, FeatureProtocol, RetrievalProtocol, resolve_retrieval
from ssvid.features.store import Features
from ssvid.protocols.metrics import title_of
from ssvid.recipe.schema import RetrieveRecipe
from tests.frozen import ask, beside, labeled, toy_features

QUICK = RetrievalProtocol(ks=(1, 3, 10))


def recall_by_a_loop(train: Features, test: Features, k: int, *, centered: bool) -> list[bool]:
    """Cosines one by one in float64, sorted with the lower index first."""
    gallery, queries = (f.values_ND.astype(np.float64) for f in (train, test))
    if centered:
        gallery, queries = gallery - np.nanmean(gallery, axis=0), queries - np.nanmean(queries, axis=0)
    hits = []
    for query, label in zip(queries, test.labels, strict=True):
        if np.isnan(query).any():
            hits.append(False)
            continue
        cosines = [
            -np.inf if np.isnan(v).any() else float(v @ query) / np.sqrt(float(v @ v) * float(query @ query))
            for v in gallery
        ]
        order = sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))
        hits.append(any(train.labels[i] == label for i in order[:k]))
    return hits


@pytest.mark.parametrize("centering", ["none", "separate"])
def test_recall_is_that_of_a_plain_loop(centering):
    train, test = toy_features(15, noise=2.5, num_classes=9), toy_features(9, noise=2.5, num_classes=9, seed=1)
    train, test = replace(train, values_ND=train.values_ND + 1.0), replace(test, values_ND=test.values_ND - 1.0)
    train.values_ND[[3, 50]] = np.nan
    test.values_ND[[0, 17]] = np.nan
    found = retrieve(train, test, replace(QUICK, centering=centering))
    for k in QUICK.ks:
        expected = recall_by_a_loop(train, test, k, centered=centering == "separate")
        np.testing.assert_array_equal(found.hits[k], expected)
    assert 0 < found.hits[1].mean() < found.hits[10].mean() < 1.0
    assert not found.hits[10][[0, 17]].any()


def test_chance_is_below_recall_and_above_one_draw():
    train, test = toy_features(15, num_classes=9), toy_features(9, num_classes=9, seed=1)
    found = retrieve(train, test, QUICK)
    assert found.chance[1] == pytest.approx(1 / 9)
    assert found.chance[1] < found.chance[3] < found.chance[10] < 1


def test_more_neighbors_than_training_videos_are_refused():
    with pytest.raises(
        RecipeError, match=r"retrieval.ks \(\[1, 50\]\) must be at most the number of training videos, 12"
    ):
        retrieve(toy_features(3), toy_features(2), replace(QUICK, ks=(1, 50)))
    with pytest.raises(RecipeError, match=r"retrieval.centering \('mean'\) must be one of none, separate\. Set"):
        retrieve(toy_features(3), toy_features(2), replace(QUICK, ks=(1,), centering="mean"))


def test_a_manner_sets_what_the_paper_does():
    features, protocol = resolve_retrieval(FeatureProtocol(), RetrievalProtocol(manner="vcop"))
    assert (features.pool, features.stages, protocol.centering) == ("max1x2x2", "trained", "none")
    features, protocol = resolve_retrieval(FeatureProtocol(stages="stage3"), RetrievalProtocol(manner="coclr"))
    assert (features.pool, features.stages, protocol.centering) == ("avg", "stage3", "separate")
    assert resolve_retrieval(features, protocol) == (features, protocol)
    own = FeatureProtocol(pool="avgmax"), RetrievalProtocol(centering="separate")
    assert resolve_retrieval(*own) == own


def test_a_value_that_a_manner_sets_otherwise_is_refused():
    with pytest.raises(
        RecipeError,
        match=r"features.pool \(avgmax\) must be max1x2x2 where retrieval.manner is vcop\. Leave it out, or set",
    ):
        resolve_retrieval(FeatureProtocol(pool="avgmax"), RetrievalProtocol(manner="vcop"))
    with pytest.raises(
        RecipeError, match=r"retrieval.centering \(separate\) must be none where retrieval.manner is vcop"
    ):
        resolve_retrieval(FeatureProtocol(), RetrievalProtocol(manner="vcop", centering="separate"))
    with pytest.raises(
        RecipeError, match=r"retrieval.manner \('cocrl'\) must be one of own, vcop, coclr \(did you mean 'coclr'\?\)"
    ):
        resolve_retrieval(FeatureProtocol(), RetrievalProtocol(manner="cocrl"))


def test_held_out_recall_does_not_let_a_group_find_itself():
    """Each group is a cluster of its own and one of two classes: it is found only where its siblings are in the gallery."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    values = 5 * rng.normal(size=(20, 8))[groups] + 0.1 * rng.normal(size=(120, 8))
    labels = [f"class{g % 4}" for g in groups]
    torn = heldout_recall(Features.from_arrays(values, labels), QUICK)
    whole = heldout_recall(Features.from_arrays(values, labels, groups=[str(g) for g in groups]), QUICK)
    assert torn == 1.0
    assert whole < 0.6


@pytest.mark.parametrize("manner", ["own", "vcop", "coclr"])
def test_rows_of_encoded_videos(backbone, manifest, quick, manner):
    data = labeled(manifest)
    backbone.provenance = {"stage": "stage3"}
    rows = ask("retrieval", backbone, data, replace(QUICK, manner=manner), quick)
    assert [row.metric for row in rows] == ["recall_at_1", "recall_at_3", "recall_at_10"]
    context = rows[0].context
    assert context["retrieval_protocol"]["manner"] == manner
    assert context["retrieval_protocol"]["centering"] == ("separate" if manner == "coclr" else "none")
    assert context["feature_protocol"]["pool"] == ("max1x2x2" if manner == "vcop" else "avg")
    assert context["feature_protocol"]["stages"] == ("stage1,stage2,stage3" if manner == "own" else "stage3")
    assert (context["leak"]["verdict"], context["leak"]["same_content_in_train_and_test"]) == ("unknown", 0)
    features, protocol = resolve_retrieval(quick, replace(QUICK, manner=manner))
    seen = see([Subject("pretrained", backbone, features)], data, Tools())["pretrained"]
    chance = retrieve(seen.train, seen.test, protocol).chance
    for row in rows:
        k = int(row.metric.removeprefix("recall_at_"))
        if manner != "own":  # one stage, so that the cosine is the plain one
            expected = recall_by_a_loop(seen.train, seen.test, k, centered=manner == "coclr")
            np.testing.assert_array_equal(row.correct_N, expected)
        assert row.chance == chance[k]
        assert row.interval[0] <= row.value <= row.interval[1]


def test_same_content_on_both_sides_is_said(backbone, manifest, quick):
    data = labeled(manifest)
    twin = replace(data.test[0], source_id=data.train[0].content_id)
    (first, *_) = ask("retrieval", backbone, labeled(manifest, test=[twin, *data.test[1:]]), QUICK, quick)
    assert first.context["leak"]["same_content_in_train_and_test"] == 1
    assert "test videos with the content of a training video: 1" in first.context["notes"]


def test_the_random_row_is_the_better_form_by_held_out_train(backbone, manifest, quick):
    only = BaselineProtocol(histograms=False, single_frame=False, shuffled_frames=False)
    rows = beside(RetrieveRecipe(features=quick, retrieval=QUICK, baselines=only), backbone, labeled(manifest))
    better, others = rows[: len(QUICK.ks)], rows[len(QUICK.ks) :]
    choice = better[0].context["better_form"]
    other = {"initial": "calibrated", "calibrated": "initial"}[choice["form"]]
    scores = choice["heldout_recall_at_1"]
    assert scores[choice["form"]] >= scores[other]
    assert {row.name for row in better} == {"random"}
    assert {row.name for row in others} == {f"random, {other}"}
    assert better[0].context["weights_sha256"] != others[0].context["weights_sha256"]


def test_titles():
    assert [title_of(f"recall_at_{k}") for k in (1, 20)] == ["R@1", "R@20"]
