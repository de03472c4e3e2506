"""What a run says of the machine it ran on."""

from __future__ import annotations

import json
import os

import pytest

from ssvid.machine import environment, num_cores, package_versions


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
    found = environment()
    assert "torch" in found["packages"]
    text = json.dumps(found)
    assert "secret-key" not in text and os.uname().nodename not in text
