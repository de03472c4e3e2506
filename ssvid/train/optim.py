"""Optimizers and schedules. The rule for the learning rate stands here and is printed by every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssvid.bounds import check
from ssvid.train.config import OptimConfig, plan_problems


def check_optim(config: OptimConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        RecipeError: names the value, the rule and the way out.
    """
    check(config, "optim.", plan_problems(config))


def scaled_lr(config: OptimConfig, global_batch: int) -> float:
    """lr = base_lr * global_batch / 256; the global batch counts all devices and accumulated micro-batches."""
    return config.base_lr * global_batch / 256


def lr_factor(config: OptimConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Optimizer step (from 0) -> factor on the learning rate: linear warm-up, then the schedule.

    The first step of a warm-up of w steps has factor 1/w; the cosine reaches 0 after the last step of all. In a run that
    was made longer it reaches 0 after the last step of the shorter plan, and goes on where the longer one stands then.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    totals = [epochs * steps_per_epoch for epochs in (*config.extended_from, config.epochs)]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "cosine":
            total = next((total for total in totals if step < total), totals[-1])
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        if config.schedule == "step":
            return config.step_gamma ** sum(step >= epoch * steps_per_epoch for epoch in config.step_epochs)
        return 1.0

    return factor


def build_optimizer(backbone: nn.Module, task: nn.Module, config: OptimConfig, lr: float) -> Optimizer:
    """SGD, Adam or AdamW over what requires a gradient; no weight decay on biases and normalization (1-D parameters).

    What belongs to the task learns ``head_lr_factor`` times as fast, where the config has one.
    """
    factor = getattr(config, "head_lr_factor", 1.0)
    if factor == 1:
        return optimizer_of(_decayed_and_not([backbone, task], config, lr), config, lr)
    groups = [*_decayed_and_not([backbone], config, lr), *_decayed_and_not([task], config, lr * factor)]
    return optimizer_of([group for group in groups if group["params"]], config, lr)


def _decayed_and_not(modules: Sequence[nn.Module], config: OptimConfig, lr: float) -> list[dict[str, Any]]:
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay, "lr": lr},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr": lr},
    ]


def optimizer_of(groups: list[dict[str, Any]], config: OptimConfig, lr: float) -> Optimizer:
    """The optimizer over groups that may bring their own rates. Weight decay is decoupled in "adamw" alone."""
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(config.betas[0], config.betas[1]))


def build_schedule(optimizer: Optimizer, config: OptimConfig, steps_per_epoch: int) -> LambdaLR:
    """The schedule, advanced once per optimizer step."""
    return LambdaLR(optimizer, lr_factor(config, steps_per_epoch))
