"""What stands in the place of a network though nothing was trained: vectors made by rules, and a linear SVM in the place of a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from ssvid.backbones import Backbone, BackboneInfo, StageInfo
from ssvid.evals.contract import LabeledData, Number, Seen, Subject, Tools, guess_chance
from ssvid.evals.holdouts import holdouts
from ssvid.evals.linear_probe.probe import readable_train
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features

Predict = Callable[[np.ndarray], np.ndarray]  # positions of vectors -> their labels
Fit = Callable[[np.ndarray, float], Predict]  # positions of vectors that are learned from, and the cost


class HandMade(Backbone):
    """Vectors made by rules, in the place of a network. about: what is done, in a few words. costs: of the SVM, chosen on
    held-out train. width: of a vector.
    """

    about: ClassVar[str]
    costs: ClassVar[tuple[float, ...]]

    def __init__(self, name: str, width: int) -> None:
        super().__init__(BackboneInfo(name, (StageInfo(name, width, 1, 1),), min_frames=2, size=112))
        self.provenance = {"stage": name, "content_ids": []}

    def see(self, subject: Subject, data: LabeledData, tools: Tools) -> Seen | None:
        """The vectors of all videos, where they need more than clips; None where they are made of clips, as a network's."""
        return None

    def machine(self, x_MD: np.ndarray, y_N: np.ndarray, seed: int) -> Fit:
        """How the linear SVM is fitted. x_MD: vectors of train, and after them those of test. y_N: labels of train."""
        raise NotImplementedError


def svm_number(metric: str, network: HandMade, seen: Seen, protocol: ProbeProtocol) -> Number:
    """Its vectors in the column of a trained head: a linear SVM, the cost chosen on held-out train."""
    x, y = readable_train(seen.train)
    readable, labels = seen.test.readable, np.array(seen.test.labels, dtype=object)
    fit = network.machine(np.concatenate([x, seen.test.values_ND[readable]]), y, protocol.seed)
    chosen, heldout = select_cost(fit, network.costs, seen.train, protocol)
    predictions = np.full(len(labels), "", dtype=object)
    predict = fit(np.arange(len(y)), chosen)
    predictions[readable] = predict(np.arange(len(y), len(y) + int(readable.sum())))
    head = {"svm": "linear, one against the rest", "cost": chosen, "heldout_top1": heldout}
    correct_N = (predictions == labels) & readable
    return Number(metric, correct_N, guess_chance(labels), {"head": head, "predictions": predictions.tolist()})


def select_cost(
    fit: Fit, costs: tuple[float, ...], train: Features, protocol: ProbeProtocol
) -> tuple[float, Mapping[str, float]]:
    """The cost with the best accuracy on held-out parts of train, among equals the smallest; and all accuracies."""
    _, y = readable_train(train)
    groups = np.array(train.groups, dtype=object)[train.readable]
    right = dict.fromkeys(costs, 0)
    total = 0
    for fit_on, score_on in holdouts(y, groups, protocol, []):
        total += len(score_on)
        for cost in costs:
            right[cost] += int((fit(fit_on, cost)(score_on) == y[score_on]).sum())
    best = max(costs, key=lambda cost: (right[cost], -cost))
    return best, {f"{cost:g}": right[cost] / total for cost in costs}
