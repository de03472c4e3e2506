"""Parts of train that are held out: whatever is chosen is chosen on them, and test has no say."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ssvid.errors import DataError
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features

Parts = tuple[np.ndarray, np.ndarray]  # indices: learned from, scored


def held_out(train: Features, protocol: ProbeProtocol) -> Iterator[Parts]:
    """Positions (fit on, score on) among all videos of train of each held-out part of the readable ones."""
    places = np.flatnonzero(train.readable)
    labels, groups = (np.array(v, dtype=object)[places] for v in (train.labels, train.groups))
    for fit_on, score_on in holdouts(labels, groups, protocol, []):
        yield places[fit_on], places[score_on]


def holdouts(labels_N: np.ndarray, groups_N: np.ndarray, protocol: ProbeProtocol, notes: list[str]) -> Iterator[Parts]:
    """Indices (fit on, score on) of each held-out part: stratified by label, groups never straddle, parts disjoint.

    Args:
        notes: what the splitter warned of is appended.

    Raises:
        DataError: train has fewer than two groups or one video per class, or no part leaves two classes to fit on.
    """
    num_groups = len(set(groups_N))
    largest_class = int(np.unique(labels_N, return_counts=True)[1].max())
    if largest_class < 2:
        raise DataError(
            f"train has one video of each of its {len(labels_N)} classes, and at least 2 of some class are needed: settings "
            "are chosen on a part of train that is held out, by what was learned on the rest. Add training videos, or "
            "check that the labels of the manifest name classes and not single videos."
        )
    parts = min(round(1 / protocol.holdout_fraction), num_groups, largest_class)
    if parts < 2:
        raise DataError(
            f"train has {num_groups} group of videos, and at least 2 are needed to hold a part of train out. "
            "Give the videos of the manifest different groups, or leave the column empty."
        )
    grouped = num_groups < len(labels_N)
    splitter: Any = StratifiedGroupKFold if grouped else StratifiedKFold
    folds = splitter(n_splits=parts, shuffle=True, random_state=protocol.seed)
    given = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        splits = list(folds.split(np.zeros(len(labels_N)), labels_N, groups_N if grouped else None))
    notes += [f"held-out parts of train: {_one_line(w)}" for w in caught]
    for fit_on, score_on in splits:
        if given < protocol.num_holdouts and len(score_on) and len(set(labels_N[fit_on])) > 1:
            given += 1
            yield fit_on, score_on
    if not given:
        raise DataError(
            "no part of train can be held out so that two classes are left to fit on. "
            "Use more training videos or more groups, or a smaller holdout_fraction."
        )


def _one_line(caught: warnings.WarningMessage) -> str:
    return str(caught.message).split("\n", 1)[0].rstrip(".:")
