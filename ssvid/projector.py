"""From features to embeddings: the small network whose output a loss on embeddings sees, and which is thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssvid.ranks import mean_of_all, num_training

BATCH, LAYER = NORMS = ("batch", "layer")


class BatchNormOfAll(nn.BatchNorm1d):
    """Batch normalization whose statistics are of the rows of all processes that train together, as many on each.

    Alone it is ``nn.BatchNorm1d``, keys included. torch's own ``SyncBatchNorm`` does the same on GPUs alone.
    """

    def forward(self, x_NC: Tensor) -> Tensor:
        """Normalize: in training by mean and variance over all rows, else by the running ones."""
        if not self.training or num_training() == 1:
            return super().forward(x_NC)
        with torch.autocast(x_NC.device.type, enabled=False):
            wide_NC = x_NC.float()
            mean_C = mean_of_all(wide_NC.mean(dim=0))
            variance_C = mean_of_all((wide_NC - mean_C).square().mean(dim=0))
            self._follow(mean_C.detach(), variance_C.detach(), len(x_NC) * num_training())
            return ((wide_NC - mean_C) * (variance_C + self.eps).rsqrt() * self.weight + self.bias).to(x_NC)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """The running statistics, that of the variance with N - 1 in the denominator."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / (count - 1)), share)


class Projector(nn.Sequential):
    """Linear, normalization and ReLU for each hidden width, then a linear layer. (N, D) to (N, width).

    Args:
        hidden: widths of the hidden layers; () is one linear layer. width: of the embeddings.
        norm: ``batch``: a row depends on its batch, of all processes; ``layer``: on itself alone.
    """

    def __init__(self, width_in: int, hidden: Sequence[int], width: int, norm: str = BATCH) -> None:
        layers: list[nn.Module] = []
        for inner in hidden:
            normalize = BatchNormOfAll(inner) if norm == BATCH else nn.LayerNorm(inner)
            layers += [nn.Linear(width_in, inner, bias=False), normalize, nn.ReLU(inplace=True)]
            width_in = inner
        super().__init__(*layers, nn.Linear(width_in, width))
