"""Online evaluation sees labels, the backbone never does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ssvid
from ssvid.backbones import initialize_backbone
from ssvid.bounds import check
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.evals.online import OnlineEvaluation, OnlineTracking, labeled_slice, online_slices, tracking_slice
from ssvid.features.protocol import FeatureProtocol, OnlineProtocol, OnlineTrackingProtocol
from ssvid.train.loggers import read_metrics
from ssvid.weights.checkpoints import read_checkpoint
from tests.evals.label_propagation.footage import make_tracked

QUICK = FeatureProtocol(num_frames=8, num_clips=1, crop_px=24, resize_px=28, batch_size=6, workers=0, stages="trained")


def row(name, label="", split=""):
    return VideoRow(f"{name}.mp4", 30, 25.0, 32, 32, label=label, split=split)


def table(*rows):
    return Manifest(Path("videos"), rows)


# ---- which videos


def test_a_slice_is_even_over_classes_labeled_readable_and_the_same_again():
    rows = [row(f"{c}{i}", c) for c, n in (("a", 30), ("b", 4), ("c", 30)) for i in range(n)]
    rows += [row("none"), replace(row("broken", "a"), status="unreadable: no frames")]
    taken = labeled_slice(rows, 20, seed=1)
    assert sorted(taken, key=rows.index) == sorted(set(taken), key=rows.index)
    assert {c: sum(r.label == c for r in taken) for c in "abc"} == {"a": 8, "b": 4, "c": 8}
    assert taken == labeled_slice(rows, 20, seed=1)
    assert taken != labeled_slice(rows, 20, seed=2)
    everything = labeled_slice(rows, 1000, seed=1)
    assert len(everything) == 64
    assert all(r.label and r.is_readable for r in everything)


@pytest.mark.parametrize(("splits", "expected"), [(("val", "test"), "val"), (("test",), "test")])
def test_val_is_scored_before_test(splits, expected):
    train = [row(f"t{c}{i}", c, "train") for c in "ab" for i in range(3)]
    others = [row(f"{s}{c}", c, s) for s in splits for c in "ab"]
    fit, score = online_slices(table(*train, *others), train, [], OnlineProtocol(every_epochs=1), 0)
    assert sorted(r.path for r in fit) == sorted(r.path for r in train)
    assert {r.split for r in score} == {expected}


def test_without_splits_the_held_out_videos_are_scored_and_never_fitted_on():
    rows = [row(f"{c}{i}", c) for c in "ab" for i in range(10)]
    held_out = rows[::5]
    rest = [r for r in rows if r not in held_out]
    fit, score = online_slices(table(*rows), rest, held_out, OnlineProtocol(every_epochs=1), 0)
    assert {r.path for r in score} == {r.path for r in held_out}
    assert not {r.path for r in fit} & {r.path for r in score}


def test_a_class_without_a_training_video_is_not_scored():
    train = [row(f"t{c}", c, "train") for c in "ab"]
    test = [row(f"v{c}", c, "test") for c in "abc"]
    _, score = online_slices(table(*train, *test), train, [], OnlineProtocol(every_epochs=1), 0)
    assert {r.label for r in score} == {"a", "b"}


def test_no_labels_is_an_error_with_a_way_out():
    rows = [row(str(i)) for i in range(6)]
    with pytest.raises(
        DataError, match=r"online.every_epochs \(2\) needs labeled videos: 0 of 0 classes .*every_epochs=0"
    ):
        online_slices(table(*rows), rows[:4], rows[4:], OnlineProtocol(every_epochs=2), 0)


def test_options_are_checked():
    with pytest.raises(RecipeError, match=r"online.num_train \(1\) must be at least 2"):
        check(OnlineProtocol(num_train=1), "online.")
    with pytest.raises(RecipeError, match=r"online.every_epochs \(-1\) must be at least 0"):
        check(OnlineProtocol(every_epochs=-1), "online.")


# ---- what is scored


def evaluation(manifest, info, **changes):
    rows = {s: [r for r in manifest.rows if r.split == s] for s in ("train", "test")}
    protocol = OnlineProtocol(every_epochs=1, knn_k=3, features=QUICK, **changes)
    return OnlineEvaluation(protocol, manifest, rows["train"], [], info=info, trained_stage=None, seed=0)


def test_colors_are_told_apart_and_labels_given_at_random_are_not(manifest):
    """The patches differ in color, so even random features tell the classes; permuted labels leave nothing to tell."""
    backbone = initialize_backbone("tiny3d", {"width": 4}, seed=0)
    found = evaluation(manifest, backbone.info).score(backbone, "cpu")
    assert found["online/num_train"] == 18
    assert found["online/num_test"] == 9
    assert found["online/chance"] == pytest.approx(1 / 3)
    assert found["online/probe_top1"] > 0.8
    labels = np.random.default_rng(3).permutation([r.label for r in manifest.rows])
    blind = Manifest(manifest.root, tuple(replace(r, label=x) for r, x in zip(manifest.rows, labels, strict=True)))
    assert evaluation(blind, backbone.info).score(backbone, "cpu")["online/probe_top1"] < 0.7


def test_scoring_leaves_the_network_and_the_random_generators_as_they_were(manifest):
    backbone = initialize_backbone("tiny3d", {"width": 4}, seed=0).train()
    backbone.stage1.eval()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    flags = [m.training for m in backbone.modules()]
    torch.manual_seed(7)
    np.random.seed(7)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    evaluation(manifest, backbone.info).score(backbone, "cpu")
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    assert [m.training for m in backbone.modules()] == flags
    assert all(p.grad is None for p in backbone.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


# ---- in a run

RECIPE = {
    "kind": "pretrain",
    "seed": 3,
    "data": {"name": "manifest", "root": "???", "val_fraction": 0.2},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 4, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False},
}
ONLINE = "online={every_epochs: 1, knn_k: 3, features: {num_frames: 8, num_clips: 1, crop_px: 24, workers: 0}}"


@pytest.fixture(scope="module")
def two_runs(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    manifest.save(folder / "manifest.csv")
    data = [f"data.root={manifest.root}", f"data.list={folder / 'manifest.csv'}"]
    return [
        ssvid.pretrain(RECIPE, *data, *more, run_dir=folder / name, show_progress=False)
        for name, more in (("with", [ONLINE]), ("without", []))
    ]


def test_a_run_with_online_evaluation_ends_with_the_same_bits(two_runs):
    states = [read_checkpoint(run.checkpoint) for run in two_runs]
    for part in ("backbone_state", "task_state"):
        a, b = (getattr(state, part) for state in states)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert two_runs[0].metrics == two_runs[1].metrics


def test_scores_are_logged_with_chance_and_numbers_every_epoch(two_runs):
    lines = [line for line in read_metrics(two_runs[0].run_dir / "metrics.jsonl") if "online/knn_top1" in line]
    assert [line["epoch"] for line in lines] == [0, 1]
    for line in lines:
        assert line["online/chance"] == pytest.approx(1 / 3)
        assert line["online/num_test"] == 9
        assert 0 <= line["online/probe_top1"] <= 1
    assert "online/" not in (two_runs[1].run_dir / "metrics.jsonl").read_text()


# ---- tracking


def test_tracking_is_of_videos_that_are_not_trained_on_and_cut():
    rows = [replace(row(name, split=split), truth=f"truth/{name}") for name, split in (("a", "train"), ("b", "test"))]
    protocol = OnlineTrackingProtocol(every_epochs=1, num_frames=10)
    assert [(r.path, r.window_frames) for r in tracking_slice(table(*rows), [], protocol, 0)] == [("b.mp4", 10)]
    free = [replace(one, split="") for one in rows]
    assert [r.path for r in tracking_slice(table(*free), [free[1]], protocol, 0)] == ["b.mp4"]
    assert [r.path for r in tracking_slice(table(*free), [], replace(protocol, num_frames=0), 0)] == ["a.mp4", "b.mp4"]
    many = [replace(row(f"v{i}", split="test"), truth="t") for i in range(20)]
    assert len(tracking_slice(table(*many), [], protocol, 0)) == 8
    with pytest.raises(DataError, match=r"online.tracking.every_epochs \(1\) needs videos whose masks.*tracking.root"):
        tracking_slice(table(row("a"), row("b")), [], protocol, 0)


def test_tracking_leaves_a_network_and_the_generators_as_they_were(tmp_path):
    protocol = OnlineTrackingProtocol(every_epochs=1, size_px=48, num_frames=5)
    callback = OnlineTracking(protocol, make_tracked(tmp_path), (), seed=0)
    network = initialize_backbone("resnet18", seed=0).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    values = callback.score(network, "cpu")
    assert set(values) == {"online/davis_jf", "online/davis_jf_identity"}
    assert 0 < values["online/davis_jf_identity"] < 1 and values == callback.score(network, "cpu")
    assert all(module.training for module in network.modules())
    assert all(bool((before[key] == value).all()) for key, value in network.state_dict().items())
    assert bool((torch.get_rng_state() == state).all()) and (np.random.get_state()[1] == numpy_state).all()


def test_a_run_is_the_same_bits_with_tracking_beside(two_runs, manifest, tmp_path):
    tracked = make_tracked(tmp_path / "tracked")
    tracked.save(tmp_path / "tracked" / "manifest.csv")
    data = [f"data.root={manifest.root}", f"data.list={two_runs[0].run_dir.parent / 'manifest.csv'}"]
    elsewhere = f"online.tracking={{every_epochs: 1, root: {tracked.root}, size_px: 48, num_frames: 4}}"
    run = ssvid.pretrain(RECIPE, *data, elsewhere, run_dir=tmp_path / "run", show_progress=False)
    alone, beside = (read_checkpoint(one.checkpoint) for one in (two_runs[1], run))
    for part in ("backbone_state", "task_state"):
        assert all(torch.equal(value, getattr(beside, part)[key]) for key, value in getattr(alone, part).items())
    logged = [
        line["online/davis_jf"] for line in read_metrics(run.run_dir / "metrics.jsonl") if "online/davis_jf" in line
    ]
    assert len(logged) == 2 and all(0 <= value <= 1 for value in logged)
