"""How far a run has come: a bar on a terminal, lines in a log, and a line of metrics after each epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from ssvid.data.feed.module import ClipDataModule
from ssvid.train.module import VALIDATIONS
from ssvid.train.waiting import TOO_LONG_SECONDS, TOO_MUCH, look_at, waiting_text

NARROW_COLUMNS = 72  # below, the bar gives its place to the numbers


class ShowProgress(pl.Callback):
    """Steps done and left, loss, clips/s, waiting, time left; the metrics, which are long, in a line per epoch.

    Waiting is the share of wall time between the end of one step and the arrival of the next batch.
    """

    def __init__(
        self,
        chance: Mapping[str, float],
        global_batch: int,
        every_steps: int = 10,
        console: Console | None = None,
    ) -> None:
        self.chance, self.global_batch, self.every_steps = dict(chance), global_batch, max(1, every_steps)
        self._console = console
        self._bar: Progress | None = None
        self._started = self._ended = 0.0
        self._waited = self._worked = 0.0
        self._steps = 0
        self._has_validated = False
        self._all_waited = self._all_worked = 0.0  # from the second step on: the first waits for the readers to start
        self._has_explained = False

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._ended = time.perf_counter()
        console = self._console or Console(stderr=True)
        if console.is_terminal:
            self._bar = progress_bar(console)
            total, done = trainer.estimated_stepping_batches, trainer.global_step
            self._task = self._bar.add_task("training", total=total, completed=done, loss="", speed="", waiting="")
            self._bar.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._started = time.perf_counter()
        self._waited += self._started - self._ended
        self._all_waited += (self._started - self._ended) if self._all_worked else 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._ended = time.perf_counter()
        self._worked += self._ended - self._started
        self._all_worked += self._ended - self._started
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
        if trainer.global_step > 1:
            self._explain(trainer)

    @rank_zero_only
    def _explain(self, trainer: pl.Trainer) -> None:
        """Say once why the run waits for data, where that is most of its time."""
        share = self._all_waited / max(self._all_waited + self._all_worked, 1e-9)
        data = getattr(trainer, "datamodule", None)
        is_much = share > TOO_MUCH and self._all_waited > TOO_LONG_SECONDS
        if is_much and not self._has_explained and isinstance(data, ClipDataModule):
            self._has_explained = True
            self._say(waiting_text(share, look_at(data.train_set), data.loader, devices=trainer.num_devices))

    @rank_zero_only
    def _print(self, trainer: pl.Trainer, perf: Mapping[str, float]) -> None:
        values = trainer.callback_metrics
        loss = f"loss {float(values['train/loss']):.4f}" if "train/loss" in values else ""
        speed, waited = perf["perf/clips_per_s"], f"{perf['perf/data_wait_frac']:.0%}"
        if self._bar is not None:
            words: dict[str, Any] = {"loss": loss, "speed": f"{speed:.0f} clips/s", "waiting": f"waiting {waited}"}
            self._bar.update(self._task, completed=trainer.global_step, **words)
            return
        total = int(trainer.estimated_stepping_batches)
        left = (total - trainer.global_step) * self.global_batch / max(speed, 1e-9)
        step = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} step {trainer.global_step}/{total}"
        parts = [step, loss, f"{speed:.0f} clips/s", f"waiting for data {waited}", f"{_minutes(left)} left"]
        self._say("  ".join(part for part in parts if part))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._ended = time.perf_counter()  # validation is neither work nor waiting
        self._has_validated = not trainer.sanity_checking

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        stages = ("train", *VALIDATIONS) if self._has_validated else ("train",)
        self._has_validated = False
        told = metrics_text(values, self.chance, stages)
        if told:
            self._say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {told}")

    def _say(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._explain(trainer)
        self._close(trainer)

    @rank_zero_only
    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close(trainer)

    def _close(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)
            self._bar.stop()
            self._bar = None


def progress_bar(console: Console) -> Progress:
    """A bar of one line: its numbers are never cut, the bar itself takes what they leave."""
    numbers: list[ProgressColumn] = [
        MofNCompleteColumn(table_column=_whole()),
        *(TextColumn(f"{{task.fields[{name}]}}", table_column=_whole()) for name in ("loss", "speed", "waiting")),
        TimeRemainingColumn(table_column=_whole()),
    ]
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    return Progress(*([bar] if console.width >= NARROW_COLUMNS else []), *numbers, console=console, expand=True)


def _whole() -> Column:
    return Column(no_wrap=True)


def metrics_text(values: Mapping[str, float], chance: Mapping[str, float], stages: tuple[str, ...]) -> str:
    """``accuracy train 0.562 val 0.643 (chance 0.50)``, for each metric with a chance level."""
    parts = []
    for name, level in chance.items():
        found = [f"{stage} {values[f'{stage}/{name}']:.3f}" for stage in stages if f"{stage}/{name}" in values]
        parts += [f"{name} {' '.join(found)} (chance {level:.2f})"] * bool(found)
    return "  ".join(parts)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
