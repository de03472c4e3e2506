"""What the network was shown: one row of frames per counterfactual, all of the same clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssvid.audits.clips import AroundClips, AuditedClips, repainted_batch
from ssvid.audits.counterfactuals import CLIP, Counterfactual
from ssvid.data.feed.dataset import ClipDataset
from ssvid.pictures import LIGHT, row, sheet, tiles, words
from ssvid.types import ClipMaker, ClipPlan, Stream, Ticket, VideoInfo

FRAMES_SHOWN = 8
FRAME_PX = 72
_LABEL_PX = 230
_GAP_PX = 3
_KEY = "frames"


class ShownClips(AroundClips):
    """Plans as the task does and hands on the frames themselves: those of the first sequence."""

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """The task's plan."""
        return self.maker.plan(video, rng, batch_rng)

    def transform(
        self,
        views_TCHW: tuple[Tensor, ...],
        plan: ClipPlan,
        rng: np.random.Generator,
        batch_rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """``frames`` uint8 (T, 3, H, W): of the first view, or of all views where each is a single frame."""
        frames = torch.cat(views_TCHW) if all(len(view) == 1 for view in views_TCHW) else views_TCHW[0]
        return {_KEY: frames[:FRAMES_SHOWN]}


def shown_frames(dataset: ClipDataset, counterfactual: Counterfactual) -> Tensor:
    """The first frames of the first sample under a counterfactual, uint8 (T, 3, H, W), before the task's own transform.

    One that acts on the clip is shown on the frames of the video, too.

    Args:
        dataset: with the task's own clip maker.
    """
    maker: ClipMaker = ShownClips(dataset.clip_maker)
    if counterfactual.place != CLIP:
        maker = AuditedClips(maker, counterfactual)
    other = ClipDataset(
        dataset.manifest, dataset.rows, maker, seed=dataset.seed, decoder=dataset.decoder, segment_seconds=float("inf")
    )
    sample = other[(Ticket(int(Stream.AUDIT), 0, 0, 0),)][0]
    if counterfactual.place != CLIP:
        return sample[_KEY]
    return repainted_batch({_KEY: sample[_KEY][None]}, counterfactual, dataset.seed)[0][_KEY][0]


def contact_sheet(rows: Sequence[tuple[str, Tensor]]) -> np.ndarray:
    """Labeled rows of frames (T, 3, H, W) one below the other: uint8 HWC. Longer rows are cut, shorter ones filled up."""
    lines = []
    for label, frames_TCHW in rows:
        told = words([(label, LIGHT)], _LABEL_PX, FRAME_PX)
        lines.append(row([told, *tiles(frames_TCHW[:FRAMES_SHOWN], FRAME_PX)], _GAP_PX))
    return sheet(lines)
