"""Signals, gradients that are not finite, full disks and damaged files, in whole processes: the run goes on from what is whole."""

import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ssvid.weights.checkpoints import load_checkpoint_dict, not_finite
from tests.conftest import held_out_by_name
from tests.end_to_end import run_troubled

pytestmark = pytest.mark.slow
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ssvid.programs.pretrain", "pytorch_lightning", "torchmetrics.classification"])
STEPS = 20  # 4 epochs of 5
DEADLINE = 240  # seconds, on a busy machine


class Run:
    """A run on one process or on several, each in a process group of its own, as torchrun would start them."""

    def __init__(
        self,
        folder: Path,
        videos: Path,
        trouble: str,
        *more: str,
        resume: bool = False,
        ranks: int = 1,
        num_held_out: int = 6,
    ) -> None:
        self.folder = folder
        listed = held_out_by_name(videos, folder.parent / f"{folder.name}.csv", num_held_out)
        words = [str(folder), str(int(resume)), trouble, *listed, f"trainer.devices={ranks}", *more]
        self.logs = [folder.parent / f"{folder.name}.log{rank}" for rank in range(ranks)]
        self.steps = [Path(f"{folder}.steps.rank{rank}") for rank in range(ranks)]
        for file in self.steps:
            file.unlink(missing_ok=True)
        self.processes = [
            PROCESSES.Process(target=run_troubled.main_logged, args=(words, str(log), launcher))
            for log, launcher in zip(self.logs, launchers(ranks), strict=True)
        ]
        for process in self.processes:
            process.start()

    def lines(self, rank: int = 0) -> list[str]:
        return self.steps[rank].read_text().split() if self.steps[rank].exists() else []

    def done(self) -> int:
        return max((int(line) for line in self.lines() if line.isdigit()), default=0)

    def told(self) -> str:
        return "".join(log.read_text() for log in self.logs)

    def wait_for_line(self, number: int) -> None:
        end = time.monotonic() + DEADLINE
        while len(self.lines(-1)) < number:
            assert all(process.is_alive() for process in self.processes), self.told()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.01)

    def send(self, number: int, whom: str) -> None:
        """To all processes and their data workers, as clusters do, or to the first process alone."""
        for process in self.processes if whom == "all" else self.processes[:1]:
            (os.killpg if whom == "all" else os.kill)(process.pid, number)

    def codes(self) -> list[int | None]:
        """The exit codes; a failure where one had to be killed."""
        end = time.monotonic() + DEADLINE
        for process in self.processes:
            process.join(timeout=max(0.0, end - time.monotonic()))
        hung = [process for process in self.processes if process.is_alive()]
        for process in hung:
            process.kill()
        assert not hung, f"{len(hung)} processes hang: {self.told()[-3000:]}"
        return [process.exitcode for process in self.processes]


def launchers(ranks: int) -> list[dict[str, str]]:
    """What torchrun puts into the environment of each process; nothing for one alone."""
    if ranks == 1:
        return [{}]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    return [meeting | sizes | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def content(folder: Path) -> dict:
    return load_checkpoint_dict(folder / "checkpoints" / "last.ckpt")


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(value, b["state_dict"][key]) for key, value in a["state_dict"].items())


@pytest.fixture(scope="module")
def wholes(video_folder, tmp_path_factory):
    """Runs that nothing happens to, by number of processes."""
    folder = tmp_path_factory.mktemp("wholes")
    runs = {ranks: Run(folder / str(ranks), video_folder, "none", ranks=ranks) for ranks in (1, 2)}
    assert [run.codes() for run in runs.values()] == [[0], [0, 0]]
    return {ranks: content(run.folder) for ranks, run in runs.items()}


@pytest.mark.parametrize("whom", ["all", "first"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("moment", range(20))
def test_sigterm_at_any_moment_saves_the_step_that_is_done(video_folder, tmp_path, wholes, moment, ranks, whom):
    draws = np.random.default_rng([moment, ranks])
    more = ["loader.workers_per_device=2"] if moment % 2 else []
    run = Run(tmp_path / "run", video_folder, "slow:0.1", *more, ranks=ranks)
    run.wait_for_line(2 + int(draws.integers(20)))
    time.sleep(float(draws.random()) * 0.2)
    run.send(signal.SIGUSR1 if moment % 5 == 4 else signal.SIGTERM, whom)
    assert run.codes() == [75, *[0] * (ranks - 1)], run.told()[-3000:]
    found = content(run.folder)
    assert found["ssvid"]["global_step"] == run.done()
    assert run.told().count("ssvid: stopped by SIG") == 1
    assert f"step {run.done()} is saved." in run.told()
    assert "Traceback" not in run.told()
    again = Run(run.folder, video_folder, "none", resume=True, ranks=ranks)
    assert again.codes() == [0] * ranks, again.told()[-3000:]
    assert same(content(run.folder), wholes[ranks])


@pytest.mark.parametrize("saves", [0, 1])
@pytest.mark.parametrize("step", range(20))
def test_a_rank_that_is_not_finite_takes_no_other_with_it(video_folder, tmp_path, step, saves):
    every = f"trainer.save_every_steps={saves}"
    run = Run(tmp_path / "run", video_folder, f"nan:{step}:1", every, f"trainer.max_steps={min(step + 1, 19)}", ranks=2)
    assert run.codes() == [0, 0], run.told()[-3000:]
    assert not_finite(content(run.folder)) == ""
    again = Run(run.folder, video_folder, f"nan:{step}:1", every, "trainer.max_steps=-1", resume=True, ranks=2)
    assert again.codes() == [0, 0], again.told()[-3000:]
    assert content(run.folder)["ssvid"]["skipped_steps"] == {"total": 1, "in_a_row": int(step == 19)}
    assert not_finite(content(run.folder)) == ""


def test_all_ranks_end_with_one_word_when_too_many_steps_are_not_finite(video_folder, tmp_path):
    run = Run(tmp_path / "run", video_folder, "nan:3:1", "optim.max_skipped_steps=0", ranks=2)
    assert run.codes() == [2, 0]
    assert run.told().count("ssvid: ") == 1
    assert "was not finite at step 4" in run.told()
    assert "Traceback" not in run.told()


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("num_held_out", [1, 2, 3, 4, 5])
def test_any_number_of_held_out_videos_on_any_number_of_processes(video_folder, tmp_path, ranks, num_held_out):
    more = ["optim.epochs=1", "optim.warmup_epochs=0", "loader.global_batch=6"]
    run = Run(tmp_path / "run", video_folder, "none", *more, ranks=ranks, num_held_out=num_held_out)
    assert run.codes() == [0] * ranks, run.told()[-3000:]
    assert f'"val/num_videos": {float(num_held_out)}' in (run.folder / "metrics.jsonl").read_text()
