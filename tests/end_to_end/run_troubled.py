"""A pretraining run to which something happens: main_logged([RUN_DIR, RESUME(0|1), TROUBLE, key=value, ...], LOG, ENVIRONMENT).

TROUBLE: ``nan:STEP:RANK`` (from 0; that rank alone sees it), ``slow:SECONDS`` (each step, and each batch of a validation), or
``none``. Each finished step and each beginning of a validation is a line of RUN_DIR.steps.rankN.
Not a test: ``test_trouble`` starts it in a process of its own.
"""

import math
import multiprocessing
import os
import time
from pathlib import Path

import pytorch_lightning as pl

import ssvid
import ssvid.programs.pretrain  # loaded before processes are forked
from ssvid.errors import SsvidError
from tests.end_to_end import run_hashed


class Trouble(pl.Callback):
    def __init__(self, steps_file: str, trouble: str) -> None:
        self.steps_file = steps_file
        kind, *values = trouble.split(":")
        self.nan = tuple(map(int, values)) if kind == "nan" else None
        self.seconds = float(values[0]) if kind == "slow" else 0.0

    def note(self, trainer, line):
        with open(f"{self.steps_file}.rank{trainer.global_rank}", "a") as file:
            file.write(f"{line}\n")

    def on_train_start(self, trainer, pl_module):
        self.note(trainer, "start")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(self.seconds)

    def on_after_backward(self, trainer, pl_module):
        if self.nan == (trainer.global_step, trainer.global_rank):
            next(p for p in pl_module.parameters() if p.grad is not None).grad[0] = math.nan

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note(trainer, trainer.global_step)

    def on_validation_start(self, trainer, pl_module):
        self.note(trainer, "validation")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        time.sleep(self.seconds)


def main(argv: list[str]) -> None:
    run_dir, resume, trouble, *overrides = argv
    result = ssvid.pretrain(
        run_hashed.RECIPE,
        "trainer.save_every_steps=0",
        "monitor.untrained=false",
        "monitor.clips_per_video=1",
        *overrides,
        run_dir=Path(run_dir),
        resume=bool(int(resume)),
        show_progress=False,
        callbacks=[Trouble(f"{run_dir}.steps", trouble)],
    )
    print(result)


def main_logged(argv: list[str], log: str, launcher: dict[str, str]) -> None:
    """The same in a forked process, in a group of its own; its exit code is that of the command line.

    launcher: what torchrun would put into the environment.
    """
    os.setsid()
    os.environ |= launcher
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method("fork", force=True)  # of the data workers: as where a user starts the program
    try:
        main(argv)
    except SsvidError as error:
        print(f"ssvid: {error}", flush=True)
        raise SystemExit(error.exit_code) from None
