"""The numbers of a fine-tuned network, each with all that it depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading
from ssvid.classifiers.scoring import VideoScores
from ssvid.data.manifest import row_id
from ssvid.evals.contract import Number, guess_chance
from ssvid.evals.finetune.rates import learning_rates
from ssvid.evals.finetune.state import Fitted, Parts, Start
from ssvid.features.protocol import decoder_of
from ssvid.features.reading import row_is_padded
from ssvid.features.store import Listed
from ssvid.weights.checkpoints import weights_sha256


@dataclass(frozen=True)
class _Side:
    """What a result says of the videos of one split."""

    unreadable: tuple[Listed, ...]
    padded: tuple[str, ...]
    decoders: Mapping[str, int]


def _training_side(start: Start, fitted: Fitted) -> _Side:
    reading = clip_reading(start.protocol, start.tools.loader)
    readable = [row for row in start.data.train if row.is_readable]
    failed = dict(fitted.unreadable) | {row.path: row.status for row in start.data.train if not row.is_readable}
    return _Side(
        tuple(Listed(path, reason) for path, reason in sorted(failed.items())),
        tuple(row_id(row) for row in readable if row_is_padded(row, reading)),
        dict(Counter(decoder_of(row, reading) for row in readable)),
    )


def _context(start: Start, fitted: Fitted) -> dict[str, Any]:
    """What the numbers depend on beside the videos and the weights that were started from."""
    info, tools, p = fitted.backbone.info, start.tools, start.protocol
    state = {f"backbone.{k}": v for k, v in fitted.backbone.state_dict().items()}
    state |= {f"task.{k}": v for k, v in fitted.task.state_dict().items()}
    return {
        "trained_sha256": weights_sha256(state),
        "finetune_protocol": p.as_dict(),
        "seed": tools.seed,
        "device": fitted.device.type,
        "training": {
            "processes": tools.num_processes,
            "precision": tools.trainer.precision,
            "accumulate": tools.trainer.accumulate,
            "steps_per_epoch": fitted.steps_per_epoch,
            "num_videos": fitted.num_videos,
            "learning_rates": learning_rates(info, p),
            "trained_parameters": sum(q.numel() for q in _trained(fitted)),
        },
    }


def _trained(fitted: Fitted) -> list[Tensor]:
    return [q for module in (fitted.backbone, fitted.task) for q in module.parameters() if q.requires_grad]


def _choice(parts: Parts, chosen: Fitted, protocol: FinetuneProtocol) -> dict[str, Any]:
    """How the epoch was chosen."""
    if chosen.best is None:
        return {"chosen": {"epoch": chosen.epoch, "on": "nothing: the last epoch"}, "heldout_top1": None}
    return {
        "chosen": {"epoch": chosen.epoch, "on": "held-out part of train"},
        "heldout_top1": chosen.best["top1"],
        "num_heldout": len(parts.held),
        "curve": list(chosen.curve),
        "refit": protocol.refit,
    }


def finetuned_numbers(
    test: VideoScores, start: Start, parts: Parts, chosen: Fitted, fitted: Fitted
) -> Iterator[Number]:
    """Top-1 of the videos and of their clips, and top-5 above 5 classes."""
    p, labels = start.protocol, [row.label for row in start.data.test]
    of_clips = {**_context(start, fitted), "head": _choice(parts, chosen, p), "folder": start.tools.folder.name}
    of_videos = {**of_clips, "predictions": list(test.predictions(p.averaging))}
    seen = _training_side(start, fitted), test

    def number(metric: str, correct_N: np.ndarray, chance: float, more: Mapping[str, Any]) -> Number:
        return Number(f"{p.metric}_{metric}", correct_N, chance, more, parts.notes, seen=seen)

    yield number("top1", test.correct(p.averaging), guess_chance(labels), of_videos)
    if len(test.classes) > 5:
        yield number("top5", test.correct_in_top(5, p.averaging), guess_chance(labels, 5), of_videos)
    yield number("clip_top1", test.right_views(), guess_chance(labels), of_clips)
