"""At what rate each part of a network is fine-tuned, by groups of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.classifiers.protocol import FinetuneProtocol

HEAD = "head"


def parameter_groups(backbone: Backbone, head: nn.Module, protocol: FinetuneProtocol) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay: ``{"name", "params", "lr", "weight_decay"}``, head first.

    The head learns at lr * head_lr_factor, the k-th stage below it at lr * layer_decay ** k (the rule of BEiT, Bao et al.
    2022, where the head is the last layer). Biases and normalization (1-D parameters) have no weight decay.
    """
    rates, taken = learning_rates(backbone.info, protocol), set()
    groups: list[dict[str, Any]] = []
    for name, lr in rates.items():
        modules = (head,) if name == HEAD else backbone.stage_modules(name)
        params = [q for module in modules for q in module.parameters()]
        taken |= {id(q) for q in params}
        if name == backbone.info.stage_names[0]:  # what is in no stage stands before the first
            params += [q for q in backbone.parameters() if id(q) not in taken]
        groups += _decayed_and_not(name, params, lr, protocol)
    return groups


def learning_rates(info: BackboneInfo, protocol: FinetuneProtocol) -> dict[str, float]:
    """At what rate the head and each stage that is used learn, head first; with ``frozen`` the head alone."""
    p = protocol
    rates = {HEAD: p.learning_rate * p.head_lr_factor}
    used = () if p.frozen else info.stage_names[: info.depth(p.stage) + 1]
    return rates | {name: p.learning_rate * p.layer_decay**k for k, name in enumerate(reversed(used), start=1)}


def _decayed_and_not(
    name: str, params: Sequence[nn.Parameter], lr: float, protocol: FinetuneProtocol
) -> Iterator[dict[str, Any]]:
    trained = [q for q in params if q.requires_grad]
    for chosen, decay in (
        ([q for q in trained if q.ndim > 1], protocol.optim.weight_decay),
        ([q for q in trained if q.ndim <= 1], 0.0),
    ):
        if chosen:
            yield {"name": name, "params": chosen, "lr": lr, "weight_decay": decay}
