"""Run folders are never overwritten, never shared, and tell how to go on."""

import dataclasses
import subprocess
import sys

import pytest

from ssvid.errors import RecipeError, RunFolderError
from ssvid.train.config import LoggerConfig, TrainerConfig
from ssvid.train.devices import resolve_trainer
from ssvid.train.loggers import JsonLines, build_loggers, read_metrics
from ssvid.train.run_folder import RunFolder, next_free
from tests.test_files import confined


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(RunFolderError, match=r"exists; a run never overwrites another.*--run-dir"):
        RunFolder(tmp_path).create()
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_folder_with_a_checkpoint_offers_to_resume(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.last_checkpoint.write_bytes(b"x")
    with pytest.raises(RunFolderError, match="add --resume to go on with it"):
        folder.create()


def test_a_folder_that_holds_no_run_is_not_resumed_and_a_new_one_is_begun(tmp_path):
    RunFolder(tmp_path / "new").require_resumable()
    RunFolder(tmp_path / "new").create(resume=True)
    RunFolder(tmp_path / "new").create(resume=True)
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(RunFolderError, match="holds other things, and no run to go on with"):
        RunFolder(tmp_path).require_resumable()
    RunFolder(tmp_path / "new").last_checkpoint.write_bytes(b"x")
    with pytest.raises(RunFolderError, match=r"has a checkpoint and no recipe.resolved.yaml"):
        RunFolder(tmp_path / "new").require_resumable()


def test_a_second_process_is_locked_out(tmp_path):
    code = (
        "import sys; from ssvid.train.run_folder import RunFolder\n"
        "from ssvid.errors import RunFolderError\n"
        "try:\n    RunFolder(sys.argv[1]).locked().__enter__()\nexcept RunFolderError as e:\n    print(e)"
    )
    with RunFolder(tmp_path).locked():
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "is in use by another process" in done.stdout
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == ""


def test_names_are_numbered(tmp_path):
    assert next_free(tmp_path, "a").name == "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert next_free(tmp_path, "a").name == "a-3"


def test_metrics_are_lines_and_a_resumed_run_drops_what_it_will_log_again(tmp_path):
    logger = JsonLines(tmp_path / "m.jsonl")
    for step in range(5):
        logger.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": 0}, step=step)
    with open(logger.path, "a") as file:
        file.write('{"step": 5, "train/lo')  # a killed run leaves half a line
    assert len(read_metrics(logger.path)) == 5
    logger.rewind(3)
    assert [line["step"] for line in read_metrics(logger.path)] == [0, 1, 2]
    logger.log_metrics({"train/loss": float("nan"), "epoch": 1.0}, step=3)
    assert read_metrics(logger.path)[-1] == {"step": 3, "epoch": 1, "train/loss": "nan"}


def test_a_resumed_run_on_a_full_disk_loses_no_line(tmp_path):
    logger = JsonLines(tmp_path / "m.jsonl")
    for step in range(200):
        logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=step)
    before = logger.path.read_bytes()
    assert confined(lambda: logger.rewind(150)).startswith(f"DiskFull: {logger.path}: File too large")
    assert logger.path.read_bytes() == before
    logger.rewind(150)
    assert len(read_metrics(logger.path)) == 150


def test_unknown_wandb_mode(tmp_path):
    with pytest.raises(
        RecipeError, match=r"logger.wandb \('of'\) must be one of disabled, offline, online. Set logger.wandb=disabled"
    ):
        build_loggers(LoggerConfig(wandb="of"), tmp_path, {})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accelerator": "tpu"}, r"trainer.accelerator \('tpu'\) must be one of auto, cpu, gpu"),
        ({"devices": "zwei"}, r"trainer.devices \('zwei'\) must be auto or a whole number"),
        ({"precision": "16"}, r"trainer.precision \('16'\) must be one of auto, 32, bf16"),
        ({"threads": -1}, r"trainer.threads \(-1\) must be at least 0"),
        ({"num_nodes": 0}, r"trainer.num_nodes \(0\) must be at least 1"),
    ],
)
def test_devices_and_precision_are_checked(options, text):
    with pytest.raises(RecipeError, match=text):
        resolve_trainer(TrainerConfig(**{"accelerator": "cpu", **options}))


def test_auto_is_resolved_to_names():
    config = resolve_trainer(TrainerConfig(accelerator="cpu"))
    assert (config.accelerator, config.devices, config.precision) == ("cpu", "1", "32")


@pytest.mark.parametrize(
    ("cores", "devices", "workers", "threads"),
    [(8, "1", 2, 6), (8, "2", 2, 2), (2, "1", 2, 1), (2, "4", 0, 1), (4, "1", 0, 4)],
)
def test_training_leaves_the_reading_processes_their_cores(monkeypatch, cores, devices, workers, threads):
    monkeypatch.setattr("ssvid.train.devices.num_cores", lambda: cores)
    config = TrainerConfig(accelerator="cpu", devices=devices)
    assert resolve_trainer(config, workers).threads == threads
    assert resolve_trainer(dataclasses.replace(config, threads=3), workers).threads == 3
