"""Masks, joints and tracks: made here in the layouts of the data sets, read back, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.masks import Masks
from ssvid.data.summary import summarize
from ssvid.data.synth import SyntheticVideos, scene_of, synthesize
from ssvid.data.truth import JHMDB_JOINTS, VIP_PARTS, VOID, Joints, Tracks, Truth, read_truth, truth_sha256
from ssvid.errors import DataError
from ssvid.pictures import voc_colors
from ssvid.video import open_video
from ssvid.video.synthetic import render

HEIGHT, WIDTH, NUM_FRAMES = 6, 8, 4


def row(**changes: object) -> VideoRow:
    known = VideoRow("clip.mp4", NUM_FRAMES, 24.0, HEIGHT, WIDTH, truth="masks")
    return replace(known, **changes)  # type: ignore[arg-type]


def mask(*ids: int) -> np.ndarray:
    """A mask whose first rows hold one id each."""
    mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask_HW[: len(ids)] = np.array(ids, np.uint8)[:, None]
    return mask_HW


def save_palette(path: Path, mask_HW: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask_HW)
    picture.putpalette(voc_colors().tobytes())
    picture.save(path)


def folder_of(root: Path, masks: list[np.ndarray], name: str = "masks") -> Path:
    for frame, mask_HW in enumerate(masks):
        save_palette(root / name / f"{frame:05d}.png", mask_HW)
    return root / name


def masks_of(root: Path, **changes: object) -> Masks:
    found = read_truth(root, row(**changes)).masks
    assert found is not None
    return found


# ---- masks


def test_a_palette_holds_ids_and_255_is_void(tmp_path: Path) -> None:
    written = [mask(1, 1, VOID), mask(1, 2), mask(), mask(2, 3)]
    folder_of(tmp_path, written)
    found = masks_of(tmp_path)
    assert (found.num_frames, found.height, found.width, found.names) == (4, 6, 8, ())
    assert all(np.array_equal(found.at(frame), mask_HW) for frame, mask_HW in enumerate(written))
    assert found.at(0).dtype == np.uint8
    assert found.given() == {0: (1,), 1: (2,), 3: (3,)}
    assert found.ids == (1, 2, 3)
    assert found.palette == voc_colors().tobytes()


def test_a_mask_may_be_changed_by_whoever_asked_for_it(tmp_path: Path) -> None:
    folder_of(tmp_path, [mask(1)] * NUM_FRAMES)
    for found in (masks_of(tmp_path), Masks({0: mask(1)}, num_frames=1, height=HEIGHT, width=WIDTH)):
        found.at(0)[:] = 9
        assert np.array_equal(found.at(0), mask(1))


def test_gray_of_two_values_is_one_object_and_not_void(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for frame in range(NUM_FRAMES):
        Image.fromarray(mask(255, 255)).save(tmp_path / f"masks/{frame:05d}.png")
    found = masks_of(tmp_path)
    assert np.array_equal(found.at(2), mask(1, 1))
    assert (found.given(), found.palette) == ({0: (1,)}, None)
    Image.fromarray(mask(255, 37)).save(tmp_path / "masks/00002.png")
    with pytest.raises(DataError, match=r"00002\.png holds the gray value 37: .* 0 and 255 alone.* without smoothing"):
        masks_of(tmp_path).given()


def test_gray_ids_are_ids_and_255_among_them_is_void(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for frame, mask_HW in enumerate([mask(2, 1, VOID), mask(VOID), mask(1), mask(2)]):
        Image.fromarray(mask_HW).save(tmp_path / f"masks/{frame:05d}.png")
    found = masks_of(tmp_path)
    assert np.array_equal(found.at(1), mask(VOID))
    assert found.given() == {0: (1, 2)}


def test_bits_and_the_colors_of_davis_are_ids(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask(1).astype(bool)).save(tmp_path / "masks/00000.png")
    Image.fromarray(voc_colors()[mask(1, 2, VOID)]).save(tmp_path / "masks/00001.png")
    found = masks_of(tmp_path)
    assert np.array_equal(found.at(0), mask(1))
    assert np.array_equal(found.at(1), mask(1, 2, VOID))
    assert found.at(2) is None
    assert found.frames == (0, 1)
    picture = voc_colors()[mask(1, 2)]
    picture[0, 0] = 12, 34, 56
    Image.fromarray(picture).save(tmp_path / "masks/00001.png")
    with pytest.raises(DataError, match=r"00001\.png holds the color \(12, 34, 56\).*palette of DAVIS.*Save it as PNG"):
        masks_of(tmp_path).given()


def test_what_is_no_mask_of_the_video_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    def refused(last: object, match: str, **changes: object) -> None:
        folder = folder_of(tmp_path, [mask(1), mask(1)])
        if isinstance(last, np.ndarray):
            Image.fromarray(last).save(folder / "00001.png")
        elif isinstance(last, bytes):
            (folder / "00001.png").write_bytes(last)
        with pytest.raises(DataError, match=match):
            masks_of(tmp_path, **changes).given()

    refused(
        np.zeros((HEIGHT, WIDTH + 1), np.uint8), r"00001\.png has 9x6 pixels.* and the video 8x6.* nearest neighbors"
    )
    refused(
        np.zeros((HEIGHT, WIDTH), np.uint16), r"00001\.png has 16 bits a pixel: .* one byte a pixel.*Save it as PNG"
    )
    refused(np.zeros((HEIGHT, WIDTH, 4), np.uint8), r"00001\.png has mode RGBA")
    refused(b"text", r"00001\.png cannot be read as a mask.*fetch the masks again")
    refused((folder_of(tmp_path, [mask(1)]) / "00000.png").read_bytes()[:60], r"00001\.png cannot be read as a mask")


def test_ids_that_leave_a_gap_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, [mask(1, 2), mask(1, 4), mask(1, 2), mask(1, 2)])
    with pytest.raises(DataError, match=r"00001\.png holds id 4: objects must be numbered 1 to K.*holds 1, 2, 4\."):
        _ = masks_of(tmp_path).ids


def test_the_first_frame_must_have_a_mask_and_an_object(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [mask(), mask(1)])
    with pytest.raises(DataError, match=r"00000\.png holds no object, and it is the first mask"):
        masks_of(tmp_path).given()
    (folder / "00000.png").unlink()
    with pytest.raises(
        DataError, match=r"must hold a mask of the first frame of 'clip\.mp4'; its first mask is of frame 1"
    ):
        masks_of(tmp_path)
    (folder / "00001.png").unlink()
    with pytest.raises(DataError, match=r"must hold the masks of 'clip\.mp4' as PNG, it holds none"):
        masks_of(tmp_path)


def test_masks_belong_to_the_pictures_whose_names_they_bear(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in (9, 10, 11, 12):  # in order of the numbers, not of the letters
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / f"clip/f{number}.jpg")
    for name, mask_HW in {"f9": mask(1), "f12": mask(1, 2)}.items():
        save_palette(tmp_path / f"masks/{name}.png", mask_HW)
    found = masks_of(tmp_path, path="clip")
    assert found.given() == {0: (1,), 3: (2,)}
    assert found.at(1) is None
    save_palette(tmp_path / "masks/f13.png", mask(1))
    with pytest.raises(DataError, match=r"f13\.png is the mask of a frame that 'clip' lacks: none of its 4 pictures"):
        masks_of(tmp_path, path="clip")


def test_beside_a_file_the_numbers_of_masks_are_frames_unless_all_frames_have_one(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        save_palette(tmp_path / f"all/{number}.png", mask(*range(1, number + 1)))
    assert masks_of(tmp_path, truth="all").given() == {0: (1,), 1: (2,), 2: (3,), 3: (4,)}
    for number in (0, 3):
        save_palette(tmp_path / f"some/{number}.png", mask(*range(1, number + 2)))
    assert masks_of(tmp_path, truth="some").given() == {0: (1,), 3: (2, 3, 4)}
    save_palette(tmp_path / "some/00004.png", mask(1))
    with pytest.raises(DataError, match=r"00004\.png is the mask of frame 4, and the video has frames 0 to 3"):
        masks_of(tmp_path, truth="some")


def test_what_lies_in_category_ids_are_parts(tmp_path: Path) -> None:
    save_palette(tmp_path / "Annotations/Category_ids/clip/0.png", mask(19, 2))
    found = masks_of(tmp_path, truth="Annotations/Category_ids/clip")
    assert (found.names, found.ids) == (VIP_PARTS, (2, 19))
    assert len(set(VIP_PARTS)) == 20
    save_palette(tmp_path / "Annotations/Category_ids/clip/1.png", mask(20))
    with pytest.raises(DataError, match=r"1\.png holds id 20: ids of parts must be 0 to 19"):
        masks_of(tmp_path, truth="Annotations/Category_ids/clip").given()


def test_a_window_counts_from_its_first_frame(tmp_path: Path) -> None:
    folder_of(tmp_path, [mask(1), mask(1, 2), mask(2), mask(3)])
    found = masks_of(tmp_path, start_frame=1, end_frame=3)
    assert (found.num_frames, found.frames) == (2, (0, 1))
    assert found.given() == {0: (1, 2)}


# ---- joints


def positions(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """As MATLAB has them: 2 x 15 x frames, from 1. Joint j of frame t is at x = j - 2, y = t + 1."""
    x = np.broadcast_to(np.arange(15.0)[:, None] - 2, (15, num_frames))
    return np.stack([x, np.broadcast_to(np.arange(num_frames) + 1.0, (15, num_frames))])


def test_joints_count_from_0_and_are_visible_inside_the_frame(tmp_path: Path) -> None:
    savemat(tmp_path / "joint_positions.mat", {"pos_img": positions(), "pos_world": np.zeros((2, 15, 4))})
    joints = read_truth(tmp_path, row(truth="joint_positions.mat")).joints
    assert joints is not None
    assert joints.names == JHMDB_JOINTS
    assert (joints.names[0], joints.names[3], joints.names[14], len(set(joints.names))) == (
        *("neck", "right shoulder", "left ankle"),
        15,
    )
    assert joints.points_TJ2[2, 5].tolist() == [2.0, 2.0]  # 5 - 2 - 1, 2 + 1 - 1
    # x is -3 to 11 in a frame of 8 pixels.
    assert joints.visible_TJ.tolist() == [[False] * 3 + [True] * 8 + [False] * 4] * NUM_FRAMES


def test_files_of_joints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "joint_positions.mat"

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            read_truth(tmp_path, row(truth=path.name))

    savemat(path, {"pos_img": positions(5)})
    refused(r"joint_positions\.mat holds joints of 5 frames, and 'clip\.mp4' has 4")
    savemat(path, {"pos_img": positions()[:, :13]})
    refused(r"pos_img must be numbers of shape 2 x 15 x frames, it is float64 of shape 2 x 13 x 4")
    savemat(path, {"pos_img": np.array([[{"a": 1}]], dtype=object)})
    refused(r"pos_img must be numbers")
    savemat(path, {"pos_world": positions()})
    refused(r"must hold the variable pos_img")
    savemat(path, {"pos_img": positions()})
    path.write_bytes(path.read_bytes()[:300])
    refused(r"joint_positions\.mat cannot be read")
    path.write_bytes(b"\0" * 100)
    refused(r"joint_positions\.mat cannot be read")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\0" * 384
    path.write_bytes(header + b"\x89HDF\r\n\x1a\n")
    refused(r"is a file of MATLAB 7\.3.*save\(file, '-v7'\)")
    path.unlink()
    refused(r"joint_positions\.mat cannot be read")


# ---- arrays


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return synthesize(
        tmp_path_factory.mktemp("synthetic") / "out", SyntheticVideos(1, 1, seconds=0.24, size_px=36), workers=1
    )


def test_a_synthetic_table_names_its_truth_which_is_that_of_its_scene(synthetic: Manifest) -> None:
    loaded = Manifest.load(synthetic.root / "manifest.csv")
    assert [r.truth for r in loaded.rows] == ["truth/train/slide/slide_00000.npz", "truth/test/slide/slide_00000.npz"]
    assert "truth of 2" in summarize(loaded)
    found = loaded.rows[1]
    drawn = render(scene_of(0, "test", 0, 36), np.arange(6) / 25)
    truth = read_truth(loaded.root, found)
    assert truth.masks is not None
    assert truth.tracks is not None
    for frame in range(6):
        assert np.array_equal(truth.masks.at(frame) == 1, drawn.masks_STHW[0, frame])
        assert np.array_equal(truth.masks.at(frame) == 2, drawn.masks_STHW[1, frame])
    np.testing.assert_allclose(truth.tracks.points_TQ2, drawn.tracks_TP2, atol=1e-5)
    assert np.array_equal(truth.tracks.visible_TQ, drawn.visible_TP)
    assert truth.masks.given()[0][0] == 1
    with open_video(loaded.path_of(found)) as reader:
        assert (truth.masks.num_frames, truth.masks.height, truth.masks.width) == (
            reader.info.num_frames,
            reader.info.height,
            reader.info.width,
        )


def test_a_table_without_truth_keeps_its_identity_and_one_with_it_has_another(
    synthetic: Manifest, tmp_path: Path
) -> None:
    without = synthetic.with_rows(replace(r, truth="") for r in synthetic.rows)
    without.save(tmp_path / "new.csv")
    lines = (tmp_path / "new.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("\n".join(",".join(line.split(",")[:-2]) for line in lines) + "\n")
    assert "truth" not in (tmp_path / "old.csv").read_text()
    assert Manifest.load(tmp_path / "old.csv").sha256() == without.sha256() != synthetic.sha256()
    assert read_truth(tmp_path, without.rows[0]) == Truth()


def test_a_truth_outside_the_root_is_refused_with_its_line(tmp_path: Path) -> None:
    Manifest(tmp_path, (row(truth="../elsewhere"),)).save(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"line 2: .*'\.\./elsewhere'.*must not leave the root"):
        Manifest.load(tmp_path / "a.csv")
    assert Manifest.load(tmp_path / "a.csv", allow_outside=True).rows[0].truth == "../elsewhere"


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.npz"
    tracks, visible = np.zeros((4, 3, 2)), np.ones((4, 3), bool)

    def refused(match: str, **arrays: np.ndarray) -> None:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=match):
            read_truth(tmp_path, row(truth="truth.npz"))

    refused(r"must hold the arrays tracks and visible, it lacks visible", tracks=tracks)
    refused(r"tracks must be numbers of shape 4 \(frames of 'clip\.mp4'\)", tracks=tracks[:3], visible=visible[:3])
    refused(r"visible true or false", tracks=tracks, visible=visible.astype(float))
    refused(r"cannot be read \(ValueError: Object arrays", tracks=np.array([{}], dtype=object), visible=visible)
    bits = np.zeros((2, 4, HEIGHT, 2), np.uint8)
    refused(r"masks must be bits of shape objects x 4 x 6 x 1", tracks=tracks, visible=visible, masks=bits)
    refused(
        r"phase must be 4 whole numbers from 0, one for each frame of 'clip\.mp4'; it is int64 \(3,\)",
        phase=np.arange(3),
    )
    refused(r"phase must be 4 whole numbers from 0", phase=np.array([0.0, 0.5, 1, 1]))
    refused(r"phase must be 4 whole numbers from 0", phase=np.array([-1, 0, 0, 1]))
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"truth\.npz cannot be read"):
        read_truth(tmp_path, row(truth="truth.npz"))


def test_phases_alone_are_a_truth_and_part_of_its_identity(tmp_path: Path) -> None:
    hashes = []
    for phase in ([0, 0, 1, 2], [0, 1, 1, 2]):
        np.savez(tmp_path / "truth.npz", phase=np.array(phase, dtype=np.uint8))
        truth = read_truth(tmp_path, row(truth="truth.npz"))
        assert truth.phases is not None and truth.phases.number_T.tolist() == phase
        assert (truth.masks, truth.joints, truth.tracks) == (None, None, None)
        hashes.append(truth_sha256(truth))
    assert hashes[0] != hashes[1]


def test_truth_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 'clip\.mp4' must be a folder of masks .*; it does not exist"):
        read_truth(tmp_path, row(truth="none"))
    (tmp_path / "masks.txt").touch()
    with pytest.raises(DataError, match=r"must be a folder of masks .*; it is another file"):
        read_truth(tmp_path, row(truth="masks.txt"))


# ---- identity


def test_identity_is_of_ids_and_coordinates_however_they_are_stored(tmp_path: Path) -> None:
    written = [mask(1), mask(1, 2), mask(2), mask(1)]
    folder_of(tmp_path, written)
    (tmp_path / "gray").mkdir()
    (tmp_path / "color").mkdir()
    for frame, mask_HW in enumerate(written):
        Image.fromarray(mask_HW).save(tmp_path / f"gray/{frame}.png")
        Image.fromarray(voc_colors()[mask_HW]).save(tmp_path / f"color/{frame}.png")
    known = {truth_sha256(read_truth(tmp_path, row(truth=name))) for name in ("masks", "gray", "color")}
    assert len(known) == 1
    save_palette(tmp_path / "masks/00003.png", mask(2))
    assert truth_sha256(read_truth(tmp_path, row())) not in known
    (tmp_path / "masks/00003.png").unlink()
    (tmp_path / "masks/00002.png").unlink()
    assert truth_sha256(read_truth(tmp_path, row())) not in known


def test_identity_tells_points_apart_and_not_how_nothing_is_written() -> None:
    points, visible = np.zeros((2, 3, 2)), np.ones((2, 3), bool)
    known = truth_sha256(Truth(tracks=Tracks(points, visible)))
    assert known == truth_sha256(Truth(tracks=Tracks(-points, visible)))  # -0 is 0
    others = [
        Truth(),
        Truth(tracks=Tracks(points + 1e-9, visible)),
        Truth(tracks=Tracks(points, ~visible)),
        Truth(joints=Joints(points, visible, ())),
        Truth(joints=Joints(points, visible, ("a", "b", "c"))),
    ]
    assert len({known, *map(truth_sha256, others)}) == len(others) + 1


# ---- real


@pytest.mark.parametrize(
    ("name", "num_frames"), [("blackswan", 50), ("car-shadow", 40), ("libby", 49), ("motocross-jump", 40)]
)
@pytest.mark.real
def test_real_masks_of_davis_2016_are_one_object(real_data: Path, name: str, num_frames: int) -> None:
    root = real_data / "davis/DAVIS2016"
    video = VideoRow(f"JPEGImages/480p/{name}", num_frames, 24.0, 480, 854, truth=f"Annotations/480p/{name}")
    masks = read_truth(root, video).masks
    assert masks is not None
    assert (masks.given(), masks.frames) == ({0: (1,)}, tuple(range(num_frames)))
    for frame in (0, num_frames // 2, num_frames - 1):
        stored = np.asarray(Image.open(root / video.truth / f"{frame:05d}.png"))
        assert np.array_equal(masks.at(frame), stored // 255)


@pytest.mark.real
def test_real_masks_of_judo_are_given_where_they_are_first_seen(real_data: Path, tmp_path: Path) -> None:
    """Cutie's example gives each of four objects in a mask of its own, and one of them lacks a column of pixels."""
    folder = real_data / "davis/cutie_examples"
    video = VideoRow("images/judo", 16, 24.0, 480, 854, truth="masks/judo")
    masks = read_truth(folder, video).masks
    assert masks is not None
    assert masks.frames == (0, 5, 8, 13)
    assert masks.palette == voc_colors().tobytes()
    with pytest.raises(DataError, match=r"00005\.png has 853x480 pixels \(width x height\), and the video 854x480"):
        masks.given()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/judo").symlink_to(folder / "images/judo")
    for path in sorted((folder / "masks/judo").glob("*.png")):
        save_palette(
            tmp_path / "masks/judo" / path.name, np.pad(np.asarray(Image.open(path)), ((0, 0), (0, 1)))[:, :854]
        )
    mended = read_truth(tmp_path, video).masks
    assert mended is not None
    assert mended.given() == {0: (1,), 5: (2,), 8: (3,), 13: (4,)}


@pytest.mark.real
def test_real_masks_with_a_palette_are_the_numbers_that_pillow_reads(real_data: Path) -> None:
    root = real_data / "davis/davis2017_results_osvos"
    video = VideoRow("libby.mp4", 49, 24.0, 480, 854, truth="libby")
    masks = read_truth(root, video).masks
    assert masks is not None
    stored = [np.asarray(Image.open(root / f"libby/{frame:05d}.png")) for frame in masks.frames]
    assert all(np.array_equal(masks.at(frame), stored[i]) for i, frame in enumerate(masks.frames))
    assert masks.ids == (1,)
