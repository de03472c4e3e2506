"""The benchmarks run by hand and rarely: what they import must be there when somebody does."""

import importlib
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", [path.stem for path in FILES if not path.stem.startswith("__")])
def test_a_benchmark_can_be_imported(name: str) -> None:
    module = importlib.import_module(f"tests.benchmarks.{name}")
    assert f"python -m tests.benchmarks.{name}" in (module.__doc__ or "") or not name.startswith("bench_")
