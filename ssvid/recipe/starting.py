"""What a run starts from: the seed's weights, or those that ``init_from`` or ``--backbone`` names, on the record for good."""

from __future__ import annotations

from pathlib import Path

from ssvid.backbones import Backbone, backbones, initialize_backbone
from ssvid.checkpoints import read_checkpoint, weights_sha256
from ssvid.errors import RecipeError
from ssvid.recipe.schema import FinetuneRecipe, PretrainRecipe

RANDOM, TORCHVISION = "random", "torchvision:"


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
        meta = read_checkpoint(resumed).meta
        backbone.provenance = {"init": meta.get("init"), "content_ids": meta["data"]["content_ids"]}
        return ""
    from ssvid.exports import initialize

    report = initialize(
        backbone,
        config.init_from,
        partial=config.init_partial,
        inflate=config.init_inflate,
        which=config.init_which,
    )
    backbone.provenance = {"init": report.as_dict(), "content_ids": list(report.content_ids)}
    return str(report)


def start_backbone(
    spec: str | Path, config: FinetuneRecipe, *, partial: bool = False, inflate: bool = False, which: str = ""
) -> Backbone:
    """The network with the weights that ``spec`` names; ``provenance`` tells where they come from.

    Raises:
        CheckpointError: no such weights, or they do not fit. RecipeError: the network is not named.
    """
    from ssvid.exports import initialize, load_backbone
    from ssvid.exports.initializing import COMMAND_LINE

    options = config.backbone.options or None
    text, name = str(spec), config.backbone.name or None
    if not is_foreign(text):
        network = load_backbone(spec, name=name, options=options, partial=partial, seed=config.seed)
        if text == RANDOM:
            return network
        start = initialize(initialize_backbone(network.info.name, network.info.options), spec, partial=partial)
        network.provenance = {**network.provenance, "start": start.as_dict()}
        return network
    name = name or _named_by(text)
    if name is None:
        raise RecipeError(
            f"--backbone {spec} does not say of which network its weights are. Set backbone.name in the recipe, or "
            "--backbone-name r3d_18, say."
        )
    network = initialize_backbone(name, options, seed=config.seed)
    report = initialize(
        network, _weights_of(text, name), partial=partial, inflate=inflate, which=which, ways=COMMAND_LINE
    )
    network.provenance = {
        "stage": None,
        "content_ids": None if report.unknown_videos else list(report.content_ids),
        "placebo": False,
        "partial": report.is_partial,
        "seed": config.seed,
        "init": report.as_dict(),
        "start": report.as_dict(),
        "weights_sha256": weights_sha256(network.state_dict()),
    }
    return network


def is_foreign(text: str) -> bool:
    """Whether a specification names weights that ssvid did not make."""
    from ssvid.exports.initializing import is_foreign_file
    from ssvid.exports.loading import HUB

    return text.startswith(TORCHVISION) or (not text.startswith(HUB) and is_foreign_file(Path(text)))


def _named_by(text: str) -> str | None:
    """The network that ``torchvision:r3d_18`` names."""
    word = text.removeprefix(TORCHVISION).partition(".")[0]
    return word if text.startswith(TORCHVISION) and word in backbones.names() else None


def _weights_of(text: str, name: str) -> str:
    """``torchvision:r3d_18`` means the best weights of that network, ``torchvision:r3d_18.NAME`` those of that name."""
    word, _, weights = text.removeprefix(TORCHVISION).partition(".")
    return f"{TORCHVISION}{weights or 'DEFAULT'}" if text.startswith(TORCHVISION) and word == name else text
