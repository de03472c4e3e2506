"""What the keys of metrics are called in tables."""

from __future__ import annotations

# Those that published rows have stand here, so that a page says the same whatever this process has measured.
_TITLES = {
    "probe_top1": "probe top-1",
    "probe_top5": "probe top-5",
    **{
        f"davis_{part}{of.replace(' ', '_')}": f"{part.upper()}{of}"
        for part in "jf"
        for of in ("", " recall", " decay")
    },
    **{"davis_jf": "J&F", "miou": "mIoU", "pck@0.1": "PCK@0.1", "pck@0.2": "PCK@0.2"},
}


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
