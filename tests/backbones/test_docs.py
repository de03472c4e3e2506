"""docs/backbones.md: its examples run, and its table is that of the registry."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from ssvid.backbones import backbones, create_backbone, list_backbones

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before, when the test is over."""
    backbones.load()
    monkeypatch.setattr(backbones, "_entries", dict(backbones._entries))


def test_the_examples_run_as_they_stand(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example network keeps the contract: its last snippet checks it."""
    assert len(SNIPPETS) == 5
    for snippet in SNIPPETS:
        module = types.ModuleType("my_backbones")
        if "TwoLayers" in snippet:
            monkeypatch.setitem(sys.modules, "my_backbones", module)  # where pickle looks for the class
        exec(compile(snippet, "backbones.md", "exec"), module.__dict__)
        if "features" in module.__dict__:
            assert (module.features.shape, module.vectors.shape) == ((2, 256, 4, 8, 8), (2, 512))
        if "kept_BKD" in module.__dict__:
            assert (module.map_BCTHW.shape, module.kept_BKD.shape) == ((2, 192, 2, 2, 2), (2, 2, 192))
    assert "two_layers" in list_backbones()


def test_the_table_is_that_of_the_registry() -> None:
    rows = {
        row[0].strip("`"): row
        for row in (line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| `"))
    }
    assert sorted(rows) == list_backbones()
    for name, row in rows.items():
        with torch.device("meta"):
            info = create_backbone(name).info
        last = info.stages[-1]
        assert row[3].startswith(f"{last.stride_time}, {last.stride_space}")
        assert (row[1] == "frames") is backbones.get(name).per_frame
        twin = re.match(r"as `(\w+)`", row[2])
        listed = rows[twin[1]][2] if twin else row[2]
        assert listed.startswith(", ".join(f"{s.name} ({s.channels})" for s in info.stages))
        missing = [option for option in info.options if f"`{option}`" not in _options(rows, name)]
        assert not missing, f"{name}: the table lacks {missing}"


def _options(rows: dict[str, list[str]], name: str) -> str:
    twin = re.fullmatch(r"as `(\w+)`", rows[name][4])
    return rows[twin[1]][4] if twin else rows[name][4]
