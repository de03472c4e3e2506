"""Videos through frozen networks: read once, block by block, by one process or shared out among several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest
from ssvid.errors import SsvidError
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.reading import ClipItem, Read, frame_order, portions_of, read_in_order
from ssvid.progress import Progress
from ssvid.ranks import share_work

T = TypeVar("T")


class Piece(NamedTuple):
    """What one reading of a video gave: all of its clips, or where they are very many, some of them in turn."""

    position: int
    read: Read
    item: ClipItem


def over_blocks(
    manifest: Manifest,
    reads: Sequence[Read],
    blocks: Sequence[Sequence[int]],
    reading: FeatureProtocol,
    work: Callable[[int, Iterator[Piece]], T],
    *,
    crop: bool = True,
    progress: Progress | None = None,
) -> dict[int, T]:
    """What ``work`` makes of each block, by its number. Whole blocks are shared out, so that each is the same on any
    number of processes, to the last bit.

    Args:
        reads: one for each video. blocks: positions in ``reads``; a block has one at least. crop: as of ``read_videos``.
        work: called with the number of a block and what its videos give, in order; it takes all of it.
        progress: called with (videos done, videos in all) of this process.

    Raises:
        DecodeError: a reading process died or did not come back.
    """

    def share(numbers: Sequence[int]) -> dict[int, T]:
        queue = [(n, i, part) for n in numbers for i in blocks[n] for part in portions_of(reads[i], reading)]
        items = read_in_order(manifest, [part for *_, part in queue], reading, crop=crop)
        pieces = ((n, Piece(i, part, item)) for (n, i, part), item in zip(queue, items, strict=True))
        total, done = sum(len(blocks[n]) for n in numbers), 0
        found: dict[int, T] = {}
        for number, of_block in groupby(pieces, key=lambda pair: pair[0]):
            found[number] = work(number, (piece for _, piece in of_block))
            done += len(blocks[number])
            if progress is not None:
                progress(done, total)
        return found

    return share_work(len(blocks), share)


class Wanted(NamedTuple):
    """A network on its device, how it is shown clips (a resolved protocol), and the positions of its videos."""

    backbone: Backbone
    protocol: FeatureProtocol
    positions: Mapping[int, str]


class Vectors(NamedTuple):
    """What a network made of a block: one vector or several for each position, and the width of each stage."""

    by_position: dict[int, np.ndarray]
    widths: dict[str, int]


def embed_block(
    wanted: Sequence[Wanted],
    pieces: Iterable[Piece],
    reading: FeatureProtocol,
    device: torch.device,
    *,
    most: int,
    averaged: int = 1,
) -> tuple[list[Vectors], dict[int, str]]:
    """What each network makes of the clips of a block, and why videos gave none.

    Args:
        most: clips in a pass. averaged: neighboring clips whose mean is one vector; they are never torn apart.

    Raises:
        SsvidError: a network gives what is not finite.
    """
    found: list[dict[int, list[np.ndarray]]] = [defaultdict(list) for _ in wanted]
    widths: list[dict[str, int]] = [{} for _ in wanted]
    lost: dict[int, str] = {}
    waiting: list[_Clip] = []

    def flush() -> None:
        clips_BTCHW = torch.stack([clip.frames_TCHW for clip in waiting]).to(device)
        for network, of_video, of_stage in zip(wanted, found, widths, strict=True):
            mine = [n for n, clip in enumerate(waiting) if clip.position in network.positions]
            if mine:
                own_BTCHW = clips_BTCHW if len(mine) == len(waiting) else clips_BTCHW[mine]
                parts = _embedded(network, own_BTCHW, [waiting[n] for n in mine], reading, averaged)
                of_stage |= {name: part.shape[1] for name, part in parts.items()}
                for n, vector in zip(mine[::averaged], np.concatenate(list(parts.values()), axis=1), strict=True):
                    of_video[waiting[n].position].append(vector)
        waiting.clear()

    for position, read, item in pieces:
        if item.clips_VTCHW is None:
            lost.setdefault(position, item.reason)
            continue
        for start, clip_TCHW in zip(read.starts, item.clips_VTCHW, strict=True):
            waiting.append(_Clip(position, read, int(start), clip_TCHW))
            if len(waiting) == most:
                flush()
    if waiting:
        flush()
    whole = [{i: np.stack(vectors) for i, vectors in of_video.items() if i not in lost} for of_video in found]
    return [Vectors(of_video, of_stage) for of_video, of_stage in zip(whole, widths, strict=True)], lost


class _Clip(NamedTuple):
    position: int
    read: Read
    start: int
    frames_TCHW: Tensor


def _embedded(
    network: Wanted, clips_BTCHW: Tensor, clips: Sequence[_Clip], reading: FeatureProtocol, averaged: int
) -> dict[str, np.ndarray]:
    """For each stage, the vectors of these clips, or the means of so many neighbors: (vectors, width)."""
    backbone, protocol = network.backbone, network.protocol
    if protocol.frames != reading.frames:
        orders = [frame_order(protocol, clip.read.row, clip.start) for clip in clips]
        order_BT = torch.from_numpy(np.stack(orders)).to(clips_BTCHW.device)
        clips_BTCHW = clips_BTCHW[torch.arange(len(clips), device=order_BT.device).unsqueeze(1), order_BT]
    by_stage = backbone.embed_stages(clips_BTCHW.transpose(1, 2), protocol.stage_names, protocol.pool)
    found = {
        name: by_stage[name].float().unflatten(0, (-1, averaged)).mean(dim=1).cpu().numpy()
        for name in protocol.stage_names
    }
    for values in found.values():
        check_finite(backbone, values)
    return found


def check_finite(backbone: Backbone, values: np.ndarray) -> None:
    """Raise SsvidError where a network gives NaN or infinity: that is no unreadable video, but a broken network."""
    if not np.isfinite(values).all():
        raise SsvidError(
            f"backbone {backbone.info.name} gives features that are not finite. Its weights are damaged or its "
            "training diverged: look at the loss in metrics.jsonl, or take an earlier checkpoint."
        )


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, full float32 convolutions; every module's own training flag comes back."""
    flags = {m: m.training for module in modules for m in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        for m, training in flags.items():
            m.training = training
