"""What the options of a recipe say of themselves, as metadata of their dataclass fields.

One mechanism for all who ask: ``--resume`` (what may change), the hash of a protocol (what tells two numbers apart), and
the loader of recipes (which values are paths).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

Metadata = Mapping[str, Any]

# Nothing that is computed depends on the value: where and how fast things run, and what is shown of them.
IDLE: Final[Metadata] = MappingProxyType({"computes": False})
# A file or folder: it may lie elsewhere tomorrow. What it holds is checked by its content.
PLACE: Final[Metadata] = MappingProxyType({"computes": False, "is_path": True})
# Changes when the run ends: one that goes on may end later.
EXTENDABLE: Final[Metadata] = MappingProxyType({"extends": True})
