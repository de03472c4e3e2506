"""How long ``ssvid --help``, ``ssvid recipes`` and ``import ssvid`` take, and how soon ``show`` and ``pretrain`` say a word.

The bars: 0.5 s for --help, 1.5 CPU-seconds to the first line of ``show`` and ``pretrain``.

Usage: python -m tests.benchmarks.bench_startup [--repeats N]. Prints a table: median and slowest wall seconds of a fresh
process, and of ``python -c pass`` beside it; then CPU-seconds to the first line and in all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ssvid.data.synth import SyntheticVideos, synthesize

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ssvid": ["-c", "import ssvid"],
    "ssvid --help": ["-m", "ssvid", "--help"],
    "ssvid pretrain --help": ["-m", "ssvid", "pretrain", "--help"],
    "ssvid recipes": ["-m", "ssvid", "recipes"],
    "ssvid tasks (imports torch)": ["-m", "ssvid", "tasks"],
}


def wall_seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def cpu_seconds(words: list[str]) -> tuple[float, float]:
    """To the first line of a command on stdout or stderr, and to its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ssvid", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    process.stdout.read()
    usage = os.wait4(process.pid, 0)[2]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK"), usage.ru_utime + usage.ru_stime


def first_lines(repeats: int, videos: Path) -> None:
    recipe = ["smoke/speediness", "data.name=manifest", f"data.root={videos}"]
    commands = {
        "show smoke/speediness": ["show", *recipe],
        "show ucf101-finetune": ["show", "ucf101-finetune"],
        "pretrain, 1 epoch of 24 videos": ["pretrain", *recipe, "optim.epochs=1", "--run-dir"],
    }
    print(f"\n{'command':30}  CPU s to the first line, median and slowest, and in all")
    for name, words in commands.items():
        found = [
            cpu_seconds([*words, str(videos / f"run{number}")] if words[-1] == "--run-dir" else words)
            for number in range(repeats)
        ]
        first, whole = zip(*found, strict=True)
        print(f"{name:30}  {statistics.median(first):6.2f}  {max(first):6.2f}  {statistics.median(whole):6.2f}")


def main(repeats: int) -> None:
    print(f"{'command':28}  median s  slowest s   ({repeats} fresh processes each)")
    for name, arguments in COMMANDS.items():
        wall_seconds(arguments)  # the first reads files that the others find in memory
        seconds = [wall_seconds(arguments) for _ in range(repeats)]
        print(f"{name:28}  {statistics.median(seconds):8.3f}  {max(seconds):9.3f}")
    with tempfile.TemporaryDirectory() as folder:
        synthesize(folder, SyntheticVideos(num_train=24, num_test=2))
        first_lines(repeats, Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    main(parser.parse_args().repeats)
