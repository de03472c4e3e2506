"""The linear probe as an evaluation: features in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.evals.contract import (
    Evaluated,
    _lists,
    _row,
    check_rows,
    extract_for,
    notes_of,
    wants_neighbors,
    wants_probe,
)
from ssvid.evals.linear_probe.low_shot import linear_probe_of_few
from ssvid.evals.linear_probe.probe import GridPoint, ProbeResult, linear_probe
from ssvid.evals.neighbors.knn import neighbor_rows, score_neighbors
from ssvid.features.extracting import Progress
from ssvid.features.protocol import (
    FeatureProtocol,
    ProbeProtocol,
    check_probe_protocol,
)
from ssvid.features.store import Features
from ssvid.results.rows import ResultRow


def evaluate_backbone(
    backbone: Backbone,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    feature_protocol: FeatureProtocol,
    probe_protocol: ProbeProtocol,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    name: str = "pretrained",
    provenance: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
) -> list[ResultRow]:
    """Score frozen features: linear probe top-1 (and top-5 above 5 classes), weighted k-NN, R@1.

    Unreadable training videos are left out and listed; unreadable test videos count as wrong and are listed.

    Args:
        train_rows, test_rows: labeled rows of the manifest, unreadable ones included.
        name: of the network in tables.
        provenance: where the weights come from ("stage", "content_ids", "placebo", "partial", ...); taken from the
            backbone's own ``provenance`` where None.
        metrics: what is asked for, by the starts of its names; () is everything. What is not is not computed: without
            ``probe_`` nothing is trained.

    Raises:
        DataError: labels or a split are missing, or a class has no training video.
        RecipeError: a protocol makes no sense or does not fit.
    """
    check_rows(manifest, train_rows, test_rows)
    check_probe_protocol(
        probe_protocol, sum(row.is_readable for row in train_rows) if wants_neighbors(metrics) else None
    )
    found = extract_for(
        backbone,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        feature_protocol=feature_protocol,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
        provenance=provenance,
    )
    found = found._replace(context={**found.context, "probe_protocol": _lists(asdict(probe_protocol))})
    rows: list[ResultRow] = []
    few: list[ResultRow] = []
    if wants_probe(metrics):
        probe = linear_probe(found.train, found.test, probe_protocol, device=device)
        rows += _probe_rows(name, found.test, probe, found.context)
        few += _low_shot(name, found, probe, probe_protocol, found.context, device)
    if wants_neighbors(metrics):
        rows += neighbor_rows(name, found, score_neighbors(found.train, found.test, probe_protocol))
    return rows + few


def _low_shot(
    name: str,
    found: Evaluated,
    probe: ProbeResult,
    protocol: ProbeProtocol,
    context: Mapping[str, Any],
    device: str | torch.device,
) -> Iterator[ResultRow]:
    """The linear probe with a share of the training labels, for each share of the protocol."""
    for share in protocol.label_fractions:
        few = linear_probe_of_few(found.train, found.test, share, protocol, fallback=probe.selection, device=device)
        how = {
            **_chosen(few.selection.chosen),
            "on": "held-out part of these" if few.selection.num_heldout else "all labels",
        }
        more = {
            **context,
            "head": {"chosen": how, "num_train": few.num_train, "label_fraction": share},
            "notes": [*found.notes, *few.warnings],
            "predictions": list(few.predictions),
        }
        metric = f"probe_top1_of_{100 * share:g}%"
        yield _row(name, metric, found.test, few.correct_N, few.chance, more)


def _probe_rows(name: str, test: Features, probe: ProbeResult, context: Mapping[str, Any]) -> Iterable[ResultRow]:
    facts = notes_of(context)
    head = {
        "chosen": {**_chosen(probe.selection.chosen), "on": "held-out part of train"},
        "heldout_top1": probe.selection.heldout_top1,
        "num_heldout": probe.selection.num_heldout,
        "grid": [_lists(asdict(point)) for point in probe.selection.grid],
        "warnings": list(probe.warnings),
    }
    of_probe = {**context, "head": head, "notes": [*facts, *probe.warnings]}

    def row(metric: str, correct_N: np.ndarray, chance: float, more: Mapping[str, Any]) -> ResultRow:
        return _row(name, metric, test, correct_N, chance, more)

    yield row("probe_top1", probe.correct_N, probe.chance, {**of_probe, "predictions": list(probe.predictions)})
    if probe.top5_correct_N is not None and probe.top5_chance is not None:
        yield row("probe_top5", probe.top5_correct_N, probe.top5_chance, of_probe)


def _chosen(point: GridPoint) -> dict[str, Any]:
    how = {"regularization": point.regularization, "normalization": point.normalization, "stages": list(point.stages)}
    return how if point.learning_rate is None else how | {"learning_rate": point.learning_rate}
