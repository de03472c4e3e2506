"""The programs behind the verbs, each in a file of its own, loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AuditResult": "auditing",
    "DemoResult": "demonstration",
    "DiffResult": "comparing",
    "EmbedResult": "embedding",
    "FinetuneOutcome": "finetuning",
    "PretrainResult": "pretraining",
    "ProbeOutcome": "probing",
    "ReportResult": "reporting",
    "RetrieveOutcome": "retrieving",
    "ShowResult": "showing",
    "audit": "auditing",
    "demo": "demonstration",
    "diff": "comparing",
    "embed": "embedding",
    "finetune": "finetuning",
    "pretrain": "pretraining",
    "probe": "probing",
    "report": "reporting",
    "retrieve": "retrieving",
    "show": "showing",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssvid.recipe.programs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssvid.recipe.{_HOME[name]}"), name)
