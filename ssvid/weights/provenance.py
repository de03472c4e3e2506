"""Where weights come from: one thing from the training to the row of a result, and its three shapes in files.

A checkpoint holds all of it (``to_checkpoint``), an export all but the list of videos and the paths (``to_export``), a row
of results what tells weights apart (``to_row``). A field that a file lacks, as those of older versions do, is not known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

FORMAT = 1
# What a network says of itself as a mapping: always, where it is known, and where its weights were read from a file.
_ALWAYS = ("stage", "content_ids", "placebo", "partial")
_READ = (
    "placebo_answers",
    "seed",
    "init",
    "task",
    "epoch",
    "global_step",
    "manifest_sha256",
    "weights",
    "weights_sha256",
)
_KNOWN = ("random", "supervised", "start", "exported")
# What stands under its own name in a checkpoint and in an export.
_TOLD = (
    *("task", "recipe", "data", "seed", "placebo", "placebo_answers", "partial", "epoch", "global_step"),
    *("pretext_metrics", "out_of_domain_metrics", "chance", "versions", "init"),
)


@dataclasses.dataclass(frozen=True)
class Provenance(Mapping[str, Any]):
    """Where weights come from, plain types alone. As a mapping it has what is known of it, for readers of a single key.

    stage: the deepest that was trained; None is the last. content_ids: of all videos that the weights have seen, in their
    initialization too; None is unknown. placebo: trained on answers of other videos; placebo_answers: in which way.
    partial: a part of the network kept the values of its seed. init: what training started from (``InitReport.as_dict``);
    None is the seed. start: the same of fine-tuning. random: seed and form of a network before training. supervised: the
    name of weights that were trained on labels. exported: the task's submodule that they are of (a teacher); None is the
    network that was trained. weights: how the keys of a file met those of the network.
    backbone: name and options. task: name and options; None for one that learned labels. recipe: resolved. data: hash of
    the manifest, number of videos. pretext_metrics, out_of_domain_metrics, chance, versions: when a checkpoint was written.
    """

    stage: str | None = None
    content_ids: Sequence[str] | None = None
    placebo: bool = False
    partial: bool = False
    placebo_answers: str | None = None
    seed: int | None = None
    init: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None
    random: Mapping[str, Any] | None = None
    supervised: str | None = None
    exported: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    task: Mapping[str, Any] | None = None
    epoch: int | None = None
    global_step: int | None = None
    backbone: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretext_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    out_of_domain_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Provenance:
        """What a caller knows of weights, by the names of the fields."""
        return known if isinstance(known, Provenance) else cls(**known)

    @classmethod
    def of_training(
        cls, start: Mapping[str, Any] | None, *, seen: Iterable[str], before: Iterable[str], **known: Any
    ) -> Provenance:
        """Of weights that are being trained.

        start: what they started from, None is the seed. seen, before: content ids of the videos that they are trained on,
        and of those that their initialization saw. known: further fields.
        """
        answers = "of other videos" if known["placebo"] else None  # not said by versions that kept some true ones
        ids, partial = sorted({*seen, *before}), bool(start and start["partial"])
        return cls(content_ids=ids, partial=partial, placebo_answers=answers, init=start, **known)

    @classmethod
    def from_dict(cls, meta: Mapping[str, Any]) -> Provenance:
        """From what ``to_checkpoint`` or ``to_export`` gave, here or in an older version."""
        data = dict(meta.get("data") or {})
        ids = data.pop("content_ids", None)
        told = {key: meta[key] for key in (*_TOLD, "exported", "backbone", "stage") if meta.get(key) is not None}
        return cls(**{**told, "data": data, "content_ids": ids})

    def to_checkpoint(self) -> dict[str, Any]:
        """The plain dict under the key ``ssvid`` of a checkpoint."""
        told = self._told()
        told["data"] = {**told["data"], "content_ids": list(self.content_ids or ())}
        where = {"backbone": dict(self.backbone), "stage": self.stage}
        return {"format": FORMAT, "kind": "checkpoint", **where, **told}

    def to_export(self) -> dict[str, Any]:
        """What ``config.json`` of an export holds as ``provenance``; paths are the business of who writes it."""
        return self._told()

    def to_row(self) -> dict[str, Any]:
        """What a result says; the list of training videos stays with the weights."""
        said = {key: value for key, value in self.items() if key not in ("content_ids", "start")}
        return said if self.content_ids is None else said | {"num_pretraining_videos": len(self.content_ids)}

    def to_origin(self) -> dict[str, Any]:
        """What weights that start from these say of them."""
        keys = ("task", "placebo", "partial", "global_step", "init")
        return {key: getattr(self, key) for key in keys}

    def _told(self) -> dict[str, Any]:
        keys = (*_TOLD, "exported") if self.exported else _TOLD
        values = {key: getattr(self, key) for key in keys}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}

    # ---- as a mapping

    @property
    def manifest_sha256(self) -> str | None:
        """Of the videos that were trained on."""
        return self.data.get("manifest_sha256")

    def __getitem__(self, key: str) -> Any:
        if key not in set(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        yield from _ALWAYS
        for key in (*_READ, *_KNOWN):
            if getattr(self, key) is not None or (self.weights is not None and key in _READ):
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)
