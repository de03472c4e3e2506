"""The protocol beside a number: its name, what was changed of it, and a short hash of all that the number depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssvid.data.manifest import Manifest
from ssvid.errors import name_some
from ssvid.protocols.named import named_protocol
from ssvid.recipe.check import build_defaults
from ssvid.recipe.load import LoadedRecipe
from ssvid.recipe.schema import KINDS
from ssvid.results.rows import ResultRow
from ssvid.settings import as_older, as_today, without_speed
from ssvid.types import FLOW

# Raised when the hash is taken of other values. Version 1 left out every "batch_size" and the whole trainer.
HASH_VERSION = 2
# What stands beside a number by itself: videos, with the split that is scored; weights; seeds.
_BESIDE = ("data", "seed", "seeds", "backbone")
_OF_DATA = ("name",)


def protocol_note(loaded: LoadedRecipe) -> dict[str, Any]:
    """What stands beside each number: the protocol's id, what was changed of it, and a short hash of the settings.

    Two numbers of one hash were measured in the same way; without a name it is the hash alone that tells.
    """
    return {
        "id": loaded.protocol,
        "changed": {path: [own, used] for path, (own, used) in loaded.changed.items()},
        "sha256": settings_sha256(loaded.resolved),
        "hash_version": HASH_VERSION,
    }


def settings_sha256(resolved: Mapping[str, Any]) -> str:
    """Of all settings of a resolved recipe that a number depends on; a field says in its metadata if none does.

    Settings that came after the recipe was written count with their defaults, so that older results compare with newer ones.
    """
    schema = KINDS[resolved["kind"]]
    whole = _filled(build_defaults(schema), as_today(resolved))
    kept = {k: v for k, v in without_speed(schema, whole).items() if k not in _BESIDE}
    if resolved["kind"] == "finetune":
        kept = as_older(kept)
    if not kept.get("streams"):  # as before there were any
        kept.pop("streams", None)
    of_data = {k: whole["data"][k] for k in _OF_DATA if k in whole["data"]}
    if whole["data"]["modality"] == FLOW:
        of_data |= {k: whole["data"][k] for k in ("modality", "flow")}
    return hashlib.sha256(json.dumps([kept, of_data], sort_keys=True).encode()).hexdigest()[:16]


def _filled(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **defaults,
        **{
            key: _filled(defaults[key], value)
            if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping)
            else value
            for key, value in values.items()
        },
    }


def brought_up(row: ResultRow, recipe: Mapping[str, Any]) -> ResultRow:
    """A row of an older file with the hash that its recipe has today; as it is where the file holds no recipe."""
    note = row.context.get("protocol")
    if not isinstance(note, Mapping) or note.get("hash_version") == HASH_VERSION or recipe.get("kind") not in KINDS:
        return row
    mended = {**note, "sha256": settings_sha256(recipe), "hash_version": HASH_VERSION}
    return replace(row, context={**row.context, "protocol": mended})


def tagged(
    rows: Iterable[ResultRow], fold: int, seed: int, used_seed: int, loaded: LoadedRecipe, manifest: Manifest
) -> list[ResultRow]:
    """The rows with the fold, the seed and the protocol they belong to, and what the data set lacks."""
    note = protocol_note(loaded)
    unnamed = f"protocol unnamed [{note['sha256']}]: cite a number under a named one (ssvid protocols) instead"
    told = [f"protocol {note['id']}{_changes(note['changed'])} [{note['sha256']}]" if note["id"] else unnamed]
    if manifest.missing:
        told.append(
            f"{len(manifest.missing)} videos of the official lists are missing (data.allow_missing): {name_some(manifest.missing)}"
        )
    more = {
        "fold": fold,
        "seed": seed,
        "evaluation_seed": used_seed,
        "protocol": note,
        "missing_videos": list(manifest.missing),
    }
    return [
        replace(row, context={**row.context, **more, "notes": [*row.context.get("notes", ()), *told]})
        for row in _of_protocol(rows, loaded)
    ]


def wanted_metrics(loaded: LoadedRecipe) -> tuple[str, ...]:
    """What the metrics of the protocol start with; () is all of them, without one."""
    return named_protocol(loaded.protocol).metrics if loaded.protocol else ()


def _of_protocol(rows: Iterable[ResultRow], loaded: LoadedRecipe) -> list[ResultRow]:
    rows, wanted = list(rows), wanted_metrics(loaded)
    return [row for row in rows if not wanted or row.metric.startswith(wanted)] or rows


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    if not changed:
        return ""
    return ", CHANGED: " + ", ".join(f"{path}={used!r} instead of {own!r}" for path, (own, used) in changed.items())
