"""The manifest: exact round trips, errors that name the line, splits that leak nothing."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ssvid.data.manifest import COLUMNS, Manifest, VideoRow, contained_path
from ssvid.data.summary import format_duration, summarize
from ssvid.errors import DataError, DiskFull


def row(path: str = "a.mp4", **changes: object) -> VideoRow:
    return replace(VideoRow(path, 30, 25.0, 48, 64, content_id=f"id of {path}", decoders_ok=("pyav",)), **changes)


def saved(folder: Path, *rows: VideoRow) -> Path:
    Manifest(folder, rows).save(folder / "manifest.csv")
    return folder / "manifest.csv"


def edited(folder: Path, column: str, value: str) -> Path:
    """A manifest of two rows whose second row has one cell replaced."""
    path = saved(folder, row("a.mp4"), row("b.mp4"))
    records = list(csv.reader(io.StringIO(path.read_text())))
    records[2][records[0].index(column)] = value
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(records)
    return path


AWKWARD_NAMES = [
    "with space.mp4",
    "with,comma.mp4",
    "with\nnewline.mp4",
    "with\rreturn.mp4",
    'with"quote".mp4',
    " leading.mp4",
    "ünïcødé 你好.mp4",
    "#hash.mp4",
    "a:b.mp4",
    os.fsdecode(b"latin\xe91.mp4"),
    "deep/er/x.mp4",
]


def test_round_trip_is_exact(tmp_path: Path) -> None:
    rows = (
        *(row(name) for name in AWKWARD_NAMES),
        row("f.mp4", fps=30000 / 1001, variable_fps=True, label="a, b", split="train", group="g1", source_id="s"),
        row("g.mp4", fps=0.1 + 0.2, decoders_ok=("torchcodec", "pyav"), start_frame=3, end_frame=9),
        VideoRow("bad.mp4", 0, 0.0, 0, 0, status="unreadable: no video stream, only sound\nat all"),
    )
    manifest = Manifest(tmp_path, rows)
    manifest.save(tmp_path / "manifest.csv")
    loaded = Manifest.load(tmp_path / "manifest.csv")
    assert loaded.rows == rows
    assert loaded.sha256() == manifest.sha256()
    assert loaded.root == tmp_path
    assert (
        Manifest.load(tmp_path / "manifest.csv", root="/elsewhere").path_of(rows[0])
        == Path("/elsewhere") / rows[0].path
    )


def test_an_independent_reader_finds_the_stated_columns_in_order(tmp_path: Path) -> None:
    with open(saved(tmp_path, row(decoders_ok=("decord", "pyav"), variable_fps=True)), newline="") as file:
        (record,) = csv.DictReader(file)
    assert (
        tuple(record)
        == COLUMNS
        == (
            "path",
            "num_frames",
            "fps",
            "height",
            "width",
            "variable_fps",
            "label",
            "split",
            "group",
            "status",
            "decoders_ok",
            "content_id",
            "source_id",
            "start_frame",
            "end_frame",
            "quick_id",
            "notes",
            "gray_range",
            "truth",
            "flow",
        )
    )
    assert (record["decoders_ok"], record["variable_fps"], record["fps"]) == ("decord+pyav", "true", "25.0")


def test_the_csv_holds_nothing_of_the_machine(tmp_path: Path) -> None:
    assert str(tmp_path) not in saved(tmp_path, row()).read_text()


def test_columns_may_come_in_another_order_with_bom_and_crlf(tmp_path: Path) -> None:
    path = saved(tmp_path, row("a.mp4"), row("b.mp4"))
    records = [record[::-1] for record in csv.reader(io.StringIO(path.read_text()))]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\r\n").writerows(records)
    assert Manifest.load(path).rows == (row("a.mp4"), row("b.mp4"))


def test_saving_replaces_the_file_whole_and_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, row("old.mp4"))
    before = path.read_text()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFull, match="No space"):
        Manifest(tmp_path, (row("new.mp4"),)).save(path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("num_frames", "many", r"num_frames \('many'\) must be a whole number"),
        ("num_frames", "0", "of a readable video must be positive"),
        ("num_frames", "-3", "must not be negative"),
        ("fps", "nan", r"fps \('nan'\) must be finite"),
        ("fps", "25,0", r"fps \('25,0'\) must be a number"),
        ("variable_fps", "yes", r"variable_fps \('yes'\) must be true or false"),
        ("status", "fine", r"status \('fine'\) must be \"ok\" or \"unreadable: why\""),
        ("end_frame", "0", r"end_frame \(0\) must be -1 or greater than start_frame \(0\)"),
        ("start_frame", "30", r"start_frame \(30\) must be below num_frames \(30\)"),
        ("path", "../b.mp4", r"path \('../b.mp4'\) must be relative and must not leave the root"),
        ("path", "/etc/b.mp4", r"path \('/etc/b.mp4'\) must be relative"),
        ("path", "", r"path \(''\) must name a file"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path: Path, column: str, value: str, rule: str) -> None:
    with pytest.raises(DataError, match=rf"manifest\.csv, line 3: .*{rule}.*ssvid data index"):
        Manifest.load(edited(tmp_path, column, value))


def test_the_line_number_counts_lines_of_the_file_not_records(tmp_path: Path) -> None:
    path = saved(tmp_path, row("two\nlines.mp4", content_id=""), row("b.mp4", fps=0.0))
    with pytest.raises(DataError, match="line 4: "):
        Manifest.load(path)


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, row())
    path.write_text(path.read_text().replace("num_frames", "frames"))
    with pytest.raises(DataError, match=r"line 1: .*unknown 'frames'; missing 'num_frames'.*data\.name=list"):
        Manifest.load(path)
    path.write_text(path.read_text().replace("frames,fps", "fps,fps"))
    with pytest.raises(DataError, match="missing 'num_frames'; twice 'fps'"):
        Manifest.load(path)


def test_files_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv\) must be a readable file: No such file.*ssvid data index"):
        Manifest.load(tmp_path / "none.csv")
    path = saved(tmp_path)
    with pytest.raises(DataError, match="must list at least one video"):
        Manifest.load(path)
    path.write_text(path.read_text() + "a.mp4,3\n")
    with pytest.raises(DataError, match="line 2: it must have 20 cells, it has 2"):
        Manifest.load(path)
    path.write_text(",".join(COLUMNS) + '\n"a.mp4,3')
    with pytest.raises(DataError, match="line 2: it must be CSV"):
        Manifest.load(path)
    path.write_bytes(b"\x00\xff\x1f\x8b binary")
    with pytest.raises(DataError, match="must have exactly the columns"):
        Manifest.load(path)


def test_outside_paths_need_permission(tmp_path: Path) -> None:
    path = edited(tmp_path, "path", "../b.mp4")
    assert Manifest.load(path, allow_outside=True).rows[1].path == "../b.mp4"
    assert contained_path("./a//b.mp4") == "a/b.mp4"
    assert contained_path("a..b/..c.mp4") == "a..b/..c.mp4"
    for text in ("a/../../b.mp4", "..", "/b.mp4"):
        with pytest.raises(ValueError, match="must not leave the root"):
            contained_path(text)


def test_the_hash_sees_the_data_and_not_the_machine() -> None:
    manifest = Manifest(Path("/one"), (row("a.mp4"), row("b.mp4")))
    same = [
        Manifest(Path("/two"), manifest.rows),
        manifest.with_rows((row("a.mp4", decoders_ok=()), row("b.mp4"))),
    ]
    other = [
        manifest.with_rows((row("b.mp4"), row("a.mp4"))),
        manifest.with_rows((row("a.mp4"),)),
        manifest.with_rows((row("a.mp4", label="x"), row("b.mp4"))),
        manifest.with_rows((row("a.mp4", end_frame=9), row("b.mp4"))),
        manifest.with_rows((row("a.mp4", content_id="y"), row("b.mp4"))),
        manifest.with_rows((row("a.mp4", status="unreadable: x"), row("b.mp4"))),
        # A label must not be able to pass for a split.
        manifest.with_rows((row("a.mp4", split="x"), row("b.mp4"))),
    ]
    assert {each.sha256() for each in same} == {manifest.sha256()}
    assert len({each.sha256() for each in other} | {manifest.sha256()}) == len(other) + 1
    reasons = ("unreadable: x", "unreadable: y")
    assert len({manifest.with_rows((row("a.mp4", status=status),)).sha256() for status in reasons}) == 1


def test_a_window_is_a_video_of_its_own() -> None:
    window = row("d/a.mp4", start_frame=10, end_frame=25)
    info = window.video_info("/data")
    assert (info.path, info.num_frames, info.fps, info.height, info.width) == ("/data/d/a.mp4", 15, 25.0, 48, 64)
    assert window.window_seconds == pytest.approx(0.6)
    assert row(start_frame=10).window_frames == 20
    assert row(end_frame=99).window_frames == 30


def test_select_and_labels() -> None:
    manifest = Manifest(
        Path("/r"),
        (
            row("a", label="run", split="train"),
            row("b", label="", split="test"),
            row("c", label="jump", split="train", status="unreadable: x"),
        ),
    )
    assert manifest.labels() == ("jump", "run")
    assert [each.path for each in manifest.select("train").rows] == ["a"]
    assert [each.path for each in manifest.select("train", readable=False).rows] == ["a", "c"]
    assert [each.path for each in manifest.select().rows] == ["a", "b"]
    with pytest.raises(DataError, match=r"split \('tran'\) must be one of .*Did you mean 'train'\? Known: test, train"):
        manifest.select("tran")


def test_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    manifest = Manifest(tmp_path, (row("a.mp4"), row("b.mp4"), row("c.mp4"), row("d.mp4", status="unreadable: gone")))
    with pytest.raises(DataError, match=r"2 of 4 are missing, the first is 'b\.mp4'.*Set data\.root"):
        manifest.check_files()
    manifest.with_rows(manifest.rows[:1]).check_files()


# ---- splits


def many(count: int, **changes: object) -> Manifest:
    return Manifest(Path("/r"), tuple(row(f"{index}.mp4", **changes) for index in range(count)))


def test_split_is_a_partition_of_about_the_asked_size() -> None:
    manifest = many(2000)
    train, val = manifest.train_val_split(0.1, seed=0)
    assert sorted(train.rows + val.rows, key=lambda each: each.path) == sorted(
        manifest.rows, key=lambda each: each.path
    )
    assert 200 - 5 * 13.4 < len(val) < 200 + 5 * 13.4  # binomial standard deviation: sqrt(2000 * 0.1 * 0.9)
    assert manifest.train_val_split(0.1, seed=0) == (train, val)
    assert manifest.train_val_split(0.1, seed=1)[1] != val
    assert manifest.train_val_split(0.0, seed=0) == (manifest, manifest.with_rows(()))


def test_adding_files_moves_no_file() -> None:
    small, large = many(300), many(600)
    before = set(small.train_val_split(0.2, seed=3)[1].rows)
    after = set(large.train_val_split(0.2, seed=3)[1].rows)
    assert before == after & set(small.rows)


@pytest.mark.parametrize("seed", range(20))
def test_neither_side_is_empty(seed: int) -> None:
    for fraction in (1e-9, 0.999999):
        train, val = many(2).train_val_split(fraction, seed)
        assert (len(train), len(val)) == (1, 1)
    assert [len(side) for side in many(1).train_val_split(0.5, seed)] == [1, 0]


def test_groups_and_duplicates_never_straddle() -> None:
    grouped = [row(f"{index}.mp4", group=f"g{index % 10}") for index in range(60)]
    copies = [row(f"copy {index}.mp4", content_id=f"c{index % 15}") for index in range(60)]
    prepared = [row(f"small {index}.mp4", source_id=f"c{index}") for index in range(15)]
    # A chain: two groups that share a file, and an ungrouped copy of it, must stay together.
    chain = [row("p", group="p", content_id="x"), row("q", group="q", content_id="x"), row("r", content_id="x")]
    manifest = Manifest(Path("/r"), tuple(grouped + copies + prepared + chain))
    for seed in range(10):
        train, val = manifest.train_val_split(0.3, seed)
        assert val.rows
        for key in (lambda each: each.group, lambda each: each.source_id or each.content_id):
            shared = {key(each) for each in train.rows} & {key(each) for each in val.rows}
            assert shared <= {""}
        assert sum(each.path in "pqr" for each in val.rows) in (0, 3)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(DataError, match=r"val_fraction \(.*\) must be at least 0 and below 1.*data\.val_fraction"):
        many(3).train_val_split(fraction, 0)


# ---- summary


def test_summary_says_how_many_how_long_and_what_is_wrong() -> None:
    rows = [row(f"{index}.mp4", width=320, height=240, num_frames=250, split="train") for index in range(75)]
    rows[1] = replace(rows[1], fps=50.0, width=160, decoders_ok=("torchcodec", "pyav"))
    rows += [replace(rows[2], path="again.mp4"), row("bad.mp4", status="unreadable: moov atom not found")]
    assert summarize(Manifest(Path("/r"), tuple(rows))) == (
        "77 videos, 12 min 35 s, 25-50 fps, 320x240 (75), 160x240 (1), split train: 76, 1 exact duplicate\n"
        "1 unreadable:\n"
        "  bad.mp4: moov atom not found\n"
        "decoders: pyav right for all, torchcodec right for 1"
    )


def test_summary_warns_of_content_in_more_than_one_split() -> None:
    rows = [row("a", split="train"), row("b", split="test"), row("c", split="test", content_id="id of a"), row("d")]
    told = summarize(Manifest(Path("/r"), tuple(rows))).splitlines()[1]
    assert told == "warning: 2 videos have the same content in more than one split, the first is a"
    assert "warning" not in summarize(Manifest(Path("/r"), (rows[0], rows[1], rows[3])))


def test_summary_of_many_unreadable_is_cut() -> None:
    rows = tuple(row(f"{index}.mp4", status="unreadable: x") for index in range(5))
    assert summarize(Manifest(Path("/r"), rows), max_listed=2).splitlines()[-1] == "  and 3 more"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (3.21, "3.21 s"), (750, "12 min 30 s"), (7500, "2 h 5 min"), (59.99, "60 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_table_needs_no_torch() -> None:
    code = "import sys, ssvid.data.manifest, ssvid.data.readers.shelf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
