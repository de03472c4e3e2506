"""Who stands in the table of an evaluation beside the pretrained network, and one reading of the videos for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.data.collection import load_manifest
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import CheckpointError, RecipeError, RunFolderError
from ssvid.evals.baselines import random_forms, sees_stills
from ssvid.evals.contract import check_rows, wants_neighbors
from ssvid.evals.histograms import at_size_of, floor_subject
from ssvid.exports import load_backbone
from ssvid.features.extracting import Subject, extract_together
from ssvid.features.protocol import AnchorProtocol, FeatureProtocol, resolve_retrieval
from ssvid.files import write_text
from ssvid.programs.pretrain import pretrain
from ssvid.programs.repeating import Recorded
from ssvid.programs.runs import RANDOM, Run
from ssvid.programs.scored_videos import check_listed, labeled_rows
from ssvid.progress import Say, tenths
from ssvid.ranks import done_by_first, without_launcher
from ssvid.recipe.schema import ProbeRecipe, RetrieveRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.run_folder import RunFolder
from ssvid.weights.checkpoints import read_checkpoint
from ssvid.weights.initializing import EXPORT_FIRST, initialize
from ssvid.weights.provenance import Provenance

TRAIN_AGAIN = "train"  # what --placebo says to have the placebo trained now


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
    other.provenance = Provenance(stage=stage, content_ids=ids, supervised=weights, init=report.as_dict())
    return other


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


def read_once(
    subjects: Sequence[Subject],
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    *,
    device: str,
    cache_dir: Path,
    say: Say,
) -> None:
    """Take the features of all that an evaluation is about from one reading of the videos."""
    say(
        f"features of {len(subjects)} networks and anchors from one reading of {len(train_rows) + len(test_rows)} videos"
    )
    for side, rows in (("train", train_rows), ("test", test_rows)):
        told = tenths(say, f"{side} videos")
        extract_together(subjects, manifest, rows, device=device, cache_dir=cache_dir, progress=told)
