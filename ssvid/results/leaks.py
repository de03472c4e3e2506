"""What the weights had seen of the videos that they are measured on, and whether that is as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssvid.data.contents import NOT_COMPARABLE_WORDS, QUICK_WORDS, Contents
from ssvid.data.manifest import VideoRow
from ssvid.video.identity import is_quick

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
        num_test; cannot_tell: test videos of which the table and the weights know nothing comparable; by_quick_id: whether
        videos are compared by size and ends alone, as old tables, checkpoints and exports are; pretrained_on_test, pretrained_on_siblings, pretrained_on_train: numbers of videos, None where unknown;
        same_content_in_train_and_test; verdict: "clean", "siblings", "leak" or "unknown".
    """
    test = [contents_of(row) for row in test_rows]
    train = [contents_of(row) for row in train_rows]
    note: dict[str, Any] = {
        "num_test": len(test),
        "cannot_tell": None,
        "by_quick_id": any(is_quick(row.content_id) for row in test_rows),
        "pretrained_on_test": None,
        "pretrained_on_siblings": None,
        "pretrained_on_train": None,
        "same_content_in_train_and_test": _overlap(test, set().union(*train)),
        "verdict": UNKNOWN,
    }
    if provenance.get("content_ids") is None:
        return note
    seen = Contents.of_ids(provenance["content_ids"])
    groups = {row.group for row in all_rows if row.group and seen.holds(row)}
    note["cannot_tell"] = sum(not seen.can_tell(row) for row in test_rows)
    note["by_quick_id"] |= seen.has_quick
    note["pretrained_on_test"] = sum(map(seen.holds, test_rows))
    note["pretrained_on_siblings"] = sum(row.group in groups and not seen.holds(row) for row in test_rows)
    note["pretrained_on_train"] = sum(map(seen.holds, train_rows))
    note["verdict"] = _verdict(note)
    return note


def _verdict(note: Mapping[str, Any]) -> str:
    if note["pretrained_on_test"]:
        return LEAK
    return SIBLINGS if note["pretrained_on_siblings"] else UNKNOWN if note["cannot_tell"] else CLEAN


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
    if count := note.get("cannot_tell"):
        said.append(f"whether {count} of {total} test videos were pretrained on cannot be told: {NOT_COMPARABLE_WORDS}")
    if note.get("by_quick_id"):
        said.append(f"videos are {QUICK_WORDS}")
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
