"""A folder of videos in, a number and an export out; and every mistake on the way ends in one clear paragraph."""

import json
import shutil

import pytest
import torch

import ssvid
from ssvid.cli import main
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.weights.checkpoints import read_checkpoint

SMALL_TASK = "task.options={num_frames: 6, frame_px: 32, min_px: 16, max_px: 32, eval_px: 24}"
QUICK = [
    "backbone={name: tiny3d, options: {width: 2}}",
    SMALL_TASK,
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "loader.global_batch=4",
    "loader.workers_per_device=0",
    "trainer.accelerator=cpu",
    "data.index_workers=1",
]


def cli(*arguments, capsys):
    """Exit code, standard output, standard error with its wrapping undone."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def first_weight(network):
    """The weight of the first convolution."""
    return next(p for p in network.parameters() if p.ndim == 5).detach()


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Synthetic motions: 20 to train on, 10 to test on."""
    made = SyntheticVideos(num_train=20, num_test=10, seconds=1.0, size_px=32)
    return synthesize(tmp_path_factory.mktemp("synth") / "videos", made).root


@pytest.fixture(scope="module")
def finished(video_folder, tmp_path_factory):
    """A run on the bare folder."""
    run = tmp_path_factory.mktemp("runs") / "run"
    code = main(["pretrain", "pretrain/speediness_tiny", f"data.root={video_folder}", *QUICK, "--run-dir", str(run)])
    assert code == 0
    return run


def test_a_run_leaves_everything_behind(finished):
    for name in (
        "recipe.yaml",
        "recipe.resolved.yaml",
        "env.json",
        "manifest.csv",
        "manifest.sha256",
        "metrics.jsonl",
        "checkpoints/last.ckpt",
        "results.json",
        "pictures/train_first_batch_clips.png",
        "pictures/val_epoch0000_clips.png",
    ):
        assert (finished / name).is_file(), name
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in state["state_dict"]} == {"backbone", "task"}
    meta = state["ssvid"]
    assert meta["data"]["num_videos"] == len(meta["data"]["content_ids"])
    assert meta["pretext_metrics"].keys() == {"accuracy", "auc", "difference_auc", "loss"}
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert any("train/loss" in line for line in lines)
    assert all(line["train/lr"] > 0 for line in lines if "train/loss" in line)
    assert any("val/accuracy" in line for line in lines)
    assert any("perf/clips_per_s" in line for line in lines)


def test_probe_prints_the_pretrained_and_the_random_row(finished, labeled, tmp_path, capsys):
    options = [
        "data.name=manifest",
        f"data.root={labeled}",
        "features={num_frames: 6, num_clips: 1, crop_px: 24, workers: 0}",
    ]
    code, out, _ = cli(
        "probe", "probe/folder", *options, "--backbone", finished, "--out", tmp_path / "p", capsys=capsys
    )
    assert code == 0
    assert "pretrained" in out
    assert "random" in out
    assert "chance" in out
    results = json.loads((tmp_path / "p" / "results.json").read_text())
    row = results["rows"][0]
    assert row["num_videos"] == 10
    assert row["feature_protocol"]["num_frames"] == 6
    assert row["weights_sha256"]


def test_the_placebo_is_trained_from_the_checkpoints_own_recipe(finished, labeled, tmp_path, capsys):
    options = [
        "data.name=manifest",
        f"data.root={labeled}",
        "features={num_frames: 6, num_clips: 1, crop_px: 24, workers: 0}",
    ]
    arguments = [*options, "--backbone", finished, "--placebo", "train", "--out", tmp_path / "p"]
    code, out, err = cli("probe", "probe/folder", *arguments, capsys=capsys)
    assert code == 0, err
    assert "placebo" in out
    assert "placebo: answers of other videos" in err
    resolved = (finished.parent / "run-placebo" / "recipe.resolved.yaml").read_text()
    assert "placebo: true" in resolved
    rows = json.loads((tmp_path / "p" / "results.json").read_text())["rows"]
    assert {row["weights"]["placebo"] for row in rows if row["name"] == "placebo"} == {True}
    assert {row["weights"]["placebo"] for row in rows if row["name"] == "pretrained"} == {False}


def test_the_random_row_is_the_network_before_training(finished, labeled):
    random = ssvid.load_backbone("random", name="tiny3d", options={"width": 2}, seed=0)
    trained = ssvid.load_backbone(finished)
    assert trained.provenance["seed"] == 0
    fresh = ssvid.load_backbone("random", name="tiny3d", options={"width": 2}, seed=1)
    same, moved, other = (first_weight(network) for network in (random, trained, fresh))
    assert (same - moved).abs().max() < 0.1 * (same - other).abs().max()  # a few steps from the same start


def test_export_loads_again(finished, tmp_path, capsys):
    code, _, err = cli("export", finished / "checkpoints" / "last.ckpt", tmp_path / "export", capsys=capsys)
    assert code == 0, err
    clip = torch.rand(1, 3, 6, 24, 24)
    with torch.no_grad():
        expected = ssvid.load_backbone(finished)(clip)
        assert torch.equal(ssvid.load_backbone(tmp_path / "export")(clip), expected)


def test_resuming_with_a_changed_recipe_shows_the_difference(finished, video_folder, capsys):
    recipe = finished / "recipe.resolved.yaml"
    code, _, err = cli("pretrain", recipe, "optim.base_lr=0.5", "--run-dir", finished, "--resume", capsys=capsys)
    assert code == 2
    assert "optim.base_lr: 0.024 -> 0.5" in err
    assert "start a new run (init_from=" in err


def test_resuming_a_finished_run_changes_nothing(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    code, _, err = cli("pretrain", finished / "recipe.resolved.yaml", "--run-dir", finished, "--resume", capsys=capsys)
    assert code == 0, err
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_init_from_takes_the_weights(finished, video_folder, tmp_path, capsys):
    overrides = [f"data.root={video_folder}", *QUICK, f"init_from={finished}", "optim.base_lr=1e-9"]
    code, _, err = cli("pretrain", "pretrain/speediness_tiny", *overrides, "--run-dir", tmp_path / "r", capsys=capsys)
    assert code == 0, err
    a, b = (first_weight(ssvid.load_backbone(p)) for p in (finished, tmp_path / "r"))
    assert torch.allclose(a, b, atol=1e-6)


def test_show_says_what_would_be_done(video_folder, capsys):
    code, out, _ = cli("show", "pretrain/speediness_tiny", f"data.root={video_folder}", *QUICK, capsys=capsys)
    assert code == 0
    assert "clips uint8 (2, 6, 3, 32, 32)" in out
    assert "lr 0.000375 = base_lr 0.024 x 4 / 256" in out
    assert "steps per epoch x 1 epochs" in out


def test_show_counts_the_videos_from_elsewhere(video_folder, capsys):
    argv = ["show", "pretrain/speediness_tiny", f"data.root={video_folder}", f"data.out_of_domain.root={video_folder}"]
    assert main([*argv, "data.out_of_domain.frame_step=2"]) == 0
    shown = capsys.readouterr().out
    assert "# 26 videos from elsewhere (data.out_of_domain, one frame in 2): measured, never trained on" in shown


def test_show_says_when_nothing_would_be_trained(video_folder, capsys):
    arguments = ["show", "pretrain/speediness_tiny", f"data.root={video_folder}", *QUICK, "loader.global_batch=64"]
    code, out, _ = cli(*arguments, capsys=capsys)
    assert code == 0
    assert "and one step takes 32: nothing would be trained. Set loader.global_batch to" in out


# ---- bad input: one paragraph, exit code 2, nothing lost


def pretrain_error(capsys, root, tmp_path, *overrides):
    code, _, err = cli(
        "pretrain",
        "pretrain/speediness_tiny",
        f"data.root={root}",
        *QUICK,
        *overrides,
        "--run-dir",
        tmp_path / "run",
        capsys=capsys,
    )
    assert code == 2, err
    assert "Traceback" not in err
    return err


def test_a_folder_without_videos(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("hello")
    err = pretrain_error(capsys, tmp_path / "data", tmp_path)
    assert str(tmp_path / "data") in err
    assert ".mp4" in err


def test_a_root_that_is_not_there(tmp_path, capsys):
    assert "must be a folder of videos, but there is nothing" in pretrain_error(capsys, tmp_path / "none", tmp_path)


def test_too_many_unreadable_files_stop_before_training_and_are_listed(video_folder, tmp_path, capsys):
    shutil.copytree(video_folder, tmp_path / "data")
    (tmp_path / "data" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "data" / "empty.mp4").write_bytes(b"")
    err = pretrain_error(capsys, tmp_path / "data", tmp_path, "data.val_fraction=0")
    for text in ("2 of 28 videos cannot be read", "broken.mp4", "empty.mp4", "loader.max_unreadable_fraction"):
        assert text in err


def test_unreadable_files_below_the_limit_are_left_out_and_named(video_folder, tmp_path, capsys):
    shutil.copytree(video_folder, tmp_path / "data")
    (tmp_path / "data" / "broken.mp4").write_bytes(b"no video")
    overrides = [f"data.root={tmp_path / 'data'}", *QUICK, "loader.max_unreadable_fraction=0.1", "data.val_fraction=0"]
    code, _, err = cli("pretrain", "pretrain/speediness_tiny", *overrides, "--run-dir", tmp_path / "r", capsys=capsys)
    assert code == 0, err
    assert "unreadable videos: 1: broken.mp4" in err
    assert "broken.mp4" in json.loads((tmp_path / "r" / "results.json").read_text())["unreadable"]


@pytest.fixture
def decaying(video_folder, tmp_path, capsys):
    """A folder whose table was made while all was well; then three of its 26 files broke. Arguments to pretrain on it."""
    shutil.copytree(video_folder, tmp_path / "data")
    assert cli("data", "index", tmp_path / "data", capsys=capsys)[0] == 0
    for name in ("03.mp4", "11.mp4", "20.mp4"):
        path = tmp_path / "data" / name
        path.write_bytes(b"\0" * path.stat().st_size)
    overrides = [f"data.root={tmp_path / 'data'}", "data.name=manifest", "data.val_fraction=0", *QUICK]
    return ["pretrain", "pretrain/speediness_tiny", *overrides, "trainer.save_every_steps=1"]


def test_videos_that_break_in_training_stop_it_at_the_limit_and_lose_nothing(decaying, video_folder, tmp_path, capsys):
    code, _, err = cli(*decaying, "--run-dir", tmp_path / "r", capsys=capsys)
    assert code == 2
    assert "1 of 26 videos cannot be read (3.8%), more than loader.max_unreadable_fraction (0.01) allows" in err
    assert any(name in err for name in ("03.mp4", "11.mp4", "20.mp4"))
    assert "Traceback" not in err
    assert read_checkpoint(tmp_path / "r" / "checkpoints" / "last.ckpt").meta["global_step"] >= 1
    # The files were mended: the run goes on from there.
    for path in video_folder.iterdir():
        shutil.copy(path, tmp_path / "data" / path.name)
    code, _, err = cli("pretrain", tmp_path / "r", "--resume", capsys=capsys)
    assert code == 0, err


def test_videos_that_break_in_training_are_replaced_counted_and_named_below_the_limit(decaying, tmp_path, capsys):
    code, _, err = cli(*decaying, "loader.max_unreadable_fraction=0.5", "--run-dir", tmp_path / "r", capsys=capsys)
    assert code == 0, err
    unreadable = json.loads((tmp_path / "r" / "results.json").read_text())["unreadable"]
    assert 1 <= len(unreadable) <= 3
    assert set(unreadable) <= {"03.mp4", "11.mp4", "20.mp4"}
    assert f"unreadable videos: {len(unreadable)}; others stood in for them" in err
    assert all(name in err for name in unreadable)


def test_a_list_with_a_bad_line(video_folder, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("00.mp4 a\nmissing.mp4 b\n")
    err = pretrain_error(capsys, video_folder, tmp_path, "data.name=list", f"data.list={tmp_path / 'list.txt'}")
    assert "line 2" in err
    assert "missing.mp4" in err


def test_a_clip_longer_than_the_videos(video_folder, tmp_path, capsys):
    err = pretrain_error(capsys, video_folder, tmp_path, "task.options.num_frames=64")
    assert "the task needs 140 frames of one video, the longest of" in err


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("optim.epoch=3", ["optim.epoch", "epochs"]),
        ("task.name=speedines", ["speedines", "Did you mean 'speediness'"]),
        ("backbone.name=r3d18", ["r3d18", "Did you mean 'r3d_18'"]),
        (
            "task.options.spacing=evn",
            ["task.options.spacing ('evn') must be one of", "did you mean 'even'", "Set task.options.spacing="],
        ),
        ("task.options.nframes=3", ["nframes", "num_frames"]),
        (
            "trainer.accelerator=gpus",
            [
                "trainer.accelerator ('gpus') must be one of auto, cpu, gpu",
                "did you mean 'gpu'",
                "Set trainer.accelerator=auto",
            ],
        ),
        ("loader.decoder=ffmpeg", ["ffmpeg", "pyav"]),
        ("loader.global_batch=5000", ["loader.global_batch (5000)"]),
        ("loader.clips_per_video=3", ["loader.global_batch (4) must be a multiple"]),
    ],
)
def test_unknown_keys_names_devices_and_decoders(video_folder, tmp_path, capsys, override, texts):
    err = pretrain_error(capsys, video_folder, tmp_path, override)
    for text in texts:
        assert text in err


def test_checkpoints_of_another_kind(finished, labeled, tmp_path, capsys):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    options = ["data.name=manifest", f"data.root={labeled}"]
    code, _, err = cli("probe", "probe/folder", *options, "--backbone", tmp_path / "other.pth", capsys=capsys)
    assert code == 2
    assert "other.pth" in err
    overrides = ["backbone.options.width=4", f"init_from={finished}"]
    err = pretrain_error(capsys, labeled / "train", tmp_path, *overrides)
    assert "do not fit backbone tiny3d" in err
    assert "mismatched" in err


def test_an_existing_run_folder_is_refused_and_nothing_in_it_changes(finished, video_folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    code, _, err = cli(
        "pretrain",
        "pretrain/speediness_tiny",
        f"data.root={video_folder}",
        *QUICK,
        "--run-dir",
        finished,
        capsys=capsys,
    )
    assert code == 2
    assert "exists; a run never overwrites another" in err
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
