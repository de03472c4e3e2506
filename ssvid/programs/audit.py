"""``audit``: checkpoint + held-out videos -> the pretext metric on clean and on changed clips, and what that tells."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.audits.counterfactuals import NAMES, Counterfactual, chosen_counterfactuals
from ssvid.audits.intervals import Resampler
from ssvid.audits.measuring import (
    CLEAN,
    Answers,
    Questions,
    Subject,
    measure,
    without_replaced,
)
from ssvid.audits.pictures import contact_sheet, shown_frames
from ssvid.audits.report import AuditReport, make_rows, report_of
from ssvid.audits.verdicts import Standard
from ssvid.composite import CompositeTask
from ssvid.data.collection import load_manifest, split_rows
from ssvid.data.contents import NOT_COMPARABLE_WORDS, QUICK_WORDS, Contents, units_of
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import CheckpointError, DataError, RecipeError, did_you_mean
from ssvid.files import takes_paths, write_json, write_picture
from ssvid.intervals import LEVEL, METHOD
from ssvid.machine import versions
from ssvid.programs.pretrain import RUNS
from ssvid.programs.trained import checkpoint_file, recipe_of, trained_networks
from ssvid.progress import NamedProgress, Say, speaker
from ssvid.ranks import cores_for_network, resolve_device
from ssvid.recipe.building import task_names
from ssvid.recipe.load import LoadedRecipe, load_recipe
from ssvid.recipe.schema import PretrainRecipe
from ssvid.tasks import PretextTask
from ssvid.train.run_folder import next_beside
from ssvid.types import RGB
from ssvid.weights.checkpoints import Checkpoint, read_checkpoint, weights_sha256

ALL_VIDEOS = "all"
FEW_VIDEOS = 50


@dataclass(frozen=True)
class AuditResult:
    """What an audit found and where it was written. Prints as the report.

    report: rows and conclusions. path: of audit.json. picture: of examples.png. seconds: of the whole call.
    """

    report: AuditReport
    path: Path
    picture: Path
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        return self.report.as_dict() | {"audit": str(self.path), "picture": str(self.picture), "seconds": self.seconds}

    def __str__(self) -> str:
        return f"{self.report}\n\n{self.path} holds every row; {self.picture} shows the clips ({self.seconds:.0f} s)"


@takes_paths("recipe", "checkpoint", "out")
def audit(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *overrides: str,
    checkpoint: str | Path,
    num_clips: int = 1000,
    only: str = "",
    metric: str = "",
    split: str = "",
    batch_size: int = 32,
    workers: int = 2,
    device: str = "auto",
    out: str | Path | None = None,
    show_progress: bool = True,
    **nested: Any,
) -> AuditResult:
    """Find out what a trained pretext network reads: the same clips, changed in one respect at a time.

    Args:
        recipe: the pretraining recipe, by shipped name, path or mapping; None is that of the checkpoint.
            overrides, nested: as for ``pretrain``; the network and the task must stay those of the checkpoint.
        checkpoint: a run folder or a checkpoint file.
        num_clips: at least so many; where there are fewer videos, several clips of each; where there are more, of so many videos, spread
            evenly over the table.
        only: names of counterfactuals, joined by commas; "" is all.
        metric: of the task; "" is the first that has a chance level.
        split: of the manifest, or ``all``; "" is the videos that the recipe holds out.
        batch_size: clips per pass. workers: reading processes. device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        out: folder for ``audit.json`` and ``examples.png``; beside the checkpoint, numbered, where None.

    Raises:
        SsvidError: any mistake in the recipe, the checkpoint, the names or the videos.
    """
    started = time.perf_counter()
    say, device = speaker(show_progress), resolve_device(device)
    counterfactuals = chosen_counterfactuals([name.strip() for name in only.split(",") if name.strip()])
    path = checkpoint_file(checkpoint, "An audit")
    trained = read_checkpoint(path)
    loaded = load_recipe(
        recipe if recipe is not None else recipe_of(trained), overrides, nested=nested, kind="pretrain"
    )
    config: PretrainRecipe = loaded.recipe  # type: ignore[assignment]
    _require_same(loaded, trained)
    if config.data.modality != RGB:
        raise RecipeError(
            f"data.modality ({config.data.modality}) cannot be audited: counterfactuals are made of pictures. Audit a run on"
            f" pictures (data.modality={RGB})."
        )
    backbone, task = trained_networks(config, trained)
    metric = _metric_of(task, metric)
    manifest = load_manifest(config.data, say)
    rows = _spread(_rows(manifest, config, split, task), num_clips)
    questions = Questions(manifest, rows, num_clips, batch_size, replace(config.loader, workers_per_device=workers))
    subject = Subject(backbone.to(device), task.to(device), metric, config.seed, device)
    found = without_replaced(_measured(subject, questions, counterfactuals, device, workers, _lines(say)))
    report = _report(subject, found, rows, config, trained)
    folder = Path(out) if out is not None else next_beside(checkpoint, "audit", otherwise=RUNS)
    picture = save_examples(folder / "examples.png", subject, questions, counterfactuals)
    seconds = round(time.perf_counter() - started, 2)
    context = {**report.context, "recipe": loaded.resolved, "checkpoint": str(path)}
    report = replace(report, context=context)
    write_json(folder / "audit.json", report.as_dict() | {"seconds": seconds})
    return AuditResult(report, folder / "audit.json", picture, seconds)


# ---- what is audited -------------------------------------------------------------------------------------------------


def _require_same(loaded: LoadedRecipe, trained: Checkpoint) -> None:
    """Raise CheckpointError where the recipe names another network or task than the checkpoint holds."""
    for group in ("backbone", "task"):
        asked, held = loaded.resolved[group]["name"], (trained.meta[group] or {}).get("name")
        if asked != held:
            raise CheckpointError(
                f"{group}.name ({asked}) must be that of the checkpoint, {held}. Leave RECIPE out to take the recipe that "
                f"{trained.path} was trained by."
            )


def _metric_of(task: PretextTask, metric: str) -> str:
    known = list(task.chance())
    if not known:
        raise RecipeError("the task names no metric with a chance level (chance()), and an audit needs one.")
    if metric and metric not in known:
        raise RecipeError(f"metric ({metric!r}) has no chance level. {did_you_mean(metric, known)}")
    return metric or known[0]


def _rows(manifest: Manifest, config: PretrainRecipe, split: str, task: PretextTask) -> list[VideoRow]:
    """The readable videos that are long enough, of the split that is asked for.

    Raises:
        DataError: there is none.
    """
    if split == ALL_VIDEOS:
        chosen = manifest
    elif split:
        chosen = manifest.select(split)
    else:
        chosen = split_rows(manifest, config.data, config.seed)[1]
    if not len(chosen):
        raise DataError(
            "no video is held out: data.val_fraction is 0 or there is one video. Name a split of the manifest, or all of "
            "it, with --split, or other videos with data.root=."
        )
    needed = task.clip_maker(training=False).min_frames
    rows = [row for row in chosen.rows if row.is_readable and row.window_frames >= needed]
    if not rows:
        raise DataError(
            f"none of {len(chosen)} videos is readable and has the {needed} frames that the task needs. Use longer videos."
        )
    return rows


def _spread(rows: list[VideoRow], most: int) -> list[VideoRow]:
    """All, or so many of them, evenly from the first to the last."""
    if len(rows) <= most:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, most).round().astype(int)]


# ---- measuring and telling -------------------------------------------------------------------------------------------


def _measured(
    subject: Subject,
    questions: Questions,
    counterfactuals: Sequence[Counterfactual],
    device: str,
    workers: int,
    progress: NamedProgress,
) -> dict[Counterfactual, Answers]:
    with cores_for_network(device, workers):
        return measure(subject, questions, counterfactuals, progress)


def _report(
    subject: Subject,
    found: Mapping[Counterfactual, Answers],
    rows: Sequence[VideoRow],
    config: PretrainRecipe,
    trained: Checkpoint,
) -> AuditReport:
    videos_N = found[CLEAN].videos_N
    if not len(videos_N):
        raise DataError(f"none of {len(rows)} videos could be read. See: ssvid data index {config.data.root}")
    resampler = Resampler(videos_N, groups=units_of(rows), epoch_metric=_epoch_metric(subject, found), seed=config.seed)
    clean, table = make_rows(found, resampler)
    declaring = _declaring(subject.task, subject.metric)
    standard = Standard(
        task=task_names(config) if declaring is subject.task else subject.metric.split("/")[0],
        metric=subject.metric.split("/")[-1],
        chance=float(subject.task.chance()[subject.metric]),
        clean=clean.value,
        clean_interval=clean.interval(),
        must_fall=tuple(declaring.must_fall),
        must_hold=tuple(declaring.must_hold),
    )
    return report_of(
        table,
        standard,
        num_videos=resampler.num_videos,
        num_clips=len(videos_N),
        notes=_notes(rows, trained, resampler, found),
        context=_context(trained, resampler, config),
    )


def _epoch_metric(subject: Subject, found: Mapping[Counterfactual, Answers]) -> Any:
    """What makes the metric, where it is computed over all clips at once; None where it is a mean over clips."""
    if found[CLEAN].records[0].ndim == 1:
        return None
    return lambda: subject.task.epoch_metrics()[subject.metric]


def _declaring(task: PretextTask, metric: str) -> PretextTask:
    """Whose ``must_fall`` and ``must_hold`` count: of several tasks, the one that the metric is of."""
    return task.members[metric.split("/")[0]] if isinstance(task, CompositeTask) else task


def _notes(
    rows: Sequence[VideoRow], trained: Checkpoint, resampler: Resampler, found: Mapping[Counterfactual, Answers]
) -> list[str]:
    """What stands between the numbers and their meaning."""
    num_videos, num_groups = resampler.num_videos, resampler.num_groups
    seen = Contents.of_ids(trained.meta["data"]["content_ids"])
    known = sum(map(seen.holds, rows))
    untold = sum(not seen.can_tell(row) for row in rows)
    notes = []
    if known:
        notes.append(f"{known} of {len(rows)} videos were trained on: the network may know their answers by heart")
    if untold:
        notes.append(f"whether {untold} of {len(rows)} videos were trained on cannot be told: {NOT_COMPARABLE_WORDS}")
    if seen.has_quick:
        notes.append(f"which videos were trained on is {QUICK_WORDS}")
    if num_groups < num_videos:
        notes.append(f"the {num_videos} videos are of {num_groups} groups, and the intervals are over groups")
    if num_groups < FEW_VIDEOS:
        what = "groups" if num_groups < num_videos else "videos"
        notes.append(f"{num_groups} {what} are few: intervals are wide, whatever the number of clips")
    if trained.meta.get("placebo"):
        notes.append("the network is a placebo: it was trained on wrong answers")
    lost = len(rows) - num_videos
    if lost:
        notes.append(f"{lost} of {len(rows)} videos could not be read and have no part in any number")
    if not any(c.place == "clip" for c in found):
        notes.append("the task's batches hold no uint8 frames (..., 3, H, W): what acts on the clip was not measured")
    if {c.name for c in found} >= set(NAMES):
        return notes
    left_out = ", ".join(name for name in NAMES if name not in {c.name for c in found})
    return [*notes, f"not measured: {left_out}"]


def _context(trained: Checkpoint, resampler: Resampler, config: PretrainRecipe) -> dict[str, Any]:
    return {
        "weights_sha256": weights_sha256(trained.backbone_state),
        "global_step": trained.meta["global_step"],
        "seed": config.seed,
        "intervals": {
            "unit": "group",
            "num_groups": resampler.num_groups,
            "method": METHOD,
            "level": LEVEL,
        },
        "versions": versions(),
    }


def save_examples(
    path: Path, subject: Subject, questions: Questions, counterfactuals: Sequence[Counterfactual]
) -> Path:
    """Write the picture: the first clip, clean and under every counterfactual (of the covered cells, the first)."""
    dataset = questions.dataset(subject.task.clip_maker(training=False), subject.seed)
    shown = [c for c in counterfactuals if c.name != "occluded" or c.value.startswith("row 1, column 1 ")]
    by_label = {c.label: c for c in (CLEAN, *shown)}  # what acts in both places looks alike in both
    rows = [(label, shown_frames(dataset, c)) for label, c in by_label.items()]
    write_picture(path, contact_sheet(rows))
    return path


def _lines(say: Say) -> NamedProgress:
    started = time.perf_counter()

    def report(done: int, total: int, what: str) -> None:
        doing = f": {what}" if what else ""
        say(f"passes over the clips: {done}/{total}{doing} ({time.perf_counter() - started:.0f} s)")

    return report
