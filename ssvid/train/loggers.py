"""Where numbers go: ``metrics.jsonl`` always, wandb when asked for."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from ssvid.errors import RecipeError, did_you_mean
from ssvid.train.config import LoggerConfig

WANDB_MODES = ("disabled", "offline", "online")


class JsonLines(Logger):
    """One JSON object per line: ``step`` (number of the optimizer step just done, from 0), ``epoch``, the metrics."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return "1"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        epoch = metrics.get("epoch", 0)
        line: dict[str, Any] = {"step": step, "epoch": int(epoch)}
        line.update({k: _plain(v) for k, v in metrics.items() if k != "epoch"})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The recipe stands in the run folder; nothing to do."""

    def rewind(self, step: int) -> None:
        """Drop what was logged for steps from ``step`` on: a resumed run logs it again."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) < step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _plain(value: Any) -> float | int | str:
    number = float(value)
    return number if number == number and abs(number) != float("inf") else str(number)


def _step_of(line: str) -> float:
    try:
        step = json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # the half-written last line of a killed run
        return float("inf")
    return -1 if step is None else step


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a ``metrics.jsonl``; a run may be writing the next one."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def build_loggers(config: LoggerConfig, folder: Path, recipe: Mapping[str, Any]) -> list[Logger]:
    """The JSON-lines logger, and wandb's where the recipe asks for it.

    Raises:
        RecipeError: ``logger.wandb`` is none of disabled, offline, online.
    """
    if config.wandb not in WANDB_MODES:
        raise RecipeError(f"logger.wandb ({config.wandb!r}) is unknown. {did_you_mean(config.wandb, WANDB_MODES)}")
    loggers: list[Logger] = [JsonLines(folder / "metrics.jsonl")]
    if config.wandb != "disabled":
        wandb = WandbLogger(
            project=config.project, name=folder.name, save_dir=str(folder), offline=config.wandb == "offline"
        )
        wandb.log_hyperparams(dict(recipe))
        loggers.append(wandb)
    return loggers
