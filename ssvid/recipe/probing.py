"""``probe``: frozen backbone -> features -> linear probe and k-NN, with the random row (and the placebo's) beside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.checkpoints import read_checkpoint
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.scan_cache import cache_folder
from ssvid.errors import CheckpointError, RecipeError, RunFolderError
from ssvid.evals import ResultRow, check_probe_protocol, check_rows, evaluate_backbone, random_rows
from ssvid.evals.anchors import random_forms, sees_stills
from ssvid.evals.evaluate import wants_neighbors
from ssvid.evals.features import Subject
from ssvid.evals.floor import at_size_of, floor_rows, floor_subject
from ssvid.evals.protocol import AnchorProtocol, FeatureProtocol, resolve_retrieval
from ssvid.exports import load_backbone
from ssvid.exports.initializing import EXPORT_FIRST, initialize
from ssvid.files import takes_paths, write_text
from ssvid.recipe.device import cores_for_network, resolve_device
from ssvid.recipe.evaluating import (
    RANDOM,
    Evaluation,
    Recorded,
    Run,
    Weights,
    conclude,
    config_of,
    evaluation_folder,
    more_overrides,
    plan_runs,
    read_once,
    refuse_repetition,
    taken_from,
)
from ssvid.recipe.load import load_recipe
from ssvid.recipe.pretraining import Say, load_manifest, pretrain, speaker
from ssvid.recipe.protocol_notes import tagged, wanted_metrics
from ssvid.recipe.schema import ProbeRecipe, RetrieveRecipe
from ssvid.recipe.scored_videos import check_listed, labeled_rows, split_note
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.agreement import done_by_first, without_launcher
from ssvid.train.run_folder import RunFolder

TRAIN_AGAIN = "train"  # what --placebo says to have the placebo trained now


ProbeOutcome = Evaluation  # the rows of a probe and where they were written


@takes_paths("recipe", "backbone", "placebo", "supervised", "out", "from_results")
def probe(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    backbone: Weights | Sequence[Weights] = (),
    backbone_name: str | None = None,
    placebo: Weights | Sequence[Weights] | None = None,
    supervised: str | Path | None = None,
    out: str | Path | None = None,
    partial: bool = False,
    untrained_stage: bool = False,
    device: str = "auto",
    from_results: str | Path | None = None,
    show_progress: bool = True,
    **nested: Any,
) -> ProbeOutcome:
    """Score a frozen backbone on labeled videos, beside its own random initialization.

    Args:
        recipe: shipped name, path, named protocol, or mapping of kind ``probe``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` or the recipe names the network);
            several of them are taken for the same pretraining with several seeds.
        placebo: the same of a run with ``task.placebo=true``, one for each backbone; or ``train`` to train it now from
            the checkpoint's recipe.
        supervised: weights of the same network that were trained on labels, for a row beside: as ``init_from`` takes them
            (``torchvision:KINETICS400_V1``).
        out: folder for ``results.json``; beside the checkpoint, numbered, where None.
        partial: accept weights that fill the network only in part; every result says so.
        untrained_stage: score stages that pretraining never trained, too.
        device: ``auto``, ``cpu`` or ``cuda``.
        from_results: a ``results.json`` to repeat: its recipe and arguments are taken, and its hashes must fit.

    Raises:
        SsvidError: any mistake in the recipe, the weights or the data.
    """
    arguments: dict[str, Any] = {
        "backbone": backbone,
        "backbone_name": backbone_name,
        "placebo": placebo,
        "supervised": supervised,
        "partial": partial,
        "untrained_stage": untrained_stage,
        "device": resolve_device(device),
    }
    recipe, overrides, arguments, recorded = taken_from(from_results, "probe", recipe, overrides, arguments)
    loaded = load_recipe(recipe, [*overrides, *more_overrides(arguments)], nested=nested, kind="probe")
    config: ProbeRecipe = loaded.recipe  # type: ignore[assignment]
    refuse_repetition(config, arguments["backbone"])
    runs = plan_runs(config, arguments["backbone"], arguments["placebo"])
    check_probe_protocol(config.probe)
    folder = evaluation_folder("probe", out, runs[0].backbone, loaded)
    say = speaker(show_progress)
    rows: list[ResultRow] = []
    for run in runs:
        if len(runs) > 1:
            say(f"fold {run.fold}, seed {run.seed}")
        found, manifest = _probe_once(
            config_of(config, run), run, arguments, recorded, say, show_progress, wanted_metrics(loaded)
        )
        rows += tagged(found, run.fold, run.seed, run.recipe_seed, loaded, manifest)
    return conclude(folder, rows, loaded, arguments, manifest, recorded=recorded)


def _probe_once(
    config: ProbeRecipe,
    run: Run,
    arguments: Mapping[str, Any],
    recorded: Recorded | None,
    say: Say,
    show_progress: bool,
    metrics: Sequence[str],
) -> tuple[list[ResultRow], Manifest]:
    """The rows of one fold and seed; metrics: what is asked for, as of ``evaluate_backbone``."""
    network, networks, manifest, train_rows, test_rows = frozen_subjects(
        config, run, arguments, recorded, say, show_progress, metrics
    )
    if arguments["supervised"]:
        networks["supervised"] = supervised_network(network, str(arguments["supervised"]))
    rows = score(
        networks,
        network,
        config,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        cache_dir=cache_folder() / "features",
        device=arguments["device"],
        say=say,
        metrics=metrics,
    )
    return with_note(rows, split_note(manifest, config.data)), manifest


class FrozenSubjects(NamedTuple):
    """What an evaluation of frozen features is about. networks: by the names of their rows, without the random one."""

    network: Backbone
    networks: dict[str, Backbone]
    manifest: Manifest
    train_rows: list[VideoRow]
    test_rows: list[VideoRow]


def frozen_subjects(
    config: ProbeRecipe | RetrieveRecipe,
    run: Run,
    arguments: Mapping[str, Any],
    recorded: Recorded | None,
    say: Say,
    show_progress: bool,
    metrics: Sequence[str] = (),
) -> FrozenSubjects:
    """Load the weights and the videos of one fold and seed, and make sure that they are those of a result to repeat.

    metrics: what is asked for; where no neighbors are, there may be fewer videos than them.
    """
    named: dict[str, Any] = {
        "name": config.backbone.name or None,
        "options": config.backbone.options or None,
        "seed": config.seed,
    }
    network = load_backbone(run.backbone, partial=arguments["partial"], **named)
    if isinstance(config, ProbeRecipe):
        check_listed(config.data, probe=config.probe if wants_neighbors(metrics) else None)
    else:
        check_listed(config.data, retrieval=resolve_retrieval(config.features, config.retrieval)[1])
    manifest = load_manifest(config.data, say)
    train_rows, test_rows = labeled_rows(manifest, config.data)
    check_rows(manifest, train_rows, test_rows)
    networks = networks_beside(network, run, show_progress)
    if recorded is not None:
        recorded.check_data(manifest, run)
        recorded.check_weights(networks, run)
    return FrozenSubjects(network, networks, manifest, train_rows, test_rows)


def networks_beside(network: Backbone, run: Run, show_progress: bool) -> dict[str, Backbone]:
    """The networks to score, but for the random one, by the names of their rows."""
    networks: dict[str, Backbone] = {} if str(run.backbone) == RANDOM else {"pretrained": network}
    placebo = run.placebo
    if placebo is not None and str(placebo) == TRAIN_AGAIN:
        placebo = train_placebo(run.backbone, show_progress=show_progress)
    if placebo is not None:
        networks["placebo"] = load_backbone(placebo)
        require_same_network(network, networks["placebo"], placebo)
    return networks


def supervised_network(network: Backbone, weights: str) -> Backbone:
    """The same architecture with weights that were trained on labels, scored on the stage of the other rows."""
    other = initialize_backbone(network.info.name, network.info.options)
    report = initialize(other, weights, ways=EXPORT_FIRST)
    stage = getattr(network, "provenance", {}).get("stage")
    ids = None if report.unknown_videos else list(report.content_ids)
    other.provenance = {"stage": stage, "content_ids": ids, "supervised": weights, "init": report.as_dict()}
    return other


def score(
    networks: Mapping[str, Backbone],
    architecture: Backbone,
    config: ProbeRecipe,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    cache_dir: Path,
    device: str,
    say: Say,
    metrics: Sequence[str] = (),
) -> list[ResultRow]:
    """The rows of each named network, then the anchors of the recipe: the random row of the same architecture, seed and
    stage, the first network on single and on shuffled frames, and the floor without a network.

    metrics: what is asked for, as of ``evaluate_backbone``.
    """
    origin = getattr(architecture, "provenance", {})
    shared: dict[str, Any] = {
        "train_rows": train_rows,
        "test_rows": test_rows,
        "feature_protocol": config.features,
        "probe_protocol": config.probe,
        "device": device,
        "cache_dir": cache_dir,
        "metrics": metrics,
    }
    seed, stage = origin.get("seed", config.seed), origin.get("stage")
    rows: list[ResultRow] = []
    with cores_for_network(device, config.features.workers):
        forms, by_frames = read_all(
            networks,
            architecture,
            config.features,
            config.anchors,
            seed,
            manifest,
            train_rows,
            test_rows,
            cache_dir=cache_dir,
            device=device,
            say=say,
        )
        for name, network in networks.items():
            say(f"scoring the {name} network")
            rows += evaluate_backbone(network, manifest, name=name, **shared)
        if forms:
            say("scoring the random network")
            info = architecture.info
            random = random_rows(info.name, info.options, seed, manifest, trained_stage=stage, forms=forms, **shared)
            rows += random.better + random.other
        for name, protocol in by_frames.items():
            say(f"scoring {name}")
            rows += evaluate_backbone(architecture, manifest, name=name, **shared | {"feature_protocol": protocol})
        if config.anchors.floor:
            say("scoring the floor")
            same_size = at_size_of(config.features, architecture.info)
            rows += floor_rows(manifest, **shared | {"feature_protocol": same_size})
    return with_note(rows, stills_note(config.anchors, architecture))


def read_all(
    networks: Mapping[str, Backbone],
    architecture: Backbone,
    features: FeatureProtocol,
    anchors: AnchorProtocol,
    seed: int,
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    *,
    cache_dir: Path,
    device: str,
    say: Say,
) -> tuple[dict[str, Backbone], dict[str, FeatureProtocol]]:
    """Take the features of all networks and anchors from one reading; they wait in the cache.

    Returns:
        The forms of the random network (none where it is not wanted), and the protocols of the anchors on other frames.
    """
    info, stage = architecture.info, getattr(architecture, "provenance", {}).get("stage")
    forms: dict[str, Backbone] = {}
    if anchors.random or not networks:
        say("the random network, and its batch statistics on training clips")
        forms = random_forms(
            info.name,
            info.options,
            seed,
            manifest,
            train_rows,
            features,
            device=device,
            cache_dir=cache_dir,
            trained_stage=stage,
        )
    by_frames = {
        name: replace(features, frames=frames) for name, frames in frame_anchors(anchors, architecture).items()
    }
    subjects = [
        Subject(network, features, getattr(network, "provenance", {}).get("stage"))
        for network in (*networks.values(), *forms.values())
    ]
    subjects += [Subject(architecture, protocol, stage) for protocol in by_frames.values()]
    if anchors.floor:
        subjects.append(floor_subject(at_size_of(features, info)))
    read_once(subjects, manifest, train_rows, test_rows, device=device, cache_dir=cache_dir, say=say)
    return forms, by_frames


def frame_anchors(anchors: AnchorProtocol, network: Backbone | None = None) -> dict[str, str]:
    """Name of a row -> which frames the network is shown; no single frames for one that sees differences alone."""
    sees_them = network is None or not anchors.single_frame or sees_stills(network)
    wanted = {"single_frame": anchors.single_frame and sees_them, "shuffled": anchors.shuffled_frames}
    names = {"single_frame": "single frame", "shuffled": "shuffled frames"}
    return {names[frames]: frames for frames, is_wanted in wanted.items() if is_wanted}


def stills_note(anchors: AnchorProtocol, network: Backbone) -> str:
    """Why there is no row of single frames; "" where there is one, or none is wanted."""
    if not anchors.single_frame or sees_stills(network):
        return ""
    return f"no row of single frames: {network.info.name} sees differences of frames, and all clips of one frame are alike to it"


def with_note(rows: Iterable[ResultRow], note: str) -> list[ResultRow]:
    """The rows with one more thing that their reader must know."""
    more = [note] * bool(note)
    return [replace(r, context={**r.context, "notes": [*r.context.get("notes", ()), *more]}) for r in rows]


def train_placebo(backbone: str | Path, *, show_progress: bool = True) -> Path:
    """Train the recipe of a checkpoint again as a placebo, in a folder beside the run; once. One that was interrupted is
    gone on with. Of several processes the first has it trained.

    Raises:
        CheckpointError: the checkpoint has no recipe that could be run again.
        RecipeError: the folder holds another run, or training it failed.
    """
    path = Path(backbone)
    checkpoint = RunFolder(path).last_checkpoint if path.is_dir() else path
    if not checkpoint.is_file():
        raise CheckpointError(
            f"--placebo train needs a run folder or checkpoint with its recipe, and {backbone} is none. "
            "Name the checkpoint of the run, or of a placebo run, instead."
        )
    meta = read_checkpoint(checkpoint).meta
    folder = checkpoint.parent.parent.with_name(checkpoint.parent.parent.name + "-placebo")
    done_by_first(f"placebo {folder}", lambda: _train_alone(meta["recipe"], folder, show_progress))
    return folder


def _train_alone(recipe: Mapping[str, Any], folder: Path, show_progress: bool) -> None:
    """Train a placebo here, or in a process of its own where several train it or this one is one of several: Lightning
    would start the other ones as evaluations.
    """
    trainer = recipe["trainer"]
    if os.environ.get("WORLD_SIZE", "1") == "1" and (str(trainer["devices"]), trainer["num_nodes"]) == ("1", 1):
        try:
            pretrain(recipe, "task.placebo=true", run_dir=folder, resume=True, show_progress=show_progress)
        except (RecipeError, RunFolderError) as error:
            raise RecipeError(f"--placebo train goes on in {folder}, and cannot: {error}") from error
        return
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "placebo.yaml"
        write_text(file, to_yaml(dict(recipe)))
        words = [str(file), "task.placebo=true", "--run-dir", str(folder), "--resume"]
        command = [sys.executable, "-m", "ssvid", "pretrain", *words]
        quiet = None if show_progress else subprocess.DEVNULL
        done = subprocess.run(command, env=without_launcher(), stdout=subprocess.DEVNULL, stderr=quiet, check=False)
    if done.returncode:
        raise RecipeError(
            f"--placebo train could not train {folder} (exit code {done.returncode}); its reason stands above."
        )


def require_same_network(network: Backbone, other: Backbone, path: str | Path) -> None:
    """Raise CheckpointError where a placebo is of another architecture."""
    mine, its = (network.info.name, dict(network.info.options)), (other.info.name, dict(other.info.options))
    if mine != its:
        raise CheckpointError(
            f"the placebo {path} is {its[0]} {its[1]}, but the backbone is {mine[0]} {mine[1]}; they must be the same "
            "network. Train the placebo from the same recipe: --placebo train."
        )
