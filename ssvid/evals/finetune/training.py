"""Fine-tuning: a network learns labels, its best epoch is chosen on held-out train, the test split is looked at once.

The trainer, the loaders, the tickets and the checkpoints are those of pretraining, so that a run resumes bit for bit. With
``frozen`` the same is a probe with augmentation: linear, attentive, or over the vectors of frames.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from ssvid.backbones import Backbone
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading, resolve_finetune_protocol
from ssvid.classifiers.scoring import score_videos
from ssvid.data.config import DataConfig
from ssvid.data.contents import units_of
from ssvid.data.feed.module import ClipDataModule, Videos
from ssvid.data.manifest import VideoRow, row_id
from ssvid.errors import DataError
from ssvid.evals.contract import (
    Evaluation,
    LabeledData,
    Number,
    Seen,
    Subject,
    Tools,
    guess_chance,
    register_evaluation,
)
from ssvid.evals.finetune.rates import parameter_groups
from ssvid.evals.finetune.rows import finetuned_numbers
from ssvid.evals.finetune.scores import SCORES, write_scores
from ssvid.evals.finetune.state import Fitted, Parts, Start
from ssvid.evals.hand_made import HandMade, svm_number
from ssvid.evals.holdouts import holdouts
from ssvid.evals.measuring import see
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol
from ssvid.features.reading import check_contents, check_decoder
from ssvid.machine import versions
from ssvid.ranks import from_first, global_rank, over_ranks, share_buffers
from ssvid.results.rows import ResultRow
from ssvid.train.loggers import build_loggers, ending, rewind
from ssvid.train.module import PretrainModule
from ssvid.train.optim import optimizer_of
from ssvid.train.run_folder import RunFolder
from ssvid.train.trainer import build_trainer
from ssvid.train.trainer import fit as run_trainer
from ssvid.video.sampling import clip_span
from ssvid.weights.checkpoints import load_checkpoint_dict, read_checkpoint
from ssvid.weights.provenance import Provenance


@register_evaluation("finetune")
class Finetune(Evaluation):
    """A copy of a network learns the labels: top-1 of videos and of clips, top-5 above 5 classes; of vectors made by hand a linear SVM.

    Unreadable training videos are left out or replaced in training, and listed; unreadable test videos count as wrong and
    are listed. Under several processes every test video is scored by one of them. Checkpoints and logs lie in ``tools.folder``.
    """

    Config = FinetuneProtocol
    needs = "training"
    verb = "finetune"
    settings_name = "finetune_protocol"

    def prepare(
        self, features: FeatureProtocol, config: FinetuneProtocol, network: Backbone, tools: Tools
    ) -> tuple[FeatureProtocol, FinetuneProtocol]:
        stage = getattr(network, "provenance", {}).get("stage")
        resolved = resolve_finetune_protocol(config, network.info, stage, per_frame=network.per_frame)
        return clip_reading(resolved, tools.loader), resolved

    def check_data(self, network: Backbone, data: LabeledData, config: FinetuneProtocol, tools: Tools) -> None:
        rows = (*data.train, *data.test)
        check_decoder(rows, clip_reading(config, tools.loader), group="loader.")
        check_contents(data.manifest, rows)
        check_amounts(hold_out(data.train, config, tools.seed), data.train, config, tools)

    def has_two_random_forms(self, config: FinetuneProtocol) -> bool:
        return config.frozen  # a backbone that is trained makes its own batch statistics

    def score(
        self, subject: Subject, seen: Seen, data: LabeledData, config: FinetuneProtocol, tools: Tools
    ) -> Iterator[Number]:
        if isinstance(subject.network, HandMade):
            with over_ranks():
                seen = see([subject], data, tools)[subject.name]
            number = svm_number(f"{config.metric}_top1", subject.network, seen, ProbeProtocol(seed=tools.seed))
            yield number._replace(seen=(seen.train, seen.test), notes=seen.notes, more={**seen.more, **number.more})
            return
        yield from finetuned(Start(subject, data, replace(config, frames=subject.protocol.frames), tools))

    def heldout(self, rows: Sequence[ResultRow], *rest: Any) -> float:
        return rows[0].context["head"]["heldout_top1"] or 0.0


def finetuned(start: Start) -> Iterator[Number]:
    """Train a copy of a network, and score it on test.

    Raises:
        StopRun: the loss is not finite.
    """
    p, data, tools = start.protocol, start.data, start.tools
    parts = hold_out(data.train, p, tools.seed)
    chosen = fitted = fit(start, parts.fit, parts.held, tools.folder)
    if p.refit:
        fitted = fit(start, data.train, (), tools.folder / "refit", stop_after=chosen.epoch)
    with over_ranks():
        test = score_videos(
            fitted.backbone,
            fitted.task,
            data.manifest,
            data.test,
            clip_reading(p, tools.loader),
            num_crops=p.num_crops,
        )
    if global_rank() == 0:
        write_scores(tools.folder / SCORES, test)
    yield from finetuned_numbers(test, start, parts, chosen, fitted)


# ---- what is held out


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


def check_amounts(parts: Parts, train_rows: Sequence[VideoRow], protocol: FinetuneProtocol, tools: Tools) -> None:
    """Make sure that the videos are enough and long enough, before one is read.

    Raises:
        DataError: says what is missing and the way out.
    """
    p = protocol
    num, least = sum(row.is_readable for row in parts.fit), tools.num_processes * tools.trainer.accumulate
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
    fit_rows: Sequence[VideoRow],
    held_rows: Sequence[VideoRow],
    folder: Path,
    *,
    stop_after: float | None = None,
) -> Fitted:
    """Train a copy of the network on some rows and take the epoch that was best on the others; without any, the last.

    Args:
        stop_after: epochs; the learning rate still follows the plan for all of them.

    Raises:
        StopRun: the loss is not finite. KeyboardInterrupt: on Ctrl-C.
    """
    p, tools = start.protocol, start.tools
    network = copy.deepcopy(start.subject.network)
    network.train()
    task = Classification(
        p, network.info, classes=start.classes, chance=guess_chance([row.label for row in fit_rows]), seed=tools.seed
    )
    task.setup(network)
    data = _data(start, fit_rows, task)
    steps = data.train_batches(tools.num_processes).steps_per_epoch
    module = FinetuneModule(
        network,
        task,
        seed=tools.seed,
        optim=p.optim,
        lr=p.learning_rate,
        steps_per_epoch=steps,
        provenance=_provenance(start, fit_rows, task),
    )
    run = RunFolder(folder)
    if global_rank() == 0:  # the others write nothing
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    chooser = None if not held_rows else ChooseEpoch(start, held_rows, steps, run.checkpoints / "best.ckpt")
    device = _train(module, data, run, tools, chooser, stop_after)
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
    tools, manifest = start.tools, start.data.manifest
    return ClipDataModule(
        Videos(manifest, fit_rows, classes={name: number for number, name in enumerate(start.classes)}),
        task,
        seed=tools.seed,
        # One clip of each video an epoch: labels belong to videos, not to stretches of them.
        data=DataConfig(root=str(manifest.root), segment_seconds=float("inf")),
        loader=replace(tools.loader, global_batch=start.protocol.batch_size, clips_per_video=1),
        accumulate=tools.trainer.accumulate,
        pin_memory=tools.trainer.accelerator == "gpu",
    )


def _train(
    module: FinetuneModule,
    data: ClipDataModule,
    run: RunFolder,
    tools: Tools,
    chooser: ChooseEpoch | None,
    stop_after: float | None,
) -> torch.device:
    """Run the trainer to its end; returns the device that it ran on."""
    config = tools.trainer
    if stop_after is not None:
        config = replace(config, max_steps=round(stop_after * module.steps_per_epoch))
    checkpoint = run.checkpoint_to_resume(warnings.warn) if tools.resume else None
    step = None if checkpoint is None else read_checkpoint(checkpoint).meta["global_step"]
    loggers = build_loggers(tools.logger, run.path, dict(tools.recipe), resumed_step=step)
    if step is not None:
        rewind(loggers, step)
    trainer = build_trainer(
        config,
        module,
        data,
        folder=run.path,
        loggers=loggers,
        show_progress=tools.show_progress,
        before_saving=[] if chooser is None else [chooser],
    )
    with ending(loggers):
        run_trainer(trainer, module, data, checkpoint)
    return trainer.strategy.root_device


class FinetuneModule(PretrainModule):
    """Training as pretraining does it, with learning rates of their own for head and stages."""

    task: Classification

    def new_optimizer(self) -> Optimizer:
        return optimizer_of(parameter_groups(self.backbone, self.task.head, self.task.protocol), self.optim, self.lr)


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
        self.manifest, self.rows, self.protocol, self.path = start.data.manifest, tuple(held_rows), p, path
        self.steps_per_epoch = steps_per_epoch
        self.reading = replace(clip_reading(p, start.tools.loader), num_clips=p.holdout_clips)
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
        due = epoch > 0 and (epoch % self.protocol.every_epochs == 0 or epoch == self.protocol.optim.epochs)
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
    origin, tools, manifest = start.subject.origin, start.tools, start.data.manifest
    info = task.backbone_info
    return Provenance.of_training(
        origin.get("start"),
        seen={row.source_id or row.content_id for row in fit_rows if row.is_readable} - {""},
        before=origin.get("content_ids") or (),
        backbone={"name": info.name, "options": dict(info.options)},
        stage=task.stage,
        recipe=tools.recipe,
        data={"manifest_sha256": manifest.sha256(), "num_videos": len(fit_rows)},
        seed=tools.seed,
        placebo=bool(origin.get("placebo")),
        chance=task.chance(),
        versions=versions(),
    )
