"""UCF101, HMDB51 and Kinetics as downloaded: counts, trees, spellings, and every way in which lists and tree disagree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssvid.data.readers
from ssvid.cli import build_parser, main
from ssvid.data.collection import load_manifest, split_rows
from ssvid.data.config import DataConfig
from ssvid.data.manifest import Manifest, VideoRow, missing_path
from ssvid.data.readers import OfficialSplit, list_readers, list_videos
from ssvid.data.readers.hmdb51 import read_class_split, source_of, split_files
from ssvid.data.readers.kinetics import plain_label, split_of_folder
from ssvid.data.readers.matching import Listed, Listing, holds_all, match_tree, require_annotations
from ssvid.data.readers.shelf import readers
from ssvid.data.readers.ucf101 import read_classes, read_split
from ssvid.data.summary import summarize
from ssvid.errors import DataError
from ssvid.programs.pretrain import pretrain
from ssvid.video import write_video

REAL = Path(os.environ.get("SSVID_REAL_DATA", ""))
real = [pytest.mark.real, pytest.mark.skipif(not REAL.parts, reason="SSVID_REAL_DATA is not set")]

UCF_CLASSES = ["Archery", "HandstandPushups", "YoYo"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(path: Path, lines: list[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def ucf_names(label: str, group: int, clips: int = 2) -> list[str]:
    spelled = label.replace("HandstandPushups", "HandStandPushups")
    return [f"{label}/v_{spelled}_g{group:02d}_c{clip:02d}.avi" for clip in range(1, clips + 1)]


@pytest.fixture(params=["\n", "\r\n"], ids=["LF", "CRLF"])
def ucf(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three classes of three groups of two clips in the official layout; fold k tests group k."""
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", [f"{i} {label}" for i, label in enumerate(UCF_CLASSES, 1)], request.param)
    for fold in (1, 2, 3):
        train = [
            f"{name} {number} "
            for number, label in enumerate(UCF_CLASSES, 1)
            for group in (1, 2, 3)
            if group != fold
            for name in ucf_names(label, group)
        ]
        test = [name for label in UCF_CLASSES for name in ucf_names(label, fold)]
        write(lists / f"trainlist{fold:02d}.txt", train, request.param)
        write(lists / f"testlist{fold:02d}.txt", [*test, ""], request.param)
    names = [name for label in UCF_CLASSES for group in (1, 2, 3) for name in ucf_names(label, group)]
    touch(tmp_path / "UCF-101", *names)
    return tmp_path


def lists_of(root: Path) -> Path:
    return root / "ucfTrainTestlist"


def ucf_rows(root: Path, **official: object) -> Listing:
    return list_videos("ucf101", root, official=OfficialSplit(**official))  # type: ignore[arg-type]


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


# ---- UCF101


def test_ucf101_gives_labels_splits_and_groups(ucf: Path) -> None:
    found = ucf_rows(ucf, fold=2)
    assert Counter(entry.split for entry in found) == {"train": 12, "test": 6}
    assert {entry.group for entry in found if entry.split == "test"} == {f"{label}/g02" for label in UCF_CLASSES}
    assert {entry.label for entry in found} == set(UCF_CLASSES)
    push = next(entry for entry in found if entry.path.endswith("v_HandStandPushups_g01_c02.avi"))
    assert (push.path, push.label, push.split, push.group) == (
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c02.avi",
        "HandstandPushups",
        "train",
        "HandstandPushups/g01",
    )
    assert found.missing == found.unlisted == ()


def test_ucf101_lists_are_found_beside_the_videos_and_by_name(ucf: Path) -> None:
    whole = [(e.path.removeprefix("UCF-101/"), e.label, e.split, e.group) for e in ucf_rows(ucf)]
    assert [(e.path, e.label, e.split, e.group) for e in ucf_rows(ucf / "UCF-101")] == whole
    elsewhere = ucf / "elsewhere"
    lists_of(ucf).rename(elsewhere)
    with pytest.raises(
        DataError, match=r"data\.root \(.*\) must hold classInd\.txt, trainlist01\.txt, testlist01\.txt, or lie"
    ):
        ucf_rows(ucf / "UCF-101")
    assert len(ucf_rows(ucf / "UCF-101", annotations=str(elsewhere))) == 18
    with pytest.raises(
        DataError, match=r"data\.annotations \(.*none\) must be the folder of the split files: it does not"
    ):
        ucf_rows(ucf, annotations=str(ucf / "none"))
    with pytest.raises(DataError, match=r"data\.annotations \(.*UCF-101\) must hold classInd\.txt"):
        ucf_rows(ucf, annotations=str(ucf / "UCF-101"))


def test_ucf101_may_be_flat_and_re_encoded_and_spelled_either_way(ucf: Path) -> None:
    flat = ucf / "flat"
    flat.mkdir()
    for path in sorted((ucf / "UCF-101").rglob("*.avi")):
        path.rename(flat / path.with_suffix(".mp4").name.replace("HandStand", "Handstand"))
    assert len(ucf_rows(flat)) == 18
    assert {entry.label for entry in ucf_rows(flat)} == set(UCF_CLASSES)


def test_a_missing_video_is_refused_or_named(ucf: Path) -> None:
    gone = ["v_YoYo_g01_c01.avi", "v_YoYo_g02_c01.avi"]
    for name in gone:
        (ucf / "UCF-101/YoYo" / name).unlink()
    touch(ucf / "UCF-101", "YoYo/v_YoYo_g09_c01.avi")
    message = (
        r"2 of the 18 videos that trainlist01\.txt and testlist01\.txt in .* list are missing below data\.root \(.*\): "
        r"YoYo/v_YoYo_g02_c01\.avi, YoYo/v_YoYo_g01_c01\.avi\. Complete the tree .*or set data\.allow_missing=true"
    )
    with pytest.raises(DataError, match=message):
        ucf_rows(ucf)
    found = ucf_rows(ucf, allow_missing=True)
    assert len(found) == 16
    assert sorted(found.missing) == [f"YoYo/{name}" for name in gone]
    assert found.unlisted == ("UCF-101/YoYo/v_YoYo_g09_c01.avi",)
    assert found.notes() == ["1 videos are in no split file and left out: UCF-101/YoYo/v_YoYo_g09_c01.avi."]
    for path in (ucf / "UCF-101").rglob("*.avi"):
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(DataError, match="holds none of the 18 videos"):
        ucf_rows(ucf, allow_missing=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("trainlist01.txt", "_c01.avi 1", "_c01.avi 2", r"line 1 .*class 'Archery' must have number 1 as in classInd\.txt"),
        ("trainlist01.txt", "Archery/v_Archery", "Archer/v_Archery", r"line 1 .*class 'Archer' must stand in classInd\.txt"),
        ("trainlist01.txt", "Archery/v_Archery", "Archery/v_YoYo", "line 1 .*the file must be named after its class 'Archery'"),
        ("trainlist01.txt", "Archery/v_Archery", "v_Archery", "line 1 .*it must be <Class>/v_<Class>_g<group>_c<clip>"),
        ("trainlist01.txt", None, "", r"split file \(.*trainlist01\.txt\) must list at least one video or class, it is empty"),
        ("classInd.txt", "2 Hand", "3 Hand", "line 2 .*it must be the number 2, a space, and the name of a new class"),
        ("testlist01.txt", "Archery_g01_c01", "Archery_g02_c01", r"listed both as train and as test \(.*line 1; .*line 1\)"),
        ("testlist01.txt", "Archery_g01_c01", "Archery_g01_c02", r"is listed twice \(.*line 1; .*line 2\)"),
    ],
)  # fmt: skip
def test_damaged_ucf101_lists_are_told_with_their_line(
    ucf: Path, file: str, old: str | None, new: str, message: str
) -> None:
    replaced(lists_of(ucf) / file, (lists_of(ucf) / file).read_bytes().decode() if old is None else old, new)
    with pytest.raises(DataError, match=message):
        ucf_rows(ucf)


def test_a_tree_that_does_not_match_is_told(ucf: Path) -> None:
    tree = ucf / "UCF-101"
    (tree / "YoYo/v_YoYo_g01_c01.avi").rename(tree / "Archery/v_YoYo_g01_c01.avi")
    with pytest.raises(
        DataError, match=r"is of class 'YoYo', but below data\.root .* it lies in the folder of 'Archery'"
    ):
        ucf_rows(ucf)
    touch(tree, "copy/v_Archery_g02_c01.mp4")
    with pytest.raises(
        DataError, match=r"must lie once below data\.root .*, it lies at .*Archery/v_Arch.* and .*copy/v_Arch"
    ):
        ucf_rows(ucf)


@pytest.mark.parametrize("fold", [0, 4, -1])
def test_there_are_three_folds(ucf: Path, fold: int) -> None:
    with pytest.raises(DataError, match=rf"data\.fold \({fold}\) must be from 1 to 3: ucf101 has 3 official splits"):
        ucf_rows(ucf, fold=fold)


# ---- HMDB51

HMDB = {
    "climb": ["Free_(HQ)_Climb_f_cm_np1_le_med_0", "Rock!_climb_f_cm_np1_le_med_1", "Rock!_climb_u_nm_np2_ba_bad_2"],
    "climb_stairs": ["Tower_climb_stairs_f_cm_np1_le_med_0", "Up_climb_climb_stairs_u_nm_np10_fr_goo_3"],
}
HMDB["climb"][0] = "Free_(HQ)_climb_f_cm_np1_le_med_0"


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    lists = tmp_path / "testTrainMulti_7030_splits"
    for fold in (1, 2, 3):
        for label, stems in HMDB.items():
            flags = [1, 2, 0] if fold == 1 else [2, 1, 1]
            lines = [f"{stem}.avi {flag} " for stem, flag in zip(stems, flags, strict=False)]
            write(lists / f"{label}_test_split{fold}.txt", lines, "\r\n" if fold == 2 else "\n")
    touch(tmp_path / "hmdb51_org", *(f"{label}/{stem}.avi" for label, stems in HMDB.items() for stem in stems))
    return tmp_path


def test_hmdb51_gives_labels_splits_and_sources(hmdb: Path) -> None:
    found = list_videos("hmdb51", hmdb)
    assert [(e.path, e.label, e.split, e.group) for e in found] == [
        ("hmdb51_org/climb/Free_(HQ)_climb_f_cm_np1_le_med_0.avi", "climb", "train", "climb/Free_(HQ)"),
        ("hmdb51_org/climb/Rock!_climb_f_cm_np1_le_med_1.avi", "climb", "test", "climb/Rock!"),
        ("hmdb51_org/climb/Rock!_climb_u_nm_np2_ba_bad_2.avi", "climb", "unused", "climb/Rock!"),
        ("hmdb51_org/climb_stairs/Tower_climb_stairs_f_cm_np1_le_med_0.avi", "climb_stairs", "train", "climb_stairs/Tower"),
        ("hmdb51_org/climb_stairs/Up_climb_climb_stairs_u_nm_np10_fr_goo_3.avi", "climb_stairs", "test", "climb_stairs/Up_climb"),
    ]  # fmt: skip
    second = list_videos("hmdb51", hmdb / "hmdb51_org", official=OfficialSplit(fold=2))
    assert Counter(entry.split for entry in second) == {"train": 3, "test": 2}


def test_hmdb51_lists_that_are_damaged_or_not_there(hmdb: Path) -> None:
    lists = hmdb / "testTrainMulti_7030_splits"
    (lists / "climb_test_split3.txt").unlink()
    with pytest.raises(
        DataError, match=r"a file for each of its 2 classes in split 3: climb_test_split3\.txt is missing"
    ):
        list_videos("hmdb51", hmdb, official=OfficialSplit(fold=3))
    replaced(lists / "climb_test_split1.txt", "med_0.avi 1", "med_0.avi 3")
    with pytest.raises(DataError, match=r"split1\.txt, line 1 .*and 0 \(unused\), 1 \(train\) or 2 \(test\)"):
        list_videos("hmdb51", hmdb)
    (hmdb / "hmdb51_org/climb/Rock!_climb_f_cm_np1_le_med_1.avi").unlink()
    with pytest.raises(DataError, match=r"1 of the 5 videos that the files \*_test_split2\.txt in .* list are missing"):
        list_videos("hmdb51", hmdb, official=OfficialSplit(fold=2))
    with pytest.raises(DataError, match=r"must hold the files <class>_test_split1\.txt, or lie beside"):
        list_videos("hmdb51", touch(hmdb / "alone", "deep/x.avi") / "deep")


def test_sources_without_the_usual_name_lose_their_number() -> None:
    assert source_of("MyFilm_climb_f_cm_np1_le_med_12", "climb") == "MyFilm"
    assert source_of("something_else_12", "climb") == "something_else"


# ---- Kinetics

IDS = ["abcdefghijk", "-bcdefghij0", "_cdefghij01", "ABCDEFGHIJK"]


def kinetics_table(path: Path, rows: list[tuple[str, str, int]], split: str, end: str = "\r\n") -> None:
    lines = [f'"{label}",{key},{start},{start + 10},{split},0' for label, key, start in rows]
    write(path, ["label,youtube_id,time_start,time_end,split,is_cc", *lines], end)


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    kinetics_table(tmp_path / "annotations/train.csv", [("air drumming", IDS[0], 4), ("yoga", IDS[1], 0)], "train")
    kinetics_table(tmp_path / "annotations/val.csv", [("air drumming", IDS[2], 100)], "validate", "\n")
    return touch(
        tmp_path,
        f"train/air_drumming/{IDS[0]}_000004_000014.mp4",
        f"train/yoga/{IDS[1]}.webm",
        f"val/air_drumming/{IDS[2]}_000100_000110.mp4",
    )


def test_kinetics_tables_give_labels_splits_and_groups(kinetics: Path) -> None:
    assert [(e.path, e.label, e.split, e.group) for e in list_videos("kinetics", kinetics)] == [
        (f"train/air_drumming/{IDS[0]}_000004_000014.mp4", "air drumming", "train", IDS[0]),
        (f"train/yoga/{IDS[1]}.webm", "yoga", "train", IDS[1]),
        (f"val/air_drumming/{IDS[2]}_000100_000110.mp4", "air drumming", "val", IDS[2]),
    ]


def test_kinetics_without_tables_is_class_folders(kinetics: Path) -> None:
    for table in (kinetics / "annotations").iterdir():
        table.unlink()
    write(kinetics / "train.csv", [f"train/yoga/{IDS[1]}.webm 1"])  # a list of another kind by the same name
    (kinetics / "val").rename(kinetics / "val_256")
    found = list_videos("kinetics", kinetics)
    assert [(entry.label, entry.split, entry.group) for entry in found] == [
        ("air_drumming", "train", IDS[0]),
        ("yoga", "train", ""),
        ("air_drumming", "val", IDS[2]),
    ]


def test_kinetics_trees_that_do_not_match_their_tables(kinetics: Path) -> None:
    tables = kinetics / "annotations"
    with pytest.raises(DataError, match=r"data\.fold \(2\) must be 1: there is one split"):
        list_videos("kinetics", kinetics, official=OfficialSplit(fold=2))
    replacement = touch(kinetics, f"train/replacement/{IDS[0]}_000004_000014.mp4")
    assert list_videos("kinetics", replacement)[0].path == f"train/replacement/{IDS[0]}_000004_000014.mp4"
    kinetics_table(tables / "test.csv", [("yoga", IDS[3], 7)], "test")
    assert list_videos("kinetics", kinetics, official=OfficialSplit(allow_missing=True)).missing == (
        f"{IDS[3]}_000007_000017",
    )
    kinetics_table(tables / "test.csv", [("yoga", IDS[2], 100)], "test")
    with pytest.raises(DataError, match="is listed both as val and as test"):
        list_videos("kinetics", kinetics)
    (tables / "test.csv").unlink()
    (kinetics / f"train/yoga/{IDS[1]}.webm").rename(kinetics / f"val/{IDS[1]}.webm")
    with pytest.raises(DataError, match=r"is of split train, but below data\.root .* it lies in the folder of val"):
        list_videos("kinetics", kinetics)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yoga,abc,one,two,train,0", r"line 2: time_start \('one'\) and time_end \('two'\) must be seconds"),
        ("yoga,,1,2,train,0", r"line 2: youtube_id \(''\) must name a video"),
        ("yoga,abc,1,2,validate,0", r"line 2: split \('validate'\) must be 'train' as the name of the table says"),
        ("yoga,abc,1,2", "line 2: it must have as many cells as the header"),
        ('"yoga,abc,1,2,train,0', r"line 2: it must be CSV \("),
    ],
)
def test_damaged_kinetics_tables_are_told_with_their_line(kinetics: Path, line: str, message: str) -> None:
    write(kinetics / "annotations/train.csv", ["label,youtube_id,time_start,time_end,split,is_cc", line])
    with pytest.raises(DataError, match=message):
        list_videos("kinetics", kinetics)


def test_kinetics_names_of_folders() -> None:
    assert plain_label("tying knot (not on a tie)") == "tying_knot_not_on_a_tie"
    assert plain_label("massaging person's head") == "massaging_persons_head"
    names = ("train", "val_256", "videos_train", "validate", "Test", "training", "valley")
    assert [split_of_folder(name) for name in names] == ["train", "val", "train", "val", "test", "", ""]


# ---- DAVIS


def test_davis_is_the_joined_sequences_and_the_lists_of_its_splits(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "480p/bear.mov", "480p/bmx-bumps.mov", "480p/dog.mov", "480p/extra.mov")
    write(tmp_path / "DAVIS/ImageSets/2017/train.txt", ["bear", "bmx-bumps"])
    with pytest.raises(DataError, match=r"train\.txt and val\.txt.*ssvid data download davis FOLDER"):
        list_videos("davis", root)
    write(tmp_path / "DAVIS/ImageSets/2017/val.txt", ["dog", "cows"], end="\r\n")
    with pytest.raises(DataError, match=r"1 of the 4 videos .*are missing.*: cows"):
        list_videos("davis", root)
    found = list_videos("davis", root, official=OfficialSplit(allow_missing=True))
    assert [(e.path, e.label, e.split, e.group) for e in found] == [
        ("480p/bear.mov", "", "train", "bear"),
        ("480p/bmx-bumps.mov", "", "train", "bmx-bumps"),
        ("480p/dog.mov", "", "val", "dog"),
    ]
    assert (found.missing, found.unlisted) == (("cows",), ("480p/extra.mov",))


def test_a_data_set_that_nothing_fetches_names_no_command(tmp_path: Path) -> None:
    for official in (OfficialSplit(), OfficialSplit(annotations=str(tmp_path))):
        with pytest.raises(DataError, match=r"must hold train\.txt.*official split files\.$"):
            require_annotations(tmp_path, official, ("lists",), "train.txt", holds_all(["train.txt"]))
    lost = Listed("a", ("a",), "", "train", "", "list, line 1")
    with pytest.raises(
        DataError, match=r"holds none of the 1 videos that list\.txt list: a\. Set .* folder of the videos\.$"
    ):
        match_tree(tmp_path, [], [lost], OfficialSplit(), lists="list.txt")


# ---- the table of readers, recipes, manifests


def test_every_reader_of_the_shelf_is_found_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    files = [path.read_text(encoding="utf-8") for path in Path(ssvid.data.readers.__file__).parent.glob("*.py")]
    written = sum(len(re.findall(r"^@register_reader\(", text, re.MULTILINE)) for text in files)
    found = list_readers()
    assert len([r for r in found if r.read.__module__.startswith("ssvid.data.readers.")]) == written > 0
    assert not readers.broken
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["data", "index", "--help"])
    shown = capsys.readouterr().out
    for reader in found:
        assert re.search(rf"^  {reader.name} +{re.escape(reader.about[:30])}", shown, re.MULTILINE)
        assert f"`{reader.name}`" in page


def test_readers_and_their_help_need_no_torch_and_help_of_all_needs_no_reader() -> None:
    code = (
        "import sys; from ssvid.cli import main; main(['--help']); early = 'ssvid.data.readers.ucf101' in sys.modules; "
        "from ssvid.data.readers import list_readers; assert list_readers(); sys.exit(2 * early + ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("official", "message"),
    [
        (
            OfficialSplit(fold=2),
            r"data\.fold \(2\) does nothing for data\.name=folder; it is for davis, davis2016, davis_full, hmdb51, jhmdb, kinetics, ucf101, vip",
        ),
        (OfficialSplit(allow_missing=True), r"data\.allow_missing \(True\) does nothing"),
        (OfficialSplit(annotations="x"), r"data\.annotations \('x'\) does nothing"),
    ],
)
def test_options_of_official_splits_are_refused_elsewhere(
    tmp_path: Path, official: OfficialSplit, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list_videos("folder", touch(tmp_path, "a.mp4"), official=official)
    config = DataConfig("manifest", str(tmp_path), fold=official.fold, annotations=official.annotations)
    config.allow_missing = official.allow_missing
    with pytest.raises(DataError, match=r"does nothing for data\.name=manifest"):
        load_manifest(config)


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the index is called with, instead of a scan."""
    calls: list[dict[str, Any]] = []

    def build(root: Path, entries: Listing, **options: Any) -> Manifest:
        calls.append({"entries": list(entries), "missing": entries.missing})
        rows = [VideoRow(e.path, 10, 25.0, 48, 64, label=e.label, split=e.split, group=e.group) for e in entries]
        return Manifest(root, tuple(rows), entries.missing)

    monkeypatch.setattr("ssvid.data.collection.build_manifest", build)
    monkeypatch.setattr("ssvid.data.index.building.build_manifest", build)
    return calls


def test_a_recipe_reads_a_data_set_with_what_it_lacks(ucf: Path, scanned: list[dict[str, Any]]) -> None:
    (ucf / "UCF-101/YoYo/v_YoYo_g01_c01.avi").rename(ucf / "UCF-101/YoYo/v_YoYo_g07_c01.avi")
    said: list[str] = []
    with pytest.raises(DataError, match="1 of the 18 videos"):
        load_manifest(DataConfig("ucf101", str(ucf)))
    config = DataConfig("ucf101", str(ucf), fold=3, allow_missing=True, val_fraction=0.25)
    manifest = load_manifest(config, said.append)
    assert manifest.missing == scanned[0]["missing"] == ("YoYo/v_YoYo_g01_c01.avi",)
    assert said == [
        "note: 1 videos are in no split file and left out: UCF-101/YoYo/v_YoYo_g07_c01.avi.",
        "note: 1 listed videos are missing, as data.allow_missing allows",
    ]
    train, val = split_rows(manifest, config, seed=0)
    assert {row.split for row in (*train.rows, *val.rows)} == {"train"}
    assert len(train) + len(val) == 11
    assert not {row.group for row in train.rows} & {row.group for row in val.rows}


def test_the_command_indexes_a_fold_and_prints_what_is_missing(
    ucf: Path, scanned: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (ucf / "UCF-101/YoYo/v_YoYo_g01_c01.avi").unlink()
    argv = ["data", "index", str(ucf), "--reader", "ucf101", "--fold", "2", "-o", str(ucf / "x.csv")]
    assert main(argv) == 2
    assert "1 of the 18 videos that trainlist02.txt and testlist02.txt" in " ".join(capsys.readouterr().err.split())
    assert main([*argv, "--allow-missing"]) == 0
    assert "1 listed videos missing:\n  YoYo/v_YoYo_g01_c01.avi\n" in capsys.readouterr().out
    assert Manifest.load(ucf / "x.csv").missing == ("YoYo/v_YoYo_g01_c01.avi",)
    argv += ["--annotations", str(lists_of(ucf)), "--allow-missing", "--overwrite", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == ["YoYo/v_YoYo_g01_c01.avi"]


def rows_of(*splits: str) -> list[VideoRow]:
    return [VideoRow(f"{i}.avi", 10, 25.0, 48, 64, split=split) for i, split in enumerate(splits)]


def test_unused_clips_are_not_trained_on_unless_asked_for() -> None:
    manifest = Manifest(Path("."), rows_of("train", "test", "unused", "train"))
    train, val = split_rows(manifest, DataConfig(val_fraction=0.0), seed=0)
    assert [row.split for row in (*train.rows, *val.rows)] == ["train", "train"]
    train, val = split_rows(manifest, DataConfig(split="unused", val_fraction=0.0), seed=0)
    assert [row.split for row in train.rows] == ["unused"]


def test_a_manifest_keeps_what_is_missing(tmp_path: Path) -> None:
    path, names = tmp_path / "ucf.csv", tuple(f"v_{i} ü.avi" for i in range(12))
    manifest = Manifest(tmp_path, rows_of("train"), names)
    manifest.save(path)
    assert Manifest.load(path).missing == names
    assert manifest.select("train").missing == names
    assert "12 listed videos missing:\n  v_0 ü.avi\n" in summarize(manifest)
    assert summarize(manifest).count("v_") == 10
    assert manifest.sha256() == Manifest(tmp_path, manifest.rows).sha256()
    Manifest(tmp_path, manifest.rows).save(path)
    assert not missing_path(path).exists()
    assert Manifest.load(path).missing == ()


# ---- the published files

UCF_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


@pytest.mark.parametrize("folder", ["ucfTrainTestlist", "ucfTrainTestlist_lf"])
@pytest.mark.parametrize("fold", [1, 2, 3])
class TestPublishedUCF101:
    pytestmark = real

    def test_counts_and_groups(self, folder: str, fold: int) -> None:
        lists = REAL / "splits" / folder
        classes = read_classes(lists / "classInd.txt")
        train = read_split(lists / f"trainlist{fold:02d}.txt", "train", classes)
        test = read_split(lists / f"testlist{fold:02d}.txt", "test", classes)
        assert (len(train), len(test)) == UCF_COUNTS[fold]
        assert len({video.keys for video in (*train, *test)}) == 13320
        assert {v.label for v in train} == {v.label for v in test} == set(classes)
        groups = {video.group for video in train}, {video.group for video in test}
        assert not groups[0] & groups[1]
        assert len(groups[0] | groups[1]) == 101 * 25


@pytest.mark.parametrize("fold", [1, 2, 3])
class TestPublishedHMDB51:
    pytestmark = real

    def test_counts_and_sources(self, fold: int) -> None:
        files = split_files(REAL / "splits/hmdb51_testTrainMulti_7030_splits", fold)
        listed = [video for label, path in files.items() for video in read_class_split(path, label)]
        assert Counter(video.split for video in listed) == {"train": 3570, "test": 1530, "unused": 1666}
        assert {Counter(v.split for v in listed if v.label == label)["train"] for label in files} == {70}
        assert len(files) == 51
        sides = defaultdict(set)
        for video in listed:
            assert video.group != f"{video.label}/{video.keys[0]}"  # the name was understood, not only cut
            if video.split != "unused":
                sides[video.group].add(video.split)
        assert {len(splits) for splits in sides.values()} == {1}


@pytest.mark.real
@pytest.mark.skipif(not REAL.parts, reason="SSVID_REAL_DATA is not set")
def test_a_whole_tree_is_matched_to_the_published_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = REAL / "splits/ucfTrainTestlist"
    files = [lists / f"{side}list01.txt" for side in ("train", "test")]
    names = [f"UCF-101/{line.split()[0]}" for file in files for line in file.read_text().splitlines()]
    monkeypatch.setattr("ssvid.data.readers.ucf101.find_videos", lambda root: sorted(names))
    found = list_videos("ucf101", tmp_path, official=OfficialSplit(2, str(lists)))
    assert Counter(entry.split for entry in found) == {"train": 9586, "test": 3734}
    assert {entry.path for entry in found} == set(names)
    assert found.missing == found.unlisted == ()


@pytest.mark.real
@pytest.mark.skipif(not REAL.parts, reason="SSVID_REAL_DATA is not set")
def test_the_packs_are_read_with_what_they_lack() -> None:
    lists = str(REAL / "splits/ucfTrainTestlist")
    found = list_videos("ucf101", REAL / "ucf101", official=OfficialSplit(1, lists, allow_missing=True))
    index = (REAL / "splits/pack/ucf101_pack_index.csv").read_text().splitlines()[1:]
    wanted = {cells[0]: cells[5] for line in index if (cells := line.split(","))}
    assert {entry.path: entry.split for entry in found} == wanted
    assert len(found) + len(found.missing) == 13320
    with pytest.raises(DataError, match=r"of the 13320 videos .* are missing"):
        list_videos("ucf101", REAL / "ucf101", official=OfficialSplit(1, lists))
    clips = list_videos("hmdb51", REAL / "hmdb51", official=OfficialSplit(allow_missing=True, annotations=str(
        REAL / "splits/hmdb51_testTrainMulti_7030_splits"
    )))  # fmt: skip
    assert len(clips) + len(clips.missing) == 6766
    assert len(clips) == 11
    assert {entry.label for entry in clips} >= {"climb", "climb_stairs", "brush_hair", "wave"}


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.parts, reason="SSVID_REAL_DATA is not set")
def test_the_hmdb51_pack_is_a_manifest_by_its_recipe_group() -> None:
    lists = REAL / "splits/hmdb51_testTrainMulti_7030_splits"
    config = DataConfig(
        "hmdb51", str(REAL / "hmdb51"), fold=1, annotations=str(lists), allow_missing=True, index_workers=1
    )
    manifest = load_manifest(config)
    assert Counter(row.split for row in manifest.rows) == {"train": 7, "test": 3, "unused": 1}
    assert all(row.is_readable and row.group.startswith(f"{row.label}/") for row in manifest.rows)
    assert len(manifest.missing) == 6755


@pytest.mark.slow
def test_a_run_says_what_was_missing(ucf: Path, tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 40 * t % 256, dtype=np.uint8) for t in range(30)]
    for path in (ucf / "UCF-101").rglob("*.avi"):
        path.unlink()
        if path.stem != "v_YoYo_g02_c01":
            write_video(path.with_suffix(".mp4"), frames, fps=25)
    data = {"name": "ucf101", "root": str(ucf), "allow_missing": True, "index_workers": 1}
    result = pretrain(
        "smoke/speediness", "trainer.max_steps=1", "trainer.accelerator=cpu", "task.options.num_frames=8",
        run_dir=tmp_path / "run", show_progress=False, data=data, loader={"global_batch": 4, "workers_per_device": 0},
    )  # fmt: skip
    assert result.missing == ["YoYo/v_YoYo_g02_c01.avi"]
    assert json.loads((tmp_path / "run/results.json").read_text())["missing"] == result.missing
    assert Manifest.load(tmp_path / "run/manifest.csv", ucf).missing == tuple(result.missing)
