"""Take a backbone from wherever its weights lie: a checkpoint, a run folder, an exported folder, or nowhere (``random``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo, create_backbone, initialize_backbone
from ssvid.errors import CheckpointError, RecipeError
from ssvid.files import takes_paths
from ssvid.weights.checkpoints import (
    Checkpoint,
    check_fit,
    check_meta,
    load_backbone_weights,
    read_checkpoint,
    weights_sha256,
)
from ssvid.weights.hub import HUB, fetch_export
from ssvid.weights.provenance import Provenance

EXPORT_FORMAT = 1
EXPORT_KIND = "ssvid-export"
RANDOM = "random"
WEIGHTS, CONFIG, CONTENT_IDS = "backbone.safetensors", "config.json", "content_ids.json"


@dataclass(frozen=True)
class Source:
    """Weights and what is known of them, wherever they lay.

    info: as an export recorded it. label: what it is, in words that tell no path.
    """

    path: Path
    provenance: Provenance
    state: dict[str, Tensor]
    info: BackboneInfo | None = None
    label: str = "checkpoint"

    @property
    def name(self) -> str:
        """Registered name of the network."""
        return self.provenance.backbone["name"]

    @property
    def options(self) -> dict[str, Any]:
        """Options it was trained with."""
        return self.provenance.backbone["options"]


@takes_paths("path")
def load_backbone(
    path: str | Path | Source,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
    seed: int = 0,
) -> Backbone:
    """A backbone in evaluation mode, with its weights, from wherever they lie.

    The result has an attribute ``provenance`` (``Provenance``), which can be read as a dict: ``stage`` (deepest trained),
    ``content_ids`` (videos seen; None where unknown), ``placebo``, ``partial``, ``seed``, ``init`` (what training started
    from), ``weights`` (the counts of keys) and ``weights_sha256``.

    Args:
        path: a checkpoint, a run folder (its last checkpoint), an exported folder, ``hf://owner/name[@revision]`` for one
            on the Hub, or ``random`` for fresh weights; or what ``read_source`` gave.
        name: registered network; needed for ``random``, otherwise it must be that of the weights unless ``partial``.
        options: of the network, over those it was trained with: other strides take the same weights.
        partial: fill what fits and keep fresh weights elsewhere; ``provenance`` says so.
        seed: of the fresh weights.

    Raises:
        CheckpointError: no such thing, another format or architecture, or damaged.
        RecipeError: ``random`` without a name.
    """
    if str(path) == RANDOM:
        return _random_backbone(name, options, seed)
    source = path if isinstance(path, Source) else read_source(path)
    if name not in (None, source.name) and not partial:
        raise CheckpointError(
            f"{source.path} holds weights of backbone {source.name!r}, but {name!r} was asked for. "
            f"Set backbone.name={source.name} or name other weights, or accept what fits with --partial."
        )
    merged = (source.options if name in (None, source.name) else {}) | dict(options or {})
    check_fit(outline(name or source.name, merged), source.state, partial=partial)  # before memory is taken for it
    backbone = initialize_backbone(name or source.name, merged, seed=seed)
    if not options:
        _check_normalization(source, backbone.info)
    report = load_backbone_weights(backbone, source.state, partial=partial)
    known = source.provenance
    backbone.provenance = replace(
        known,
        stage=known.stage if known.stage in backbone.info.stage_names else backbone.info.stages[-1].name,
        partial=known.partial or not report.is_complete,
        seed=known.seed or 0,  # weights of another program have none; their random row takes 0
        weights=str(report),
        weights_sha256=weights_sha256(backbone.state_dict()),
    )
    return backbone.eval()


def outline(name: str, options: Mapping[str, Any] | None = None) -> Backbone:
    """The network without its weights: nothing is drawn or stored.

    Raises:
        CheckpointError: it cannot be built with these options.
    """
    try:
        with torch.device("meta"):
            return create_backbone(name, **(options or {}))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # of options that no network has
        raise CheckpointError(
            f"backbone {name} cannot be built with the options {dict(options or {})} ({type(error).__name__}: {error}). Name "
            "weights that were trained with options it has."
        ) from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a backbone from a checkpoint, a run folder or an exported folder.

    Raises:
        CheckpointError: no such thing, another format, or damaged.
    """
    return read_source(path).state


def _random_backbone(name: str | None, options: Mapping[str, Any] | None, seed: int) -> Backbone:
    if name is None:
        raise RecipeError(
            "backbone 'random' needs the name of a network. Set backbone.name in the recipe, or --backbone-name NAME."
        )
    backbone = initialize_backbone(name, options, seed=seed).eval()
    identity = weights_sha256(backbone.state_dict())
    backbone.provenance = Provenance(content_ids=[], seed=seed, random={"seed": seed}, weights_sha256=identity)
    return backbone


def _check_normalization(source: Source, info: BackboneInfo) -> None:
    """Mean and std are no weights: they are the network's own, and must be those it was trained with."""
    trained = source.info
    if trained is not None and trained.name == info.name and (trained.mean, trained.std) != (info.mean, info.std):
        raise CheckpointError(
            f"{source.path} was trained with mean {trained.mean} and std {trained.std}; this ssvid builds {info.name} with "
            f"{info.mean} and {info.std}. Install the ssvid that wrote it."
        )


@takes_paths("path")
def read_source(path: str | Path) -> Source:
    """Weights of ours and what is known of them, from a checkpoint, run folder, export or ``hf://`` address.

    Raises:
        CheckpointError: no such thing, another program's, another format, or damaged.
    """
    if str(path).startswith(HUB):
        folder, label = fetch_export(str(path))
        return replace(read_source(folder), label=label)
    if str(path).startswith("torchvision:"):
        raise CheckpointError(
            f"{path} names weights that ssvid did not make. Make an export of them first, and name that: "
            f"ssvid export {path} OUT --backbone-name NAME"
        )
    path = Path(path)
    if (path / CONFIG).is_file():
        return _read_export(path)
    last = path / "checkpoints" / "last.ckpt"
    if last.is_file():
        return source_of(read_checkpoint(last), "run")
    if path.is_dir():
        raise CheckpointError(
            f"folder {path} has neither {CONFIG} (an export) nor checkpoints/last.ckpt (a run). {_runs_below(path)}"
        )
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist. Name a checkpoint file, a run folder, an exported folder, or 'random'."
        )
    if path.suffix in (".safetensors", ".pt2"):
        raise CheckpointError(_one_file(path))
    return source_of(read_checkpoint(path))


def _runs_below(folder: Path) -> str:
    """What to name instead: a fine-tuning run holds a run for each of its networks, and other folders hold runs too."""
    found = [last.parent.parent for pattern in ("*", "*/*") for last in folder.glob(f"{pattern}/checkpoints/last.ckpt")]
    if not found:
        return "Name an exported folder, a run folder, or a checkpoint file."
    best = min(found, key=lambda run: (run.name != "pretrained", len(run.parts), run))
    others = f" ({len(found)} runs lie below it)" if len(found) > 1 else ""
    return f"Name a run that lies below it{others}: {best}"


def is_part_of_an_export(path: Path) -> bool:
    """Whether the path is one file of an exported folder, and not what names it."""
    return path.suffix == ".pt2" or (path.name == WEIGHTS and (path.parent / CONFIG).is_file())


def _one_file(path: Path) -> str:
    """Why a file of weights alone is not enough, and what to do."""
    if is_part_of_an_export(path):
        return (
            f"{path} is one file of an export; what network it is stands in {CONFIG} beside it. "
            f"Name the folder of both: {path.parent}."
        )
    return (
        f"{path} does not say of which network its weights are. Start a pretraining from it with init_from={path}, or make an "
        f"export of it: ssvid export {path} OUT --backbone-name r3d_18"
    )


def source_of(checkpoint: Checkpoint, label: str = "checkpoint") -> Source:
    """The backbone of a checkpoint that is to be evaluated."""
    return Source(checkpoint.path, checkpoint.provenance, checkpoint.exported_state, label=label)


def _read_export(folder: Path) -> Source:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _read_json(folder / CONFIG)
    _check_config(folder, config)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} cannot be read: it is missing or damaged ({error}). Export the checkpoint again."
        ) from error
    if weights_sha256(state) != config["weights_sha256"]:
        raise CheckpointError(
            f"the weights in {folder / WEIGHTS} are not those that {CONFIG} describes (their hashes differ): one of them "
            "was changed. Export the checkpoint again."
        )
    ids = _read_json(folder / CONTENT_IDS) if (folder / CONTENT_IDS).is_file() else None
    meta = config["provenance"] | {"backbone": config["backbone"], "stage": config["stage"]}
    try:
        info = BackboneInfo.from_dict(config["info"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a network ({error}). Export it again.") from error
    if ids is not None and not (isinstance(ids, list) and all(isinstance(name, str) for name in ids)):
        raise CheckpointError(f"{folder / CONTENT_IDS} is no list of names of videos. Export the checkpoint again.")
    known = replace(Provenance.from_dict(meta), content_ids=ids)
    return Source(folder, known, state, info, "export")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}). Export the checkpoint again.") from error


def _check_config(folder: Path, config: Any) -> None:
    needed = {"format", "backbone", "info", "stage", "weights_sha256", "provenance"}
    if not isinstance(config, dict) or config.get("kind") != EXPORT_KIND or not needed <= set(config):
        raise CheckpointError(
            f'{folder / CONFIG} is not that of an ssvid export ("kind": "ssvid-export" and its keys are missing). '
            "Name a folder that `ssvid export` wrote, or a checkpoint."
        )
    if config["format"] != EXPORT_FORMAT:
        raise CheckpointError(
            f"{folder} has export format {config['format']!r}; this ssvid reads format {EXPORT_FORMAT}. "
            "Install the ssvid that wrote it, or export the checkpoint again."
        )
    provenance = config["provenance"] if isinstance(config["provenance"], dict) else {"recipe": config["provenance"]}
    check_meta(folder / CONFIG, provenance | {"backbone": config["backbone"], "stage": config["stage"]})
