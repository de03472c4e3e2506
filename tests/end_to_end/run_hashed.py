"""A pretraining run that writes down, for every sample it is given, its ticket and a hash of its pixels and targets.

Usage: run_hashed.py RUN_DIR OUT KILL_AT_STEP(or -1) RESUME(0|1) key=value ...
Not a test: ``test_exactness`` starts it as a process of its own, so that it can be killed.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytorch_lightning as pl

import ssvid

RECIPE = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"name": "folder", "root": "???", "val_fraction": 0.1, "index_workers": 1},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 4, "warmup_epochs": 1, "weight_decay": 0.05},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "save_every_steps": 1, "pictures": False},
}


class WriteHashes(pl.Callback):
    def __init__(self, out: str, kill_at_step: int) -> None:
        self.out, self.kill_at_step = out, kill_at_step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.kill_at_step:
            os._exit(9)  # as a SIGKILL would: no handler, no flush, workers orphaned
        with open(f"{self.out}.rank{trainer.global_rank}", "a") as file:
            for ticket, clip, label in zip(batch["tickets"], batch["clips"], batch["is_sped"], strict=True):
                digest = hashlib.sha256(clip.numpy().tobytes() + label.numpy().tobytes()).hexdigest()
                file.write(json.dumps([ticket.tolist(), digest]) + "\n")


if __name__ == "__main__":
    run_dir, out, kill_at_step, resume, *overrides = sys.argv[1:]
    result = ssvid.pretrain(
        RECIPE,
        *overrides,
        run_dir=Path(run_dir),
        resume=bool(int(resume)),
        show_progress=False,
        callbacks=[WriteHashes(out, int(kill_at_step))],
    )
    print(result)
