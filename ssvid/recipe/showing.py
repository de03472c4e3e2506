"""``show``: what a recipe will do, in numbers, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.data.dataset import cut_segments
from ssvid.data.sampler import BatchLayout
from ssvid.data.signals import still_signals
from ssvid.errors import SsvidError
from ssvid.recipe.load import load_recipe
from ssvid.recipe.pretraining import build_networks, load_manifest, split_rows
from ssvid.recipe.schema import PretrainRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.tasks import PretextTask
from ssvid.train.optim import check_optim, scaled_lr
from ssvid.train.trainer import resolve_trainer
from ssvid.types import VideoInfo


@dataclass(frozen=True)
class ShowResult:
    """A resolved recipe, and what it will do. Prints as YAML with the facts as comments below.

    resolved: every default written out; values that are not set are ``???``. facts: one line each.
    """

    resolved: dict[str, Any]
    facts: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe alone, so that it can be run again."""
        return self.resolved

    def __str__(self) -> str:
        text = to_yaml(self.resolved)
        return "\n".join([text.rstrip(), "", *(f"# {line}" for line in self.facts)]) if self.facts else text


def show(recipe: str | Path | Mapping[str, Any], *overrides: str, **nested: Any) -> ShowResult:
    """The resolved recipe; for ``pretrain`` also parameters, shapes, learning rate, steps and clips seen.

    Raises:
        RecipeError: the recipe is wrong. Values that are still ``???`` are allowed and shown.
    """
    loaded = load_recipe(recipe, overrides, nested=nested, allow_missing=True)
    facts = _facts(loaded.recipe) if isinstance(loaded.recipe, PretrainRecipe) else []
    return ShowResult(loaded.resolved, facts)


def _facts(config: PretrainRecipe) -> list[str]:
    check_optim(config.optim)
    trainer = resolve_trainer(config.trainer, config.loader.workers_per_device)
    world = int(trainer.devices) * trainer.num_nodes
    layout = BatchLayout(config.loader.global_batch, world, trainer.accumulate, config.loader.clips_per_video)
    backbone, task = build_networks(config)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    head = sum(p.numel() for p in task.parameters())
    maker = task.clip_maker(training=True)
    lines = [
        f"backbone {config.backbone.name}: {trained:,} trained parameters; task head {head:,}",
        f"a video needs {maker.min_frames} frames",
        f"one sample: {', '.join(f'{k} {s}' for k, s in sample_shapes(task).items())}",
        f"micro-batch {layout.micro_batch} samples on each of {world} {trainer.accelerator}, "
        f"{trainer.accumulate} accumulated; precision {trainer.precision}",
        f"lr {scaled_lr(config.optim, config.loader.global_batch):.6g} = base_lr {config.optim.base_lr:g} x "
        f"{config.loader.global_batch} / 256",
    ]
    return lines + _epoch_facts(config, maker.min_frames, layout)


def sample_shapes(task: PretextTask, height: int = 240, width: int = 320) -> dict[str, str]:
    """Name -> dtype and shape of what a worker sends for one sample of a video of that size."""
    maker = task.clip_maker(training=True)
    signals = still_signals(getattr(maker, "signals", ()), maker.min_frames)
    info = VideoInfo("example", maker.min_frames, 25.0, height, width, signals=signals)
    rngs = [np.random.default_rng([0, i]) for i in range(2)]
    plan = maker.plan(info, *rngs)
    views = tuple(torch.zeros(len(view), 3, height, width, dtype=torch.uint8) for view in plan.views)
    sample = maker.transform(views, plan, *rngs)
    return {k: f"{str(v.dtype).removeprefix('torch.')} {tuple(v.shape)}" for k, v in sample.items()}


def _epoch_facts(config: PretrainRecipe, min_frames: int, layout: BatchLayout) -> list[str]:
    if config.data.root == "???":
        return ["data.root is not set: steps per epoch depend on the number of videos"]
    try:
        manifest = load_manifest(config.data)
    except SsvidError as error:
        return [f"the data cannot be read: {error}"]
    train, val = split_rows(manifest, config.data, config.seed)
    readable = [row for row in train.rows if row.is_readable]
    segments = len(cut_segments(readable, config.data.segment_seconds, min_frames))
    steps = segments // layout.videos_per_global_batch
    if not steps:
        return [
            f"{len(train)} videos to train on give {segments} samples, and one step takes "
            f"{layout.videos_per_global_batch}: nothing would be trained. Set loader.global_batch to "
            f"{max(1, segments * config.loader.clips_per_video)} or less, raise loader.clips_per_video, or add videos"
        ]
    clips = steps * layout.global_batch * config.optim.epochs
    facts: list[Any] = [
        f"{len(train)} videos to train on, {segments} samples; {len(val)} held out",
        f"{steps} steps per epoch x {config.optim.epochs} epochs = {steps * config.optim.epochs} steps, {clips:,} samples",
    ]
    return facts
