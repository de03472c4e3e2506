"""The same samples and the same weights: whatever the workers, the processes, the restarts.

Every run here is a process of its own; a killed one dies without warning.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssvid.checkpoints import read_checkpoint

SCRIPT = Path(__file__).with_name("run_hashed.py")
STEPS = 20  # 4 epochs of 5


def run(folder: Path, videos: Path, name: str, *overrides: str, kill_at: int = -1, resume: bool = False, code: int = 0):
    command = [sys.executable, str(SCRIPT), str(folder / name), str(folder / f"{name}.hashes"), str(kill_at)]
    command += [str(int(resume)), f"data.root={videos}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr[-3000:]
    return folder / name


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


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(reference, video_folder, workers):
    other = run(reference.parent, video_folder, f"workers{workers}", f"loader.workers_per_device={workers}")
    assert samples(other) == samples(reference)
    assert weights(other) == weights(reference)


@pytest.fixture(scope="module")
def two_processes(reference, video_folder):
    return run(reference.parent, video_folder, "two", "trainer.devices=2")


def test_two_processes_see_the_same_global_batches(reference, two_processes):
    assert samples(two_processes) == samples(reference)
    ranks = [len((two_processes.parent / f"two.hashes.rank{r}").read_text().splitlines()) for r in (0, 1)]
    assert ranks == [STEPS * 2, STEPS * 2]


def test_accumulation_sees_the_same_global_batches(reference, video_folder):
    other = run(reference.parent, video_folder, "accumulated", "trainer.accumulate=2")
    assert samples(other) == samples(reference)


@pytest.mark.parametrize(
    ("kill_at", "workers"),
    [(5, 0), (7, 2)]  # the end of an epoch, and the middle of one
    + [pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 0), (4, 0), (13, 1), (19, 0))],
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


def test_two_processes_resume_bit_for_bit(reference, two_processes, video_folder):
    # Lightning's launcher turns the death of a rank into its own exit code.
    name = "two_killed"
    command = [sys.executable, str(SCRIPT), str(reference.parent / name), str(reference.parent / f"{name}.hashes"), "7"]
    killed = subprocess.run(
        [*command, "0", f"data.root={video_folder}", "trainer.devices=2"], capture_output=True, timeout=240
    )
    assert killed.returncode != 0
    other = run(reference.parent, video_folder, name, "trainer.devices=2", resume=True)
    assert samples(other) == samples(reference)
    assert weights(other) == weights(two_processes)
