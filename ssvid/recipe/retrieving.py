"""``retrieve``: frozen backbone -> features -> R@k, with the random row (and the placebo's) beside, a picture and a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssvid.backbones import Backbone
from ssvid.data.index import cache_folder
from ssvid.evals import ResultRow, render_table, write_results
from ssvid.evals.neighbor_pictures import neighbor_page, neighbor_picture, shown_queries
from ssvid.evals.protocol import check_retrieval_protocol, resolve_retrieval
from ssvid.evals.retrieval import Retrieved, random_retrieval, retrieve_with
from ssvid.exports import load_backbone
from ssvid.files import write_atomic
from ssvid.machine import num_cores
from ssvid.recipe.device import resolve_device
from ssvid.recipe.load import load_recipe
from ssvid.recipe.pretraining import RUNS, load_manifest, speaker
from ssvid.recipe.probing import TRAIN_AGAIN, labeled_rows, require_same_network, train_placebo
from ssvid.recipe.schema import RetrieveRecipe
from ssvid.train.run_folder import next_beside, next_free


@dataclass
class RetrieveOutcome:
    """The rows of a retrieval, where they were written, and the picture and page of some queries. Prints as the table."""

    rows: list[ResultRow]
    path: Path
    picture: Path
    page: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the files."""
        rows = [
            {"name": r.name, "metric": r.metric, "value": r.value, "interval95": list(r.interval), "chance": r.chance}
            for r in self.rows
        ]
        return {"rows": rows, "results": str(self.path), "picture": str(self.picture), "page": str(self.page)}

    def __str__(self) -> str:
        return (
            f"{render_table(self.rows)}\n\nwhole protocol beside every number: {self.path}\n"
            f"queries with their neighbors: {self.page}, {self.picture}"
        )


def retrieve(
    recipe: str | Path | Mapping[str, Any],
    *overrides: str,
    backbone: str | Path,
    backbone_name: str | None = None,
    placebo: str | Path | None = None,
    out: str | Path | None = None,
    partial: bool = False,
    untrained_stage: bool = False,
    device: str = "auto",
    show_progress: bool = True,
    **nested: Any,
) -> RetrieveOutcome:
    """Let test videos look for their class among the training videos, beside the backbone's random initialization.

    Args:
        recipe: shipped name, path, or mapping of kind ``retrieve``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` or the recipe names the network).
        placebo: the same of a run with ``task.placebo=true``; or ``train`` to train it now from the checkpoint's recipe.
        out: folder for ``results.json``, ``neighbors.png`` and ``neighbors.html``; beside the checkpoint, numbered, where
            None.
        partial: accept weights that fill the network only in part; every result says so.
        untrained_stage: score stages that pretraining never trained, too.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SsvidError: any mistake in the recipe, the weights or the data.
    """
    more = [f"backbone.name={backbone_name}"] * bool(backbone_name) + [
        "features.untrained_stage=true"
    ] * untrained_stage
    loaded = load_recipe(recipe, [*overrides, *more], nested=nested, kind="retrieve")
    config: RetrieveRecipe = loaded.recipe  # type: ignore[assignment]
    check_retrieval_protocol(resolve_retrieval(config.features, config.retrieval)[1])
    say = speaker(show_progress)
    named = {"name": config.backbone.name or None, "options": config.backbone.options or None, "seed": config.seed}
    network = load_backbone(backbone, partial=partial, **named)  # type: ignore[arg-type]
    manifest = load_manifest(config.data, say)
    train_rows, test_rows = labeled_rows(manifest)
    device = resolve_device(device)
    if device == "cpu":  # the network shares the cores with its reading processes
        torch.set_num_threads(max(1, num_cores() - config.features.workers))
    shared: dict[str, Any] = {
        "train_rows": train_rows,
        "test_rows": test_rows,
        "feature_protocol": config.features,
        "retrieval_protocol": config.retrieval,
        "device": device,
        "cache_dir": cache_folder() / "features",
    }
    found: list[Retrieved] = []
    for name, other in _networks(network, backbone, placebo, show_progress).items():
        say(f"features of the {name} network: {len(train_rows) + len(test_rows)} videos")
        found.append(retrieve_with(other, manifest, name=name, **shared))
    say("features of the random network, in both its forms")
    origin = network.provenance
    random = random_retrieval(
        network, origin.get("seed", config.seed), manifest, trained_stage=origin.get("stage"), **shared
    )
    rows = [row for of_network in (*found, random.better) for row in of_network.rows] + random.other
    folder = _out_folder(out, backbone, loaded.path)
    extra = {"recipe": loaded.resolved, "backbone_path": str(backbone)}
    path = write_results(folder / "results.json", rows, extra=extra)
    shown = (*found, random.better)[0]
    protocol = config.retrieval
    lines = shown_queries(
        shown, manifest, train_rows=train_rows, test_rows=test_rows, num_shown=protocol.num_shown, seed=protocol.seed
    )
    picture, page = folder / "neighbors.png", folder / "neighbors.html"
    write_atomic(picture, lambda file: neighbor_picture(lines, shown.rows).save(file, "PNG"))
    text = neighbor_page(lines, shown.rows, seed=protocol.seed)
    write_atomic(page, lambda file: file.write(text.encode()))
    return RetrieveOutcome(rows, path, picture, page)


def _networks(
    network: Backbone, backbone: str | Path, placebo: str | Path | None, show_progress: bool
) -> dict[str, Backbone]:
    """The networks to score besides the random one, by the name of their rows."""
    networks = {} if str(backbone) == "random" else {"pretrained": network}
    if placebo is not None and str(placebo) == TRAIN_AGAIN:
        placebo = train_placebo(backbone, show_progress=show_progress)
    if placebo is not None:
        networks["placebo"] = load_backbone(placebo)
        require_same_network(network, networks["placebo"], placebo)
    return networks


def _out_folder(out: str | Path | None, backbone: str | Path, recipe: Path | None) -> Path:
    if out is not None:
        return Path(out)
    name = f"retrieve-{recipe.stem}" if recipe else "retrieve"
    return next_free(RUNS, name) if str(backbone) == "random" else next_beside(backbone, name, otherwise=RUNS)
