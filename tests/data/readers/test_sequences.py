"""DAVIS, J-HMDB and VIP in small trees of their official layouts, and the ways in which these are incomplete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import Manifest
from ssvid.data.readers import Entry, Listing, OfficialSplit, list_videos
from ssvid.data.truth import read_truth
from ssvid.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def found(listing: Listing) -> list[tuple[str, str, str, str]]:
    return [(entry.path, entry.label, entry.split, entry.truth) for entry in listing]


def davis(root: Path, resolution: str = "480p", *names: str, num_frames: int = 3) -> Path:
    for name in names:
        for frame in range(num_frames):
            touch(
                root,
                f"JPEGImages/{resolution}/{name}/{frame:05d}.jpg",
                f"Annotations/{resolution}/{name}/{frame:05d}.png",
            )
    return root


# ---- DAVIS


@pytest.mark.parametrize("inside", ["", "DAVIS/"], ids=["the folder", "the one above"])
def test_davis_2017_is_the_folders_of_its_lists_with_their_masks(tmp_path: Path, inside: str) -> None:
    tree = davis(tmp_path / inside, "480p", "bear", "dog", "other")
    write(tree / "ImageSets/2017/train.txt", "bear")
    write(tree / "ImageSets/2017/val.txt", "dog")
    listing = list_videos("davis", tmp_path)
    assert found(listing) == [
        (f"{inside}JPEGImages/480p/bear", "", "train", f"{inside}Annotations/480p/bear"),
        (f"{inside}JPEGImages/480p/dog", "", "val", f"{inside}Annotations/480p/dog"),
    ]
    assert listing.unlisted == (f"{inside}JPEGImages/480p/other",)


def test_davis_full_takes_the_other_folder_and_each_names_the_other(tmp_path: Path) -> None:
    davis(tmp_path, "Full-Resolution", "bear", "dog")
    write(tmp_path / "ImageSets/2017/train.txt", "bear")
    write(tmp_path / "ImageSets/2017/val.txt", "dog")
    assert [entry.path for entry in list_videos("davis_full", tmp_path)] == [
        "JPEGImages/Full-Resolution/bear",
        "JPEGImages/Full-Resolution/dog",
    ]
    with pytest.raises(
        DataError, match=r"JPEGImages must hold the folder 480p; its folders: Full-Resolution\..*davis_full"
    ):
        list_videos("davis", tmp_path)


def test_a_frame_without_its_mask_and_a_mask_without_its_frame_are_named(tmp_path: Path) -> None:
    davis(tmp_path, "480p", "bear", "dog", num_frames=5)
    write(tmp_path / "ImageSets/2017/train.txt", "bear")
    write(tmp_path / "ImageSets/2017/val.txt", "dog")
    for frame in (2, 4):
        (tmp_path / f"Annotations/480p/dog/{frame:05d}.png").unlink()
    with pytest.raises(DataError, match=r"480p/dog lacks the masks of 2 of its 5 frames: 00002, 00004\. Every frame"):
        list_videos("davis", tmp_path)
    touch(
        tmp_path, *(f"Annotations/480p/dog/{frame:05d}.png" for frame in (2, 4, 5)), "Annotations/480p/dog/.hidden.png"
    )
    with pytest.raises(DataError, match=r"480p/dog has masks of frames that are not there: 00005"):
        list_videos("davis", tmp_path)
    (tmp_path / "Annotations/480p/dog").rename(tmp_path / "dog")
    with pytest.raises(
        DataError, match=r"of the frames of all 2 videos, it lacks Annotations/480p/dog\. Complete the tree"
    ):
        list_videos("davis", tmp_path)
    (tmp_path / "Annotations").rename(tmp_path / "elsewhere")
    assert {entry.truth for entry in list_videos("davis", tmp_path)} == {""}


def test_joined_sequences_have_the_masks_that_lie_below_the_same_root(tmp_path: Path) -> None:
    touch(tmp_path, "videos/bear.mov", "videos/dog.mov", "DAVIS/Annotations/480p/dog/00000.png")
    write(tmp_path / "DAVIS/ImageSets/2017/train.txt", "bear")
    write(tmp_path / "DAVIS/ImageSets/2017/val.txt", "dog")
    assert found(list_videos("davis", tmp_path)) == [
        ("videos/bear.mov", "", "train", ""),
        ("videos/dog.mov", "", "val", "DAVIS/Annotations/480p/dog"),
    ]


@pytest.mark.parametrize("resolution", ["480p", "1080p"])
def test_davis_2016_lists_pictures_with_their_masks(tmp_path: Path, resolution: str) -> None:
    davis(tmp_path, "480p", "bear", "dog")
    davis(tmp_path, "1080p", "bear", "dog")
    for name, sequence in (("train", "bear"), ("val", "dog")):
        pairs = [
            f"/JPEGImages/{resolution}/{sequence}/{frame:05d}.jpg /Annotations/{resolution}/{sequence}/{frame:05d}.png"
            for frame in range(3)
        ]
        write(tmp_path / f"ImageSets/{resolution}/{name}.txt", *pairs)
    assert found(list_videos("davis2016", tmp_path)) == [
        (f"JPEGImages/{resolution}/bear", "", "train", f"Annotations/{resolution}/bear"),
        (f"JPEGImages/{resolution}/dog", "", "val", f"Annotations/{resolution}/dog"),
    ]


def test_lists_of_davis_that_are_none_are_refused_with_their_line(tmp_path: Path) -> None:
    davis(tmp_path, "480p", "bear", "dog")
    write(tmp_path / "lists/train.txt", "bear")
    write(tmp_path / "lists/val.txt", "a/dog")
    official = OfficialSplit(annotations=str(tmp_path / "lists"))
    with pytest.raises(DataError, match=r"val\.txt, line 1 \('a/dog'\): it must be the name of a sequence"):
        list_videos("davis", tmp_path, official=official)
    write(tmp_path / "lists/val.txt", "dog", "bear")
    with pytest.raises(DataError, match=r"'bear' is listed both as train and as val"):
        list_videos("davis2016", tmp_path, official=official)
    with pytest.raises(DataError, match=r"must hold the folder JPEGImages.*davis2016/code\.html"):
        list_videos("davis2016", tmp_path / "lists", official=official)


@pytest.mark.real
def test_real_davis_2016_is_read_with_the_official_list_of_its_validation(real_data: Path, tmp_path: Path) -> None:
    names = (real_data / "splits/davis/davis2016_val_seqs.txt").read_text().split()
    assert len(names) == 20
    write(tmp_path / "val.txt", *names)
    write(tmp_path / "train.txt", "bear")
    official = OfficialSplit(annotations=str(tmp_path), allow_missing=True)
    listing = list_videos("davis2016", real_data / "davis/DAVIS2016", official=official)
    there = ["blackswan", "car-shadow", "libby", "motocross-jump"]
    assert found(listing) == [(f"JPEGImages/480p/{name}", "", "val", f"Annotations/480p/{name}") for name in there]
    assert len(listing.missing) == 17


# ---- J-HMDB


def jhmdb(root: Path) -> Path:
    """Two classes of three clips; split 1 tests the third, split 2 the first."""
    for label in ("catch", "shoot_bow"):
        clips = [f"film{number}_{label}_u_nm_np1_ba_goo_0" for number in range(3)]
        for clip in clips:
            touch(root, f"Rename_Images/{label}/{clip}/00001.png", f"Rename_Images/{label}/{clip}/00002.png")
            touch(root, f"joint_positions/{label}/{clip}/joint_positions.mat")
        for fold, tested in ((1, 2), (2, 0)):
            lines = [f"{clip}.avi {2 if number == tested else 1}" for number, clip in enumerate(clips)]
            write(root / f"splits/{label}_test_split{fold}.txt", *lines)
    touch(root, "Rename_Images/.AppleDouble/._catch", "Rename_Images/catch/.DS_Store")
    return root


def test_jhmdb_has_classes_splits_and_the_joints_of_each_clip(tmp_path: Path) -> None:
    jhmdb(tmp_path)
    listing = list_videos("jhmdb", tmp_path)
    assert found(listing)[2:4] == [
        (
            *("Rename_Images/catch/film2_catch_u_nm_np1_ba_goo_0", "catch", "test"),
            "joint_positions/catch/film2_catch_u_nm_np1_ba_goo_0/joint_positions.mat",
        ),
        (
            *("Rename_Images/shoot_bow/film0_shoot_bow_u_nm_np1_ba_goo_0", "shoot_bow", "train"),
            "joint_positions/shoot_bow/film0_shoot_bow_u_nm_np1_ba_goo_0/joint_positions.mat",
        ),
    ]
    assert [entry.group for entry in listing][:3] == ["catch/film0", "catch/film1", "catch/film2"]
    assert [entry.split for entry in list_videos("jhmdb", tmp_path, official=OfficialSplit(2))][:3] == [
        *("test", "train", "train")
    ]
    with pytest.raises(DataError, match=r"must hold the files <class>_test_split3\.txt"):
        list_videos("jhmdb", tmp_path, official=OfficialSplit(3))


def test_jhmdb_without_pictures_takes_the_files_and_a_clip_without_joints_is_named(tmp_path: Path) -> None:
    jhmdb(tmp_path)
    (tmp_path / "Rename_Images").rename(tmp_path / ".hidden")
    clips = [path.relative_to(tmp_path / ".hidden") for path in (tmp_path / ".hidden").glob("*/film*")]
    touch(tmp_path, *(f"ReCompress_Videos/{clip}.avi" for clip in clips))
    listing = list_videos("jhmdb", tmp_path)
    assert listing[0].path == "ReCompress_Videos/catch/film0_catch_u_nm_np1_ba_goo_0.avi"
    assert listing[0].truth == "joint_positions/catch/film0_catch_u_nm_np1_ba_goo_0/joint_positions.mat"
    (tmp_path / listing[0].truth).unlink()
    with pytest.raises(DataError, match=rf"all 6 videos, it lacks {listing[0].truth}\."):
        list_videos("jhmdb", tmp_path)


# ---- VIP


def test_vip_has_the_parts_of_its_videos(tmp_path: Path) -> None:
    root = tmp_path / "VIP_Fine"
    for name in ("videos1", "videos2", "videos3"):
        touch(root, f"Images/{name}/000000000001.jpg", f"Annotations/Category_ids/{name}/000000000001.png")
    write(root / "lists/val_videos.txt", "videos2")
    assert found(list_videos("vip", root)) == [("Images/videos2", "", "val", "Annotations/Category_ids/videos2")]
    write(root / "lists/train_videos.txt", "videos1", "videos3")
    assert [(entry.path, entry.split) for entry in list_videos("vip", tmp_path)] == [
        ("VIP_Fine/Images/videos1", "train"),
        ("VIP_Fine/Images/videos3", "train"),
        ("VIP_Fine/Images/videos2", "val"),
    ]
    write(root / "lists/val_videos.txt", "videos2", "videos4")
    with pytest.raises(DataError, match=r"1 of the 4 videos that the lists in .* list are missing.*: videos4"):
        list_videos("vip", root)
    (root / "Images").rename(root / "Pictures")
    with pytest.raises(DataError, match=r"must hold the folder Images, .*VIP_Fine of VIP"):
        list_videos("vip", root)


# ---- the table


def test_a_table_of_a_data_set_holds_rate_and_truth_of_its_videos(tmp_path: Path) -> None:
    for name in ("bear", "dog"):
        for frame in range(3):
            for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
                path = tmp_path / kind / "480p" / name / f"{frame:05d}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                drawn = np.arange(192).reshape(12, 16) if kind == "JPEGImages" else np.ones((12, 16))
                Image.fromarray(drawn.astype(np.uint8)).save(path)
    write(tmp_path / "ImageSets/2017/train.txt", "bear")
    write(tmp_path / "ImageSets/2017/val.txt", "dog")
    manifest = build_manifest(tmp_path, list_videos("davis", tmp_path).at_rate(10.0), workers=1)
    manifest.save(tmp_path / "davis.csv")
    rows = Manifest.load(tmp_path / "davis.csv").rows
    assert [(row.path, row.fps, row.num_frames, row.truth) for row in rows] == [
        (f"JPEGImages/480p/{name}", 24.0, 3, f"Annotations/480p/{name}") for name in ("bear", "dog")
    ]
    masks = read_truth(tmp_path, rows[1]).masks
    assert masks is not None
    assert (masks.given(), masks.frames) == ({0: (1,)}, (0, 1, 2))
    plain = build_manifest(tmp_path, Listing([Entry("JPEGImages/480p/bear")]).at_rate(10.0), workers=1)
    assert plain.rows[0].fps == 10.0
    assert "pictures tell no rate, 10 is taken" in plain.rows[0].notes
    assert {row.notes for row in rows} == {""}


@pytest.mark.real
def test_a_real_sequence_and_its_masks_have_one_size_and_length(real_data: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "bear")
    write(tmp_path / "val.txt", "car-shadow")
    root = real_data / "davis/DAVIS2016"
    listing = list_videos("davis2016", root, official=OfficialSplit(annotations=str(tmp_path), allow_missing=True))
    (row,) = build_manifest(root, listing, workers=1).rows
    assert (row.num_frames, row.height, row.width, row.fps) == (40, 480, 854, 24.0)
    masks = read_truth(root, row).masks
    assert masks is not None
    assert (masks.given(), len(masks.frames)) == ({0: (1,)}, row.num_frames)
