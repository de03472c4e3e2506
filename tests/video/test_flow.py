"""Flow against known displacements and mirror images, its levels against their bound, its files against what was written."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from ssvid.errors import DecodeError, SsvidError
from ssvid.pictures import flow_colors, tiles, wheel_picture
from ssvid.types import VideoInfo
from ssvid.video import write_video
from ssvid.video.flow import FlowSettings, centered, short_side_at, to_levels, to_pixels
from ssvid.video.flow_file import FlowReader, measure_flow, write_flow
from ssvid.video.motion import every_frame
from ssvid.video.optical_flow import Dis, Raft, estimator, resized
from tests.video.test_motion import texture

SETTINGS = FlowSettings(short_side_px=96)


def inside(flow: np.ndarray, margin: int = 16) -> np.ndarray:
    return flow[margin:-margin, margin:-margin]


def ground(shift: tuple[float, float], height: int = 96, width: int = 128) -> np.ndarray:
    """A textured picture whose content lies ``shift`` = (x, y) pixels further right and down, uint8 HWC; also by parts."""
    y, x = np.mgrid[:height, :width] - np.array(shift[::-1]).reshape(2, 1, 1)
    rng = np.random.default_rng(5)
    angles, lengths, phases = rng.uniform(0, np.pi, 24), rng.uniform(8, 40, 24), rng.uniform(0, 6.28, 24)
    waves = sum(
        np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / n + p)
        for a, n, p in zip(angles, lengths, phases, strict=True)
    )
    return np.repeat((128 + 15 * np.asarray(waves)).clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.0), (-1.5, 2.25), (5.0, -4.0), (0.0, 0.0)])
def test_a_known_translation_is_found_within_a_tenth_of_a_pixel_and_kept_so(shift: tuple[float, float]) -> None:
    flow = estimator("dis")(ground((0, 0)), ground(shift))
    kept = to_pixels(to_levels(flow, SETTINGS.most_px), SETTINGS.most_px)
    for found in (flow, kept):
        assert np.abs(np.median(inside(found).reshape(-1, 2), axis=0) - shift).max() < 0.1


def test_the_mirrored_video_gives_the_mirrored_flow_with_u_negated() -> None:
    before, after = ground((0, 0)), ground((2.5, -1.25))
    flow = estimator("dis")(before, after)
    other = estimator("dis")(before[:, ::-1].copy(), after[:, ::-1].copy())
    mirrored = other[:, ::-1] * (-1, 1)
    # The search works on patches that begin at the left, so that the two differ a little.
    assert np.median(np.abs(inside(mirrored) - inside(flow))) < 0.02
    assert np.abs(inside(mirrored) - inside(flow)).max() < 0.25


@pytest.mark.parametrize("symmetric", [True, False])
def test_symmetric_flow_of_the_reversed_video_is_the_opposite_flow_in_reverse(tmp_path: Path, symmetric: bool) -> None:
    """Level by level, where something covers what lies behind it; usual flow sees it from the other frame."""
    settings = FlowSettings(short_side_px=64, symmetric=symmetric)
    frames = []
    for t in range(6):
        frame = ground((0, 0), 64, 64)
        frame[20:40, 8 + 3 * t : 28 + 3 * t] = ground((40, 9), 64, 64)[20:40, 20:40]
        frames.append(frame)
    levels = []
    for name, order in (("forward", frames), ("backward", frames[::-1])):
        write_video(tmp_path / f"{name}.mp4", order, 25.0, crf=0, gop=1)
        measure_flow(str(tmp_path / f"{name}.mp4"), tmp_path / f"{name}.mkv", settings, 6)
        info = VideoInfo(name, 6, 25.0, 64, 64, channels=2)
        with FlowReader(tmp_path / f"{name}.mkv", info, settings) as reader:
            levels.append(reader.frames_at(np.arange(6)).numpy().astype(int))
    assert np.array_equal(levels[0], 256 - levels[1][::-1]) is symmetric
    moved = to_pixels(levels[0].astype(np.uint8), settings.most_px)[2, 0, 24:36, 18:30]
    assert 2.0 < np.median(moved) < 3.3


def test_one_pair_of_frames_gives_one_flow_whatever_was_measured_before() -> None:
    first, second = (ground((0, 0))[..., 0], ground((1, 2))[..., 0]), (ground((0, 0))[..., 0], ground((-3, 1))[..., 0])
    dis = Dis()
    dis(*second)
    assert np.array_equal(dis(*first), Dis()(*first))


def test_frames_smaller_than_the_search_needs_are_measured() -> None:
    assert Dis()(texture(9, 40).astype(np.uint8), texture(9, 40).astype(np.uint8)).shape == (9, 40, 2)


# ---- levels


def test_levels_are_within_their_bound_and_opposite_motion_is_opposite() -> None:
    motion = np.random.default_rng(0).uniform(-10, 10, (64, 64, 2)).astype(np.float32)
    levels = to_levels(motion, 10.0)
    assert np.abs(to_pixels(levels, 10.0) - motion).max() <= 10 / 254 + 1e-6
    assert np.array_equal(to_levels(-motion, 10.0), (256 - levels.astype(int)).astype(np.uint8))
    assert levels.min() >= 1
    far = np.array([[[99.0, -99.0], [0.0, np.nan]]])
    assert to_levels(far, 10.0).tolist() == [[[255, 1], [128, 128]]]


def test_settings_survive_their_text_and_nonsense_is_named() -> None:
    for settings in (FlowSettings(), FlowSettings("raft_small", 256, 12.5, True), FlowSettings(short_side_px=256)):
        read = FlowSettings.parse(settings.text)
        assert read.text == settings.text
        assert (read.method, read.most_px, read.subtract_mean) == (
            settings.method,
            settings.most_px,
            settings.subtract_mean,
        )
    assert FlowSettings().text == "dis-128px-10"  # 20 at 256 px, in proportion
    assert FlowSettings(short_side_px=256).measurement == "dis-256px-20"
    for text in ("", "dis", "dis-128px", "farneback-128px-10", "dis-128px-10+mean", "dis-x-10", "dis-128px-010"):
        with pytest.raises(ValueError, match="must name a measurement, such as dis-128px-10"):
            FlowSettings.parse(text)
    assert short_side_at(240, 320, 120) == (120, 160)


def test_the_mean_of_a_frame_is_taken_out_by_hand() -> None:
    levels = np.full((4, 4, 2), 128, np.uint8)
    levels[..., 0] += 20  # a camera that moves
    levels[0, 0] = (200, 120)
    u = levels[..., 0].astype(float) - 128
    assert centered(levels)[..., 0].tolist() == (np.rint(u - u.mean()) + 128).astype(int).tolist()
    assert centered(levels)[3, 3].tolist() == [125, 128]  # 20 - 23.25, and 0.5 which is even when rounded
    assert centered(np.full((2, 2, 2), 255, np.uint8)).tolist() == np.full((2, 2, 2), 128).tolist()


# ---- files


def reader_of(path: Path, size: tuple[int, int], num_frames: int, settings: FlowSettings = SETTINGS) -> FlowReader:
    return FlowReader(path, VideoInfo("v", num_frames, 25.0, *size, channels=2), settings)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A flow file of odd size, and its levels THW2."""
    motion = np.random.default_rng(1).normal(0, 3, (9, 33, 41, 2)).astype(np.float32)
    path = tmp_path / "a" / "x.flow.mkv"
    write_flow(path, iter(motion), SETTINGS, 9)
    return path, np.stack([to_levels(frame, SETTINGS.most_px) for frame in motion])


def test_reading_by_number_is_reading_in_order_and_nothing_is_lost(written: tuple[Path, np.ndarray]) -> None:
    path, levels = written
    with reader_of(path, (33, 41), 9) as reader:
        everything = reader.frames_at(np.arange(9)).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(everything, levels)
        for wanted in ([8], [0], [3, 3, 1, 7], [5, 4, 3], [2, 8]):
            assert np.array_equal(reader.frames_at(np.array(wanted)).permute(0, 2, 3, 1).numpy(), levels[wanted])
        with pytest.raises(DecodeError, match="frame 9 is outside the video"):
            reader.frames_at(np.array([9]))
    with pytest.raises(DecodeError, match="the reader is closed"):
        reader.frames_at(np.array([0]))


def test_the_mean_is_subtracted_when_it_is_read(written: tuple[Path, np.ndarray]) -> None:
    path, levels = written
    with reader_of(path, (33, 41), 9, FlowSettings(short_side_px=96, subtract_mean=True)) as reader:
        found = reader.frames_at(np.array([4]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, centered(levels[4]))


def test_a_file_of_something_else_or_a_damaged_one_is_named(written: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, _ = written
    with pytest.raises(DecodeError, match=r"measurement.*is asked for. Measure it again with: ssvid data flow"):
        reader_of(path, (33, 41), 8)
    with pytest.raises(DecodeError, match="Measure it again"):
        reader_of(path, (33, 41), 9, FlowSettings(short_side_px=128))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DecodeError, match="measured flow"), reader_of(cut, (33, 41), 9) as reader:
        reader.frames_at(np.arange(9))
    (tmp_path / "no.mkv").write_bytes(b"no video")
    with pytest.raises(DecodeError, match="this is no measured flow"):
        reader_of(tmp_path / "no.mkv", (33, 41), 9)
    with pytest.raises(DecodeError, match="there is no such file"):
        reader_of(tmp_path / "none.mkv", (33, 41), 9)


def test_another_number_of_frames_than_the_table_says_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="3 frames were decoded, the table says 5"):
        write_flow(tmp_path / "x.flow.mkv", iter(np.zeros((3, 16, 16, 2))), SETTINGS, 5)
    assert not list(tmp_path.iterdir())


def test_a_video_has_as_many_frames_of_flow_as_frames(tmp_path: Path) -> None:
    shifts = [(0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (4.0, 3.0)]
    write_video(tmp_path / "v.mp4", [ground(shift) for shift in shifts], fps=25, crf=8, gop=1)
    measure_flow(str(tmp_path / "v.mp4"), tmp_path / "v.flow.mkv", SETTINGS, 4)
    with reader_of(tmp_path / "v.flow.mkv", (96, 128), 4) as reader:
        found = to_pixels(reader.frames_at(np.arange(4)).permute(0, 2, 3, 1).numpy(), SETTINGS.most_px)
    medians = [np.median(inside(frame).reshape(-1, 2), axis=0) for frame in found]
    assert np.abs(np.array(medians) - [(2, 0), (2, 0), (0, 3), (0, 3)]).max() < 0.1  # the last one repeats
    with av.open(str(tmp_path / "v.flow.mkv")) as container:
        assert json.loads(container.metadata["SSVID_FLOW"])["measurement"] == "dis-96px-7.5"


def test_values_are_in_pixels_of_the_stored_size(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [ground((0, 0)), ground((4, 2))], fps=25, crf=8, gop=1)
    half = FlowSettings(short_side_px=48)
    measure_flow(str(tmp_path / "v.mp4"), tmp_path / "v.flow.mkv", half, 2)
    with reader_of(tmp_path / "v.flow.mkv", (48, 64), 2, half) as reader:
        found = to_pixels(reader.frames_at(np.array([0]))[0].permute(1, 2, 0).numpy(), half.most_px)
    assert np.abs(np.median(inside(found, 8).reshape(-1, 2), axis=0) - (2, 1)).max() < 0.1


def test_a_folder_with_a_single_frame_does_not_move(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [ground((0, 0))], fps=25)
    measure_flow(str(tmp_path / "v.mp4"), tmp_path / "v.flow.mkv", SETTINGS, 1)
    with reader_of(tmp_path / "v.flow.mkv", (96, 128), 1) as reader:
        assert (reader.frames_at(np.array([0])) == 128).all()


# ---- RAFT


def test_raft_needs_its_weights_and_says_where_they_belong(hub_cache) -> None:
    with pytest.raises(
        SsvidError, match=r"needs torchvision's weights.*raft_small.*Nothing is downloaded unasked.*dis"
    ):
        Raft("raft_small")


def test_raft_is_torchvisions_network_on_padded_frames(hub_cache) -> None:
    import torch
    from torchvision.models.optical_flow import raft_small

    state = hub_cache("optical_flow.raft_small", "DEFAULT")
    before, after = ground((0, 0))[:50, :70], ground((1, 0))[:50, :70]
    found = Raft("raft_small")(before, after)
    assert found.shape == (50, 70, 2)
    network = raft_small(weights=None).eval()
    network.load_state_dict(state)
    whole = [np.pad(frame, [(0, 78), (0, 58), (0, 0)], mode="edge") for frame in (before, after)]
    clips = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 * 2 - 1 for frame in whole]
    with torch.inference_mode():
        expected = network(*clips)[-1][0, :, :50, :70].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1e-3


# ---- for the eye


def test_colors_say_direction_and_length() -> None:
    one = lambda u, v: flow_colors(np.array([[[u, v]]], dtype=np.float64), 1.0)[0, 0].tolist()  # noqa: E731
    assert one(0, 0) == [255, 255, 255]  # no motion is white
    assert one(1, 0) == [255, 0, 0]  # to the right is red, as in the wheel of Baker et al.
    left = one(-1, 0)
    assert left[0] == 0 and left[1] > 200 and left[2] == 255  # to the left is cyan
    half = one(0.5, 0)
    assert half[0] == 255 and 120 <= half[1] <= 130  # half as far, half as saturated
    assert max(one(2, 0)) == 191  # beyond full color: darker
    picture = wheel_picture(101)
    assert picture.shape == (101, 101, 3) and picture[50, 50].tolist() == [255, 255, 255]


def test_tiles_of_flow_are_its_colors() -> None:
    import torch

    levels = torch.full((1, 2, 8, 8), 128, dtype=torch.uint8)
    levels[:, 0, :, 4:] = 255
    (tile,) = tiles(levels, 8)
    assert tile[0, 0].tolist() == [255, 255, 255] and tile[0, 7].tolist() == [255, 0, 0]


def test_every_frame_is_seen_at_the_stated_size(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [ground((0, 0))] * 2, fps=25)
    frames = list(every_frame(str(tmp_path / "v.mp4"), ()))
    assert len(frames) == 2
    assert resized(frames[0], 48, 64).shape == (48, 64, 3)
    assert resized(frames[0], 96, 128) is frames[0]
