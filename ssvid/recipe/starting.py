"""What a pretraining run starts from: the seed's weights, or those that ``init_from`` names, on the record for good."""

from __future__ import annotations

from pathlib import Path

from ssvid.backbones import Backbone
from ssvid.checkpoints import read_checkpoint
from ssvid.errors import RecipeError
from ssvid.recipe.schema import PretrainRecipe


def start_weights(backbone: Backbone, config: PretrainRecipe, resumed: Path | None = None) -> str:
    """Fill the backbone as ``init_from`` says; the table of keys in words ("" where the seed's weights stay).

    ``backbone.provenance`` gets ``init`` (as ``InitReport.as_dict``) and ``content_ids`` of the videos already seen.

    Args:
        resumed: checkpoint that will fill the backbone in a moment: what it started from is read there, as the weights
            that it started from may have gone.

    Raises:
        RecipeError: ``init_partial`` or ``init_inflate`` without ``init_from``.
        CheckpointError: the weights cannot be used.
    """
    if not config.init_from:
        said = [key for key in ("init_partial", "init_inflate") if getattr(config, key)]
        if said:
            raise RecipeError(f"{said[0]} (True) does nothing without init_from. Set init_from, or remove {said[0]}.")
        return ""
    if resumed is not None:
        meta = read_checkpoint(resumed).meta
        backbone.provenance = {"init": meta.get("init"), "content_ids": meta["data"]["content_ids"]}
        return ""
    from ssvid.exports import initialize

    report = initialize(backbone, config.init_from, partial=config.init_partial, inflate=config.init_inflate)
    backbone.provenance = {"init": report.as_dict(), "content_ids": list(report.content_ids)}
    return str(report)
