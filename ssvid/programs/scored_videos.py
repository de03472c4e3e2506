"""Which videos an evaluation trains on and which it scores, and what their list alone can tell before a file is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ssvid.data.collection import listing_of
from ssvid.data.config import DataConfig
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals.contract import Evaluation, Labeled, check_labels

TRAIN, VAL, TEST = "train", "val", "test"


class InSplit(Labeled, Protocol):
    """A labeled video of a split."""

    @property
    def split(self) -> str: ...


Video = TypeVar("Video", bound=InSplit)


def scored_rows(
    manifest: Manifest, data: DataConfig | None = None, *, labels: bool = True
) -> tuple[list[VideoRow], list[VideoRow]]:
    """Rows of train and of the split that is scored, unreadable ones included (they are counted, never replaced).

    Args:
        labels: whether classes are learned; without, nothing is trained on, and videos of a table without splits are all scored.

    Raises:
        DataError: the manifest has no such splits. RecipeError: ``data`` names none that can be scored.
    """
    sides = _sides if labels else _scored_alone
    return sides(manifest.rows, data or DataConfig(), str(manifest.root))


def split_note(manifest: Manifest, data: DataConfig, *, labels: bool = True) -> str:
    """What must be said beside a number that was not measured on the split test; "" where it was, or where there are no splits."""
    scored = scored_split(manifest.rows, data, labels=labels)
    if scored in (TEST, ""):
        return ""
    if not labels and not (data.test_split or data.split):
        return f"scored on the split {scored}, because no video is in the split test"
    why = "as the recipe asks" if data.test_split or data.split else "because no video of test has a label"
    return f"scored on the split {scored}, {why}"


def scored_split(videos: Iterable[InSplit], data: DataConfig, *, labels: bool = True) -> str:
    """The split that is scored: the one that is named, or else test, or val where no video of test has a label.

    labels: whether labels are needed; without, "" where no video is in any split.

    Raises:
        RecipeError: two splits are named, or the one that is trained on.
    """
    if data.test_split and data.split and data.test_split != data.split:
        raise RecipeError(
            f"data.split ({data.split}) and data.test_split ({data.test_split}) both name the split that an evaluation scores. "
            "Set one of them."
        )
    named = data.test_split or data.split
    if named == TRAIN:
        raise RecipeError(
            "data.test_split (train) must not be the split that the probe is trained on. Set data.test_split=val or test."
        )
    if named:
        return named
    splits = {video.split for video in videos if video.label or not labels}
    if not labels and not splits & {TEST, VAL}:
        return ""
    return VAL if TEST not in splits and VAL in splits else TEST


def _scored_alone(videos: Sequence[Video], data: DataConfig, where: str) -> tuple[list[Video], list[Video]]:
    scored = scored_split(videos, data, labels=False)
    test = [video for video in videos if video.split == scored]
    if not test:
        raise DataError(
            f"there is no video of the split {scored or '(none)'} to score; {where} has {_counted(videos)}. Name a split that it "
            "has with data.test_split=SPLIT."
        )
    return [], test


def _sides(videos: Sequence[Video], data: DataConfig, where: str) -> tuple[list[Video], list[Video]]:
    scored = scored_split(videos, data)
    train, test = ([video for video in videos if video.split == split] for split in (TRAIN, scored))
    if not train or not test:
        raise DataError(
            f"an evaluation needs videos of the splits {TRAIN} and {scored}; {where} has {_counted(videos)}. Lay the folder out "
            "as train/<class>/ and test/<class>/ (data.name=class_folder), name the split to score (data.test_split=val), or "
            "give a table with the columns path, label, split (data.name=list data.list=FILE)."
        )
    return train, test


def _counted(videos: Sequence[InSplit]) -> str:
    """The splits, and how many videos each has, in words."""
    found = Counter(video.split or "(none)" for video in videos)
    return ", ".join(f"{split}: {count}" for split, count in sorted(found.items())) or "no video"


def need_labels(asked: Collection[Evaluation]) -> bool:
    """Whether any of the evaluations learns classes from labeled videos; so it is where none is asked yet."""
    return not asked or any(evaluation.needs_labels for evaluation in asked)


def check_listed(data: DataConfig, asked: Mapping[Evaluation, Any]) -> None:
    """Make sure, from names alone, that there is something to learn from and to score, and enough for the evaluations.

    Raises:
        DataError: a split, a label or a class is missing. RecipeError: more neighbors are asked for than there are.
    """
    root = Path(data.root)
    if data.name == "manifest" or not root.is_dir():
        return  # a table is read as quickly as a list, and what is no folder is told where it is read
    listed = listing_of(data)
    if not need_labels(asked):
        _scored_alone(listed, data, data.root)
        return
    train, test = _sides(listed, data, data.root)
    check_labels(train, test)
    for evaluation, options in asked.items():
        evaluation.check(options, len(train))
