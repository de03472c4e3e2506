"""Who belongs to whom: samples of which a task takes two videos of one class, of one group, or any two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssvid.data.manifest import VideoRow
from ssvid.errors import DataError, name_some
from ssvid.types import PAIRINGS

_WAYS_OUT = {
    "label": "Use class folders (data.name=class_folder) or a table with the column label, set task.options.group_by=any, or add "
    "videos",
    "group": "Fill the column group of the table, set task.options.group_by=any, or add videos",
    "any": "Add videos",
}


@dataclass(frozen=True)
class Pairs:
    """The samples that have companions: others of their class or group, of another video.

    kept: their places among all samples, int64. videos_N, groups_N: the number of the video and of the class or group of each
    that is kept. members: for each group, its samples, counted among those that are kept.
    """

    kept: np.ndarray
    videos_N: np.ndarray
    groups_N: np.ndarray
    members: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, rows: Sequence[VideoRow], videos_N: np.ndarray, group_by: str) -> Pairs:
        """The pairs of samples.

        Args:
            rows: of the table, one for each sample. videos_N: the number of the video that it is of; segments and copies of one
                video have one number. group_by: one of ``PAIRINGS``; a video without a label or group has no companion.

        Raises:
            DataError: no group has two videos.
        """
        if group_by not in PAIRINGS:
            raise ValueError(f"group_by ({group_by!r}) must be one of {', '.join(PAIRINGS)}.")
        names = ["all" if group_by == "any" else getattr(row, group_by) for row in rows]
        codes_N = np.unique(names, return_inverse=True)[1].reshape(-1)
        several = [len(set(videos_N[codes_N == code])) > 1 for code in range(codes_N.max() + 1)]
        kept = np.array([i for i, name in enumerate(names) if name and several[codes_N[i]]], dtype=np.int64)
        if not len(kept):
            raise DataError(_alone(rows, names, videos_N, group_by))
        groups_N = np.unique(codes_N[kept], return_inverse=True)[1].reshape(-1)
        members = tuple(np.flatnonzero(groups_N == group) for group in range(groups_N.max() + 1))
        return cls(kept, videos_N[kept], groups_N, members)

    def companion(self, index: int, rng: np.random.Generator) -> int:
        """Another sample of the same group and of another video, each equally likely."""
        group = self.members[self.groups_N[index]]
        others = group[self.videos_N[group] != self.videos_N[index]]
        return int(others[rng.integers(len(others))])


def _alone(rows: Sequence[VideoRow], names: Sequence[str], videos_N: np.ndarray, group_by: str) -> str:
    num_videos = len(set(videos_N.tolist()))
    if group_by == "any":
        found = f"there is one, {rows[0].path!r}"
    elif not any(names):
        found = f"none of the {num_videos} has a {group_by}"
    else:
        found = f"each {group_by} of the {num_videos} has one alone ({name_some(sorted(set(names) - {''}))})"
    two = "two videos" if group_by == "any" else f"two videos of one {group_by}"
    return f"task.options.group_by ({group_by}) pairs videos and needs {two}: {found}. {_WAYS_OUT[group_by]}."
