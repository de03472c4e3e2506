"""Where numbers and pictures go: ``metrics.jsonl`` always, wandb and TensorBoard when asked for.

wandb and tensorboard are imported only where a recipe asks for them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import uuid
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from ssvid.bounds import check
from ssvid.errors import RecipeError
from ssvid.files import append_line, write_json, write_text
from ssvid.train.config import WANDB_MODES, LoggerConfig


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
        append_line(self.path, json.dumps(line))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The recipe stands in the run folder; nothing to do."""

    def rewind(self, step: int) -> None:
        """Drop what was logged for steps from ``step`` on: a resumed run logs it again."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) < step]
        if kept != lines:
            write_text(self.path, "".join(f"{line}\n" for line in kept))


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


def check_loggers(config: LoggerConfig) -> None:
    """Make sure that every logger can start, before a folder is made: a batch job must not wait at a prompt.

    Raises:
        RecipeError: an unknown mode, no login for wandb, or tensorboard is not installed.
    """
    check(config, "logger.")
    if wandb_mode(config) == "online" and not _has_wandb_login():
        raise RecipeError(
            "logger.wandb (online) needs a login, and there is none on this machine. Run `wandb login` once, or set the "
            "environment variable WANDB_API_KEY, or set logger.wandb=offline and upload later with `wandb sync`."
        )
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise RecipeError(
            "logger.tensorboard (true) needs the package tensorboard, and it is not installed. Install it with "
            "`pip install 'ssvid[tensorboard]'`, or set logger.tensorboard=false."
        )


def wandb_mode(config: LoggerConfig) -> str:
    """The recipe's mode; the environment variable WANDB_MODE can turn it down, from online to offline to disabled."""
    asked = os.environ.get("WANDB_MODE", "").replace("dryrun", "offline")
    order = WANDB_MODES.index
    return min(config.wandb, asked, key=order) if asked in WANDB_MODES else config.wandb


def _has_wandb_login() -> bool:
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def build_loggers(
    config: LoggerConfig, folder: Path, recipe: Mapping[str, Any], *, resumed_step: int | None = None
) -> list[Logger]:
    """The JSON-lines logger, and those that the recipe asks for.

    Args:
        folder: of the run. recipe: resolved. resumed_step: optimizer steps done before this process; what was logged
            for later steps is dropped where the logger can. None is a new run.

    Raises:
        RecipeError: as ``check_loggers``; or the wandb run to go on with is gone.
    """
    check_loggers(config)
    loggers: list[Logger] = [JsonLines(folder / "metrics.jsonl")]
    if config.tensorboard:
        tensorboard = TensorBoardLogger(folder, name="tensorboard", version="", purge_step=resumed_step)
        loggers.append(tensorboard)
    if wandb_mode(config) != "disabled":
        loggers.append(_wandb_logger(config, folder, recipe))
    return loggers


def log_picture(loggers: Iterable[Logger], name: str, picture_HWC: np.ndarray, step: int) -> None:
    """Give a uint8 HWC picture to every logger that can show one. Call it on rank 0."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=f"pictures/{name}", images=[picture_HWC], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"pictures/{name}", picture_HWC, step, dataformats="HWC")


def rewind(loggers: Iterable[Logger], step: int) -> None:
    """Forget the lines of a log that came after a step: a run that goes on from there writes them anew."""
    for logger in loggers:
        if isinstance(logger, JsonLines):
            logger.rewind(step)


@contextmanager
def ending(loggers: Sequence[Logger]) -> Iterator[None]:
    """End what the loggers hold open when a training ends or fails."""
    try:
        yield
    except BaseException:
        close_loggers(loggers, "failed")
        raise
    close_loggers(loggers, "success")


def close_loggers(loggers: Iterable[Logger], status: str) -> None:
    """End what the loggers hold open, so that a next run in this process gets its own. status: "success" or "failed"."""
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger) and _rank() == 0:
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


# ---- wandb


def _rank() -> int:
    return int(getattr(rank_zero_only, "rank", 0))


def _wandb_logger(config: LoggerConfig, folder: Path, recipe: Mapping[str, Any]) -> WandbLogger:
    """One run on rank 0, the same after a resume; other ranks get a logger that does nothing."""
    run = _start_wandb(config, folder, recipe) if _rank() == 0 else None
    return WandbLogger(name=folder.name, project=config.project, save_dir=str(folder), experiment=run)


def _start_wandb(config: LoggerConfig, folder: Path, recipe: Mapping[str, Any]) -> Any:
    import wandb

    mode = wandb_mode(config)
    identity = _wandb_identity(folder, config.project)
    try:
        run = wandb.init(
            id=identity["id"],
            project=identity["project"],
            name=folder.name,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            # A run that the server has must still be there; one that was offline so far may not have been uploaded.
            resume="must" if mode == "online" and identity["was_online"] else "allow",
            config=without_machine_paths(recipe),
            settings=_wandb_settings(),
        )
    except wandb.errors.Error as error:
        raise RecipeError(
            f"logger.wandb ({mode}): run {identity['id']} of project {identity['project']!r} cannot be started or gone "
            f"on with ({error}). Set logger.wandb=offline, or remove wandb.json from the run folder to start a new one."
        ) from error
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if mode == "online":
        write_json(folder / "wandb.json", identity | {"was_online": True})
    return run


def _wandb_identity(folder: Path, project: str) -> dict[str, Any]:
    """Id and project of the folder's wandb run, made when it is asked for first. No random generator is touched."""
    path = folder / "wandb.json"
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex[:8], "project": project, "was_online": False})
    return json.loads(path.read_text(encoding="utf-8"))


def _wandb_settings() -> Any:
    """Neither host name, user, command line, code nor terminal output goes into the run."""
    import wandb

    return wandb.Settings(
        host="hidden",
        disable_git=True,
        disable_code=True,
        save_code=False,
        console="off",
        silent=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
    )


def without_machine_paths(values: Any) -> Any:
    """The same plain values, each absolute path cut to its last part: a recipe that may leave the machine."""
    if isinstance(values, Mapping):
        return {key: without_machine_paths(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_machine_paths(value) for value in values]
    if isinstance(values, str) and re.match(r"[/~\\]|[A-Za-z]:[\\/]", values):
        return re.split(r"[/\\]", values.rstrip("/\\"))[-1]
    return values
