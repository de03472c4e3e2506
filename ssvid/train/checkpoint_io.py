"""How Lightning reads and writes checkpoints here: whole or not at all, and never a pickle that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from ssvid.errors import SsvidError
from ssvid.train.module import StopRun, shared
from ssvid.weights.checkpoints import load_checkpoint_dict, not_finite, write_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target and renames. Lightning's own way leaves a truncated file where TMPDIR is elsewhere."""

    def __init__(self, options: str = "optim.") -> None:
        self.options = options  # what stands before the names of the optimizer's options in the recipe

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Raises StopRun where a weight or a value of the optimizer is not finite; the file that is there stays."""
        found = not_finite(checkpoint)
        if found:
            kept = (
                f"what was written before is kept; start a new run from it (init_from={path})"
                if Path(path).exists()
                else ""
            )
            raise StopRun(
                f"{path} is not written, because {found} is not finite: {kept or 'start the run again'} with a lower "
                f"{self.options}base_lr, {self.options}grad_clip_norm=1, or trainer.precision=32."
            )
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint_dict(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class AgreeingDDP(DDPStrategy):
    """DDP in which a checkpoint that cannot be written ends all ranks: the others would wait for the first for ever."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        failure = None
        try:
            super().save_checkpoint(checkpoint, filepath, storage_options)
        except SsvidError as error:
            failure = error
        failure = self.broadcast(failure)
        if failure is not None:
            raise shared(failure)
