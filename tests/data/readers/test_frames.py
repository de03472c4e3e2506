"""Folders of pictures become video files: the frames, their order, their places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvid.cli import main
from ssvid.data.readers import list_videos
from ssvid.data.readers.frames import join_frames
from ssvid.errors import DataError
from ssvid.video import open_video, read_clips, scan_video


def picture(number: int, width_px: int = 40) -> Image.Image:
    """Every picture has a gray of its own and a corner that tells left from right."""
    pixels = np.full((30, width_px, 3), 20 * number + 10, dtype=np.uint8)
    pixels[:10, :10] = 255 - pixels[:10, :10]
    return Image.fromarray(pixels)


def clip(folder: Path, numbers: list[int], ending: str = ".png", digits: int = 1) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(folder / f"{number:0{digits}d}{ending}")
    return [np.asarray(Image.open(folder / f"{n:0{digits}d}{ending}").convert("RGB")) for n in numbers]


def frames_of(video: Path) -> list[np.ndarray]:
    scan = scan_video(video)
    assert scan.info.fps == 24
    with open_video(video, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
        [frames] = read_clips(reader, [np.arange(scan.info.num_frames)])
    return list(frames.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("ending", "tolerance"), [(".png", 0), (".bmp", 0), (".jpg", 3)])
def test_the_frames_of_the_video_are_the_pictures_in_order(tmp_path: Path, ending: str, tolerance: int) -> None:
    expected = clip(tmp_path / "in" / "clip", [1, 2, 3, 8, 9, 10, 11, 12], ending)  # as text, 10 comes before 2
    joined = join_frames(tmp_path / "in", tmp_path / "out", fps=24)
    assert (joined.num_videos, joined.num_frames) == (1, 8)
    assert joined.notes == [
        f"clip: the numbers in the names leave gaps, the first after 3{ending}: frames may be missing"
    ]
    found = frames_of(tmp_path / "out" / "clip.mov")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= tolerance


def test_jpeg_files_lie_in_the_video_byte_for_byte(tmp_path: Path) -> None:
    clip(tmp_path / "in", [0, 1, 2], ".jpg")
    join_frames(tmp_path / "in", tmp_path / "out")
    content = (tmp_path / "out" / "in.mov").read_bytes()
    assert all(path.read_bytes() in content for path in (tmp_path / "in").iterdir())


def test_places_below_the_root_stay_so_that_classes_and_splits_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("train/run/a", "train/sit/a", "test/run/b"):
        clip(tmp_path / "in" / place, [0, 5, 10], digits=5)
    (tmp_path / "in" / "train" / "run" / "notes.txt").write_text("x")
    as_they_are = {(entry.path, entry.label, entry.split) for entry in list_videos("class_folder", tmp_path / "in")}
    assert as_they_are == {
        ("train/run/a", "run", "train"), ("train/sit/a", "sit", "train"), ("test/run/b", "run", "test"),
    }  # fmt: skip
    assert main(["data", "join-frames", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert "3 videos of 9 frames in all" in capsys.readouterr().out
    found = {(entry.path, entry.label, entry.split) for entry in list_videos("class_folder", tmp_path / "out")}
    assert found == {
        ("train/run/a.mov", "run", "train"), ("train/sit/a.mov", "sit", "train"), ("test/run/b.mov", "run", "test"),
    }  # fmt: skip


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_pictures_are_upright_in_the_video_as_in_the_folder(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in" / "clip").mkdir(parents=True)
    for number in range(3):
        picture(number).save(tmp_path / "in" / "clip" / f"{number}.jpg", exif=exif, quality=95, subsampling=0)
    join_frames(tmp_path / "in", tmp_path / "out", fps=24)
    with open_video(tmp_path / "in" / "clip") as reader:
        folder = reader.frames_at(np.arange(3)).permute(0, 2, 3, 1).numpy()
    for ours, theirs in zip(frames_of(tmp_path / "out" / "clip.mov"), folder, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 3
    exif[0x0112] = 5
    picture(0).save(tmp_path / "in" / "clip" / "0.jpg", exif=exif)
    with pytest.raises(DataError, match=r"0\.jpg is mirrored by its EXIF orientation \(5\)"):
        join_frames(tmp_path / "in", tmp_path / "out2")


def test_what_cannot_be_joined_is_named(tmp_path: Path) -> None:
    clip(tmp_path / "in" / "a", [1, 2])
    picture(3, width_px=50).save(tmp_path / "in" / "a" / "3.png")
    with pytest.raises(DataError, match=r"3\.png has 50x30 pixels and 1\.png 40x30"):
        join_frames(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png cannot be read as a picture"):
        join_frames(tmp_path / "in", tmp_path / "out2")
    clip(tmp_path / "single" / "a", [1])
    with pytest.raises(DataError, match="folders of two pictures or more"):
        join_frames(tmp_path / "single", tmp_path / "out3")
    with pytest.raises(DataError, match="is not an empty folder"):
        join_frames(tmp_path / "in", tmp_path / "in")
    clip(tmp_path / "mixed" / "a", [1, 2, 3])
    picture(1).save(tmp_path / "mixed" / "a" / "1.jpg")
    assert join_frames(tmp_path / "mixed", tmp_path / "out4").notes == [
        "a: 1 pictures of another kind than .png were left out"
    ]
