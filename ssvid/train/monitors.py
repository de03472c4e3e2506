"""Is the network learning anything? Numbers that need no label: spread of the features, distance from chance, advice.

The history of a run is its ``metrics.jsonl``: what a resumed run knows of earlier validations is read from there. The
state of a callback in ``last.ckpt`` would be one validation behind, because a checkpoint is written before validating.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from ssvid.backbones.contract import pool_map
from ssvid.errors import RecipeError, did_you_mean
from ssvid.train.config import MonitorConfig
from ssvid.train.loggers import read_metrics

# Below this rank all features lie on one line, whatever the network.
COLLAPSE_RANK = 2.0
# Share of 1 / sqrt(D). Pooled activations after a ReLU are all positive and so far from spread over the sphere even in a
# healthy network: see docs/monitoring.md for what was measured.
COLLAPSE_STD_SHARE = 0.01
# With fewer vectors the rank is small for lack of vectors, and nothing is measured.
MIN_VECTORS = 8
_EPSILON = 1e-7
_Z95 = 1.959963984540054
# Metrics whose name holds one of these are better when smaller.
_SMALLER_IS_BETTER = ("loss", "error", "distance")

KNOWN = (
    "known: with one method, network and data set, a higher effective rank went along with better linear probes of "
    "image networks (RankMe, arXiv 2210.02885), and a network at chance has not learned its task"
)
UNKNOWN = (
    "not known: whether either holds for this task and your videos; a better pretext metric is no promise of better "
    "features. Only labels can tell: ssvid probe scores both checkpoints"
)


# ---- measures ---------------------------------------------------------------------------------------------------------


def effective_rank(features_ND: Tensor) -> float:
    """RankMe: the exponential of the entropy of the normalized singular values; in how many directions features vary.

    Garrido et al., ICML 2023, arXiv 2210.02885, equation 1: exp(-sum p_k log p_k), p_k = s_k / |s|_1 + 1e-7. At most
    min(N, D); 1 where all features lie on one line; 0 where all are zero. The scale of the features does not matter.
    Differs: taken on the pooled map of the backbone, not on the output of a projector, and on fewer vectors than the
    paper's 25,600; so values are comparable within a run, not with the paper's.
    """
    singular = torch.linalg.svdvals(features_ND.detach().cpu().double())
    total = singular.sum()
    if total == 0:
        return 0.0
    p = singular / total + _EPSILON
    return float(torch.exp(-(p * p.log()).sum()))


def feature_std(features_ND: Tensor) -> float:
    """Mean over the D columns of the standard deviation of L2-normalized features, over the N rows.

    SimSiam, Chen and He, CVPR 2021, arXiv 2011.10566, section 4.1: 1 / sqrt(D) where features are spread evenly over the
    sphere, 0 where all point the same way.
    """
    unit = torch.nn.functional.normalize(features_ND.detach().cpu().double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean())


def wilson_interval(share: float, num: float) -> tuple[float, float]:
    """95 % interval of a binomial share of ``num`` trials (Wilson 1927).

    Wide enough also for the mean of values in [0, 1] that are not 0 or 1 alone: their variance is smaller.
    """
    if num <= 0:
        return 0.0, 1.0
    z2 = _Z95**2
    center = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = _Z95 / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
    return max(0.0, center - half), min(1.0, center + half)


# ---- what the numbers mean --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validation:
    """One validation of a run: optimizer steps done, epoch from 0, the ``val/`` numbers without their prefix."""

    step: int
    epoch: int
    metrics: Mapping[str, float]


def read_validations(path: Path) -> list[Validation]:
    """The validations that a ``metrics.jsonl`` holds, oldest first; none where there is no such file."""
    lines = read_metrics(path) if path.exists() else []
    return [
        Validation(
            line["step"] + 1,
            line["epoch"],
            {k.removeprefix("val/"): float(v) for k, v in line.items() if k.startswith("val/")},
        )
        for line in lines
        if any(k.startswith("val/") for k in line)
    ]


@dataclass(frozen=True)
class Judge:
    """What is known of a run besides its history: enough to warn and to advise. All methods are pure.

    chance: metric -> what a blind guess scores. shares: those of them that are means of values in [0, 1], one for each
    video, so that the binomial interval holds (not an AUC). width: D of the features. config: the recipe's group.
    """

    chance: Mapping[str, float]
    shares: Sequence[str]
    width: int
    config: MonitorConfig

    def warnings(self, history: Sequence[Validation]) -> dict[str, str]:
        """cause -> paragraph, for everything that the latest validation gives reason to warn of."""
        found = {"collapse": self._collapse(history[-1].metrics), "chance": self._chance(history)} if history else {}
        return {cause: text for cause, text in found.items() if text}

    def _collapse(self, metrics: Mapping[str, float]) -> str:
        rank, std = metrics.get("effective_rank"), metrics.get("feature_std")
        if rank is None or std is None:
            return ""
        least = COLLAPSE_STD_SHARE / math.sqrt(self.width)
        if rank >= COLLAPSE_RANK and std >= least:
            return ""
        return (
            f"the features have collapsed: effective rank {rank:.2f} (warned below {COLLAPSE_RANK:g}), feature standard "
            f"deviation {std:.2g} (warned below {least:.2g} = {COLLAPSE_STD_SHARE:g} / sqrt({self.width})). All videos "
            "get nearly the same vector, so nothing can be told apart by it. Lower optim.base_lr, lengthen "
            "optim.warmup_epochs, and see docs/monitoring.md."
        )

    def _chance(self, history: Sequence[Validation]) -> str:
        needed = self.config.chance_epochs
        for name in self.shares:
            since = _last_run(history, partial(self.at_chance, name))
            if needed and since and since[-1].epoch - since[0].epoch + 1 >= needed:
                now = since[-1].metrics
                low, high = wilson_interval(now[name], now["num_videos"])
                return (
                    f"{name} has been at chance since epoch {since[0].epoch + 1} ({len(since)} validations): "
                    f"{now[name]:.3f}, 95 % interval [{low:.3f}, {high:.3f}] over {now['num_videos']:.0f} videos "
                    f"contains {self.chance[name]:g}. The task is not being learned, or too few videos are held out to "
                    "see it (data.val_fraction). Try another optim.base_lr, look at the pictures of what the task sees, "
                    "and see docs/monitoring.md."
                )
        return ""

    def at_chance(self, name: str, validation: Validation) -> bool:
        """Whether the 95 % interval of the metric contains chance."""
        metrics = validation.metrics
        if name not in metrics or not metrics.get("num_videos") or not 0 <= metrics[name] <= 1:
            return False
        low, high = wilson_interval(metrics[name], metrics["num_videos"])
        return low <= self.chance[name] <= high

    # ---- which checkpoint

    def best_metric(self, metrics: Mapping[str, float]) -> str:
        """The metric that ranks checkpoints: the one configured, else the first with a chance level, else the loss.

        Raises:
            RecipeError: the configured one does not exist.
        """
        named = self.config.best_metric
        if named == "auto":
            return next((name for name in self.chance if name in metrics), "loss")
        if named not in metrics:
            raise RecipeError(
                f"monitor.best_metric ({named!r}) must be auto or a metric of the task. {did_you_mean(named, metrics)}"
            )
        return named

    def best(self, history: Sequence[Validation]) -> Validation | None:
        """The validation with the best pretext metric, the earliest among equals; None where there is none."""
        best: Validation | None = None
        for validation in history:
            name = self.best_metric(validation.metrics)
            value = validation.metrics.get(name, math.nan)
            if math.isfinite(value) and (best is None or _is_better(name, value, best.metrics[name])):
                best = validation
        return best

    def advise(self, history: Sequence[Validation]) -> dict[str, Any]:
        """Which checkpoint to take and why, as plain types.

        take: "best", "last", or "neither". metric, best, last: what it rests on, epochs counted from 0.
        """
        best = self.best(history)
        if best is None:
            return {"take": "last", "why": "no videos were held out, so nothing was measured while training"}
        name, last = self.best_metric(best.metrics), history[-1]
        take, why = self._choose(name, best, last)
        if take == "best" and not self.config.keep_best:
            why += ". monitor.keep_best is false, so that checkpoint was not kept"
            take = "last"
        return {
            "take": take,
            "why": why,
            "metric": name,
            "best": {"epoch": best.epoch, "step": best.step, **best.metrics},
            "last": {"epoch": last.epoch, "step": last.step, **last.metrics},
            "known": KNOWN,
            "unknown": UNKNOWN,
        }

    def _choose(self, name: str, best: Validation, last: Validation) -> tuple[str, str]:
        values = f"{name} {best.metrics[name]:.3f} after epoch {best.epoch + 1}"
        if name in self.shares and self.at_chance(name, best):
            return "neither", f"even the best {values} cannot be told from chance ({self.chance[name]:g})"
        if self._collapse(last.metrics):
            if self._collapse(best.metrics):
                return "neither", "the features of both have collapsed"
            return "best", f"the features of the last checkpoint have collapsed; best: {values}"
        if best.step == last.step:
            return "last", f"its {values} is the best of the run"
        values += f", {last.metrics[name]:.3f} after the last, epoch {last.epoch + 1}"
        if not self._indistinguishable(name, best, last):
            return "best", values
        return self._by_rank(best, last, f"{values}: no difference that {best.metrics['num_videos']:.0f} videos show")

    def _by_rank(self, best: Validation, last: Validation, why: str) -> tuple[str, str]:
        ranks = best.metrics.get("effective_rank"), last.metrics.get("effective_rank")
        if ranks[0] is None or ranks[1] is None:
            return "last", f"{why}, and it was trained for longer"
        take = "best" if ranks[0] > ranks[1] else "last"
        return take, f"{why}; effective rank {ranks[0]:.1f} against {ranks[1]:.1f} decides"

    def _indistinguishable(self, name: str, best: Validation, last: Validation) -> bool:
        if name not in self.shares or "num_videos" not in best.metrics:
            return False
        low, high = wilson_interval(best.metrics[name], best.metrics["num_videos"])
        return low <= last.metrics[name] <= high


def _is_better(name: str, value: float, than: float) -> bool:
    return value < than if any(word in name for word in _SMALLER_IS_BETTER) else value > than


def _last_run(history: Sequence[Validation], holds: Callable[[Validation], bool]) -> list[Validation]:
    """The longest end of the history in which a condition holds throughout."""
    found: list[Validation] = []
    for validation in reversed(history):
        if not holds(validation):
            break
        found.insert(0, validation)
    return found


def advice_text(advice: Mapping[str, Any]) -> str:
    """Warnings and advice of a run as lines for a person; "" where there is no advice."""
    if not advice:
        return ""
    file = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt", "neither": "neither checkpoint"}
    known = [f"  {advice[key]}." for key in ("known", "unknown") if key in advice]
    warned = [f"warning: {text}" for text in advice["warnings"].values()]
    return "\n".join([*warned, f"advice: take {file[advice['take']]}: {advice['why']}.", *known]) + "\n"


def check_monitor(config: MonitorConfig) -> None:
    """Make sure that the values make sense.

    Raises:
        RecipeError: names the value and its rule.
    """
    if config.max_vectors < MIN_VECTORS:
        raise RecipeError(
            f"monitor.max_vectors ({config.max_vectors}) must be at least {MIN_VECTORS}. Set monitor.max_vectors=2048, "
            "or monitor.features=false to measure no features."
        )
    if config.chance_epochs < 0:
        raise RecipeError(
            f"monitor.chance_epochs ({config.chance_epochs}) must not be negative. Set monitor.chance_epochs=0 to never "
            "warn of chance."
        )


# ---- the callback -----------------------------------------------------------------------------------------------------


@dataclass
class _Vectors:
    """Pooled features of one validation on one rank, at most ``room`` rows."""

    room: int
    rows: list[Tensor] = field(default_factory=list)

    def add(self, vectors_BD: Tensor) -> None:
        kept = vectors_BD[: self.room]
        self.room -= len(kept)
        if len(kept):
            self.rows.append(kept)


class Monitor(pl.Callback):
    """Measures features in the validations that are run anyway, warns once per cause, keeps the best checkpoint.

    No number is drawn and no extra forward pass is run. Features are gathered over ranks, so that all ranks agree.

    Args:
        config: the recipe's group. history: the validations before this process, on rank 0; the others get them from it.
        best_path: where the checkpoint with the best pretext metric goes. say: prints a warning.

    Attributes:
        warned: cause -> paragraph, of the whole run, what an earlier process said included.
    """

    def __init__(
        self,
        config: MonitorConfig,
        *,
        history: Sequence[Validation] = (),
        best_path: Path,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.best_path, self.say = config, best_path, say
        self.history = list(history)
        self.warned: dict[str, str] = {}
        self.judge: Judge | None = None
        self._vectors: _Vectors | None = None
        self._counts: dict[str, float] = {}
        self._watching = False
        self._handle: Any = None
        self._measured: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        task, backbone = pl_module.task, pl_module.backbone
        shares = [n for n, c in task.chance().items() if n not in task.epoch_metrics() and 0 < c < 1]
        width = backbone.info.stage(backbone.default_stage).channels
        self.judge = Judge(dict(task.chance()), shares, width, self.config)
        self.history = trainer.strategy.broadcast(self.history)
        for end in range(1, len(self.history) + 1):
            self.warned = self.judge.warnings(self.history[:end]) | self.warned
        if self.config.features:
            watch: Any = self._watch
            if getattr(backbone, "_compiled_call_impl", None) is not None:
                watch = torch.compiler.disable(watch)  # here alone: importing the compiler takes seconds
            self._handle = backbone.register_forward_hook(watch, with_kwargs=True)

    def advice(self) -> dict[str, Any]:
        """Which checkpoint to take (``Judge.advise``), with everything that was warned of."""
        if self.judge is None:
            raise RuntimeError("advice() was asked for before the run")
        return self.judge.advise(self.history) | {"warnings": dict(self.warned)}

    # ---- measuring

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._vectors = _Vectors(-(-self.config.max_vectors // trainer.world_size))
        self._counts = {}

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # An idle rank is handed a sample that counts for nothing; videos from elsewhere (1) are not watched.
        self._watching = dataloader_idx == 0 and bool((batch["weight"] > 0).all())

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._watching = False
        if dataloader_idx:
            return
        for name in pl_module.last_output.metrics:
            self._counts[name] = self._counts.get(name, 0.0) + float((batch["weight"] > 0).sum())

    def _watch(self, backbone: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        if self._watching and self._vectors is not None:
            map_BCTHW = trained_map(backbone.default_stage, args, kwargs, output)
            if map_BCTHW is not None:
                self._vectors.add(pool_map(map_BCTHW.detach()).float())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        found, self._vectors = self._vectors, None
        if trainer.sanity_checking or found is None:
            return
        # Of several tasks each may be asked about a part of the videos only: the smallest part counts.
        counts = torch.tensor([self._counts[name] for name in sorted(self._counts)], device=pl_module.device)
        self._measured = {"num_videos": float(trainer.strategy.reduce(counts, reduce_op="sum").min())}
        if self.config.features:
            width = pl_module.backbone.info.stage(pl_module.backbone.default_stage).channels
            empty = torch.zeros(0, width, device=pl_module.device)
            features_ND = gather_rows(trainer, torch.cat([empty, *found.rows]))
            if len(features_ND) >= MIN_VECTORS:
                self._measured["effective_rank"] = effective_rank(features_ND)
                self._measured["feature_std"] = feature_std(features_ND)
        # As metrics.jsonl will hold them, so that a resumed run judges by the same numbers.
        self._measured = {name: float(np.float32(value)) for name, value in self._measured.items()}
        for name, value in self._measured.items():
            pl_module.log(f"val/{name}", value, rank_zero_only=False, sync_dist=False)

    # ---- judging

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or self.judge is None:
            return
        metrics = pl_module.val_metrics | self._measured
        self.history.append(Validation(trainer.global_step, trainer.current_epoch, metrics))
        self._warn(trainer)
        if self.config.keep_best and self.judge.best(self.history) is self.history[-1]:
            trainer.save_checkpoint(self.best_path)

    def _warn(self, trainer: pl.Trainer) -> None:
        assert self.judge is not None
        for cause, text in self.judge.warnings(self.history).items():
            if cause not in self.warned:
                self.warned[cause] = text
                self.say(f"warning: {text}")
                for logger in trainer.loggers:
                    values = {f"warning/{cause}": 1.0, "epoch": float(trainer.current_epoch)}
                    logger.log_metrics(values, step=trainer.global_step - 1)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def trained_map(trained: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Tensor | None:
    """The map of the deepest trained stage among what a backbone's ``forward`` returned; None where it is not there."""
    asked = kwargs.get("stage", args[1] if len(args) > 1 else None)
    names = [asked or trained] if asked is None or isinstance(asked, str) else list(asked)
    maps = [output] if isinstance(output, Tensor) else list(output)
    return maps[names.index(trained)] if trained in names else None


def gather_rows(trainer: pl.Trainer, rows_ND: Tensor) -> Tensor:
    """The rows of all ranks, in rank order; each rank may have another number of them."""
    if trainer.world_size == 1:
        return rows_ND
    counts = trainer.strategy.all_gather(torch.tensor([len(rows_ND)], device=rows_ND.device)).flatten().tolist()
    padded = torch.nn.functional.pad(rows_ND, (0, 0, 0, max(counts) - len(rows_ND)))
    return torch.cat([part[:n] for part, n in zip(trainer.strategy.all_gather(padded), counts, strict=True)])
