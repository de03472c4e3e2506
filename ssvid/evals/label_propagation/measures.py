"""What is told to whoever follows labels, and what is scored: masks of objects, parts, joints, points.

A measure takes one video at a time: it hands the carrier what is given, and keeps what the scores need. Once all videos are
through, its numbers come with the units that intervals are drawn over.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from ssvid.data.manifest import VideoRow
from ssvid.data.truth import Joints, Masks, Tracks, Truth
from ssvid.evals.contract import Units
from ssvid.evals.label_propagation.baselines import Carrier
from ssvid.evals.label_propagation.keypoints import PCK_FRACTIONS, KeypointCounts, count_keypoints, pck
from ssvid.evals.label_propagation.labels import resize_labels
from ssvid.evals.label_propagation.regions import (
    ObjectScores,
    Summary,
    confusion,
    frame_scores,
    mean_iou,
    scored_frames,
    summarize,
)
from ssvid.evals.label_propagation.sizing import frame_size, resize_frame
from ssvid.evals.label_propagation.tapvid import Queries, TapVidScores, at_scored_size, make_queries, tapvid_metrics
from ssvid.features.maps import Size
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.intervals import grouped_mean_interval, pseudo_values
from ssvid.video.decoders.contract import frames_in_turn


@dataclass(frozen=True)
class TruthVideo:
    """A video with what is known of its frames.

    name: what its objects are called after. group: the name of the first video that it is alike with; these are drawn together. size_px:
    height and width of its frames, and of its masks. sized_by: the protocol that frames are resized by, where they are.
    """

    root: Path
    row: VideoRow
    truth: Truth
    name: str
    group: str
    size_px: Size
    sized_by: PropagationProtocol | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """Its frames in turn, uint8 HWC.

        Raises:
            DecodeError: it cannot be read.
        """
        start = self.row.start_frame
        with (
            self.row.open(self.root) as reader,
            closing(frames_in_turn(reader, np.arange(start, start + self.row.window_frames))) as frames,
        ):
            yield from map(self._sized, frames)

    def as_scored(self, protocol: PropagationProtocol) -> TruthVideo:
        """The same at the size at which the protocol scores masks: its own, or that of the frames which the network sees."""
        masks, size_px = self.truth.masks, frame_size(*self.size_px, protocol)
        if protocol.score_size == "video" or masks is None or size_px == self.size_px:
            return self
        resized = {
            frame: resize_labels(np.array(labels_HW), size_px, protocol.score_resampling)
            for frame in masks.frames
            if (labels_HW := masks.at(frame)) is not None
        }
        height, width = size_px
        as_seen = Masks(
            resized, num_frames=masks.num_frames, height=height, width=width, names=masks.names, where=masks.where
        )
        return replace(self, truth=replace(self.truth, masks=as_seen), size_px=size_px, sized_by=protocol)

    def _sized(self, frame_HWC: np.ndarray) -> np.ndarray:
        if self.sized_by is None:
            return frame_HWC
        frame_CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)))
        return resize_frame(frame_CHW, self.size_px, self.sized_by).permute(1, 2, 0).numpy()


@dataclass
class Kept:
    """What was found in one video, to be drawn. size_px: of its labels. points: x and y TQ2, and whether they are seen TQ."""

    size_px: Size
    packed: list[bytes] = field(default_factory=list)
    points: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, labels_HW: np.ndarray) -> None:
        """The ids of the next frame, uint8 HW: some kilobytes."""
        self.packed.append(zlib.compress(np.ascontiguousarray(labels_HW).tobytes(), 1))

    def labels(self) -> Iterator[np.ndarray]:
        """The ids of each frame in turn."""
        for packed in self.packed:
            yield np.frombuffer(zlib.decompress(packed), np.uint8).reshape(self.size_px)


class Scored(NamedTuple):
    """A number over all videos. values_U: terms whose mean it is, one for each unit. more: plain types."""

    metric: str
    title: str
    values_U: np.ndarray
    units: Units
    more: Mapping[str, Any]


class Measure:
    """One kind of truth. kind: as ``PropagationProtocol.measure`` calls it."""

    kind: ClassVar[str]

    def __init__(self, protocol: PropagationProtocol) -> None:
        self.protocol = protocol

    def fits(self, truth: Truth) -> bool:
        """Whether it can be made of what is known."""
        raise NotImplementedError

    def follow(self, video: TruthVideo, carrier: Carrier, kept: Kept | None = None) -> Any:
        """What one video comes to. kept: takes what was found, to be drawn."""
        raise NotImplementedError

    def lost(self, video: TruthVideo) -> Any:
        """The same for a video that could not be read: everything in it is wrong."""
        raise NotImplementedError

    def numbers(self, videos: Sequence[TruthVideo], found: Sequence[Any]) -> Iterator[Scored]:
        """The numbers of all videos. found: of each, what ``follow`` or ``lost`` came to."""
        raise NotImplementedError


def _terms(values_U: np.ndarray, ids: Sequence[str], groups: Sequence[str], noun: str, low: float = 0.0) -> Units:
    interval = grouped_mean_interval(values_U, groups_N=np.array(groups), low=low)
    return Units(tuple(ids), tuple(groups), noun, "videos", interval)


# ---- masks


class Objects(Measure):
    """Masks of objects: J and F."""

    kind = "objects"

    @property
    def _united(self) -> bool:
        return self.protocol.convention == "davis2016"

    def fits(self, truth: Truth) -> bool:
        return truth.masks is not None and not truth.masks.names

    def follow(self, video: TruthVideo, carrier: Carrier, kept: Kept | None = None) -> list[ObjectScores]:
        masks = _masks_of(video)
        names = self._names(masks)
        rows: dict[int, list[tuple[float, float]]] = {name: [] for name in names}
        given = {frame: _only(masks.at(frame), new) for frame, new in masks.given().items()}
        for frame, found_HW in enumerate(carrier.masks(video.frames(), video.size_px, given, masks.ids)):
            if kept is not None:
                kept.add(found_HW)
            scored = [name for name, at in names.items() if frame in scored_frames(masks.num_frames, at)]
            truth_HW = masks.at(frame) if scored else None
            if truth_HW is None:
                continue
            ids = masks.ids if self._united else scored
            scores = frame_scores(truth_HW, found_HW, ids, united=self._united)
            for name, j, f in zip(scored, scores.jaccard_K, scores.boundary_K, strict=True):
                rows[name].append((float(j), float(f)))
        return [_object(video, name, np.array(of).reshape(-1, 2)) for name, of in rows.items()]

    def lost(self, video: TruthVideo) -> list[ObjectScores]:
        masks = _masks_of(video)
        lengths = {name: len(scored_frames(masks.num_frames, at)) for name, at in self._names(masks).items()}
        return [_object(video, name, np.zeros((length, 2))) for name, length in lengths.items()]

    def _names(self, masks: Masks) -> dict[int, int]:
        """Each object that is scored -> the frame that it is given in; 0 where all are one."""
        if self._united:
            return {0: min(masks.given())}
        return {number: frame for frame, new in masks.given().items() for number in new}

    def numbers(self, videos: Sequence[TruthVideo], found: Sequence[list[ObjectScores]]) -> Iterator[Scored]:
        scored = [(one, video) for video, objects in zip(videos, found, strict=True) for one in objects]
        scored = [(one, video) for one, video in scored if len(one.jaccard_T)]
        if not scored:
            return
        ids = [one.sequence if self._united else one.name for one, video in scored]
        groups, noun = [video.group for _, video in scored], "sequences" if self._united else "objects"
        j, f = ([summarize(getattr(one, measured)) for one, _ in scored] for measured in ("jaccard_T", "boundary_T"))
        prefix, sign = ("davis2016", " (2016)") if self._united else ("davis", "")
        both = [Summary(*((a + b) / 2 for a, b in zip(*pair, strict=True))) for pair in zip(j, f, strict=True)]
        for name, title, summaries, part in (
            ("jf", "J&F", both, "mean"),
            *(
                (f"{m.lower()}{end}", f"{m}{words}", of, part)
                for m, of in (("J", j), ("F", f))
                for end, words, part in _PARTS
            ),
        ):
            values_U = np.array([getattr(summary, part) for summary in summaries])
            more = {"per_sequence": _per_sequence(values_U, [one.sequence for one, _ in scored])}
            yield Scored(
                f"{prefix}_{name}",
                title + sign,
                values_U,
                _terms(values_U, ids, groups, noun, -1.0 if part == "decay" else 0.0),
                more,
            )


_PARTS = (("", "", "mean"), ("_recall", " recall", "recall"), ("_decay", " decay", "decay"))


def _masks_of(video: TruthVideo) -> Masks:
    assert video.truth.masks is not None  # ``fits`` said so
    return video.truth.masks


def _only(mask_HW: np.ndarray | None, ids: Sequence[int]) -> np.ndarray:
    assert mask_HW is not None  # it gives objects
    return np.where(np.isin(mask_HW, ids), mask_HW, 0).astype(np.uint8)


def _object(video: TruthVideo, number: int, scores_T2: np.ndarray) -> ObjectScores:
    return ObjectScores(video.name, number, scores_T2[:, 0], scores_T2[:, 1])


def _per_sequence(values_U: np.ndarray, sequences: Sequence[str]) -> dict[str, float]:
    of: dict[str, list[float]] = {}
    for value, sequence in zip(values_U, sequences, strict=True):
        of.setdefault(sequence, []).append(float(value))
    return {sequence: float(np.mean(values)) for sequence, values in of.items()}


class Parts(Measure):
    """Masks of named parts: mean IoU from one confusion of all pixels."""

    kind = "parts"

    def fits(self, truth: Truth) -> bool:
        return truth.masks is not None and bool(truth.masks.names)

    def follow(self, video: TruthVideo, carrier: Carrier, kept: Kept | None = None) -> np.ndarray:
        """Confusions of the given frame and of the others, 2KK."""
        masks, first_HW = _masks_of(video), _first(video)
        counts = np.zeros((2, len(masks.names), len(masks.names)), np.int64)
        ids = masks.given()[min(masks.given())]
        for frame, found_HW in enumerate(carrier.masks(video.frames(), video.size_px, {0: first_HW}, ids)):
            if kept is not None:
                kept.add(found_HW)
            if (truth_HW := masks.at(frame)) is not None:
                counts[int(frame > 0)] += confusion(truth_HW, found_HW, len(masks.names))
        return counts

    def lost(self, video: TruthVideo) -> np.ndarray:
        masks = _masks_of(video)
        counts = np.zeros((2, len(masks.names), len(masks.names)), np.int64)
        for frame in masks.frames:
            truth_HW = masks.at(frame)
            assert truth_HW is not None  # it is one of its frames
            for number in range(len(masks.names)):  # every part is taken for another one
                counts[int(frame > 0), number, int(number == 0)] += np.count_nonzero(truth_HW == number)
        return counts

    def numbers(self, videos: Sequence[TruthVideo], found: Sequence[np.ndarray]) -> Iterator[Scored]:
        counts_S2KK = np.stack(found)
        for metric, title, counts_SKK in (
            ("miou", "mIoU", counts_S2KK.sum(axis=1)),
            ("miou_without_given", "mIoU without frame 0", counts_S2KK[:, 1]),
        ):
            scored = [i for i in range(len(videos)) if counts_SKK[i].any()]
            if scored:
                yield _ratio(metric, title, [videos[i] for i in scored], counts_SKK[scored], mean_iou)


def _first(video: TruthVideo) -> np.ndarray:
    first_HW = _masks_of(video).at(0)
    assert first_HW is not None  # a folder of masks begins with the first frame
    return np.array(first_HW)


def _ratio(
    metric: str, title: str, videos: Sequence[TruthVideo], counts_S: Any, statistic: Callable[[Any], float]
) -> Scored:
    """A number that is made of the counts of all videos, and is no mean of theirs."""
    values_U = pseudo_values(lambda at: statistic(counts_S[at]), len(videos))
    ids, groups = [video.name for video in videos], [video.group for video in videos]
    alone = {video.name: statistic(counts_S[[i]]) for i, video in enumerate(videos)}
    return Scored(metric, title, values_U, _terms(values_U, ids, groups, "sequences"), {"per_sequence": alone})


# ---- joints and points


class JointsMeasure(Measure):
    """Joints of a body: PCK."""

    kind = "joints"

    def fits(self, truth: Truth) -> bool:
        return truth.joints is not None

    def follow(self, video: TruthVideo, carrier: Carrier, kept: Kept | None = None) -> KeypointCounts:
        joints = _joints_of(video)
        found_TJ2 = carrier.joints(video.frames(), video.size_px, joints.points_TJ2[0])
        if kept is not None:
            kept.points = found_TJ2, np.isfinite(found_TJ2).all(axis=2)
        return count_keypoints(joints.points_TJ2, found_TJ2, joints.visible_TJ)

    def lost(self, video: TruthVideo) -> KeypointCounts:
        joints = _joints_of(video)
        nowhere_TJ2 = np.full(joints.points_TJ2.shape, np.nan)
        return count_keypoints(joints.points_TJ2, nowhere_TJ2, joints.visible_TJ)

    def numbers(self, videos: Sequence[TruthVideo], found: Sequence[KeypointCounts]) -> Iterator[Scored]:
        scored = [i for i, counts in enumerate(found) if counts.total_J.any()]
        if not scored:
            return
        counts_S = np.empty(len(scored), dtype=object)
        counts_S[:] = [found[i] for i in scored]
        names = _joints_of(videos[0]).names
        joints_FJ = pck(list(counts_S)).joints_FJ
        for place, fraction in enumerate(PCK_FRACTIONS):
            of_fraction = partial(_pck_at, place)
            known = [videos[i] for i in scored]
            one = _ratio(f"pck@{fraction:g}", f"PCK@{fraction:g}", known, counts_S, of_fraction)
            each = {n: float(v) for n, v in zip(names, joints_FJ[place], strict=True) if np.isfinite(v)}
            yield one._replace(more={**one.more, "per_joint": each})


def _pck_at(place: int, counts: Sequence[KeypointCounts]) -> float:
    return float(pck(list(counts)).mean_F[place])


def _joints_of(video: TruthVideo) -> Joints:
    assert video.truth.joints is not None  # ``fits`` said so
    return video.truth.joints


class PointsMeasure(Measure):
    """Points of a surface: TAP-Vid's metrics, for each mode of queries."""

    kind = "points"

    @property
    def _modes(self) -> tuple[str, ...]:
        chosen = self.protocol.point_queries
        return ("first", "strided") if chosen == "both" else (chosen,)

    def fits(self, truth: Truth) -> bool:
        return truth.tracks is not None

    def follow(self, video: TruthVideo, carrier: Carrier, kept: Kept | None = None) -> dict[str, TapVidScores]:
        asked = self._queries(video)
        points_Q3 = np.concatenate([queries.places_Q3[:, [0, 2, 1]] for queries in asked.values()])
        both_ways = "strided" in asked
        points_TQ2, seen_TQ = carrier.points(video.frames(), video.size_px, points_Q3, both_ways=both_ways)
        if kept is not None:
            drawn = slice(
                0, len(next(iter(asked.values())).tracks_Q)
            )  # each point once, where the first mode asks for it
            kept.points = points_TQ2[:, drawn], seen_TQ[:, drawn]
        return self._scores(video, asked, points_TQ2, seen_TQ)

    def lost(self, video: TruthVideo) -> dict[str, TapVidScores]:
        asked, tracks = self._queries(video), _tracks_of(video)
        order = np.concatenate([queries.tracks_Q for queries in asked.values()])
        return self._scores(video, asked, tracks.points_TQ2[:, order] + 1e6, ~tracks.visible_TQ[:, order])

    def _queries(self, video: TruthVideo) -> dict[str, Queries]:
        tracks = _tracks_of(video)
        return {mode: make_queries(tracks.points_TQ2, tracks.visible_TQ, mode) for mode in self._modes}

    def _scores(
        self, video: TruthVideo, asked: Mapping[str, Queries], points_TQ2: np.ndarray, seen_TQ: np.ndarray
    ) -> dict[str, TapVidScores]:
        """points_TQ2, seen_TQ: of the queries of all modes, one mode after the other."""
        tracks, start, found = _tracks_of(video), 0, {}
        for mode, queries in asked.items():
            own = slice(start, start := start + len(queries.tracks_Q))
            truth_TQ2, found_TQ2 = (
                at_scored_size(points, *video.size_px)
                for points in (tracks.points_TQ2[:, queries.tracks_Q], points_TQ2[:, own])
            )
            visible_TQ, frames_Q = tracks.visible_TQ[:, queries.tracks_Q], queries.places_Q3[:, 0]
            found[mode] = tapvid_metrics(truth_TQ2, visible_TQ, found_TQ2, seen_TQ[:, own], frames_Q, mode)
        return found

    def numbers(self, videos: Sequence[TruthVideo], found: Sequence[dict[str, TapVidScores]]) -> Iterator[Scored]:
        for mode in self._modes:
            middle, words = ("", "") if mode == "first" else (f"{mode}_", f" ({mode})")
            scores = [one[mode] for one in found]
            for name, title in (("delta", "delta"), ("oa", "OA"), ("aj", "AJ")):
                values = np.array([getattr(one, name) for one in scores], dtype=np.float64)
                known = np.flatnonzero(np.isfinite(values)).tolist()
                if not known:
                    continue
                ids, groups = [videos[i].name for i in known], [videos[i].group for i in known]
                units = _terms(values[known], ids, groups, "sequences")
                alone = dict(zip([videos[i].name for i in known], values[known].tolist(), strict=True))
                more = {"per_sequence": alone, **_thresholds([scores[i] for i in known], name)}
                yield Scored(f"tapvid_{middle}{name}", title + words, values[known], units, more)


def _tracks_of(video: TruthVideo) -> Tracks:
    assert video.truth.tracks is not None  # ``fits`` said so
    return video.truth.tracks


def _thresholds(scores: Sequence[TapVidScores], name: str) -> dict[str, Any]:
    of = {"delta": "delta_D", "aj": "jaccard_D"}.get(name)
    if of is None:
        return {}
    return {"per_threshold": [float(v) for v in np.mean([getattr(one, of) for one in scores], axis=0)]}


MEASURES: tuple[type[Measure], ...] = (Objects, Parts, JointsMeasure, PointsMeasure)
