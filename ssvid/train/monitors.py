"""Is the network learning anything? Numbers that need no label: spread of the features, distance from chance, advice.

The history of a run is its ``metrics.jsonl``: what a resumed run knows of earlier validations is read from there. The
state of a callback in ``last.ckpt`` would be one validation behind, because a checkpoint is written before validating.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from ssvid.backbones.contract import pool_map
from ssvid.errors import RecipeError, did_you_mean
from ssvid.intervals import auc_interval, exact_interval
from ssvid.train.config import MIN_VECTORS, MonitorConfig
from ssvid.train.loggers import read_metrics
from ssvid.train.spread import effective_rank, feature_std, mean_cosine

# Below this rank all features lie on one line, whatever the network.
COLLAPSE_RANK = 2.0
# Share of 1 / sqrt(D). Pooled activations after a ReLU are all positive and so far from spread over the sphere even in a
# healthy network: see docs/monitoring.md for what was measured.
COLLAPSE_STD_SHARE = 0.01
# With fewer videos than it takes to see a task that is learned half way, nothing is said about chance.
_HALF_WAY = 0.5

KNOWN = (
    "known: with one method, network and data set, a higher effective rank went along with better linear probes of "
    "image networks (RankMe, arXiv 2210.02885), and a network at chance has not learned its task"
)
UNKNOWN = (
    "not known: whether either holds for this task and your videos; a better pretext metric is no promise of better "
    "features. Only labels can tell: ssvid probe scores both checkpoints"
)


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
    smaller: metrics of which less is better, names or shell patterns. num_held_out: videos that a validation measures.
    """

    chance: Mapping[str, float]
    shares: Sequence[str]
    width: int
    config: MonitorConfig
    smaller: Sequence[str] = ("loss",)
    num_held_out: int = 0

    def warnings(self, history: Sequence[Validation]) -> dict[str, str]:
        """cause -> paragraph, for everything that the latest validation gives reason to warn of."""
        if not history:
            return {}
        found = {"collapse": self._collapse(history[-1].metrics)}
        found |= {cause: self._lasting(cause, history) for cause in ("chance", "few_videos")}
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

    def _lasting(self, cause: str, history: Sequence[Validation]) -> str:
        """The warning that one task's metric has stood at chance, or could not be judged, for ``chance_epochs`` epochs."""
        for group in self._groups():
            since = _last_run(history, lambda v, group=group: self.verdict(group, v.metrics) == cause)  # type: ignore[misc]
            if (
                self.config.chance_epochs
                and since
                and since[-1].epoch - since[0].epoch + 1 >= self.config.chance_epochs
            ):
                return self._at_chance_text(group, since) if cause == "chance" else self._few_text(group, since[-1])
        return ""

    def _at_chance_text(self, group: str, since: Sequence[Validation]) -> str:
        return (
            f"{self._judged(group, since[-1].metrics)} has been at chance since epoch {since[0].epoch + 1} ({len(since)} "
            f"validations): {self._standing(group, since[-1].metrics)}. The task is not being learned. Try another "
            "optim.base_lr, look at the pictures of what the task sees, and see docs/monitoring.md."
        )

    def _few_text(self, group: str, now: Validation) -> str:
        return (
            f"too few held-out videos to judge whether the task is being learned: {self._judged(group, now.metrics)} "
            f"{self._standing(group, now.metrics)}, and so it would if the task were learned half way. Hold out more "
            "with data.val_fraction."
        )

    def _standing(self, group: str, metrics: Mapping[str, float]) -> str:
        name = self._judged(group, metrics)
        low, high = self.interval(name, metrics[name], metrics) or (0.0, 1.0)
        return (
            f"{metrics[name]:.3f}, 95 % interval [{low:.3f}, {high:.3f}] over {metrics['num_videos']:.0f} videos "
            f"contains {self.chance[name]:g}"
        )

    # ---- learned or not

    def interval(self, name: str, value: float, metrics: Mapping[str, float]) -> tuple[float, float] | None:
        """95 % interval of a value of a metric over the videos of a validation; None where none is known for it."""
        cases = [metrics.get(f"{kind}/{name}", 0.0) for kind in ("num_positive", "num_negative")]
        if all(cases):
            return auc_interval(value, *cases)
        if name in self.shares and metrics.get("num_videos") and 0 <= value <= 1:
            return exact_interval(value, metrics["num_videos"])
        return None

    def _groups(self) -> list[str]:
        """The tasks of a composite by their label; "" is a task alone."""
        return list(dict.fromkeys(name.rpartition("/")[0] for name in self.chance))

    def _judged(self, group: str, metrics: Mapping[str, float]) -> str:
        """The metric by which a task is judged: an AUC, which sees more than a share of right answers; "" is none."""
        own = [name for name in self.chance if name.rpartition("/")[0] == group and name in metrics]
        known = [name for name in own if self.interval(name, metrics[name], metrics)]
        return next((name for name in known if name not in self.shares), known[0] if known else "")

    def verdict(self, group: str, metrics: Mapping[str, float]) -> str:
        """Whether one task is told from chance: "apart", "chance", "few_videos" (too few to judge), or "unknown"."""
        name = self._judged(group, metrics)
        if not name:
            return "unknown"
        if not self._contains_chance(name, metrics[name], metrics):
            return "apart"
        perfect = 0.0 if self._is_smaller_better(name) else 1.0
        half_way = self.chance[name] + _HALF_WAY * (perfect - self.chance[name])
        return "few_videos" if self._contains_chance(name, half_way, metrics) else "chance"

    def _contains_chance(self, name: str, value: float, metrics: Mapping[str, float]) -> bool:
        low, high = self.interval(name, value, metrics) or (0.0, 1.0)
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

    def _is_smaller_better(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.smaller)

    def best(self, history: Sequence[Validation]) -> Validation | None:
        """The validation with the best pretext metric, the earliest among equals; None where there is none."""
        best: Validation | None = None
        for validation in history:
            if not validation.metrics.get("num_videos", 1):  # none of its videos could be read
                continue
            name = self.best_metric(validation.metrics)
            value, sign = validation.metrics.get(name, math.nan), -1 if self._is_smaller_better(name) else 1
            if math.isfinite(value) and (best is None or sign * value > sign * best.metrics[name]):
                best = validation
        return best

    def advise(self, history: Sequence[Validation]) -> dict[str, Any]:
        """Which checkpoint to take and why, as plain types.

        take: "best", "last", or "neither". metric, best, last: what it rests on, epochs counted from 0.
        """
        best = self.best(history)
        if best is None:
            return {"take": "last", "why": self._why_unmeasured(history)}
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

    def _why_unmeasured(self, history: Sequence[Validation]) -> str:
        if history:
            return "no validation gave a number"
        if self.num_held_out:
            return f"the run ended before the first validation, so its {self.num_held_out} held-out videos were not measured"
        return "no videos were held out, so nothing was measured while training"

    def _choose(self, name: str, best: Validation, last: Validation) -> tuple[str, str]:
        values = f"{name} {best.metrics[name]:.3f} after epoch {best.epoch + 1}"
        group = name.rpartition("/")[0]
        verdict, judged = self.verdict(group, best.metrics), self._judged(group, best.metrics)
        if verdict == "chance":
            also = "" if judged == name else f" ({judged} {best.metrics[judged]:.3f})"
            return "neither", f"even the best {values}{also} cannot be told from chance ({self.chance[judged]:g})"
        take, why = self._compare(name, values, best, last)
        if verdict == "few_videos":
            why += (
                f". {best.metrics['num_videos']:.0f} held-out videos are too few to judge whether the task was learned"
            )
        return take, why

    def _compare(self, name: str, values: str, best: Validation, last: Validation) -> tuple[str, str]:
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
        interval = self.interval(name, best.metrics[name], best.metrics)
        return interval is not None and interval[0] <= last.metrics[name] <= interval[1]


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

    No number is drawn and no extra forward pass is run. What is measured is the network that is exported (``PretextTask.exported``).
    Features are gathered over ranks, so that all ranks agree.

    Args:
        config: the recipe's group. history: the validations before this process, on rank 0; the others get them from it.
        num_held_out: videos that each validation measures.
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
        num_held_out: int = 0,
    ) -> None:
        self.config, self.best_path, self.say, self.num_held_out = config, best_path, say, num_held_out
        self.history = list(history)
        self.warned: dict[str, str] = {}
        self.judge: Judge | None = None
        self._vectors: _Vectors | None = None
        self._watching = self._is_checked = False
        self._handle: Any = None
        self._stage = ""  # the deepest that is trained
        self._measured: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        task, backbone = pl_module.task, pl_module.backbone
        shares = [n for n, c in task.chance().items() if n not in task.epoch_metrics() and 0 < c < 1]
        self._stage = backbone.default_stage
        width = backbone.info.stage(self._stage).channels
        self.judge = Judge(dict(task.chance()), shares, width, self.config, smaller_metrics(task), self.num_held_out)
        self.history = trainer.strategy.broadcast(self.history)
        for end in range(1, len(self.history) + 1):
            self.warned = self.judge.warnings(self.history[:end]) | self.warned
        if self.config.features:
            watch: Any = self._watch
            watched = task.exported_network(backbone)
            if getattr(watched, "_compiled_call_impl", None) is not None:
                watch = torch.compiler.disable(watch)  # here alone: importing the compiler takes seconds
            self._handle = watched.register_forward_hook(watch, with_kwargs=True)

    def advice(self) -> dict[str, Any]:
        """Which checkpoint to take (``Judge.advise``), with everything that was warned of."""
        if self.judge is None:
            raise RuntimeError("advice() was asked for before the run")
        return self.judge.advise(self.history) | {"warnings": dict(self.warned)}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A metric that does not exist is refused in the first step, not in the first validation."""
        if self._is_checked:
            return
        self._is_checked = True
        task, output = pl_module.task, pl_module.last_output
        # Where tasks take turns, this step has shown the metrics of one of them only.
        if self.config.keep_best and self.judge and not getattr(task, "alternates", False):
            self.judge.best_metric(dict.fromkeys(("loss", *output.metrics, *task.epoch_metrics()), 0.0))

    # ---- measuring

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._vectors = _Vectors(-(-self.config.max_vectors // trainer.world_size))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._watching = dataloader_idx == 0  # videos from elsewhere (1) are not watched

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._watching = False

    def _watch(self, backbone: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        if self._watching and self._vectors is not None:
            map_BCTHW = trained_map(self._stage, args, kwargs, output)
            if map_BCTHW is not None:
                self._vectors.add(pool_map(map_BCTHW.detach()).float())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        found, self._vectors = self._vectors, None
        if trainer.sanity_checking or found is None:
            return
        chance = pl_module.task.chance()
        counts = pl_module.num_measured().items()
        self._measured = {name: n for name, n in counts if name == "num_videos" or name.partition("/")[2] in chance}
        if self.config.features:
            width = pl_module.backbone.info.stage(self._stage).channels
            empty = torch.zeros(0, width, device=pl_module.device)
            features_ND = gather_rows(trainer, torch.cat([empty, *found.rows]))
            if len(features_ND) >= MIN_VECTORS:
                self._measured["effective_rank"] = effective_rank(features_ND)
                self._measured["feature_std"] = feature_std(features_ND)
                self._measured["mean_cosine"] = mean_cosine(features_ND)
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


def smaller_metrics(task: Any) -> tuple[str, ...]:
    """The metrics of a task of which less is better, names or shell patterns."""
    told = [name for name, metric in task.epoch_metrics().items() if metric.higher_is_better is False]
    return ("loss", *task.smaller_is_better, *told)


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
