"""Recipes with streams: two trainings, their rows, and the mean of their probabilities; what is refused before any of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssvid
from ssvid.data.index.flow import measure_flow_of
from ssvid.data.manifest import Manifest
from ssvid.errors import DataError, RecipeError
from ssvid.evals.finetune.scores import Scores, averaged, read_scores
from ssvid.results.rows import ResultRow
from ssvid.video.flow import FlowSettings
from ssvid.weights.checkpoints import read_checkpoint

FLOW = FlowSettings(short_side_px=32)
RECIPE: dict[str, Any] = {
    "kind": "finetune",
    "seed": 3,
    "data": {"name": "class_folder", "root": "???"},
    "finetune": {"crop_px": 24, "resize_px": 28, "batch_size": 6, "holdout_fraction": 0, "num_clips": 2},
    "optim": {"name": "adamw", "epochs": 1, "base_lr": 0.5, "warmup_epochs": 0},
    "streams": {
        "spatial": {"backbone": {"name": "tiny3d", "options": {"width": 2}}, "finetune": {"num_frames": 1}},
        "temporal": {
            "data": {"modality": "flow", "flow": {"short_side_px": 32}},
            "backbone": {"name": "tiny3d", "options": {"width": 2, "in_channels": 2}},
            "finetune": {"num_frames": 4},
        },
    },
    "baselines": {"histograms": False, "single_frame": False, "shuffled_frames": False},
    "loader": {"workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1},
}


@pytest.fixture(scope="module")
def measured(manifest: Manifest) -> Manifest:
    """The videos, whose flow was measured."""
    measure_flow_of(manifest, FLOW, workers=1)
    return manifest


def run(videos: Manifest, folder: Path, *overrides: str, **more: Any) -> Any:
    words = (f"data.root={videos.root}", *overrides)
    options = {"backbone": "random", "random": False, "run_dir": folder, "show_progress": False}
    return ssvid.finetune(RECIPE, *words, **(options | more))


@pytest.fixture(scope="module")
def outcome(measured: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(measured, tmp_path_factory.mktemp("streams") / "run")


def row_of(rows: list[ResultRow], name: str, metric: str = "finetune_top1") -> ResultRow:
    return next(row for row in rows if (row.name, row.metric) == (name, metric))


def test_each_stream_has_its_rows_and_the_mean_stands_beside(outcome: Any) -> None:
    found = [(row.name, row.metric) for row in outcome.rows]
    assert found == [
        *(("spatial", metric) for metric in ("finetune_top1", "finetune_clip_top1")),
        *(("temporal", metric) for metric in ("finetune_top1", "finetune_clip_top1")),
        ("two-stream", "finetune_top1"),
    ]
    assert "clips of optical flow (dis-32px-2.5)" in row_of(outcome.rows, "temporal").context["notes"]
    assert not any("optical flow" in note for note in row_of(outcome.rows, "spatial").context["notes"])
    assert "the mean of the class probabilities of spatial and temporal" in str(outcome)
    for stream, channels in (("spatial", 3), ("temporal", 2)):
        trained = read_checkpoint(outcome.run_dir / stream / "random" / "checkpoints" / "last.ckpt")
        assert trained.backbone_state["stage1.0.weight"].shape[1] == channels


def test_the_row_of_both_is_the_mean_of_their_probabilities_by_hand(outcome: Any, measured: Manifest) -> None:
    scores = {name: read_scores(outcome.run_dir / name / "random" / "scores.npz") for name in ("spatial", "temporal")}
    for name, own in scores.items():  # each stream's own row follows from the same probabilities
        assert np.allclose(own.probabilities_NK.sum(axis=1), 1)
        assert row_of(outcome.rows, name).context["predictions"] == list(own.predictions())
    both = row_of(outcome.rows, "two-stream")
    labels = {row.path: row.label for row in measured.rows}
    right, predicted = [], []
    for i, video in enumerate(both.ids):
        mean = [
            (scores["spatial"].probabilities_NK[i, k] + scores["temporal"].probabilities_NK[i, k]) / 2 for k in range(3)
        ]
        predicted.append(scores["spatial"].classes[int(np.argmax(mean))])
        right.append(predicted[-1] == labels[video])
    assert both.context["predictions"] == predicted
    assert both.correct_N.tolist() == right
    assert both.value == pytest.approx(np.mean(right))
    assert both.chance == row_of(outcome.rows, "spatial").chance


def test_a_run_that_was_interrupted_goes_on_and_ends_alike(outcome: Any, measured: Manifest, tmp_path: Path) -> None:
    shutil.copytree(outcome.run_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "temporal")
    (tmp_path / "run" / "results.json").unlink()
    again = ssvid.finetune(tmp_path / "run", backbone="random", random=False, resume=True, show_progress=False)
    assert [(row.name, row.value) for row in again.rows] == [(row.name, row.value) for row in outcome.rows]
    for stream in ("spatial", "temporal"):
        one, other = (read_scores(f / stream / "random" / "scores.npz") for f in (outcome.run_dir, tmp_path / "run"))
        assert np.array_equal(one.probabilities_NK, other.probabilities_NK)


def test_a_result_is_repeated_from_its_file(outcome: Any, tmp_path: Path) -> None:
    again = ssvid.finetune(from_results=outcome.path, run_dir=tmp_path / "again", show_progress=False)
    assert again.repeated.startswith("repeated: all 5 numbers of")
    kept = json.loads(again.path.read_text(encoding="utf-8"))
    assert set(kept["recipe"]["streams"]) == {"spatial", "temporal"}


def test_flow_that_was_not_measured_is_refused_before_anything_is_trained(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stream temporal: data.modality \(flow\).*ssvid data flow .* --short-side 40"):
        run(manifest, tmp_path / "run", "streams.temporal.data.flow.short_side_px=40")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "more", "words"),
    [
        (["streams.temporal.trainer.threads=2"], {}, "streams.temporal.trainer is that of all streams"),
        (["streams.temporal.data.root=x"], {}, "streams.temporal.data.root is that of all streams"),
        (
            ["streams.temporal=3"],
            {},
            r"streams.temporal \(3\) must be a group of keys: backbone, data, finetune, optim",
        ),
        (
            ["streams.temporal.backbone.options.in_channels=3"],
            {},
            "stream temporal: data.modality .flow. gives clips of 2",
        ),
        (["streams.temporal.finetune.num_frame=3"], {}, "stream temporal: .*unknown key 'finetune.num_frame'"),
        ([], {"backbone": ["spatial=random"]}, "each of the streams spatial, temporal needs weights"),
        ([], {"backbone": ["random", "motion=random"]}, "--backbone motion=random names no stream. .*temporal"),
        ([], {"placebo": "train"}, "--placebo is not taken by a recipe with streams"),
    ],
)
def test_what_makes_no_sense_is_named(
    measured: Manifest, tmp_path: Path, overrides: list[str], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        run(measured, tmp_path / "run", *overrides, **more)
    assert not (tmp_path / "run").exists()


def test_one_stream_is_none(measured: Manifest, tmp_path: Path) -> None:
    alone = {**RECIPE, "streams": {"spatial": RECIPE["streams"]["spatial"]}}
    with pytest.raises(RecipeError, match=r"streams \(spatial\) must be two or more"):
        ssvid.finetune(
            alone, f"data.root={measured.root}", backbone="random", run_dir=tmp_path / "r", show_progress=False
        )


def test_streams_of_other_videos_cannot_answer_together() -> None:
    one = Scores(np.eye(2), ("a", "b"), ("x", "y"), ("x", "y"))
    with pytest.raises(DataError, match="must share ids"):
        averaged([one, one._replace(ids=("a", "c"))])
    lost = one._replace(probabilities_NK=np.array([[np.nan, np.nan], [0.4, 0.6]]))
    both = averaged([one, lost])
    assert both.predictions() == ("", "y")  # a video that one of them could not read is wrong
    assert both.correct_in_top(1).tolist() == [False, True]
    assert both.correct_in_top(2).tolist() == [False, True]
