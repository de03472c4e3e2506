"""The class probabilities of the test videos, kept beside a training: what is averaged where several networks answer together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssvid.classifiers.scoring import VideoScores, in_top, likeliest
from ssvid.errors import DataError
from ssvid.files import write_atomic

SCORES = "scores.npz"


class Scores(NamedTuple):
    """Of one network, or of several. probabilities_NK: float64, the mean over a video's views of their softmax; NaN where it
    could not be read. ids, labels: one per video. classes: in the order of the last axis.
    """

    probabilities_NK: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def predictions(self) -> tuple[str, ...]:
        """The likeliest class of each video; "" where it could not be read."""
        return likeliest(self.probabilities_NK, self.classes)

    def correct_in_top(self, num: int) -> np.ndarray:
        """Whether the label is among the ``num`` likeliest classes: bool. An unreadable video is wrong."""
        return in_top(self.probabilities_NK, self.classes, self.labels, num)


def write_scores(path: Path, test: VideoScores) -> None:
    """Keep the probabilities of the test videos."""
    held: dict[str, Any] = {name: np.array(getattr(test, name), dtype=np.str_) for name in ("ids", "labels", "classes")}
    held["probabilities_NK"] = test.of_videos("softmax")
    write_atomic(path, lambda file: np.savez_compressed(file, **held))


def read_scores(path: Path) -> Scores:
    """What ``write_scores`` kept.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            names = (tuple(held[name].tolist()) for name in ("ids", "labels", "classes"))
            return Scores(held["probabilities_NK"], *names)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} must hold the class probabilities of a training ({type(error).__name__}: {error}). Train again in a new"
            " folder: a run that was begun by an earlier ssvid kept none."
        ) from error


def averaged(scores: Sequence[Scores]) -> Scores:
    """The mean of the probabilities of several networks, each as much as the others (two-stream networks, Simonyan &
    Zisserman 2014, section 3, fusion by averaging). A video that any of them could not read has none.

    Raises:
        DataError: they were not asked of the same videos, or did not learn the same classes.
    """
    first = scores[0]
    for other in scores[1:]:
        for what in ("ids", "labels", "classes"):
            if getattr(other, what) != getattr(first, what):
                raise DataError(
                    f"networks that answer together must share {what}, and they have {len(getattr(first, what))} and"
                    f" {len(getattr(other, what))}, not the same. Train both on one table of videos."
                )
    return first._replace(probabilities_NK=np.mean([one.probabilities_NK for one in scores], axis=0))
