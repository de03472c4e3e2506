"""Run the default ring as on other people's machines, and print the table of docs/results/tests.md.

Usage: python -m tests.matrix [--lowest PYTHON] [--newest PYTHON] [SETTING ...]

Each setting is one run of all tests; together they hold both values of everything that has moved a test: instruction set, BLAS,
cores, threads, load, decoders, encoder, user, versions. ``make test-matrix`` makes the two environments that it needs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COUNTED = ("passed", "failed", "error", "skipped")
# As on a processor without AVX-512.
NARROW = {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@dataclass(frozen=True)
class Setting:
    """What one run of the tests is given.

    ``python``: "here", or the environment of the ``lowest`` or the ``newest`` versions. ``hidden``: programs and packages that are
    out of reach. ``spinning``: busy processes beside. ``poor``: no home, umask 077, root without its power over files.
    """

    python: str = "here"
    variables: dict[str, str] = field(default_factory=dict)
    cores: int = 0
    hidden: tuple[str, ...] = ()
    spinning: int = 0
    poor: bool = False


SETTINGS = {
    "plain": Setting(),
    "lowest": Setting("lowest", {"OMP_NUM_THREADS": "4"}),
    "newest": Setting("newest"),
    "narrow": Setting(variables=NARROW, cores=1),
    "bare": Setting(
        variables=NARROW | {"OMP_NUM_THREADS": "4"}, hidden=("ffmpeg", "ffprobe", "chromium", "torchcodec")
    ),
    "busy": Setting(variables={"SSVID_TESTS_ENCODER": "other"}, spinning=2, poor=True),
}


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Processes that do nothing else than to keep a core busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def environment(setting: Setting, python: str, folder: Path) -> dict[str, str]:
    """The variables of a run; what is hidden is hidden from its child processes too."""
    found = os.environ | {"OMP_NUM_THREADS": "1"} | setting.variables
    home = {"HOME": "/nonexistent"} if setting.poor else {}
    programs = folder / "programs"
    programs.mkdir()
    for place in found["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name not in setting.hidden and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    for package in setting.hidden:  # as a package that is installed, and whose libraries are not
        broken = folder / "packages" / package / "__init__.py"
        broken.parent.mkdir(parents=True)
        broken.write_text("raise ImportError('libavutil.so: cannot open shared object file')\n", encoding="utf-8")
    own = str(
        Path(python).parent
    )  # before the others, and not by a link: an environment is found beside its interpreter
    paths = [str(folder / "packages"), *filter(None, [found.get("PYTHONPATH")])]
    return (
        found
        | home
        | {"PATH": f"{own}{os.pathsep}{programs}", "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)}
    )


def command(setting: Setting, python: str) -> list[str]:
    """The words that start the tests."""
    words = [
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        str(setting.cores or 2),
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
    ]
    if setting.cores:
        words = ["taskset", "-c", ",".join(map(str, range(setting.cores))), *words]
    if setting.poor and os.getuid() == 0:
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *words]
    return words


def run(name: str, python: str, words: list[str]) -> str:
    """One run; returns its line of the table. What the tests print goes to build/matrix/NAME.log."""
    setting, log = SETTINGS[name], ROOT / "build" / "matrix" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, spinning(setting.spinning), log.open("w") as out:
        start, umask = time.monotonic(), 0o077 if setting.poor else -1
        process = subprocess.Popen(
            [*command(setting, python), *words],
            **{
                "cwd": ROOT,
                "env": environment(setting, python, Path(folder)),
                "stdout": out,
                "stderr": out,
                "umask": umask,
            },
        )
        _, _, used = os.wait4(process.pid, 0)  # with all processes that it waited for
        wall, cpu = time.monotonic() - start, used.ru_utime + used.ru_stime
    last = log.read_text(encoding="utf-8").splitlines()[-1]
    counts = [next(iter(re.findall(rf"(\d+) {word}", last)), "0") for word in COUNTED]
    return f"| {name} | {' | '.join(counts)} | {wall / 60:.1f} | {cpu / 60:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), choices=SETTINGS, metavar="SETTING")
    parser.add_argument("--lowest", default=".venv-lowest/bin/python")
    parser.add_argument("--newest", default=".venv-newest/bin/python")
    args, words = parser.parse_known_args()
    pythons = {"here": sys.executable, "lowest": args.lowest, "newest": args.newest}
    print(f"| setting | {' | '.join(COUNTED)} | wall, min | CPU, min |\n|---|{'--:|' * (len(COUNTED) + 2)}")
    for name in args.settings:
        print(run(name, os.path.abspath(pythons[SETTINGS[name].python]), words), flush=True)


if __name__ == "__main__":
    main()
