"""Online evaluation: every few epochs, what the frozen features are worth while training goes on: on a labeled slice, and for
following what is known of a handful of videos.

Labels never reach the backbone: features are taken in evaluation mode without gradients, and weights, batch statistics
and random generators are left as they were. Choosing a checkpoint by these numbers is choosing it with labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ssvid.backbones import BackboneInfo
from ssvid.bounds import check
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError
from ssvid.evals.contract import LabeledData, Subject, Tools, check_rows
from ssvid.evals.label_propagation.evaluation import LabelPropagation
from ssvid.evals.linear_probe.probe import linear_probe
from ssvid.evals.neighbors.knn import score_neighbors
from ssvid.features.extracting import extract_features
from ssvid.features.passes import evaluation_mode
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.features.protocol import (
    FeatureProtocol,
    OnlineProtocol,
    OnlineTrackingProtocol,
    ProbeProtocol,
    check_probe_protocol,
    resolve_feature_protocol,
)

_UNSEEN: Any = None  # tracking reads the videos itself
_SHOWN = (
    "_jf",
    "miou",
    "pck@0.1",
    "tapvid_delta",
    "tapvid_aj",
)  # of the numbers of tracking, by the ends of their names


def labeled_slice(rows: Sequence[VideoRow], num: int, *, seed: int) -> list[VideoRow]:
    """At most ``num`` readable, labeled rows, drawn by the seed, the classes as even as their numbers allow."""
    order = np.random.default_rng([seed, num]).permutation(len(rows))
    by_class: dict[str, list[VideoRow]] = {}
    for row in (rows[i] for i in order):
        if row.label and row.is_readable:
            by_class.setdefault(row.label, []).append(row)
    rounds = max((len(members) for members in by_class.values()), default=0)
    taken = [
        by_class[label][turn] for turn in range(rounds) for label in sorted(by_class) if turn < len(by_class[label])
    ]
    return taken[:num]


def online_slices(
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    val_rows: Sequence[VideoRow],
    protocol: OnlineProtocol,
    seed: int,
) -> tuple[list[VideoRow], list[VideoRow]]:
    """The labeled videos to fit on and those to score: split ``val``, else ``test``, else the held-out videos.

    Args:
        train_rows, val_rows: those that pretraining trains on and holds out.

    Raises:
        DataError: too few labels on one side; names the way out.
    """
    by_split = {name: [row for row in manifest.rows if row.split == name] for name in ("val", "test")}
    candidates = by_split["val"] or by_split["test"] or list(val_rows)
    unseen = {row.path for row in candidates}
    train = labeled_slice([row for row in train_rows if row.path not in unseen], protocol.num_train, seed=seed)
    known = {row.label for row in train}
    test = labeled_slice([row for row in candidates if row.label in known], protocol.num_test, seed=seed)
    if len(known) < 2 or not test:
        raise DataError(
            f"online.every_epochs ({protocol.every_epochs}) needs labeled videos: {len(train)} of {len(known)} classes were "
            f"found to fit on and {len(test)} of the same classes to score. Use class folders (data.name=class_folder) or "
            "a manifest with the columns label and split, or set online.every_epochs=0."
        )
    check_rows(manifest, train, test)
    return train, test


class _EveryEpochs(pl.Callback):
    """Scores and logs every N epochs, on rank 0; the other ranks wait."""

    every_epochs: int

    def score(self, backbone: Any, device: Any) -> dict[str, float]:
        """The numbers of a backbone as it is now; it is left as it was."""
        raise NotImplementedError

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every_epochs:
            return
        if trainer.is_global_zero:
            values = self.score(pl_module.task.exported_network(pl_module.backbone), pl_module.device)
            for logger in trainer.loggers:
                logger.log_metrics({**values, "epoch": float(trainer.current_epoch)}, step=trainer.global_step - 1)
        trainer.strategy.barrier()


class OnlineEvaluation(_EveryEpochs):
    """Scores k-NN and a linear probe every N epochs, on rank 0; the other ranks wait.

    Logged: online/knn_top1, online/probe_top1, online/chance, online/num_train, online/num_test.

    Args:
        manifest: the rows' own. train_rows, val_rows: of pretraining. info, trained_stage: of the backbone.

    Raises:
        RecipeError: the protocol does not fit. DataError: there are too few labels.
    """

    def __init__(
        self,
        protocol: OnlineProtocol,
        manifest: Manifest,
        train_rows: Sequence[VideoRow],
        val_rows: Sequence[VideoRow],
        *,
        info: BackboneInfo,
        trained_stage: str | None,
        seed: int,
    ) -> None:
        check(protocol, "online.")
        self.every_epochs = protocol.every_epochs
        self.protocol, self.manifest, self.trained_stage = protocol, manifest, trained_stage
        self.train, self.test = online_slices(manifest, train_rows, val_rows, protocol, seed)
        self.features = resolve_feature_protocol(protocol.features, info, trained_stage)
        self.probe = ProbeProtocol(
            regularization=(0.01, 0.1, 1.0), num_holdouts=1, knn_ks=(min(protocol.knn_k, len(self.train)),), seed=seed,
        )  # fmt: skip
        check_probe_protocol(self.probe, len(self.train))

    def score(self, backbone: Any, device: Any) -> dict[str, float]:
        """The numbers of a backbone as it is now; it is left as it was."""
        train, test = (
            extract_features(
                backbone, self.manifest, rows, self.features, device=device, trained_stage=self.trained_stage
            )
            for rows in (self.train, self.test)
        )
        neighbors = score_neighbors(train, test, self.probe)
        probe = linear_probe(train, test, self.probe)
        return {
            "online/knn_top1": float(neighbors.knn_correct[self.probe.knn_ks[0]].mean()),
            "online/probe_top1": probe.top1,
            "online/chance": probe.chance,
            "online/num_train": float(len(self.train)),
            "online/num_test": float(len(self.test)),
        }


def tracking_slice(
    manifest: Manifest, held_out: Sequence[VideoRow], protocol: OnlineTrackingProtocol, seed: int
) -> list[VideoRow]:
    """The videos that are followed: of the split that is named, or else ``test``, ``val`` or those that are held out; drawn by
    the seed, and cut to their first frames.

    Raises:
        DataError: nothing is known of any of them; names the way out.
    """
    known = [row for row in manifest.rows if row.truth and row.is_readable]
    apart = {row.path for row in held_out}
    choices = [
        [row for row in known if row.split == split]
        for split in ([protocol.split] if protocol.split else ["test", "val"])
    ]
    if not protocol.split:
        choices.append([row for row in known if row.path in apart] if held_out else known)
    candidates = next((choice for choice in choices if choice), [])
    if not candidates:
        raise DataError(
            f"online.tracking.every_epochs ({protocol.every_epochs}) needs videos whose masks, joints or tracks are known, and the "
            f"{len(manifest)} videos of {manifest.root} have none that are not trained on. Name others with online.tracking.root "
            "and online.tracking.name, or set online.tracking.every_epochs=0."
        )
    order = np.random.default_rng([seed, protocol.num_videos]).permutation(len(candidates))
    chosen = sorted((candidates[i] for i in order[: protocol.num_videos]), key=row_id)
    return [_cut(row, protocol.num_frames) for row in chosen]


def _cut(row: VideoRow, num_frames: int) -> VideoRow:
    """The first frames of a video, or of its window."""
    if not num_frames or row.window_frames <= num_frames:
        return row
    return replace(row, end_frame=row.start_frame + num_frames)


class OnlineTracking(_EveryEpochs):
    """Follows what is known of the first frame of some videos, and logs how far: online/davis_jf, online/tapvid_delta and the
    like, each beside what labels that do not move come to (online/davis_jf_identity).

    Args:
        manifest: of the videos. held_out: what pretraining holds out of it; () where it is another table.

    Raises:
        RecipeError: the protocol does not fit. DataError: nothing is known of the videos, or it does not fit them.
    """

    def __init__(
        self, protocol: OnlineTrackingProtocol, manifest: Manifest, held_out: Sequence[VideoRow], *, seed: int
    ) -> None:
        check(protocol, "online.tracking.")
        self.every_epochs = protocol.every_epochs
        rows = tracking_slice(manifest, held_out, protocol, seed)
        self.data = LabeledData.checked(manifest, (), rows, labels=False)
        self.config = PropagationProtocol(
            size_rule="short_side",
            size_px=protocol.size_px,
            stride_px=protocol.stride_px,
            num_previous=protocol.num_previous,
            radius_cells=protocol.radius_cells,
        )
        self.evaluation = LabelPropagation(draws=False)
        self.evaluation.check_rows(self.data, self.config)

    def score(self, backbone: Any, device: Any) -> dict[str, float]:
        """The numbers of a backbone as it is now; it is left as it was."""
        values = {}
        with evaluation_mode(backbone):
            subject, tools = Subject("online", backbone, FeatureProtocol()), Tools(str(device))
            for number in self.evaluation.score(subject, _UNSEEN, self.data, self.config, tools):
                if number.metric.endswith(_SHOWN):
                    values[f"online/{number.metric}"] = float(np.mean(number.correct_N))
                    values[f"online/{number.metric}_identity"] = number.chance
        return values
