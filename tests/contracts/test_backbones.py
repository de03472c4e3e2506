"""One body over every registered network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ssvid.backbones
from ssvid.backbones import backbones, list_backbones
from ssvid.testing import check_backbone, check_compiled

NAMES = list_backbones()
FILES = [path.read_text(encoding="utf-8") for path in Path(ssvid.backbones.__file__).parent.glob("*.py")]


def test_every_network_of_the_shelf_was_found() -> None:
    written = sum(len(re.findall(r"^@register_backbone\(", text, re.MULTILINE)) for text in FILES)
    assert len([name for name in NAMES if backbones.get(name).__module__.startswith("ssvid.backbones.")]) == written > 0
    assert not backbones.broken


# The longest, whose layers are those of a smaller or sister network: in the slow ring.
LONGEST = {
    "c3d",
    "i3d_resnet18",
    "i3d_resnet50",
    "mc3_18",
    "r2plus1d_18",
    "resnet50",
    "s3d",
    "s3dg",
    "timesformer",
    "vit",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONGEST else ()) for n in NAMES])
def test_backbone_keeps_the_contract(name: str) -> None:
    check_backbone(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_backbone_compiles_in_one_piece(name: str) -> None:
    check_compiled(name)
