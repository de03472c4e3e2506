"""What a network scores before its first step: the row that a pretext metric stands beside."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssvid.backbones.batch_statistics import estimating, has_batch_statistics
from ssvid.data.feed.loader import ClipLoader
from ssvid.files import write_json
from ssvid.tasks import PretextTask
from ssvid.train.module import PretrainModule
from ssvid.train.monitors import smaller_metrics

# The two forms of a network with batch norm; either can score better, and the better one counts.
AS_INITIALIZED, ESTIMATED = "as_initialized", "statistics_estimated"
NUM_BATCHES = 16  # training batches that statistics are estimated on

Forms = Mapping[str, Mapping[str, float]]


class Untrained(pl.Callback):
    """Measures the held-out videos before the first step. Nothing that is trained afterwards is changed by that.

    Args:
        path: where the numbers are kept, for a run that is resumed.

    Attributes:
        found: form -> metric -> value; empty where nothing is held out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: Forms = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.global_step == 0 and data.val_set is not None:
            first = list(islice(data.train_batches(trainer.world_size, trainer.global_rank), NUM_BATCHES))
            training = ClipLoader(data.train_set, first, data.loader)
            move = trainer.strategy.batch_to_device
            with trainer.precision_plugin.val_step_context():
                self.found = measure_untrained(
                    pl_module, map(move, training), map(move, data.val_dataloader()[0]), average=_average(trainer)
                )
            if trainer.is_global_zero:
                write_json(self.path, self.found)

    def with_better(self, task: PretextTask) -> dict[str, dict[str, float]]:
        """What was found, and for each metric the ``better`` value of all forms."""
        if not self.found:
            return {}
        return {form: dict(metrics) for form, metrics in self.found.items()} | {
            "better": better_of(self.found, smaller_metrics(task))
        }


def _average(trainer: pl.Trainer) -> Callable[[Tensor], Tensor]:
    """Over the ranks: each has estimated on batches of its own."""

    def average(buffer: Tensor) -> Tensor:
        return trainer.strategy.reduce(buffer, reduce_op="mean") if buffer.is_floating_point() else buffer  # type: ignore[return-value]

    return average


def measure_untrained(
    module: PretrainModule,
    training: Iterable[dict[str, Any]],
    held_out: Iterable[dict[str, Any]],
    average: Callable[[Tensor], Tensor] = lambda buffer: buffer,
) -> dict[str, dict[str, float]]:
    """Form -> metric -> value of the module as it is, and with batch statistics estimated where it has any.

    Args:
        training, held_out: batches on the module's device. Held-out ones are read once, for all forms.
        average: of an estimated statistic over the ranks.
    """
    with _restored(module), torch.no_grad():
        forms = {AS_INITIALIZED: _buffers(module)}
        if has_batch_statistics(module):
            module.train()
            with estimating(module):
                for batch in training:
                    module.answer(batch)
            forms[ESTIMATED] = {name: average(value) for name, value in _buffers(module).items()}
        module.eval()
        measures = {form: module.new_measures() for form in forms}
        for batch in held_out:
            for form, buffers in forms.items():
                _load(module, buffers)
                module.measure(batch, measures[form])
    return {form: found.results() for form, found in measures.items()}


def better_of(forms: Forms, smaller: Sequence[str]) -> dict[str, float]:
    """For each metric the better value of all forms. smaller: metrics of which less is better, names or shell patterns."""
    names = dict.fromkeys(name for metrics in forms.values() for name in metrics)
    best = {name: min if any(fnmatch.fnmatchcase(name, pattern) for pattern in smaller) else max for name in names}
    return {name: best[name](metrics[name] for metrics in forms.values() if name in metrics) for name in names}


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Buffers and modes are afterwards what they were; no weight changes without an optimizer."""
    buffers, modes = _buffers(module), {m: m.training for m in module.modules()}
    try:
        yield
    finally:
        _load(module, buffers)
        for part, mode in modes.items():
            part.training = mode


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def _load(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
