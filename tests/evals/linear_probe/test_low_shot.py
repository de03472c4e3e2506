"""Few labels: how many, which, and what chooses the head where nothing can be held out."""

from collections import Counter

import numpy as np
import pytest

from ssvid.evals.linear_probe.low_shot import fewer_labels, linear_probe_of_few
from ssvid.evals.linear_probe.probe import linear_probe
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.store import Features
from tests.frozen import toy_features

PROTOCOL = ProbeProtocol(regularization=(0.01, 0.1, 1.0), num_holdouts=2, holdout_fraction=0.5)


@pytest.mark.parametrize(("share", "each"), [(0.01, 1), (0.05, 1), (0.1, 2), (0.5, 10), (0.51, 11)])
def test_each_class_keeps_its_share_rounded_up(share, each):
    few = fewer_labels(toy_features(20), share, seed=3)
    assert set(Counter(few.labels).values()) == {each}
    assert len(few.values_ND) == len(few.ids) == len(few.groups) == 4 * each


def test_draws_are_nested_and_follow_the_seed():
    train = toy_features(20)
    drawn = [set(fewer_labels(train, share, seed=0).ids) for share in (0.05, 0.1, 0.5)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert drawn[2] != set(fewer_labels(train, 0.5, seed=1).ids)


def test_unreadable_videos_are_not_drawn():
    train = toy_features(4)
    values = train.values_ND.copy()
    values[:3] = np.nan  # of class 0 only the last is left
    few = fewer_labels(Features.from_arrays(values, train.labels), 0.25, seed=0)
    assert few.ids[0] == "3"


def test_more_labels_do_better_and_one_of_a_class_borrows_the_head():
    train, test = toy_features(20, noise=1.5, seed=1), toy_features(40, noise=1.5, seed=2)
    whole = linear_probe(train, test, PROTOCOL)
    found = {
        share: linear_probe_of_few(train, test, share, PROTOCOL, fallback=whole.selection) for share in (0.05, 0.5)
    }
    assert found[0.05].top1 < found[0.5].top1 <= whole.top1 + 0.05
    assert (found[0.05].num_train, found[0.5].num_train) == (4, 40)
    assert found[0.05].selection.chosen == whole.selection.chosen
    assert found[0.05].warnings == (
        "with 5% of the labels nothing can be held out; the head is the one that all labels chose",
    )
    assert found[0.5].selection.num_heldout == 40, "two halves of its own forty"
