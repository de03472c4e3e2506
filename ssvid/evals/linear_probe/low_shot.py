"""The linear probe with a share of the training labels: what a backbone is worth where labels are dear."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from ssvid.evals.linear_probe.probe import ProbeResult, Selection, linear_probe
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features


def linear_probe_of_few(
    train: Features,
    test: Features,
    share: float,
    protocol: ProbeProtocol,
    *,
    fallback: Selection,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Fit on a share of the training videos, drawn by the protocol's seed, and look at test once.

    The head is chosen on held-out parts of these videos. Where some class has only one of them (or one group), nothing can
    be held out, and the head is the one that all labels chose, which is said.

    Args:
        fallback: what was chosen with all labels.
    """
    few = fewer_labels(train, share, protocol.seed)
    if all(len(groups) > 1 for groups in _groups_by_label(few).values()):
        return linear_probe(few, test, protocol, device=device)
    said = f"with {share:.0%} of the labels nothing can be held out; the head is the one that all labels chose"
    given = replace(fallback, num_heldout=0, warnings=(said,))
    return linear_probe(few, test, protocol, device=device, selection=given)


def fewer_labels(train: Features, share: float, seed: int) -> Features:
    """A share of the readable videos of each class, rounded up: at least one.

    The draws are nested: the videos of a smaller share are among those of a larger one.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(train.readable):
        by_label[train.labels[i]].append(int(i))
    kept: list[int] = []
    for number, label in enumerate(sorted(by_label)):
        mine = by_label[label]
        order = np.random.default_rng([seed, number]).permutation(len(mine))
        kept += [mine[i] for i in order[: max(1, math.ceil(round(share * len(mine), 9)))]]
    return train.at(np.array(sorted(kept)))


def _groups_by_label(features: Features) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(features.labels, features.groups, strict=True):
        found[label].add(group)
    return found
