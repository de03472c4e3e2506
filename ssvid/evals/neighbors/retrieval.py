"""Retrieval: does a test video find videos of its class among the training videos? Nothing is trained.

R@k as VCOP (Xu et al., CVPR 2019) and CoCLR (Han et al., NeurIPS 2020) report it: the share of test videos with at least
one video of their class among the k nearest training videos. ``RetrievalProtocol.manner`` says in which of the two ways
the vectors are made.

Differs: every test video is scored, where VCOP's script drops the last batch of both splits; an unreadable one is a miss.
Frames are not jittered in color, which CoCLR's script also does on test videos. Clips are spread evenly over the video in
both manners, where CoCLR slides a window. The short side is resized, where VCOP squashes frames to 171 x 128.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.evals.baselines import random_forms
from ssvid.evals.contract import Evaluated, extract_for
from ssvid.evals.linear_probe.probe import holdouts
from ssvid.evals.neighbors.knn import Neighbors, recall_chance, search, searchable
from ssvid.features.extracting import Progress
from ssvid.features.protocol import (
    FeatureProtocol,
    ProbeProtocol,
    RetrievalProtocol,
    check_retrieval_protocol,
    resolve_retrieval,
)
from ssvid.features.store import Features
from ssvid.results.rows import ResultRow

NEIGHBORS_SHOWN = 5  # on a page, whatever ks are


@dataclass(frozen=True)
class RetrievalResult:
    """What the test videos found; an unreadable one finds nothing.

    hits: for each k, whether one of the k nearest training videos has the label. chance: of k training videos drawn at
    random. neighbors: of every readable test video, max(ks) or the five that a page shows.
    """

    hits: dict[int, np.ndarray]
    chance: dict[int, float]
    neighbors: Neighbors


@dataclass(frozen=True)
class Retrieved:
    """One network's retrieval: its rows, and what a picture of it needs."""

    rows: list[ResultRow]
    result: RetrievalResult
    train: Features
    test: Features


@dataclass(frozen=True)
class RandomRetrieval:
    """The random network in the form that is better on held-out train, and the rows of the other form."""

    better: Retrieved
    other: list[ResultRow]


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


def retrieve_with(
    backbone: Backbone,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    feature_protocol: FeatureProtocol,
    retrieval_protocol: RetrievalProtocol,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    name: str = "pretrained",
    provenance: Mapping[str, Any] | None = None,
) -> Retrieved:
    """Score the retrieval of one network: R@k for every k of the protocol. Arguments as of ``evaluate_backbone``.

    Raises:
        DataError: labels or a split are missing, or a class has no training video.
        RecipeError: a protocol makes no sense or does not fit.
    """
    features, protocol = resolve_retrieval(feature_protocol, retrieval_protocol)
    check_retrieval_protocol(protocol, sum(row.is_readable for row in train_rows))
    evaluated = extract_for(
        backbone,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        feature_protocol=features,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
        provenance=provenance,
    )
    result = retrieve(evaluated.train, evaluated.test, protocol)
    return Retrieved(list(_rows(name, evaluated, result, protocol)), result, evaluated.train, evaluated.test)


def heldout_recall(train: Features, protocol: RetrievalProtocol) -> float:
    """R@1 of a held-out fifth of train among the rest of it: what may be chosen by, where test has no say.

    Groups and equal contents are on one side, as when the head of a probe is chosen.

    Raises:
        DataError: nothing can be held out.
    """
    readable = np.flatnonzero(train.readable)
    labels, groups = (np.array(v, dtype=object)[readable] for v in (train.labels, train.groups))
    split = ProbeProtocol(num_holdouts=1, seed=protocol.seed)
    ((gallery, queries),) = holdouts(labels, groups, split, [])
    one_k = replace(protocol, ks=(1,))
    found = retrieve(train.at(readable[gallery]), train.at(readable[queries]), one_k)
    return float(found.hits[1].mean())


def random_retrieval(
    architecture: Backbone,
    seed: int,
    manifest: Manifest,
    *,
    trained_stage: str | None,
    name: str = "random",
    forms: Mapping[str, Backbone] | None = None,
    **shared: Any,
) -> RandomRetrieval:
    """The random row: the network that pretraining with this seed started from, in the better of its two forms.

    The form is chosen by ``heldout_recall``, as ``random_rows`` chooses by the probe.

    Args:
        trained_stage: the deepest stage that the pretrained network trained: the random one is scored on the same.
        forms: of ``random_forms``, where they were made before.
        shared: the other arguments of ``retrieve_with``.
    """
    features, protocol = resolve_retrieval(shared["feature_protocol"], shared["retrieval_protocol"])
    if forms is None:
        forms = random_forms(
            architecture.info.name,
            architecture.info.options,
            seed,
            manifest,
            shared["train_rows"],
            features,
            device=shared.get("device", "cpu"),
            cache_dir=shared.get("cache_dir"),
            trained_stage=trained_stage,
        )
    scored = {form: retrieve_with(backbone, manifest, name=name, **shared) for form, backbone in forms.items()}
    several = len(scored) > 1
    heldout = {form: heldout_recall(s.train, protocol) if several else None for form, s in scored.items()}
    best = max(heldout, key=lambda form: heldout[form] or 0.0)
    choice = {"form": best, "on": "held-out part of train", "heldout_recall_at_1": heldout}
    rows = {
        form: [replace(row, context={**row.context, "better_form": choice}) for row in of_form.rows]
        for form, of_form in scored.items()
    }
    others = [replace(r, name=f"{name}, {form}") for form, of_form in rows.items() if form != best for r in of_form]
    return RandomRetrieval(replace(scored[best], rows=rows[best]), others)


def _rows(name: str, evaluated: Evaluated, result: RetrievalResult, protocol: RetrievalProtocol) -> Iterator[ResultRow]:
    plain = asdict(protocol)
    plain["ks"] = list(plain["ks"])
    context = {**evaluated.context, "retrieval_protocol": plain, "notes": evaluated.notes}
    for k, hit_N in result.hits.items():
        test = evaluated.test
        yield ResultRow.counted(name, f"recall_at_{k}", hit_N, result.chance[k], test.ids, test.groups, context)
