"""What happens around the steps: progress, checkpoints, pictures, the count of unreadable videos, the stop on NaN."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


class ShowProgress(pl.Callback):
    """A bar on a terminal, one line every N steps in a log: loss, metrics beside chance, clips/s, waiting, time left.

    Waiting is the share of wall time between the end of one step and the arrival of the next batch.
    """

    def __init__(self, chance: Mapping[str, float], global_batch: int, every_steps: int = 10) -> None:
        self.chance, self.global_batch, self.every_steps = dict(chance), global_batch, max(1, every_steps)
        self._bar: Progress | None = None
        self._started = self._ended = 0.0
        self._waited = self._worked = 0.0
        self._steps = 0

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._ended = time.perf_counter()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            total = trainer.estimated_stepping_batches
            self._task = self._bar.add_task("training", total=total, completed=trainer.global_step, text="")
            self._bar.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._started = time.perf_counter()
        self._waited += self._started - self._ended

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._ended = time.perf_counter()
        self._worked += self._ended - self._started
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._steps += 1
        if self._steps >= self.every_steps or trainer.global_step == 1:
            self._show(trainer, pl_module)

    def _show(self, trainer: pl.Trainer, module: Any) -> None:
        total = self._waited + self._worked
        perf = {
            "perf/clips_per_s": self._steps * self.global_batch / max(total, 1e-9),
            "perf/data_wait_frac": self._waited / max(total, 1e-9),
        }
        self._waited = self._worked = 0.0
        self._steps = 0
        for logger in trainer.loggers:
            logger.log_metrics({**perf, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        self._print(trainer, perf)

    @rank_zero_only
    def _print(self, trainer: pl.Trainer, perf: Mapping[str, float]) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        text = self._text(values, perf)
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, text=text)
            return
        total = int(trainer.estimated_stepping_batches)
        left = (total - trainer.global_step) * self.global_batch / max(perf["perf/clips_per_s"], 1e-9)
        step = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} step {trainer.global_step}/{total}"
        print(f"{step}  {text}  {_minutes(left)} left", file=sys.stderr, flush=True)

    def _text(self, values: Mapping[str, float], perf: Mapping[str, float]) -> str:
        parts = [f"loss {values['train/loss']:.4f}"] if "train/loss" in values else []
        for name, chance in self.chance.items():
            for stage in ("train", *VALIDATIONS):
                if f"{stage}/{name}" in values:
                    parts.append(f"{stage} {name} {values[f'{stage}/{name}']:.3f} (chance {chance:.2f})")
        parts.append(f"{perf['perf/clips_per_s']:.0f} clips/s  waiting for data {perf['perf/data_wait_frac']:.0%}")
        return "  ".join(parts)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._ended = time.perf_counter()  # validation is neither work nor waiting

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._close(trainer)

    @rank_zero_only
    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close(trainer)

    def _close(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)
            self._bar.stop()
            self._bar = None


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
