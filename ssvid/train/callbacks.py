"""What happens around the steps: checkpoints, pictures, the count of unreadable videos, the stop on NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only

from ssvid.data.module import UnreadableReport
from ssvid.train.loggers import log_picture
from ssvid.train.module import VALIDATIONS, StopRun


class SaveLast(pl.Callback):
    """Writes ``last.ckpt`` after the last step of each epoch, every ``every_steps`` steps, and at the end.

    Always right after an optimizer step: only there is a resumed run bit-identical.
    """

    def __init__(self, path: Path, every_steps: int = 0) -> None:
        self.path, self.every_steps = path, every_steps
        self._saved_at = -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = batch_idx + 1 == trainer.num_training_batches or (self.every_steps and step % self.every_steps == 0)
        if stepped and due and step != self._saved_at:
            self._saved_at = step
            trainer.save_checkpoint(self.path)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Once more, now with the metrics of the last validation.
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


class StopOnNaN(pl.Callback):
    """Ends the run when the loss is not a number, before the weights are saved again."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None and not bool(torch.isfinite(loss)):
            raise StopRun(
                f"the loss ({float(loss)}) is not finite at step {trainer.global_step}. The last checkpoint is kept. "
                "Lower optim.base_lr, set optim.grad_clip_norm=1, or trainer.precision=32."
            )


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
            save_picture(self.folder / f"{name}_{key}.png", picture_HWC)
            log_picture(trainer.loggers, f"{series}_{key}", picture_HWC, max(0, trainer.global_step - 1))


def save_picture(path: Path, picture_HWC: np.ndarray) -> None:
    """Write a uint8 HWC picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_HWC).save(path)
