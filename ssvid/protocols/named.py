"""Protocols by their names and versions.

A recipe says ``protocol: ucf101-linear@1`` and gets these settings below its own keys. What a recipe or a command line
sets otherwise is allowed, and stands beside every number as a change of the protocol. A published version never changes:
another setting is another version.
"""

from __future__ import annotations

from ssvid.errors import RecipeError, did_you_mean
from ssvid.protocols.actions import ACTIONS
from ssvid.protocols.contract import NamedProtocol
from ssvid.protocols.tracking import TRACKING

PROTOCOLS: tuple[NamedProtocol, ...] = (*ACTIONS, *TRACKING)


def named_protocol(name: str) -> NamedProtocol:
    """The protocol ``NAME@VERSION``; the newest version where none is said.

    Raises:
        RecipeError: no protocol has that name or version.
    """
    wanted, at, version = str(name).partition("@")
    versions = [p for p in PROTOCOLS if p.name == wanted]
    if not versions:
        raise RecipeError(f"protocol: unknown protocol {name!r}. {did_you_mean(wanted, protocol_names())}")
    if not at:
        return max(versions, key=lambda p: p.version)
    for protocol in versions:
        if version == str(protocol.version):
            return protocol
    known = ", ".join(p.id for p in versions)
    raise RecipeError(f"protocol: {wanted} has no version {version!r}. Known: {known}.")


def is_protocol(text: str) -> bool:
    """Whether the text is the name of a protocol, with or without a version."""
    return text.partition("@")[0] in {p.name for p in PROTOCOLS}


def protocol_names() -> list[str]:
    """Every name with its version."""
    return [p.id for p in PROTOCOLS]
