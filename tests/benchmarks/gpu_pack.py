"""Gathers into one folder what ``make gpu`` needs on a machine without a network: wheels and a few small videos.

Usage: python -m tests.benchmarks.gpu_pack OUT. Real videos come from SSVID_REAL_DATA where it is set.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MAX_MB = 60.0
VIDEOS_MB = 20.0


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    wheels = out / "wheels"
    wheels.mkdir(parents=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        str(wheels),
    ]
    subprocess.run([*pip, *_requirements(), "."], check=True)
    _copy_videos(out / "videos")
    size_mb = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
    listing = ", ".join(sorted(w.name for w in wheels.iterdir()))
    print(f"{out}: {size_mb:.1f} MB ({listing}; {len(list((out / 'videos').glob('*')))} videos)")
    if size_mb > MAX_MB:
        sys.exit(f"{out} has {size_mb:.1f} MB, more than {MAX_MB:g} MB. Lower VIDEOS_MB.")


def _requirements() -> list[str]:
    """omegaconf's own parser runtime, at the version that the installed omegaconf asks for."""
    from importlib.metadata import requires

    antlr = [r.split(";")[0].strip() for r in requires("omegaconf") or [] if r.startswith("antlr4")]
    return ["av", "omegaconf", *antlr]


def _copy_videos(folder: Path) -> None:
    """Real videos up to ``VIDEOS_MB``, every n-th file so that all classes are there; none where there are none."""
    folder.mkdir()
    real = os.environ.get("SSVID_REAL_DATA")
    if not real:
        print("SSVID_REAL_DATA is not set: no videos are packed, the benchmark renders its own")
        return
    files = sorted(Path(real, "ucf101").rglob("*.avi"))
    total = 0.0
    for file in files[::2]:
        total += file.stat().st_size / 1e6
        if total > VIDEOS_MB:
            break
        shutil.copyfile(file, folder / file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
