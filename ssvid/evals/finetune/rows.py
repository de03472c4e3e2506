"""The numbers of a fine-tuned network, each with all that it depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading
from ssvid.classifiers.scoring import VideoScores
from ssvid.data.contents import units_of
from ssvid.data.manifest import VideoRow, row_id
from ssvid.evals.contract import data_context, notes_of
from ssvid.evals.finetune.rates import learning_rates
from ssvid.evals.finetune.state import Fitted, Parts, Start
from ssvid.features.protocol import decoder_of
from ssvid.features.reading import row_is_padded
from ssvid.features.store import Listed
from ssvid.machine import versions
from ssvid.results.leaks import leak_note
from ssvid.results.rows import ResultRow
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.provenance import Provenance


@dataclass(frozen=True)
class _Side:
    """What a result says of the videos of one split."""

    unreadable: tuple[Listed, ...]
    padded: tuple[str, ...]
    decoders: Mapping[str, int]


def _training_side(start: Start, fitted: Fitted) -> _Side:
    reading = clip_reading(start.protocol, start.setup.loader)
    readable = [row for row in start.train_rows if row.is_readable]
    failed = dict(fitted.unreadable) | {row.path: row.status for row in start.train_rows if not row.is_readable}
    return _Side(
        tuple(Listed(path, reason) for path, reason in sorted(failed.items())),
        tuple(row_id(row) for row in readable if row_is_padded(row, reading)),
        dict(Counter(decoder_of(row, reading) for row in readable)),
    )


def _context(start: Start, test_rows: Sequence[VideoRow], test: VideoScores, fitted: Fitted) -> dict[str, Any]:
    info, setup, p = fitted.backbone.info, start.setup, start.protocol
    state = {f"backbone.{k}": v for k, v in fitted.backbone.state_dict().items()}
    state |= {f"task.{k}": v for k, v in fitted.task.state_dict().items()}
    return {
        "backbone": {"name": info.name, "options": dict(info.options)},
        "weights_sha256": start.weights,
        "trained_sha256": weights_sha256(state),
        "weights": Provenance.of(start.origin).to_row(),
        "finetune_protocol": p.as_dict(),
        "seed": setup.seed,
        "device": fitted.device.type,
        "training": {
            "processes": setup.num_processes,
            "precision": setup.trainer.precision,
            "accumulate": setup.trainer.accumulate,
            "steps_per_epoch": fitted.steps_per_epoch,
            "num_videos": fitted.num_videos,
            "learning_rates": learning_rates(info, p),
            "trained_parameters": sum(q.numel() for q in _trained(fitted)),
        },
        **data_context(start.manifest, start.train_rows, test_rows, _training_side(start, fitted), test),
        "leak": leak_note(test_rows, start.train_rows, start.origin, start.manifest.rows),
        "versions": versions(),
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


def finetuned_rows(
    name: str,
    test: VideoScores,
    test_rows: Sequence[VideoRow],
    start: Start,
    parts: Parts,
    chosen: Fitted,
    fitted: Fitted,
) -> Iterator[ResultRow]:
    p = start.protocol
    context = _context(start, test_rows, test, fitted)
    notes = [*notes_of(context), *parts.notes]
    of_clips = {**context, "head": _choice(parts, chosen, p), "notes": notes}
    groups = units_of(test_rows)
    of_videos = {**of_clips, "predictions": list(test.predictions(p.averaging))}

    def row(metric: str, correct_N: np.ndarray, chance: float, more: Mapping[str, Any]) -> ResultRow:
        return ResultRow.counted(name, f"{p.metric}_{metric}", correct_N, chance, test.ids, groups, more)

    yield row("top1", test.correct(p.averaging), most_frequent(test_rows, 1), of_videos)
    if len(test.classes) > 5:
        yield row("top5", test.correct_in_top(5, p.averaging), most_frequent(test_rows, 5), of_videos)
    yield row("clip_top1", test.right_views(), most_frequent(test_rows, 1), of_clips)


def most_frequent(rows: Sequence[VideoRow], num: int) -> float:
    """Share of the ``num`` most frequent classes: what a guess blind to the videos scores."""
    counts = sorted(Counter(row.label for row in rows).values(), reverse=True)
    return sum(counts[:num]) / max(len(rows), 1)
