"""Who stands in the table of an evaluation beside the pretrained network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.backbones.batch_statistics import has_batch_statistics
from ssvid.errors import CheckpointError, RecipeError, RunFolderError, SsvidError
from ssvid.evals.baselines import random_forms, sees_stills
from ssvid.evals.contract import LabeledData, Subject, Tools
from ssvid.evals.histograms import histogram_subject
from ssvid.evals.measuring import RANDOM_FORM, Asked
from ssvid.evals.trajectories import trajectory_subject
from ssvid.exports import load_backbone
from ssvid.features.protocol import BaselineProtocol, FeatureProtocol
from ssvid.files import write_text
from ssvid.programs.pretrain import pretrain
from ssvid.programs.runs import RANDOM, Run
from ssvid.ranks import done_by_first, without_launcher
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.run_folder import RunFolder
from ssvid.types import RGB_CHANNELS
from ssvid.video.optical_flow import require_opencv
from ssvid.weights.checkpoints import read_checkpoint
from ssvid.weights.initializing import EXPORT_FIRST, initialize
from ssvid.weights.provenance import Provenance

TRAIN_AGAIN = "train"  # what --placebo says to have the placebo trained now


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


class Lineup(NamedTuple):
    """Who stands in a table, in its order. notes: why somebody does not who was asked for."""

    subjects: list[Subject]
    notes: list[str]


def lineup(
    networks: Mapping[str, Backbone],
    architecture: Backbone,
    features: FeatureProtocol,
    baselines: Any,
    data: LabeledData,
    tools: Tools,
    asked: Asked,
) -> Lineup:
    """All that stands in the table, in its order: the networks by their names, the forms of the random one, and what the
    evaluations bring themselves, or else the first network on other frames, and histograms and trajectories in its place.

    Args:
        architecture: the network that the baselines are made of. baselines: the group of the recipe.
    """
    two_forms = has_batch_statistics(architecture) and any(
        evaluation.has_two_random_forms(options) for evaluation, options in asked.items()
    )
    subjects = [Subject(name, network, features) for name, network in networks.items()]
    if baselines.random or not networks:
        more = ", as initialized and with the batch statistics of training clips" if two_forms else ", as initialized"
        tools.say(f"the random network{more}")
        seed = getattr(architecture, "provenance", {}).get("seed", tools.seed)
        forms = random_forms(architecture, seed, features, data, tools, both=two_forms)
        for form, network in forms.items():
            name = RANDOM if len(forms) == 1 else f"{RANDOM_FORM}{form}"
            subjects.append(Subject(name, network, features))
    beside = [
        evaluation.baselines(baselines, architecture, features, options, tools) for evaluation, options in asked.items()
    ]
    usual = _usual(baselines, architecture, features) if None in beside else Lineup([], [])
    for own in beside:
        names = {subject.name for subject in subjects}
        subjects += [subject for subject in (usual.subjects if own is None else own) if subject.name not in names]
    return Lineup(subjects, usual.notes)


def _usual(baselines: BaselineProtocol, network: Backbone, features: FeatureProtocol) -> Lineup:
    """The first network on other frames, and histograms and trajectories in the place of a network."""
    shown, note = frame_baselines(baselines, network), stills_note(baselines, network)
    found = Lineup([Subject(name, network, replace(features, frames=frames)) for name, frames in shown.items()], [])
    found.notes.extend([note] * bool(note))
    if network.info.in_channels != RGB_CHANNELS and (baselines.histograms or baselines.trajectories):
        found.notes.append(
            "no rows of histograms and trajectories: they are made of pictures, and these clips are of flow"
        )
        return found
    if baselines.histograms:
        found.subjects.append(histogram_subject(features, network.info))
    if baselines.trajectories:
        try:
            require_opencv()
            found.subjects.append(trajectory_subject(features))
        except SsvidError as error:
            found.notes.append(f"no row of trajectories: {error}")
    return found


def frame_baselines(baselines: BaselineProtocol, network: Backbone | None = None) -> dict[str, str]:
    """Name of a row -> which frames the network is shown; no single frames for one that sees differences alone."""
    sees_them = network is None or not baselines.single_frame or sees_stills(network)
    wanted = {"single_frame": baselines.single_frame and sees_them, "shuffled": baselines.shuffled_frames}
    names = {"single_frame": "single frame", "shuffled": "shuffled frames"}
    return {names[frames]: frames for frames, is_wanted in wanted.items() if is_wanted}


def stills_note(baselines: BaselineProtocol, network: Backbone) -> str:
    """Why there is no row of single frames; "" where there is one, or none is wanted."""
    if not baselines.single_frame or sees_stills(network):
        return ""
    return f"no row of single frames: {network.info.name} sees differences of frames, and all clips of one frame are alike to it"


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
