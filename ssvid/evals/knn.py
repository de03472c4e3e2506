"""What the neighbors of a frozen feature say: weighted k-NN classification and retrieval. Nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssvid.errors import DataError
from ssvid.evals.features import Features
from ssvid.evals.protocol import ProbeProtocol, check_probe_protocol

_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class NeighborResult:
    """What k-NN and retrieval found on the test videos; an unreadable one is wrong in all of them.

    knn_correct: for each k, whether the weighted vote was right. retrieval_correct_N: whether the nearest training
    video has the same label. predictions: for each k, the label voted for; "" where unreadable.
    knn_chance, retrieval_chance: what a guess blind to the video scores.
    """

    knn_correct: dict[int, np.ndarray]
    retrieval_correct_N: np.ndarray
    predictions: dict[int, tuple[str, ...]]
    knn_chance: float
    retrieval_chance: float


def score_neighbors(train: Features, test: Features, protocol: ProbeProtocol) -> NeighborResult:
    """Weighted k-NN for every k of the protocol, and R@1, from one search.

    Raises:
        DataError: no training video is readable. RecipeError: the protocol does not fit.
    """
    gallery = np.flatnonzero(train.readable)
    if gallery.size == 0:
        raise DataError(f"none of the {len(train.ids)} training videos is readable. Index them again.")
    check_probe_protocol(protocol, gallery.size)
    classes, codes_M = np.unique(np.array(train.labels, dtype=object)[gallery].astype(str), return_inverse=True)
    queries = np.flatnonzero(test.readable)
    labels = np.array(test.labels, dtype=object).astype(str)
    cosines, neighbors = nearest(
        cosine_vectors(test.values_ND[queries], test.stage_columns),
        cosine_vectors(train.values_ND[gallery], train.stage_columns),
        max(protocol.knn_ks),
    )
    codes = torch.from_numpy(codes_M)[neighbors]
    predictions = {}
    for k in protocol.knn_ks:
        votes = vote(cosines[:, :k], codes[:, :k], len(classes), protocol.knn_temperature)
        predictions[k] = _scatter(classes[votes.numpy()], queries, len(labels))
    first = _scatter(classes[codes[:, 0].numpy()], queries, len(labels))
    return NeighborResult(
        {k: (p == labels) & test.readable for k, p in predictions.items()},
        (first == labels) & test.readable,
        {k: tuple(p.tolist()) for k, p in predictions.items()},
        _constant_guess_chance(labels),
        _random_neighbor_chance(labels, classes[codes_M]),
    )


def cosine_vectors(values_ND: np.ndarray, stage_columns: Mapping[str, tuple[int, int]]) -> Tensor:
    """Unit vectors whose inner product is the mean over stages of the cosine within each stage.

    With one stage it is the plain cosine of DINO (arXiv 2104.14294, section 4.1) and SVT. Differs: with several stages
    side by side the plain cosine would be that of the stage with the largest activations alone.
    """
    values = torch.from_numpy(np.ascontiguousarray(values_ND, dtype=np.float32))
    parts = [torch.nn.functional.normalize(values[:, a:b], dim=1) for a, b in stage_columns.values()]
    return torch.cat(parts, dim=1) / len(parts) ** 0.5


def nearest(queries_ND: Tensor, gallery_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and indices (N, k) of the k nearest gallery rows for each query, nearest first."""
    found = [(chunk @ gallery_MD.T).topk(k, dim=1) for chunk in queries_ND.split(_QUERIES_AT_ONCE)]
    if not found:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.long)
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(cosines_NK: Tensor, codes_NK: Tensor, num_classes: int, temperature: float) -> Tensor:
    """The class (N,) with the largest sum of exp(cosine / temperature) over the neighbors of that class.

    DINO (arXiv 2104.14294) and SVT (arXiv 2112.01514) use temperature 0.07. A tie goes to the class that sorts first.
    """
    # The largest cosine is taken out: the same winner, and no overflow at a small temperature.
    weights = ((cosines_NK - cosines_NK[:, :1]).double() / temperature).exp()
    scores = torch.zeros(len(codes_NK), num_classes, dtype=weights.dtype)
    return scores.scatter_add_(1, codes_NK, weights).argmax(dim=1)


def _scatter(found: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    everywhere = np.full(length, "", dtype=object)
    everywhere[positions] = found
    return everywhere


def _constant_guess_chance(labels: np.ndarray) -> float:
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _random_neighbor_chance(test_labels: np.ndarray, train_labels: Sequence[str] | np.ndarray) -> float:
    """Chance that a random training video shares the label of a random test video."""
    classes, counts = np.unique(np.asarray(train_labels).astype(str), return_counts=True)
    share = dict(zip(classes, counts / counts.sum(), strict=True))
    return float(np.mean([share.get(label, 0.0) for label in test_labels]))
