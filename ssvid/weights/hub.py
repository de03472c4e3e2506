"""Fetch an export from the Hugging Face Hub, through its own client and its cache (extra ``hub``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.errors import CheckpointError

HUB = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# What an export is made of: nothing else is sent or fetched.
EXPORT_FILES = ("README.md", "backbone.pt2", "backbone.safetensors", "config.json", "content_ids.json")


class HubAddress(NamedTuple):
    """``hf://owner/name[@revision]``. revision: branch, tag or commit; None is the default branch."""

    repo_id: str
    revision: str | None


def parse_address(address: str) -> HubAddress:
    """The parts of ``hf://owner/name[@revision]``, or a CheckpointError that says how it is written."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise CheckpointError(f"{address!r} must read hf://owner/name or hf://owner/name@revision.")
    return HubAddress(found["repo"], found["revision"])


def fetch_export(address: str) -> tuple[Path, str]:
    """Folder of the export in the client's cache, and its address with the commit that it is of.

    What is cached is used when there is no network.

    Raises:
        CheckpointError: the extra is missing, there is no such repository, or neither network nor cache.
    """
    repo_id, revision = parse_address(address)
    client = hub_client()
    try:
        folder = Path(client.snapshot_download(repo_id, revision=revision, allow_patterns=list(EXPORT_FILES)))
    except (client.errors.HfHubHTTPError, client.errors.LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(hub_refusal(f"{address} cannot be fetched", error)) from error
    return folder, f"{HUB}{repo_id}@{folder.name}"


def hub_client() -> Any:
    """The package huggingface_hub, or a CheckpointError that says how to install it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(
            "the package huggingface_hub is not installed. Install it with: pip install 'ssvid[hub]'"
        ) from error
    return huggingface_hub


def hub_refusal(what: str, error: Exception) -> str:
    """The Hub's own words, and what the user can do."""
    reason = " ".join(str(error).split())[:300]
    return (
        f"{what} ({type(error).__name__}: {reason}). Check the name and the network; for a private or gated repository "
        "log in with: hf auth login"
    )
