"""One body over every registered network."""

from __future__ import annotations

import pytest

from ssvid.backbones import backbones, list_backbones
from ssvid.testing import check_backbone

NAMES = list_backbones()


def test_the_registry_is_complete() -> None:
    assert {"r3d_18", "tiny3d"} <= set(NAMES)
    assert len(NAMES) == 2, "a network was added: raise this number"
    assert not backbones.broken


@pytest.mark.parametrize("name", NAMES)
def test_backbone_keeps_the_contract(name: str) -> None:
    check_backbone(name)
