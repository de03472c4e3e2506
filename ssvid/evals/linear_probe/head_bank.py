"""Many linear heads on the same features, trained side by side by minibatch SGD: one matrix product serves them all.

CoCLR tries learning rates and weight decays by hand, DINOv2 (arXiv 2304.07193, appendix B.3) trains a grid of heads on
one pass of the backbone. Here the features are kept, and a step of H heads costs one product of (batch, width) with
(width, H * classes).

Differs: weights start at zero, where both draw them (normal, 0.01): the problem is convex, and a head then does not
depend on which others are trained beside it. The bias is not decayed, so that a head trained to the end is the one of
``ssvid.evals.linear_probe.logistic`` for the same penalty. The features left over by the last full batch are spread over all
batches: a batch of a few would move the weights as much as one of a thousand. The batch norm of CoCLR's head has no
scale and shift of its own: the linear layer behind it has both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.evals.linear_probe.logistic import LogisticFit

# As torch.nn.BatchNorm1d has them.
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.1


class HeadSetting(NamedTuple):
    """What one head of a bank is trained with. weight_decay: the weight of |W|^2 / 2 beside the mean cross-entropy."""

    learning_rate: float
    weight_decay: float


class Schedule(NamedTuple):
    """What all heads of a bank share. shape: "cosine" (to 0) or "step" (x 0.1 at 60 %, x 0.01 at 80 % of the epochs)."""

    epochs: int = 100
    batch_size: int = 1024
    momentum: float = 0.9
    shape: str = "cosine"


def fit_bank(
    x_ND: np.ndarray,
    codes_N: np.ndarray,
    num_classes: int,
    settings: Sequence[HeadSetting],
    schedule: Schedule,
    *,
    seed: int,
    batch_norm: bool = False,
    device: str | torch.device = "cpu",
) -> list[LogisticFit]:
    """One linear head per setting, each as if it were trained alone; all see the same batches in the same order.

    Args:
        x_ND: float32, already normalized. codes_N: class of each row, int in [0, num_classes).
        batch_norm: normalize each batch to mean 0 and deviation 1 by column before the heads (not learned). What is
            returned holds the running statistics in its weights, so that it takes ``x_ND`` as it is.
    """
    bank = _Bank(x_ND.shape[1], num_classes, settings, torch.device(device))
    x, codes = torch.from_numpy(np.ascontiguousarray(x_ND, dtype=np.float32)), torch.from_numpy(codes_N)
    running = _RunningStatistics(x_ND.shape[1], bank.device) if batch_norm else None
    steps = schedule.epochs * num_batches(len(x), schedule.batch_size)
    for step, rows in enumerate(_batches(len(x), schedule, seed)):
        batch_BD = x[rows].to(bank.device)
        if running is not None:
            batch_BD = running.normalize(batch_BD)
        bank.step(batch_BD, codes[rows].to(bank.device), rate(step / steps, schedule.shape), schedule.momentum)
    return bank.fits(steps, running)


def num_batches(num_rows: int, batch_size: int) -> int:
    """Batches of an epoch: as many as can be full; what is left over is spread over them."""
    return max(1, num_rows // batch_size)


def rate(progress: float, shape: str) -> float:
    """Share of the learning rate at this share of the training, [0, 1)."""
    if shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 if progress < 0.6 else 0.1 if progress < 0.8 else 0.01


def _batches(num_rows: int, schedule: Schedule, seed: int) -> Iterator[Tensor]:
    """Rows of every batch: each epoch has an order of its own and holds each row once."""
    for epoch in range(schedule.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(num_rows)
        yield from (
            torch.from_numpy(rows) for rows in np.array_split(order, num_batches(num_rows, schedule.batch_size))
        )


class _Bank:
    """Weights of H heads side by side, (D, H * K), their momentum, and a step of SGD for all of them."""

    def __init__(self, width: int, num_classes: int, settings: Sequence[HeadSetting], device: torch.device) -> None:
        self.device, self.num_heads, self.num_classes = device, len(settings), num_classes
        columns = self.num_heads * num_classes
        self.weights, self.velocity = (torch.zeros(width, columns, device=device) for _ in range(2))
        self.bias, self.bias_velocity = (torch.zeros(columns, device=device) for _ in range(2))
        rates, decays = torch.tensor(settings, dtype=torch.float32, device=device).T
        self.rates, self.decays = (v.repeat_interleave(num_classes) for v in (rates, decays))

    def step(self, x_BD: Tensor, codes_B: Tensor, share: float, momentum: float) -> None:
        """velocity = momentum * velocity + gradient; weights -= rate * velocity, as torch.optim.SGD."""
        logits = torch.addmm(self.bias, x_BD, self.weights).view(len(x_BD), self.num_heads, self.num_classes)
        residual = torch.softmax(logits, dim=2)
        residual[torch.arange(len(x_BD), device=self.device), :, codes_B] -= 1.0
        residual = residual.view(len(x_BD), -1)
        self.velocity.addmm_(x_BD.T, residual, beta=momentum, alpha=1 / len(x_BD))
        self.velocity.addcmul_(self.weights, self.decays)
        self.bias_velocity.mul_(momentum).add_(residual.mean(dim=0))
        self.weights.addcmul_(self.velocity, self.rates, value=-share)
        self.bias.addcmul_(self.bias_velocity, self.rates, value=-share)

    def fits(self, steps: int, running: _RunningStatistics | None) -> list[LogisticFit]:
        """Each head by itself, float64, with the batch norm folded in."""
        weights_HKD = self.weights.double().view(-1, self.num_heads, self.num_classes).permute(1, 2, 0).cpu().numpy()
        bias_HK = self.bias.double().view(self.num_heads, self.num_classes).cpu().numpy()
        if running is not None:
            scale_D, shift_D = running.scale_and_shift()
            bias_HK = bias_HK + weights_HKD @ shift_D
            weights_HKD = weights_HKD * scale_D
        return [
            LogisticFit(np.ascontiguousarray(w), b, steps, "" if np.isfinite(w).all() else f"diverged in {steps} steps")
            for w, b in zip(weights_HKD, bias_HK, strict=True)
        ]


class _RunningStatistics:
    """Batch norm without scale and shift: batches by their own statistics, later features by the running ones."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.mean, self.variance = torch.zeros(width, device=device), torch.ones(width, device=device)

    def normalize(self, x_BD: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x_BD, dim=0, correction=0)
        self.mean.lerp_(mean, _BATCH_NORM_MOMENTUM)
        self.variance.lerp_(variance * len(x_BD) / max(len(x_BD) - 1, 1), _BATCH_NORM_MOMENTUM)
        return (x_BD - mean) * (variance + _BATCH_NORM_EPSILON).rsqrt()

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """x * scale + shift is the normalized x."""
        scale = (self.variance.double() + _BATCH_NORM_EPSILON).rsqrt()
        return scale.cpu().numpy(), (-self.mean.double() * scale).cpu().numpy()
