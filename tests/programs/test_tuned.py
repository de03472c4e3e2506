"""A fine-tuned network, taken out of its run folder: it says what it said there, and what it says of other frames."""

import shutil

import numpy as np
import pytest
import torch

import ssvid
from ssvid.classifiers.scoring import VideoScores
from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.errors import RecipeError, RunFolderError
from ssvid.programs.tuned import load_tuned
from ssvid.results.rows import read_results

SETTINGS = {"num_frames": 4, "resize_px": 36, "crop_px": 32, "batch_size": 4, "holdout_fraction": 0.25, "num_clips": 2}


def recipe(**changes):
    return {
        "kind": "finetune",
        "data": {"name": "manifest", "root": "???"},
        "backbone": {"name": "tiny3d", "options": {"width": 2}},
        "finetune": {**SETTINGS, **changes},
        "optim": {"name": "adamw", "epochs": 2, "base_lr": 0.1},
        "baselines": {"histograms": False, "single_frame": False, "shuffled_frames": False},
        "loader": {"workers_per_device": 0},
        "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1},
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    made = SyntheticVideos(num_train=16, num_test=8, seconds=1.0, size_px=36, motions="directions")
    return synthesize(tmp_path_factory.mktemp("tuned") / "videos", made, workers=1).root


def trained(videos, folder, **changes):
    words = [f"data.root={videos}"]
    ssvid.finetune(recipe(**changes), *words, backbone="random", random=False, run_dir=folder, show_progress=False)
    return folder


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    return trained(videos, tmp_path_factory.mktemp("runs") / "run")


def predicted(run) -> list[str]:
    (row,) = (row for row in read_results(run / "results.json") if row.metric == "finetune_top1")
    return row.context["predictions"]


def test_it_says_of_the_test_videos_what_the_run_said(run):
    tuned = load_tuned(run)
    scores = tuned.score()
    assert list(scores.predictions(tuned.task.protocol.averaging)) == predicted(run)
    assert not tuned.backbone.training and not tuned.task.training


def test_with_refit_it_is_the_network_that_was_trained_again(videos, tmp_path):
    folder = trained(videos, tmp_path / "run", refit=True)
    tuned = load_tuned(folder)
    assert list(tuned.score().predictions(tuned.task.protocol.averaging)) == predicted(folder)


def test_a_repeated_frame_gives_what_a_video_that_stands_still_gives(run, monkeypatch):
    """The same frame at every place of the clip: shown so by hand to the network."""
    tuned = load_tuned(run)
    seen = []
    monkeypatch.setattr(
        type(tuned.backbone),
        "normalize",
        lambda self, clip: seen.append(clip) or (clip - self.mean_C111) / self.std_C111,
    )
    tuned.score("single_frame")
    assert seen and all(torch.equal(clip, clip[:, :, :1].expand_as(clip)) for clip in seen)


def test_shuffled_frames_change_no_bit_of_a_head_that_is_blind_to_order(videos, tmp_path):
    changes = {"head": "late_pool", "num_frames": 4}
    network = {"name": "caffenet", "options": {"norm": "batch"}}
    settings = recipe(**changes, crop_px=35) | {"backbone": network}
    ssvid.finetune(
        settings, f"data.root={videos}", "trainer.max_steps=1", backbone="random", random=False,
        run_dir=tmp_path / "run", show_progress=False,
    )  # fmt: skip
    tuned = load_tuned(tmp_path / "run")
    usual, shuffled = (tuned.score(frames) for frames in ("video", "shuffled"))
    assert isinstance(usual, VideoScores)
    np.testing.assert_allclose(
        shuffled.logits_NVK, usual.logits_NVK, atol=1e-5
    )  # the network before it may round otherwise
    assert shuffled.predictions("softmax") == usual.predictions("softmax")


def test_other_videos_are_scored_by_the_same_network(run, videos, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(videos, copied)
    other = Manifest.load(copied / "manifest.csv")
    test = [row for row in other.rows if row.split == "test"]
    tuned = load_tuned(run)
    again = tuned.score(manifest=other, rows=test)
    assert np.array_equal(again.logits_NVK, tuned.score().logits_NVK)
    assert len(tuned.score(manifest=other).ids) == 24


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(RunFolderError, match="holds no network 'random' that was trained to its end"):
        load_tuned(tmp_path)
    with pytest.raises(RunFolderError, match="holds no network 'placebo'"):
        load_tuned(run, "placebo")
    with pytest.raises(RecipeError, match=r"frames \('shuffle'\) is unknown. Did you mean 'shuffled'"):
        load_tuned(run).score("shuffle")
