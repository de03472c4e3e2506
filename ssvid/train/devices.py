"""Where a training runs: every ``auto`` of the group ``trainer`` replaced by what this machine gives. Without Lightning."""

from __future__ import annotations

from dataclasses import replace

import torch

from ssvid.bounds import check
from ssvid.errors import RecipeError
from ssvid.machine import num_cores
from ssvid.train.config import TrainerConfig


def resolve_trainer(config: TrainerConfig, workers_per_device: int = 0) -> TrainerConfig:
    """The config with every ``auto`` replaced by what this machine gives.

    Args:
        workers_per_device: reading processes beside each training process; on a CPU they need cores of their own.

    Raises:
        RecipeError: a value is not legal, or the device is absent.
    """
    check(config, "trainer.")
    has_gpu = torch.cuda.is_available()
    if config.accelerator == "gpu" and not has_gpu:
        raise RecipeError(
            "trainer.accelerator (gpu) needs a CUDA device, and torch sees none here. Set trainer.accelerator=cpu, or "
            "see `ssvid doctor`."
        )
    accelerator = ("gpu" if has_gpu else "cpu") if config.accelerator == "auto" else config.accelerator
    devices = _devices(config.devices, accelerator)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if accelerator == "gpu" and torch.cuda.is_bf16_supported() else "32"
    threads = config.threads
    if threads == 0 and accelerator == "cpu":
        # More threads than cores make all of them wait for each other: three to four times slower on two cores.
        threads = max(1, num_cores() // devices - workers_per_device)
    return replace(config, accelerator=accelerator, devices=str(devices), precision=precision, threads=threads)


def _devices(devices: str, accelerator: str) -> int:
    present = torch.cuda.device_count() if accelerator == "gpu" else 0
    if str(devices) == "auto":
        return max(1, present)
    if not str(devices).isdigit() or int(devices) < 1:
        raise RecipeError(
            f"trainer.devices ({devices!r}) must be auto or a whole number of at least 1. Set trainer.devices=1."
        )
    if accelerator == "gpu" and int(devices) > present:
        raise RecipeError(
            f"trainer.devices ({devices}) must not exceed the {present} GPUs of this machine. "
            f"Set trainer.devices={present}."
        )
    return int(devices)
