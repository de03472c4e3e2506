"""Going on with a run: in which folder, what may change, and what a longer run means."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ssvid.data.manifest import Manifest
from ssvid.errors import RecipeError, RunFolderError
from ssvid.features.reading import check_contents
from ssvid.files import write_atomic
from ssvid.ranks import agreed, meet_anew, num_restarts
from ssvid.recipe.check import marks
from ssvid.recipe.load import SCALED, LoadedRecipe, diff_recipes, load_recipe
from ssvid.recipe.schema import KINDS
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.config import OptimConfig
from ssvid.train.optim import lr_factor
from ssvid.train.run_folder import RunFolder

Say = Callable[[str], None]


def was_restarted() -> bool:
    """Whether a launcher started this command again, as it stood: then it goes on where it was."""
    meet_anew()
    return num_restarts() > 0


def recipe_and_folder(recipe: Any, run_dir: str | Path | None, resume: bool) -> tuple[Any, str | Path | None]:
    """The recipe and the folder of a run, where its folder is named in place of a recipe.

    Raises:
        RunFolderError: the folder that is to be gone on with holds no run.
    """
    if not resume or run_dir is not None or not isinstance(recipe, str | Path) or not Path(recipe).is_dir():
        return recipe, run_dir
    folder = RunFolder(recipe)
    if folder.resolved.is_file():
        return folder.resolved, recipe
    raise RunFolderError(
        f"{recipe} holds no run to go on with. Begin one there, and later go on with it, by the same command: name its "
        f"recipe, and --run-dir {recipe} --resume."
    )


def run_folder(run_dir: str | Path | None, resume: bool, default: Callable[[], Path]) -> RunFolder:
    """The folder that was named, or a new one; all processes of a launcher take the same.

    Raises:
        RunFolderError: ``--resume`` without a folder.
    """
    if run_dir is not None:
        return RunFolder(run_dir)
    if resume and not was_restarted():
        raise RunFolderError("--resume needs the folder of the run to continue. Name it with --run-dir.")
    return RunFolder(agreed("run_dir", lambda: str(default())))


def recorded_recipe(folder: RunFolder, kind: str) -> dict[str, Any] | None:
    """The resolved recipe of the run in a folder, with what later versions added at its default; None where nothing was
    begun.
    """
    if not folder.resolved.is_file():
        return None
    return load_recipe(folder.resolved, kind=kind).resolved


def go_on(loaded: LoadedRecipe, before: Mapping[str, Any]) -> LoadedRecipe:
    """The recipe of a run that goes on: what was planned for fewer epochs stays as it was planned."""
    config, planned = loaded.recipe, before.get("optim")
    if planned is None:
        return loaded
    optim: OptimConfig = config.optim  # type: ignore[union-attr]
    longer = [planned["epochs"]] if optim.epochs > planned["epochs"] else []
    own = replace(optim, extended_from=[*planned["extended_from"], *longer])
    if loaded.origins.get("optim.warmup_epochs") == SCALED:
        own.warmup_epochs = planned["warmup_epochs"]
    config.optim = own  # type: ignore[union-attr]
    return loaded._replace(resolved=loaded.resolved | {"optim": asdict(own)})


def check_folder(
    folder: RunFolder,
    before: Mapping[str, Any] | None,
    resolved: Mapping[str, Any],
    *,
    resume: bool,
    may_extend: bool = False,
) -> list[str]:
    """What a run that goes on changes without computing anything else, in lines; none where it begins.

    Raises:
        RunFolderError: a new run needs a new folder, and one that goes on its own. RecipeError: see ``refuse_changes``.
    """
    if not resume:
        folder.require_new()
        return []
    folder.require_resumable()
    return [] if before is None else refuse_changes(folder, before, resolved, may_extend=may_extend)


def refuse_changes(
    folder: RunFolder, before: Mapping[str, Any], resolved: Mapping[str, Any], *, may_extend: bool = False
) -> list[str]:
    """Lines ``key.path: old -> new`` of what a resumed run changes without computing anything else.

    may_extend: whether what is marked as extendable (``optim.epochs``) may grow.

    Raises:
        RecipeError: the run would compute something else than the one in the folder.
    """
    schema = KINDS[str(resolved["kind"])]
    free: list[str] = []
    bound: list[str] = []
    for line in diff_recipes(before, resolved):
        key = line.partition(":")[0]
        marked = marks(schema, key)
        fine = not marked.get("computes", True) or (
            may_extend and marked.get("extends") and _grows(before, resolved, key)
        )
        (free if fine else bound).append(line)
    if bound:
        raise RecipeError(_refusal(folder, bound))
    return free


def _refusal(folder: RunFolder, changes: list[str]) -> str:
    last = folder.last_checkpoint
    weights = f" (init_from={last} takes its weights)" if last.is_file() else ""
    listing = "\n".join(f"  {line}" for line in changes)
    return (
        f"the recipe is not the one that {folder.path} was started with; a resumed run computes the same numbers. "
        f"Undo these changes, or start a new run{weights} with another --run-dir:\n{listing}"
    )


def _grows(before: Mapping[str, Any], resolved: Mapping[str, Any], key: str) -> bool:
    """Whether a number of steps or epochs only grew; -1 is without end. A list may get more items."""
    group, _, name = key.rpartition(".")
    old, new = before[group][name], resolved[group][name]
    if isinstance(new, list):
        return new[: len(old)] == old
    return bool(new == -1 or 0 < old < new)


def is_longer(changes: list[str]) -> bool:
    """Whether the lines of ``refuse_changes`` hold a longer run."""
    return any(line.startswith(("optim.epochs:", "trainer.max_steps:")) for line in changes)


def longer_text(optim: OptimConfig, steps_per_epoch: int, lr: float) -> str:
    """What becomes of the learning rate of a run that was made longer."""
    old = optim.extended_from[-1]
    step, factor = old * steps_per_epoch, lr_factor(optim, steps_per_epoch)
    words = f"{old} epochs made {optim.epochs}: after step {step} the learning rate goes on at {lr * factor(step):.6g}"
    if optim.schedule == "cosine":
        return f"{words}, where the cosine of {optim.epochs} epochs stands then; a run of {optim.epochs} from the start differs"
    return f"{words}, as in a run of {optim.epochs} epochs from the start ({optim.schedule})"


def write_recipe(folder: RunFolder, resolved: Mapping[str, Any], changes: list[str]) -> None:
    """Keep how the run goes on: ``recipe.resolved.yaml`` as it is now, and a line in ``resumed.jsonl``."""
    if not changes:
        return
    if is_longer(changes):
        folder.results.unlink(missing_ok=True)  # they are of the shorter run, whose last checkpoint is left behind
    with open(folder.path / "resumed.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"changes": changes}) + "\n")
    text = to_yaml(resolved)
    write_atomic(folder.resolved, lambda out: out.write(text.encode()))


def kept_manifest(path: Path, root: str | Path, old_root: str | Path | None, *, group: str = "data") -> Manifest:
    """The table that a run keeps, with its files looked for below ``root``; their contents too where that is another.

    Raises:
        DataError: a file is missing, or is not the one that the run was started with.
    """
    manifest = Manifest.load(path, root, allow_outside=True)
    way_out = f"Set {group}.root to the folder that holds them."
    manifest.check_files(way_out)
    if old_root is not None and os.path.abspath(old_root) != os.path.abspath(root):
        check_contents(manifest, manifest.rows, f"Set {group}.root to the videos that the run was started with.")
    return manifest
