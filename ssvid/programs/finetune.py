"""``finetune``: a network learns labels from wherever it starts, with the random row of the same settings beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssvid.files import takes_paths
from ssvid.programs.finetuning import FinetuneOutcome
from ssvid.programs.runs import Weights
from ssvid.programs.streams import Streams
from ssvid.ranks import threads_kept
from ssvid.recipe.resuming import recipe_and_folder, was_restarted


@takes_paths("recipe", "backbone", "placebo", "run_dir", "from_results")
@threads_kept()
def finetune(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    backbone: Weights | Sequence[Weights] = (),
    backbone_name: str | None = None,
    placebo: Weights | Sequence[Weights] | None = None,
    random: bool = True,
    run_dir: str | Path | None = None,
    resume: bool = False,
    partial: bool = False,
    inflate: bool = False,
    which: str = "",
    from_results: str | Path | None = None,
    show_progress: bool = True,
    **nested: Any,
) -> FinetuneOutcome:
    """Train a network on labeled videos and score it, beside the same from random weights.

    Args:
        recipe: shipped name, path, named protocol, or mapping of kind ``finetune``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, ``torchvision:NAME``, a file of weights, or ``random``; several of them
            are taken for the same pretraining with several seeds. Of a recipe with streams one for all, or ``NAME=WEIGHTS``
            for each stream.
        backbone_name: the network, where the weights do not say it.
        placebo: the same of a run with ``task.placebo=true``, one for each backbone; or ``train`` to train it now from
            the checkpoint's recipe.
        random: train the network of the recipe's seed with the same settings beside it; ``baselines.random`` says the same.
        run_dir: the run folder; beside the checkpoint, numbered, where None.
        resume: go on with an existing run folder, bit for bit.
        partial: accept weights that fill the network only in part; every result says so.
        inflate: repeat 2D kernels of foreign weights over time. which: of a file with several networks, a word before the
            keys of the one that is meant.
        from_results: a ``results.json`` to repeat: its recipe and arguments are taken, and its hashes must fit.

    Raises:
        SsvidError: any mistake in the recipe, the weights, the data or the folder.
    """
    recipe, run_dir = recipe_and_folder(recipe, run_dir, resume)
    arguments: dict[str, Any] = {
        "backbone": backbone,
        "backbone_name": backbone_name,
        "placebo": placebo,
        "random": random,
        "partial": partial,
        "inflate": inflate,
        "which": which,
    }
    more: dict[str, Any] = {"nested": nested, "from_results": from_results, "show_progress": show_progress}
    return Streams("finetune", recipe, overrides, arguments, **more).into(run_dir, resume or was_restarted())
