"""Processes that a launcher started take the same folder, and wait for what one of them does alone."""

import os
import socket
import subprocess
import sys

import pytest

from ssvid.errors import RunFolderError
from ssvid.ranks import agreed, done_by_first, without_launcher

# Each process would choose a name of its own. The first does a work that takes a while and, the second time, fails.
PROGRAM = """
import os, sys, time
from ssvid.errors import SsvidError
from ssvid.ranks import agreed, done_by_first
rank = os.environ["RANK"]
name = agreed("run_dir", lambda: "runs/of-" + rank)
def work():
    time.sleep(0.2)
    print("worked", flush=True)
done_by_first("placebo", work)
def fail():
    raise ValueError("no disk")
try:
    done_by_first("again", fail)
    told = ""
except (ValueError, SsvidError) as error:
    told = str(error)
print(rank, name, told, flush=True)
"""


def test_processes_agree_and_wait_for_the_first():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=os.environ | place | {"RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("1", "0")
    ]
    second, first = (process.communicate(timeout=120)[0].splitlines() for process in running)
    assert first == ["worked", "0 runs/of-0 no disk"]
    assert second == ["1 runs/of-0 process 0 could not do what the others wait for. ValueError: no disk"]


def test_alone_everybody_chooses_for_themselves():
    assert (agreed("run_dir", lambda: "a"), agreed("run_dir", lambda: "b")) == ("a", "b")
    done = []
    done_by_first("x", lambda: done.append(1))
    assert done == [1]


def test_what_lightning_starts_takes_what_the_first_process_chose(monkeypatch):
    agreed("run_dir", lambda: "runs/mine")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert agreed("run_dir", lambda: "runs/mine-2") == "runs/mine"


def test_processes_that_cannot_meet_are_told_to_name_the_folder(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(RunFolderError, match="Name it with --run-dir"):
        agreed("run_dir", lambda: "x")


def test_a_process_without_the_launcher_is_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/h")
    kept = without_launcher()
    assert kept["HOME"] == "/h"
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & set(kept)
