"""Linear probe: multinomial logistic regression on frozen features, its penalty chosen on held-out training videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from ssvid.errors import DataError
from ssvid.evals.features import Features
from ssvid.evals.logistic import LogisticFit, fit_path
from ssvid.evals.protocol import ProbeProtocol, check_probe_protocol
from ssvid.evals.results import Interval, bootstrap_interval


@dataclass(frozen=True)
class GridPoint:
    """One penalty that was tried: its mean accuracy on the held-out parts of train, and how its fits went."""

    regularization: float
    heldout_top1: float
    num_iterations: int
    converged: bool


@dataclass(frozen=True)
class Selection:
    """What the held-out part of train chose. num_heldout: videos that were scored. warnings: each said once."""

    regularization: float
    heldout_top1: float
    grid: tuple[GridPoint, ...]
    num_heldout: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ProbeResult:
    """A linear probe on the test videos; an unreadable one is wrong.

    interval: 95 %, bootstrap over videos. chance: share of the most frequent class of test. predictions: "" where
    unreadable. top5: None where there are no more than 5 classes. warnings: of the chosen and of all other fits.
    """

    top1: float
    interval: Interval
    chance: float
    correct_N: np.ndarray
    predictions: tuple[str, ...]
    top5: float | None
    top5_correct_N: np.ndarray | None
    top5_chance: float | None
    selection: Selection
    num_train: int
    classes: tuple[str, ...]
    warnings: tuple[str, ...]


def linear_probe(train: Features, test: Features, protocol: ProbeProtocol) -> ProbeResult:
    """Choose the penalty on held-out train, fit once on all of train, look at test once.

    Raises:
        DataError: train has fewer than two classes or units to hold out. RecipeError: the protocol makes no sense.
    """
    selection = select_regularization(train, protocol)
    x, y = _readable(train)
    fit = _fit(x, y, [selection.regularization], protocol)[0]
    labels = np.array(test.labels, dtype=object)
    readable = test.readable
    scores = np.full((len(labels), len(fit.classes)), -np.inf)
    if readable.any():
        scores[readable] = fit.scores(test.values_ND[readable])
    ranked = np.argsort(-scores, axis=1, kind="stable")
    predictions = np.where(readable, fit.classes[ranked[:, 0]], "")
    correct = (predictions == labels) & readable
    top5 = _top5(ranked, fit.classes, labels) & readable if len(fit.classes) > 5 else None
    shares = np.sort(np.unique(labels.astype(str), return_counts=True)[1])[::-1] / len(labels)
    return ProbeResult(
        top1=float(correct.mean()),
        interval=bootstrap_interval(correct, num_bootstrap=protocol.num_bootstrap, seed=protocol.seed),
        chance=float(shares[0]),
        correct_N=correct,
        predictions=tuple(predictions.tolist()),
        top5=None if top5 is None else float(top5.mean()),
        top5_correct_N=top5,
        top5_chance=None if top5 is None else float(shares[:5].sum()),
        selection=selection,
        num_train=len(x),
        classes=tuple(fit.classes.tolist()),
        warnings=(*fit.warnings, *(w for w in selection.warnings if w not in fit.warnings)),
    )


def select_regularization(train: Features, protocol: ProbeProtocol) -> Selection:
    """The penalty with the best accuracy on held-out parts of train; among equals the strongest.

    Videos that share a group, or the same content, are on one side of every held-out part.

    Raises:
        DataError: train has fewer than two classes, or nothing can be held out. RecipeError: the protocol.
    """
    check_probe_protocol(protocol)
    x, y = _readable(train)
    groups = np.array(train.groups, dtype=object)[train.readable]
    strengths = sorted(protocol.regularization, reverse=True)
    right = np.zeros((len(strengths), 2))
    fits: list[list[_Fit]] = []
    notes: list[str] = []
    for fit_on, score_on in holdouts(y, groups, protocol, notes):
        fits.append(_fit(x[fit_on], y[fit_on], strengths, protocol))
        for i, fit in enumerate(fits[-1]):
            right[i] += (fit.predict(x[score_on]) == y[score_on]).sum(), len(score_on)
    accuracy = right[:, 0] / right[:, 1]
    grid = tuple(
        GridPoint(s, float(a), max(f.logistic.num_iterations for f in of_s), not any(f.warnings for f in of_s))
        for s, a, *of_s in zip(strengths, accuracy, *fits, strict=True)
    )
    best = int(np.argmax(accuracy))  # the first of the best: the strongest
    notes += [w for of_s in fits for fit in of_s for w in fit.warnings]
    if best in (0, len(strengths) - 1) and len(strengths) > 1:
        notes.append(f"the chosen penalty, {strengths[best]:g}, is at the edge of its grid")
    return Selection(strengths[best], grid[best].heldout_top1, grid, int(right[0, 1]), tuple(dict.fromkeys(notes)))


def holdouts(
    labels_N: np.ndarray, groups_N: np.ndarray, protocol: ProbeProtocol, notes: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices (fit on, score on) of each held-out part: stratified by label, groups never straddle, parts disjoint.

    Args:
        notes: what the splitter warned of is appended.

    Raises:
        DataError: train has fewer than two groups, or no part leaves two classes to fit on.
    """
    num_groups = len(set(groups_N))
    largest_class = int(np.unique(labels_N, return_counts=True)[1].max())
    parts = min(round(1 / protocol.holdout_fraction), num_groups, max(2, largest_class))
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


@dataclass(frozen=True)
class _Fit:
    """A fitted probe with the normalization that was learned on the same videos."""

    normalizer: Any
    logistic: LogisticFit
    classes: np.ndarray
    warnings: tuple[str, ...]

    def scores(self, values_ND: np.ndarray) -> np.ndarray:
        return self.logistic.scores(self.normalizer.transform(values_ND.astype(np.float64)))

    def predict(self, values_ND: np.ndarray) -> np.ndarray:
        return self.classes[self.scores(values_ND).argmax(axis=1)]


def _fit(x: np.ndarray, y: np.ndarray, strengths: list[float], protocol: ProbeProtocol) -> list[_Fit]:
    """One probe per penalty, each started from the one before; give strong penalties first."""
    normalizer = {"standard": StandardScaler, "l2": Normalizer, "none": FunctionTransformer}[protocol.normalization]()
    normalized = normalizer.fit_transform(x.astype(np.float64))
    classes, codes = np.unique(y, return_inverse=True)
    path = fit_path(normalized, codes, len(classes), strengths, max_iterations=protocol.max_iterations)
    return [
        _Fit(normalizer, fit, classes, (f"probe with penalty {strength:g} {fit.problem}",) if fit.problem else ())
        for strength, fit in zip(strengths, path, strict=True)
    ]


def _readable(train: Features) -> tuple[np.ndarray, np.ndarray]:
    readable = train.readable
    labels = np.array(train.labels, dtype=object)[readable]
    found = sorted(set(labels))
    if len(found) < 2:
        listing = f" ({found[0]!r})" if found else ""
        raise DataError(
            f"train has {len(found)} class{listing} among {int(readable.sum())} readable videos, and a probe needs at "
            "least 2. Give the training videos of the manifest labels of several classes."
        )
    return train.values_ND[readable], labels


def _top5(ranked_NK: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (classes[ranked_NK[:, :5]] == labels[:, None]).any(axis=1)


def _one_line(caught: warnings.WarningMessage) -> str:
    return str(caught.message).split("\n", 1)[0].rstrip(".:")
