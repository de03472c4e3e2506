"""What a run says of the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys

import pytest

from ssvid.machine import arithmetic, arithmetic_note, environment, num_cores, package_versions, versions


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to a process on Linux alone")
def test_cores_are_those_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert num_cores() == len(allowed)


def test_versions_are_of_installed_packages_only() -> None:
    found = package_versions(("numpy", "no-such-package"))
    assert list(found) == ["numpy"] and found["numpy"][0].isdigit()


def test_the_environment_names_versions_and_no_person_or_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.setattr(platform, "node", lambda: "here-it-runs")
    monkeypatch.setattr(socket, "gethostname", lambda: "here-it-runs")
    found = environment()
    assert "torch" in found["packages"]
    text = json.dumps(found)
    assert "secret-key" not in text
    assert "here-it-runs" not in text


def test_numbers_say_by_which_instructions_they_were_computed() -> None:
    """The variable by which torch is held to less is seen in what is recorded."""
    command = [sys.executable, "-c", "from ssvid.machine import versions; print(versions()['instructions'])"]
    held = subprocess.run(
        command, env=os.environ | {"ATEN_CPU_CAPABILITY": "default"}, check=True, capture_output=True, text=True
    )
    assert held.stdout.strip() in ("DEFAULT", "NO AVX")
    assert versions()["instructions"] == environment()["instructions"] == arithmetic()["instructions"]
    assert "/" not in arithmetic().get("blas", "")  # a library and its kernel, not where it lies


def test_other_arithmetic_is_told_and_what_an_older_record_lacks_is_not_compared() -> None:
    now = versions()
    assert arithmetic_note(now) == ""
    assert arithmetic_note({"python": "3.0", "av": "1"}) == ""
    note = arithmetic_note(now | {"instructions": "AVX1024", "python": "3.0"})
    assert note.startswith(
        f"it was computed with instructions AVX1024, here {now['instructions']}: trained numbers may"
    )
    assert arithmetic_note(now | {"torch": "1.0"}).startswith(f"it was computed with torch 1.0, here {now['torch']}")
