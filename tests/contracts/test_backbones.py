"""One body over every registered network."""

from __future__ import annotations

import pytest

from ssvid.backbones import backbones, list_backbones
from ssvid.testing import check_backbone, check_compiled

NAMES = [
    "caffenet",
    "i3d_resnet18",
    "i3d_resnet50",
    "mc3_18",
    "r2plus1d_18",
    "r3d_18",
    "resnet18",
    "resnet50",
    "s3d",
    "s3dg",
    "tiny3d",
]


def test_the_registry_holds_these_and_no_other() -> None:
    assert list_backbones() == NAMES, "a network was added or lost: change this list"
    assert not backbones.broken


# The longest, whose layers are those of a smaller or sister network: in the slow ring.
LONGEST = {"i3d_resnet18", "i3d_resnet50", "mc3_18", "r2plus1d_18", "resnet50", "s3d", "s3dg"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONGEST else ()) for n in NAMES])
def test_backbone_keeps_the_contract(name: str) -> None:
    check_backbone(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_backbone_compiles_in_one_piece(name: str) -> None:
    check_compiled(name)
