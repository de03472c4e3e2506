"""``finetune``: a network learns labels from wherever it starts, with the random row of the same settings beside."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.backbones import Backbone, BackboneInfo, initialize_backbone
from ssvid.classifiers.protocol import FinetuneProtocol, clip_reading, resolve_finetune_protocol
from ssvid.data.collection import load_manifest
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import RunFolderError
from ssvid.evals import baselines as anchors
from ssvid.evals.baselines import AS_INITIALIZED
from ssvid.evals.finetune.rates import learning_rates
from ssvid.evals.finetune.remembered import read_trained, trained_key, write_trained
from ssvid.evals.finetune.state import FinetuneSetup, Parts
from ssvid.evals.finetune.training import check_finetuning, finetune_backbone
from ssvid.evals.histograms import floor_rows
from ssvid.features.protocol import ProbeProtocol
from ssvid.files import takes_paths, write_json, write_text
from ssvid.machine import environment
from ssvid.programs.evaluate import Evaluation, conclude, evaluation_folder
from ssvid.programs.lineup import frame_anchors, networks_beside
from ssvid.programs.probe import stills_note, with_note
from ssvid.programs.repeating import Recorded, taken_from
from ssvid.programs.runs import Run, Weights, config_of, more_overrides, plan_runs, refuse_repetition
from ssvid.programs.scored_videos import check_listed, labeled_rows, split_note
from ssvid.progress import Say, speaker
from ssvid.ranks import global_rank, over_ranks, threads_kept
from ssvid.recipe.building import start_backbone
from ssvid.recipe.load import LoadedRecipe, load_recipe
from ssvid.recipe.protocol_notes import tagged
from ssvid.recipe.resuming import (
    check_folder,
    kept_manifest,
    recipe_and_folder,
    recorded_recipe,
    run_folder,
    was_restarted,
    write_recipe,
)
from ssvid.recipe.schema import FinetuneRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.rows import ResultRow, read_results, write_results
from ssvid.stopping import Stopped
from ssvid.train.loggers import check_loggers
from ssvid.train.run_folder import RunFolder
from ssvid.train.trainer import resolve_trainer
from ssvid.weights.checkpoints import weights_sha256
from ssvid.weights.provenance import Provenance

STARTS = "starts.json"


@dataclass
class FinetuneOutcome(Evaluation):
    """The rows of a fine-tuning and where they were written. Prints as the table.

    run_dir: holds a folder for each network, with its checkpoints (``best.ckpt`` is the chosen epoch); where there are
    several folds or seeds, a folder with these for each.
    """

    run_dir: Path = Path()

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the file that holds everything else."""
        return super().as_dict() | {"run_dir": str(self.run_dir)}


@takes_paths("recipe", "backbone", "placebo", "run_dir", "from_results")
@threads_kept()
def finetune(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    backbone: Weights | Sequence[Weights] = (),
    backbone_name: str | None = None,
    placebo: Weights | Sequence[Weights] | None = None,
    random: bool = True,
    run_dir: str | Path | None = None,
    resume: bool = False,
    partial: bool = False,
    inflate: bool = False,
    which: str = "",
    from_results: str | Path | None = None,
    show_progress: bool = True,
    **nested: Any,
) -> FinetuneOutcome:
    """Train a network on labeled videos and score it, beside the same from random weights.

    Args:
        recipe: shipped name, path, named protocol, or mapping of kind ``finetune``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, ``torchvision:NAME``, a file of weights, or ``random``; several of them
            are taken for the same pretraining with several seeds.
        backbone_name: the network, where the weights do not say it.
        placebo: the same of a run with ``task.placebo=true``, one for each backbone; or ``train`` to train it now from
            the checkpoint's recipe.
        random: train the network of the recipe's seed with the same settings beside it; ``anchors.random`` says the same.
        run_dir: the run folder; beside the checkpoint, numbered, where None.
        resume: go on with an existing run folder, bit for bit.
        partial: accept weights that fill the network only in part; every result says so.
        inflate: repeat 2D kernels of foreign weights over time. which: of a file with several networks, a word before the
            keys of the one that is meant.
        from_results: a ``results.json`` to repeat: its recipe and arguments are taken, and its hashes must fit.

    Raises:
        SsvidError: any mistake in the recipe, the weights, the data or the folder.
    """
    recipe, run_dir = recipe_and_folder(recipe, run_dir, resume)
    arguments: dict[str, Any] = {
        "backbone": backbone,
        "backbone_name": backbone_name,
        "placebo": placebo,
        "random": random,
        "partial": partial,
        "inflate": inflate,
        "which": which,
    }
    recipe, overrides, arguments, recorded = taken_from(from_results, "finetune", recipe, overrides, arguments)
    loaded = load_recipe(recipe, [*overrides, *more_overrides(arguments)], nested=nested, kind="finetune")
    config: FinetuneRecipe = loaded.recipe  # type: ignore[assignment]
    config.trainer = resolve_trainer(config.trainer, config.loader.workers_per_device)
    loaded = loaded._replace(resolved=loaded.resolved | {"trainer": asdict(config.trainer)})
    check_loggers(config.logger)
    refuse_repetition(config, arguments["backbone"])
    runs, resume = plan_runs(config, arguments["backbone"], arguments["placebo"]), resume or was_restarted()
    folder = run_folder(run_dir, resume, lambda: evaluation_folder("finetune", None, runs[0].backbone, loaded))
    before = recorded_recipe(folder, "finetune") if resume else None
    changes = check_folder(folder, before, loaded.resolved, resume=resume) if global_rank() == 0 else []
    say = speaker(show_progress)
    for note in (*loaded.notes, *(f"changed, and computes nothing else: {line}" for line in changes)):
        say(note)
    if global_rank() == 0:
        write_recipe(folder, loaded.resolved, changes)
    old_root = None if before is None else before["data"]["root"]
    rows: list[ResultRow] = []
    try:
        for run in runs:
            own = folder if len(runs) == 1 else RunFolder(folder.path / run.name)
            if len(runs) > 1:
                say(f"fold {run.fold}, seed {run.seed}")
            found, manifest = _finetune_once(
                config_of(config, run),
                run,
                loaded,
                folder,
                own,
                arguments,
                recorded,
                say,
                show_progress,
                resume=resume,
                old_root=old_root,
            )
            rows += tagged(found, run.fold, run.seed, run.recipe_seed, loaded, manifest)
    except (KeyboardInterrupt, Stopped) as error:
        words = " ".join(
            f"--backbone {run.backbone}" for run in runs[:1] + [r for r in runs[1:] if r.seed != runs[0].seed]
        )
        raise type(error)(f"{error} Go on with: ssvid finetune {folder.path} {words} --resume".lstrip()) from None
    if global_rank() != 0:
        return FinetuneOutcome(rows, folder.results, run_dir=folder.path)
    done = conclude(folder.path, rows, loaded, arguments, manifest, recorded=recorded)
    return FinetuneOutcome(**vars(done), run_dir=folder.path)


def _finetune_once(
    config: FinetuneRecipe,
    run: Run,
    loaded: LoadedRecipe,
    folder: RunFolder,
    own: RunFolder,
    arguments: Mapping[str, Any],
    recorded: Recorded | None,
    say: Say,
    show_progress: bool,
    *,
    resume: bool,
    old_root: str | None,
) -> tuple[list[ResultRow], Manifest]:
    """The rows of one fold and seed, in a folder of their own; ``folder`` is that of the whole command."""
    resume = resume and own.resolved.is_file()
    network = start_backbone(
        run.backbone,
        config,
        partial=arguments["partial"],
        inflate=arguments["inflate"],
        which=arguments.get("which", ""),  # results of older versions do not have it
    )
    networks = networks_beside(network, run, show_progress)
    resolve_finetune_protocol(config.finetune, network.info, network.provenance.get("stage"))  # before videos are read
    if resume and own.manifest.is_file():
        manifest = kept_manifest(own.manifest, config.data.root, old_root)
    else:
        check_listed(config.data)
        manifest = load_manifest(config.data, say if global_rank() == 0 else None)
    train_rows, test_rows = labeled_rows(manifest, config.data)
    if recorded is not None:
        recorded.check_data(manifest, run)
        recorded.check_weights(networks, run)
    setup = FinetuneSetup(config.seed, config.loader, config.trainer, config.logger, loaded.resolved, show_progress)
    protocol, parts = check_finetuning(
        network.info,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        protocol=config.finetune,
        setup=setup,
        trained_stage=network.provenance.get("stage"),
    )
    if (arguments["random"] and config.anchors.random) or not networks:
        networks |= random_forms(network, config, manifest, train_rows)
    trainings = {name: Training(one, config.finetune) for name, one in networks.items()}
    for name, frames in frame_anchors(config.anchors, network).items():
        trainings[name] = Training(network, replace(config.finetune, frames=frames))
    say(_header(network.info, protocol, parts, test_rows, setup))
    if len(trainings) > 1:
        say(f"one training each: {'; '.join(trainings)} (turn one off with anchors.single_frame=false and so on)")
    if global_rank() == 0:
        _write_folder(folder, own, loaded, manifest, networks, resume)
    with _locked(own):
        rows = _all_rows(
            trainings, manifest, train_rows, test_rows, setup, own, say, resume=resume, cached=recorded is None
        )
        if config.anchors.floor:
            say("histograms of colors and changes")
            rows += _floor(manifest, train_rows, test_rows, protocol, setup)
    for note in (stills_note(config.anchors, network), split_note(manifest, config.data)):
        rows = with_note(rows, note)
    return rows, manifest


# ---- the networks


class Training(NamedTuple):
    """One network to train, and how."""

    network: Backbone
    protocol: FinetuneProtocol


def random_forms(
    network: Backbone, config: FinetuneRecipe, manifest: Manifest, train_rows: Sequence[VideoRow]
) -> dict[str, Backbone]:
    """The random networks to train beside: the seed's; where the backbone stays frozen also with batch statistics of
    training clips, as either form can be the better one. A backbone that is trained makes its own statistics.
    """
    origin, info = network.provenance, network.info
    seed = origin.get("seed", config.seed)
    forms = {AS_INITIALIZED: initialize_backbone(info.name, info.options, seed=seed)}
    if config.finetune.frozen:
        stage = origin.get("stage")
        reading = clip_reading(resolve_finetune_protocol(config.finetune, info, stage), config.loader)
        where: dict[str, Any] = {"cache_dir": cache_folder() / "features", "trained_stage": stage}
        forms = anchors.random_forms(info.name, info.options, seed, manifest, train_rows, reading, **where)
    for form, backbone in forms.items():
        random = {"seed": seed, "form": form}
        backbone.provenance = Provenance(stage=origin.get("stage"), content_ids=[], seed=seed, random=random)
    if len(forms) == 1:
        return {"random": forms[AS_INITIALIZED]}
    return {f"random, {form}": backbone for form, backbone in forms.items()}


# ---- the rows


def _header(
    info: BackboneInfo, protocol: FinetuneProtocol, parts: Parts, test_rows: Sequence[VideoRow], setup: FinetuneSetup
) -> str:
    """What will be done, in numbers."""
    p, trainer = protocol, setup.trainer
    views = len(test_rows) * p.num_clips * p.num_crops
    rates = ", ".join(f"{name} {lr:.3g}" for name, lr in learning_rates(info, p).items())
    return "\n".join(
        [
            f"backbone {info.name}{', frozen' if p.frozen else ''}, {p.head} head on {p.stage}, seed {setup.seed}",
            f"{len(parts.fit)} videos to train on, {len(parts.held)} held out of train to choose the epoch on",
            f"{len(test_rows)} test videos x {p.num_clips} clips x {p.num_crops} crops = {views} views, averaging {p.averaging}",
            f"batch {p.batch_size} on {setup.num_processes} x {trainer.accelerator}, {trainer.accumulate} accumulated; "
            f"precision {trainer.precision}; {p.epochs} epochs, {p.optimizer}, {p.schedule}",
            f"lr {p.learning_rate:.6g} = base_lr {p.base_lr:g} x {p.batch_size} / 256: {rates}",
        ]
    )


def _all_rows(
    trainings: Mapping[str, Training],
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    setup: FinetuneSetup,
    run: RunFolder,
    say: Say,
    *,
    resume: bool,
    cached: bool,
) -> list[ResultRow]:
    """The rows of each training in turn; those that an interrupted run had finished are taken as they are, and so are
    anchors of one process that were trained before from the same weights, videos and settings (``cached``).
    """
    folders = {name: run.path / re.sub(r"\W+", "-", name) for name in trainings}
    finished = {name for name, folder in folders.items() if resume and RunFolder(folder).results.is_file()}
    found: dict[str, list[ResultRow]] = {}
    for name, (network, protocol) in trainings.items():
        own = RunFolder(folders[name])
        if name in finished:
            found[name] = read_results(own.results)
            continue
        remembers = cached and setup.num_processes == 1 and name not in ("pretrained", "placebo")
        key = trained_key(name, network, manifest, train_rows, test_rows, protocol, setup) if remembers else ""
        before = read_trained(key) if key else None
        if before is not None:
            say(f"{name}: trained before with the same weights, videos and settings ({key[:16]})")
            found[name] = before
        else:
            say(f"fine-tuning, {name}: {len(train_rows)} training videos, {protocol.epochs} epochs")
            found[name] = finetune_backbone(
                network,
                manifest,
                train_rows=train_rows,
                test_rows=test_rows,
                protocol=protocol,
                setup=setup,
                folder=own.path,
                name=name,
                resume=resume,
            )
            if key:
                write_trained(key, found[name])
        if global_rank() == 0:
            own.path.mkdir(parents=True, exist_ok=True)
            write_results(own.results, found[name])
    return better_random_first(found)


def _floor(
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    protocol: FinetuneProtocol,
    setup: FinetuneSetup,
) -> list[ResultRow]:
    """Histograms of the test's clips of all videos and a linear SVM, in the column of the videos' top-1."""
    with over_ranks():
        rows = floor_rows(
            manifest,
            train_rows=train_rows,
            test_rows=test_rows,
            feature_protocol=clip_reading(protocol, setup.loader),
            probe_protocol=ProbeProtocol(knn_ks=(1,), seed=setup.seed),
            cache_dir=cache_folder() / "features",
        )
    return [replace(row, metric=f"{protocol.metric}_top1") for row in rows if row.metric == "probe_top1"]


def better_random_first(found: Mapping[str, list[ResultRow]]) -> list[ResultRow]:
    """All rows; of two random forms the one that was better on held-out train is called "random", the other stays named."""
    forms = {name: rows for name, rows in found.items() if name.startswith("random, ")}
    if not forms:
        return [row for rows in found.values() for row in rows]
    heldout = {name: rows[0].context["head"]["heldout_top1"] or 0.0 for name, rows in forms.items()}
    best = max(heldout, key=lambda name: heldout[name])
    choice = {
        "form": best.removeprefix("random, "),
        "on": "held-out part of train",
        "heldout_top1": {name.removeprefix("random, "): value for name, value in heldout.items()},
    }
    named = [row for name, rows in found.items() if name not in forms for row in rows]
    for name in sorted(forms, key=lambda name: name != best):
        title = "random" if name == best else name
        named += [_renamed(row, title, choice) for row in forms[name]]
    return named


def _renamed(row: ResultRow, name: str, choice: Mapping[str, Any]) -> ResultRow:
    context = {**row.context, "better_form": dict(choice)}
    return replace(row, name=name, context=context)


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
    """Whether a network is the one it was; anchors may come and go."""
    return before == now or (name.startswith("random") and None in (before, now))


def _locked(run: RunFolder) -> contextlib.AbstractContextManager[Any]:
    return run.locked() if global_rank() == 0 else contextlib.nullcontext()
