"""Folders of pictures as videos, against arrays that were made here, lossless video files, and Pillow on real clips."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ssvid.errors import DecodeError, SsvidError
from ssvid.video import content_id, open_video, quick_id, read_clips, resolve_decoder, scan_video
from ssvid.video.decoders.pictures import read_picture
from ssvid.video.frame_folders import frames_among, in_order, list_frames
from ssvid.video.motion import measure_signals

REAL = os.environ.get("SSVID_REAL_DATA", "")
HEIGHT, WIDTH = 34, 50
RNG = np.random.default_rng(3)
FRAMES = [RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(7)]
DEEP = [RNG.integers(0, 4096, (HEIGHT, WIDTH), np.uint16) for _ in range(5)]


def save(folder: Path, frames: Sequence[np.ndarray], name: str = "{:05d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def lossless(path: Path, frames: Sequence[np.ndarray], format: str) -> Path:
    """A file of FFV1, and so without loss, by PyAV alone."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if format == "rgb24" else format
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=format).reformat(format=stream.pix_fmt)))
        output.mux(stream.encode(None))
    return path


def frames_of(path: Path, **asked: Sequence[int]) -> np.ndarray:
    """All frames THWC."""
    info = scan_video(path, **asked).info
    with open_video(path, info=info) as reader:
        return reader.frames_at(np.arange(info.num_frames)).permute(0, 2, 3, 1).numpy()


# ---- pixels


def test_a_lossless_video_and_its_pictures_are_the_same_clips(tmp_path: Path) -> None:
    file, folder = lossless(tmp_path / "a.mkv", FRAMES, "rgb24"), save(tmp_path / "a", FRAMES)
    clips = [np.array([6, 0, 0, 3]), np.array([2])]
    of_file, of_folder = scan_video(file), scan_video(folder)
    with open_video(file, info=of_file.info) as one, open_video(folder, info=of_folder.info) as other:
        for ours, theirs, numbers in zip(read_clips(one, clips), read_clips(other, clips), clips, strict=True):
            assert ours.shape == (len(numbers), 3, HEIGHT, WIDTH)
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
            np.testing.assert_array_equal(theirs.permute(0, 2, 3, 1).numpy(), np.stack([FRAMES[n] for n in numbers]))
    assert of_folder.decoders_ok == ("pictures",)
    np.testing.assert_allclose(of_folder.times.seconds, np.arange(7) / 25)
    assert of_folder.times.end_seconds == 7 / 25


def test_the_motion_of_pictures_is_that_of_the_video(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    base = np.kron(RNG.integers(0, 256, (12, 16, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    moving = [np.roll(base, 2 * t, 1) for t in range(5)]
    file, folder = lossless(tmp_path / "a.mkv", moving, "rgb24"), save(tmp_path / "a", moving)
    of_file, of_folder = measure_signals(file), measure_signals(folder)
    for name in of_file:
        np.testing.assert_array_equal(of_file[name], of_folder[name])
    assert of_folder["motion"][1:].min() > 0


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".TIFF", ".webp", ".ppm", ".PNG"])
def test_kinds_without_loss_give_the_pixels_that_were_saved(tmp_path: Path, ending: str) -> None:
    lossy = {"lossless": True} if ending == ".webp" else {}
    for number, frame in enumerate(FRAMES[:2]):
        Image.fromarray(frame).save(tmp_path / f"{number}{ending}", **lossy)
    np.testing.assert_array_equal(frames_of(tmp_path), np.stack(FRAMES[:2]))


def test_other_pictures_than_rgb_become_rgb_as_a_hand_computes(tmp_path: Path) -> None:
    frame = FRAMES[0]
    gray = frame[..., 0]
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)[::-1]  # color i is 255 - i
    indexed = Image.fromarray(gray, "L").convert("P")
    indexed.putpalette(palette.tobytes())
    on = gray > 127
    cases = {
        "gray": (Image.fromarray(gray), np.repeat(gray[..., None], 3, 2)),
        "alpha": (Image.fromarray(np.dstack([frame, gray])), frame),
        "gray_alpha": (Image.fromarray(np.dstack([gray, gray])), np.repeat(gray[..., None], 3, 2)),
        "bits": (Image.fromarray(on), np.repeat((on * 255).astype(np.uint8)[..., None], 3, 2)),
        "indexed": (indexed, np.repeat((255 - gray)[..., None], 3, 2)),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_picture(tmp_path / f"{name}.png").pixels_HWC, expected, name)
    indexed.save(tmp_path / "transparent.png", transparency=bytes(range(256)))
    picture = read_picture(tmp_path / "transparent.png")
    np.testing.assert_array_equal(picture.pixels_HWC, cases["indexed"][1])
    assert picture.is_indexed


def test_a_cmyk_jpeg_has_the_colors_that_were_meant(tmp_path: Path) -> None:
    colors = {"red": (220, 30, 40), "white": (255, 255, 255), "dark": (20, 20, 20)}
    for name, color in colors.items():
        Image.new("RGB", (32, 32), color).convert("CMYK").save(tmp_path / f"{name}.jpg", quality=95)
        found = read_picture(tmp_path / f"{name}.jpg").pixels_HWC
        assert np.abs(found.astype(int) - color).max() <= 6, name


def test_pictures_are_turned_as_exif_says(tmp_path: Path) -> None:
    # What EXIF's orientation n does to the stored rows and columns, by its definition (which side the first row is on).
    upright_from = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p[::-1].transpose(1, 0, 2),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: p[:, ::-1].transpose(1, 0, 2),
    }
    for orientation, upright in upright_from.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending in (".png", ".webp", ".tif"):
            path = tmp_path / f"{orientation}{ending}"
            Image.fromarray(FRAMES[0]).save(path, exif=exif, **({"lossless": True} if ending == ".webp" else {}))
            np.testing.assert_array_equal(read_picture(path).pixels_HWC, upright(FRAMES[0]), path.name)
    exif[0x0112] = 6
    for number in (1, 2):
        Image.fromarray(FRAMES[number]).save(save(tmp_path / "clip", []) / f"{number}.jpg", exif=exif)
    assert (scan_video(tmp_path / "clip").info.height, scan_video(tmp_path / "clip").info.width) == (WIDTH, HEIGHT)


def test_deep_gray_keeps_its_upper_bits_or_is_stretched_as_a_video_is(tmp_path: Path) -> None:
    file, folder = lossless(tmp_path / "a.mkv", DEEP, "gray16le"), save(tmp_path / "a", DEEP)
    np.testing.assert_array_equal(frames_of(folder)[..., 0], np.stack(DEEP) >> 8)
    assert np.abs(frames_of(folder).astype(int) - frames_of(file)).max() <= 1, "FFmpeg rounds"
    scan = scan_video(folder, gray_range=(600, 3800))
    assert scan.info.gray_range == (600, 3800)
    assert "of its 16 bits the upper 8 are kept, --gray-range" in scan_video(folder).notes["range"]
    by_hand = np.clip(np.rint((np.stack(DEEP).astype(float) - 600) * 255 / 3200), 0, 255)
    np.testing.assert_array_equal(frames_of(folder, gray_range=(600, 3800))[..., 1], by_hand)
    np.testing.assert_array_equal(frames_of(folder, gray_range=(600, 3800)), frames_of(file, gray_range=(600, 3800)))
    assert scan_video(save(tmp_path / "b", FRAMES), gray_range=(600, 3800)).info.gray_range == (), "8 bits stay"
    for number, frame in enumerate(DEEP):
        Image.fromarray(frame).save(save(tmp_path / "c", []) / f"{number}.tiff")
    np.testing.assert_array_equal(frames_of(tmp_path / "c"), frames_of(folder))
    save(tmp_path / "d", [frame.astype(np.float32) for frame in DEEP], "{}.tiff")
    with pytest.raises(DecodeError, match=r"5 of 5 pictures cannot be read, the first is 0\.tiff .*16 bits"):
        scan_video(tmp_path / "d")


# ---- which pictures, in which order


def test_frames_are_in_the_order_of_the_numbers() -> None:
    assert in_order(["10.jpg", "9.jpg", "1.jpg"]) == ["1.jpg", "9.jpg", "10.jpg"]
    assert in_order(["f010.JPG", "F2.jpg", "f1.jpg"]) == ["f1.jpg", "F2.jpg", "f010.JPG"]
    assert in_order(["b.png", "a.png", "c1.png"]) == ["a.png", "b.png", "c1.png"]
    assert in_order(["01.png", "1.png", "2.png"]) == in_order(["2.png", "1.png", "01.png"]), "however they are listed"
    assert in_order(["s2_01.png", "s10_01.png", "s2_10.png"]) == ["s2_01.png", "s2_10.png", "s10_01.png"]


def test_the_usual_kind_is_the_video_and_the_rest_is_told() -> None:
    frames = frames_among(["1.jpg", "2.JPEG", "cover.png", "3.jpg", "._1.jpg", "Thumbs.db", ".DS_Store"])
    assert (frames.names, frames.num_others) == (("1.jpg", "2.JPEG", "3.jpg"), 1)
    assert frames.oddities() == ["1 pictures of another kind than .jpg were left out"]
    assert frames_among(["1.jpg", "1.png", "a.txt"]) is None
    assert frames_among(["1.png", "2.png", "1.jpg", "2.jpg"]).names == ("1.jpg", "2.jpg")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.png", "2.png", "3.png"], ""),
        (["0.png", "5.png", "10.png"], ""),
        (["a.png", "b.png"], ""),
        (["1.png", "2.png", "4.png", "5.png"], r"leave gaps, the first after 2\.png: frames may be missing"),
        (["a_1.png", "a_2.png", "b_1.png", "b_2.png"], r"begin anew at b_1\.png: these may be several clips"),
    ],
)
def test_gaps_and_several_series_are_noted(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        Image.fromarray(FRAMES[0]).save(tmp_path / name)
    notes = scan_video(tmp_path).notes
    assert re.search(f"^.*{words}$", notes["pictures"]) if words else "pictures" not in notes


def test_masks_and_files_of_several_pictures_are_noted(tmp_path: Path) -> None:
    mask = Image.fromarray(FRAMES[0][..., 0] % 3, "L").convert("P")
    for number in range(3):
        mask.save(save(tmp_path / "masks", []) / f"{number}.png")
    assert (
        "3 pictures are numbers of a palette's colors, as masks are" in scan_video(tmp_path / "masks").notes["pictures"]
    )
    pages = [Image.fromarray(frame) for frame in FRAMES[:3]]
    for number in range(2):
        pages[0].save(save(tmp_path / "pages", []) / f"{number}.tif", save_all=True, append_images=pages[1:])
    assert "2 files hold several pictures" in scan_video(tmp_path / "pages").notes["pictures"]
    np.testing.assert_array_equal(frames_of(tmp_path / "pages")[1], FRAMES[0])


def test_links_are_followed_and_hidden_files_are_not_frames(tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "elsewhere", FRAMES)
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(3):
        (clip / f"{number}.png").symlink_to(elsewhere / f"{number:05d}.png")
    (clip / "._0.png").write_bytes(b"x")
    (clip / ".hidden.png").write_bytes(b"x")
    (clip / "5.png").mkdir()
    (tmp_path / "link").symlink_to(clip)
    np.testing.assert_array_equal(frames_of(tmp_path / "link"), np.stack(FRAMES[:3]))
    (clip / "3.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DecodeError, match=r"1 of 4 pictures cannot be read, the first is 3\.png .*No such file"):
        scan_video(clip)


# ---- what is refused


def test_damaged_pictures_make_the_folder_unreadable_and_are_named(tmp_path: Path) -> None:
    for ending, keep in ((".png", 0.6), (".jpg", 0.6), (".webp", 0.6), (".bmp", 0.6), (".tif", 0.6)):
        folder = save(tmp_path / ending, FRAMES, "{}" + ending)
        whole = (folder / f"4{ending}").read_bytes()
        (folder / f"4{ending}").write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(DecodeError, match=rf"1 of 7 pictures cannot be read, the first is 4\{ending} \("):
            scan_video(folder)
    folder = save(tmp_path / "words", FRAMES)
    for number in (2, 5):
        (folder / f"{number:05d}.png").write_text("no picture")
    words = r"2 of 7 pictures cannot be read, the first is 00002\.png \(it holds none of JPEG, PNG"
    with pytest.raises(DecodeError, match=words) as caught:
        scan_video(folder)
    assert str(caught.value).startswith(f"cannot decode {folder}: ")
    (folder / "00002.png").write_text("")
    with pytest.raises(DecodeError, match="first is 00002"):
        scan_video(folder)


def test_other_formats_in_disguise_are_not_opened(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript: what is called .jpg must hold one of the kinds."""
    for number in range(2):
        Image.fromarray(FRAMES[number]).save(tmp_path / f"{number}.eps")
        (tmp_path / f"{number}.eps").rename(tmp_path / f"{number}.jpg")
    with pytest.raises(DecodeError, match=r"2 of 2 pictures cannot be read.*it holds none of"):
        scan_video(tmp_path)
    for number in range(2):  # a wrong name is no harm
        Image.fromarray(FRAMES[number]).save(tmp_path / f"{number}.jpg", format="PNG")
    np.testing.assert_array_equal(frames_of(tmp_path), np.stack(FRAMES[:2]))


def test_photos_of_several_sizes_are_no_video(tmp_path: Path) -> None:
    save(tmp_path, FRAMES)
    Image.fromarray(FRAMES[0][:30]).save(tmp_path / "00003.png")
    with pytest.raises(DecodeError, match=r"picture 00003\.png has 50 x 30 pixels and 00000\.png 50 x 34; .* one size"):
        scan_video(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "it holds none"),
        (["a.txt"], "it holds none"),
        (["1.png"], r"it holds 1\.png alone"),
        (["1.png", "1.jpg"], "alone"),
    ],
)
def test_a_folder_without_two_pictures_is_no_video(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    for read in (scan_video, open_video, content_id, quick_id):
        with pytest.raises(DecodeError, match=rf"two pictures of one kind or more \(.*\.jpg .*\); .*{words}"):
            read(tmp_path)


def test_a_folder_that_changed_since_it_was_scanned_is_told(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", FRAMES)
    settled = time.time() - 60
    os.utime(folder, (settled, settled))  # so old that its listing is remembered
    info = scan_video(folder).info
    assert list_frames(folder) is list_frames(folder)
    Image.fromarray(FRAMES[1][:, :40]).save(folder / "00001.png")  # another size, under the same name
    with open_video(folder, info=info) as reader:
        np.testing.assert_array_equal(reader.frames_at(np.array([2]))[0].permute(1, 2, 0), FRAMES[2])
        with pytest.raises(DecodeError, match=r"00001\.png has 40 x 34 pixels and the index 50 x 34"):
            reader.frames_at(np.array([0, 1]))
        with pytest.raises(DecodeError, match="frame 7 is outside the video"):
            reader.frames_at(np.array([7]))
    with pytest.raises(DecodeError, match="the reader is closed"):
        reader.frames_at(np.array([0]))
    (folder / "00003.png").unlink()
    with pytest.raises(DecodeError, match="holds 6 pictures, the index says 7: it changed"):
        open_video(folder, info=info)
    shutil.rmtree(folder)
    with pytest.raises(DecodeError, match="there is no such file"):
        open_video(folder, info=info)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", FRAMES)
    (folder / "00002.png").chmod(0)
    with pytest.raises(DecodeError, match=r"the first is 00002\.png .*Permission denied"):
        scan_video(folder)
    folder.chmod(0)
    with pytest.raises(DecodeError, match=r"the folder cannot be listed.*Permission"):
        scan_video(folder)
    folder.chmod(0o755)


def test_a_decoder_that_is_forced_is_for_files_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", FRAMES)
    with open_video(folder, "pyav") as reader:
        np.testing.assert_array_equal(reader.frames_at(np.array([4]))[0].permute(1, 2, 0), FRAMES[4])
    assert resolve_decoder("pyav", ("pictures",)) == resolve_decoder("auto", ("pictures",)) == "pictures"
    with pytest.raises(SsvidError, match=r"'pictures'.* is not known"):
        resolve_decoder("pictures")
    with pytest.raises(SsvidError, match="decrod"):
        open_video(folder, "decrod")


# ---- identity


def test_the_content_of_a_folder_is_its_pictures_in_order_whatever_their_names(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", FRAMES)
    files = [(folder / f"{number:05d}.png").read_bytes() for number in range(7)]
    by_hand = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files)).hexdigest()
    assert content_id(folder) == by_hand
    renamed = save(tmp_path / "b", [])
    for number, content in enumerate(files):
        (renamed / f"frame{number + 9}.png").write_bytes(content)
    (renamed / "notes.txt").write_text("not a frame")
    assert (content_id(renamed), quick_id(renamed)) == (by_hand, quick_id(folder))
    assert len(quick_id(folder)) == 32
    (renamed / "frame9.png").write_bytes(files[1])
    (renamed / "frame10.png").write_bytes(files[0])
    assert content_id(renamed) != by_hand, "another order is another video"
    (renamed / "frame15.png").unlink()
    assert quick_id(renamed) != quick_id(folder)


# ---- real clips


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="SSVID_REAL_DATA is not set")
@pytest.mark.parametrize("name", ["blackswan", "car-shadow", "libby", "motocross-jump"])
def test_davis_is_what_pillow_reads(name: str) -> None:
    folder = Path(REAL) / "davis/DAVIS2016/JPEGImages/480p" / name
    paths = sorted(folder.glob("*.jpg"))
    scan = scan_video(folder, fps=24)
    assert (scan.info.num_frames, scan.info.fps, scan.info.height, scan.info.width) == (len(paths), 24, 480, 854)
    assert "pictures" not in scan.notes
    numbers = np.array([len(paths) - 1, 0, len(paths) // 2])
    with open_video(folder, info=scan.info) as reader:
        for frame_CHW, number in zip(reader.frames_at(numbers), numbers, strict=True):
            expected = np.asarray(Image.open(paths[number]).convert("RGB"))
            np.testing.assert_array_equal(frame_CHW.permute(1, 2, 0).numpy(), expected)
