"""Linear probe: multinomial logistic regression on frozen features, chosen on held-out training videos.

Two solvers: "lbfgs" goes to the optimum of each penalty (``ssvid.evals.linear_probe.logistic``), "sgd" trains a bank of heads by
minibatches (``ssvid.evals.linear_probe.head_bank``), as the literature does. Both choose in the same way and then fit once on all of
train.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from ssvid.errors import DataError
from ssvid.evals.holdouts import holdouts
from ssvid.evals.linear_probe.head_bank import HeadSetting, Schedule, fit_bank
from ssvid.evals.linear_probe.logistic import LogisticFit, fit_path
from ssvid.features.protocol import BATCH_NORMALIZATION, ProbeProtocol, check_probe_protocol
from ssvid.features.store import Features
from ssvid.intervals import Interval, share_interval


@dataclass(frozen=True)
class GridPoint:
    """One head that was tried: its mean accuracy on the held-out parts of train, and how its fits went.

    regularization: penalty, with "sgd" the weight decay. learning_rate: None with "lbfgs". normalization, stages: what
    the head was put on.
    """

    regularization: float
    heldout_top1: float
    num_iterations: int
    converged: bool
    learning_rate: float | None = None
    normalization: str = ""
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What the held-out part of train chose. num_heldout: videos that were scored. warnings: each said once."""

    chosen: GridPoint
    heldout_top1: float
    grid: tuple[GridPoint, ...]
    num_heldout: int
    warnings: tuple[str, ...]

    @property
    def regularization(self) -> float:
        """The chosen penalty, or weight decay."""
        return self.chosen.regularization


@dataclass(frozen=True)
class ProbeResult:
    """A linear probe on the test videos; an unreadable one is wrong.

    interval: 95 %, over videos and their groups. chance: share of the most frequent class of test. predictions: "" where
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


def linear_probe(
    train: Features,
    test: Features,
    protocol: ProbeProtocol,
    *,
    device: str | torch.device = "cpu",
    selection: Selection | None = None,
) -> ProbeResult:
    """Choose the head on held-out train, fit it once on all of train, look at test once.

    Args:
        device: where "sgd" computes; "lbfgs" always does on the CPU.
        selection: a choice that was made already.

    Raises:
        DataError: train has fewer than two classes or units to hold out. RecipeError: the protocol makes no sense.
    """
    selection = selection or select_head(train, protocol, device=device)
    x, y = readable_train(train)
    fit = _refit(train, x, y, selection.chosen, protocol, device)
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
        interval=share_interval(correct, groups_N=np.array(test.groups)),
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


def select_head(train: Features, protocol: ProbeProtocol, *, device: str | torch.device = "cpu") -> Selection:
    """The head with the best accuracy on held-out parts of train; among equals the strongest penalty, then the lowest rate.

    Videos that share a group, or the same content, are on one side of every held-out part.

    Raises:
        DataError: train has fewer than two classes, or nothing can be held out. RecipeError: the protocol.
    """
    check_probe_protocol(protocol)
    x, y = readable_train(train)
    groups = np.array(train.groups, dtype=object)[train.readable]
    heads = [(on, setting) for on in _inputs(train, protocol) for setting in _settings(protocol)]
    right = np.zeros((len(heads), 2))
    fits: list[list[_Fit]] = []
    notes: list[str] = []
    for fit_on, score_on in holdouts(y, groups, protocol, notes):
        fits.append(list(_fit_heads(train, x[fit_on], y[fit_on], protocol, device)))
        for i, fit in enumerate(fits[-1]):
            right[i] += (fit.predict(x[score_on]) == y[score_on]).sum(), len(score_on)
    accuracy = right[:, 0] / right[:, 1]
    grid = tuple(_point(*head, float(accuracy[i]), [of_part[i] for of_part in fits]) for i, head in enumerate(heads))
    chosen = max(grid, key=lambda point: (point.heldout_top1, point.regularization, -(point.learning_rate or 0.0)))
    notes += [w for of_part in fits for fit in of_part for w in fit.warnings]
    notes += _at_edges(chosen, protocol)
    return Selection(chosen, chosen.heldout_top1, grid, int(right[0, 1]), tuple(dict.fromkeys(notes)))


class _Input(NamedTuple):
    """What a head is put on."""

    normalization: str
    stages: tuple[str, ...]


class _Setting(NamedTuple):
    """What a head is fitted with. learning_rate: None where it is solved for."""

    regularization: float
    learning_rate: float | None


def _inputs(train: Features, protocol: ProbeProtocol) -> list[_Input]:
    names = tuple(train.stage_columns)
    alone: list[tuple[str, ...]] = [(name,) for name in names]
    stages: dict[str, list[tuple[str, ...]]] = {
        "together": [names],
        "each": alone,
        "both": [*alone, names] if len(names) > 1 else alone,
    }
    return [_Input(how, on) for how in protocol.normalizations for on in stages[protocol.head_stages]]


def _settings(protocol: ProbeProtocol) -> list[_Setting]:
    """Strong penalties first: each solution of a path starts from the one before."""
    if protocol.solver == "lbfgs":
        return [_Setting(penalty, None) for penalty in sorted(protocol.regularization, reverse=True)]
    decays = sorted(protocol.weight_decays, reverse=True)
    return [_Setting(decay, rate) for decay in decays for rate in sorted(protocol.learning_rates)]


def _point(on: _Input, setting: _Setting, heldout_top1: float, fits: list[_Fit]) -> GridPoint:
    return GridPoint(
        setting.regularization,
        heldout_top1,
        max(fit.logistic.num_iterations for fit in fits),
        not any(fit.logistic.problem for fit in fits),
        setting.learning_rate,
        *on,
    )


def _at_edges(chosen: GridPoint, protocol: ProbeProtocol) -> Iterator[str]:
    """A word where a value beyond the grid might have been better."""
    if protocol.solver == "lbfgs":
        sides = [("penalty", "regularization", chosen.regularization, protocol.regularization)]
    else:
        sides = [("weight decay", "weight_decays", chosen.regularization, protocol.weight_decays)]
        sides.append(("learning rate", "learning_rates", chosen.learning_rate or 0.0, protocol.learning_rates))
    for name, key, value, grid in sides:
        if len(grid) > 1 and value in (min(grid), max(grid)):
            yield f"the best {name}, {value:g}, is the {'smallest' if value == min(grid) else 'largest'} tried: widen probe.{key}"


@dataclass(frozen=True)
class _Fit:
    """A fitted head with the columns it takes and the normalization that was learned on the same videos."""

    columns: np.ndarray | slice
    normalizer: Any
    logistic: LogisticFit
    classes: np.ndarray
    warnings: tuple[str, ...]

    def scores(self, values_ND: np.ndarray) -> np.ndarray:
        normalized = self.normalizer.transform(values_ND[:, self.columns].astype(np.float64))
        return np.nan_to_num(self.logistic.scores(normalized), nan=-np.inf, posinf=-np.inf)

    def predict(self, values_ND: np.ndarray) -> np.ndarray:
        return self.classes[self.scores(values_ND).argmax(axis=1)]


def _fit_heads(
    train: Features, x: np.ndarray, y: np.ndarray, protocol: ProbeProtocol, device: str | torch.device
) -> Iterator[_Fit]:
    """Every head of the grid, fitted on these videos: for each input one path of penalties, or one bank."""
    for on in _inputs(train, protocol):
        yield from _fit_settings(train, x, y, on, _settings(protocol), protocol, device)


def _refit(
    train: Features,
    x: np.ndarray,
    y: np.ndarray,
    chosen: GridPoint,
    protocol: ProbeProtocol,
    device: str | torch.device,
) -> _Fit:
    on, setting = _Input(chosen.normalization, chosen.stages), _Setting(chosen.regularization, chosen.learning_rate)
    return _fit_settings(train, x, y, on, [setting], protocol, device)[0]


def _fit_settings(
    train: Features,
    x: np.ndarray,
    y: np.ndarray,
    on: _Input,
    settings: list[_Setting],
    protocol: ProbeProtocol,
    device: str | torch.device,
) -> list[_Fit]:
    columns = _columns_of(train, on.stages)
    normalizer = _normalizer(on.normalization)
    normalized = normalizer.fit_transform(x[:, columns].astype(np.float64))
    classes, codes = np.unique(y, return_inverse=True)
    if protocol.solver == "lbfgs":
        penalties = [setting.regularization for setting in settings]
        fits = list(fit_path(normalized, codes, len(classes), penalties, max_iterations=protocol.max_iterations))
    else:
        fits = fit_bank(
            normalized,
            codes,
            len(classes),
            [HeadSetting(s.learning_rate or 0.0, s.regularization) for s in settings],
            Schedule(protocol.head_epochs, protocol.head_batch_size, protocol.head_momentum, protocol.head_schedule),
            seed=protocol.seed,
            batch_norm=on.normalization == BATCH_NORMALIZATION,
            device=device,
        )
    return [
        _Fit(columns, normalizer, fit, classes, (f"{_name_of(setting)} {fit.problem}",) if fit.problem else ())
        for setting, fit in zip(settings, fits, strict=True)
    ]


def _columns_of(train: Features, stages: tuple[str, ...]) -> np.ndarray | slice:
    if stages == tuple(train.stage_columns):
        return slice(None)
    return np.concatenate([np.arange(*train.stage_columns[name]) for name in stages])


def _normalizer(name: str) -> Any:
    # Each changes in place the copy that it is given.
    if name == "standard":
        return StandardScaler(copy=False)
    return FunctionTransformer() if name == "none" else Normalizer(copy=False)


def _name_of(setting: _Setting) -> str:
    if setting.learning_rate is None:
        return f"probe with penalty {setting.regularization:g}"
    return f"probe with learning rate {setting.learning_rate:g} and weight decay {setting.regularization:g}"


def readable_train(train: Features) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and labels of the readable training videos. Raises DataError below two classes."""
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
