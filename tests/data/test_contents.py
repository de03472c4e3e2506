"""Which videos are the same, known by their whole content or, in what is old, by their quick ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ssvid.data.contents import Contents, units_of
from ssvid.data.manifest import COLUMNS, Manifest, VideoRow
from ssvid.data.summary import summarize


def whole(number: int) -> str:
    return f"{number:064x}"


def quick(number: int) -> str:
    return f"{number:032x}"


def row(number: int, quick_number: int | None = None, **changes: str) -> VideoRow:
    """A video of today: known by both."""
    known = quick(number if quick_number is None else quick_number)
    return replace(VideoRow(f"{number}.mp4", 30, 25.0, 48, 64, content_id=whole(number), quick_id=known), **changes)


def old(number: int, **changes: str) -> VideoRow:
    """The same video in a table of before."""
    return replace(row(number), content_id=quick(number), **changes)


@pytest.mark.parametrize(
    ("known", "video", "is_in", "can_tell"),
    [
        ([whole(1)], row(1), True, True),
        ([whole(1)], row(2), False, True),
        ([whole(1)], row(2, quick_number=1), False, True),  # alike from outside, told apart
        ([quick(1)], row(1), True, True),
        ([quick(1)], row(2, quick_number=1), True, True),  # old weights cannot tell them apart: better a leak
        ([quick(1)], row(2), False, True),
        ([quick(1)], old(1), True, True),
        ([quick(1)], old(2), False, True),
        ([whole(1)], old(1), False, False),  # an old table and weights of today: nothing to compare
        ([whole(1), quick(2)], row(2), True, True),
        ([whole(1), quick(2)], old(3), False, False),
        ([], old(1), False, True),
        ([whole(1)], row(1, content_id="", quick_id=""), False, False),  # a table made by hand
        ([whole(1)], row(5, source_id=whole(1)), True, True),
    ],
)
def test_what_weights_saw(known: list[str], video: VideoRow, is_in: bool, can_tell: bool) -> None:
    seen = Contents.of_ids(known)
    assert (seen.holds(video), seen.can_tell(video)) == (is_in, can_tell)


@pytest.mark.parametrize("make", [row, old])
@pytest.mark.parametrize("other", [row, old])
def test_two_tables_are_compared_however_old_they_are(make, other) -> None:
    seen = Contents.of_rows([make(1), make(2)])
    assert [seen.holds(other(number)) for number in (1, 2, 3)] == [True, True, False]
    assert all(seen.can_tell(other(number)) for number in (1, 2, 3))


def test_an_old_table_is_read_as_it_was_and_said_to_be_quick(tmp_path: Path) -> None:
    rows = tuple(old(number) for number in range(4))
    Manifest(tmp_path, rows).save(tmp_path / "new.csv")
    kept = [",".join(line.split(",")[:-5]) for line in (tmp_path / "new.csv").read_text().splitlines()]
    later = ("quick_id", "notes", "gray_range", "truth", "flow")
    assert kept[0].split(",") == [name for name in COLUMNS if name not in later]
    (tmp_path / "old.csv").write_text("\n".join(kept) + "\n")
    loaded = Manifest.load(tmp_path / "old.csv")
    assert loaded.rows == rows
    # As ssvid wrote it into checkpoints before there were these columns.
    assert loaded.sha256() == "c41a654f6608d00844321e37dea10333907923bdf448114221961cedba4b8ba6"
    assert "tells 4 videos apart by size, first and last 64 KiB alone" in summarize(loaded)
    assert "64 KiB" not in summarize(Manifest(tmp_path, (row(1),)))


def test_a_folder_that_is_indexed_anew_holds_out_the_same_videos() -> None:
    for seed in range(5):
        sides = [
            {
                each.path
                for each in Manifest(Path("/r"), tuple(make(n) for n in range(50))).train_val_split(0.2, seed)[1].rows
            }
            for make in (row, old)
        ]
        assert sides[0] == sides[1] != set()


def test_rows_that_belong_together() -> None:
    """By group or by content, through chains; videos that are alike from outside are not one, unless nothing else is known."""
    alike = [row(1, quick_number=9), row(2, quick_number=9), row(1, quick_number=9, path="copy.mp4")]
    units = units_of([*alike, row(3, group="g"), row(4, group="g"), row(3, path="copy of 3.mp4")])
    assert units[0] == units[2] != units[1]
    assert units[3] == units[4] == units[5] == "1 group g"
    mixed = units_of([old(1), row(2, quick_number=1), row(3)])
    assert mixed[0] == mixed[1] != mixed[2]
