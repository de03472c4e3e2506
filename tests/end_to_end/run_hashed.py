"""A pretraining run that writes down, for every sample it is given, its ticket and a hash of plan, pixels and targets.

Usage: run_hashed.py RUN_DIR OUT KILL_AT_STEP(or -1) RESUME(0|1) RECIPE(one of RECIPES, or a shipped one) key=value ...
Not a test: ``test_exactness`` starts it in a process of its own, so that it can be killed.
"""

import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

import ssvid
import ssvid.programs.pretrain  # loaded before processes are forked
from ssvid.data.feed.dataset import ClipDataset

RECIPE = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"name": "list", "root": "???", "index_workers": 1},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 4, "warmup_epochs": 1, "weight_decay": 0.05},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "save_every_steps": 1, "pictures": False},
}


# Two tasks, which take turns or each a video of their own.
SHARED = {key: value for key, value in RECIPE.items() if key != "task"}
SPEEDS = [
    {"name": "speediness", "options": RECIPE["task"]["options"]},
    {"name": "speediness", "label": "drops", "options": RECIPE["task"]["options"] | {"spacing": "drop"}},
]
PAIRS = {"name": "temporal_cycle", "options": {
    "group_by": "any", "num_steps": 4, "context_frames": 2, "context_stride": 1, "frame_px": 16, "head": "none",
}}  # fmt: skip
RECIPES = {
    "one": RECIPE,
    "pairs": RECIPE | {"task": PAIRS},
    "alternate": SHARED | {"tasks": SPEEDS, "task": {"options": {"schedule": "alternate"}}},
    "own_videos": SHARED | {"tasks": SPEEDS, "task": {"options": {"videos": "own"}}},
}


class HashedClips:
    """A clip maker that sends a hash of each plan along: which frames, which targets, as they were in the worker."""

    def __init__(self, maker):
        self.maker, self.min_frames = maker, maker.min_frames
        self.group_by = getattr(maker, "group_by", None)
        makers = getattr(maker, "video_makers", ())
        self.video_makers = tuple(HashedClips(one) for one in makers)

    def plan(self, video, rng, batch_rng):
        return self.maker.plan(video, rng, batch_rng)

    def transform(self, views_TCHW, plan, rng, batch_rng):
        digest = hashlib.sha256()
        for array in (*plan.views, *(plan.targets[name] for name in sorted(plan.targets))):
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        sample = self.maker.transform(views_TCHW, plan, rng, batch_rng)
        (name, *_) = sample  # a member's name among several tasks, so that two plans of one sample do not collide
        return sample | {f"{name}_plan": torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)}


class WriteHashes(pl.Callback):
    def __init__(self, out: str, kill_at_step: int) -> None:
        self.out, self.kill_at_step = out, kill_at_step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.kill_at_step:
            os._exit(9)  # as a SIGKILL would: no handler, no flush, workers orphaned
        with open(f"{self.out}.rank{trainer.global_rank}", "a") as file:
            names = sorted(set(batch) - {"tickets", "weight", "unreadable"})
            if not any(name.endswith("_plan") for name in names):
                raise RuntimeError("the plans were not hashed")
            for i, ticket in enumerate(batch["tickets"]):
                digest = hashlib.sha256()
                for name in names:
                    digest.update(name.encode() + batch[name][i].numpy().tobytes())
                file.write(json.dumps([ticket.tolist(), digest.hexdigest()]) + "\n")


def hash_plans() -> None:
    """Have every data set of this process send hashes of its plans."""
    plain = ClipDataset.__init__

    def hashed(self, manifest, rows, clip_maker, **options):
        plain(self, manifest, rows, HashedClips(clip_maker), **options)

    ClipDataset.__init__ = hashed


def main(argv: list[str]) -> None:
    """One run, from the words of a command line."""
    hash_plans()
    run_dir, out, kill_at_step, resume, name, *overrides = argv
    result = ssvid.pretrain(
        RECIPES.get(name, name),
        *overrides,
        run_dir=Path(run_dir),
        resume=bool(int(resume)),
        show_progress=False,
        callbacks=[WriteHashes(out, int(kill_at_step))],
    )
    print(result)


def main_logged(argv: list[str], log: str) -> None:
    """The same in a forked process: what it prints goes to a file."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method("fork", force=True)  # of the data workers: as where a user starts the program
    main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
