"""Videos through a trained classifier: every view of every video once, by one process or by several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax

from ssvid.backbones import Backbone
from ssvid.classifiers.classification import Classification
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError
from ssvid.features.passes import Piece, Progress, check_finite, evaluation_mode, over_blocks
from ssvid.features.protocol import FeatureProtocol, decoder_of
from ssvid.features.reading import Read, check_contents, check_decoder, even_starts, row_is_padded
from ssvid.features.store import Listed
from ssvid.features.views import crop_views

_VIDEOS_AT_ONCE = 1024  # bounds the memory of sums in double precision


@dataclass(frozen=True)
class VideoScores:
    """Class scores of every view of every video, in the order asked for. An unreadable video's are NaN.

    logits_NVK: float32. ids, labels: one per video. classes: names, in the order of the last axis. unreadable: with the
    decoder's words. padded: shorter than one clip, so that the last frame was repeated. decoders: videos read by each.
    """

    logits_NVK: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    unreadable: tuple[Listed, ...] = ()
    padded: tuple[str, ...] = ()
    decoders: dict[str, int] | None = None

    @property
    def readable(self) -> np.ndarray:
        """Which videos have scores: bool, one per video."""
        return ~np.isnan(self.logits_NVK).any(axis=(1, 2))

    def of_videos(self, averaging: str) -> np.ndarray:
        """Scores of the videos, NK, float64: the mean over views of the logits, or of their softmax."""
        scores_NK = np.empty((len(self.ids), len(self.classes)))
        for start in range(0, len(self.ids), _VIDEOS_AT_ONCE):
            part = slice(start, start + _VIDEOS_AT_ONCE)
            logits = self.logits_NVK[part].astype(np.float64)
            scores_NK[part] = (logits if averaging == "logits" else softmax(logits, axis=-1)).mean(axis=1)
        return scores_NK

    def predictions(self, averaging: str) -> tuple[str, ...]:
        """The likeliest class of each video; "" where it is unreadable."""
        return likeliest(self.of_videos(averaging), self.classes)

    def correct(self, averaging: str) -> np.ndarray:
        """Whether each video was right: bool. An unreadable one is wrong."""
        return np.array([p == label for p, label in zip(self.predictions(averaging), self.labels, strict=True)], bool)

    def correct_in_top(self, num: int, averaging: str) -> np.ndarray:
        """Whether the label is among the ``num`` likeliest classes of the video: bool."""
        return in_top(self.of_videos(averaging), self.classes, self.labels, num)

    def right_views(self) -> np.ndarray:
        """The share of each video's views that are right by themselves, float64; 0 where it is unreadable."""
        names = np.array(self.classes, dtype=object)[np.nan_to_num(self.logits_NVK).argmax(axis=2)]
        hits = names == np.array(self.labels, dtype=object)[:, None]
        return hits.mean(axis=1) * self.readable

    def loss(self) -> float:
        """Mean cross-entropy of the readable videos' views, without label smoothing; labels without a class left out."""
        number = {name: i for i, name in enumerate(self.classes)}
        readable = self.readable
        known = [i for i, label in enumerate(self.labels) if label in number and readable[i]]
        losses = []
        for i in known:
            probabilities = softmax(self.logits_NVK[i].astype(np.float64), axis=-1)[:, number[self.labels[i]]]
            losses.append(-np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)).mean())
        return float(np.mean(losses)) if losses else float("nan")


def likeliest(scores_NK: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """The class with the largest score of each video; "" where a score is NaN."""
    best = np.where(np.isnan(scores_NK).any(axis=1), -1, np.nan_to_num(scores_NK).argmax(axis=1))
    return tuple(classes[number] if number >= 0 else "" for number in best)


def in_top(scores_NK: np.ndarray, classes: Sequence[str], labels: Sequence[str], num: int) -> np.ndarray:
    """Whether the label of each video is among the ``num`` classes with the largest scores: bool; it is not where one is NaN."""
    ranked = np.argsort(-np.nan_to_num(scores_NK), axis=1, kind="stable")[:, :num]
    hits = np.array(classes, dtype=object)[ranked] == np.array(labels, dtype=object)[:, None]
    return np.asarray(hits.any(axis=1) & ~np.isnan(scores_NK).any(axis=1))


def score_videos(
    backbone: Backbone,
    task: Classification,
    manifest: Manifest,
    rows: Sequence[VideoRow],
    reading: FeatureProtocol,
    *,
    num_crops: int = 1,
    progress: Progress | None = None,
    files_checked: bool = False,
) -> VideoScores:
    """The scores of every view, in evaluation mode and full precision. Nothing is substituted or padded with others.

    A video's views pass through the network without those of other videos, so that its scores are the same, bit for
    bit, whatever else is scored and on however many processes (``ssvid.ranks.over_ranks``).

    Args:
        backbone, task: on one device; left as they were. reading: resolved; its clips are the views, times num_crops.
        progress: called with (videos done, videos in all) of this process. files_checked: they need not be compared with
            the manifest again.

    Raises:
        DataError: a file is not the one that the manifest describes, a decoder is wrong, or no video can be read.
        DecodeError: a reading process died or did not come back.
    """
    rows = tuple(rows)
    check_decoder(rows, reading)
    if not files_checked:
        check_contents(manifest, rows)

    def work(number: int, pieces: Iterator[Piece]) -> np.ndarray | str:
        """Logits VK of a video's views, or the reason why it gave none."""
        ((_, _, item),) = pieces
        if item.clips_VTCHW is None:
            return item.reason
        views = crop_views(item.clips_VTCHW.to(backbone.mean_C111.device), reading.crop_px, num_crops)
        passes = [task.logits(part, backbone) for part in views.split(task.protocol.views_per_pass)]
        return torch.cat(passes).cpu().numpy()

    reads = [Read(row, even_starts(row, reading)) for row in rows]
    alone = [[i] for i in range(len(rows))]
    with evaluation_mode(backbone, task):
        found = over_blocks(manifest, reads, alone, reading, work, crop=num_crops == 1, progress=progress)
    logits = {position: value for position, value in found.items() if isinstance(value, np.ndarray)}
    if not logits:
        reasons = [f"{row_id(rows[i])}: {text}" for i, text in found.items()]
        raise DataError(f"none of the {len(rows)} videos could be read ({reasons[0]}). Set data.root to their folder.")
    values = np.full((len(rows), *next(iter(logits.values())).shape), np.nan, dtype=np.float32)
    for position, value in logits.items():
        values[position] = value
    check_finite(backbone, values[sorted(logits)])
    return VideoScores(
        values,
        tuple(row_id(row) for row in rows),
        tuple(row.label for row in rows),
        task.classes,
        tuple(Listed(row_id(rows[i]), text) for i, text in found.items() if isinstance(text, str)),
        tuple(row_id(rows[i]) for i in logits if row_is_padded(rows[i], reading)),
        dict(Counter(decoder_of(rows[i], reading) for i in sorted(logits))),
    )
