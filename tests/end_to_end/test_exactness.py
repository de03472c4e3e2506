"""The same samples and the same weights: whatever the workers, the processes, the restarts.

Every run here is a process of its own; a killed one dies without warning.
"""

import hashlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from ssvid.weights.checkpoints import read_checkpoint
from tests.conftest import held_out_by_name
from tests.end_to_end import run_hashed

STEPS = 20  # 4 epochs of 5
NUM_VAL = 4  # of 26 videos; of the 22 others, 2 do not fill a batch


# Processes are forked from one that has imported everything but run nothing: nine seconds saved for each of them. Installed
# modules only: this folder is not on the path of that process (before Python 3.12.4), and what it cannot import it skips.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ssvid.programs.pretrain", "pytorch_lightning", "torchmetrics.classification"])


def words_of(folder: Path, videos: Path | list[str], name: str, kill_at: int, resume: bool, recipe: str) -> list[str]:
    """What run_hashed is told. videos: a bare folder, or overrides that say where they are."""
    data = videos if isinstance(videos, list) else held_out_by_name(videos, folder / "list.csv", NUM_VAL)
    return [str(folder / name), str(folder / f"{name}.hashes"), str(kill_at), str(int(resume)), recipe, *data]


def run(folder: Path, videos, name: str, *overrides: str, kill_at=-1, resume=False, code=0, recipe="one") -> Path:
    """One run to its end (or its death) in a process of its own; returns the run folder."""
    words = [*words_of(folder, videos, name, kill_at, resume, recipe), *overrides]
    log = folder / f"{name}.log"
    process = PROCESSES.Process(target=run_hashed.main_logged, args=(words, str(log)))
    process.start()
    try:
        process.join()
    finally:  # where the time of the test is up
        process.kill()
    assert process.exitcode == code, log.read_text()[-3000:]
    return folder / name


def run_on_two(folder: Path, videos, name: str, *overrides: str, kill_at=-1, resume=False, recipe="one") -> int:
    """One run on two processes, which Lightning starts from the command line again; returns the exit code."""
    words = words_of(folder, videos, name, kill_at, resume, recipe)
    command = [sys.executable, run_hashed.__file__, *words, *overrides, "trainer.devices=2"]
    return subprocess.run(command, capture_output=True, text=True).returncode


def samples(run_dir: Path) -> dict[tuple[int, ...], str]:
    """Ticket -> hash over all ranks. A sample that was seen twice must have been the same twice."""
    seen: dict[tuple[int, ...], str] = {}
    for file in sorted(run_dir.parent.glob(f"{run_dir.name}.hashes.rank*")):
        for line in file.read_text().splitlines():
            ticket, digest = json.loads(line)
            assert seen.setdefault(tuple(ticket), digest) == digest
    return seen


def weights(run_dir: Path) -> str:
    checkpoint = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    digest = hashlib.sha256()
    for state in (checkpoint.backbone_state, checkpoint.task_state):
        for key in sorted(state):
            digest.update(key.encode() + state[key].numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def reference(video_folder, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), video_folder, "reference")


def test_the_reference_run_covers_20_global_batches(reference):
    seen = samples(reference)
    assert len(seen) == STEPS * 4
    assert {(t[1], t[2]) for t in seen} == {(epoch, step) for epoch in range(4) for step in range(5)}
    assert len(set(seen.values())) > 70  # epochs draw other windows of the same videos


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_change_nothing(reference, video_folder, workers):
    other = run(reference.parent, video_folder, f"workers{workers}", f"loader.workers_per_device={workers}")
    assert samples(other) == samples(reference)
    assert weights(other) == weights(reference)


@pytest.fixture(scope="module")
def two_processes(reference, video_folder):
    assert run_on_two(reference.parent, video_folder, "two") == 0
    return reference.parent / "two"


@pytest.mark.slow
def test_two_processes_see_the_same_global_batches(reference, two_processes):
    assert samples(two_processes) == samples(reference)
    ranks = [len((two_processes.parent / f"two.hashes.rank{r}").read_text().splitlines()) for r in (0, 1)]
    assert ranks == [STEPS * 2, STEPS * 2]


def test_accumulation_sees_the_same_global_batches(reference, video_folder):
    other = run(reference.parent, video_folder, "accumulated", "trainer.accumulate=2")
    assert samples(other) == samples(reference)


@pytest.mark.parametrize(
    ("kill_at", "workers"),
    [(7, 2)]  # in the middle of an epoch; 5 is the end of one
    + [pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 0), (4, 0), (5, 0), (13, 1), (19, 0))],
)
def test_a_killed_run_resumes_bit_for_bit(reference, video_folder, kill_at, workers):
    name, loader = f"killed{kill_at}", f"loader.workers_per_device={workers}"
    run(reference.parent, video_folder, name, loader, kill_at=kill_at, code=9)
    assert len(samples(reference.parent / name)) < STEPS * 4
    other = run(reference.parent, video_folder, name, resume=True)
    assert samples(other) == samples(reference)
    assert weights(other) == weights(reference)
    steps = [json.loads(line)["step"] for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit(reference, two_processes, video_folder):
    # Lightning's launcher turns the death of a rank into its own exit code.
    assert run_on_two(reference.parent, video_folder, "two_killed", kill_at=7) != 0
    assert run_on_two(reference.parent, video_folder, "two_killed", resume=True) == 0
    other = reference.parent / "two_killed"
    assert samples(other) == samples(reference)
    assert weights(other) == weights(two_processes)


@pytest.mark.slow
def test_torchrun_gives_the_same_weights_as_lightnings_launcher(reference, two_processes, video_folder):
    words = [*words_of(reference.parent, video_folder, "torchrun", -1, False, "one"), "trainer.devices=2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", run_hashed.__file__]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert samples(reference.parent / "torchrun") == samples(reference)
    assert weights(reference.parent / "torchrun") == weights(two_processes)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["alternate", "own_videos", "pairs"])
def test_several_tasks_resume_bit_for_bit_with_workers(video_folder, tmp_path, recipe):
    whole = run(tmp_path, video_folder, "whole", recipe=recipe)
    name = "killed"
    run(tmp_path, video_folder, name, "loader.workers_per_device=2", kill_at=7, code=9, recipe=recipe)
    other = run(tmp_path, video_folder, name, resume=True, recipe=recipe)
    assert samples(other) == samples(whole)
    assert len(samples(whole)) == STEPS * 4
    assert weights(other) == weights(whole)
