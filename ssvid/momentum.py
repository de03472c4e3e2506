"""A second network that follows the one in training: the teacher or key encoder of a task."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn


class MomentumCopy(nn.ModuleDict):
    """Copies of modules that follow them, m own + (1 - m) theirs, without a gradient (He et al., CVPR 2020, eq. 2).

    They stay in evaluation, so that what they say of a clip depends on that clip alone. Batch statistics follow like weights;
    whole numbers are taken over. A task makes one in ``setup`` and moves it in ``after_step``; it is part of the task's state.

    Args:
        modules: name -> what is copied, as it is now.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(copy.deepcopy(dict(modules)))
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Nothing: it stays in evaluation."""
        super().train(False)
        return self

    @torch.no_grad()
    def follow(self, modules: Mapping[str, nn.Module], momentum: float) -> None:
        """Move towards ``modules``, named as at the beginning. momentum: m, in [0, 1]; at 1 nothing moves."""
        for name, own_module in self.items():
            trained = modules[name].state_dict()
            for key, own in own_module.state_dict().items():
                new = trained[key].to(own.dtype)
                own.lerp_(new, 1 - momentum) if own.is_floating_point() else own.copy_(new)
