"""What the loggers write is read back with the packages' own readers; nothing needs a network."""

import json
import os
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from ssvid.cli import main
from ssvid.errors import RecipeError
from ssvid.train.config import LoggerConfig
from ssvid.train.loggers import (
    build_loggers,
    check_loggers,
    close_loggers,
    log_picture,
    read_metrics,
    wandb_mode,
    without_machine_paths,
)

RECIPE = {"seed": 4, "data": {"root": "/home/someone/videos", "name": "folder"}, "optim": {"betas": [0.9, 0.99]}}
PICTURE = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """Neither a key nor a mode of the person who runs the tests is seen."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


# ---- which


@pytest.mark.parametrize(
    ("recipe", "environment", "mode"),
    [
        ("online", "", "online"),
        ("online", "offline", "offline"),
        ("online", "dryrun", "offline"),
        ("online", "disabled", "disabled"),
        ("offline", "online", "offline"),
        ("disabled", "online", "disabled"),
        ("offline", "shared", "offline"),
    ],
)
def test_the_environment_can_turn_wandb_down_and_never_up(recipe, environment, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_mode(LoggerConfig(wandb=recipe)) == mode


def test_online_without_a_login_is_an_error_before_anything_is_made():
    with pytest.raises(RecipeError, match=r"logger.wandb \(online\) needs a login.*wandb login.*logger.wandb=offline"):
        check_loggers(LoggerConfig(wandb="online"))


def test_a_batch_job_without_a_login_ends_at_once_with_2_and_leaves_no_folder(
    video_folder, tmp_path, monkeypatch, capsys
):
    def prompt(*_):
        raise AssertionError("a prompt would hang a batch job")

    monkeypatch.setattr("builtins.input", prompt)
    monkeypatch.setattr("getpass.getpass", prompt)
    words = ["pretrain", "pretrain/speediness_tiny", f"data.root={video_folder}", "logger.wandb=online"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 2
    assert "needs a login" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_missing_tensorboard_names_the_extra(monkeypatch):
    monkeypatch.setattr("ssvid.train.loggers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"logger.tensorboard \(true\) needs the package.*ssvid\[tensorboard\]"):
        check_loggers(LoggerConfig(tensorboard=True))


def test_metrics_are_always_written(tmp_path):
    loggers = build_loggers(LoggerConfig(), tmp_path, RECIPE)
    assert len(loggers) == 1
    loggers[0].log_metrics({"train/loss": 2.0, "epoch": 0}, step=0)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "epoch": 0, "train/loss": 2.0}]


def test_absolute_paths_are_cut_to_their_last_part():
    given = {"a": "/data/ucf/", "b": ["~/x/y.ckpt", "C:\\videos\\z", "runs/mine"], "c": {"d": 1, "e": "s3d", "f": ""}}
    assert without_machine_paths(given) == {"a": "ucf", "b": ["y.ckpt", "z", "runs/mine"], "c": given["c"]}


# ---- wandb


BLOCK, HEADER = 32768, 7  # of the LevelDB log that wandb's file is, after 7 bytes of its own


def chunks(data):
    """The records of a LevelDB log: header of checksum (4), length (2), type (1: whole, 2 3 4: first, middle, last)."""
    position, whole = HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + HEADER])
        whole += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):
            yield whole
            whole = b""


def offline_records(folder):
    """The records of every offline run of a folder, oldest run first."""
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return [[Record.FromString(chunk) for chunk in chunks(file.read_bytes())] for file in files]


ONE_PROCESS = """
import sys, numpy as np
from pathlib import Path
from ssvid.recipe import schema
from ssvid.train import trainer
from ssvid.train.config import LoggerConfig
from ssvid.train.loggers import build_loggers, close_loggers, log_picture
print([name for name in ("wandb", "tensorboard") if name in sys.modules])
folder, step, recipe = Path(sys.argv[1]), int(sys.argv[2]), {recipe!r}
loggers = build_loggers(LoggerConfig(wandb="offline", project="videos"), folder, recipe, resumed_step=step or None)
for logger in loggers:
    logger.log_metrics({{"train/loss": 1.5, "epoch": 0}}, step=step)
log_picture(loggers, "val_clips", np.full((12, 16, 3), 7, np.uint8), step)
close_loggers(loggers, "success")
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run folder that two processes logged into, this one and a resumed one; and what the second one printed."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    loggers = build_loggers(LoggerConfig(wandb="offline", project="videos"), folder, RECIPE)
    for logger in loggers:
        logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=0)
    log_picture(loggers, "val_clips", PICTURE, 0)
    close_loggers(loggers, "success")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    command = [sys.executable, "-c", ONE_PROCESS.format(recipe=RECIPE), str(folder), "10"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


def test_neither_package_is_imported_before_a_recipe_asks(resumed):
    assert resumed[1].splitlines()[0] == "[]"


def test_a_resumed_process_keeps_the_run_id(resumed):
    folder, _ = resumed
    first, second = offline_records(folder)
    ids = {r.run.run_id for records in (first, second) for r in records if r.WhichOneof("record_type") == "run"}
    assert ids == {json.loads((folder / "wandb.json").read_text())["id"]}
    (run,) = [r.run for r in second if r.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.display_name) == ("videos", "mine")


def test_metrics_pictures_and_the_recipe_are_in_the_run(resumed):
    folder, _ = resumed
    first, _ = offline_records(folder)
    keys = {}
    for record in first:
        for item in record.history.item:
            keys[item.key or "/".join(item.nested_key)] = item.value_json
    assert json.loads(keys["train/loss"]) == 1.5
    assert json.loads(keys["trainer/global_step"]) == 0
    assert json.loads(keys["pictures/val_clips/_type"]) == "images/separated"
    assert list(folder.glob("wandb/offline-run-*/files/media/images/**/*.png"))
    updates = [u for r in first for u in (*r.run.config.update, *r.config.update)]
    config = {u.key or "/".join(u.nested_key): json.loads(u.value_json) for u in updates}
    assert config["seed"] == 4
    assert config["data"] == {"root": "videos", "name": "folder"}


def test_the_run_tells_nothing_of_the_machine(resumed):
    folder, _ = resumed
    for records in offline_records(folder):
        for record in records:
            if record.WhichOneof("record_type") == "run":
                assert record.run.host == "hidden"
        raw = b"".join(record.SerializeToString() for record in records)
        for secret in ("/home/someone", str(folder.parent), sys.executable):
            assert secret.encode() not in raw
        if len(socket.gethostname()) > 4:  # a shorter name is found by chance
            assert socket.gethostname().encode() not in raw
    assert not list(folder.glob("wandb/**/wandb-metadata.json"))


@pytest.mark.slow
def test_a_run_that_the_server_has_must_be_there_and_one_that_is_gone_is_explained(tmp_path, monkeypatch):
    import wandb

    asked = []

    def init(**options):
        asked.append(options)
        raise wandb.errors.CommError("no such run")

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb, "init", init)
    for was_online, resume in ((False, "allow"), (True, "must")):
        (tmp_path / "wandb.json").write_text(json.dumps({"id": "abc", "project": "p", "was_online": was_online}))
        with pytest.raises(
            RecipeError, match=r"run abc of project 'p' cannot be started or gone on with \(no such run\)"
        ):
            build_loggers(LoggerConfig(wandb="online", project="other"), tmp_path, RECIPE)
        assert (asked[-1]["id"], asked[-1]["project"], asked[-1]["resume"]) == ("abc", "p", resume)


def test_other_ranks_start_no_wandb_run(tmp_path, monkeypatch):
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    loggers = build_loggers(LoggerConfig(wandb="offline"), tmp_path, RECIPE)
    assert isinstance(loggers[-1], WandbLogger)
    loggers[-1].log_metrics({"train/loss": 1.0}, step=0)
    close_loggers(loggers, "success")
    assert not list(tmp_path.iterdir())


# ---- TensorBoard


def test_tensorboard_goes_on_in_the_same_folder_and_drops_what_is_logged_again(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = LoggerConfig(tensorboard=True)
    for first, resumed_step in ((0, None), (4, 4)):
        loggers = build_loggers(config, tmp_path, RECIPE, resumed_step=resumed_step)
        (board,) = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
        for step in range(first, first + 6):
            board.log_metrics({"train/loss": 100.0 * first + step}, step=step)
        log_picture(loggers, "val_clips", PICTURE, first)
        close_loggers(loggers, "success")
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = {e.step: e.value for e in events.Scalars("train/loss")}
    assert losses == {step: (float(step) if step < 4 else 400.0 + step) for step in range(10)}
    assert len(events.Scalars("train/loss")) == 10
    (first_picture, *_) = events.Images("pictures/val_clips")
    assert (first_picture.height, first_picture.width) == PICTURE.shape[:2]
