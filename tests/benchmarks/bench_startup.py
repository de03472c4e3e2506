"""How long ``ssvid --help``, ``ssvid recipes`` and ``import ssvid`` take: the bar is 0.5 s for --help.

Usage: python -m tests.benchmarks.bench_startup [--repeats N]. Prints a table: median and slowest wall seconds of a fresh
process, and of ``python -c pass`` beside it.
"""

import argparse
import statistics
import subprocess
import sys
import time

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


def main(repeats: int) -> None:
    print(f"{'command':28}  median s  slowest s   ({repeats} fresh processes each)")
    for name, arguments in COMMANDS.items():
        wall_seconds(arguments)  # the first reads files that the others find in memory
        seconds = [wall_seconds(arguments) for _ in range(repeats)]
        print(f"{name:28}  {statistics.median(seconds):8.3f}  {max(seconds):9.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    main(parser.parse_args().repeats)
