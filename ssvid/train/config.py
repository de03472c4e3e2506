"""Options of the recipe groups ``optim``, ``trainer``, ``logger``, ``monitor``: plain types, legal values on the fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from ssvid.bounds import AtLeast, BelowOne, OneOf, Pair, Positive, told
from ssvid.settings import EXTENDABLE, IDLE, PROCESSES, ROUNDING

# From what logs to what uploads.
WANDB_MODES = ("disabled", "offline", "online")
# With fewer vectors the rank of features is small for lack of vectors, and nothing is measured.
MIN_VECTORS = 8


@dataclass
class OptimConfig:
    """The optimizer and its schedule.

    name: ``sgd``, ``adam`` or ``adamw``, in which alone weight decay is decoupled. base_lr: the learning rate is ``base_lr * global_batch / 256``. epochs: passes over the training videos. warmup_epochs: linear warm-up from 0.
    schedule: ``cosine`` (to 0), ``step`` (times ``step_gamma`` at each of ``step_epochs``) or ``constant``.
    step_epochs: epochs at which ``step`` lowers the rate. step_gamma: by what factor. momentum: for sgd. betas: for adam and adamw. weight_decay: not applied to biases and normalization.
    grad_clip_norm: 0 is off.
    max_skipped_steps: a step whose loss or gradient is not finite is left out; so many in a row are borne, and the next one
        ends the run.
    extended_from: numbers of epochs that the run was planned for before it was made longer. Up to each of them the
        schedule is that of the shorter plan, and then that of the next one. A resumed run fills it in.
    """

    name: Annotated[str, OneOf("sgd", "adam", "adamw")] = "sgd"
    base_lr: Annotated[float, Positive] = 0.1
    epochs: Annotated[int, AtLeast(1)] = field(default=100, metadata=EXTENDABLE)
    warmup_epochs: Annotated[float, AtLeast(0)] = 5.0
    schedule: Annotated[str, OneOf("cosine", "step", "constant")] = "cosine"
    step_epochs: Annotated[list[int], AtLeast(0)] = field(default_factory=list)
    step_gamma: Annotated[float, Positive] = 0.1
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    momentum: Annotated[float, BelowOne] = 0.9
    betas: Annotated[list[float], BelowOne, Pair] = field(default_factory=lambda: [0.9, 0.999])
    grad_clip_norm: Annotated[float, AtLeast(0)] = 0.0
    extended_from: Annotated[list[int], AtLeast(1)] = field(default_factory=list, metadata=EXTENDABLE)
    max_skipped_steps: Annotated[int, AtLeast(0)] = field(default=10, metadata=IDLE)


@dataclass
class PretrainOptimConfig(OptimConfig):
    """The optimizer and its schedule.

    head_lr_factor: what belongs to the task (heads, decoders, predictors) learns so many times as fast as the backbone.
    """

    head_lr_factor: Annotated[float, Positive] = 1.0


@dataclass
class FinetuneOptimConfig(OptimConfig):
    """The optimizer and its schedule, as of pretraining; the global batch is ``finetune.batch_size``."""

    epochs: Annotated[int, AtLeast(1)] = field(default=50, metadata=EXTENDABLE)
    warmup_epochs: Annotated[float, AtLeast(0)] = 0.0


def plan_problems(config: OptimConfig) -> Iterator[str]:
    """What is wrong with the plan of the epochs."""
    if config.warmup_epochs > config.epochs:
        rule = f"must lie between 0 and optim.epochs ({config.epochs})"
        yield told("optim.warmup_epochs", config.warmup_epochs, rule, f"{config.epochs / 10:g}")
    plans = [*config.extended_from, config.epochs]
    if plans[0] < 1 or sorted(set(plans)) != plans:
        yield (
            f"optim.extended_from ({config.extended_from}) must rise and end below optim.epochs ({config.epochs}). "
            "Leave it out: a run that is made longer fills it in."
        )


@dataclass
class TrainerConfig:
    """Where and how the steps run.

    accelerator: ``auto``, ``cpu`` or ``gpu``. devices: ``auto`` or a number. num_nodes: machines.
    precision: ``auto`` (bf16 where the GPU can, else 32), ``32`` or ``bf16``.
    accumulate: micro-batches per optimizer step; ``global_batch`` already counts them.
    deterministic: same bits on the same machine, at some cost on a GPU.
    compile: ``torch.compile`` of the backbone. channels_last: 5-D weights in channels_last_3d.
    threads: CPU threads of each training process; 0 is the cores that its reading processes leave (on a GPU: torch's choice).
    log_every_steps: between lines of the log. val_every_epochs: between validations.
    save_every_steps: besides the end of each epoch; 0 is off. pictures: PNGs of what the task sees, each validation.
    max_steps: stop early after so many optimizer steps; the schedule is still planned for all epochs; -1 is off.
    """

    accelerator: Annotated[str, OneOf("auto", "cpu", "gpu")] = field(default="auto", metadata=ROUNDING)
    devices: str = field(default="auto", metadata=PROCESSES)
    num_nodes: Annotated[int, AtLeast(1)] = field(default=1, metadata=PROCESSES)
    precision: Annotated[str, OneOf("auto", "32", "bf16")] = "auto"
    accumulate: Annotated[int, AtLeast(1)] = 1
    deterministic: bool = field(default=False, metadata=ROUNDING)
    compile: bool = field(default=False, metadata=ROUNDING)
    channels_last: bool = field(default=True, metadata=ROUNDING)
    threads: Annotated[int, AtLeast(0)] = field(default=0, metadata=ROUNDING)
    log_every_steps: Annotated[int, AtLeast(1)] = field(default=10, metadata=IDLE)
    val_every_epochs: Annotated[int, AtLeast(1)] = field(default=1, metadata=IDLE)
    save_every_steps: Annotated[int, AtLeast(0)] = field(default=0, metadata=IDLE)
    pictures: bool = field(default=True, metadata=IDLE)
    max_steps: Annotated[int, AtLeast(-1)] = field(default=-1, metadata=EXTENDABLE)


@dataclass
class LoggerConfig:
    """Where numbers and pictures go besides the run folder, where ``metrics.jsonl`` is always written.

    wandb: ``disabled``, ``offline`` or ``online``. project: of wandb. tensorboard: write ``tensorboard/`` in the run
    folder; needs the extra ``tensorboard``.
    """

    wandb: Annotated[str, OneOf(*WANDB_MODES)] = "disabled"
    project: str = "ssvid"
    tensorboard: bool = False


@dataclass
class MonitorConfig:
    """What is watched without labels, each validation. Changes nothing that is trained.

    features: measure effective rank and feature standard deviation. max_vectors: on at most so many.
    clips_per_video: clips of each held-out video that the pretext metric is measured on; 0 takes as many as make 32 clips,
    at most 8. chance_epochs: warn when a metric cannot be told from chance for so many epochs; 0 is never.
    untrained: measure the held-out videos once before the first step, too: what the metric gains is read from there on.
    keep_best: keep ``checkpoints/best.ckpt``, that of the best pretext metric. best_metric: which one; ``auto`` is the
    task's first metric with a chance level, or the loss. The task says of which metrics less is better.
    """

    features: bool = True
    max_vectors: Annotated[int, AtLeast(MIN_VECTORS)] = 2048
    chance_epochs: Annotated[int, AtLeast(0)] = 5
    keep_best: bool = True
    untrained: bool = True
    best_metric: str = "auto"
    clips_per_video: Annotated[int, AtLeast(0)] = 0
