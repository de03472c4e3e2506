"""``make bench``: what can be measured in minutes on any machine, one benchmark after the other."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ssvid.data.synth import SyntheticVideos, synthesize


def run(module: str, *arguments: str) -> None:
    print(f"\n=== {module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.benchmarks.{module}", *arguments], check=True)


with tempfile.TemporaryDirectory() as scratch:
    videos = Path(scratch) / "videos"
    synthesize(videos, SyntheticVideos(num_train=40, num_test=1))
    run("bench_startup")
    run("bench_decoders", "--data", str(videos))
    run("bench_gpu", "--out", str(Path(scratch) / "steps"), "--device", "cpu", "--quick")
