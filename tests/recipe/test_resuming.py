"""Going on with a run: where its videos moved, where nothing was saved yet, for more epochs, started again by a launcher."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

import ssvid
from ssvid.cli import main
from ssvid.errors import DataError, RecipeError, RunFolderError, SsvidError
from ssvid.programs.lineup import train_placebo
from ssvid.recipe.check import leaf_paths, marks
from ssvid.recipe.resuming import was_restarted
from ssvid.recipe.schema import KINDS, PretrainRecipe
from ssvid.recipe.yaml_text import to_yaml
from ssvid.train.config import OptimConfig
from ssvid.train.optim import check_optim, lr_factor

TINY = [
    "backbone={name: tiny3d, options: {width: 2}}",
    "task.options={num_frames: 6, frame_px: 32, min_px: 16, max_px: 32, eval_px: 24}",
    "optim.warmup_epochs=0",
    "loader.global_batch=8",
    "loader.clips_per_video=1",
    "loader.workers_per_device=0",
    "trainer.accelerator=cpu",
    "trainer.log_every_steps=1",
    "trainer.pictures=false",
    "monitor.features=false",
]


def train(root, run, *overrides, resume=False, callbacks=()):
    words = [f"data.root={root}", *TINY, *overrides]
    return ssvid.pretrain(
        "pretrain/speediness_tiny", *words, run_dir=run, resume=resume, show_progress=False, callbacks=callbacks
    )


class Leave(pl.Callback):
    """Ctrl-C in the first step from a number on."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step >= self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def some_videos(video_folder, tmp_path_factory):
    """Fourteen videos: one step an epoch, whichever of them their bytes hold out (another encoder makes other bytes)."""
    root = tmp_path_factory.mktemp("some") / "v"
    root.mkdir()
    for path in sorted(video_folder.iterdir())[:14]:
        shutil.copy(path, root)
    return root


@pytest.fixture(scope="module")
def left(some_videos, tmp_path_factory):
    """A run of three epochs that was left in its second; read only."""
    run = tmp_path_factory.mktemp("left") / "r"
    with pytest.raises(KeyboardInterrupt, match=r"ssvid pretrain .*r --resume"):
        train(some_videos, run, "optim.epochs=3", callbacks=[Leave(1)])
    return run


@pytest.fixture
def copied(left, some_videos, tmp_path):
    """The run that was left, and its videos, both elsewhere."""
    shutil.copytree(left, tmp_path / "r")
    shutil.copytree(some_videos, tmp_path / "moved")
    return tmp_path / "r", tmp_path / "moved"


def weights_of(run):
    state = torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {key: value.numpy().tobytes() for key, value in state.items()}


def rates_of(run):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}


def resume(run, *overrides):
    return ssvid.pretrain(run, *overrides, resume=True, show_progress=False)


# ---- what may change


def test_a_run_whose_videos_moved_goes_on_where_they_are_now(copied, capsys):
    run, moved = copied
    words = ["data.index_workers=1", "loader.prefetch_batches=1", "loader.max_unreadable_fraction=0.5"]
    words += [
        "trainer.pictures=true",
        "trainer.log_every_steps=2",
        "data.annotations=/elsewhere",
        "data.index_timeout_seconds=90",
    ]
    code = main(["pretrain", str(run), "--resume", f"data.root={moved}", *words])
    err = " ".join(capsys.readouterr().err.split())
    assert code == 0, err
    assert "changed, and computes nothing else: data.root:" in err
    assert f"-> '{moved}'" in err
    now = OmegaConf.load(run / "recipe.resolved.yaml")
    assert now.data.root == str(moved)
    assert json.loads((run / "resumed.jsonl").read_text())["changes"]
    assert "already finished" in _told(run, capsys)  # and needs no word on where the videos are


def _told(run, capsys):
    assert main(["pretrain", str(run), "--resume"]) == 0
    return " ".join(capsys.readouterr().err.split())


def test_what_the_error_of_a_moved_run_advises_is_accepted(copied, some_videos):
    run, moved = copied
    text = (run / "recipe.resolved.yaml").read_text().replace(str(some_videos), "/nowhere/v")
    (run / "recipe.resolved.yaml").write_text(text)
    with pytest.raises(DataError, match=r"14 of 14 are missing, .*Set data.root to the folder that holds them\.$"):
        resume(run)
    assert resume(run, f"data.root={moved}").num_steps == 3


def test_a_mount_that_lacks_videos_is_told(copied):
    run, moved = copied
    (moved / "03.mp4").unlink()
    with pytest.raises(DataError, match=r"1 of 14 are missing, the first is '03.mp4'. Set data.root"):
        resume(run, f"data.root={moved}")


def test_other_videos_under_the_same_names_are_refused(copied):
    run, moved = copied
    shutil.copy(moved / "04.mp4", moved / "03.mp4")
    with pytest.raises(DataError, match=r"the first is '03.mp4'.*Set data.root to the videos that the run was started"):
        resume(run, f"data.root={moved}")


def test_a_relative_root_is_found_from_another_folder(left, some_videos, tmp_path, monkeypatch):
    monkeypatch.chdir(some_videos.parent)
    with pytest.raises(KeyboardInterrupt):
        train(some_videos.name, tmp_path / "r", "optim.epochs=2", callbacks=[Leave(1)])
    monkeypatch.chdir(tmp_path)
    assert resume("r").num_steps == 2


def test_what_computes_something_may_not_change(copied, some_videos):
    run, _ = copied
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for change in ("optim.base_lr=1", "seed=3", "data.val_fraction=0.3", "trainer.accumulate=2", "optim.epochs=2"):
        with pytest.raises(
            RecipeError, match=rf"(?s)resumed run computes the same numbers.*{change.partition('=')[0]}: "
        ):
            resume(run, change)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_of_an_older_version_lacks_options_and_goes_on(copied):
    run, _ = copied
    old = OmegaConf.to_container(OmegaConf.load(run / "recipe.resolved.yaml"))
    for group, key in (("optim", "extended_from"), ("trainer", "max_steps"), ("monitor", "best_metric")):
        del old[group][key]
    (run / "recipe.resolved.yaml").write_text(to_yaml(old))
    assert resume(run).num_steps == 3


def test_every_option_says_whether_anything_computed_depends_on_it():
    idle = {path for path in leaf_paths(PretrainRecipe) if not marks(PretrainRecipe, path).get("computes", True)}
    places = ("root", "list", "annotations", "index_workers", "out_of_domain.root", "out_of_domain.list")
    assert {f"data.{name}" for name in places} <= idle
    assert not idle & {"data.name", "data.split", "data.fold", "data.val_fraction", "data.allow_missing"}
    assert {"trainer.devices", "loader.workers_per_device", "logger.wandb", "monitor.features"} <= idle
    assert not idle & {"trainer.precision", "trainer.accumulate", "trainer.max_steps", "loader.global_batch", "seed"}
    paths = {kind: [p for p in leaf_paths(schema) if marks(schema, p).get("is_path")] for kind, schema in KINDS.items()}
    assert all(len(found) >= 5 for found in paths.values())


# ---- one command line that begins or goes on


def test_one_command_begins_and_goes_on(some_videos, tmp_path, capsys):
    command = ["pretrain", "pretrain/speediness_tiny", f"data.root={some_videos}", *TINY, "optim.epochs=1", "--resume"]
    assert main([*command, "--run-dir", str(tmp_path / "r")]) == 0
    first = capsys.readouterr()
    assert "holds no checkpoint yet: the run starts from its beginning" in " ".join(first.err.split())
    assert main([*command, "--run-dir", str(tmp_path / "r")]) == 0
    again = capsys.readouterr()
    assert "already finished" in again.err
    assert again.out == first.out


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(copied, some_videos):
    run, _ = copied
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunFolderError, match="add --resume to go on with it"):
        train(some_videos, run, "optim.epochs=3")
    assert train(some_videos, run, "optim.epochs=3", resume=True).num_steps == 3
    assert list(rates_of(run)) == [0, 1, 2]  # what the killed process logged is not told twice
    with pytest.raises(RecipeError, match=r"optim\.base_lr: "):
        train(some_videos, run, "optim.epochs=3", "optim.base_lr=1", resume=True)


def test_a_run_that_was_killed_while_its_folder_was_made_begins_again(some_videos, tmp_path):
    (tmp_path / "r" / "checkpoints").mkdir(parents=True)
    (tmp_path / "r" / ".lock").touch()
    assert train(some_videos, tmp_path / "r", "optim.epochs=1", resume=True).num_steps == 1


def test_a_folder_of_other_things_is_not_begun_in(some_videos, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="holds other things, and no run to go on with"):
        train(some_videos, tmp_path, "optim.epochs=1", resume=True)
    with pytest.raises(RunFolderError, match=r"holds no run to go on with. Begin one there.*--run-dir .* --resume"):
        resume(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_command_that_its_launcher_starts_again_goes_on(copied, some_videos, monkeypatch, name):
    run, _ = copied
    monkeypatch.setenv(name, "0")
    assert not was_restarted()
    monkeypatch.setenv(name, "1")
    assert train(some_videos, run, "optim.epochs=3").num_steps == 3


# ---- longer


def test_a_longer_run_is_the_longer_run_where_the_schedule_knows_no_end(some_videos, tmp_path):
    words = ["optim.schedule=constant", "optim.warmup_epochs=0.5"]
    train(some_videos, tmp_path / "whole", "optim.epochs=4", *words)
    train(some_videos, tmp_path / "longer", "optim.epochs=2", *words)
    assert resume(tmp_path / "longer", "optim.epochs=4").num_steps == 4
    assert weights_of(tmp_path / "longer") == weights_of(tmp_path / "whole")


def test_a_longer_cosine_goes_on_where_the_longer_plan_stands(some_videos, tmp_path, capsys):
    run = tmp_path / "longer"
    train(some_videos, run, "optim.epochs=2")
    assert main(["pretrain", str(run), "--resume", "optim.epochs=4"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    top = 0.024 * 8 / 256
    # By hand: cos at 0 and 1/2 of two steps, then at 2/4 and 3/4 of four.
    expected = [top, top / 2, top / 2, top * (1 - 2**-0.5) / 2]
    assert list(rates_of(run).values()) == pytest.approx(expected, rel=1e-6)
    assert f"2 epochs made 4: after step 2 the learning rate goes on at {top / 2:.6g}" in told
    assert "a run of 4 from the start differs" in told
    # The recipe that it leaves says it all: a new run by it computes the same.
    again = ssvid.pretrain(run / "recipe.resolved.yaml", run_dir=tmp_path / "again", show_progress=False)
    assert weights_of(again.run_dir) == weights_of(run)
    # The same command again asks for nothing more, and the old one would be shorter.
    assert resume(run, "optim.epochs=4").num_steps == 4
    with pytest.raises(RecipeError, match=r"optim\.epochs: 4 -> 2"):
        resume(run, "optim.epochs=2")


def test_a_run_that_was_stopped_early_goes_on_to_its_end(some_videos, tmp_path, left):
    run = tmp_path / "r"
    train(some_videos, run, "optim.epochs=3", "trainer.max_steps=1")
    assert resume(run, "trainer.max_steps=-1").num_steps == 3
    shutil.copytree(left, tmp_path / "left")
    resume(tmp_path / "left")
    assert weights_of(run) == weights_of(tmp_path / "left")


def test_a_plan_that_was_made_longer_keeps_its_first_part():
    longer, short = OptimConfig(epochs=6, warmup_epochs=1, extended_from=[3]), OptimConfig(epochs=3, warmup_epochs=1)
    whole = OptimConfig(epochs=6, warmup_epochs=1)
    assert [lr_factor(longer, 5)(s) for s in range(15)] == [lr_factor(short, 5)(s) for s in range(15)]
    assert [lr_factor(longer, 5)(s) for s in range(15, 31)] == [lr_factor(whole, 5)(s) for s in range(15, 31)]
    for wrong in ([6], [4, 3], [0], [2, 2]):
        with pytest.raises(RecipeError, match=r"optim.extended_from .* must rise and end below optim.epochs"):
            check_optim(OptimConfig(epochs=6, warmup_epochs=0, extended_from=wrong))


# ---- the placebo


def test_an_interrupted_placebo_is_gone_on_with_by_the_same_call(copied, monkeypatch):
    run, _ = copied
    resume(run)
    real = ssvid.pretrain

    def left_early(*words, **options):
        return real(*words, **options, callbacks=[Leave(2)])

    with monkeypatch.context() as patched:
        patched.setattr("ssvid.programs.lineup.pretrain", left_early)
        with pytest.raises(KeyboardInterrupt):
            train_placebo(run, show_progress=False)
    folder = train_placebo(run, show_progress=False)
    assert folder.name == "r-placebo"
    assert json.loads((folder / "results.json").read_text())["num_steps"] == 3
    assert train_placebo(run, show_progress=False) == folder


# ---- mistakes in the recipe are told before a video is read


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "task.options.spacing=evn",
            r"task.options.spacing \('evn'\) must be one of even, drop.*did you mean 'even'",
        ),
        ("loader.clips_per_video=3", r"loader.global_batch \(8\) must be a multiple"),
        (
            "tasks=[{name: speediness, label: a}, {name: speediness, label: b, options: {crop: hole}}]",
            r"tasks.1.options.crop \('hole'\) must be one of .*Set tasks.1.options.crop=",
        ),
    ],
)
def test_options_of_tasks_are_checked_before_a_video_is_read(monkeypatch, tmp_path, override, text):
    def listing(*args, **options):
        raise AssertionError("the videos were looked at")

    monkeypatch.setattr("ssvid.data.collection.load_manifest", listing)
    words = [*TINY[:1], *TINY[2:], override] + (["task.name=composite"] if override.startswith("tasks") else [])
    recipe = {
        "kind": "pretrain",
        "data": {"root": str(tmp_path)},
        "task": {} if override.startswith("tasks") else {"name": "speediness"},
    }
    with pytest.raises(SsvidError, match=text):
        ssvid.pretrain(recipe, *words, run_dir=tmp_path / "r", show_progress=False)


# ---- several processes, started afresh

RESTARTED = """
import os, sys
import pytorch_lightning as pl
import ssvid

class Die(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, i):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and trainer.global_step == 2 and trainer.global_rank == 1:
            os._exit(7)

result = ssvid.pretrain("pretrain/speediness_tiny", *sys.argv[1:], callbacks=[Die()])
if os.environ["RANK"] == "0":
    print(result.run_dir, result.num_steps)
"""


def launched(folder, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=280, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_torchrun_starts_a_run_again_where_it_was(some_videos, tmp_path):
    (tmp_path / "run.py").write_text(RESTARTED)
    words = [f"data.root={some_videos}", *TINY, "optim.epochs=4", "trainer.devices=2"]
    assert launched(tmp_path, "run.py", *words).split() == ["runs/speediness_tiny", "4"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["speediness_tiny"]
    assert list(rates_of(tmp_path / "runs" / "speediness_tiny")) == [0, 1, 2, 3]


@pytest.mark.slow
def test_of_several_processes_one_tells_the_result(some_videos, tmp_path):
    words = ["pretrain", "pretrain/speediness_tiny", f"data.root={some_videos}", *TINY, "optim.epochs=1"]
    told = launched(tmp_path, "-m", "ssvid", *words, "trainer.devices=2", "--json")
    assert json.loads(told)["run_dir"] == "runs/speediness_tiny"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["speediness_tiny"]
