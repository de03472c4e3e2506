"""What fine-tuning is made of: a command that trains and can be gone on with, its trainings, and their folders."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest
from ssvid.errors import RunFolderError
from ssvid.evals.contract import LabeledData, Subject, Tools
from ssvid.evals.finetune.rates import learning_rates
from ssvid.evals.finetune.remembered import read_trained, trained_key, write_trained
from ssvid.evals.finetune.training import hold_out
from ssvid.evals.hand_made import HandMade
from ssvid.evals.measuring import Around, Asked
from ssvid.files import write_json, write_text
from ssvid.machine import environment
from ssvid.programs.evaluate import Command
from ssvid.programs.outcome import Outcome
from ssvid.programs.runs import Run
from ssvid.ranks import global_rank
from ssvid.recipe.building import start_backbone
from ssvid.recipe.load import LoadedRecipe
from ssvid.recipe.resuming import (
    check_folder,
    kept_manifest,
    recorded_recipe,
    run_folder,
    write_recipe,
)
from ssvid.recipe.schema import FinetuneRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.rows import ResultRow, read_results, write_results
from ssvid.stopping import Stopped
from ssvid.train.devices import resolve_trainer
from ssvid.train.loggers import check_loggers
from ssvid.train.run_folder import RunFolder
from ssvid.weights.checkpoints import weights_sha256

STARTS = "starts.json"


@dataclass
class FinetuneOutcome(Outcome):
    """The rows of a fine-tuning and where they were written. Prints as the table.

    run_dir: holds a folder for each network, with its checkpoints (``best.ckpt`` is the chosen epoch); where there are
    several folds or seeds, a folder with these for each.
    """

    run_dir: Path = Path()

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the file that holds everything else."""
        return super().as_dict() | {"run_dir": str(self.run_dir)}


class Finetuning(Command):
    """A command that trains, and can be gone on with. run: its folder. old_root: of the videos before they were moved.

    remembers: whether baselines that were trained before are taken as they are.
    """

    remembers = True

    def into(self, run_dir: str | Path | None, resume: bool) -> FinetuneOutcome:
        """Train and score everything that is not there yet."""
        self.resume = resume
        self.config.trainer = resolve_trainer(self.config.trainer, self.config.loader.workers_per_device)
        self.config.baselines = replace(
            self.config.baselines, random=self.config.baselines.random and self.arguments["random"]
        )
        self.loaded = self.loaded._replace(resolved=self.loaded.resolved | {"trainer": asdict(self.config.trainer)})
        check_loggers(self.config.logger)
        self.run = run_folder(run_dir, resume, self.folder)
        before = recorded_recipe(self.run, "finetune") if resume else None
        self.old_root = None if before is None else before["data"]["root"]
        is_first = global_rank() == 0
        changes = check_folder(self.run, before, self.loaded.resolved, resume=resume) if is_first else []
        for note in (*self.loaded.notes, *(f"changed, and computes nothing else: {line}" for line in changes)):
            self.say(note)
        if is_first:
            write_recipe(self.run, self.loaded.resolved, changes)
        try:
            done = self.evaluate(self.run.path)
        except (KeyboardInterrupt, Stopped) as error:
            raise type(error)(self.interrupted(error)) from None
        return FinetuneOutcome(**vars(done), run_dir=self.run.path)

    def interrupted(self, error: BaseException) -> str:
        """What is told of a training that was interrupted: how to go on with it."""
        runs = self.runs[:1] + [run for run in self.runs[1:] if run.seed != self.runs[0].seed]
        again = f"ssvid finetune {self.run.path} {' '.join(f'--backbone {run.backbone}' for run in runs)} --resume"
        return f"{error} Go on with: {again}".lstrip()

    def own_folder(self, run: Run) -> RunFolder:
        """Where the networks of one split and seed are trained."""
        return self.run if len(self.runs) == 1 else RunFolder(self.run.path / run.name)

    def tools(self, config: FinetuneRecipe, run: Run) -> Tools:
        own = self.own_folder(run)
        return Tools(
            cache_dir=cache_folder() / "features",
            seed=config.seed,
            say=self.say,
            loader=config.loader,
            trainer=config.trainer,
            logger=config.logger,
            folder=own.path,
            resume=self.resume and own.resolved.is_file(),
            recipe=self.loaded.resolved,
            show_progress=self.show_progress,
            made=self.made,
        )

    def network(self, config: FinetuneRecipe, run: Run) -> Backbone:
        which = self.arguments.get("which", "")  # results of older versions do not have it
        partial, inflate = self.arguments["partial"], self.arguments["inflate"]
        return start_backbone(run.backbone, config, partial=partial, inflate=inflate, which=which)

    def manifest(self, config: FinetuneRecipe, asked: Asked, run: Run) -> Manifest:
        kept = self.own_folder(run).manifest
        if self.tools(config, run).resume and kept.is_file():
            return kept_manifest(kept, config.data.root, self.old_root)
        return super().manifest(config, asked, run)

    def around(self, run: Run, config: FinetuneRecipe) -> Around:
        return Trainings(self, self.own_folder(run), self.tools(config, run))


# ---- the rows


@dataclass
class Trainings(Around):
    """The trainings of one split and seed, each with a folder of its own."""

    command: Finetuning
    own: RunFolder
    tools: Tools

    @contextlib.contextmanager
    def begun(self, asked: Asked, subjects: Sequence[Subject], data: LabeledData) -> Iterator[None]:
        """Say what will be trained, and write down all that it depends on."""
        ((_, self.protocol),) = asked.items()
        self.data, trained = data, [one for one in subjects if not isinstance(one.network, HandMade)]
        self.tools.say(_header(trained[0].network.info, self.protocol, data, self.tools))
        if len(trained) > 1:
            names = "; ".join(one.name for one in trained)
            self.tools.say(f"one training each: {names} (turn one off with baselines.single_frame=false and so on)")
        if global_rank() != 0:
            yield
            return
        networks = {one.name: one.network for one in trained if one.protocol.frames == trained[0].protocol.frames}
        _write_folder(self.command.run, self.own, self.command.loaded, data.manifest, networks, self.tools.resume)
        with self.own.locked():
            yield

    def rows(self, subject: Subject, measured: Callable[[Tools], Iterable[ResultRow]], tools: Tools) -> list[ResultRow]:
        """The rows of a training that an interrupted run had finished are taken as they are, and so are those of a baseline
        of one process that was trained before from the same weights, videos and settings.
        """
        if isinstance(subject.network, HandMade):
            tools.say(subject.network.about)
            return list(measured(tools))
        own = RunFolder(tools.folder / re.sub(r"\W+", "-", subject.name))
        if tools.resume and own.results.is_file():
            return read_results(own.results)
        remembers = self.command.remembers and self.command.recorded is None and tools.num_processes == 1
        key = ""
        if remembers and subject.name not in ("pretrained", "placebo"):
            key = trained_key(subject, self.data, self.protocol, tools)
        rows = read_trained(key) if key else None
        if rows is not None:
            tools.say(f"{subject.name}: trained before with the same weights, videos and settings ({key[:16]})")
        else:
            epochs = self.protocol.optim.epochs
            tools.say(f"fine-tuning, {subject.name}: {len(self.data.train)} training videos, {epochs} epochs")
            rows = list(measured(replace(tools, folder=own.path)))
            if key:
                write_trained(key, rows)
        if global_rank() == 0:
            own.path.mkdir(parents=True, exist_ok=True)
            write_results(own.results, rows)
        return rows


def _header(info: BackboneInfo, protocol: FinetuneProtocol, data: LabeledData, tools: Tools) -> str:
    """What will be done, in numbers."""
    p, trainer, parts = protocol, tools.trainer, hold_out(data.train, protocol, tools.seed)
    views = len(data.test) * p.num_clips * p.num_crops
    rates = ", ".join(f"{name} {lr:.3g}" for name, lr in learning_rates(info, p).items())
    return "\n".join(
        [
            f"backbone {info.name}{', frozen' if p.frozen else ''}, {p.head} head on {p.stage}, seed {tools.seed}",
            f"{len(parts.fit)} videos to train on, {len(parts.held)} held out of train to choose the epoch on",
            f"{len(data.test)} test videos x {p.num_clips} clips x {p.num_crops} crops = {views} views, averaging {p.averaging}",
            f"batch {p.batch_size} on {tools.num_processes} x {trainer.accelerator}, {trainer.accumulate} accumulated; "
            f"precision {trainer.precision}; {p.optim.epochs} epochs, {p.optim.name}, {p.optim.schedule}",
            f"lr {p.learning_rate:.6g} = base_lr {p.optim.base_lr:g} x {p.batch_size} / 256: {rates}",
        ]
    )


# ---- the folder


def _write_folder(
    folder: RunFolder,
    own: RunFolder,
    loaded: LoadedRecipe,
    manifest: Manifest,
    networks: Mapping[str, Backbone],
    resume: bool,
) -> None:
    """Everything that the run depends on. A resumed run must start from the same weights."""
    starts = {name: weights_sha256(network.state_dict()) for name, network in networks.items()}
    if resume:
        before = json.loads((own.path / STARTS).read_text(encoding="utf-8"))
        changed = [name for name in {**before, **starts} if not _starts_alike(before.get(name), starts.get(name), name)]
        if changed:
            raise RunFolderError(
                f"{own.path} was started from other weights of {', '.join(changed)}; a resumed run computes the same "
                "numbers. Name the same --backbone, --placebo and seed, or start a new run."
            )
        write_json(own.path / STARTS, {**before, **starts})
        return
    for one in {folder.path: folder, own.path: own}.values():
        one.path.mkdir(parents=True, exist_ok=True)
        write_json(one.env, environment())  # first: from now on it is the folder of a run
        write_text(one.recipe, loaded.text or to_yaml(loaded.resolved))
    manifest.save(own.manifest)
    write_text(own.path / "manifest.sha256", manifest.sha256() + "\n")
    write_json(own.path / STARTS, starts)
    for one in (own, folder):  # last: from now on there is something to go on with
        write_text(one.resolved, to_yaml(loaded.resolved))


def _starts_alike(before: str | None, now: str | None, name: str) -> bool:
    """Whether a network is the one it was; baselines may come and go."""
    return before == now or (name.startswith("random") and None in (before, now))
