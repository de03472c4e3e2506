"""``retrieve``: frozen backbone -> features -> R@k, with the other rows beside, a picture and a page of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssvid.backbones import Backbone
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.evals.histograms import FLOOR, Histograms, as_histograms, at_size_of
from ssvid.evals.neighbors.page import Shown, neighbor_page, neighbor_picture, shown_queries
from ssvid.evals.neighbors.retrieval import Retrieved, random_retrieval, retrieve_with
from ssvid.features.protocol import RetrievalProtocol, check_retrieval_protocol, resolve_retrieval
from ssvid.files import takes_paths, write_atomic
from ssvid.programs.evaluate import Evaluation, conclude, evaluation_folder
from ssvid.programs.lineup import frozen_subjects, read_all
from ssvid.programs.probe import stills_note, with_note
from ssvid.programs.repeating import Recorded, taken_from
from ssvid.programs.runs import Run, Weights, config_of, more_overrides, plan_runs, refuse_repetition
from ssvid.programs.scored_videos import split_note
from ssvid.progress import Say, speaker
from ssvid.ranks import cores_for_network, is_first_process, resolve_device
from ssvid.recipe.load import load_recipe
from ssvid.recipe.protocol_notes import tagged
from ssvid.recipe.schema import RetrieveRecipe
from ssvid.results.rows import ResultRow

RetrieveOutcome = Evaluation  # the rows of a retrieval, and where they, the picture and the page were written


@takes_paths("recipe", "backbone", "placebo", "out", "from_results")
def retrieve(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    backbone: Weights | Sequence[Weights] = (),
    backbone_name: str | None = None,
    placebo: Weights | Sequence[Weights] | None = None,
    out: str | Path | None = None,
    partial: bool = False,
    untrained_stage: bool = False,
    device: str = "auto",
    from_results: str | Path | None = None,
    show_progress: bool = True,
    **nested: Any,
) -> RetrieveOutcome:
    """Let test videos look for their class among the training videos, beside the backbone's random initialization.

    Args:
        recipe: shipped name, path, named protocol, or mapping of kind ``retrieve``. overrides, nested: as for ``pretrain``.
        backbone, backbone_name, placebo, partial, untrained_stage, device, from_results: as for ``probe``.
        out: folder for ``results.json``, ``neighbors.svg`` and ``neighbors.html``; beside the checkpoint, numbered, where
            None.

    Raises:
        SsvidError: any mistake in the recipe, the weights or the data.
    """
    arguments: dict[str, Any] = {
        "backbone": backbone,
        "backbone_name": backbone_name,
        "placebo": placebo,
        "partial": partial,
        "untrained_stage": untrained_stage,
        "device": resolve_device(device),
    }
    recipe, overrides, arguments, recorded = taken_from(from_results, "retrieve", recipe, overrides, arguments)
    loaded = load_recipe(recipe, [*overrides, *more_overrides(arguments)], nested=nested, kind="retrieve")
    config: RetrieveRecipe = loaded.recipe  # type: ignore[assignment]
    check_retrieval_protocol(resolve_retrieval(config.features, config.retrieval)[1])
    refuse_repetition(config, arguments["backbone"])
    runs = plan_runs(config, arguments["backbone"], arguments["placebo"])
    folder = evaluation_folder("retrieve", out, runs[0].backbone, loaded)
    say = speaker(show_progress)
    rows: list[ResultRow] = []
    pictures: list[Path] = []
    for run in runs:
        if len(runs) > 1:
            say(f"fold {run.fold}, seed {run.seed}")
        found, manifest, lines = _retrieve_once(config_of(config, run), run, arguments, recorded, say, show_progress)
        of_run = tagged(found, run.fold, run.seed, run.recipe_seed, loaded, manifest)
        shown = [row for row in of_run if row.name == of_run[0].name]
        name = "neighbors" if len(runs) == 1 else f"neighbors-{run.name}"
        if is_first_process():
            pictures += _draw(folder / name, lines, shown, config.retrieval)
        rows += of_run
    outcome = conclude(folder, rows, loaded, arguments, manifest, recorded=recorded)
    outcome.pictures += pictures
    return outcome


def _retrieve_once(
    config: RetrieveRecipe,
    run: Run,
    arguments: Mapping[str, Any],
    recorded: Recorded | None,
    say: Say,
    show_progress: bool,
) -> tuple[list[ResultRow], Manifest, list[list[Shown]]]:
    """The rows of one fold and seed, and queries with what the first network found for them."""
    network, networks, manifest, train_rows, test_rows = frozen_subjects(
        config, run, arguments, recorded, say, show_progress
    )
    rows, first = retrieve_all(
        networks,
        network,
        config,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        cache_dir=cache_folder() / "features",
        device=arguments["device"],
        say=say,
    )
    p = config.retrieval
    of_features = {row_id(row): row for row in (*train_rows, *test_rows)}
    lines = shown_queries(first, manifest, rows=of_features, num_shown=p.num_shown, seed=p.seed)
    return with_note(rows, split_note(manifest, config.data)), manifest, lines


def retrieve_all(
    networks: Mapping[str, Backbone],
    architecture: Backbone,
    config: RetrieveRecipe,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    cache_dir: Path,
    device: str,
    say: Say,
) -> tuple[list[ResultRow], Retrieved]:
    """The rows of each named network and then of the anchors, as for a probe; and all of the first network."""
    origin = architecture.provenance
    shared: dict[str, Any] = {
        "train_rows": train_rows,
        "test_rows": test_rows,
        "feature_protocol": config.features,
        "retrieval_protocol": config.retrieval,
        "device": device,
        "cache_dir": cache_dir,
    }
    features, _ = resolve_retrieval(config.features, config.retrieval)
    seed, stage = origin.get("seed", config.seed), origin.get("stage")
    with cores_for_network(device, config.features.workers):
        forms, by_frames = read_all(
            networks,
            architecture,
            features,
            config.anchors,
            seed,
            manifest,
            train_rows,
            test_rows,
            cache_dir=cache_dir,
            device=device,
            say=say,
        )
        found: list[Retrieved] = []
        for name, network in networks.items():
            say(f"searching with the {name} network")
            found.append(retrieve_with(network, manifest, name=name, **shared))
        others: list[ResultRow] = []
        if forms:
            say("searching with the random network")
            random = random_retrieval(architecture, seed, manifest, trained_stage=stage, forms=forms, **shared)
            found.append(random.better)
            others = random.other
        rows = [row for of_network in found for row in of_network.rows] + others
        for name, protocol in by_frames.items():
            say(f"searching with {name}")
            rows += retrieve_with(architecture, manifest, name=name, **shared | {"feature_protocol": protocol}).rows
        if config.anchors.floor:
            say("searching with the floor")
            rows += _floor(manifest, shared | {"feature_protocol": at_size_of(config.features, architecture.info)})
    return with_note(rows, stills_note(config.anchors, architecture)), found[0]


def _floor(manifest: Manifest, shared: Mapping[str, Any]) -> list[ResultRow]:
    """Histograms in the place of a network: centered as the manner says, pooled in no way."""
    features, protocol = resolve_retrieval(shared["feature_protocol"], shared["retrieval_protocol"])
    own = {"feature_protocol": as_histograms(features), "retrieval_protocol": replace(protocol, manner="own")}
    origin: dict[str, Any] = {"stage": None, "content_ids": []}
    return retrieve_with(Histograms(), manifest, name=FLOOR, provenance=origin, **{**shared, **own}).rows


def _draw(
    stem: Path, lines: Sequence[Sequence[Shown]], rows: Sequence[ResultRow], protocol: RetrievalProtocol
) -> list[Path]:
    """Write the picture and the page of some queries; their paths."""
    page, picture = stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.svg")
    text, drawing = neighbor_page(lines, rows, seed=protocol.seed), neighbor_picture(lines, rows)
    write_atomic(page, lambda file: file.write(text.encode()))
    write_atomic(picture, lambda file: file.write(drawing.encode()))
    return [page, picture]
