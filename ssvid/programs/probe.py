"""``probe``: frozen backbone -> features -> linear probe and k-NN, with the random row (and the placebo's) beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.evals.baselines import random_rows, sees_stills
from ssvid.evals.histograms import at_size_of, floor_rows
from ssvid.evals.linear_probe.evaluation import evaluate_backbone
from ssvid.features.protocol import AnchorProtocol, check_probe_protocol
from ssvid.files import takes_paths
from ssvid.programs.evaluate import Evaluation, conclude, evaluation_folder
from ssvid.programs.lineup import (
    frozen_subjects,
    read_all,
    supervised_network,
)
from ssvid.programs.repeating import Recorded, taken_from
from ssvid.programs.runs import Run, Weights, config_of, more_overrides, plan_runs, refuse_repetition
from ssvid.programs.scored_videos import split_note
from ssvid.progress import Say, speaker
from ssvid.ranks import cores_for_network, resolve_device
from ssvid.recipe.load import load_recipe
from ssvid.recipe.protocol_notes import tagged, wanted_metrics
from ssvid.recipe.schema import ProbeRecipe
from ssvid.results.rows import ResultRow

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


def stills_note(anchors: AnchorProtocol, network: Backbone) -> str:
    """Why there is no row of single frames; "" where there is one, or none is wanted."""
    if not anchors.single_frame or sees_stills(network):
        return ""
    return f"no row of single frames: {network.info.name} sees differences of frames, and all clips of one frame are alike to it"


def with_note(rows: Iterable[ResultRow], note: str) -> list[ResultRow]:
    """The rows with one more thing that their reader must know."""
    more = [note] * bool(note)
    return [replace(r, context={**r.context, "notes": [*r.context.get("notes", ()), *more]}) for r in rows]
