"""Read a torch file whose weights have company: numpy numbers, ``argparse.Namespace``, paths, configurations of any class.

Nothing of that company is made. Each of its classes is replaced by an inert stand-in before the file is read, with
``weights_only=True`` as everywhere: no module is imported and no code of the file runs. What stood in is named and left.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ssvid.errors import CheckpointError
from ssvid.weights.checkpoints import UNKNOWN_CLASS, load_checkpoint_dict

_HOLDS_ITEMS = re.compile(r"Can only (SETITEMS?|append|extend) .*'[\w.]*\.StandIn of ([^']+)'", re.DOTALL)


class StandIn:
    """An object of a class that was not let in. It keeps nothing and does nothing. ``class_name``: of that class."""

    class_name = ""

    def __new__(cls, *_: Any) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _AsDict:
    """In place of a class that is a dict itself."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _AsList:
    """In place of a class that is a list itself."""

    def __new__(cls, *_: Any) -> Any:
        return []


def load_strangers_dict(path: Path) -> dict[str, Any]:
    """A torch file of another program as a dict, where a ``StandIn`` is in place of what is neither tensor nor plain value.

    Objects of classes that are dicts or lists themselves come as plain dicts and lists.

    Raises:
        CheckpointError: no such file, damaged, or one that cannot be read without running code.
    """
    stand_ins: dict[str, type] = {name: _stand_in(name) for name in _classes_in(path)}
    while True:
        try:
            with torch.serialization.safe_globals([(place, name) for name, place in stand_ins.items()]):
                content = load_checkpoint_dict(path)
            return load_checkpoint_dict(path) if stand_ins and "ssvid" in content else content  # ours has no company
        except CheckpointError as error:
            further = _further(str(error.__cause__), stand_ins)
            if not further:  # each round adds a name or makes one a dict or list, so that there is a last one
                raise
            stand_ins |= further


def _stand_in(name: str) -> type[StandIn]:
    return type(f"StandIn of {name}", (StandIn,), {"class_name": name})


def _classes_in(path: Path) -> list[str]:
    """What a file names that torch does not let in by itself; [] for files in torch's older form."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # damaged, or of another form: load_checkpoint_dict says which
        return []


def _further(refusal: str, stand_ins: dict[str, type]) -> dict[str, type]:
    """The stand-in that would have let the file pass where torch refused it with these words; {} where none would."""
    if items := _HOLDS_ITEMS.search(refusal):
        place = _AsDict if items[1].startswith("SETITEM") else _AsList
        return {items[2]: place} if stand_ins.get(items[2]) is not place else {}
    unknown = UNKNOWN_CLASS.search(refusal)
    name = unknown[1] if unknown and "." in unknown[1] else f"builtins.{unknown[1]}" if unknown else ""
    return {name: _stand_in(name)} if name and name not in stand_ins else {}
