"""A torch.hub cache with weights in it, and no way to the network."""

from __future__ import annotations

import operator
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], dict[str, torch.Tensor]]:
    """Puts fresh weights of a builder of torchvision where torch.hub would have downloaded those of that name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)

    def put(builder: str, name: str) -> dict[str, torch.Tensor]:
        make = operator.attrgetter(builder)(torchvision.models)
        with torch.random.fork_rng():
            torch.manual_seed(11)
            state = make(weights=None).state_dict()
        url = torchvision.models.get_model_weights(make)[name].url
        folder = tmp_path / "torch" / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / url.rpartition("/")[2])
        return dict(state)

    return put
