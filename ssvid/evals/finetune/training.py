"""Fine-tuning: a network learns labels, its best epoch is chosen on held-out train, the test split is looked at once.

The trainer, the loaders, the tickets and the checkpoints are those of pretraining, so that a run resumes bit for bit. With
``frozen`` the same is the linear probe with augmentation, or the attentive probe.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, convert_to_channels_last_3d
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading, optim_config, resolve_finetune_protocol
from ssvid.classifiers.scoring import score_videos
from ssvid.data.config import DataConfig
from ssvid.data.contents import units_of
from ssvid.data.feed.module import ClipDataModule
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError
from ssvid.evals.contract import check_rows
from ssvid.evals.finetune.rates import build_optimizer, parameter_groups
from ssvid.evals.finetune.rows import finetuned_rows, most_frequent
from ssvid.evals.finetune.state import FinetuneSetup, Fitted, Parts, Start
from ssvid.evals.linear_probe.probe import holdouts
from ssvid.features.protocol import ProbeProtocol
from ssvid.features.reading import check_contents, check_decoder
from ssvid.machine import versions
from ssvid.ranks import from_first, global_rank, over_ranks, share_buffers
from ssvid.results.rows import ResultRow
from ssvid.train.loggers import JsonLines, build_loggers, close_loggers
from ssvid.train.module import PretrainModule
from ssvid.train.optim import build_schedule
from ssvid.train.run_folder import RunFolder
from ssvid.train.trainer import build_trainer
from ssvid.train.trainer import fit as run_trainer
from ssvid.video.sampling import clip_span
from ssvid.weights.checkpoints import load_checkpoint_dict, read_checkpoint, weights_sha256
from ssvid.weights.provenance import Provenance


def finetune_backbone(
    backbone: Backbone,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    protocol: FinetuneProtocol,
    setup: FinetuneSetup,
    folder: str | Path,
    name: str = "pretrained",
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> list[ResultRow]:
    """Train a copy of a network on labels and score it: top-1 of clips and of videos, top-5 above 5 classes.

    Unreadable training videos are left out or replaced in training, and listed; unreadable test videos count as wrong and
    are listed. Under several processes every test video is scored by one of them.

    Args:
        backbone: left as it is. train_rows, test_rows: labeled rows of the manifest, unreadable ones included.
        folder: for checkpoints and logs. resume: go on with what lies there.
        name: of the network in tables. provenance: as for ``evaluate_backbone``.

    Raises:
        RecipeError: the protocol makes no sense or does not fit. DataError: labels or videos are missing.
        StopRun: the loss is not finite.
    """
    origin = getattr(backbone, "provenance", {}) if provenance is None else provenance
    p, parts = check_finetuning(
        backbone.info,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        protocol=protocol,
        setup=setup,
        trained_stage=origin.get("stage"),
    )
    start = Start(manifest, tuple(train_rows), p, setup, origin, weights_sha256(backbone.state_dict()))
    fitted = fit(start, backbone, parts.fit, parts.held, Path(folder), resume=resume)
    chosen = fitted
    if p.refit:
        again = Path(folder) / "refit"
        fitted = fit(start, backbone, train_rows, (), again, resume=resume, stop_after=chosen.epoch)
    with over_ranks():
        test = score_videos(
            fitted.backbone,
            fitted.task,
            manifest,
            test_rows,
            clip_reading(p, setup.loader),
            num_crops=p.num_crops,
            device=fitted.device,
        )
    return list(finetuned_rows(name, test, test_rows, start, parts, chosen, fitted))


# ---- what is held out


def check_finetuning(
    info: BackboneInfo,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    protocol: FinetuneProtocol,
    setup: FinetuneSetup,
    trained_stage: str | None = None,
) -> tuple[FinetuneProtocol, Parts]:
    """Find every mistake before a video is read. Returns the resolved protocol and the two parts of train.

    Raises:
        RecipeError, DataError: as ``finetune_backbone``.
    """
    resolved = resolve_finetune_protocol(protocol, info, trained_stage)
    check_rows(manifest, train_rows, test_rows)
    check_decoder((*train_rows, *test_rows), clip_reading(resolved, setup.loader), group="loader.")
    check_contents(manifest, (*train_rows, *test_rows))
    parts = hold_out(train_rows, resolved, setup.seed)
    check_amounts(parts, train_rows, resolved, setup)
    return resolved, parts


def hold_out(train_rows: Sequence[VideoRow], protocol: FinetuneProtocol, seed: int) -> Parts:
    """Hold a part of the readable training videos out: stratified by label, groups and equal contents on one side.

    Raises:
        DataError: nothing can be held out.
    """
    if protocol.holdout_fraction == 0:
        return Parts(tuple(train_rows), ())
    readable = [row for row in train_rows if row.is_readable]
    labels = np.array([row.label for row in readable], dtype=object)
    groups = np.array(units_of(readable), dtype=object)
    how = ProbeProtocol(holdout_fraction=protocol.holdout_fraction, num_holdouts=1, seed=seed)
    notes: list[str] = []
    _, held = next(holdouts(labels, groups, how, notes))
    held_rows = [readable[i] for i in held]
    kept = {row_id(row) for row in held_rows}
    fit_rows = [row for row in train_rows if row_id(row) not in kept]
    lost = sorted({row.label for row in held_rows} - {row.label for row in fit_rows if row.is_readable})
    if lost:
        notes.append(f"classes of which all training videos were held out: {', '.join(lost)}")
    return Parts(tuple(fit_rows), tuple(held_rows), tuple(notes))


def check_amounts(
    parts: Parts, train_rows: Sequence[VideoRow], protocol: FinetuneProtocol, setup: FinetuneSetup
) -> None:
    """Make sure that the videos are enough and long enough, before one is read.

    Raises:
        DataError: says what is missing and the way out.
    """
    p = protocol
    num, least = sum(row.is_readable for row in parts.fit), setup.num_processes * setup.trainer.accumulate
    if p.batch_size % least:
        raise DataError(
            f"finetune.batch_size ({p.batch_size}) must be a multiple of trainer.devices x num_nodes x accumulate, {least}. "
            f"Set finetune.batch_size={max(least, p.batch_size // least * least)}."
        )
    if p.head_norm != "none" and p.batch_size // least < 2:
        raise DataError(
            f"finetune.batch_size ({p.batch_size}) gives each forward pass one clip, and finetune.head_norm "
            f"({p.head_norm}) needs at least 2. Set finetune.batch_size={2 * least} or more."
        )
    if num < p.batch_size:
        raise DataError(
            f"finetune.batch_size ({p.batch_size}) needs as many readable training videos, and {num} are left to train on "
            f"after {len(parts.held)} are held out. Set finetune.batch_size={max(least, num // least * least)} or less."
        )
    span = clip_span(p.num_frames, p.stride_frames)
    longest = max(row.window_frames for row in train_rows if row.is_readable)
    if longest < span:
        raise DataError(
            f"finetune.num_frames ({p.num_frames}) at finetune.stride_frames ({p.stride_frames}) needs {span} frames, and the "
            f"longest training video has {longest}. Set finetune.num_frames={max(1, (longest - 1) // p.stride_frames + 1)} "
            "or less."
        )


# ---- training


def fit(
    start: Start,
    backbone: Backbone,
    fit_rows: Sequence[VideoRow],
    held_rows: Sequence[VideoRow],
    folder: Path,
    *,
    resume: bool = False,
    stop_after: float | None = None,
) -> Fitted:
    """Train a copy of the backbone on some rows and take the epoch that was best on the others; without any, the last.

    Args:
        stop_after: epochs; the learning rate still follows the plan for all of them.

    Raises:
        StopRun: the loss is not finite. KeyboardInterrupt: on Ctrl-C.
    """
    p, setup = start.protocol, start.setup
    network = copy.deepcopy(backbone)
    network.train()
    task = Classification(p, network.info, classes=start.classes, chance=most_frequent(fit_rows, 1), seed=setup.seed)
    task.setup(network)
    data = _data(start, fit_rows, task)
    steps = data.train_batches(setup.num_processes).steps_per_epoch
    module = FinetuneModule(
        network,
        task,
        seed=setup.seed,
        optim=optim_config(p),
        lr=p.learning_rate,
        steps_per_epoch=steps,
        provenance=_provenance(start, fit_rows, task),
    )
    run = RunFolder(folder)
    if global_rank() == 0:  # the others write nothing
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    chooser = None if not held_rows else ChooseEpoch(start, held_rows, steps, run.checkpoints / "best.ckpt")
    device = _train(module, data, run, setup, chooser, resume=resume, stop_after=stop_after)
    path = run.last_checkpoint if chooser is None else chooser.path
    with over_ranks():
        state, done = from_first(lambda: _weights_and_steps(path))
    module.load_state_dict(state)
    module.to(device)
    return Fitted(
        network,
        task,
        device,
        done / steps,
        chooser.best if chooser else None,
        steps,
        tuple(chooser.curve) if chooser else (),
        dict(data.unreadable.reasons),
        len(data.train_set.rows),
    )


def _weights_and_steps(path: Path) -> tuple[dict[str, Tensor], int]:
    content = load_checkpoint_dict(path)
    return content["state_dict"], content["ssvid"]["global_step"]


def _data(start: Start, fit_rows: Sequence[VideoRow], task: Classification) -> ClipDataModule:
    setup = start.setup
    return ClipDataModule(
        start.manifest,
        fit_rows,
        (),
        task,
        seed=setup.seed,
        # One clip of each video an epoch: labels belong to videos, not to stretches of them.
        data=DataConfig(root=str(start.manifest.root), segment_seconds=float("inf")),
        loader=replace(setup.loader, global_batch=start.protocol.batch_size, clips_per_video=1),
        accumulate=setup.trainer.accumulate,
        pin_memory=setup.trainer.accelerator == "gpu",
        classes={name: number for number, name in enumerate(start.classes)},
    )


def _train(
    module: FinetuneModule,
    data: ClipDataModule,
    run: RunFolder,
    setup: FinetuneSetup,
    chooser: ChooseEpoch | None,
    *,
    resume: bool,
    stop_after: float | None,
) -> torch.device:
    """Run the trainer to its end; returns the device that it ran on."""
    config = setup.trainer
    if stop_after is not None:
        config = replace(config, max_steps=round(stop_after * module.steps_per_epoch))
    if config.channels_last:
        convert_to_channels_last_3d(module.backbone)
    if config.compile:
        module.backbone.compile()
    checkpoint = run.checkpoint_to_resume(warnings.warn) if resume else None
    step = None if checkpoint is None else read_checkpoint(checkpoint).meta["global_step"]
    loggers = build_loggers(setup.logger, run.path, dict(setup.recipe), resumed_step=step)
    for logger in loggers:
        if step is not None and isinstance(logger, JsonLines):
            logger.rewind(step)
    trainer = build_trainer(
        config,
        module.optim,
        folder=run.path,
        loggers=loggers,
        chance=dict(module.task.chance()),
        global_batch=data.loader.global_batch,
        unreadable=data.unreadable,
        validates=False,
        show_progress=setup.show_progress,
        before_saving=[] if chooser is None else [chooser],
        batches_per_epoch=module.steps_per_epoch * config.accumulate,
        options=module.options,
    )
    try:
        run_trainer(trainer, module, data, checkpoint)
    except BaseException:
        close_loggers(loggers, "failed")
        raise
    close_loggers(loggers, "success")
    return trainer.strategy.root_device


class FinetuneModule(PretrainModule):
    """Training as pretraining does it, with learning rates of their own for head and stages."""

    task: Classification
    options = "finetune."

    def configure_optimizers(self) -> Any:
        p = self.task.protocol
        groups = parameter_groups(self.backbone, self.task.head, p)
        optimizer = build_optimizer(groups, p)
        schedule = build_schedule(optimizer, self.optim, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ChooseEpoch(pl.Callback):
    """Scores the held-out part of train after every N epochs and at the end, and keeps the weights that were best.

    Better is more videos right; among equals the lower loss; among these the earlier epoch. All processes score their
    share. It must run before the checkpoint of the epoch's end is written, which then holds the curve so far: a run that
    is killed while it scores scores again.

    Args:
        path: where the best weights are kept.

    Attributes:
        curve: epoch, top1, clip_top1 and loss of every scoring so far.
    """

    def __init__(self, start: Start, held_rows: Sequence[VideoRow], steps_per_epoch: int, path: Path) -> None:
        p = start.protocol
        self.manifest, self.rows, self.protocol, self.path = start.manifest, tuple(held_rows), p, path
        self.steps_per_epoch = steps_per_epoch
        self.reading = replace(clip_reading(p, start.setup.loader), num_clips=p.holdout_clips)
        self.curve: list[dict[str, float]] = []

    @property
    def best(self) -> dict[str, float]:
        """The scoring that was best."""
        return max(self.curve, key=lambda point: (point["top1"], -point["loss"], -point["epoch"]))

    def state_dict(self) -> dict[str, Any]:
        return {"curve": [dict(point) for point in self.curve]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = [dict(point) for point in state_dict["curve"]]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        epoch, left = divmod(trainer.global_step, self.steps_per_epoch)
        due = epoch > 0 and (epoch % self.protocol.every_epochs == 0 or epoch == self.protocol.epochs)
        if due and not left and self._num_scored() < epoch:
            self._score(trainer, pl_module, float(epoch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = trainer.global_step / self.steps_per_epoch
        if self._num_scored() < epoch:  # a run that was told to stop early
            self._score(trainer, pl_module, epoch)

    def _num_scored(self) -> float:
        return self.curve[-1]["epoch"] if self.curve else 0.0

    def _score(self, trainer: pl.Trainer, module: FinetuneModule, epoch: float) -> None:
        with over_ranks():
            share_buffers(module)
            scores = score_videos(
                module.backbone,
                module.task,
                self.manifest,
                self.rows,
                self.reading,
                device=module.device,
                files_checked=True,
            )
        averaging = self.protocol.averaging
        point = {
            "epoch": epoch,
            "top1": float(scores.correct(averaging).mean()),
            "clip_top1": float(scores.right_views().mean()),
            "loss": scores.loss(),
        }
        self.curve.append(point)
        module.val_metrics = {key: value for key, value in point.items() if key != "epoch"}
        for logger in trainer.loggers:
            values = {f"heldout/{key}": value for key, value in module.val_metrics.items()}
            logger.log_metrics({**values, "epoch": epoch - 1}, step=trainer.global_step - 1)
        if self.best is point:
            trainer.save_checkpoint(self.path)


def _provenance(start: Start, fit_rows: Sequence[VideoRow], task: Classification) -> Provenance:
    """Of the weights that a training makes."""
    info, setup = task.backbone_info, start.setup
    return Provenance.of_training(
        start.origin.get("start"),
        seen={row.source_id or row.content_id for row in fit_rows if row.is_readable} - {""},
        before=start.origin.get("content_ids") or (),
        backbone={"name": info.name, "options": dict(info.options)},
        stage=task.stage,
        recipe=setup.recipe,
        data={"manifest_sha256": start.manifest.sha256(), "num_videos": len(fit_rows)},
        seed=setup.seed,
        placebo=bool(start.origin.get("placebo")),
        chance=task.chance(),
        versions=versions(),
    )
