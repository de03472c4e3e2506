"""``finetune``: a network learns labels from wherever it starts, with the random row of the same settings beside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone, BackboneInfo, backbones, initialize_backbone
from ssvid.checkpoints import weights_sha256
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError, RunFolderError
from ssvid.evals.anchors import AS_INITIALIZED, CALIBRATED, calibrate_batch_norm, has_batch_statistics
from ssvid.evals.finetuning import check_finetuning, finetune_backbone
from ssvid.evals.finetuning_protocol import FinetuneProtocol, clip_reading, resolve_finetune_protocol
from ssvid.evals.finetuning_rates import learning_rates
from ssvid.evals.finetuning_state import FinetuneSetup, Parts
from ssvid.evals.results import ResultRow, read_results, write_results
from ssvid.exports import initialize, load_backbone
from ssvid.exports.foreign import TORCHVISION
from ssvid.exports.initializing import is_foreign_file
from ssvid.exports.loading import HUB, RANDOM
from ssvid.files import write_json
from ssvid.machine import environment
from ssvid.recipe.load import LoadedRecipe, load_recipe
from ssvid.recipe.pretraining import RUNS, Say, load_manifest, refuse_changes, speaker
from ssvid.recipe.probing import (
    TRAIN_AGAIN,
    ProbeOutcome,
    labeled_rows,
    require_same_network,
    train_placebo,
)
from ssvid.recipe.schema import FinetuneRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.loggers import check_loggers
from ssvid.train.run_folder import RunFolder, next_beside, next_free
from ssvid.train.trainer import global_rank, resolve_trainer

STARTS = "starts.json"


@dataclass
class FinetuneOutcome(ProbeOutcome):
    """The rows of a fine-tuning and where they were written. Prints as the table.

    run_dir: holds a folder for each network, with its checkpoints (``best.ckpt`` is the chosen epoch).
    """

    run_dir: Path = Path()

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the file that holds everything else."""
        return super().as_dict() | {"run_dir": str(self.run_dir)}


def finetune(
    recipe: str | Path | Mapping[str, Any],
    *overrides: str,
    backbone: str | Path,
    backbone_name: str | None = None,
    placebo: str | Path | None = None,
    random: bool = True,
    run_dir: str | Path | None = None,
    resume: bool = False,
    partial: bool = False,
    inflate: bool = False,
    show_progress: bool = True,
    **nested: Any,
) -> FinetuneOutcome:
    """Train a network on labeled videos and score it, beside the same from random weights.

    Args:
        recipe: shipped name, path, or mapping of kind ``finetune``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, ``torchvision:NAME``, a file of weights, or ``random``.
        backbone_name: the network, where the weights do not say it.
        placebo: the same of a run with ``task.placebo=true``; or ``train`` to train it now from the checkpoint's recipe.
        random: train the network of the recipe's seed with the same settings beside it.
        run_dir: the run folder; beside the checkpoint, numbered, where None.
        resume: go on with an existing run folder, bit for bit.
        partial: accept weights that fill the network only in part; every result says so.
        inflate: repeat 2D kernels of foreign weights over time.

    Raises:
        SsvidError: any mistake in the recipe, the weights, the data or the folder.
    """
    more = [f"backbone.name={backbone_name}"] * bool(backbone_name)
    loaded = load_recipe(recipe, [*overrides, *more], nested=nested, kind="finetune")
    config: FinetuneRecipe = loaded.recipe  # type: ignore[assignment]
    say = speaker(show_progress)
    config.trainer = resolve_trainer(config.trainer, config.loader.workers_per_device)
    resolved = loaded.resolved | {"trainer": asdict(config.trainer)}
    check_loggers(config.logger)
    run = _run_folder(loaded, run_dir, backbone, config, resume)
    if global_rank() == 0:
        _check_folder(run, resolved, resume)
    network = start_backbone(backbone, config, partial=partial, inflate=inflate)
    if placebo is not None and str(placebo) == TRAIN_AGAIN:
        placebo = train_placebo(backbone, show_progress=show_progress)
    networks = {} if str(backbone) == RANDOM else {"pretrained": network}
    if placebo is not None:
        networks["placebo"] = load_backbone(placebo)
        require_same_network(network, networks["placebo"], placebo)
    manifest = _manifest(config, run, resume, say)
    train_rows, test_rows = labeled_rows(manifest)
    setup = FinetuneSetup(config.seed, config.loader, config.trainer, config.logger, resolved, show_progress)
    protocol, parts = _check(network, manifest, train_rows, test_rows, config, setup)
    say(_header(network.info, protocol, parts, test_rows, setup))
    if random or not networks:
        networks |= random_forms(network, config, manifest, train_rows)
    if global_rank() == 0:
        _write_folder(run, loaded, resolved, manifest, networks, resume)
    with _locked(run):
        try:
            rows = _all_rows(networks, manifest, train_rows, test_rows, config, setup, run, say, resume)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Go on with: ssvid finetune {run.path} --backbone {backbone} --resume") from None
    extra = {"recipe": resolved, "backbone_path": str(backbone)}
    if global_rank() == 0:
        write_results(run.results, rows, extra=extra)
    return FinetuneOutcome(rows, run.results, run_dir=run.path)


# ---- where a fine-tuning starts from


def start_backbone(
    spec: str | Path, config: FinetuneRecipe, *, partial: bool = False, inflate: bool = False
) -> Backbone:
    """The network with the weights that ``spec`` names; ``provenance`` tells where they come from.

    Raises:
        CheckpointError: no such weights, or they do not fit. RecipeError: the network is not named.
    """
    options = config.backbone.options or None
    text, name = str(spec), config.backbone.name or None
    if not _is_foreign(text):
        network = load_backbone(spec, name=name, options=options, partial=partial, seed=config.seed)
        if text == RANDOM:
            return network
        start = initialize(initialize_backbone(network.info.name, network.info.options), spec, partial=partial)
        network.provenance = {**network.provenance, "start": start.as_dict()}
        return network
    name = name or _named_by(text)
    if name is None:
        raise RecipeError(
            f"--backbone {spec} does not say of which network its weights are. Set backbone.name in the recipe, or "
            "--backbone-name r3d_18, say."
        )
    network = initialize_backbone(name, options, seed=config.seed)
    report = initialize(network, _weights_of(text, name), partial=partial, inflate=inflate)
    network.provenance = {
        "stage": None,
        "content_ids": None if report.unknown_videos else list(report.content_ids),
        "placebo": False,
        "partial": report.is_partial,
        "seed": config.seed,
        "init": report.as_dict(),
        "start": report.as_dict(),
        "weights_sha256": weights_sha256(network.state_dict()),
    }
    return network


def _is_foreign(text: str) -> bool:
    return text.startswith(TORCHVISION) or (not text.startswith(HUB) and is_foreign_file(Path(text)))


def _named_by(text: str) -> str | None:
    """The network that ``torchvision:r3d_18`` names."""
    word = text.removeprefix(TORCHVISION).partition(".")[0]
    return word if text.startswith(TORCHVISION) and word in backbones.names() else None


def _weights_of(text: str, name: str) -> str:
    """``torchvision:r3d_18`` means the best weights of that network, ``torchvision:r3d_18.NAME`` those of that name."""
    word, _, weights = text.removeprefix(TORCHVISION).partition(".")
    return f"{TORCHVISION}{weights or 'DEFAULT'}" if text.startswith(TORCHVISION) and word == name else text


def random_forms(
    network: Backbone, config: FinetuneRecipe, manifest: Manifest, train_rows: Sequence[VideoRow]
) -> dict[str, Backbone]:
    """The random networks to train beside: the seed's; where the backbone stays frozen also with batch statistics of
    training clips, as either form can be the better one. A backbone that is trained makes its own statistics.
    """
    origin, info = network.provenance, network.info
    seed = origin.get("seed", config.seed)
    past = {"stage": origin.get("stage"), "content_ids": [], "placebo": False, "partial": False, "seed": seed}
    forms = {AS_INITIALIZED: initialize_backbone(info.name, info.options, seed=seed)}
    if config.finetune.frozen and has_batch_statistics(network):
        protocol = resolve_finetune_protocol(config.finetune, info, origin.get("stage"))
        forms[CALIBRATED] = calibrate_batch_norm(
            forms[AS_INITIALIZED],
            manifest,
            train_rows,
            clip_reading(protocol, config.loader),
            trained_stage=origin.get("stage"),
        )
    for form, backbone in forms.items():
        backbone.provenance = past | {"random": {"seed": seed, "form": form}}
    if len(forms) == 1:
        return {"random": forms[AS_INITIALIZED]}
    return {f"random, {form}": backbone for form, backbone in forms.items()}


# ---- the rows


def _check(
    network: Backbone,
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    config: FinetuneRecipe,
    setup: FinetuneSetup,
) -> tuple[FinetuneProtocol, Parts]:
    try:
        return check_finetuning(
            network.info,
            manifest,
            train_rows=train_rows,
            test_rows=test_rows,
            protocol=config.finetune,
            setup=setup,
            trained_stage=network.provenance.get("stage"),
        )
    except DataError as error:
        # What frozen features call so is an option of the loader here.
        raise DataError(str(error).replace("features.decoder", "loader.decoder")) from error


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
    networks: Mapping[str, Backbone],
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    config: FinetuneRecipe,
    setup: FinetuneSetup,
    run: RunFolder,
    say: Say,
    resume: bool,
) -> list[ResultRow]:
    """The rows of each network in turn; those that an interrupted run had finished are taken as they are."""
    folders = {name: run.path / name.replace(", ", "-") for name in networks}
    finished = {name for name, folder in folders.items() if resume and RunFolder(folder).results.is_file()}
    found: dict[str, list[ResultRow]] = {}
    for name, network in networks.items():
        own = RunFolder(folders[name])
        if name in finished:
            found[name] = read_results(own.results)
            continue
        say(f"fine-tuning of the {name} network: {len(train_rows)} training videos, {config.finetune.epochs} epochs")
        found[name] = finetune_backbone(
            network,
            manifest,
            train_rows=train_rows,
            test_rows=test_rows,
            protocol=config.finetune,
            setup=setup,
            folder=own.path,
            name=name,
            resume=resume,
        )
        if global_rank() == 0:
            write_results(own.results, found[name])
    return better_random_first(found)


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
    return ResultRow(name, row.metric, row.value, row.interval, row.chance, row.correct_N, row.ids, context)


# ---- the folder


def _run_folder(
    loaded: LoadedRecipe, run_dir: str | Path | None, backbone: str | Path, config: FinetuneRecipe, resume: bool
) -> RunFolder:
    if run_dir is not None:
        return RunFolder(run_dir)
    if resume:
        raise RunFolderError("--resume needs the folder of the run to continue. Name it with --run-dir.")
    name = f"finetune-{loaded.path.stem}" if loaded.path else "finetune"
    if str(backbone) == RANDOM or _is_foreign(str(backbone)):
        return RunFolder(next_free(RUNS, name))
    return RunFolder(next_beside(backbone, name, otherwise=RUNS))


def _check_folder(run: RunFolder, resolved: dict[str, Any], resume: bool) -> None:
    if not resume:
        run.require_new()
        return
    if not run.resolved.is_file():
        raise RunFolderError(
            f"run folder {run.path} holds no fine-tuning to continue. Start the run without --resume, or name its folder with "
            "--run-dir."
        )
    refuse_changes(run, resolved)


def _manifest(config: FinetuneRecipe, run: RunFolder, resume: bool, say: Say) -> Manifest:
    if resume and run.manifest.exists():
        manifest = Manifest.load(run.manifest, root=config.data.root, allow_outside=True)
        manifest.check_files()
        return manifest
    return load_manifest(config.data, say if global_rank() == 0 else None)


def _write_folder(
    run: RunFolder,
    loaded: LoadedRecipe,
    resolved: dict[str, Any],
    manifest: Manifest,
    networks: Mapping[str, Backbone],
    resume: bool,
) -> None:
    """Everything that the run depends on. A resumed run must start from the same weights."""
    starts = {name: weights_sha256(network.state_dict()) for name, network in networks.items()}
    if resume:
        before = json.loads((run.path / STARTS).read_text(encoding="utf-8"))
        changed = [name for name in {**before, **starts} if before.get(name) != starts.get(name)]
        if changed:
            raise RunFolderError(
                f"{run.path} was started from other weights of {', '.join(changed)}; a resumed run computes the same "
                "numbers. Name the same --backbone, --placebo and seed, or start a new run."
            )
        return
    run.path.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(loaded.text or to_yaml(resolved), encoding="utf-8")
    run.resolved.write_text(to_yaml(resolved), encoding="utf-8")
    write_json(run.env, environment())
    manifest.save(run.manifest)
    (run.path / "manifest.sha256").write_text(manifest.sha256() + "\n", encoding="utf-8")
    write_json(run.path / STARTS, starts)


def _locked(run: RunFolder) -> contextlib.AbstractContextManager[Any]:
    return run.locked() if global_rank() == 0 else contextlib.nullcontext()
