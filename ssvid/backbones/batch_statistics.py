"""The running statistics of batch norm: a network as initialized carries those of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether the network has batch norm with running statistics."""
    return any(True for _ in _batch_norms(module))


def _batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    return (m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats)


@contextmanager
def estimating(module: nn.Module) -> Iterator[None]:
    """Batch norm collects a plain average from zero on (momentum None); the mode of everything else stays as it is."""
    norms = {m: m.momentum for m in _batch_norms(module)}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum in norms.items():
            norm.momentum = momentum
            norm.training = False
