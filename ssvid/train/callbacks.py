"""What happens around the steps: checkpoints, pictures, the counts of what was left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from ssvid import stopping
from ssvid.data.feed.module import UnreadableReport
from ssvid.files import write_picture
from ssvid.train.loggers import log_picture
from ssvid.train.module import VALIDATIONS


class SaveLast(pl.Callback):
    """Writes ``last.ckpt`` after the last step of each epoch, every ``every_steps`` steps, when asked to stop, and at the end.

    Always between two optimizer steps: only there is a resumed run bit-identical.
    """

    def __init__(self, path: Path, every_steps: int = 0) -> None:
        self.path, self.every_steps = path, every_steps
        self.saved_at = -1
        self._ends_epoch = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.saved_at = trainer.global_step  # what a resumed run has read is there
        stopping.allow_leaving(trainer.world_size == 1)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        stopping.allow_leaving(False)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches and batch_idx + 1 != trainer.num_training_batches:
            return
        # A process alone need not wait until the next step for what all agree on.
        asked = pl_module.asked_to_stop or (trainer.world_size == 1 and bool(stopping.requested()))
        every = self.every_steps and trainer.global_step % self.every_steps == 0
        self._ends_epoch = batch_idx + 1 == trainer.num_training_batches
        if asked or every or self._ends_epoch or trainer.global_step == trainer.max_steps:
            self._save(trainer)
        if asked:
            stopping.set_saved()
        stopping.allow_leaving(trainer.world_size == 1)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self.saved_at:
            trainer.save_checkpoint(self.path)
            self.saved_at = trainer.global_step

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """A wait for data was left. In mid-step, or with other processes at work, nothing can be saved any more."""
        if isinstance(exception, stopping.StopNow) and stopping.may_leave():
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Once more, now with the metrics of the last validation. In mid-epoch, where max_steps ends a run, the trainer counts
        # the epoch as done by now: a run that goes on from there would miss the rest of it.
        if self._ends_epoch:
            trainer.save_checkpoint(self.path)


class CountUnreadable(pl.Callback):
    """Adds up what the batches report; stops the run where the limit is passed."""

    def __init__(self, report: UnreadableReport) -> None:
        self.report = report

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch["unreadable"]:
            self.report.add(batch["unreadable"])

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.report.held_out.update(dict(batch["unreadable"]))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Each rank reads videos of its own: what one could not read, all report."""
        parts: list[UnreadableReport] = [self.report] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(parts, self.report)
        for part in parts:
            self.report.reasons.update(part.reasons)
            self.report.held_out.update(part.held_out)
        self.report.num_replaced = sum(part.num_replaced for part in parts)


class TellSkipped(pl.Callback):
    """Tells of steps that were left out because their loss or gradient was not finite (``module.skipped``)."""

    def __init__(self, shows: bool) -> None:
        self.shows = shows
        self._told = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._told = pl_module.skipped.total

    @rank_zero_only
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        total = pl_module.skipped.total
        if total == self._told:
            return
        self._told, step = total, trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics({"skipped_steps": float(total), "epoch": trainer.current_epoch}, step=step - 1)
        if self.shows:
            print(f"step {step} was left out: its loss or gradient is not finite ({total} so far)", file=sys.stderr)


class Pictures(pl.Callback):
    """Draws what the task saw in the first batch of each validation (or of training, where there is none)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            series = VALIDATIONS[dataloader_idx]
            self._draw(trainer, pl_module, f"{series}_epoch{trainer.current_epoch:04d}", series)

    @rank_zero_only
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.current_epoch == 0:
            self._draw(trainer, pl_module, "train_first_batch", "train_first_batch")

    def _draw(self, trainer: pl.Trainer, module: Any, name: str, series: str) -> None:
        if module.last_output is None:  # none of its videos could be read
            return
        for key, picture_HWC in module.task.visualize(module.last_batch, module.last_output).items():
            write_picture(self.folder / f"{name}_{key}.png", picture_HWC)
            log_picture(trainer.loggers, f"{series}_{key}", picture_HWC, max(0, trainer.global_step - 1))
