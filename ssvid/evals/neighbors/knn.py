"""What the neighbors of a frozen feature say: weighted k-NN classification and retrieval. Nothing is trained.

The search goes through the gallery and the queries in portions, so that features which lie in a mapped file never have to
be in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.errors import DataError
from ssvid.evals.contract import (
    Evaluation,
    LabeledData,
    Number,
    Seen,
    Subject,
    Tools,
    guess_chance,
    register_evaluation,
)
from ssvid.evals.holdouts import held_out
from ssvid.features.protocol import ProbeProtocol, check_probe_protocol
from ssvid.features.store import PORTION_BYTES, Features, portions
from ssvid.results.rows import ResultRow

# Of a portion of features, and of a table of cosines: what a search needs is a few times that, whatever it searches.
_PORTION_BYTES = PORTION_BYTES
_QUERIES_AT_ONCE = 1024
NEIGHBORS_SHOWN = 5  # on a page of queries, whatever is asked for


class Neighbors(NamedTuple):
    """The k nearest readable gallery videos of every readable query, nearest first; of equal cosines the lower index.

    cosines_NK: float32. indices_NK: int64, into the gallery as it was given. queries_N: positions of the queries that
    are readable, in order.
    """

    cosines_NK: np.ndarray
    indices_NK: np.ndarray
    queries_N: np.ndarray


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


@register_evaluation("knn")
class KNN(Evaluation):
    """Weighted k-NN for each k, and R@1. Nothing is trained."""

    Config = ProbeProtocol
    metrics = ("knn", "recall")
    settings_name = "probe_protocol"

    def check(self, config: ProbeProtocol, num_train: int | None = None) -> None:
        check_probe_protocol(config, num_train)

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: ProbeProtocol, tools: Tools
    ) -> Iterator[Number]:
        found = score_neighbors(seen.train, seen.test, config)
        for k, correct_N in found.knn_correct.items():
            yield Number(f"knn{k}_top1", correct_N, found.knn_chance, {"predictions": list(found.predictions[k])})
        yield Number("recall_at_1", found.retrieval_correct_N, found.retrieval_chance)

    def heldout(
        self,
        rows: Sequence[ResultRow],
        subject: Subject,
        seen: Seen,
        data: LabeledData,
        config: ProbeProtocol,
        tools: Tools,
    ) -> float:
        right: list[float] = []
        for parts in held_out(seen.train, config):
            fewer = replace(config, knn_ks=(min(config.knn_ks[0], len(parts[0])),))
            right += list(self.score_held_out(parts, subject, seen, data, fewer, tools))
        return float(np.mean(right))


def score_neighbors(train: Features, test: Features, protocol: ProbeProtocol) -> NeighborResult:
    """Weighted k-NN for every k of the protocol, and R@1, from one search.

    Raises:
        DataError: no training video is readable. RecipeError: the protocol does not fit.
    """
    searched_M = searchable(train)
    check_probe_protocol(protocol, int(searched_M.sum()))
    classes, codes_M = np.unique(np.array(train.labels, dtype=object).astype(str), return_inverse=True)
    labels = np.array(test.labels, dtype=object).astype(str)
    found = search(test, train, max(protocol.knn_ks))
    cosines, codes = torch.from_numpy(found.cosines_NK), torch.from_numpy(codes_M[found.indices_NK])
    predictions = {}
    for k in protocol.knn_ks:
        votes = vote(cosines[:, :k], codes[:, :k], len(classes), protocol.knn_temperature)
        predictions[k] = _scatter(classes[votes.numpy()], found.queries_N, len(labels))
    first = _scatter(classes[codes[:, 0].numpy()], found.queries_N, len(labels))
    return NeighborResult(
        {k: (p == labels) & test.readable for k, p in predictions.items()},
        (first == labels) & test.readable,
        {k: tuple(p.tolist()) for k, p in predictions.items()},
        guess_chance(labels),
        recall_chance(labels, classes[codes_M][searched_M], 1),
    )


def searchable(gallery: Features) -> np.ndarray:
    """Which videos of a gallery can be found. Raises DataError where none can."""
    readable_M = gallery.readable
    if not readable_M.any():
        raise DataError(f"none of the {len(gallery.ids)} training videos is readable. Index them again.")
    return readable_M


def search(queries: Features, gallery: Features, k: int, *, centered: bool = False) -> Neighbors:
    """The k nearest gallery videos of every query by ``cosine_vectors``; k at most the readable ones of the gallery.

    Memory: some portions of 64 MiB, and (cosine, index) of the k nearest of each query.

    Args:
        centered: take from the queries and from the gallery each their own mean first (CoCLR).
    """
    columns = gallery.stage_columns
    query_mean_D, gallery_mean_D = (_mean(features) if centered else None for features in (queries, gallery))
    positions = np.flatnonzero(queries.readable)
    best = _Best(len(positions), k)
    for gallery_M, gallery_MD in _readable_portions(gallery, gallery_mean_D):
        block_MD, numbers_M = cosine_vectors(gallery_MD, columns), torch.from_numpy(gallery_M)
        done = 0
        for rows, values_ND in _readable_portions(queries, query_mean_D, most=_QUERIES_AT_ONCE):
            cosines, indices = nearest(cosine_vectors(values_ND, columns), block_MD, min(k, len(block_MD)))
            best.merge(done, cosines, numbers_M[indices])
            done += len(rows)
    return Neighbors(best.cosines_NK.numpy(), best.indices_NK.numpy(), positions)


def cosine_vectors(values_ND: np.ndarray, stage_columns: Mapping[str, tuple[int, int]]) -> Tensor:
    """Unit vectors whose inner product is the mean over stages of the cosine within each stage.

    With one stage it is the plain cosine of DINO (arXiv 2104.14294, section 4.1) and SVT. Differs: with several stages
    side by side the plain cosine would be that of the stage with the largest activations alone.
    """
    values = torch.from_numpy(np.ascontiguousarray(values_ND, dtype=np.float32))
    parts = [torch.nn.functional.normalize(values[:, a:b], dim=1) for a, b in stage_columns.values()]
    return torch.cat(parts, dim=1) / len(parts) ** 0.5 if len(parts) > 1 else parts[0]


def nearest(queries_ND: Tensor, gallery_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and indices (N, k) of the k nearest gallery rows for each query, nearest first; of equals the lower index."""
    at_once = max(1, min(_QUERIES_AT_ONCE, _PORTION_BYTES // (4 * max(len(gallery_MD), 1))))
    found = [_largest(chunk @ gallery_MD.T, k) for chunk in queries_ND.split(at_once)]
    if not found:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.long)
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])


def vote(cosines_NK: Tensor, codes_NK: Tensor, num_classes: int, temperature: float) -> Tensor:
    """The class (N,) with the largest sum of exp(cosine / temperature) over the neighbors of that class.

    DINO (arXiv 2104.14294) and SVT (arXiv 2112.01514) use temperature 0.07. A tie goes to the class that sorts first.
    """
    # The largest cosine is taken out: the same winner, and no overflow at a small temperature.
    weights = ((cosines_NK - cosines_NK[:, :1]).double() / temperature).exp()
    scores = torch.zeros(len(codes_NK), num_classes, dtype=weights.dtype)
    return scores.scatter_add_(1, codes_NK, weights).argmax(dim=1)


def recall_chance(test_labels: np.ndarray, train_labels: Sequence[str] | np.ndarray, k: int) -> float:
    """Chance that k training videos drawn at random hold one with the label of a random test video.

    Of M training videos, m with the label: 1 - (M - m choose k) / (M choose k).
    """
    classes, counts = np.unique(np.asarray(train_labels).astype(str), return_counts=True)
    total = int(counts.sum())
    hit = {label: 1 - _share_without(total, int(count), k) for label, count in zip(classes, counts, strict=True)}
    return float(np.mean([hit.get(label, 0.0) for label in test_labels]))


def _share_without(total: int, count: int, k: int) -> float:
    draws = np.arange(min(k, total))
    return float(np.prod(np.maximum(total - count - draws, 0) / (total - draws)))


class _Best:
    """The k nearest that were seen so far. Portions come in the order of the gallery, so that equals stay in it."""

    def __init__(self, num_queries: int, k: int) -> None:
        self.cosines_NK = torch.full((num_queries, k), -torch.inf)
        self.indices_NK = torch.zeros(num_queries, k, dtype=torch.long)

    def merge(self, start: int, cosines: Tensor, indices: Tensor) -> None:
        """Take in what a portion of the gallery has for the queries from ``start`` on."""
        rows = slice(start, start + len(cosines))
        k = self.cosines_NK.shape[1]
        if cosines.shape[1] == k and bool(self.cosines_NK[rows, 0].isneginf().all()):  # the first portion
            self.cosines_NK[rows], self.indices_NK[rows] = cosines, indices
            return
        both = torch.cat([self.cosines_NK[rows], cosines], dim=1)
        sorted_, order = both.sort(dim=1, descending=True, stable=True)
        self.indices_NK[rows] = torch.cat([self.indices_NK[rows], indices], dim=1).gather(1, order[:, :k])
        self.cosines_NK[rows] = sorted_[:, :k]


def _largest(cosines_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``topk`` with a rule for equals: those of lower index are in, and first."""
    one_more = min(k + 1, cosines_NM.shape[1])
    values, indices = cosines_NM.topk(one_more, dim=1, sorted=False)
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    indices = indices.gather(1, order)
    if one_more > k:
        torn = (values[:, k - 1] == values[:, k]).nonzero().flatten()  # equals on both sides of the border
        values, indices = values[:, :k].clone(), indices[:, :k].clone()
        if len(torn):
            values[torn], indices[torn] = (s[:, :k] for s in cosines_NM[torn].sort(dim=1, descending=True, stable=True))
    return values, indices


def _readable_portions(
    features: Features, mean_D: np.ndarray | None, *, most: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and vectors (copied, the mean taken out) of the readable videos, a portion at a time."""
    for start, values_ND in portions(features.values_ND, portion_bytes=_PORTION_BYTES, most=most):
        readable = np.flatnonzero(~np.isnan(values_ND).any(axis=1))
        if readable.size:
            kept = values_ND[readable]
            yield start + readable, kept if mean_D is None else kept - mean_D


def _mean(features: Features) -> np.ndarray:
    """Mean vector of the readable videos, summed in float64."""
    total, count = np.zeros(features.values_ND.shape[1]), 0
    for _, values_ND in _readable_portions(features, None):
        total += values_ND.sum(axis=0, dtype=np.float64)
        count += len(values_ND)
    return (total / max(count, 1)).astype(np.float32)


def _scatter(found: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    everywhere = np.full(length, "", dtype=object)
    everywhere[positions] = found
    return everywhere
