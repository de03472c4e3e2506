"""The readers: every layout they accept, and the message for each that they do not."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssvid.data.index.building import build_manifest
from ssvid.data.readers import Entry, list_videos
from ssvid.data.readers.matching import VIDEO_EXTENSIONS
from ssvid.errors import DataError
from ssvid.video import open_video, read_clips
from ssvid.video.writer import write_video

REAL = os.environ.get("SSVID_REAL_DATA", "")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def listed(tmp_path: Path, text: str | bytes, **options: bool) -> list[Entry]:
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list_videos("list", tmp_path, path, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path, "a.mp4", "b c.mp4", "d,e.mp4", "sub/f.avi")


# ---- folder


def test_folder_takes_every_video_at_any_depth_sorted(tmp_path: Path) -> None:
    names = ["z.MP4", "b/a.avi", "b/c d/ü\n.webm", "b.mov", "a/x.mkv"]
    touch(tmp_path, *names, "notes.txt", ".hidden.mp4", ".cache/x.mp4", "b/._z.avi")
    entries = list_videos("folder", tmp_path)
    assert [entry.path for entry in entries] == sorted(names)
    assert entries[0] == Entry("a/x.mkv", label="", split="", group="", start_seconds=0.0, end_seconds=None)


def test_every_extension_is_found_in_either_case(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a{extension}" for extension in VIDEO_EXTENSIONS))
    touch(tmp_path, *(f"b{extension.upper()}" for extension in VIDEO_EXTENSIONS))
    assert len(list_videos("folder", tmp_path)) == 2 * len(VIDEO_EXTENSIONS) == 2 * 47


def test_links_are_followed_once_and_dangling_ones_kept(tmp_path: Path) -> None:
    data = touch(tmp_path / "elsewhere", "x.mp4", "deep/y.mp4")
    root = touch(tmp_path / "root", "a.mp4")
    (root / "link.mp4").symlink_to(data / "x.mp4")
    (root / "gone.mp4").symlink_to(data / "none.mp4")
    (root / "folder").symlink_to(data / "deep")
    (root / "loop").symlink_to(root)
    assert [entry.path for entry in list_videos("folder", root)] == ["a.mp4", "folder/y.mp4", "gone.mp4", "link.mp4"]


def test_what_is_no_file_is_no_video(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "folder.mp4/b.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert [entry.path for entry in list_videos("folder", tmp_path)] == ["a.mp4", "folder.mp4/b.mp4"]


def test_a_folder_without_videos_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold at least one video \(.*\.mp4.*\).*Found instead: no file at all"):
        list_videos("folder", tmp_path)
    touch(tmp_path, "1.jpg", "2.jpg", "x/3.jpg", "x/README", "x/.mp4")
    message = r"root \(.*\).*Found instead: 3 \.jpg, 1 without ending\. Set data\.root .* the folder above it"
    with pytest.raises(DataError, match=message):
        list_videos("folder", tmp_path)
    with pytest.raises(DataError, match="unpack the archive"):
        list_videos("class_folder", touch(tmp_path / "y", "videos.zip"))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"root \(.*none\) must be a folder: it does not exist\. Set data\.root"):
        list_videos("folder", tmp_path / "none")
    with pytest.raises(DataError, match="must be a folder: it is a file"):
        list_videos("folder", touch(tmp_path, "a.mp4") / "a.mp4")
    with pytest.raises(
        DataError,
        match=r"data\.name \('foldr'\).*Did you mean 'folder'\? Known: class_folder, davis, davis2016, .*list",
    ):
        list_videos("foldr", tmp_path)
    with pytest.raises(DataError, match=r"list must name a file for data\.name=list\. Set data\.list"):
        list_videos("list", tmp_path)
    with pytest.raises(DataError, match=r"list \(x\.txt\) must be empty for data\.name=folder\. Set data\.name=list"):
        list_videos("folder", tmp_path, "x.txt")


def test_a_locked_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    (tmp_path / "locked").chmod(0)
    if os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("this user (root?) may read every folder")
    with pytest.raises(DataError, match=r"folder \(.*locked\) must be readable: Permission denied"):
        list_videos("folder", tmp_path)


# ---- class folders


def test_class_folders_give_labels(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.avi", "jump high/a.avi", "train/c.avi")
    assert list_videos("class_folder", tmp_path) == [
        Entry("jump high/a.avi", "jump high"),
        Entry("run/b.avi", "run"),
        Entry("train/c.avi", "train"),
    ]


def test_split_folders_give_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/b.avi", "test/run/a.avi", "validation/jump/c.avi", "truth/x.npz")
    assert list_videos("class_folder", tmp_path) == [
        Entry("test/run/a.avi", "run", "test"),
        Entry("train/run/b.avi", "run", "train"),
        Entry("validation/jump/c.avi", "jump", "val"),
    ]


@pytest.mark.parametrize(
    ("names", "culprit", "wanted"),
    [
        (["run/a.avi", "b.avi"], r"'b\.avi'", "<class>/<file>"),
        (["run/a.avi", "run/deep/b.avi"], r"'run/deep/b\.avi'", "<class>/<file>"),
        (["train/a.avi", "test/b.avi"], r"'test/b\.avi'", "<split>/<class>/<file>"),
        (["train/run/a.avi", "walk/b.avi"], r"'train/run/a\.avi'", "<class>/<file>"),
    ],
)
def test_a_mixed_layout_is_refused(tmp_path: Path, names: list[str], culprit: str, wanted: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(
        DataError, match=rf"path \({culprit}\) must lie in a class folder: .*{wanted}.*data\.name=folder"
    ):
        list_videos("class_folder", tmp_path)


# ---- lists


@pytest.mark.parametrize("separator", [" ", "   ", "\t", ",", ", "])
def test_list_with_labels_and_seconds(root: Path, separator: str) -> None:
    lines = [["a.mp4", "run"], ["sub/f.avi", "jump", "1.5"], ["a.mp4", "run", "0", "2"]]
    text = "# a comment\n\n" + "\n".join(separator.join(cells) for cells in lines) + "\n"
    assert listed(root, text) == [
        Entry("a.mp4", "run"),
        Entry("sub/f.avi", "jump", start_seconds=1.5),
        Entry("a.mp4", "run", start_seconds=0.0, end_seconds=2.0),
    ]


@pytest.mark.parametrize("text", ["b c.mp4\trun\na.mp4\trun\n", "b c.mp4,run\na.mp4,run"])
def test_paths_with_spaces_need_tab_or_comma(root: Path, text: str) -> None:
    assert listed(root, text) == [Entry("b c.mp4", "run"), Entry("a.mp4", "run")]


def test_bare_paths_bom_crlf_and_awkward_names(root: Path) -> None:
    assert listed(root, b"\xef\xbb\xbf\r\nb c.mp4\r\n  # no\r\nd,e.mp4\r\na.mp4\r\n./sub//f.avi") == [
        Entry("b c.mp4"),
        Entry("d,e.mp4"),
        Entry("a.mp4"),
        Entry("sub/f.avi"),
    ]
    assert listed(root, '"d,e.mp4",run\n"b c.mp4","say ""hi"""\n') == [
        Entry("d,e.mp4", "run"),
        Entry("b c.mp4", 'say "hi"'),
    ]
    assert listed(root, "d,e.mp4 1\na.mp4 2\n") == [Entry("d,e.mp4", "1"), Entry("a.mp4", "2")]
    assert listed(root, "a.mp4,\nsub/f.avi,run\n") == [Entry("a.mp4", ""), Entry("sub/f.avi", "run")]
    assert listed(root, "a.mp4\t\t1\t2\n") == [Entry("a.mp4", "", start_seconds=1.0, end_seconds=2.0)]


def test_names_that_are_no_utf8_come_back_as_the_system_knows_them(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    touch(tmp_path, name)
    assert [entry.path for entry in listed(tmp_path, b"caf\xe9.mp4 x\n")] == [name]
    assert [entry.path for entry in list_videos("folder", tmp_path)] == [name]


def test_absolute_paths_inside_the_root_become_relative(root: Path) -> None:
    assert listed(root, f"{root}/a.mp4 run\n") == [Entry("a.mp4", "run")]


def test_outside_paths_need_permission(root: Path) -> None:
    touch(root.parent, "outside.mp4")
    message = r"list\.txt, line 2 .*path \('\.\./outside\.mp4'\) must be relative and must not leave the root"
    with pytest.raises(DataError, match=message):
        listed(root, "a.mp4 x\n../outside.mp4 x\n")
    assert listed(root, "../outside.mp4 x\n", allow_outside=True) == [Entry("../outside.mp4", "x")]


@pytest.mark.parametrize(
    ("line", "rule", "way_out"),
    [
        ("none.mp4 run", r"path \('none\.mp4'\) must name a file below the root", "Fix the path or data.root"),
        ("sub run", r"path \('sub'\) must name a file", "data.root"),
        ("/etc/passwd run", r"path \('/etc/passwd'\) must be relative", "relative to data.root"),
        ("a.mp4 run 2 1", r"end \(1 s\) must be greater than start \(2 s\)", "Fix them"),
        ("a.mp4 run 1 1", r"end \(1 s\) must be greater than start \(1 s\)", "Fix them"),
        ("a.mp4 run 0:10", r"start \('0:10'\) must be seconds", "needs tab or comma"),
        ("a.mp4 play guitar", r"start \('guitar'\) must be seconds", "a path or label with spaces needs tab or comma"),
        ("a.mp4 run 1 nan", r"end \('nan'\) must be seconds", "Fix it"),
        ("a.mp4 run -1", r"start \('-1'\) must be seconds, 0 or more", "Fix it"),
        ("a.mp4 run 1 2 3", "it must have at most 4 columns .*, it has 5", "Remove the others"),
        ("a.mp4", "it must have a label as the first line, it has 1 column\\.", "Add the label"),
        ("sub/f.avi run", "a video or window must be listed once, it stands in line 2 already", "Remove one"),
    ],
)
def test_the_first_bad_line_is_named(root: Path, line: str, rule: str, way_out: str) -> None:
    text = f"# header\nsub/f.avi run\nsub/f.avi run 0 5\n\n{line}\nalso.bad\n"
    with pytest.raises(DataError) as caught:
        listed(root, text)
    where = f"{root}/list.txt, line 5 ({line!r}): "
    assert str(caught.value).startswith(where)
    assert re.match(f"{rule}.*{way_out}", str(caught.value).removeprefix(where))


def test_files_that_are_no_list_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"list \(.*none\.txt\) must be a readable file: No such file"):
        list_videos("list", root, root / "none.txt")
    with pytest.raises(DataError, match="must hold at least one path"):
        listed(root, "# nothing\n\n")
    with pytest.raises(DataError, match="must be a text file, it holds binary data"):
        listed(root, b"\x00\x00\x00\x18ftypmp42")
    with pytest.raises(DataError, match=r"line 1 .*it must be CSV .*double quotes"):
        listed(root, '"a.mp4"x,run\n"b c.mp4",run')


# ---- lists with a header


def test_a_header_names_the_columns_in_any_order(root: Path) -> None:
    text = "Subject,Class,file,subset,end,start\ng1,run,a.mp4,train,3.5,\n,,b c.mp4,test,,2\n"
    assert listed(root, text) == [
        Entry("a.mp4", "run", "train", "g1", 0.0, 3.5),
        Entry("b c.mp4", "", "test", "", 2.0, None),
    ]
    assert listed(root, "path\na.mp4\n") == [Entry("a.mp4")]
    assert listed(root, "video\taction\nb c.mp4\trun\n") == [Entry("b c.mp4", "run")]
    assert listed(root, "path label\na.mp4 run\n") == [Entry("a.mp4", "run")]
    assert listed(root, '# note\nfile,class\n# another\n"d,e.mp4",run\n') == [Entry("d,e.mp4", "run")]


def test_entries_know_their_line_for_later_errors(root: Path) -> None:
    assert listed(root, "file,class\na.mp4,run\n")[0].where == f"{root}/list.txt, line 2"


def test_a_list_names_what_is_known_of_the_frames(root: Path, tmp_path: Path) -> None:
    (root / "masks/a").mkdir(parents=True)
    video = next(path for path in sorted(root.rglob("*")) if path.suffix == ".mp4").relative_to(root).as_posix()
    listed = tmp_path / "list.csv"

    def read(cell: str) -> str:
        listed.write_text(f"path,masks\n{video},{cell}\n")
        return list_videos("list", root, listed)[0].truth

    assert [read(cell) for cell in ("masks/a", "", f"{root.absolute()}/masks/a", "./masks//a")] == [
        *("masks/a", "", "masks/a", "masks/a")
    ]
    with pytest.raises(
        DataError, match=r"line 2 .*truth \('masks/b'\) must name a folder of masks.*leave the cell empty"
    ):
        read("masks/b")
    with pytest.raises(DataError, match=r"line 2 .*'\.\./x'\) must be relative and must not leave the root"):
        read("../x")


def test_headers_are_read_strictly(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 1 .*must be among path\|file\|video; .*; unknown 'person'.*data\.name=manifest"
    ):
        listed(root, "file,person\na.mp4,x\n")
    with pytest.raises(DataError, match="twice 'label'"):
        listed(root, "file,class,label\na.mp4,x,y\n")
    with pytest.raises(DataError, match=r"line 3 .*it must have 2 columns as the header, it has 1"):
        listed(root, "file,class\na.mp4,run\nsub/f.avi\n")
    with pytest.raises(DataError, match="at least one path below its header"):
        listed(root, "file,class\n")


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SSVID_REAL_DATA is not set")
def test_the_weizmann_subject_split() -> None:
    split = Path(REAL, "splits/pack/weizmann_subject_split.csv")
    entries = list_videos("list", Path(REAL, "weizmann"), split)
    assert Counter(entry.split for entry in entries) == {"train": 60, "test": 30}
    assert len({entry.group for entry in entries}) == 9
    assert len({entry.label for entry in entries}) == 10
    by_class = {entry.path: entry.label for entry in list_videos("class_folder", Path(REAL, "weizmann"))}
    assert {entry.path: entry.label for entry in entries}.items() <= by_class.items()


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SSVID_REAL_DATA is not set")
def test_a_published_list_with_missing_files_names_the_first() -> None:
    official = Path(REAL, "splits/ucfTrainTestlist/trainlist01.txt")
    with pytest.raises(DataError, match=r"trainlist01\.txt, line \d+ \('.*\.avi \d+'\): path .* must name a file"):
        list_videos("list", Path(REAL, "ucf101"), official)
    assert len(list_videos("list", Path(REAL, "ucf101"), Path(REAL, "splits/pack/ucf101_group_trainlist.txt"))) == 50


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\r\nsub\\f.avi,x\r\n", ["line 2", "backslashes", "Write sub/f.avi", "tr "]),
        ("C:\\videos\\a.mp4\n", ["line 1", "backslashes", "Windows"]),
        ("\\\\server\\share\\a.mp4,x\n", ["line 1", "backslashes"]),
        ("clip_id,kind\na.mp4,x\n", ["line 1", "looks like a header", "known are path|file|video; label|class|action"]),
        ("clip_id,kind\nsub\\f.avi,x\n", ["line 1", "looks like a header"]),
        ("video_path,category\na.mp4,x\n", ["line 1", "looks like a header"]),
        ("filename,label\na.mp4,x\n", ["line 1", "looks like a header"]),
        ('"clip id";"kind"\n"a.mp4";"x"\n', ["line 1", "looks like a header"]),
        ("label,person\nx,a.mp4\n", ["line 1", "looks like a header"]),
        ("a.mp4\n'b c.mp4'\n", ["line 2", "quotes in its name", "Remove them"]),
        ("a.mp4\nA.MP4\n", ["line 2", "there is 'a.mp4'", "large and small letters"]),
        ("sub/f\n", ["line 1", "there is 'f.avi'", "with its ending"]),
        ("https://example.org/a.mp4\n", ["line 1", "is an address", "Download"]),
        ("/elsewhere/a.mp4\n", ["line 1", "must be relative", "set data.root higher"]),
    ],
)
def test_the_cause_of_a_path_without_file_is_named(root: Path, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        listed(root, text)
    for word in words:
        assert word in str(caught.value)


def test_the_advice_about_backslashes_works(root: Path) -> None:
    import shlex
    import subprocess

    with pytest.raises(DataError) as caught:
        listed(root, "path,label\nsub\\f.avi,x\n")
    command = re.search(r"tr .*", str(caught.value))
    assert command
    subprocess.run(command[0].replace("NEW", shlex.quote(str(root / "new.csv"))), shell=True, check=True)
    assert [entry.path for entry in list_videos("list", root, root / "new.csv")] == ["sub/f.avi"]


def test_paths_relative_to_another_folder_are_told_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.mp4")
    (tmp_path / "list.txt").write_text("videos/a.mp4\n")
    with pytest.raises(DataError, match=rf"relative to the root .*Set data\.root={tmp_path}\."):
        list_videos("list", tmp_path / "videos", tmp_path / "list.txt")
    assert list_videos("list", tmp_path, tmp_path / "list.txt")[0].path == "videos/a.mp4"


@pytest.mark.parametrize(
    "text",
    [
        "Path;Class\na.mp4;x\nb c.mp4;y\n",
        '"file";"label"\n"a.mp4";"x"\n"b c.mp4";"y"\n',
        "a.mp4;x\nb c.mp4;y\n",
        "\ufeffpath,label\r\na.mp4,x\r\nb c.mp4,y\r\n",
        "a.mp4\tx\nb c.mp4\ty\n".encode("utf-16"),
    ],
)
def test_what_spreadsheets_write_is_read(root: Path, text: str | bytes) -> None:
    text = text.removeprefix("\ufeff").encode("utf-8-sig") if isinstance(text, str) and text[0] == "\ufeff" else text
    assert [(entry.path, entry.label) for entry in listed(root, text)] == [("a.mp4", "x"), ("b c.mp4", "y")]


# ---- what is passed over


def test_what_may_be_a_video_and_is_passed_over_is_told(tmp_path: Path) -> None:
    names = [
        "a.mp4",
        "b.bin",
        "c.bin",
        "noending",
        "d.lrv",
        "e.gif",
        "f.jpg",
        "notes.txt",
        "labels.csv",
        ".hid",
        "a.srt",
    ]
    touch(tmp_path, *(f"class/{name}" for name in names), *names[1:7])
    for name, folder in (("folder", tmp_path / "class"), ("class_folder", tmp_path)):
        listing = list_videos(name, folder)
        if name == "class_folder":
            listing.passed_over = Counter({ending: n // 2 for ending, n in listing.passed_over.items()})
        assert listing.passed_over == {".bin": 2, "": 1, ".lrv": 1, ".gif": 1, ".jpg": 1}
    [note] = listing.notes()
    for words in (
        "6 files are passed over",
        "2 .bin",
        "1 without ending",
        "1 .gif",
        "(data.name=list)",
        "two of one kind",
    ):
        assert words in note
    assert [entry.path for entry in listed(tmp_path, "noending\ne.gif\n")] == ["noending", "e.gif"], "the advice holds"
    touch(tmp_path / "quiet", "a.mp4", "a.txt", "a.json")
    assert list_videos("folder", tmp_path / "quiet").notes() == []


def test_gifs_are_videos_where_nothing_else_is(tmp_path: Path) -> None:
    touch(tmp_path, "b.gif", "a.GIF", "notes.txt")
    assert [entry.path for entry in list_videos("folder", tmp_path)] == ["a.GIF", "b.gif"]


@pytest.mark.parametrize("name", ["raw.h264", "clip.nut", "camera.dav", "sphere.insv"])
def test_files_of_cameras_and_raw_streams_are_read_to_the_last_frame(tmp_path: Path, name: str) -> None:
    frames = [np.full((32, 48, 3), 6 * number, dtype=np.uint8) for number in range(40)]
    made = tmp_path / (name if name.endswith((".h264", ".nut")) else "made.mp4")
    write_video(made, frames, 25, crf=10, b_frames=2)
    made.rename(tmp_path / name)
    [row] = build_manifest(tmp_path, list_videos("folder", tmp_path), cache=False, workers=1).rows
    assert (row.path, row.num_frames, row.fps, row.is_readable) == (name, 40, 25.0, True)
    with open_video(tmp_path / name, decoders_ok=row.decoders_ok) as reader:
        [clip] = read_clips(reader, [np.array([0, 7, 39])])
    assert np.allclose(clip.float().mean(dim=(1, 2, 3)), [0, 42, 234], atol=3)
