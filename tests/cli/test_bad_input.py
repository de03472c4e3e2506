"""What goes wrong on the way from a folder of videos to an export: one paragraph, 2, and nothing is lost."""

import json
import shutil
import subprocess
import sys

import pytest

from ssvid.cli import main

from .test_cli import told

TINY = (
    "backbone.options.width=2",
    "task.options.num_frames=8",
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "loader.global_batch=2",
    "loader.workers_per_device=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=1",
)


@pytest.fixture
def few_videos(video_folder, tmp_path):
    """Three videos of 40 frames with their table, so that nothing has to be scanned."""
    from ssvid.data.manifest import Manifest, VideoRow

    root = tmp_path / "few"
    root.mkdir()
    rows = []
    for i in range(3):
        shutil.copy(video_folder / f"{3 * i:02d}.mp4", root / f"{i}.mp4")
        rows.append(VideoRow(f"{i}.mp4", 40, 25.0, 48, 64, decoders_ok=("pyav",), content_id=str(i)))
    Manifest(root, tuple(rows)).save(root / "manifest.csv")
    return root


def pretrain(root, tmp_path, *words: str, recipe: str = "smoke/speediness") -> list[str]:
    return ["pretrain", recipe, f"data.root={root}", *TINY, "--run-dir", str(tmp_path / "run"), *words]


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("optim.epoch=3", ["unknown key 'optim.epoch'", "Did you mean 'optim.epochs'?"]),
        ("task.name=spediness", ["unknown task 'spediness'", "Did you mean 'speediness'?"]),
        ("backbone.name=tiny", ["unknown backbone 'tiny'", "Did you mean 'tiny3d'?"]),
        ("backbone.options.input=flow", ["input", "'flow'", "rgb", "difference"]),
        ("optim.name=lamb", ["optim.name", "'lamb'", "adamw", "sgd"]),
        ("trainer.accelerator=tpu", ["trainer.accelerator", "tpu", "cpu", "gpu"]),
        ("loader.decoder=ffmpeg", ["decoder", "'ffmpeg'", "torchcodec", "pyav"]),
        ("data.name=folders", ["data.name", "'folders'", "folder"]),
        (
            "task.options.num_frames=500",
            ["needs 1099 frames", "longest of 2 has 40", "task.options", "ssvid tasks NAME"],
        ),
        ("loader.global_batch=64", ["global_batch", "64"]),
        ("init_from=nowhere.ckpt", ["nowhere.ckpt"]),
    ],
)
def test_pretraining_mistakes(few_videos, tmp_path, capsys, word, parts):
    message = told(capsys, *pretrain(few_videos, tmp_path, word))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "parts"),
    [("nowhere", ["data.root", "nowhere", "must be a folder"]), ("empty", ["empty", "at least one video"])],
)
def test_folders_without_videos(tmp_path, capsys, name, parts):
    (tmp_path / "empty").mkdir()
    message = told(capsys, *pretrain(tmp_path / name, tmp_path, recipe="pretrain/speediness_tiny"))
    for part in parts:
        assert part in message


def test_an_existing_run_folder_is_kept(few_videos, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    message = told(capsys, *pretrain(few_videos, tmp_path))
    assert str(run) in message
    assert "exist" in message
    assert [p.name for p in run.iterdir()] == ["mine.txt"]
    message = told(capsys, *pretrain(few_videos, tmp_path, "--resume"))
    assert str(run) in message
    assert [p.name for p in run.iterdir()] == ["mine.txt"]


def test_resume_needs_a_folder(few_videos, capsys):
    assert "--run-dir" in told(capsys, "pretrain", "smoke/speediness", f"data.root={few_videos}", "--resume")


def test_a_recipe_of_another_kind(few_videos, tmp_path, capsys):
    message = told(capsys, *pretrain(few_videos, tmp_path, recipe="probe/folder"))
    assert "its kind is 'probe', and 'pretrain' is asked for. Run it with: ssvid probe" in message


@pytest.mark.parametrize("content", [b"", b"this is no checkpoint" * 50])
def test_files_that_are_no_checkpoints(few_videos, tmp_path, capsys, content):
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(content)
    for argv in (
        ["export", str(bad), str(tmp_path / "out")],
        ["probe", "probe/folder", f"data.root={few_videos}", "--backbone", str(bad), "--out", str(tmp_path / "out")],
        pretrain(few_videos, tmp_path, f"init_from={bad}"),
    ):
        assert str(bad) in told(capsys, *argv)
    assert bad.read_bytes() == content
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_do_not_exist(few_videos, tmp_path, capsys):
    for argv in (
        ["export", "nowhere.ckpt", str(tmp_path / "out")],
        ["probe", "probe/folder", f"data.root={few_videos}", "--backbone", "nowhere.ckpt"],
    ):
        assert "nowhere.ckpt" in told(capsys, *argv)


def test_an_existing_export_is_kept(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    message = told(capsys, "export", str(tmp_path / "any.ckpt"), str(tmp_path / "out"))
    assert f"{tmp_path / 'out'} exists" in message
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_an_existing_demo_folder_is_kept(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    message = told(capsys, "demo", "--out", str(tmp_path))
    assert str(tmp_path) in message
    assert "never overwritten" in message
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_random_needs_the_name_of_a_network(few_videos, tmp_path, capsys):
    argv = ["probe", "probe/folder", f"data.root={few_videos}", "--out", str(tmp_path / "out")]
    message = told(capsys, *argv, "--backbone", "random")
    assert "backbone" in message
    assert "name" in message
    message = told(capsys, *argv, "--backbone", "random", "--backbone-name", "tiny2d")
    assert "'tiny2d'" in message
    assert "Did you mean 'tiny3d'?" in message


def test_a_probe_needs_train_and_test(few_videos, tmp_path, capsys):
    argv = ["probe", "probe/folder", f"data.root={few_videos}", "data.name=manifest", "--out", str(tmp_path / "out")]
    message = told(capsys, *argv, "--backbone", "random", "--backbone-name", "tiny3d", "backbone.options.width=2")
    assert "splits train and test" in message


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_devices_that_are_not_there(few_videos, tmp_path, capsys, device):
    argv = ["probe", "probe/folder", f"data.root={few_videos}", "data.name=manifest", "--out", str(tmp_path / "out")]
    message = told(capsys, *argv, "--backbone", "random", "--backbone-name", "tiny3d", "--device", device)
    assert device in message
    assert "cpu" in message
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_the_same_recipe_only(few_videos, tmp_path, capsys):
    assert main(pretrain(few_videos, tmp_path, "trainer.pictures=false", "--json")) == 0
    run = tmp_path / "run"
    assert json.loads(capsys.readouterr().out)["num_steps"] == 1
    before = sorted(p.name for p in run.iterdir())

    message = told(capsys, "pretrain", str(run), "--resume", "optim.base_lr=0.5")
    assert "the recipe is not the one" in message
    assert "optim.base_lr: 0.024 -> 0.5" in message
    assert "is the folder of a run" in told(capsys, "pretrain", str(run))
    assert sorted(p.name for p in run.iterdir()) == before

    assert main(["pretrain", str(run), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_steps"] == 1


@pytest.mark.parametrize("recipe", ["pretrain/speediness_tny", "nofile.yaml", "{tmp}/bad.yaml", "~/none.yaml"])
def test_a_mistyped_recipe_is_told_before_torch_is_imported(tmp_path, recipe):
    (tmp_path / "bad.yaml").write_text("a: [")
    program = "import sys; from ssvid.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["pretrain", recipe.format(tmp=tmp_path), "data.root=x"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "False"]
