"""What the keys of metrics are called in tables."""

from __future__ import annotations

_TITLES = {"probe_top1": "probe top-1", "probe_top5": "probe top-5"}


def remember_title(metric: str, title: str) -> None:
    """Call a metric so from now on: a number brings the title that its evaluation gave it."""
    _TITLES[metric] = title


def title_of(metric: str) -> str:
    """A metric as a table's head says it: ``knn20_top1`` is "k-NN (k=20)"."""
    if metric.startswith("recall_at_"):
        return f"R@{metric.removeprefix('recall_at_')}"
    if metric.startswith("knn") and metric.endswith("_top1"):
        return f"k-NN (k={metric[3:-5]})"
    return _TITLES.get(metric, metric)
