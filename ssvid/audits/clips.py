"""The counterfactual between planning and transforming: a clip maker around the task's own.

The plan, its targets and every random draw of the task stay as they are; only the frames are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvid.audits.counterfactuals import VIDEO, Counterfactual, Repaint
from ssvid.transforms.cuts import Cut, CutFirst, Cuts, cuts_of
from ssvid.types import ClipMaker, ClipPlan, Ticket, VideoInfo

CHANGED = "audit_changed"  # key of a sample: whether the counterfactual made any difference to it
_LEAST_LEAD_FRAMES = 2
_MAX_GAP_FRAMES = 16  # between wanted frames; across a wider gap a new stretch starts


@dataclass(frozen=True)
class AuditPlan(ClipPlan):
    """Frames to read, other than the task's plan asked for.

    plan: the task's own. shown: what is put in place of its views. views: what is read; ``shown`` itself, or the
    stretches that hold its frames.
    """

    plan: ClipPlan = field(default_factory=lambda: ClipPlan(()))
    shown: tuple[np.ndarray, ...] = ()


class AroundClips:
    """A clip maker around the task's own: it needs of a video what that one needs."""

    def __init__(self, maker: ClipMaker) -> None:
        self.maker = maker

    @property
    def min_frames(self) -> int:
        """What the task needs."""
        return self.maker.min_frames

    @property
    def signals(self) -> tuple[str, ...]:
        """The per-frame signals that the task plans from."""
        return tuple(getattr(self.maker, "signals", ()))

    @property
    def group_by(self) -> str | None:
        """Which videos the task pairs."""
        return getattr(self.maker, "group_by", None)


class AuditedClips(AroundClips, CutFirst):
    """A task's clip maker whose frames are changed before it cuts them.

    Frames are cut as they are decoded, as in training, where others are read or each is painted by itself; what paints a
    clip as a whole gets whole frames.

    Args:
        maker: of the task, for validation. counterfactual: what is changed; it must act on the video.
    """

    def __init__(self, maker: ClipMaker, counterfactual: Counterfactual) -> None:
        if counterfactual.place != VIDEO:
            raise ValueError(f"counterfactual ({counterfactual.label}) must act on the video.")
        super().__init__(maker)
        self.counterfactual = counterfactual

    @property
    def video_makers(self) -> tuple[AuditedClips, ...]:
        """Where the task takes several videos for a sample, each is changed."""
        return tuple(AuditedClips(maker, self.counterfactual) for maker in getattr(self.maker, "video_makers", ()))

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> AuditPlan:
        """The task's plan, and the frames that will stand in for its own."""
        plan = self.maker.plan(video, rng, batch_rng)
        own_rng = self.counterfactual.rng(rng)
        shown = self.counterfactual.other_frames(plan.views, video.num_frames, own_rng)
        read = shown
        if self.counterfactual.lead_frames:
            read = stretches(shown, self.counterfactual.lead_frames, own_rng)
        return AuditPlan(read, plan.targets, plan, shown)

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """The task's cuts, of the changed frames; the sample says whether any frame is another."""
        if not isinstance(plan, AuditPlan):
            raise TypeError(f"plan ({type(plan).__name__}) must be one that AuditedClips.plan made.")
        others = any(not np.array_equal(a, b) for a, b in zip(plan.shown, plan.plan.views, strict=True))
        if self.counterfactual.repaint is None or self.counterfactual.by_frame:
            own = cuts_of(self.maker, height, width, plan.plan, rng, batch_rng)
            brush = None if self.counterfactual.repaint is None else _Brush(self.counterfactual.repaint, rng)
            wanted = tuple(cut._replace(change=brush) for cut in own.wanted)

            def done(cut_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
                changed = others or (brush is not None and brush.changed)
                return own.finish(cut_TCHW) | {CHANGED: torch.tensor(changed)}

            return Cuts(wanted, done)

        def finish(views_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            painted, changed = self._painted(views_TCHW, rng)
            if self.counterfactual.lead_frames:
                painted = gathered(painted, plan.views, plan.shown)
            sample = self.maker.transform(painted, plan.plan, rng, batch_rng)
            return sample | {CHANGED: torch.tensor(changed or others)}

        return Cuts(tuple(Cut(view) for view in range(len(plan.views))), finish)

    def _painted(self, views_TCHW: tuple[Tensor, ...], rng: np.random.Generator) -> tuple[tuple[Tensor, ...], bool]:
        repaint = self.counterfactual.repaint
        assert repaint is not None
        own_rng = self.counterfactual.rng(rng)
        painted = tuple(repaint(view, own_rng) for view in views_TCHW)
        return painted, any(not torch.equal(a, b) for a, b in zip(painted, views_TCHW, strict=True))


class _Brush:
    """Repaints frames one by one. changed: whether that made any difference."""

    def __init__(self, repaint: Repaint, rng: np.random.Generator) -> None:
        self.repaint, self.rng, self.changed = repaint, rng, False

    def __call__(self, frame_HWC: np.ndarray) -> np.ndarray:
        frame_1CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)))[None]
        painted_1CHW = self.repaint(frame_1CHW, self.rng)
        self.changed = self.changed or not torch.equal(painted_1CHW, frame_1CHW)
        return painted_1CHW[0].permute(1, 2, 0).numpy()


def stretches(views: Sequence[np.ndarray], lead_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Consecutive frames that hold all frames of the views, each stretch with 2 to ``lead_frames`` + 1 frames before it.

    At the start of the video there are fewer. Two at least, because an encoder treats its first frames otherwise. Frames
    further apart than the gap that is bridged lie in stretches of their own.
    """
    wanted = np.unique(np.concatenate(list(views)))
    parts = np.split(wanted, np.flatnonzero(np.diff(wanted) > _MAX_GAP_FRAMES) + 1)
    found, end = [], 0
    for part in parts:
        start = max(int(part[0]) - _LEAST_LEAD_FRAMES - int(rng.integers(lead_frames)), end)
        end = int(part[-1]) + 1
        found.append(np.arange(start, end))
    return tuple(found)


def gathered(
    frames_TCHW: Sequence[Tensor], stretches: Sequence[np.ndarray], views: Sequence[np.ndarray]
) -> tuple[Tensor, ...]:
    """The frames of each view, taken out of the stretches that were read."""
    held = np.concatenate(list(stretches))
    all_TCHW = torch.cat(list(frames_TCHW))
    return tuple(all_TCHW[torch.from_numpy(np.searchsorted(held, view))] for view in views)


def repainted_batch(
    batch: Mapping[str, Any], counterfactual: Counterfactual, seed: int, targets: Sequence[str] = ()
) -> tuple[dict[str, Any], Tensor | None]:
    """The batch with every tensor of frames changed, and for each sample whether that made a difference.

    Frames are uint8 with axes (B, ..., 3, H, W); what is a target, or of less than half the largest side (a map of
    answers), is left alone. Frames of others come from a sample of another video; where the batch holds one video alone,
    nothing changes. None in place of the flags: the batch holds no frames, or does not say whose clips are whose.
    """
    names, repaint = frames_in(batch, targets), counterfactual.repaint
    changed: dict[str, Tensor] = {}
    if counterfactual.from_others and "tickets" in batch:
        lender_B = torch.tensor(other_videos(batch["tickets"][:, Ticket._fields.index("index")].tolist()))
        changed = {name: _all_but_the_last(batch[name], lender_B) for name in names}
    elif repaint is not None:
        draws = {name: counterfactual.rng(np.random.default_rng([seed])) for name in names}
        changed = {name: _repainted(batch[name], repaint, rng) for name, rng in draws.items()}
    if not changed:
        return dict(batch), None
    differs = torch.stack([(frames != batch[name]).flatten(1).any(dim=1) for name, frames in changed.items()])
    return {**batch, **changed}, differs.any(dim=0)


def _all_but_the_last(frames: Tensor, lender_B: Tensor) -> Tensor:
    """Frames (B, ..., T, 3, H, W) of the lenders, each clip's last one its own; single pictures (B, 3, H, W) stay."""
    if frames.ndim < 5:
        return frames
    last = frames.shape[-4] - 1
    return frames[lender_B].select_scatter(frames.select(-4, last), -4, last)


def other_videos(videos: Sequence[int]) -> list[int]:
    """For each sample the next one, around the end, that is of another video; itself where there is none."""
    count = len(videos)
    return [
        next((k % count for k in range(i + 1, i + count) if videos[k % count] != videos[i]), i) for i in range(count)
    ]


def _repainted(frames: Tensor, repaint: Repaint, rng: np.random.Generator) -> Tensor:
    # Single pictures (B, 3, H, W) are sequences of one frame.
    shape = frames.shape[-4:] if frames.ndim >= 5 else (1, *frames.shape[-3:])
    return torch.stack([repaint(clip, rng) for clip in frames.reshape(-1, *shape)]).reshape(frames.shape)


def frames_in(batch: Mapping[str, Any], targets: Sequence[str] = ()) -> list[str]:
    """Names of a batch's tensors that hold what the network is shown: uint8 (B, ..., 3, H, W), the large ones."""
    sides = {
        name: min(value.shape[-2:])
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim >= 4 and value.shape[-3] == 3
    }
    shown = {name: side for name, side in sides.items() if name not in targets}
    return [name for name, side in shown.items() if 2 * side >= max(shown.values())]
