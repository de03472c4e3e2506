"""Retrieval: does a test video find videos of its class among the training videos? Nothing is trained.

R@k as VCOP (Xu et al., CVPR 2019) and CoCLR (Han et al., NeurIPS 2020) report it: the share of test videos with at least
one video of their class among the k nearest training videos. ``RetrievalProtocol.manner`` says in which of the two ways
the vectors are made.

Differs: every test video is scored, where VCOP's script drops the last batch of both splits; an unreadable one is a miss.
Frames are not jittered in color, which CoCLR's script also does on test videos. Clips are spread evenly over the video in
both manners, where CoCLR slides a window. The short side is resized, where VCOP squashes frames to 171 x 128.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssvid.backbones import Backbone
from ssvid.evals.contract import Evaluation, LabeledData, Number, Seen, Subject, Tools, plain, register_evaluation
from ssvid.evals.hand_made import HandMade
from ssvid.evals.holdouts import held_out
from ssvid.evals.neighbors.knn import NEIGHBORS_SHOWN, Neighbors, recall_chance, search, searchable
from ssvid.evals.neighbors.page import shown_queries, write_page
from ssvid.features.protocol import (
    FeatureProtocol,
    ProbeProtocol,
    RetrievalProtocol,
    check_retrieval_protocol,
    resolve_retrieval,
)
from ssvid.features.store import Features
from ssvid.results.rows import ResultRow


@dataclass(frozen=True)
class RetrievalResult:
    """What the test videos found; an unreadable one finds nothing.

    hits: for each k, whether one of the k nearest training videos has the label. chance: of k training videos drawn at
    random. neighbors: of every readable test video, max(ks) or the five that a page shows.
    """

    hits: dict[int, np.ndarray]
    chance: dict[int, float]
    neighbors: Neighbors


@register_evaluation("retrieval")
class Retrieval(Evaluation):
    """R@k for every k of the protocol; a picture and a page of what the first network found."""

    Config = RetrievalProtocol
    metrics = ("recall",)
    settings_name = "retrieval_protocol"
    heldout_name = "heldout_recall_at_1"

    def check(self, config: RetrievalProtocol, num_train: int | None = None) -> None:
        check_retrieval_protocol(config, num_train)

    def prepare(
        self, features: FeatureProtocol, config: RetrievalProtocol, network: Backbone, tools: Tools
    ) -> tuple[FeatureProtocol, RetrievalProtocol]:
        return resolve_retrieval(features, config)

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: RetrievalProtocol, tools: Tools
    ) -> Iterator[Number]:
        if isinstance(subject.network, HandMade):  # centered as the manner says, pooled in no way
            config = replace(config, manner="own")
        found = found_by(seen, config)
        for k, hit_N in found.hits.items():
            yield Number(f"recall_at_{k}", hit_N, found.chance[k], {self.settings_name: plain(config)})

    def heldout(
        self,
        rows: Sequence[ResultRow],
        subject: Subject,
        seen: Seen,
        data: LabeledData,
        config: RetrievalProtocol,
        tools: Tools,
    ) -> float:
        return heldout_recall(seen.train, config)

    def draw(
        self,
        folder: Path,
        ending: str,
        rows: Sequence[ResultRow],
        seen: Seen,
        data: LabeledData,
        config: RetrievalProtocol,
    ) -> list[Path]:
        neighbors = found_by(seen, config).neighbors
        lines = shown_queries(seen, neighbors, data, num_shown=config.num_shown, seed=config.seed)
        return write_page(folder / f"neighbors{ending}", lines, rows, seed=config.seed)


def found_by(seen: Seen, protocol: RetrievalProtocol) -> RetrievalResult:
    """What the test videos found, searched for once."""
    return seen.once(protocol, lambda: retrieve(seen.train, seen.test, protocol))


def retrieve(train: Features, test: Features, protocol: RetrievalProtocol) -> RetrievalResult:
    """R@k for every k, from one search: the queries are the test videos, the gallery the training videos.

    Raises:
        DataError: no training video is readable. RecipeError: the protocol does not fit.
    """
    searched_M = searchable(train)
    num_searched = int(searched_M.sum())
    check_retrieval_protocol(protocol, num_searched)
    k = min(max(*protocol.ks, NEIGHBORS_SHOWN), num_searched)
    found = search(test, train, k, centered=protocol.centering == "separate")
    train_labels, labels = (np.array(f.labels, dtype=object).astype(str) for f in (train, test))
    same_NK = train_labels[found.indices_NK] == labels[found.queries_N, None]
    hits = {k: np.zeros(len(labels), dtype=bool) for k in protocol.ks}
    for k, hit_N in hits.items():
        hit_N[found.queries_N] = same_NK[:, :k].any(axis=1)
    chance = {k: recall_chance(labels, train_labels[searched_M], k) for k in protocol.ks}
    return RetrievalResult(hits, chance, found)


def heldout_recall(train: Features, protocol: RetrievalProtocol) -> float:
    """R@1 of a held-out fifth of train among the rest of it: what may be chosen by, where test has no say.

    Groups and equal contents are on one side, as when the head of a probe is chosen.

    Raises:
        DataError: nothing can be held out.
    """
    ((gallery, queries),) = held_out(train, ProbeProtocol(num_holdouts=1, seed=protocol.seed))
    found = retrieve(train.at(gallery), train.at(queries), replace(protocol, ks=(1,)))
    return float(found.hits[1].mean())
