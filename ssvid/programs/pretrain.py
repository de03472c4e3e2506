"""``pretrain``: videos -> manifest -> loaders -> trainer -> checkpoint, in a run folder of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.data.collection import NEVER_TRAINED, check_out_of_domain, load_manifest, refuse_trained, split_rows
from ssvid.data.config import DataConfig
from ssvid.data.feed.module import ClipDataModule, Videos
from ssvid.data.feed.sampler import BatchLayout
from ssvid.data.manifest import Manifest
from ssvid.errors import name_some
from ssvid.files import takes_paths, write_atomic, write_json, write_text
from ssvid.machine import environment, versions
from ssvid.progress import Say, speaker
from ssvid.ranks import global_rank, threads_kept
from ssvid.recipe.building import build_networks, task_names
from ssvid.recipe.load import LoadedRecipe, diff_recipes, load_recipe
from ssvid.recipe.resuming import (
    check_folder,
    go_on,
    is_longer,
    kept_manifest,
    longer_text,
    recipe_and_folder,
    recorded_recipe,
    run_folder,
    was_restarted,
    write_recipe,
)
from ssvid.recipe.schema import PretrainRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.stopping import Stopped
from ssvid.tasks import PretextTask
from ssvid.train.devices import resolve_trainer
from ssvid.train.loggers import build_loggers, check_loggers, ending, rewind
from ssvid.train.module import VALIDATIONS, PretrainModule
from ssvid.train.monitors import Monitor, advice_text, read_validations
from ssvid.train.optim import check_optim, scaled_lr
from ssvid.train.run_folder import RunFolder, next_free
from ssvid.train.trainer import build_trainer, fit
from ssvid.train.untrained import Untrained
from ssvid.weights.checkpoints import read_checkpoint
from ssvid.weights.provenance import Provenance

RUNS = Path("runs")


@dataclass
class PretrainResult:
    """What a pretraining run leaves behind.

    run_dir: the run folder. checkpoint: its last.ckpt. metrics: of the last validation. chance: per metric.
    num_steps: optimizer steps done in all. unreadable: path -> why, of videos that were replaced or left out, held-out
    ones included.
    too_short: paths of videos with fewer frames than the task needs. init: what ``init_from`` filled, key by key.
    out_of_domain: the metrics on the videos of ``data.out_of_domain``; empty where there are none.
    missing: videos that the data set's official lists name and that were not there, as ``data.allow_missing`` allowed.
    untrained: the metrics before the first step, as initialized and with batch statistics of training clips, and for each
    metric the ``better`` of both; empty where they were not measured. versions: of what the numbers depend on, and by
    which instructions they were computed.
    num_held_out, num_measured: held-out videos, and those of them that could be read.
    skipped_steps: those of num_steps that moved nothing, because their loss or gradient was not finite.
    """

    run_dir: Path
    checkpoint: Path
    metrics: dict[str, float]
    chance: dict[str, float]
    num_steps: int
    unreadable: dict[str, str] = field(default_factory=dict)
    too_short: list[str] = field(default_factory=list)
    advice: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] | None = None
    out_of_domain: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    num_held_out: int = 0
    num_measured: int = 0
    skipped_steps: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json`` and ``results.json``."""
        return asdict(self) | {"run_dir": str(self.run_dir), "checkpoint": str(self.checkpoint)}

    @classmethod
    def read(cls, path: Path) -> PretrainResult:
        """The result that a finished run left as ``results.json``; the folder may have moved since."""
        plain = json.loads(path.read_text(encoding="utf-8"))
        own = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        folder = RunFolder(path.parent)
        return cls(**own | {"run_dir": folder.path, "checkpoint": folder.last_checkpoint})

    def __str__(self) -> str:
        measured = zip(VALIDATIONS, (self.metrics, self.out_of_domain), strict=True)
        values = "  ".join(
            f"{series} {name} {value:.3f}{self._beside(name)}"
            for series, metrics in measured
            for name, value in metrics.items()
        )
        skipped = f" ({self.skipped_steps} of them left out: not finite)" if self.skipped_steps else ""
        return (
            f"{self.num_steps} steps done{skipped}.  {values}\n{advice_text(self.advice)}checkpoint: {self.checkpoint}"
        )

    def _beside(self, name: str) -> str:
        """What a metric with a chance level is read beside."""
        if name not in self.chance:
            return ""
        untrained = self.untrained.get("better", {})
        return f" (chance {self.chance[name]:.2f}" + (
            f", untrained {untrained[name]:.3f})" if name in untrained else ")"
        )


@takes_paths("recipe", "run_dir")
@threads_kept()
def pretrain(
    recipe: str | Path | Mapping[str, Any],
    *overrides: str,
    run_dir: str | Path | None = None,
    resume: bool = False,
    show_progress: bool = True,
    callbacks: Sequence[Any] = (),
    **nested: Any,
) -> PretrainResult:
    """Train a backbone on unlabeled videos as a recipe says.

    Args:
        recipe: shipped name, path, or mapping; with ``resume`` also the run folder. overrides: ``key.path=value``. nested: the same as keyword groups.
        run_dir: the run folder; ``runs/<recipe name>``, numbered, where None.
        resume: go on with the run in ``run_dir``, bit for bit, or begin it there where nothing is. What computes nothing
            may change; ``optim.epochs`` and ``trainer.max_steps`` may grow.
        callbacks: more Lightning callbacks, after our own.

    Raises:
        SsvidError: any mistake in the recipe, the data or the folder.
    """
    recipe, run_dir = recipe_and_folder(recipe, run_dir, resume)
    loaded = load_recipe(recipe, overrides, nested=nested, kind="pretrain")
    run = _plan(loaded, run_dir, resume or was_restarted(), speaker(show_progress), show_progress)
    check_optim(run.config.optim)
    if run.is_finished:
        return _finished(run)
    if run.is_first:
        check_loggers(run.config.logger)
    for note in run.notes:
        run.say(note)
    # What is wrong with the recipe is found before a video is read, and what is wrong with them before a folder is made.
    _find_checkpoint(run)
    BatchLayout(
        run.config.loader.global_batch,
        run.world,
        run.config.trainer.accumulate,
        run.config.loader.clips_per_video,
    )
    backbone, task = build_networks(run.config, say=run.say, resumed=run.checkpoint)
    videos = _videos_of(run)
    data = _data_module(run, videos, task)
    module = _module(run, backbone, task, videos, data)
    callbacks = [*_online(run, videos, module), *callbacks]
    if run.is_first:
        run.folder.create(resume=run.resume)
    with run.folder.locked() if run.is_first else contextlib.nullcontext():
        if run.is_first:
            _write_folder(run, videos, module)
        return _fit(run, module, data, callbacks)


# ---- what is to be done


@dataclass
class Run:
    """One pretraining, as its parts see it.

    config: typed; resolved: plain, as it is written down; text: of the recipe's file. before: the recipe of the run that goes
    on, None for a new one; changes: from it, a line each. notes: what is told of both. checkpoint: from which it goes on, None at the beginning.
    """

    config: PretrainRecipe
    resolved: dict[str, Any]
    text: str
    folder: RunFolder
    resume: bool
    before: Mapping[str, Any] | None
    changes: list[str]
    notes: list[str]
    say: Say
    show_progress: bool
    checkpoint: Path | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return global_rank() == 0

    @property
    def world(self) -> int:
        """Training processes."""
        return int(self.config.trainer.devices) * self.config.trainer.num_nodes

    @property
    def is_finished(self) -> bool:
        """Whether a run that goes on has nothing left to do."""
        if self.before is None or not self.folder.results.is_file():
            return False
        return not is_longer(diff_recipes(self.before, self.resolved))


def _plan(loaded: LoadedRecipe, run_dir: str | Path | None, resume: bool, say: Say, show_progress: bool) -> Run:
    config: PretrainRecipe = loaded.recipe  # type: ignore[assignment]
    config.trainer = resolve_trainer(config.trainer, config.loader.workers_per_device)
    folder = run_folder(run_dir, resume, lambda: next_free(RUNS, _name_of(loaded)))
    before = recorded_recipe(folder, "pretrain") if resume else None
    loaded = loaded if before is None else go_on(loaded, before)
    resolved = loaded.resolved | {"trainer": asdict(config.trainer)}
    is_first = global_rank() == 0
    changes = check_folder(folder, before, resolved, resume=resume, may_extend=True) if is_first else []
    notes = [*loaded.notes, *(f"changed, and computes nothing else: {line}" for line in changes)]
    return Run(config, resolved, loaded.text, folder, resume, before, changes, notes, say, show_progress)


def _name_of(loaded: LoadedRecipe) -> str:
    return loaded.path.stem if loaded.path else str(loaded.resolved["task"]["name"])


def _finished(run: Run) -> PretrainResult:
    """The result of a run that has nothing left to do."""
    config, path = run.config, run.folder.path
    longer = "trainer.max_steps=-1" if config.trainer.max_steps > 0 else f"optim.epochs={2 * config.optim.epochs}"
    run.say(f"{path} is already finished. To train it longer: ssvid pretrain {path} --resume {longer}")
    return PretrainResult.read(run.folder.results)


def _find_checkpoint(run: Run) -> None:
    run.checkpoint = run.folder.checkpoint_to_resume(run.say) if run.resume else None
    if run.resume and run.checkpoint is None:
        run.say(f"{run.folder.path} holds no checkpoint yet: the run starts from its beginning")


def _module(run: Run, backbone: Backbone, task: PretextTask, videos: Videos, data: ClipDataModule) -> PretrainModule:
    """What is trained; the header of the run is told."""
    config = run.config
    steps_per_epoch = data.train_batches(run.world).steps_per_epoch
    if config.task.placebo:
        data.require_strangers(run.world, config.optim.epochs)
    lr = scaled_lr(config.optim, config.loader.global_batch)
    run.say(_header(run, data, steps_per_epoch, lr))
    if any(line.startswith("optim.epochs:") for line in run.changes):
        run.say(longer_text(config.optim, steps_per_epoch, lr))
    return PretrainModule(
        backbone,
        task,
        seed=config.seed,
        optim=config.optim,
        lr=lr,
        steps_per_epoch=steps_per_epoch,
        placebo=config.task.placebo,
        provenance=_provenance(run, videos, task, backbone.provenance),
    )


def _fit(run: Run, module: PretrainModule, data: ClipDataModule, callbacks: Sequence[Any]) -> PretrainResult:
    folder, config = run.folder, run.config
    if run.checkpoint is None:
        _prepare(module.task, data)
    step = None if run.checkpoint is None else read_checkpoint(run.checkpoint).meta["global_step"]
    loggers = build_loggers(config.logger, folder.path, run.resolved, resumed_step=step)
    if step is not None:
        run.say(f"goes on with {folder.path} after step {step}")
    if run.is_first:
        rewind(loggers, step or 0)  # also what was logged before the first checkpoint of a run that begins again
    monitor = Monitor(
        config.monitor,
        history=read_validations(folder.metrics) if step is not None and run.is_first else (),
        best_path=folder.checkpoints / "best.ckpt",
        say=run.say,
        num_held_out=len(data.val_set) if data.val_set else 0,
    )
    untrained = Untrained(folder.untrained)
    trainer = build_trainer(
        config.trainer,
        module,
        data,
        folder=folder.path,
        loggers=loggers,
        show_progress=run.show_progress,
        before_saving=[untrained] if config.monitor.untrained else [],  # and before the clock of the progress starts
        more_callbacks=(monitor, *callbacks),
    )
    try:
        with ending(loggers):
            fit(trainer, module, data, run.checkpoint)
    except (KeyboardInterrupt, Stopped) as error:
        raise type(error)(f"{error} Go on with: ssvid pretrain {folder.path} --resume".lstrip()) from None
    result = _result(run, module, data, monitor, untrained)
    if run.is_first:
        write_json(folder.results, result.as_dict())
    if data.unreadable.all_reasons:
        run.say(data.unreadable.summary())
    return result


def _result(
    run: Run, module: PretrainModule, data: ClipDataModule, monitor: Monitor, untrained: Untrained
) -> PretrainResult:
    num_held_out, num_measured = data.num_held_out()
    return PretrainResult(
        run_dir=run.folder.path,
        checkpoint=run.folder.last_checkpoint,
        metrics=module.val_metrics,
        chance=dict(module.task.chance()),
        num_steps=module.trainer.global_step,
        unreadable=data.unreadable.all_reasons,
        too_short=[row.path for row in data.train_set.too_short],
        advice=monitor.advice(),
        init=module.backbone.provenance.get("init"),
        out_of_domain=module.ood_metrics,
        missing=list(data.train_set.manifest.missing),
        untrained=untrained.with_better(module.task),
        num_held_out=num_held_out,
        num_measured=num_measured,
        skipped_steps=module.skipped.total,
    )


# ---- the parts of a run ----------------------------------------------------------------------------------------------


def _write_folder(run: Run, videos: Videos, module: PretrainModule) -> None:
    """What a new run is, and what a run that goes on changes of it."""
    folder = run.folder
    if run.checkpoint is not None:
        write_recipe(folder, run.resolved, run.changes)
        return
    text, init = to_yaml(run.resolved), module.backbone.provenance.get("init")
    write_text(folder.recipe, run.text or text)
    write_json(folder.env, environment() | ({"init": dict(init)} if init else {}))
    if videos.elsewhere is not None:
        videos.elsewhere.save(folder.out_of_domain)
    videos.manifest.save(folder.manifest)
    write_text(folder.path / "manifest.sha256", videos.manifest.sha256() + "\n")
    write_atomic(folder.resolved, lambda file: file.write(text.encode()))  # last: a folder with it is whole


def _data_module(run: Run, videos: Videos, task: PretextTask) -> ClipDataModule:
    config = run.config
    return ClipDataModule(
        videos,
        task,
        seed=config.seed,
        data=config.data,
        loader=config.loader,
        accumulate=config.trainer.accumulate,
        pin_memory=config.trainer.accelerator == "gpu",
        val_clips=config.monitor.clips_per_video,
    )


def _videos_of(run: Run) -> Videos:
    """What is trained on and measured; a run that goes on takes its own table."""
    data, kept = run.config.data, run.folder.manifest
    if run.before is not None and kept.is_file():
        manifest = kept_manifest(kept, data.root, run.before["data"]["root"])
    else:
        manifest = load_manifest(data, run.say if run.is_first else None)
    train, held_out = split_rows(manifest, data, run.config.seed)
    return Videos(manifest, train.rows, held_out.rows, _out_of_domain(run, train))


def _out_of_domain(run: Run, train_rows: Manifest) -> Manifest | None:
    """The videos of ``data.out_of_domain`` that are measured; None where it is off."""
    data, kept = run.config.data, run.folder.out_of_domain
    config = data.out_of_domain
    check_out_of_domain(config)
    if not config.root:
        return None
    if run.before is not None and kept.exists():
        return kept_manifest(kept, config.root, run.before["data"]["out_of_domain"]["root"], group="data.out_of_domain")
    own = DataConfig(
        config.name,
        config.root,
        config.list,
        config.split,
        index_workers=data.index_workers,
        index_timeout_seconds=data.index_timeout_seconds,
        gray_range=data.gray_range if config.name != "manifest" else (),
        fps=data.fps,
        modality=data.modality,
        flow=data.flow,
    )
    found = load_manifest(own, run.say if run.is_first else None, group="data.out_of_domain")
    if config.split:
        chosen = found.select(config.split, readable=False)
    else:
        chosen = found.with_rows(row for row in found.rows if row.split not in NEVER_TRAINED)
    refuse_trained(chosen, train_rows)
    return chosen


def _prepare(task: PretextTask, data: ClipDataModule) -> None:
    """Run the task's ``prepare`` on rank 0; the other ranks get its buffers when the strategy wraps the model."""
    if global_rank() != 0 or type(task).prepare is PretextTask.prepare:
        return
    from ssvid.data.feed.sampler import epoch_order
    from ssvid.types import Stream, Ticket

    stream, train_set = int(Stream.PREPARE), data.train_set
    # In random order: the first few of a folder would be of one class.
    order = epoch_order(len(train_set), train_set.seed, stream, 0)

    class Samples:
        def __iter__(self) -> Iterator[Mapping[str, Any]]:
            for step, index in enumerate(order.tolist()):  # a step each: where tasks take turns, each has some of them
                yield from train_set[(Ticket(stream, 0, step, index),)]

    task.prepare(Samples())


def _provenance(run: Run, videos: Videos, task: PretextTask, start: Mapping[str, Any]) -> Provenance:
    """Of the weights that the run trains. start: of those that it starts from."""
    resolved, config = run.resolved, run.config
    options = resolved["task"]["options"] | ({"tasks": resolved["tasks"]} if config.tasks else {})
    return Provenance.of_training(
        start.get("init"),
        seen=(row.source_id or row.content_id for row in videos.train if row.is_readable),
        before=start.get("content_ids") or (),
        backbone={key: resolved["backbone"][key] for key in ("name", "options")},
        task={"name": config.task.name, "options": options},
        stage=task.stage,
        exported=task.exported or None,
        recipe=resolved,
        data={"manifest_sha256": videos.manifest.sha256(), "num_videos": len(videos.train)},
        seed=config.seed,
        placebo=config.task.placebo,
        chance=dict(task.chance()),
        versions=versions(),
    )


def _online(run: Run, videos: Videos, module: PretrainModule) -> list[Any]:
    """The callbacks that score a labeled slice, and tracking; none where ``every_epochs`` of either is 0."""
    from ssvid.evals.online import OnlineEvaluation, OnlineTracking

    online = run.config.online
    callbacks: list[Any] = []
    if online.every_epochs:
        callbacks.append(
            OnlineEvaluation(
                online,
                videos.manifest,
                videos.train,
                videos.held_out,
                info=module.backbone.info,
                trained_stage=module.task.stage,
                seed=run.config.seed,
            )
        )
    tracking = online.tracking
    if tracking.every_epochs and not tracking.root:
        callbacks.append(OnlineTracking(tracking, videos.manifest, videos.held_out, seed=run.config.seed))
    elif tracking.every_epochs:
        own = DataConfig(name=tracking.name, root=tracking.root, list=tracking.list)
        table = load_manifest(own, run.say, group="online.tracking")
        callbacks.append(OnlineTracking(tracking, table, (), seed=run.config.seed))
    return callbacks


def _header(run: Run, data: ClipDataModule, steps_per_epoch: int, lr: float) -> str:
    c, world = run.config, run.world
    layout = data.layout(world)
    short = [row.path for row in data.train_set.too_short]
    lines = [
        f"task {task_names(c)}{' (placebo: answers of other videos)' if c.task.placebo else ''}, backbone {c.backbone.name}, "
        f"seed {c.seed}",
        f"{len(data.train_set.rows)} videos to train on ({len(data.train_set)} samples), "
        f"{len(data.val_set) if data.val_set else 0} held out, {len(short)} too short"
        + f": {name_some(short, 5)}"
        * bool(short),
        f"global batch {c.loader.global_batch} = {world} x {c.trainer.accelerator} x {layout.micro_batch} samples x "
        f"{c.trainer.accumulate} accumulated; {steps_per_epoch} steps x {c.optim.epochs} epochs",
        f"lr {lr:.6g} = base_lr {c.optim.base_lr:g} x {c.loader.global_batch} / 256, {c.optim.name}, "
        f"{c.optim.schedule}; precision {c.trainer.precision}",
    ]
    if data.ood_set is not None:
        lines.append(
            f"{len(data.ood_set)} videos out of domain ({c.data.out_of_domain.root}), measured beside the held-out"
        )
    if data.unreadable.reasons:
        reasons = data.unreadable.reasons
        lines.append(f"{len(reasons)} unreadable: {name_some(sorted(reasons), 5)}")
    return "\n".join(lines)
