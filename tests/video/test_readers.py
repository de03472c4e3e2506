"""Frame i is the i-th frame of a sequential decode, for every kind of file, decoder and order of asking."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import ssvid.video.decoders.choice as decoders_module
import ssvid.video.random_access as pyav_module
import ssvid.video.streams as streams
from ssvid.errors import DecodeError, SsvidError
from ssvid.types import VideoInfo
from ssvid.video import (
    DECODERS_BY_SPEED,
    VideoScan,
    available_decoders,
    open_video,
    read_clips,
    resolve_decoder,
    scan_video,
    write_video,
)
from ssvid.video.decoders.choice import DecoderStatus, create_reader
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.random_access import packet_table
from ssvid.video.streams import FrameConverter, matrix_orientation, open_stream
from tests.video.clocked import HEIGHT, WIDTH, clock_frame, clock_frames, clocks, encode, sequential_oracle

NUM_FRAMES = 90
VFR_TIMES = np.cumsum([40 if i % 3 else 100 for i in range(NUM_FRAMES)]).tolist()
INSTALLED = [name for name, status in available_decoders().items() if status.works]

# name -> (suffix, arguments of ``encode``, how PyAV finds frames in it: by their time, by counting from key frames, or
# from the start of the file)
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mp4": (".mp4", {}, "time"),
    "mp4, one key frame": (".mp4", {"gop": 500}, "time"),
    "mp4, B-frames": (".mp4", {"b_frames": 3}, "time"),
    "mp4, open groups of pictures": (".mp4", {"b_frames": 3, "x264-params": "open-gop=1:keyint=12"}, "time"),
    "mp4, hevc with B-frames": (".mp4", {"codec": "libx265", "b_frames": 3, "x265-params": "log-level=none"}, "time"),
    "mp4, mpeg4 with B-frames": (".mp4", {"codec": "mpeg4", "b_frames": 2}, "time"),
    "mkv, variable rate": (".mkv", {"times": VFR_TIMES, "time_base": Fraction(1, 1000)}, "time"),
    "webm, vp9": (".webm", {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"}, "time"),
    "avi, mpeg4": (".avi", {"codec": "mpeg4"}, "time"),
    "avi, mpeg4 with B-frames": (".avi", {"codec": "mpeg4", "b_frames": 2}, "time"),
    "avi, h264 with B-frames": (".avi", {"b_frames": 2}, "count"),
    "avi, h264 with open groups": (".avi", {"b_frames": 2, "x264-params": "open-gop=1:keyint=12"}, "start"),
    "ts, mpeg2 with B-frames": (".ts", {"codec": "mpeg2video", "b_frames": 2}, "time"),
    "mts, h264 with B-frames": (".mts", {"b_frames": 2}, "time"),
    "mpg, mpeg2 with B-frames": (".mpg", {"codec": "mpeg2video", "b_frames": 2}, "time"),
    "vob, mpeg2 with B-frames, two packets of one time": (".vob", {"codec": "mpeg2video", "b_frames": 2}, "start"),
    "flv, h264 with B-frames": (".flv", {"b_frames": 2}, "time"),
    "wmv": (".wmv", {"codec": "wmv2"}, "time"),
    "raw h264 with B-frames": (".h264", {"b_frames": 2}, "start"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind, frame i showing the number i."""
    folder = tmp_path_factory.mktemp("kinds")
    frames = clock_frames(NUM_FRAMES)
    return {
        kind: encode(folder / f"{number}{suffix}", frames, **arguments)
        for number, (kind, (suffix, arguments, _)) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="module")
def scans(files: dict[str, Path]) -> dict[str, VideoScan]:
    return {kind: scan_video(path) for kind, path in files.items()}


def requests(num_frames: int, seed: int = 0) -> list[np.ndarray]:
    """Frame numbers as they are asked for: all, runs, strides, scattered, backwards, repeated, first and last."""
    rng = np.random.default_rng(seed)
    last = num_frames - 1
    fixed = [np.arange(num_frames), np.array([last]), np.array([0]), np.array([last, 0, last, 5]), np.arange(40, 8, -4)]
    runs = [int(rng.integers(num_frames - 16)) + np.arange(16) for _ in range(4)]
    return [*fixed, *runs, *(rng.integers(0, num_frames, 6) for _ in range(8))]


@pytest.mark.parametrize("kind", KINDS)
def test_pyav_returns_the_frame_whose_number_was_asked_for(kind: str, files: dict[str, Path]) -> None:
    info = VideoInfo(str(files[kind]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    for wanted in requests(NUM_FRAMES):
        for seek in (True, False):
            with create_reader("pyav", str(files[kind]), info, seek=seek) as reader:
                assert clocks(reader.frames_at(wanted).numpy()) == wanted.tolist(), (kind, seek)


@pytest.mark.parametrize("kind", KINDS)
def test_pyav_random_access_gives_the_pixels_of_a_sequential_decode(kind: str, files: dict[str, Path]) -> None:
    oracle = np.stack(sequential_oracle(files[kind])).transpose(0, 3, 1, 2)
    info = VideoInfo(str(files[kind]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    with create_reader("pyav", str(files[kind]), info) as reader:
        for wanted in requests(NUM_FRAMES):
            assert np.array_equal(reader.frames_at(wanted).numpy(), oracle[wanted])


@pytest.mark.parametrize(("kind", "decoder"), list(product(KINDS, [d for d in INSTALLED if d != "pyav"])))
def test_a_decoder_that_the_scan_approves_returns_the_right_frames(
    kind: str, decoder: str, files: dict[str, Path], scans: dict[str, VideoScan]
) -> None:
    scan = scans[kind]
    if decoder not in scan.decoders_ok:
        assert decoder in scan.notes  # excluded, and it says why
        return
    for wanted in requests(NUM_FRAMES):
        with open_video(files[kind], decoder, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
            assert clocks(reader.frames_at(wanted).numpy()) == wanted.tolist()


def test_every_kind_of_file_was_judged(scans: dict[str, VideoScan]) -> None:
    assert len(scans) == 19
    for kind, scan in scans.items():
        assert scan.info.num_frames == NUM_FRAMES
        assert "pyav" in scan.decoders_ok
        assert scan.has_b_frames == ("B-frames" in kind or "open groups" in kind)
        assert scan.info.variable_fps == ("variable" in kind)
    for kind in ("mp4", "mp4, B-frames", "mkv, variable rate", "avi, mpeg4"):
        assert set(INSTALLED) == set(scans[kind].decoders_ok), kind
    for kind in ("avi, mpeg4 with B-frames", "avi, h264 with B-frames", "raw h264 with B-frames"):
        assert scans[kind].decoders_ok == ("pyav",), kind


@pytest.mark.parametrize("kind", KINDS)
def test_pyav_seeks_where_it_may_and_only_there(
    kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the other way was taken")

    ways = {"time": "_decode_by_time", "count": "_decode_by_count", "start": "_decode_from_start"}
    info = VideoInfo(str(files[kind]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    create_reader("pyav", str(files[kind]), info).frames_at(
        np.array([3, 47, 89])
    )  # what the times are worth is known then
    table = packet_table(str(files[kind]))
    if "two packets of one time" in kind and table is not None and len(set(table.pts)) == len(table.pts):
        pytest.skip("this encoder puts no two packets at one time")
    untimed = table is None or not table.times_hold
    for way, name in ways.items():
        if (
            way != KINDS[kind][2]
            and not (way == "time" and untimed)
            and not (way == "count" and KINDS[kind][2] == "start")
        ):
            monkeypatch.setattr(pyav_module, name, refuse)
    with create_reader("pyav", str(files[kind]), info) as reader:
        assert clocks(reader.frames_at(np.array([3, 47, 89])).numpy()) == [3, 47, 89]


@pytest.mark.parametrize("kind", [k for k, (_, _, way) in KINDS.items() if way != "start" and "one key" not in k])
def test_seeking_decodes_from_the_nearest_key_frame(
    kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = pyav_module._CheckedWalk._feed

    def count(walk: Any) -> bool:
        decoded.append(1)
        return original(walk)

    monkeypatch.setattr(pyav_module._CheckedWalk, "_feed", count)
    info = VideoInfo(str(files[kind]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    create_reader("pyav", str(files[kind]), info).frames_at(np.array([70]))
    decoded.clear()
    create_reader("pyav", str(files[kind]), info).frames_at(
        np.array([71])
    )  # a key frame at least every 12; vp9: none but 0
    assert len(decoded) <= (80 if "vp9" in kind else 26)


LIES: dict[str, Callable[[Any], Any]] = {
    "times shifted": lambda t: replace(t, pts=t.pts + 512, shown_pts=t.shown_pts + 512),
    "one time is wrong": lambda t: replace(t, shown_pts=np.where(t.shown_pts == t.shown_pts[47], 1, t.shown_pts)),
    "every frame a key frame": lambda t: replace(t, is_key=np.ones_like(t.is_key)),
    "no key frame": lambda t: replace(t, is_key=np.zeros_like(t.is_key)),
    "packets in another order": lambda t: replace(t, pts=np.sort(t.pts)),
    "sizes of other packets": lambda t: replace(t, size=np.roll(t.size, 1)),
    "places of other packets": lambda t: replace(t, position=np.roll(t.position, 9)),
}


@pytest.mark.parametrize("lie", LIES)
def test_pyav_falls_back_where_the_packets_do_not_say_what_is_decoded(
    lie: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(files["mp4, B-frames"])
    table = packet_table(path)
    assert table is not None
    monkeypatch.setattr(pyav_module, "packet_table", lambda _: LIES[lie](table))
    info = VideoInfo(path, NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    for wanted in requests(NUM_FRAMES):
        with create_reader("pyav", path, info) as reader:
            assert clocks(reader.frames_at(wanted).numpy()) == wanted.tolist()


def test_pyav_does_not_seek_when_the_count_of_frames_is_another(files: dict[str, Path]) -> None:
    info = VideoInfo(str(files["mp4"]), NUM_FRAMES - 1, 25.0, HEIGHT, WIDTH)
    with create_reader("pyav", str(files["mp4"]), info) as reader:
        assert clocks(reader.frames_at(np.array([80])).numpy()) == [80]


def test_packet_tables_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = str(tmp_path / "a.mp4")
    write_video(path, clock_frames(20), fps=25)
    first = packet_table(path)
    assert packet_table(path) is first
    write_video(path, clock_frames(30), fps=25)
    second = packet_table(path)
    assert second is not None
    assert len(second.shown_pts) == 30


# -- orientation ------------------------------------------------------------------------------------------------------


def move_pixels(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The definition of a display matrix, pixel by pixel: (x, y) goes to (x, y) @ matrix, moved back into view."""
    height, width = picture.shape
    places = {(x, y): np.array([x, y]) @ matrix for x in range(width) for y in range(height)}
    low = np.min(list(places.values()), axis=0)
    moved = np.zeros(np.ptp(list(places.values()), axis=0)[::-1] + 1, picture.dtype)
    for (x, y), place in places.items():
        moved[place[1] - low[1], place[0] - low[0]] = picture[y, x]
    return moved


@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("turns", range(4))
def test_all_eight_orientations_follow_the_definition_of_the_display_matrix(turns: int, mirror: int) -> None:
    quarter = np.array([[0, 1], [-1, 0]])
    matrix = np.diag([mirror, 1]) @ np.linalg.matrix_power(quarter, turns)
    picture = np.arange(6).reshape(2, 3)
    k, mirrored = matrix_orientation(matrix)
    ours = np.rot90(picture[:, ::-1] if mirrored else picture, k)
    assert np.array_equal(ours, move_pixels(picture, matrix))


def test_an_empty_display_matrix_means_upright() -> None:
    assert matrix_orientation(np.zeros((2, 2), np.int32)) == (0, False)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("decoder", INSTALLED)
def test_rotated_videos_come_upright_from_every_decoder(rotation: int, decoder: str, tmp_path: Path) -> None:
    upright = clock_frames(20)
    turns = rotation // 90
    path = encode(tmp_path / "a.mp4", [np.rot90(frame, -turns).copy() for frame in upright], rotation=rotation)
    scan = scan_video(path, [decoder])
    assert (scan.info.height, scan.info.width) == (HEIGHT, WIDTH)
    assert scan.decoders_ok == (decoder,)
    with open_video(path, decoder, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
        frames_TCHW = reader.frames_at(np.arange(20)).numpy()
    assert clocks(frames_TCHW) == list(range(20))


def test_a_mirrored_video_comes_upright(tmp_path: Path) -> None:
    one = 1 << 16
    mirrored = [frame[:, ::-1].copy() for frame in clock_frames(10)]
    path = encode(tmp_path / "a.mp4", mirrored, matrix=[-one, 0, 0, 0, one, 0, 0, 0, 1 << 30])
    assert clocks(open_video(path).frames_at(np.arange(10)).numpy()) == list(range(10))


# -- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", INSTALLED)
def test_frames_come_as_uint8_channels_first_in_the_order_asked(decoder: str, files: dict[str, Path]) -> None:
    with open_video(files["mp4"], decoder) as reader:
        frames_TCHW = reader.frames_at(np.array([7, 3, 7], np.int32))
    assert frames_TCHW.dtype == torch.uint8
    assert frames_TCHW.shape == (3, 3, HEIGHT, WIDTH)
    assert clocks(frames_TCHW.numpy()) == [7, 3, 7]


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50), (128, 128, 128)])
def test_colors_survive_writing_and_reading(decoder: str, color: tuple[int, int, int], tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), color, np.uint8)] * 3, fps=10, crf=4)
    with open_video(tmp_path / "a.mp4", decoder) as reader:
        mean_RGB = reader.frames_at(np.array([1])).float().mean((0, 2, 3)).numpy()
    assert np.abs(mean_RGB - color).max() <= 3  # limited-range YUV has 219 levels of gray


class CountingReader(VideoReader):
    """A reader without a file that counts how often it is asked; frame i is filled with i."""

    def __init__(self, path: Path, num_frames: int) -> None:
        super().__init__(path, VideoInfo(str(path), num_frames, 25.0, 2, 2))
        self.calls: list[list[int]] = []

    def _decode_sorted(self, indices: np.ndarray) -> Any:
        self.calls.append(indices.tolist())
        yield from ((place, np.full((2, 2, 3), number, np.uint8)) for place, number in enumerate(indices))


def test_read_clips_asks_once_for_the_sorted_union(files: dict[str, Path]) -> None:
    reader = CountingReader(files["mp4"], 50)
    clips = [np.array([9, 8, 7]), np.array([8, 8, 40, 0]), np.array([9])]
    frames = read_clips(reader, clips)
    assert reader.calls == [[0, 7, 8, 9, 40]]
    assert [clip[:, 0, 0, 0].tolist() for clip in frames] == [clip.tolist() for clip in clips]


def test_clips_are_contiguous_and_share_no_storage(files: dict[str, Path]) -> None:
    with open_video(files["mp4"]) as reader:
        clips = read_clips(reader, [np.arange(4), np.arange(4), np.arange(2, 6)])
        together = reader.frames_at(np.arange(6))
    assert all(clip.is_contiguous() for clip in clips)
    assert len({clip.untyped_storage().data_ptr() for clip in clips}) == 3
    assert all(clip.untyped_storage().nbytes() == clip.numel() for clip in clips)
    assert torch.equal(clips[2], together[2:6])
    assert read_clips(reader, []) == []


def test_readers_give_their_files_back(files: dict[str, Path]) -> None:
    def num_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files the Linux way")
    info = VideoInfo(str(files["mp4"]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    for decoder in INSTALLED:
        create_reader(decoder, str(files["mp4"]), info).frames_at(np.array([50]))
        before = num_open()
        for _ in range(5):
            with create_reader(decoder, str(files["mp4"]), info) as reader:
                reader.frames_at(np.array([50]))
        assert num_open() <= before, decoder


class Watched:
    """The packets of a file, and whether they were given back while the file was still open."""

    all: ClassVar[list["Watched"]] = []

    def __init__(self, container: Any, stream: Any) -> None:
        self.container, self.packets, self.closed_in_time = container, container.demux(stream), False
        Watched.all.append(self)

    def __iter__(self) -> "Watched":
        return self

    def __next__(self) -> Any:
        return next(self.packets)

    def close(self) -> None:
        self.packets.close()
        self.closed_in_time = self.container.size > 0  # raises or is 0 where the file is closed


@pytest.mark.parametrize("seek", [True, False])
@pytest.mark.parametrize("kind", ["mp4", "ts, mpeg2 with B-frames"])
def test_packets_are_given_back_before_their_file_is_closed(
    kind: str, seek: bool, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended demuxer that outlives its file leaked 5 kB at every open."""
    for module in (pyav_module, streams):
        monkeypatch.setattr(module, "demux", Watched)
    monkeypatch.setattr(Watched, "all", [])
    info = VideoInfo(str(files[kind]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    with create_reader("pyav", str(files[kind]), info, seek=seek) as reader:
        reader.frames_at(np.array([3, 60]))
        next(iter(reader.each_frame(np.array([3, 60]))))  # given up after the first
        with pytest.raises(DecodeError):
            create_reader("pyav", str(files[kind]), replace(info, height=1)).frames_at(np.array([3, 60]))
    assert len(Watched.all) >= 3
    assert all(watched.closed_in_time for watched in Watched.all)


@pytest.mark.slow
def test_a_thousand_opens_leave_nothing_in_memory(files: dict[str, Path]) -> None:
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("reads its own memory the Linux way")
    info = VideoInfo(str(files["mp4"]), NUM_FRAMES, 25.0, HEIGHT, WIDTH)

    def open_often(times: int) -> int:
        for number in range(times):
            with create_reader("pyav", str(files["mp4"]), info) as reader:
                reader.frames_at(np.array([5, 30 + number % 40]))
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = open_often(1000)  # the allocator has all it needs by then
    assert open_often(1000) - before < 2_000_000


# -- which decoder ----------------------------------------------------------------------------------------------------


def all_work(name: str) -> DecoderStatus:
    return DecoderStatus("1", None)


def test_auto_takes_the_fastest_that_is_right_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders_module, "decoder_status", all_work)
    assert resolve_decoder("auto", ("pyav", "decord", "torchcodec")) == "torchcodec"
    assert resolve_decoder("auto", ("decord", "pyav")) == "pyav"
    assert resolve_decoder("auto", ("decord",)) == "decord"
    assert resolve_decoder("auto", ("pyav",)) == "pyav"
    assert resolve_decoder("auto", ()) == "pyav"
    monkeypatch.setattr(decoders_module, "decoder_status", lambda name: DecoderStatus(None, "not installed: buy one"))
    assert resolve_decoder("auto", ("torchcodec", "decord", "pyav")) == "pyav"


def test_an_unknown_decoder_is_named_with_the_known_ones() -> None:
    with pytest.raises(SsvidError, match=r"decoder \('torchcodek'\) is not known\. Did you mean 'torchcodec'\?"):
        resolve_decoder("torchcodek")


def test_a_decoder_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders_module.importlib.util, "find_spec", lambda name: None)
    decoders_module.decoder_status.cache_clear()
    try:
        with pytest.raises(SsvidError, match=r"does not work here: not installed: pip install torchcodec.*auto"):
            resolve_decoder("torchcodec")
    finally:
        monkeypatch.undo()
        decoders_module.decoder_status.cache_clear()


def test_a_decoder_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("\nlibavutil.so.57: cannot open shared object file\nmore")

    monkeypatch.setattr("ssvid.video.decoders.torchcodec.load", broken)
    decoders_module.decoder_status.cache_clear()
    try:
        status = decoders_module.decoder_status("torchcodec")
    finally:
        monkeypatch.undo()
        decoders_module.decoder_status.cache_clear()
    if status.version is None:
        pytest.skip("torchcodec is not installed")
    assert not status.works
    assert "libavutil.so.57: cannot open shared object file" in str(status.problem)
    assert "apt install ffmpeg" in str(status.problem)


def test_available_decoders_lists_all_in_order_of_speed() -> None:
    found = available_decoders()
    assert tuple(found) == DECODERS_BY_SPEED
    assert found["pyav"].works
    assert found["pyav"].version


def test_a_forced_decoder_that_is_wrong_for_the_file_is_an_error(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders_module, "decoder_status", all_work)
    info = VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    path = files["avi, mpeg4 with B-frames"]
    with pytest.raises(
        DecodeError, match=r"decoder 'decord' returns wrong frames for this file; right are: pyav\..*auto"
    ):
        open_video(path, "decord", info=info, decoders_ok=("pyav",))


def test_pyav_is_never_refused_because_its_sequential_decode_is_right(files: dict[str, Path]) -> None:
    info = VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    with open_video(files["mp4"], "pyav", info=info, decoders_ok=("torchcodec",)) as reader:
        assert clocks(reader.frames_at(np.array([33])).numpy()) == [33]


def test_without_info_the_file_is_scanned(files: dict[str, Path]) -> None:
    with open_video(files["avi, mpeg4 with B-frames"]) as reader:
        assert reader.info.num_frames == NUM_FRAMES
        assert clocks(reader.frames_at(np.array([61])).numpy()) == [61]


def test_with_info_opening_decodes_nothing(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded at opening")

    monkeypatch.setattr(pyav_module, "open_stream", refuse)
    open_video(files["mp4"], info=VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH), decoders_ok=("pyav",))


# -- what users meet --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize(("wanted", "named"), [([0, 90], 90), ([-1, 3], -1), ([10**6], 10**6)])
def test_a_frame_outside_the_video_is_named(
    decoder: str, wanted: list[int], named: int, files: dict[str, Path]
) -> None:
    info = VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    with (
        create_reader(decoder, str(files["mp4"]), info) as reader,
        pytest.raises(DecodeError, match=f"frame {named} is outside the video: it has frames 0 to 89"),
    ):
        reader.frames_at(np.array(wanted))


@pytest.mark.parametrize("wanted", [np.array([]), np.array([0.5]), np.array([[1]]), np.array([], np.int64)])
def test_frame_numbers_must_be_integers(wanted: np.ndarray, files: dict[str, Path]) -> None:
    info = VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH)
    with pytest.raises(DecodeError, match=r"they must be integers \(T,\), at least one"):
        create_reader("pyav", str(files["mp4"]), info).frames_at(wanted)


@pytest.mark.parametrize("decoder", INSTALLED)
def test_a_file_that_changed_since_it_was_indexed_is_an_error(decoder: str, files: dict[str, Path]) -> None:
    path = str(files["mp4"])
    with pytest.raises(DecodeError, match="the file changed"):
        create_reader(decoder, path, VideoInfo(path, NUM_FRAMES, 25.0, 32, 32)).frames_at(np.array([1]))
    longer = VideoInfo(path, NUM_FRAMES + 50, 25.0, HEIGHT, WIDTH)
    with pytest.raises(DecodeError):
        create_reader(decoder, path, longer).frames_at(np.array([NUM_FRAMES + 20]))


@pytest.mark.parametrize("decoder", INSTALLED)
def test_files_that_are_no_videos_raise_one_error_type(decoder: str, tmp_path: Path) -> None:
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("this is not a video\n" * 100)
    empty.touch()
    info = VideoInfo("a", 10, 25.0, 8, 8)
    cases = {tmp_path / "absent.mp4": "no such file", tmp_path: "not a file", empty: "empty", text: "open"}
    for path, words in cases.items():
        with pytest.raises(DecodeError, match=words) as caught:
            create_reader(decoder, str(path), info).frames_at(np.array([0]))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("decoder", [d for d in INSTALLED if d != "pyav"])
def test_a_closed_reader_says_so(decoder: str, files: dict[str, Path]) -> None:
    reader = create_reader(decoder, str(files["mp4"]), VideoInfo("a", NUM_FRAMES, 25.0, HEIGHT, WIDTH))
    reader.close()
    with pytest.raises(DecodeError, match="the reader is closed"):
        reader.frames_at(np.array([0]))


@pytest.mark.parametrize("name", ["12:30 clip.mp4", "-dash.mp4", "ünïcødé 你好.mp4", "per%cent #1.mp4"])
def test_odd_file_names_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(name, clock_frames(12), fps=25)
    assert set(scan_video(name).decoders_ok) == set(INSTALLED)
    assert clocks(open_video(name).frames_at(np.array([7, 11])).numpy()) == [7, 11]


def test_a_playlist_named_as_a_video_opens_nothing_else(files: dict[str, Path], tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile '{files['mp4']}'\n")
    with pytest.raises(DecodeError):
        scan_video(playlist)


def test_a_change_of_size_in_mid_stream_is_an_error(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.ts", [clock_frame(i) for i in range(10)])
    large = encode(tmp_path / "large.ts", [clock_frame(i, 128, 192) for i in range(10)])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(DecodeError, match="the picture size changes in mid-stream"):
        create_reader("pyav", str(both), VideoInfo("a", 20, 25.0, HEIGHT, WIDTH)).frames_at(np.array([3, 15]))


def test_one_converter_serves_frames_of_any_size(tmp_path: Path) -> None:
    convert = FrameConverter()
    for height, width in ((64, 96), (66, 98), (32, 48)):
        path = encode(tmp_path / f"{height}.mp4", [clock_frame(5, height, width)])
        with open_stream(str(path)) as (container, stream):
            assert convert(next(iter(container.decode(stream)))).shape == (height, width, 3)


def test_importing_the_room_imports_no_decoder() -> None:
    code = (
        "import sys, ssvid.video; from ssvid.video import clip_indices, available_decoders, resolve_decoder;"
        "print([m for m in ('av', 'decord', 'torchcodec', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_room_lists_its_names_and_refuses_others() -> None:
    import ssvid.video

    assert set(ssvid.video.__all__) == set(ssvid.video._HOME)
    assert all(getattr(ssvid.video, name) is not None for name in ssvid.video.__all__)
    with pytest.raises(AttributeError, match="no attribute 'open_audio'"):
        _ = ssvid.video.open_audio  # type: ignore[attr-defined]
