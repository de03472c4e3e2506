"""Builds Lightning's trainer from a recipe: devices, precision, callbacks. What ``auto`` means is decided here."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from ssvid import stopping
from ssvid.backbones import convert_to_channels_last_3d
from ssvid.data.feed.module import ClipDataModule
from ssvid.errors import SsvidError
from ssvid.ranks import global_rank
from ssvid.train.callbacks import CountUnreadable, Pictures, SaveLast, TellSkipped
from ssvid.train.checkpoint_io import AgreeingDDP, AtomicCheckpointIO
from ssvid.train.config import TrainerConfig
from ssvid.train.module import PretrainModule, StopRun, shared
from ssvid.train.progress import ShowProgress

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


def build_trainer(
    config: TrainerConfig,
    module: PretrainModule,
    data: ClipDataModule,
    *,
    folder: Path,
    loggers: list[Logger],
    show_progress: bool = True,
    more_callbacks: Sequence[pl.Callback] = (),
    before_saving: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Lightning's trainer for a resolved config (``resolve_trainer``), and the module made ready for it.

    Global settings of torch are made here.

    before_saving: callbacks whose work on an epoch's last batch must be in the checkpoint that is written then.
    """
    if config.channels_last:
        convert_to_channels_last_3d(module.backbone)
    if config.compile:
        module.backbone.compile()
    _calm_lightning()
    if config.threads:
        torch.set_num_threads(config.threads)
    callbacks: list[pl.Callback] = [
        CountUnreadable(data.unreadable),
        TellSkipped(show_progress),
        *before_saving,
        SaveLast(folder / "checkpoints" / "last.ckpt", config.save_every_steps),
    ]
    if config.pictures:
        callbacks.append(Pictures(folder / "pictures"))
    if show_progress:
        callbacks.append(ShowProgress(dict(module.task.chance()), data.loader.global_batch, config.log_every_steps))
    callbacks += more_callbacks
    world = int(config.devices) * config.num_nodes
    batches_per_epoch = module.steps_per_epoch * config.accumulate
    strategy: Any = AgreeingDDP(find_unused_parameters=False) if world > 1 else "auto"
    trainer = pl.Trainer(
        accelerator=config.accelerator,
        devices=int(config.devices),
        num_nodes=config.num_nodes,
        strategy=strategy,
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        max_epochs=module.optim.epochs,
        max_steps=config.max_steps,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=module.optim.grad_clip_norm or None,
        log_every_n_steps=max(1, min(config.log_every_steps, batches_per_epoch)),
        check_val_every_n_epoch=config.val_every_epochs,
        limit_val_batches=None if data.val_set is not None else 0,
        num_sanity_val_steps=0,
        deterministic=config.deterministic,
        benchmark=not config.deterministic,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(module.options)],
        default_root_dir=str(folder),
    )
    trainer._signal_connector = _NoSignals()  # type: ignore[assignment]
    return trainer


class _NoSignals:
    """In place of Lightning's handlers, which broadcast over ranks from within a signal, and save where nobody reads."""

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        """``ssvid.stopping`` heeds them."""

    def teardown(self) -> None:
        """Nothing was registered."""


def fit(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, checkpoint: Path | None) -> None:
    """``trainer.fit``, from a checkpoint where one is given.

    Of what all processes of a run raise together the first one tells; the others end in silence, with SystemExit(0).

    Raises:
        Stopped: SIGTERM or SIGUSR1 asked for an end.
        KeyboardInterrupt: on Ctrl-C. Lightning makes SystemExit of it, and has the process ignore the next one.
        StopRun: another process of the run has ended.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        with stopping.heeding_signals():
            _fit(trainer, module, data, checkpoint)
    except SystemExit as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    except SsvidError as error:
        if error.is_shared and global_rank() > 0:
            raise SystemExit(0) from error
        raise


def _fit(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, checkpoint: Path | None
) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except stopping.StopNow as error:
        raise _stopped(trainer) from error
    except RuntimeError as error:
        if trainer.world_size == 1 or not _is_of_peers(error):
            raise
        if stopping.requested():
            raise _stopped(trainer) from error
        raise StopRun(
            "another process of this run has ended, and this one cannot go on alone. What was wrong is told by the other one; "
            "the last checkpoint is kept."
        ) from error


def _is_of_peers(error: RuntimeError) -> bool:
    """Whether an exchange between processes failed. gloo has no exception of its own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _stopped(trainer: pl.Trainer) -> SsvidError:
    saver = next(callback for callback in trainer.callbacks if isinstance(callback, SaveLast))  # type: ignore[attr-defined]
    saved = f"step {saver.saved_at} is saved" if saver.saved_at else "no step was saved yet"
    lost = "" if saver.saved_at == trainer.global_step else f" (of {trainer.global_step} done)"
    return shared(stopping.Stopped(f"stopped by {stopping.requested()}; {saved}{lost}."))


def _calm_lightning() -> None:
    """Lightning's notes on devices and workers say what our own header says already."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*GPU available but not used.*",
        ".*in eval mode.*",
        ".*smaller than the logging interval.*",
        r".*isinstance\(treespec, LeafSpec\).*",
        ".*sync_dist=True.*",  # the metrics of an epoch are reduced before they are logged
        ".*nn.functional.all_gather is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=text)
