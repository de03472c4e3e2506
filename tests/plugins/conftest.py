"""Packages of strangers, installed with pip into a folder of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pip_install() -> Callable[[Path, Path], None]:
    """``pip_install(project, target)``: offline, into a folder that no other test sees."""

    def install(project: Path, target: Path) -> None:
        options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(project)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return install


@pytest.fixture(scope="session")
def python_with() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """``python_with(target, code, cwd)``: run code in a process that sees the packages in ``target``."""

    def run(target: Path, code: str, cwd: Path, *arguments: str, **environment: str):
        path = os.pathsep.join([str(target), str(Path(__file__).resolve().parents[2])])  # ssvid of this checkout
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)

    return run
