"""The folder that holds everything about one run. It is never overwritten silently, and two runs never share it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ssvid.errors import CheckpointError, RunFolderError
from ssvid.files import locked, remove_leftovers
from ssvid.weights.checkpoints import load_checkpoint_dict, not_finite


class RunFolder:
    """Paths of one run: recipes, environment, manifest, metrics, checkpoints, pictures."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    recipe = property(lambda self: self.path / "recipe.yaml")
    resolved = property(lambda self: self.path / "recipe.resolved.yaml")
    env = property(lambda self: self.path / "env.json")
    manifest = property(lambda self: self.path / "manifest.csv")
    out_of_domain = property(lambda self: self.path / "out_of_domain.csv")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    last_checkpoint = property(lambda self: self.path / "checkpoints" / "last.ckpt")
    pictures = property(lambda self: self.path / "pictures")
    untrained = property(lambda self: self.path / "untrained.json")
    results = property(lambda self: self.path / "results.json")
    export = property(lambda self: self.path / "export")

    def require_new(self) -> None:
        """Raise RunFolderError where the folder exists and is not empty."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            going_on = "add --resume to go on with it, or " if self.is_begun else ""
            raise RunFolderError(
                f"run folder {self.path} exists; a run never overwrites another. To keep it, {going_on}"
                "choose another folder with --run-dir."
            )

    @property
    def is_begun(self) -> bool:
        """Whether a run was started here, however far it came."""
        return self.resolved.is_file() or self.env.is_file() or self.checkpoints.is_dir()

    def create(self, *, resume: bool = False) -> None:
        """Make a new, empty folder; RunFolderError where there is one. With ``resume``, one that was begun is taken."""
        if not (resume and self.is_begun):
            self.require_new()
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def require_resumable(self) -> None:
        """Raise RunFolderError where the folder holds something, and no run: there is nothing to go on with or to begin."""
        if self.last_checkpoint.is_file() and not self.resolved.is_file():
            raise RunFolderError(
                f"run folder {self.path} has a checkpoint and no {self.resolved.name}, by which it could go on. Put that "
                "file back, or start a new run from the weights: init_from=" + str(self.last_checkpoint)
            )
        if self.path.exists() and not self.is_begun and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunFolderError(
                f"run folder {self.path} holds other things, and no run to go on with. Name the folder of the run, or a "
                "new one, with --run-dir."
            )

    def checkpoint_to_resume(self, say: Callable[[str], object]) -> Path | None:
        """``last.ckpt``, or where it is damaged or gone the latest whole checkpoint beside it; None where there is none.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be used.
        """
        last = self.last_checkpoint
        found = sorted(self.checkpoints.glob("*.ckpt"))
        problem = _problem(last) if last in found else f"checkpoint {last} is gone."
        if not found or not problem:
            return last if found else None
        steps = {path: step for path in found if path != last and (step := _resumable_step(path)) is not None}
        if not steps:
            raise CheckpointError(
                f"{problem} No other checkpoint of the run can go on. Start it again in a new folder."
            )
        latest = max(steps, key=lambda path: steps[path])
        say(f"warning: {problem} Going on from {latest}, step {steps[latest]}, instead")
        return latest

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone.

        Raises:
            RunFolderError: another process writes into it.
        """
        taken = f"run folder {self.path} is in use by another process. Wait for it, or choose another --run-dir."
        with locked(self.path, RunFolderError(taken)):
            for folder in (self.path, self.checkpoints):
                remove_leftovers(folder)
            yield


def _problem(path: Path) -> str:
    """Why a run cannot go on from a checkpoint; "" where it can."""
    try:
        content = load_checkpoint_dict(path)
    except CheckpointError as error:
        return str(error)
    found = not_finite(content)
    if found:
        return f"checkpoint {path} is of no use: {found} is not finite."
    return "" if "optimizer_states" in content and "ssvid" in content else f"{path} is no checkpoint of a run."


def _resumable_step(path: Path) -> int | None:
    return None if _problem(path) else load_checkpoint_dict(path)["ssvid"]["global_step"]


def next_free(parent: str | Path, name: str) -> Path:
    """``parent/name``, or the first of ``name-2``, ``name-3``, ... that does not exist."""
    path = Path(parent) / name
    number = 2
    while path.exists():
        path = Path(parent) / f"{name}-{number}"
        number += 1
    return path


def next_beside(path: str | Path, name: str, *, otherwise: Path) -> Path:
    """A new folder in the run that ``path`` (its folder or a checkpoint of it) belongs to; below ``otherwise`` without one."""
    path = Path(path)
    for folder in (path, path.parent.parent):
        if RunFolder(folder).last_checkpoint.is_file():
            return next_free(folder, name)
    return next_free(otherwise, name)
