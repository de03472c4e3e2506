"""What a scan says about healthy, odd, damaged and false files."""

import gc
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import ssvid.video.decoders.choice as decoders_module
import ssvid.video.random_access as pyav_reader
import ssvid.video.scan as scan_module
from ssvid.errors import DecodeError, SsvidError
from ssvid.video import available_decoders, open_video, scan_video, write_video
from ssvid.video.decoders.choice import DecoderStatus, create_reader
from ssvid.video.scan import MAX_DAMAGED_FRACTION, WitnessKeeper, distance, measure_fps
from ssvid.video.streams import SequentialDecode, open_stream
from tests.video.clocked import HEIGHT, WIDTH, clock_frame, clock_frames, clocks, encode, sequential_oracle

INSTALLED = tuple(name for name, status in available_decoders().items() if status.works)


def textured(num_frames: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Frames that compress badly, so that damage to a file hits pixels."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (height, width + num_frames, 3), np.uint8)
    return [ground[:, t : t + width] for t in range(num_frames)]


def test_a_healthy_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(50), fps=30)
    scan = scan_video(tmp_path / "a.mp4")
    assert scan.info.path == str(tmp_path / "a.mp4")
    assert (scan.info.num_frames, scan.info.height, scan.info.width) == (50, HEIGHT, WIDTH)
    assert scan.info.fps == pytest.approx(30)
    assert not scan.info.variable_fps
    assert scan.decoders_ok == INSTALLED
    assert not scan.has_b_frames
    assert dict(scan.notes) == {}


def test_only_the_named_decoders_are_compared(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(5), fps=30)
    assert scan_video(tmp_path / "a.mp4", []).decoders_ok == ()
    assert scan_video(tmp_path / "a.mp4", ["pyav"]).decoders_ok == ("pyav",)


def test_an_unknown_decoder_is_not_passed_over(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(5), fps=30)
    with pytest.raises(SsvidError, match=r"decoder \('decrod'\) is not known. Did you mean 'decord'"):
        scan_video(tmp_path / "a.mp4", ["decrod"])


@pytest.mark.parametrize("num_frames", [1, 2, 3, 17])
def test_very_short_files(num_frames: int, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(num_frames), fps=10)
    scan = scan_video(tmp_path / "a.mp4")
    assert scan.info.num_frames == num_frames
    assert scan.info.fps == pytest.approx(10)
    assert scan.decoders_ok == INSTALLED
    assert ("fps" in scan.notes) == (num_frames == 1)


def test_a_static_video_keeps_all_decoders(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [clock_frame(77)] * 40, fps=25)
    assert scan_video(tmp_path / "a.mp4").decoders_ok == INSTALLED


def test_odd_sizes_and_rotation_are_reported_as_displayed(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", clock_frames(10), rotation=90)
    info = scan_video(path, []).info
    assert (info.height, info.width) == (WIDTH, HEIGHT)


# -- frame rate -------------------------------------------------------------------------------------------------------

CLOCK_MS = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("pts", "time_base", "fps", "variable"),
    [
        (range(0, 100, 4), Fraction(1, 100), 25.0, False),
        ([round(i * 1000 / 30) for i in range(300)], CLOCK_MS, 30.0, False),  # rounded to milliseconds
        ([*range(50), *range(51, 100)], Fraction(1, 30), 30.0, False),  # one dropped frame
        ([0, 100, 140, 240, 280, 380], CLOCK_MS, 5 / 0.38, True),
        ([3, 0, 2, 1], Fraction(1, 8), 8.0, False),  # decoding order says nothing
    ],
)
def test_fps_by_hand(pts: list[int], time_base: Fraction, fps: float, variable: bool) -> None:
    measured, varies, note = measure_fps(list(pts), time_base, Fraction(99))
    assert measured == pytest.approx(fps, rel=1e-3)
    assert varies == variable
    assert note is None


@pytest.mark.parametrize("pts", [[None, None, None], [0, None, 2], [5], [0, 0, 1]])
def test_fps_from_the_header_is_said_to_be(pts: list[int | None]) -> None:
    measured, varies, note = measure_fps(pts, CLOCK_MS, Fraction(24))
    assert (measured, varies) == (24.0, False)
    assert note == "from the header (24): too few time stamps"
    assert measure_fps(pts, CLOCK_MS, None)[::2] == (25.0, "from the header (absent, 25 assumed): too few time stamps")


def test_a_variable_rate_is_flagged(tmp_path: Path) -> None:
    times = np.cumsum([33 if i % 2 else 66 for i in range(40)]).tolist()
    path = encode(tmp_path / "a.mkv", clock_frames(40), times=times, time_base=CLOCK_MS)
    info = scan_video(path, []).info
    assert info.variable_fps
    assert info.fps == pytest.approx(1000 * 39 / (times[-1] - times[0]), rel=1e-6)


PAUSED = [*range(50), *range(150, 250)]


@pytest.mark.parametrize(
    ("pts", "last_duration", "fps", "variable"),
    [
        (PAUSED, 1, 149 / 249, True),  # one pause
        ([t + 30 * (t >= 70) + 40 * (t >= 140) for t in range(200)], 1, 199 / 269, True),  # two
        ([t + t // 100 for t in range(1000)], 1, 999 / 1008, True),  # gaps in less than 1 % of the intervals
        ([t + (t >= 500) for t in range(1000)], 1, 1.0, False),  # a dropped frame is no pause
        (range(100), 200, 100 / 299, True),  # the last frame stays
        (range(100), 2, 1.0, False),  # containers guess how long it stays
        (range(50, 150), 1, 1.0, False),  # the first frame is late: the rate is even
        ([100 * t + t * t // 200 for t in range(1000)], 100, 999 / 104890, True),  # slowly ever slower
    ],
)
def test_pauses_make_a_rate_variable(pts: list[int], last_duration: int, fps: float, variable: bool) -> None:
    found, varies, _ = measure_fps(list(pts), Fraction(1), None, last_duration)
    assert (found, varies) == (pytest.approx(fps, rel=1e-3), variable)


def test_a_pause_stands_in_the_notes(tmp_path: Path) -> None:
    scan = scan_video(encode(tmp_path / "a.mp4", clock_frames(150), times=PAUSED), [])
    assert scan.info.variable_fps
    assert scan.notes["time"] == "frames stay 0.04 to 4.04 s, the longest begins 1.96 s after the first"
    assert scan.times is not None
    assert scan.times.end_seconds == pytest.approx(10.0)


# -- which decoders are right -----------------------------------------------------------------------------------------


def with_reader(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, np.ndarray], torch.Tensor]) -> None:
    """Replace the decoder named decord by PyAV with a fault."""

    def create(name: str, path: str, info: Any, **options: Any) -> Any:
        reader = create_reader("pyav", path, info)
        if name == "decord":
            right = reader.frames_at
            reader.frames_at = lambda indices: change(right, indices)  # type: ignore[method-assign]
        return reader

    monkeypatch.setattr(scan_module, "create_reader", create)
    monkeypatch.setattr(decoders_module, "decoder_status", lambda name: DecoderStatus("1", None))


def sliding_square(num_frames: int) -> list[np.ndarray]:
    """A small square that moves one pixel a frame over a textured ground: the smallest motion that data sets hold."""
    ground = textured(1)[0] // 2
    frames = []
    for t in range(num_frames):
        frame = ground.copy()
        frame[40:48, 10 + t : 18 + t] = 250
        frames.append(frame)
    return frames


@pytest.mark.parametrize("shift", [-2, -1, 1])
def test_a_decoder_that_is_off_by_one_frame_is_excluded(
    shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", sliding_square(60), fps=25, crf=18)
    with_reader(monkeypatch, lambda right, i: right(np.clip(i + shift, 0, 59)))
    scan = scan_video(tmp_path / "a.mp4", ["decord", "pyav"])
    assert scan.decoders_ok == ("pyav",)
    assert "its neighbors by" in scan.notes["decord"]


def test_a_decoder_that_is_off_at_the_end_alone_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(60), fps=25)
    with_reader(monkeypatch, lambda right, i: right(np.minimum(i, 58)))
    assert scan_video(tmp_path / "a.mp4", ["decord"]).decoders_ok == ()


def test_rounding_of_the_color_conversion_is_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(right: Any, indices: np.ndarray) -> torch.Tensor:
        frames = right(indices).clone()
        frames[:, :, ::4] += 1
        return frames

    write_video(tmp_path / "a.mp4", clock_frames(60), fps=25)
    with_reader(monkeypatch, rounded)
    assert scan_video(tmp_path / "a.mp4", ["decord"]).decoders_ok == ("decord",)


def test_another_picture_is_not_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(60), fps=25)
    with_reader(monkeypatch, lambda right, i: right(i) // 32 * 32)
    assert scan_video(tmp_path / "a.mp4", ["decord"]).decoders_ok == ()


def test_a_decoder_that_raises_is_excluded_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(right: Any, indices: np.ndarray) -> torch.Tensor:
        raise DecodeError("a", "broken on purpose", "its own words")

    write_video(tmp_path / "a.mp4", clock_frames(10), fps=25)
    with_reader(monkeypatch, broken)
    scan = scan_video(tmp_path / "a.mp4", ["decord", "pyav"])
    assert scan.decoders_ok == ("pyav",)
    assert scan.notes["decord"] == "broken on purpose (its own words)"


def test_witnesses_are_the_frames_with_most_motion_in_flat_memory() -> None:
    rng = np.random.default_rng(0)
    levels = np.cumsum(rng.integers(0, 3, 5000)) % 100
    levels[[7, 2500, 4990]] = 250  # three flashes
    keeper = WitnessKeeper()
    for level in levels:
        keeper.add(np.full((8, 8, 3), level, np.uint8))
        assert len(keeper._best) <= 8
    chosen = keeper.chosen()
    assert {7, 2500, 4990} & {w.index for w in chosen} >= {7, 4990}
    assert chosen[-1].index == 4999
    for witness in chosen[:-1]:
        before, here, after = (levels[witness.index + d] for d in (-1, 0, 1))
        assert witness.motion == min(abs(here - before), abs(after - here))
        assert (witness.pixels == here).all()


def test_frames_are_let_go_without_the_garbage_collector(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(200), fps=25)
    gc.collect()
    gc.disable()
    try:
        scan_video(tmp_path / "a.mp4", ["pyav"])
        left = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert left < 10  # one reference cycle for each converter, none for each frame


def test_distance_by_hand() -> None:
    a, b = np.array([[[0, 255, 10]]], np.uint8), np.array([[[255, 0, 10]]], np.uint8)
    assert distance(a, b) == 170.0
    assert distance(a, a) == 0.0


# -- damaged files ----------------------------------------------------------------------------------------------------


def test_a_cut_avi_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    write_video(whole, textured(100), fps=25, codec="mpeg4")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    scan = scan_video(cut)
    assert 40 < scan.info.num_frames < 60
    assert scan.notes["header"].startswith("promises 100 frames, decoding delivers")
    frames = np.stack(sequential_oracle(cut)).transpose(0, 3, 1, 2)
    with open_video(cut, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
        assert np.array_equal(reader.frames_at(np.array([0, 20, 39])).numpy(), frames[[0, 20, 39]])


def test_a_cut_mp4_lacks_frames_that_its_table_lists(tmp_path: Path) -> None:
    encode(tmp_path / "whole.mp4", textured(100), movflags="faststart")
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "start.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "start.mp4").read_bytes()
    for share, readable in ((0.5, False), (0.99, True)):
        (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
        if readable:
            scan = scan_video(tmp_path / "cut.mp4")
            assert 95 <= scan.info.num_frames <= 100
            assert scan.decoders_ok == ()
            assert "of 100 frames are damaged or missing" in scan.notes["damage"]
        else:
            with pytest.raises(DecodeError, match=r"\d+ of 1\d\d frames are damaged or missing; at most 5% may be"):
                scan_video(tmp_path / "cut.mp4")


def damage_packets(path: Path, numbers: range) -> None:
    """Overwrite the second half of some packets of a file in place."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        pos, size = places[number]
        data[pos + size // 3 : pos + size] = bytes(255 for _ in range(size - size // 3))
    path.write_bytes(data)


def test_a_little_damage_is_noted_and_much_is_refused(tmp_path: Path) -> None:
    for num_hit, readable in ((1, True), (30, False)):
        path = tmp_path / f"{num_hit}.mp4"
        write_video(path, textured(100), fps=25, gop=1)
        damage_packets(path, range(40, 40 + num_hit))
        if readable:
            scan = scan_video(path)
            assert scan.notes["damage"].startswith("1 of 10")
            assert scan.decoders_ok == ()  # only the sequential decode defines what comes after damage
            with open_video(path, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
                assert len(reader.frames_at(np.arange(scan.info.num_frames))) == scan.info.num_frames
        else:
            assert num_hit / 100 > MAX_DAMAGED_FRACTION
            with pytest.raises(DecodeError, match=r"30 of 100 frames are damaged or missing; at most 5% may be"):
                scan_video(path)


FUZZ = """
import sys
import numpy as np
from pathlib import Path
from ssvid.errors import DecodeError
from ssvid.video import open_video, scan_video

folder, num_seeds = Path(sys.argv[1]), int(sys.argv[2])
counts = {"read": 0, "refused": 0}
for source in sorted(folder.glob("whole.*")):
    whole = source.read_bytes()
    for seed in range(num_seeds):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        if seed % 3 == 0:
            for place in rng.integers(0, len(data), rng.integers(1, 40)):
                data[place] ^= 1 << rng.integers(8)
        elif seed % 3 == 1:
            place, length = rng.integers(len(data)), rng.integers(1, 2000)
            data[place : place + length] = bytes(len(data[place : place + length]))
        else:
            del data[rng.integers(1, len(data)) :]
        path = folder / f"broken{source.suffix}"
        path.write_bytes(data)
        try:
            scan = scan_video(path, ["pyav"])
            wanted = rng.integers(0, scan.info.num_frames, 5)
            with open_video(path, info=scan.info, decoders_ok=scan.decoders_ok) as reader:
                frames = reader.frames_at(wanted)
            with open_video(path, info=scan.info) as reader:  # nothing known: a decode from the start
                assert (frames == reader.frames_at(wanted)).all(), (source.suffix, seed)
            assert tuple(frames.shape) == (5, 3, scan.info.height, scan.info.width)
            counts["read"] += 1
        except DecodeError:
            counts["refused"] += 1
print(counts["read"], counts["refused"])
"""


def fuzz(folder: Path, num_seeds: int) -> tuple[int, int]:
    """Scan and read randomly damaged files in a process of their own; how many were read, and refused."""
    encode(folder / "whole.mp4", textured(40), b_frames=2)
    encode(folder / "whole.avi", textured(40), "mpeg4")
    encode(folder / "whole.mkv", textured(40))
    command = [sys.executable, "-c", FUZZ, str(folder), str(num_seeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    num_read, num_refused = done.stdout.split()
    return int(num_read), int(num_refused)


@pytest.mark.parametrize("num_seeds", [9, pytest.param(200, marks=pytest.mark.slow)])
def test_random_damage_is_read_alike_both_ways_or_refused(num_seeds: int, tmp_path: Path) -> None:
    num_read, num_refused = fuzz(tmp_path, num_seeds)
    assert num_read + num_refused == 3 * num_seeds
    assert min(num_read, num_refused) > 0


# -- files that are no videos -----------------------------------------------------------------------------------------


def make_audio(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        output.mux(stream.encode(samples))
        output.mux(stream.encode(None))


def make_picture(path: Path, kind: str) -> None:
    Image.fromarray(clock_frame(3)).save(path, format=kind)


FALSE_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.mp4": (lambda p: p.write_text("hello\n" * 500), "not a video that FFmpeg can open"),
    "empty.mp4": (lambda p: p.touch(), r"the file is empty \(0 bytes\)"),
    "noise.avi": (lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)), "not a video that FFmpeg can open"),
    "png.mp4": (lambda p: make_picture(p, "png"), r"this is a still image \(png_pipe\), not a video"),
    "jpeg.avi": (lambda p: make_picture(p, "jpeg"), r"this is a still image \(jpeg_pipe\), not a video"),
    "webp.mp4": (lambda p: make_picture(p, "webp"), r"this is a still image"),
    "sound.mp4": (make_audio, r"there is no video in it \(sound only, or data\)"),
    "folder.mp4": (lambda p: p.mkdir(), r"a folder is a video where it holds two pictures .*; it holds none"),
    "absent.mp4": (lambda p: None, "there is no such file"),
    "header.mp4": (lambda p: encode(p, clock_frames(5)) and p.write_bytes(p.read_bytes()[:40]), "FFmpeg can open"),
}


@pytest.mark.parametrize("name", FALSE_FILES)
def test_files_that_are_no_videos(name: str, tmp_path: Path) -> None:
    make, words = FALSE_FILES[name]
    make(tmp_path / name)
    with pytest.raises(DecodeError, match=words) as caught:
        scan_video(tmp_path / name)
    assert str(caught.value).startswith(f"cannot decode {tmp_path / name}: ")


def test_a_size_change_in_mid_stream_names_the_frame(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.ts", [clock_frame(i) for i in range(10)])
    large = encode(tmp_path / "large.ts", [clock_frame(i, 128, 192) for i in range(10)])
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(DecodeError, match=r"size changes in mid-stream, at frame 10, from 96 x 64 to 192 x 128 pixels"):
        scan_video(tmp_path / "both.ts")


def test_a_cover_picture_beside_the_video_is_not_the_video(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", clock_frames(20))
    make_picture(tmp_path / "cover.png", "png")
    with (
        av.open(str(tmp_path / "a.mp4")) as video,
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(tmp_path / "both.mp4"), "w") as target,
    ):
        picture, moving = (target.add_stream_from_template(s.streams.video[0]) for s in (cover, video))
        picture.disposition = av.stream.Disposition.attached_pic
        for source, stream in ((cover, picture), (video, moving)):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    scan = scan_video(tmp_path / "both.mp4", ["pyav"])
    assert scan.info.num_frames == 20
    assert clocks(open_video(tmp_path / "both.mp4").frames_at(np.array([4, 13])).numpy()) == [4, 13]


def test_scanning_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(12), fps=25)
    code = f"from ssvid.video import scan_video; print(scan_video({str(tmp_path / 'a.mp4')!r}, []).info.num_frames)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("12", "")


# -- decoders that find frames by the packets' times ------------------------------------------------------------------

OPEN = {"x264-params": "open-gop=1:keyint=30:min-keyint=30:scenecut=0:bframes=3:b-adapt=0"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "mpeg4", {"gop": 60, "b_frames": 2}),
        ("a.mkv", "mpeg4", {"gop": 60, "b_frames": 2}),
        ("a.mkv", "mpeg4", {"gop": 25, "b_frames": 1}),
        ("a.avi", "mpeg4", {"gop": 60, "b_frames": 2}),
        ("a.mp4", "libx264", {"gop": 30, "b_frames": 3, **OPEN}),
        ("a.mov", "libx264", {"gop": 30, "b_frames": 3, **OPEN}),
        (
            "a.mp4",
            "libx265",
            {
                "gop": 30,
                "b_frames": 3,
                "x265-params": "open-gop=1:keyint=30:scenecut=0:bframes=3:b-adapt=0:log-level=none",
            },
        ),
        ("a.mpg", "mpeg2video", {"gop": 12, "b_frames": 2}),
    ],
)
def test_no_decoder_that_goes_by_packet_times_is_trusted_with_open_groups(
    name: str, codec: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """decord gives other frames around the key frames of such files, wherever four frames are compared."""
    scan = scan_video(encode(tmp_path / name, clock_frames(130), codec, **options))
    assert scan.has_b_frames
    assert "decord" not in scan.decoders_ok


@pytest.mark.skipif("decord" not in INSTALLED, reason="decord is not installed")
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"gop": 30, "b_frames": 3, "x264-params": "open-gop=0"}),
        ("a.mkv", "libx264", {"gop": 12, "b_frames": 2}),
        ("a.mp4", "libx265", {"gop": 30, "b_frames": 3, "x265-params": "open-gop=0:keyint=30:log-level=none"}),
        ("a.avi", "mpeg4", {"gop": 30}),
    ],
)
def test_decord_is_right_for_every_frame_of_what_it_is_trusted_with(
    name: str, codec: str, options: dict[str, Any], tmp_path: Path
) -> None:
    scan = scan_video(encode(tmp_path / name, clock_frames(70), codec, **options))
    assert "decord" in scan.decoders_ok
    for number in range(70):  # each in a fresh reader, so that it must seek
        with create_reader("decord", scan.info.path, scan.info) as reader:
            assert clocks(reader.frames_at(np.array([number]))) == [number]


# -- the range of values ----------------------------------------------------------------------------------------------


def write_gray16(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "gray16le"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray16le")))
        output.mux(stream.encode(None))
    return path


def disk(low: int, high: int, size: int = 96) -> list[np.ndarray]:
    """A disk of a tenth of the picture that moves, in two values."""
    y, x = np.mgrid[:size, :size]
    return [np.where((x - 20 - t) ** 2 + (y - 48) ** 2 < 300, high, low).astype(np.uint16) for t in range(20)]


def test_pictures_of_few_values_are_said_to_be(tmp_path: Path) -> None:
    depth = scan_video(write_gray16(tmp_path / "depth.mkv", disk(600, 4000)), [])
    few = "nearly all values lie between 2 and 16 of 255 (of its 16 bits the upper 8 are kept, "
    assert depth.notes["range"] == f"{few}--gray-range 384 4223 stretches them)"
    thermal = scan_video(write_gray16(tmp_path / "thermal.mkv", disk(29_000, 31_000)), [])
    assert "between 113 and 121 of 255 (of its 16 bits" in thermal.notes["range"]
    write_video(
        tmp_path / "night.mp4", [np.repeat(f[..., None] * 4, 3, 2).astype(np.uint8) for f in disk(1, 5)], fps=25
    )
    assert scan_video(tmp_path / "night.mp4", []).notes["range"].endswith(" of 255")
    full = scan_video(write_gray16(tmp_path / "full.mkv", disk(600, 60_000)), [])
    assert "range" not in full.notes


# -- the packets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"), [("a.mp4", "libx264", 2), ("a.mkv", "mpeg4", 0), ("a.avi", "mpeg4", 0)]
)
def test_the_scan_reads_the_packets_once_for_pyavs_reader_too(
    name: str, codec: str, b_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the decode saw on its way equals what a walk through the packets finds, and no second walk is made."""
    path = str(tmp_path / name)
    write_video(path, clock_frames(40), fps=25, codec=codec, b_frames=b_frames)
    walked = pyav_reader.read_packet_table(path)
    monkeypatch.setattr(pyav_reader, "read_packet_table", lambda path: pytest.fail("walked again"))
    assert "pyav" in scan_video(path).decoders_ok
    kept = pyav_reader.packet_table(path)
    assert walked is not None and kept is not None
    for name in ("pts", "is_key", "shown_pts"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(walked, name))


def test_packets_say_where_they_lie_in_the_file(tmp_path: Path) -> None:
    """Before the place of each packet of an AVI stands the header of its chunk."""
    path = encode(tmp_path / "a.avi", clock_frames(5), codec="rawvideo")
    with open_stream(str(path)) as (container, stream):
        decode = SequentialDecode(container, stream)
        assert len(list(decode)) == 5
    content = path.read_bytes()
    assert [content[place - 8 : place - 4] for place in decode.packets.position.tolist()] == [b"00dc"] * 5
    assert decode.packets.is_key.all()


@pytest.mark.parametrize("count", [249, 300])
def test_what_a_clip_costs_without_random_access_is_said(tmp_path: Path, count: int) -> None:
    frames = clock_frames(count)
    raw = encode(tmp_path / "raw.h264", frames, b_frames=2)
    whole = encode(tmp_path / "whole.mp4", frames, b_frames=2)
    assert "access" not in scan_video(whole, ["pyav"]).notes
    told = scan_video(raw, ["pyav"]).notes.get("access", "")
    assert told.startswith("every clip is decoded from the start of the file, 150 frames on average") == (count == 300)
    assert ("ffmpeg -i IN" in told) == (count == 300)
