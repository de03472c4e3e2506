"""Gray videos of more than 8 bits, stretched: the same pixels for every reader, and nothing else touched."""

from dataclasses import replace

import av
import numpy as np
import pytest

from ssvid.backbones import create_backbone
from ssvid.cli import main
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.index.building import build_manifest
from ssvid.data.index.signals import load_signals, measure_signals_of, signals_base
from ssvid.data.manifest import Manifest
from ssvid.data.readers import list_videos
from ssvid.errors import DataError, DecodeError
from ssvid.features.extracting import extract_features
from ssvid.features.file import EmbedProtocol, embed_videos
from ssvid.features.protocol import FeatureProtocol
from ssvid.types import Ticket
from ssvid.video import open_video, scan_video
from ssvid.video.decoders.choice import create_reader
from tests.data.feed.test_dataset import Window

NUM = 12
LOW, HIGH = 600, 3800
RAMP = np.linspace(0, 4095, 64 * 48).reshape(48, 64)


def pictures(top):
    """Ramps of 12-bit values, scaled to ``top``, that move by a column a frame."""
    return [np.roll(RAMP * top / 4095, t, axis=1).astype(np.uint16) for t in range(NUM)]


def write(path, pixel_format, frames):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("png" if pixel_format == "gray16be" else "ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixel_format
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=pixel_format)))
        output.mux(stream.encode(None))
    return path


def read(info):
    with open_video(info.path, info=info) as reader:
        return reader.frames_at(np.arange(NUM)).numpy()


@pytest.mark.parametrize(
    ("pixel_format", "top"), [("gray16le", 4095), ("gray12le", 4095), ("gray10le", 1023), ("gray16be", 4095)]
)
def test_values_become_what_a_hand_computes(tmp_path, pixel_format, top):
    frames = pictures(top)
    path = write(tmp_path / ("a.avi" if pixel_format == "gray16be" else "a.mkv"), pixel_format, frames)
    low, high = LOW * top // 4095, HIGH * top // 4095
    info = scan_video(path, gray_range=(low, high)).info
    assert info.gray_range == (low, high)
    found = read(info)
    for frame_CHW, frame in zip(found, frames, strict=True):
        exact = (frame.astype(float) - low) / (high - low) * 255
        assert (frame_CHW == frame_CHW[:1]).all()
        assert np.abs(frame_CHW[0] - np.clip(exact, 0, 255)).max() <= 0.5
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("pixel_format", ["gray", "bgr0", "gbrp12le", "yuv420p10le"])
def test_other_formats_are_untouched(tmp_path, pixel_format):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixel_format
        for frame in pictures(255):
            rgb = np.repeat(frame.astype(np.uint8)[..., None], 3, axis=2)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    plain, asked = scan_video(tmp_path / "a.mkv"), scan_video(tmp_path / "a.mkv", gray_range=(LOW, HIGH))
    assert (asked.info, asked.decoders_ok, asked.notes) == (plain.info, plain.decoders_ok, plain.notes)
    np.testing.assert_array_equal(read(plain.info), read(replace(plain.info, gray_range=(LOW, HIGH))))


def test_the_note_names_a_range_that_stretches(tmp_path):
    path = write(tmp_path / "a.mkv", "gray16le", [np.clip(f, LOW, HIGH) for f in pictures(4095)])
    note = scan_video(path).notes["range"]
    assert note.endswith("upper 8 are kept, --gray-range 384 3711 stretches them)")
    assert "range" not in scan_video(path, gray_range=(384, 3711)).notes


def test_only_pyav_reads_a_stretched_video(tmp_path):
    scan = scan_video(write(tmp_path / "a.mkv", "gray16le", pictures(4095)), gray_range=(LOW, HIGH))
    assert scan.decoders_ok == ("pyav",)
    with pytest.raises(DecodeError, match="stretches no gray values"):
        create_reader("decord", scan.info.path, scan.info)


def test_the_table_carries_the_range_to_whoever_reads(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    write(videos / "deep.mkv", "gray16le", pictures(4095))
    write(videos / "flat.mkv", "gray", [f.astype(np.uint8) for f in pictures(255)])
    as_before, table = tmp_path / "before.csv", tmp_path / "stretched.csv"
    assert main(["data", "index", str(videos), "-o", str(as_before)]) == 0
    assert main(["data", "index", str(videos), "-o", str(table), "--gray-range", str(LOW), str(HIGH)]) == 0
    before, after = Manifest.load(as_before, videos), Manifest.load(table, videos)
    assert [row.gray_range for row in after.rows] == [(LOW, HIGH), ()]
    assert [row.gray_range for row in before.rows] == [(), ()]
    assert before.sha256() != after.sha256()
    assert before.rows[1] == after.rows[1]
    old = as_before.read_text().splitlines()
    as_before.write_text("".join(line.rpartition(",")[0] + "\n" for line in old))  # as of before the column
    assert Manifest.load(as_before, videos).sha256() == before.sha256()
    assert read(after.rows[0].video_info(videos)).max() == 255
    assert read(before.rows[0].video_info(videos)).max() == 16  # the upper 8 bits, rounded
    # The cache does not take one for the other, in either order.
    assert main(["data", "index", str(videos), "-o", str(as_before), "--overwrite"]) == 0
    assert Manifest.load(as_before, videos) == before
    capsys.readouterr()
    assert main(["data", "index", str(videos), "-o", str(table), "--motion", "--gray-range", "0", "9"]) == 2
    assert "would be replaced" in " ".join(capsys.readouterr().err.split())


def test_training_features_and_motion_are_of_the_stretched_pixels(tmp_path):
    write(tmp_path / "a.mkv", "gray16le", pictures(4095))
    listed = list_videos("folder", tmp_path)
    plain, stretched = (build_manifest(tmp_path, listed, gray_range=values) for values in ((), (LOW, HIGH)))
    ticket = (Ticket(0, 0, 0, 0),)
    tops = [int(ClipDataset(m, m.rows, Window(NUM), seed=0)[ticket][0]["clip"].max()) for m in (plain, stretched)]
    assert tops == [16, 255]
    network = create_backbone("tiny3d", width=2)
    protocol = FeatureProtocol(num_frames=NUM, crop_px=32, num_clips=1, workers=0, decoder="pyav")
    found = [extract_features(network, m, m.rows, protocol, cache_dir=tmp_path / "cache") for m in (plain, stretched)]
    assert not np.allclose(*(features.values_ND for features in found))
    columns = []
    for manifest in (plain, stretched):  # the parts of the first are kept for the second
        embed_videos(network, manifest, EmbedProtocol(protocol), tmp_path / "f.npz", keep_parts=True)
        columns.append(np.load(tmp_path / "f.npz")["features_stage1"])
    assert not np.allclose(*columns)
    assert signals_base(plain.rows[0]) != signals_base(stretched.rows[0])
    pytest.importorskip("cv2")
    measure_signals_of(stretched, workers=1)
    assert load_signals(tmp_path, stretched.rows[0], ["thumbnails"], 0, NUM)["thumbnails"].max() > 200


@pytest.mark.parametrize("values", [(3800, 600), (600, 600), (0, 65536), (5,), (1, 2, 3)])
def test_a_bad_range_is_refused_with_the_rule(tmp_path, values):
    write(tmp_path / "a.mkv", "gray16le", pictures(4095))
    with pytest.raises(DataError, match=r"gray_range \(.*\) must be two values from 0 to 65535"):
        build_manifest(tmp_path, list_videos("folder", tmp_path), gray_range=values)
