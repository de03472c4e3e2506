"""Neighbors against scikit-learn, and votes counted by hand."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ssvid.errors import RecipeError
from ssvid.evals.neighbors import knn
from ssvid.evals.neighbors.knn import nearest, recall_chance, score_neighbors, search, vote
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features
from tests.frozen import toy_features


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


# ---- the search


def gallery_and_queries(num_gallery: int = 300, num_queries: int = 70, width: int = 12):
    rng = np.random.default_rng(0)
    make = lambda num: Features.from_arrays(rng.normal(size=(num, width)) + 0.5, [f"c{i % 7}" for i in range(num)])  # noqa: E731
    return make(num_gallery), make(num_queries)


def test_neighbors_are_those_of_scikit_learn():
    """But for ties closer than 1e-6: there the cosines must agree."""
    train, test = gallery_and_queries()
    found = search(test, train, 20)
    oracle = NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(
        train.values_ND.astype(np.float64)
    )
    distances, indices = oracle.kneighbors(test.values_ND.astype(np.float64))
    np.testing.assert_allclose(found.cosines_NK, 1 - distances, atol=1e-6)
    tied = np.abs(np.diff(distances, axis=1, append=np.inf)) < 1e-6
    tied |= np.roll(tied, 1, axis=1)
    assert ((found.indices_NK == indices) | tied).all()
    assert tied.mean() < 0.01
    assert found.queries_N.tolist() == list(range(70))


@pytest.mark.parametrize("centered", [False, True])
def test_portions_make_no_difference(monkeypatch, centered):
    """A portion of 5 gallery rows, queries three at a time, unreadable videos in between, all ranks across portions."""
    train, test = gallery_and_queries(43, 11)
    train.values_ND[[0, 5, 6, 7, 8, 9, 42]] = np.nan
    test.values_ND[[2, 10]] = np.nan
    whole = search(test, train, 9, centered=centered)
    monkeypatch.setattr(knn, "_PORTION_BYTES", 5 * 12 * 4)
    monkeypatch.setattr(knn, "_QUERIES_AT_ONCE", 3)
    cut = search(test, train, 9, centered=centered)
    np.testing.assert_array_equal(whole.indices_NK, cut.indices_NK)
    np.testing.assert_allclose(whole.cosines_NK, cut.cosines_NK, atol=1e-6)
    assert whole.queries_N.tolist() == cut.queries_N.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert not set(np.unique(whole.indices_NK)) & {0, 5, 6, 7, 8, 9, 42}


@pytest.mark.parametrize("portion_bytes", [2**26, 3 * 2 * 4])
def test_of_equals_the_lower_index_is_nearer(monkeypatch, portion_bytes):
    """Ten copies of two vectors, which no search tells apart: [0, 2, 4, 6], in one portion and in many."""
    monkeypatch.setattr(knn, "_PORTION_BYTES", portion_bytes)
    train = Features.from_arrays(np.tile(np.array([[1.0, 0.0], [0.0, 1.0]]), (10, 1)), ["a", "b"] * 10)
    test = Features.from_arrays(np.array([[1.0, 0.0], [0.0, 2.0]]), ["a", "b"])
    found = search(test, train, 4)
    assert found.indices_NK.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert search(test, train, 12).indices_NK[0].tolist() == [*range(0, 20, 2), 1, 3]


def test_centering_takes_from_each_side_its_own_mean():
    """A shift of the whole test split by a constant changes nothing; without centering it does."""
    train, test = gallery_and_queries()
    moved = Features.from_arrays(test.values_ND + 3.0, test.labels)
    same, other = (search(t, train, 5, centered=True).indices_NK for t in (test, moved))
    np.testing.assert_array_equal(same, other)
    assert (search(test, train, 5).indices_NK != search(moved, train, 5).indices_NK).any()


def test_a_mapped_gallery_is_searched_like_one_in_memory(tmp_path):
    train, test = gallery_and_queries()
    np.save(tmp_path / "gallery.npy", train.values_ND)
    mapped = replace(train, values_ND=np.load(tmp_path / "gallery.npy", mmap_mode="r"))
    np.testing.assert_array_equal(search(test, mapped, 7).indices_NK, search(test, train, 7).indices_NK)
    np.testing.assert_array_equal(mapped.values_ND, train.values_ND)  # still there after its pages were given back


def test_the_chance_of_a_recall_is_that_of_counting():
    """6 training videos, 2 of class a, 1 of b, 3 of c: every draw of 3 is looked at."""
    train = list("aabccc")
    draws = list(itertools.combinations(train, 3))
    expected = np.mean([sum(label in draw for draw in draws) / len(draws) for label in "ab"])
    assert recall_chance(np.array(["a", "b"]), train, 3) == pytest.approx(expected)
    assert recall_chance(np.array(["a", "x"]), train, 6) == pytest.approx(0.5)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells how much of a mapped file is in memory")
def test_a_mapped_gallery_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    """16 MB in portions of 1 MB: after three quarters of it, one portion and what the kernel read ahead are there."""
    path = tmp_path / "gallery.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4096, 1024)).astype(np.float32))
    train, test = gallery_and_queries(2, 4, width=1024)
    names = tuple(map(str, range(4096)))
    mapped = replace(train, values_ND=np.load(path, mmap_mode="r"), ids=names, labels=names, groups=names)
    calls = itertools.count(1)
    seen = []

    def watched(*arguments):
        if next(calls) == 12:
            seen.append(resident_bytes(path))
        return nearest(*arguments)

    monkeypatch.setattr(knn, "_PORTION_BYTES", 2**20)
    monkeypatch.setattr(knn, "nearest", watched)
    search(test, mapped, 3)
    assert next(calls) == 17
    assert 2**19 < seen[0] < 2**23  # 12 MB were read
    assert resident_bytes(path) < 2**20


def resident_bytes(path: Path) -> int:
    """How much of a mapped file is in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = 0
    for line in lines:
        if line.endswith(str(path)):
            found += next(1024 * int(other.split()[1]) for other in lines if other.startswith("Rss:"))
    return found
