"""How Lightning reads and writes checkpoints here: whole or not at all, and never a pickle that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from ssvid.checkpoints import load_checkpoint_dict
from ssvid.files import write_atomic


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target and renames. Lightning's own way leaves a truncated file where TMPDIR is elsewhere."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        write_atomic(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint_dict(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
