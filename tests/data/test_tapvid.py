"""Pickles of TAP-Vid become pictures and tracks; nothing of a pickle is ever run; a killed conversion leaves nothing behind."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssvid.cli import main
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.plain_pickle import load_plain_pickle
from ssvid.data.readers import list_videos
from ssvid.data.tapvid import convert_tapvid
from ssvid.data.truth import read_truth
from ssvid.errors import DataError
from ssvid.video import open_video, read_clips

NUM_FRAMES, HEIGHT, WIDTH, NUM_POINTS = 4, 20, 30, 5


def video(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "video": rng.integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "points": rng.random((NUM_POINTS, NUM_FRAMES, 2)).astype(np.float32),
        "occluded": rng.random((NUM_POINTS, NUM_FRAMES)) < 0.4,
    }


def dump(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def converted(root: Path, content: object) -> Path:
    convert_tapvid(dump(root / "in.pkl", content), root / "out")
    return root / "out"


# ---- what is converted


def test_frames_are_lossless_and_points_are_pixels_from_the_center_of_the_first(tmp_path: Path) -> None:
    videos = {"dog": video(0), "bike-packing": video(1)}
    videos["dog"]["points"][0, 0] = 0.5 / WIDTH, 0.5 / HEIGHT  # the center of the first pixel
    videos["dog"]["points"][1, 3] = 1.0, 1.0  # the lower right corner
    out = converted(tmp_path, videos)
    listing = list_videos("tapvid", out)
    assert [(e.path, e.split, e.truth) for e in listing] == [
        ("frames/bike-packing", "test", "truth/bike-packing.npz"),
        ("frames/dog", "test", "truth/dog.npz"),
    ]
    for entry in listing:
        known = videos[Path(entry.path).name]
        pictures = sorted((out / entry.path).iterdir())
        assert np.array_equal([np.asarray(Image.open(path)) for path in pictures], known["video"])
        truth = read_truth(out, VideoRow(entry.path, NUM_FRAMES, 24.0, HEIGHT, WIDTH, truth=entry.truth))
        assert truth.masks is None
        assert truth.tracks is not None
        assert np.array_equal(truth.tracks.visible_TQ, ~known["occluded"].T)
        shares = (truth.tracks.points_TQ2 + 0.5) / (WIDTH, HEIGHT)
        np.testing.assert_allclose(shares, known["points"].transpose(1, 0, 2), atol=1e-12)
    assert np.abs(truth.tracks.points_TQ2[0, 0]).max() < 1e-6
    assert truth.tracks.points_TQ2[3, 1].tolist() == [WIDTH - 0.5, HEIGHT - 0.5]


def test_a_list_is_named_by_numbers_and_jpeg_files_stay_as_they_are(tmp_path: Path) -> None:
    files = []
    for number in range(NUM_FRAMES):
        file = io.BytesIO()
        Image.fromarray(video(number)["video"][0]).save(file, "JPEG")
        files.append(file.getvalue())
    out = converted(tmp_path, [video(0), {**video(1), "video": files}])
    assert [entry.path for entry in list_videos("tapvid", out)] == ["frames/00000", "frames/00001"]
    assert [path.read_bytes() for path in sorted((out / "frames/00001").iterdir())] == files
    row = VideoRow("frames/00001", NUM_FRAMES, 24.0, HEIGHT, WIDTH, truth="truth/00001.npz")
    tracks = read_truth(out, row).tracks
    assert tracks is not None
    np.testing.assert_allclose(tracks.points_TQ2[1, 2], video(1)["points"][2, 1] * [WIDTH, HEIGHT] - 0.5, rtol=1e-6)


def test_the_command_converts_and_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dump(tmp_path / "a.pkl", {"dog": video()})
    assert main(["data", "tapvid", str(path), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 videos of 4 frames and 5 points in all, written to" in said
    assert f"table: {tmp_path / 'out' / 'manifest.csv'}" in said
    (row,) = Manifest.load(tmp_path / "out/manifest.csv").rows
    assert (row.path, row.truth, row.split, row.status) == ("frames/dog", "truth/dog.npz", "test", "ok")
    assert (row.num_frames, row.height, row.width, row.fps) == (NUM_FRAMES, HEIGHT, WIDTH, 25.0)
    with open_video(tmp_path / "out/frames/dog") as reader:
        assert np.array_equal(read_clips(reader, [[0, 3]])[0].permute(0, 2, 3, 1).numpy(), video()["video"][[0, 3]])
    assert main(["data", "tapvid", str(path), str(tmp_path / "out")]) == 2
    assert "Nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (3, r"must hold a dictionary or a list of videos, it holds a int"),
        ({}, r"must hold at least one video"),
        ([3], r"video '00000' must hold video, points, occluded; it lacks video, points, occluded"),
        ({"a": {"video": 1}}, r"video 'a' must hold .*; it lacks points, occluded"),
        ({"../a": video()}, r"the name of a video \('\.\./a'\) must be a text that can be the name of a folder"),
        ({"": video()}, r"the name of a video \(''\)"),
        ({1: video()}, r"the name of a video \(1\)"),
        ({"a": {**video(), "video": np.zeros((4, 8, 8))}}, r"video must be bytes of shape .*it is an array of float64"),
        ({"a": {**video(), "video": [b"text"] * 4}}, r"video must be bytes .* it is a list"),
        ({"a": {**video(), "video": [b"\xff\xd8"] * 4}}, r"the first frame is no JPEG"),
        ({"a": {**video(), "points": np.zeros((5, 3, 2))}}, r"points must be of shape points x 4 \(frames\) x 2"),
        ({"a": {**video(), "occluded": np.zeros((5, 4))}}, r"occluded must be an array of true and false"),
        (
            {"a": {**video(), "points": np.array([{}], object)}},
            r"points must be an array of numbers, it is an array of object",
        ),
    ],
)
def test_what_is_no_tapvid_is_refused_and_leaves_nothing(tmp_path: Path, content: object, match: str) -> None:
    path = dump(tmp_path / "in.pkl", content)
    with pytest.raises(DataError, match=match):
        convert_tapvid(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_conversion_leaves_no_folder_and_the_next_removes_its_traces(tmp_path: Path) -> None:
    path = dump(tmp_path / "in.pkl", {"a": video(0), "b": video(1)})
    code = (
        "import os, signal, sys; from ssvid.data.tapvid import convert_tapvid;"
        "convert_tapvid(sys.argv[1], sys.argv[2], progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "out")])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.glob(".out.*.tmp/frames/*")] == ["a"]
    convert_tapvid(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pkl", "out"]
    assert sorted(p.name for p in (tmp_path / "out/frames").iterdir()) == ["a", "b"]


def test_a_folder_that_was_not_converted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"must hold the folders frames and truth .*ssvid data tapvid tapvid_davis\.pkl"
    ):
        list_videos("tapvid", tmp_path)
    out = converted(tmp_path, {"a": video(), "b": video()})
    (out / "truth/b.npz").unlink()
    with pytest.raises(DataError, match=r"all 2 videos, it lacks truth/b\.npz"):
        list_videos("tapvid", out)


# ---- what a pickle may hold


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_data_are_read_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {
        "a": [video(), (1, 2.5, None, True, b"bytes", "text")],
        "scalar": np.float32(0.5),
        "order": np.arange(6).reshape(2, 3).T,
    }
    loaded = load_plain_pickle(dump(tmp_path / "a.pkl", content, protocol))
    assert loaded["a"][1] == content["a"][1]  # type: ignore[index]
    assert loaded["scalar"] == np.float32(0.5)
    assert np.array_equal(loaded["order"], content["order"])  # type: ignore[arg-type]
    assert all(np.array_equal(loaded["a"][0][name], array) for name, array in video().items())


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_pickles_of_numpy_1_and_2_are_read_by_either(tmp_path: Path, core: str) -> None:
    # Protocol 0 holds names as lines, so that they can be exchanged.
    written = pickle.dumps(video()["points"], protocol=0)
    path = tmp_path / "a.pkl"
    path.write_bytes(written.replace(b"numpy._core", core.encode()).replace(b"numpy.core", core.encode()))
    assert core.encode() in path.read_bytes()
    assert np.array_equal(load_plain_pickle(path), video()["points"])


class Asks:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Asks(os.system, "touch trace"), r"(posix|nt)\.system"),
        (Asks(eval, "open('trace', 'w')"), r"(__builtin__|builtins)\.eval"),
        (Asks(exec, "open('trace', 'w')"), r"(__builtin__|builtins)\.exec"),
        (Asks(open, "trace", "w"), r"_?io\.open"),
        (Asks(subprocess.Popen, ["touch", "trace"]), r"(subprocess|commands)\.Popen"),
        (Asks(getattr, np.dtype, "type"), r"(__builtin__|builtins)\.getattr"),
        (Asks(np.memmap, "trace", "u1", "w+", 0, (4,)), r"numpy\.memmap"),
        (Asks(np.load, "trace"), r"numpy\.load"),
        (Asks(np.ndarray.tofile, np.zeros(3), "trace"), r"((__builtin__|builtins)\.getattr|numpy\.ndarray\.tofile)"),
        (Path("trace"), r"pathlib"),
    ],
    ids=["system", "eval", "exec", "open", "Popen", "getattr", "memmap", "load", "tofile", "Path"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_asks_to_run_something_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: object, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = dump(tmp_path / "in.pkl", {"dog": {**video(), "more": asked}}, protocol)
    with pytest.raises(DataError, match=rf"asks to run {name}.*nothing was run"):
        convert_tapvid(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_names_below_what_is_allowed_are_refused_too(tmp_path: Path) -> None:
    """A pickle of protocol 4 may ask for an attribute of what it may have."""
    for name in (b"ndarray.tofile", b"ndarray.__class__", b"dtype.__class__.__base__"):
        path = tmp_path / "a.pkl"
        path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name + b"\x93.")
        with pytest.raises(DataError, match=rf"asks to run numpy\.{name.decode()}"):
            load_plain_pickle(path)


def test_bytes_are_text_of_latin1_and_no_other_codec_is_called(tmp_path: Path) -> None:
    assert load_plain_pickle(dump(tmp_path / "a.pkl", b"\xff\x00", 2)) == b"\xff\x00"
    import codecs

    with pytest.raises(DataError, match=r"asks to run _codecs\.encode to zip"):
        load_plain_pickle(dump(tmp_path / "a.pkl", Asks(codecs.encode, "text", "zip"), 2))


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"\x80\x04", b"\x80\xff."], ids=["empty", "text", "cut", "protocol"]
)
def test_what_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl is no whole pickle \(.*\)\. Fetch it again"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_every_cut_of_a_pickle_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": video()}, protocol=4)
    for length in np.linspace(1, len(whole) - 1, 40).astype(int):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(DataError, match="is no whole pickle"):
            load_plain_pickle(tmp_path / "a.pkl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pkl cannot be read: No such file or directory"):
        load_plain_pickle(tmp_path / "none.pkl")
