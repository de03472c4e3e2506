"""From videos to the vectors of their moments: one clip for each, which ends with it, through a frozen network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ssvid.backbones import Backbone, BackboneInfo, StageInfo
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.data.truth import read_truth
from ssvid.evals.alignment.measures import Moments
from ssvid.evals.contract import Became, Subject, Tools
from ssvid.features.passes import Piece, Vectors, Wanted, embed_block, evaluation_mode, over_blocks
from ssvid.features.protocol import FeatureProtocol, decoder_of, resolve_feature_protocol
from ssvid.features.reading import Read, check_contents, check_decoder
from ssvid.features.store import Listed
from ssvid.video.sampling import clip_span

POSITION = "position only"
_CLIPS_OF_A_PASS = 64


class PositionOnly(Backbone):
    """The baseline that sees no picture: the vector of a moment is its place in the video, z = t / T."""

    def __init__(self) -> None:
        super().__init__(BackboneInfo(POSITION, (StageInfo("none", 1, 1, 1),)))
        self.provenance = {"content_ids": []}


class SeenMoments(NamedTuple):
    """What a network makes of the moments of one side. of: the moments of each video, by its place; became: what became of all."""

    of: Mapping[int, Moments]
    became: Became


def moment_frames(row: VideoRow, features: FeatureProtocol, step_frames: int) -> np.ndarray:
    """The moments of a video: every so many frames, from the first that has a whole clip before it; int64, counted from its window."""
    return np.arange(clip_span(features.num_frames, features.stride_frames) - 1, row.window_frames, step_frames)


def read_moments(
    subject: Subject,
    manifest: Manifest,
    rows: Sequence[VideoRow],
    phases: Sequence[np.ndarray],
    step_frames: int,
    tools: Tools,
    told: Callable[[int, int], None],
) -> SeenMoments:
    """The moments of videos as a network sees them.

    Args:
        phases: of each video, the number of the phase of every frame. told: called with videos done and in all.

    Raises:
        DataError, DecodeError, RecipeError: as ``read_features``.
    """
    protocol = resolve_feature_protocol(subject.protocol, subject.network.info, subject.stage)
    frames = [moment_frames(row, protocol, step_frames) for row in rows]
    times = [moments_N / max(row.window_frames, 1) for moments_N, row in zip(frames, rows, strict=True)]
    lost = {i: row.status for i, row in enumerate(rows) if not row.is_readable}
    if isinstance(subject.network, PositionOnly):
        vectors = {i: times_N[:, None] for i, times_N in enumerate(times) if i not in lost}
    else:
        check_decoder(rows, protocol)
        check_contents(manifest, rows)
        back = clip_span(protocol.num_frames, protocol.stride_frames) - 1
        reads = [Read(row, moments_N - back) for row, moments_N in zip(rows, frames, strict=True)]
        vectors, failed = _embedded(subject.network, manifest, reads, protocol, tools, told)
        lost |= failed
    found = {
        i: Moments(np.asarray(vectors[i], dtype=np.float64), phases[i][frames[i]], times[i])
        for i in range(len(rows))
        if i in vectors and i not in lost
    }
    unreadable = tuple(Listed(row_id(rows[i]), lost[i]) for i in sorted(lost))
    return SeenMoments(found, Became(unreadable, (), Counter(decoder_of(rows[i], protocol) for i in found)))


def _embedded(
    network: Backbone,
    manifest: Manifest,
    reads: Sequence[Read],
    protocol: FeatureProtocol,
    tools: Tools,
    told: Callable[[int, int], None],
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The vectors of each read, one for each of its clips, and why some gave none."""
    device = torch.device(tools.device)
    wanted = [Wanted(network, protocol, dict.fromkeys(range(len(reads)), ""))]
    blocks = [
        [*range(first, min(first + protocol.batch_size, len(reads)))]
        for first in range(0, len(reads), protocol.batch_size)
    ]

    def work(number: int, pieces: Iterator[Piece]) -> tuple[list[Vectors], dict[int, str]]:
        return embed_block(wanted, pieces, protocol, device, most=_CLIPS_OF_A_PASS)

    network.to(device)
    with evaluation_mode(network):
        found = over_blocks(manifest, reads, blocks, protocol, work, progress=told)
    vectors, lost = dict[int, np.ndarray](), dict[int, str]()
    for (of_block,), failed in found.values():
        vectors |= of_block.by_position
        lost |= failed
    return vectors, lost


def phases_of(manifest: Manifest, rows: Sequence[VideoRow]) -> list[np.ndarray | None]:
    """The number of the phase of every frame of each video; None where it is not known. Errors as of ``read_truth``."""
    known = (read_truth(manifest.root, row).phases if row.truth else None for row in rows)
    return [None if phases is None else phases.number_T for phases in known]
