"""``show``: what a recipe will do, in numbers, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.data.collection import load_manifest, split_rows
from ssvid.data.config import DataConfig
from ssvid.data.feed.dataset import cut_segments
from ssvid.data.feed.sampler import BatchLayout
from ssvid.data.index.signals import still_signals
from ssvid.errors import SsvidError
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import LoadedRecipe, load_recipe
from ssvid.recipe.schema import FinetuneRecipe, PretrainRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.tasks import PretextTask
from ssvid.train.devices import resolve_trainer
from ssvid.train.optim import check_optim, scaled_lr
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
    config = loaded.recipe
    facts = _facts(config) if isinstance(config, PretrainRecipe) else _evaluation_facts(loaded)
    if isinstance(config, PretrainRecipe) and config.data.out_of_domain.root:
        facts += _out_of_domain_facts(config.data)
    facts += loaded.notes
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


def _evaluation_facts(loaded: LoadedRecipe) -> list[str]:
    """The named protocol, what was changed of it, and how often it is evaluated."""
    config = loaded.recipe
    lines = [f"protocol {loaded.protocol}"] if loaded.protocol else ["no named protocol (see: ssvid protocols)"]
    lines += [f"changed: {path}={used!r}, the protocol says {own!r}" for path, (own, used) in loaded.changed.items()]
    folds, seeds = getattr(config, "folds", []), getattr(config, "seeds", [])
    times = max(1, len(folds)) * max(1, len(seeds))
    what = f"folds {folds or 'one'}, seeds {seeds or [config.seed]}"
    lines.append(f"{times} evaluation{'s' * (times > 1)} of each backbone: {what}")
    return lines + (_finetune_facts(config) if isinstance(config, FinetuneRecipe) else [])


def _finetune_facts(config: FinetuneRecipe) -> list[str]:
    """What is trained, and how it is tested. What depends on the network is told when it is known, by the run itself."""
    from ssvid.programs.lineup import frame_baselines  # here: evaluations import much that pretraining needs not

    p, optim, baselines = config.finetune, config.optim, config.baselines
    trained = "the head of a frozen network" if p.frozen else "the whole network"
    chosen = f"chosen on {p.holdout_fraction:.0%} of train" if p.holdout_fraction else "the last one"
    beside = ["random"] * baselines.random + list(frame_baselines(baselines))
    made = ", ".join(["histograms"] * baselines.histograms + ["trajectories"] * baselines.trajectories)
    return [
        f"trained: {trained}, {optim.epochs} epochs, {optim.name}, {optim.schedule}; the epoch is {chosen}",
        f"lr {scaled_lr(optim, p.batch_size):.6g} = base_lr {optim.base_lr:g} x {p.batch_size} / 256",
        f"views of a test video: {p.num_clips} clips of {p.num_frames} frames, one in {p.stride_frames}, x {p.num_crops} crops",
        f"baselines, a training each: {', '.join(beside) or 'none'}{f'; without one: {made}' if made else ''}",
    ]


def _out_of_domain_facts(config: DataConfig) -> list[str]:
    """The videos from elsewhere that the pretext metrics are measured on."""
    data = config.out_of_domain
    places = {"name": data.name, "root": data.root, "list": data.list, "split": data.split}
    own = DataConfig(**places, modality=config.modality, flow=config.flow)  # type: ignore[arg-type]
    try:
        manifest = load_manifest(own, group="data.out_of_domain")
    except SsvidError as error:
        return [f"the videos from elsewhere cannot be read: {error}"]
    kept = manifest.select(data.split) if data.split else manifest
    step = f", one frame in {data.frame_step}" if data.frame_step > 1 else ""
    return [f"{len(kept)} videos from elsewhere (data.out_of_domain{step}): measured, never trained on"]


def sample_shapes(task: PretextTask) -> dict[str, str]:
    """Name -> dtype and shape of what a worker sends for one sample of a video, or of flow, of 320 x 240 pixels."""
    height, width, channels = 240, 320, task.backbone_info.in_channels
    maker = task.clip_maker(training=True)
    signals = still_signals(getattr(maker, "signals", ()), maker.min_frames)
    info = VideoInfo("example", maker.min_frames, 25.0, height, width, signals=signals, channels=channels)
    rngs = [np.random.default_rng([0, i]) for i in range(2)]
    plan = maker.plan(info, *rngs)
    views = tuple(torch.zeros(len(view), channels, height, width, dtype=torch.uint8) for view in plan.views)
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
