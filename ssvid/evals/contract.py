"""One network under one protocol: linear probe, k-NN and retrieval, each number with all that it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DataError
from ssvid.features.extracting import Progress, extract_features
from ssvid.features.protocol import (
    FeatureProtocol,
    resolve_feature_protocol,
)
from ssvid.features.store import Features, Listed
from ssvid.machine import versions
from ssvid.results.leaks import leak_note, leak_words
from ssvid.results.rows import ResultRow
from ssvid.weights.provenance import Provenance


def wants_probe(metrics: Sequence[str]) -> bool:
    """Whether metrics of a trained probe are asked for; () asks for everything."""
    return not metrics or any(wanted.startswith("probe") for wanted in metrics)


def wants_neighbors(metrics: Sequence[str]) -> bool:
    """Whether k-NN or R@1 is asked for; () asks for everything."""
    return not metrics or any(wanted.startswith(("knn", "recall")) for wanted in metrics)


class Evaluated(NamedTuple):
    """Features of both sides, and what a number made of them depends on. notes: what its reader must know."""

    train: Features
    test: Features
    context: dict[str, Any]
    notes: list[str]


def extract_for(
    backbone: Backbone,
    manifest: Manifest,
    *,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    feature_protocol: FeatureProtocol,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Evaluated:
    """What every evaluation of frozen features starts with. Arguments and errors as of ``evaluate_backbone``."""
    check_rows(manifest, train_rows, test_rows)
    origin = getattr(backbone, "provenance", {}) if provenance is None else provenance
    if "drop_last" in feature_protocol.defects:
        train_rows, test_rows = _full_batches(train_rows), _full_batches(test_rows)
    stage = origin.get("stage")
    total = len(train_rows) + len(test_rows)
    train, test = (
        extract_features(
            backbone,
            manifest,
            rows,
            feature_protocol,
            device=device,
            cache_dir=cache_dir,
            trained_stage=stage,
            progress=None if progress is None else _shifted(progress, before, total),
        )
        for rows, before in ((train_rows, 0), (test_rows, len(train_rows)))
    )
    context = {
        "backbone": {"name": backbone.info.name, "options": dict(backbone.info.options)},
        "weights_sha256": train.weights_sha256,
        "weights": Provenance.of(origin).to_row(),
        "feature_protocol": asdict(resolve_feature_protocol(feature_protocol, backbone.info, stage)),
        "device": str(device),
        **data_context(manifest, train_rows, test_rows, train, test),
        "leak": leak_note(test_rows, train_rows, origin, manifest.rows),
        "versions": versions(),
    }
    return Evaluated(train, test, context, notes_of(context))


_DROPPED_BATCH = 8  # of VCOP's script


def _full_batches(rows: Sequence[VideoRow]) -> Sequence[VideoRow]:
    """The rows without those that do not fill a batch of 8, as loaders with drop_last deliver them."""
    return rows[: len(rows) - len(rows) % _DROPPED_BATCH] or rows


def check_rows(manifest: Manifest, train_rows: Sequence[VideoRow], test_rows: Sequence[VideoRow]) -> None:
    """Make sure that there is something to learn from and to test on, before a video is read.

    Raises:
        DataError: says what is missing and how to get it.
    """
    if not manifest.labels():
        raise DataError(
            f"none of the {len(manifest)} videos of the manifest has a label, and a probe needs labels. "
            "Use class folders (data.name=class_folder) or a list of paths and labels (data.name=list)."
        )
    for split, rows in (("train", train_rows), ("test", test_rows)):
        if not rows:
            raise DataError(
                f"there is no {split} video; the manifest's splits are {', '.join(manifest.splits()) or 'empty'}. "
                "Put the videos into train/<class> and test/<class>, or fill the manifest's column split."
            )
    check_labels([row for row in train_rows if row.is_readable or not row.label], test_rows, readable="readable ")
    both = {row_id(row) for row in train_rows} & {row_id(row) for row in test_rows}
    if both:
        raise DataError(
            f"{len(both)} videos are in both train and test, the first is {min(both)!r}. Give each video one split."
        )


class _Labeled(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...


def check_labels(train: Sequence[_Labeled], test: Sequence[_Labeled], *, readable: str = "") -> None:
    """Make sure that all have a label, and that each class of test has a training video.

    Raises:
        DataError: says which has none.
    """
    for split, videos in (("train", train), ("test", test)):
        unlabeled = [video.path for video in videos if not video.label]
        if unlabeled:
            raise DataError(
                f"{len(unlabeled)} of {len(videos)} {split} videos have no label, the first is {unlabeled[0]!r}. "
                "Label them, or give them another split."
            )
    unseen = sorted({video.label for video in test} - {video.label for video in train})
    if unseen:
        raise DataError(
            f"class {', '.join(map(repr, unseen[:5]))}{' ...' if len(unseen) > 5 else ''} is in test and has no "
            f"{readable}training video: a probe cannot learn it. "
            "Add training videos of it, or take its videos out of test."
        )


class Side(Protocol):
    """What became of the videos of one side, train or test: ``Features`` say it, and ``VideoScores``."""

    @property
    def unreadable(self) -> tuple[Listed, ...]: ...
    @property
    def padded(self) -> tuple[str, ...]: ...
    @property
    def decoders(self) -> Mapping[str, int] | None: ...


def data_context(
    manifest: Manifest,
    train_rows: Sequence[VideoRow],
    test_rows: Sequence[VideoRow],
    train: Side,
    test: Side,
) -> dict[str, Any]:
    """What a result says of its videos."""
    return {
        "manifest_sha256": manifest.sha256(),
        "data": {
            side: {
                "split": sorted({row.split for row in rows}),
                "num_videos": len(rows),
                "num_classes": len({row.label for row in rows}),
                "unreadable": [list(listed) for listed in features.unreadable],
                "padded": list(features.padded),
                "decoders": dict(features.decoders or {}),
            }
            for side, rows, features in (("train", train_rows, train), ("test", test_rows, test))
        },
    }


def _row(
    name: str,
    metric: str,
    test: Features,
    correct_N: np.ndarray,
    chance: float,
    context: Mapping[str, Any],
) -> ResultRow:
    return ResultRow.counted(name, metric, correct_N, chance, test.ids, test.groups, context)


def notes_of(context: Mapping[str, Any]) -> list[str]:
    """One line for each thing that a reader of the number must know."""
    test, train = context["data"]["test"], context["data"]["train"]
    weights = context["weights"]
    listed = {
        "unreadable test videos, counted as wrong": [video for video, _ in test["unreadable"]],
        "unreadable training videos, left out": [video for video, _ in train["unreadable"]],
        "test videos shorter than a clip, last frame repeated": test["padded"],
        "training videos shorter than a clip, last frame repeated": train["padded"],
    }
    said = [f"{what}: {len(videos)} ({_first(videos)})" for what, videos in listed.items() if videos]
    said += leak_words(context["leak"])
    if defects := context.get("feature_protocol", {}).get("defects"):
        said.append(f"with defects of released scripts, to compare with them: {', '.join(defects)}")
    if weights["placebo"] and not weights.get("placebo_answers"):
        said.append(
            "this placebo was trained by an earlier ssvid, and about one sample in each batch kept its true answer"
        )
    if weights["partial"]:
        said.append("the weights were loaded in part (--partial or init_partial)")
    init = weights.get("init")
    if init and init["unknown_videos"]:
        said.append(f"the weights started from {init['from']}; whether that has seen test videos is not known")
    return said


def _first(videos: Sequence[str], most: int = 5) -> str:
    return ", ".join(videos[:most]) + (", ..." if len(videos) > most else "")


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
