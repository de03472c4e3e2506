"""Anchors that were trained before: the random row of one protocol is the same beside whatever it stands.

$SSVID_CACHE/finetuned/ab/ab12....json       the rows, as ``results.json`` holds them
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import row_id
from ssvid.errors import DataError
from ssvid.evals.contract import LabeledData, Subject, Tools
from ssvid.machine import versions
from ssvid.results.rows import ResultRow, read_results, write_results
from ssvid.weights.checkpoints import weights_sha256


def trained_key(subject: Subject, data: LabeledData, protocol: FinetuneProtocol, tools: Tools) -> str:
    """SHA-256 of all that the rows of a training depend on: its name, the weights and what is known of them, videos and
    splits, settings, seed, trainer, loader and versions.
    """
    parts = [
        subject.name,
        subject.network.info.name,
        dict(subject.network.info.options),
        weights_sha256(subject.network.state_dict()),
        {key: str(value) for key, value in subject.origin.items()},
        subject.protocol.frames,
        data.manifest.sha256(),
        [[row_id(row) for row in rows] for rows in (data.train, data.test)],
        protocol.as_dict(),
        tools.seed,
        asdict(tools.trainer),
        asdict(tools.loader),
        versions(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file(key: str) -> Path:
    return cache_folder() / "finetuned" / key[:2] / f"{key}.json"


def read_trained(key: str) -> list[ResultRow] | None:
    """The rows that were written under a key, or None. Warns about a damaged file, which is written anew after the training."""
    if not _file(key).is_file():
        return None
    try:
        return read_results(_file(key))
    except DataError as error:
        warnings.warn(f"what was trained before is not used: {error}", stacklevel=2)
        return None


def write_trained(key: str, rows: Sequence[ResultRow]) -> None:
    """Remember the rows of a training."""
    _file(key).parent.mkdir(parents=True, exist_ok=True)
    write_results(_file(key), rows)
