"""The networks and the task that a recipe names, with the weights that its seed or ``init_from`` gives, on the record for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone, BackboneInfo, backbones, initialize_backbone
from ssvid.composite import CompositeTask, Member
from ssvid.data.config import DataConfig
from ssvid.errors import OptionError, RecipeError
from ssvid.progress import Say
from ssvid.recipe.options import make_backbone_options, make_task_config
from ssvid.recipe.schema import FinetuneRecipe, PretrainRecipe
from ssvid.tasks import PretextTask, tasks
from ssvid.types import FLOW, FLOW_CHANNELS, RGB, RGB_CHANNELS
from ssvid.weights.checkpoints import read_checkpoint, weights_sha256
from ssvid.weights.provenance import Provenance

RANDOM, TORCHVISION = "random", "torchvision:"


def build_networks(
    config: PretrainRecipe, *, say: Say | None = None, resumed: Path | None = None
) -> tuple[Backbone, PretextTask]:
    """Backbone and task with the weights that the seed gives (or ``init_from``), later stages frozen.

    say: gets the table of the keys of ``init_from``. resumed: the checkpoint that training goes on from.
    """
    import torch

    options = make_backbone_options(config.backbone.name, config.backbone.options)
    backbone = initialize_backbone(config.backbone.name, options, seed=config.seed)
    check_modality(config.data, backbone.info)
    table = start_weights(backbone, config, resumed)  # before the task's setup, which may copy the backbone
    if table and say:
        say(table)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        task = build_task(config, backbone.info)
        check_task_modality(config, task)
        check_whole_batch(config, task)
        task.setup(backbone)
    backbone.freeze_after(task.stage)
    return backbone, task


def check_modality(data: DataConfig, backbone: BackboneInfo) -> None:
    """Make sure that a network takes what the clips are made of.

    Raises:
        RecipeError: it takes another number of channels.
    """
    channels = {RGB: RGB_CHANNELS, FLOW: FLOW_CHANNELS}[data.modality]
    if backbone.in_channels == channels:
        return
    ways = [
        f"Set data.modality={other}"
        for other, its in ((RGB, RGB_CHANNELS), (FLOW, FLOW_CHANNELS))
        if its == backbone.in_channels
    ]
    if "in_channels" in backbone.options:
        ways.append(f"build the network with backbone.options.in_channels={channels}")
    else:
        ways.append("take a network with the option in_channels (docs/backbones.md)")
    raise RecipeError(
        f"data.modality ({data.modality}) gives clips of {channels} channels, and backbone {backbone.name} takes"
        f" {backbone.in_channels}. {', or '.join(ways)}."
    )


def check_task_modality(config: PretrainRecipe, task: PretextTask) -> None:
    """Raise RecipeError where a task, or what is measured beside it, does not take what the clips are made of."""
    modality = config.data.modality
    if modality not in task.modalities:
        raise RecipeError(
            f"data.modality ({modality}) is not what task {task_names(config)} takes: it works on"
            f" {' or '.join(task.modalities)}. Set data.modality={task.modalities[0]}, or choose a task that cuts, resizes and"
            " mirrors alone (speediness, order_verification, clip_order)."
        )
    if modality == FLOW and task.reverses_time and not config.data.flow.symmetric:
        raise RecipeError(
            f"data.flow.symmetric ({config.data.flow.symmetric}) must be true for task {task_names(config)}, which plays clips"
            " backward: flow that is measured from each frame to the next alone tells by its errors which frame came first. Set"
            " data.flow.symmetric=true, and measure with: ssvid data flow ROOT --symmetric."
        )
    if modality != RGB and config.online.tracking.every_epochs:
        raise RecipeError(
            f"online.tracking.every_epochs ({config.online.tracking.every_epochs}) shows the network pictures, and"
            f" data.modality is {modality}. Set online.tracking.every_epochs=0."
        )


def check_whole_batch(config: PretrainRecipe, task: PretextTask) -> None:
    """Raise RecipeError where micro-batches are asked for and the task's loss is one of the whole batch."""
    if task.needs_whole_batch and config.trainer.accumulate > 1:
        raise RecipeError(
            f"trainer.accumulate ({config.trainer.accumulate}) must be 1 for task {task_names(config)}: its loss is a statistic of the whole"
            " batch, and each micro-batch would have one of its own. Set trainer.accumulate=1; where memory runs out, lower"
            " loader.global_batch or train on more devices, over which the statistic is taken."
        )


def build_task(config: PretrainRecipe, backbone: BackboneInfo) -> PretextTask:
    """The task that a recipe names, or the composite of the several that it lists."""
    options = make_task_config(config.task.name, config.task.options)
    if not config.tasks:
        return tasks.get(config.task.name)(options, backbone)  # type: ignore[no-any-return]
    members = [
        Member(entry["label"] or entry["name"], _member_task(entry, backbone, f"tasks.{i}.options."), entry["weight"])
        for i, entry in enumerate(config.tasks)
    ]
    return CompositeTask(members, options, backbone)


def _member_task(entry: Mapping[str, Any], backbone: BackboneInfo, group: str) -> PretextTask:
    try:
        return tasks.get(entry["name"])(make_task_config(entry["name"], entry["options"]), backbone)  # type: ignore[no-any-return]
    except OptionError as error:
        raise error.within(group) from None


def task_names(config: PretrainRecipe) -> str:
    """The task, or the several of a composite with their weights, in words."""
    entries = [f"{e['label'] or e['name']} (weight {e['weight']:g})" for e in config.tasks]
    return " + ".join(entries) or config.task.name


def start_weights(backbone: Backbone, config: PretrainRecipe, resumed: Path | None = None) -> str:
    """Fill the backbone as ``init_from`` says; the table of keys in words ("" where the seed's weights stay).

    ``backbone.provenance`` gets ``init`` (as ``InitReport.as_dict``) and ``content_ids`` of the videos already seen.

    Args:
        resumed: checkpoint that will fill the backbone in a moment: what it started from is read there, as the weights
            that it started from may have gone.

    Raises:
        RecipeError: ``init_partial``, ``init_inflate`` or ``init_which`` without ``init_from``.
        CheckpointError: the weights cannot be used.
    """
    if not config.init_from:
        said = [key for key in ("init_partial", "init_inflate", "init_which") if getattr(config, key)]
        if said:
            value = getattr(config, said[0])
            raise RecipeError(
                f"{said[0]} ({value}) does nothing without init_from. Set init_from, or remove {said[0]}."
            )
        return ""
    if resumed is not None:
        known = read_checkpoint(resumed).provenance
        backbone.provenance = Provenance(init=known.init, content_ids=known.content_ids)
        return ""
    from ssvid.exports import initialize

    report = initialize(
        backbone,
        config.init_from,
        partial=config.init_partial,
        inflate=config.init_inflate,
        which=config.init_which,
    )
    backbone.provenance = Provenance(init=report.as_dict(), content_ids=list(report.content_ids))
    return str(report)


def start_backbone(
    spec: str | Path, config: FinetuneRecipe, *, partial: bool = False, inflate: bool = False, which: str = ""
) -> Backbone:
    """The network with the weights that ``spec`` names; ``provenance`` tells where they come from.

    Raises:
        CheckpointError: no such weights, or they do not fit. RecipeError: the network is not named.
    """
    from ssvid.exports import initialize, load_backbone
    from ssvid.weights.initializing import COMMAND_LINE, open_weights
    from ssvid.weights.loading import Source

    options = config.backbone.options or None
    text, name = str(spec), config.backbone.name or None
    if text == RANDOM:
        return load_backbone(spec, name=name, options=options, seed=config.seed)
    opened = None if text.startswith(TORCHVISION) else open_weights(spec)
    if isinstance(opened, Source):
        network = load_backbone(opened, name=name, options=options, partial=partial, seed=config.seed)
        start = initialize(initialize_backbone(network.info.name, network.info.options), opened, partial=partial)
        network.provenance = replace(Provenance.of(network.provenance), start=start.as_dict())
        return network
    name = name or _named_by(text)
    if name is None:
        raise RecipeError(
            f"--backbone {spec} does not say of which network its weights are. Set backbone.name in the recipe, or "
            "--backbone-name r3d_18, say."
        )
    network = initialize_backbone(name, options, seed=config.seed)
    report = initialize(
        network, opened or _weights_of(text, name), partial=partial, inflate=inflate, which=which, ways=COMMAND_LINE
    )
    network.provenance = Provenance(
        content_ids=None if report.unknown_videos else list(report.content_ids),
        partial=report.is_partial,
        seed=config.seed,
        init=report.as_dict(),
        start=report.as_dict(),
        weights_sha256=weights_sha256(network.state_dict()),
    )
    return network


def _named_by(text: str) -> str | None:
    """The network that ``torchvision:r3d_18`` names."""
    word = text.removeprefix(TORCHVISION).partition(".")[0]
    return word if text.startswith(TORCHVISION) and word in backbones.names() else None


def _weights_of(text: str, name: str) -> str:
    """``torchvision:r3d_18`` means the best weights of that network, ``torchvision:r3d_18.NAME`` those of that name."""
    word, _, weights = text.removeprefix(TORCHVISION).partition(".")
    return f"{TORCHVISION}{weights or 'DEFAULT'}" if text.startswith(TORCHVISION) and word == name else text
