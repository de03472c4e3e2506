"""``probe``: frozen backbone -> features -> linear probe and k-NN, with the random row (and the placebo's) beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssvid.backbones import Backbone
from ssvid.checkpoints import read_checkpoint
from ssvid.data.index import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import CheckpointError, DataError
from ssvid.evals import ResultRow, evaluate_backbone, random_rows, render_table, write_results
from ssvid.exports import load_backbone
from ssvid.machine import num_cores
from ssvid.recipe.device import resolve_device
from ssvid.recipe.load import load_recipe
from ssvid.recipe.pretraining import RUNS, Say, load_manifest, pretrain, speaker
from ssvid.recipe.schema import ProbeRecipe
from ssvid.train.run_folder import RunFolder, next_beside, next_free

TRAIN_AGAIN = "train"  # what --placebo says to have the placebo trained now


@dataclass
class ProbeOutcome:
    """The rows of a probe and where they were written. Prints as the table."""

    rows: list[ResultRow]
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain types: the numbers and the file that holds everything else."""
        rows = [
            {"name": r.name, "metric": r.metric, "value": r.value, "interval95": list(r.interval), "chance": r.chance}
            for r in self.rows
        ]
        return {"rows": rows, "results": str(self.path)}

    def __str__(self) -> str:
        return f"{render_table(self.rows)}\n\nwhole protocol beside every number: {self.path}"


def probe(
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
) -> ProbeOutcome:
    """Score a frozen backbone on labeled videos, beside its own random initialization.

    Args:
        recipe: shipped name, path, or mapping of kind ``probe``. overrides, nested: as for ``pretrain``.
        backbone: checkpoint, run folder, export, or ``random`` (then ``backbone_name`` or the recipe names the network).
        placebo: the same of a run with ``task.placebo=true``; or ``train`` to train it now from the checkpoint's recipe.
        out: folder for ``results.json``; beside the checkpoint, numbered, where None.
        partial: accept weights that fill the network only in part; every result says so.
        untrained_stage: score stages that pretraining never trained, too.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SsvidError: any mistake in the recipe, the weights or the data.
    """
    more = [f"backbone.name={backbone_name}"] * bool(backbone_name) + [
        "features.untrained_stage=true"
    ] * untrained_stage
    loaded = load_recipe(recipe, [*overrides, *more], nested=nested, kind="probe")
    config: ProbeRecipe = loaded.recipe  # type: ignore[assignment]
    say = speaker(show_progress)
    device = resolve_device(device)
    named: dict[str, Any] = {
        "name": config.backbone.name or None,
        "options": config.backbone.options or None,
        "seed": config.seed,
    }
    network = load_backbone(backbone, partial=partial, **named)
    folder = _out_folder(out, backbone, loaded.path)
    manifest = load_manifest(config.data, say)
    train_rows, test_rows = labeled_rows(manifest)
    if placebo is not None and str(placebo) == TRAIN_AGAIN:
        placebo = train_placebo(backbone, show_progress=show_progress)
    networks: dict[str, Backbone] = {} if str(backbone) == "random" else {"pretrained": network}
    if placebo is not None:
        networks["placebo"] = load_backbone(placebo)
        require_same_network(network, networks["placebo"], placebo)
    rows = score(
        networks,
        network,
        config,
        manifest,
        train_rows=train_rows,
        test_rows=test_rows,
        cache_dir=cache_folder() / "features",
        device=device,
        say=say,
    )
    path = write_results(
        folder / "results.json", rows, extra={"recipe": loaded.resolved, "backbone_path": str(backbone)}
    )
    return ProbeOutcome(rows, path)


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
) -> list[ResultRow]:
    """The rows of each named network, then the random row of the same architecture, seed and stage."""
    origin = getattr(architecture, "provenance", {})
    shared: dict[str, Any] = {
        "train_rows": train_rows,
        "test_rows": test_rows,
        "feature_protocol": config.features,
        "probe_protocol": config.probe,
        "device": device,
        "cache_dir": cache_dir,
    }
    if device == "cpu":
        # The network shares the cores with its reading processes; more threads than cores left makes all of them wait.
        torch.set_num_threads(max(1, num_cores() - config.features.workers))
    rows: list[ResultRow] = []
    for name, network in networks.items():
        say(f"features of the {name} network: {len(train_rows) + len(test_rows)} videos")
        rows += evaluate_backbone(network, manifest, name=name, **shared)
    say("features of the random network, in both its forms")
    info = architecture.info
    seed = origin.get("seed", config.seed)
    random = random_rows(info.name, info.options, seed, manifest, trained_stage=origin.get("stage"), **shared)
    return rows + random.better + random.other


def labeled_rows(manifest: Manifest) -> tuple[list[VideoRow], list[VideoRow]]:
    """Rows of the splits train and test, unreadable ones included (they are counted, never replaced).

    Raises:
        DataError: the manifest has no such splits.
    """
    train = [row for row in manifest.rows if row.split == "train"]
    test = [row for row in manifest.rows if row.split == "test"]
    if not train or not test:
        raise DataError(
            f"a probe needs videos of the splits train and test; {manifest.root} has "
            f"{', '.join(manifest.splits()) or 'no split'}. Lay the folder out as train/<class>/ and test/<class>/ "
            "(data.name=class_folder), or give a table with the columns path, label, split (data.name=list data.list=FILE)."
        )
    return train, test


def train_placebo(backbone: str | Path, *, show_progress: bool = True) -> Path:
    """Train the recipe of a checkpoint again with its targets permuted, in a folder beside the run; once.

    Raises:
        CheckpointError: the checkpoint has no recipe that could be run again.
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
    if not RunFolder(folder).results.exists():
        pretrain(meta["recipe"], "task.placebo=true", run_dir=folder, show_progress=show_progress)
    return folder


def require_same_network(network: Backbone, other: Backbone, path: str | Path) -> None:
    """Raise CheckpointError where a placebo is of another architecture."""
    mine, its = (network.info.name, dict(network.info.options)), (other.info.name, dict(other.info.options))
    if mine != its:
        raise CheckpointError(
            f"the placebo {path} is {its[0]} {its[1]}, but the backbone is {mine[0]} {mine[1]}; they must be the same "
            "network. Train the placebo from the same recipe: --placebo train."
        )


def _out_folder(out: str | Path | None, backbone: str | Path, recipe: Path | None) -> Path:
    if out is not None:
        return Path(out)
    name = f"probe-{recipe.stem}" if recipe else "probe"
    return next_free(RUNS, name) if str(backbone) == "random" else next_beside(backbone, name, otherwise=RUNS)
