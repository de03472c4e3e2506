"""What the weights had seen of the videos that they are measured on, and whether that is as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssvid.data.manifest import VideoRow

CLEAN = "clean"
LEAK = "leak"
SIBLINGS = "siblings"
UNKNOWN = "unknown"


def leak_note(
    test_rows: Sequence[VideoRow],
    train_rows: Sequence[VideoRow],
    provenance: Mapping[str, Any],
    all_rows: Iterable[VideoRow] = (),
) -> dict[str, Any]:
    """Which overlaps there are between what the weights were pretrained on and the videos of an evaluation.

    Videos are told by their content, and by the content that a prepared copy was made from. A test video has a sibling in
    pretraining where another video of its group is there (UCF101 cuts a group's clips from one recording).

    Args:
        provenance: of the weights; its ``content_ids`` are the videos that they have seen, None or absent is unknown.
        all_rows: of the manifest, of any split: they say which contents belong to which group.

    Returns:
        num_test; pretrained_on_test, pretrained_on_siblings, pretrained_on_train: numbers of videos, None where unknown;
        same_content_in_train_and_test; verdict: "clean", "siblings", "leak" or "unknown".
    """
    test = [contents_of(row) for row in test_rows]
    train = [contents_of(row) for row in train_rows]
    note: dict[str, Any] = {
        "num_test": len(test),
        "pretrained_on_test": None,
        "pretrained_on_siblings": None,
        "pretrained_on_train": None,
        "same_content_in_train_and_test": _overlap(test, set().union(*train)),
        "verdict": UNKNOWN,
    }
    if provenance.get("content_ids") is None:
        return note
    seen = set(provenance["content_ids"])
    groups = {row.group for row in all_rows if row.group and contents_of(row) & seen}
    note["pretrained_on_test"] = _overlap(test, seen)
    note["pretrained_on_siblings"] = sum(
        row.group in groups and not contents & seen for row, contents in zip(test_rows, test, strict=True)
    )
    note["pretrained_on_train"] = _overlap(train, seen)
    note["verdict"] = LEAK if note["pretrained_on_test"] else SIBLINGS if note["pretrained_on_siblings"] else CLEAN
    return note


def leak_words(note: Mapping[str, Any]) -> list[str]:
    """What a reader of a number must know of the note, in words; nothing where all is as it should be."""
    said = []
    total = note["num_test"]
    if count := note["pretrained_on_test"]:
        said.append(
            f"LEAK: {count} of {total} test videos were in the pretraining data (without their labels). Pretrain on the "
            "train split of this fold alone, or do not compare this number with others"
        )
    if count := note["pretrained_on_siblings"]:
        said.append(
            f"LEAK: {count} of {total} test videos have a sibling of their group in the pretraining data, a clip of the same "
            "recording"
        )
    if count := note["same_content_in_train_and_test"]:
        said.append(f"test videos with the content of a training video: {count}")
    if (count := note["pretrained_on_train"]) and note["verdict"] == CLEAN:
        said.append(
            f"pretrained on {count} of the training videos without their labels, and on no test video: legitimate"
        )
    return said


def contents_of(row: VideoRow) -> set[str]:
    """The identities of a video's content: its own, and that of the file it was prepared from."""
    return {identity for identity in (row.content_id, row.source_id) if identity}


def _overlap(rows: Iterable[set[str]], contents: set[str]) -> int:
    return sum(bool(identities & contents) for identities in rows)
