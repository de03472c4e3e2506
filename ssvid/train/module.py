"""The one LightningModule that every pretext task shares. State dict prefixes: ``backbone.`` and ``task.``, no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from ssvid.backbones import Backbone
from ssvid.data.dataset import tickets_of
from ssvid.errors import SsvidError
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.train.config import OptimConfig
from ssvid.train.optim import build_optimizer, build_schedule
from ssvid.types import Stream, TaskOutput, Ticket

# The prefixes of what is measured on held-out videos and on those from elsewhere, in the order of the trainer's loaders.
VALIDATIONS = ("val", "val_ood")


class _Measures:
    """The metrics of one set of videos over one validation: means over its samples, and the task's epoch metrics."""

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device) -> None:
        self._metrics = {name: metric.to(device) for name, metric in metrics.items()}
        self._means: dict[str, MeanMetric] = {}
        self._device = device

    def add(self, output: TaskOutput, weight_B: Tensor) -> None:
        """A batch. weight_B: 1 for each sample, 0 for one that an idle rank was handed."""
        values = {"loss": output.loss.expand(len(weight_B)), **output.metrics}
        for name, per_sample in values.items():
            self._means.setdefault(name, MeanMetric().to(self._device)).update(per_sample.float(), weight_B)
        if bool((weight_B > 0).all()):
            for name, metric in self._metrics.items():
                metric.update(*output.scores[name])

    def results(self) -> dict[str, float]:
        """Name -> value over the samples of all ranks, the same on each of them."""
        return {name: float(metric.compute()) for name, metric in sorted({**self._means, **self._metrics}.items())}


class PretrainModule(pl.LightningModule):
    """Trains a backbone on a pretext task.

    Args:
        backbone, task: what is trained; the task is handed the backbone in every step.
        seed: of the recipe. optim: the recipe's group. lr: the learning rate after scaling.
        steps_per_epoch: optimizer steps, for the schedule. placebo: train on wrong answers, those of other videos.
        meta: called when a checkpoint is saved, with (epoch, global step, val_metrics, ood_metrics); plain types.

    Attributes:
        val_metrics, ood_metrics: of the latest validation, on held-out videos and on those from elsewhere.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: PretextTask,
        *,
        seed: int,
        optim: OptimConfig,
        lr: float,
        steps_per_epoch: int,
        placebo: bool = False,
        meta: Callable[[int, int, dict[str, float], dict[str, float]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.task = backbone, task
        self.seed, self.optim, self.lr = seed, optim, lr
        self.steps_per_epoch, self.placebo, self.meta = steps_per_epoch, placebo, meta
        self.val_metrics: dict[str, float] = {}
        self.ood_metrics: dict[str, float] = {}
        self.last_output: TaskOutput | None = None
        self.last_batch: dict[str, Any] | None = None
        # Held in a plain dict: as submodules they would add keys to the state dict.
        self._measures: dict[str, _Measures] = {}

    # ---- steps ------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tickets = tickets_of(batch)
        self._reseed(batch_idx)
        output = self._run(batch, tickets, placebo=self.placebo)
        self.log("train/loss", output.loss.detach(), prog_bar=False)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        for name, values in output.metrics.items():
            self.log(f"train/{name}", values.mean().detach())
        return output.loss

    def on_validation_epoch_start(self) -> None:
        self._measures = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        output = self._run(batch, tickets_of(batch), placebo=False)
        series = VALIDATIONS[dataloader_idx]
        if series not in self._measures:
            self._measures[series] = _Measures(self.task.epoch_metrics(), self.device)
        self._measures[series].add(output, batch["weight"])

    def on_validation_epoch_end(self) -> None:
        found = {series: self._measures[series].results() for series in VALIDATIONS if series in self._measures}
        self._measures = {}
        if self.trainer.sanity_checking:
            return
        self.val_metrics, self.ood_metrics = (found.get(series, {}) for series in VALIDATIONS)
        for series, results in found.items():
            for name, value in results.items():
                # Already reduced over ranks by torchmetrics: the same number everywhere.
                self.log(f"{series}/{name}", value, rank_zero_only=False, sync_dist=False)

    def _run(self, batch: dict[str, Any], tickets: list[Ticket], *, placebo: bool) -> TaskOutput:
        draws = BatchRandom.of(self.seed, tickets)
        with torch.no_grad():
            batch = self.task.augment(batch, draws)
            if placebo:
                # Not the shared draws: micro-batches would all get the same ones.
                batch = self.task.placebo(batch, draws.samples[0])
        output: TaskOutput = self.task(batch, self.backbone)
        self.last_batch, self.last_output = batch, output
        return output

    def _reseed(self, batch_idx: int) -> None:
        """Dropout and the like draw the same numbers after a restart: torch is seeded by step, micro-batch and rank."""
        words = [self.seed, int(Stream.TRAIN), self.global_step, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    # ---- Lightning's hooks ------------------------------------------------------------------------------------

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.task.after_step(self.backbone, self.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.optim, self.lr)
        schedule = build_schedule(optimizer, self.optim, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.meta is not None:
            metrics = dict(self.val_metrics), dict(self.ood_metrics)
            checkpoint["ssvid"] = self.meta(self.current_epoch, self.global_step, *metrics)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        meta = checkpoint.get("ssvid", {})
        self.val_metrics = dict(meta.get("pretext_metrics", {}))
        self.ood_metrics = dict(meta.get("out_of_domain_metrics", {}))


class StopRun(SsvidError):
    """A run that must end: a loss that is not a number, too many unreadable videos."""
