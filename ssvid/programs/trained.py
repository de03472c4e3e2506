"""A trained network with the head of its task, as its checkpoint holds it: for whoever asks it again what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.errors import CheckpointError
from ssvid.recipe.building import build_networks
from ssvid.recipe.schema import PretrainRecipe
from ssvid.tasks import PretextTask
from ssvid.train.run_folder import RunFolder
from ssvid.weights.checkpoints import Checkpoint, load_backbone_weights, match_keys


def checkpoint_file(path: str | Path, who: str) -> Path:
    """The checkpoint of a run folder, or the file itself. who: needs it, in the words of an error.

    Raises:
        CheckpointError: an export, which has no task head, or a folder that is no run.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    file = RunFolder(path).last_checkpoint
    if not file.is_file():
        what = "an export, and the task's head is not in it" if (path / "config.json").is_file() else "no run folder"
        raise CheckpointError(
            f"checkpoint {path} is {what}. {who} needs the whole network: name a run folder, or its checkpoints/last.ckpt."
        )
    return file


def recipe_of(trained: Checkpoint) -> Mapping[str, Any]:
    """The recipe that a checkpoint was trained by.

    Raises:
        CheckpointError: it does not say.
    """
    if trained.meta.get("task") is None or not trained.meta.get("recipe"):
        raise CheckpointError(
            f"{trained.path} does not say by which recipe it was trained. Take a checkpoint of ssvid pretrain; ssvid audit takes "
            "the recipe beside it: ssvid audit RECIPE --checkpoint ..."
        )
    return trained.meta["recipe"]


def trained_networks(config: PretrainRecipe, trained: Checkpoint) -> tuple[Backbone, PretextTask]:
    """Backbone and task head with the weights of the checkpoint.

    Raises:
        CheckpointError: they do not fit.
    """
    # Every weight comes from the checkpoint: what training started from may be gone.
    own = replace(config, init_from="", init_partial=False, init_inflate=False, init_which="")
    backbone, task = build_networks(own)
    load_backbone_weights(backbone, trained.backbone_state)
    report = match_keys(task.state_dict(), trained.task_state)
    if not report.is_complete:
        raise CheckpointError(
            f"the weights of task {config.task.name} in {trained.path} do not fit: {report}. Use the options that it was "
            "trained with; leaving RECIPE out takes them from the checkpoint."
        )
    task.load_state_dict(trained.task_state)
    return backbone, task
