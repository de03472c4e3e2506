"""What scanning a folder costs, against another commit of ssvid: CPU seconds in interleaved pairs.

    python -m tests.benchmarks.bench_index FOLDER --against COMMIT [--pairs 10]

Each side has a process of its own that scans all files of the folder whenever it is its turn, as a worker of ``ssvid data
index`` does: identity, full decode, comparison of the decoders. Its CPU time counts, so that it matters little what else
the machine does; imports and the cache have no part in it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from ssvid.data.readers.matching import find_videos

ROOT = Path(__file__).resolve().parents[2]
_SIDE = """
import sys, time
import torch
torch.set_num_threads(1)
import ssvid.video
from ssvid.data.index.processes import Job, _scan
ssvid.video.available_decoders()
for line in sys.stdin:
    start = time.process_time()
    facts = [_scan(ssvid.video, Job(path, path, 60.0, None)) for path in sys.argv[1:]]
    assert not any(found.problem for found in facts), facts
    print(time.process_time() - start, flush=True)
"""


def start(source: Path, files: list[str]) -> subprocess.Popen[str]:
    """A process that scans the files by the ssvid that lies in ``source``, once for each line that it is sent."""
    return subprocess.Popen(
        [sys.executable, "-c", _SIDE, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        cwd=source,
    )


def cpu_seconds(side: subprocess.Popen[str]) -> float:
    """One scan of all files."""
    assert side.stdin and side.stdout
    side.stdin.write("\n")
    side.stdin.flush()
    return float(side.stdout.readline())


def main() -> None:
    """Print each pair and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--pairs", type=int, default=10)
    args = parser.parse_args()
    files = [str((args.folder / path).absolute()) for path in find_videos(args.folder)]
    with tempfile.TemporaryDirectory() as scratch:
        archive = subprocess.run(["git", "archive", args.against], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", scratch], input=archive, check=True)
        here, there = start(ROOT, files), start(Path(scratch), files)
        cpu_seconds(here), cpu_seconds(there)  # not counted: files come into memory, decoders warm up
        ratios = []
        for number in range(args.pairs):
            order = [here, there] if number % 2 else [there, here]
            seconds = {side.pid: cpu_seconds(side) for side in order}
            ratios.append(seconds[here.pid] / seconds[there.pid])
            print(f"{args.against} {seconds[there.pid]:.2f} s, here {seconds[here.pid]:.2f} s, ratio {ratios[-1]:.3f}")
        print(
            f"{len(files)} files, median of {len(ratios)} ratios: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
        for side in (here, there):
            side.communicate()


if __name__ == "__main__":
    main()
