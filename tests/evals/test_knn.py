"""Neighbors against scikit-learn, and votes counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssvid.errors import RecipeError
from ssvid.evals import Features, ProbeProtocol, score_neighbors
from ssvid.evals.knn import nearest, vote

from .conftest import toy_features


@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_are_those_of_scikit_learn(k):
    train, test = toy_features(40, noise=1.5), toy_features(100, noise=1.5, seed=1)
    result = score_neighbors(train, test, ProbeProtocol(knn_ks=(k,)))
    oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    oracle.fit(train.values_ND.astype(np.float64), train.labels)
    expected = oracle.predict(test.values_ND.astype(np.float64))
    assert (np.array(result.predictions[k]) == expected).mean() >= 0.995
    assert 0.3 < result.knn_correct[k].mean() < 1.0


def test_neighbors_and_recall_at_1_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    train = Features.from_arrays(rng.normal(size=(60, 5)), [f"c{i % 6}" for i in range(60)])
    test = Features.from_arrays(rng.normal(size=(31, 5)), [f"c{i % 6}" for i in range(31)])
    right = []
    for query, label in zip(test.values_ND.astype(float), test.labels, strict=True):
        cosines = [q @ query / math.sqrt((q @ q) * (query @ query)) for q in train.values_ND.astype(float)]
        right.append(train.labels[int(np.argmax(cosines))] == label)
    np.testing.assert_array_equal(score_neighbors(train, test, ProbeProtocol()).retrieval_correct_N, right)


def test_votes_by_hand():
    """exp(0.9/T) > 2 exp(0.85/T) at T = 0.07 (ratio 2.04), and no longer at T = 0.08 (ratio 1.87)."""
    cosines, codes = torch.tensor([[0.9, 0.85, 0.85]]), torch.tensor([[0, 1, 1]])
    assert vote(cosines, codes, 2, 0.07).item() == 0
    assert vote(cosines, codes, 2, 0.08).item() == 1
    assert vote(cosines, codes, 2, 1e-4).item() == 0  # no overflow


def test_nearest_by_hand():
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    cosines, indices = nearest(torch.tensor([[0.0, 1.0]]), gallery, 2)
    assert indices.tolist() == [[1, 2]]
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.8]]))


def test_each_stage_has_the_same_say():
    """One stage is a thousand times as large as the other: it must not decide alone."""
    loud, quiet = np.array([[1000.0, 0], [998.0, 63]]), np.array([[0.0, 1], [1.0, 0]])
    train = replace(
        Features.from_arrays(np.hstack([loud, quiet]), ["a", "b"]), stage_columns={"loud": (0, 2), "quiet": (2, 4)}
    )
    test = replace(
        Features.from_arrays(np.array([[1000.0, 0, 1, 0]]), ["b"]), stage_columns={"loud": (0, 2), "quiet": (2, 4)}
    )
    protocol = ProbeProtocol(knn_ks=(1,))
    assert score_neighbors(train, test, protocol).predictions[1] == ("b",)
    plain = {"all": (0, 4)}
    both = (replace(train, stage_columns=plain), replace(test, stage_columns=plain))
    assert score_neighbors(*both, protocol).predictions[1] == ("a",)


def test_unreadable_videos_are_wrong_in_test_and_absent_from_train():
    train, test = toy_features(10), toy_features(5, seed=1)
    train.values_ND[:10] = np.nan
    test.values_ND[19] = np.nan
    result = score_neighbors(train, test, ProbeProtocol(knn_ks=(3, 5)))
    assert "class0" not in result.predictions[3]
    assert result.knn_correct[5].sum() == 14
    assert result.retrieval_correct_N.sum() == 14
    assert result.predictions[3][19] == ""


def test_chance_levels_by_hand():
    train = Features.from_arrays(np.eye(4), ["a", "a", "a", "b"])
    test = Features.from_arrays(np.eye(4)[:3], ["a", "b", "b"])
    result = score_neighbors(train, test, ProbeProtocol(knn_ks=(1,)))
    assert result.knn_chance == 2 / 3
    assert result.retrieval_chance == pytest.approx((3 / 4 + 1 / 4 + 1 / 4) / 3)


def test_more_neighbors_than_videos_are_refused():
    with pytest.raises(RecipeError, match=r"probe.knn_ks \(\[50\]\) must be at most the number of training videos, 40"):
        score_neighbors(toy_features(10), toy_features(5), ProbeProtocol(knn_ks=(50,)))
