"""Online evaluation: every few epochs, what the frozen features are worth on a labeled slice, while training goes on.

Labels never reach the backbone: features are taken in evaluation mode without gradients, and weights, batch statistics
and random generators are left as they were. Choosing a checkpoint by these numbers is choosing it with labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ssvid.backbones import BackboneInfo
from ssvid.bounds import check
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.evals.contract import check_rows
from ssvid.evals.linear_probe.probe import linear_probe
from ssvid.evals.neighbors.knn import score_neighbors
from ssvid.features.extracting import extract_features
from ssvid.features.protocol import OnlineProtocol, ProbeProtocol, check_probe_protocol, resolve_feature_protocol


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


class OnlineEvaluation(pl.Callback):
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
        self.protocol, self.manifest, self.trained_stage = protocol, manifest, trained_stage
        self.train, self.test = online_slices(manifest, train_rows, val_rows, protocol, seed)
        self.features = resolve_feature_protocol(protocol.features, info, trained_stage)
        self.probe = ProbeProtocol(
            regularization=(0.01, 0.1, 1.0), num_holdouts=1, knn_ks=(min(protocol.knn_k, len(self.train)),), seed=seed,
        )  # fmt: skip
        check_probe_protocol(self.probe, len(self.train))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.protocol.every_epochs:
            return
        if trainer.is_global_zero:
            values = self.score(pl_module.backbone, pl_module.device)
            for logger in trainer.loggers:
                logger.log_metrics({**values, "epoch": float(trainer.current_epoch)}, step=trainer.global_step - 1)
        trainer.strategy.barrier()

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
