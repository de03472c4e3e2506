"""Features clip by clip: the rows are right, a killed run ends with the same bytes, nothing stale is used again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import Manifest
from ssvid.data.readers import list_videos
from ssvid.errors import DataError, RecipeError, SsvidError
from ssvid.features import file, passes, reading
from ssvid.features.extracting import extract_features
from ssvid.features.file import EmbedProtocol, embed_videos
from ssvid.features.reading import prepare_pixels
from ssvid.features.table import read_arrays, read_metadata
from ssvid.video import open_video
from tests.frozen import make_row
from tests.video.clocked import clock_frames, encode


@pytest.fixture
def few(manifest):
    """Seven of the videos."""
    return manifest.with_rows(manifest.rows[:7])


@pytest.fixture
def protocol(quick):
    """Three clips of 8 of the 14 frames: at 0, 3, 6."""
    return EmbedProtocol(replace(quick, num_clips=3, stages="stage2,stage4"))


def counting(monkeypatch):
    """How many clips went through the network, batch by batch."""
    seen = []
    real = passes._embedded

    def counted(network, clips_BTCHW, *rest):
        seen.append(len(clips_BTCHW))
        return real(network, clips_BTCHW, *rest)

    monkeypatch.setattr(passes, "_embedded", counted)
    return seen


# ---- the rows


def test_seconds_are_those_of_the_frames_across_a_pause(backbone, protocol, tmp_path):
    """Two seconds of film, four of nothing, four of film: clips each second begin where their frames are shown."""
    times = [*range(50), *range(150, 250)]
    encode(tmp_path / "paused.mp4", clock_frames(150), times=times)
    encode(tmp_path / "late.mp4", clock_frames(60), times=list(range(50, 110)))
    manifest = build_manifest(tmp_path, list_videos("folder", tmp_path), decoders=("pyav",), workers=1)
    every = EmbedProtocol(replace(protocol.features, num_clips=1), every_seconds=1.0)
    embed_videos(backbone, manifest, every, tmp_path / "f.npz")
    arrays = read_arrays(tmp_path / "f.npz")
    paused, late = (arrays["path"] == name for name in ("paused.mp4", "late.mp4"))
    assert arrays["start_frame"][paused].tolist() == [0, 25, 50, 75, 100, 125]
    np.testing.assert_allclose(arrays["start_seconds"][paused], [0, 1, 6, 7, 8, 9])
    np.testing.assert_allclose(arrays["end_seconds"][paused], [0.32, 1.32, 6.32, 7.32, 8.32, 9.32])
    assert arrays["start_frame"][late].tolist() == [0, 25, 50]
    np.testing.assert_allclose(arrays["start_seconds"][late], [2, 3, 4])


def test_a_row_is_the_feature_of_the_frames_that_it_names(backbone, few, protocol, tmp_path):
    """An independent way: open the file, take the frames that the row names, resize, run the network."""
    embed_videos(backbone, few, protocol, tmp_path / "f.npz")
    arrays = read_arrays(tmp_path / "f.npz")
    assert arrays["path"].tolist() == [row.path for row in few.rows for _ in range(3)]
    assert arrays["clip"].tolist() == [0, 1, 2] * 7
    assert arrays["start_frame"].tolist() == [0, 3, 6] * 7
    assert arrays["end_frame"].tolist() == [8, 11, 14] * 7
    np.testing.assert_allclose(arrays["start_seconds"][:3], [0, 0.12, 0.24])
    np.testing.assert_allclose(arrays["end_seconds"][:3], [0.32, 0.44, 0.56])
    assert arrays["label"].tolist() == [row.label for row in few.rows for _ in range(3)]
    chosen = 4
    with open_video(few.root / str(arrays["path"][chosen]), "pyav") as reader:
        frames_TCHW = reader.frames_at(np.arange(arrays["start_frame"][chosen], arrays["end_frame"][chosen]))
    clip = prepare_pixels(frames_TCHW, protocol.features.resize_px, protocol.features.crop_px).transpose(0, 1)[None]
    with torch.inference_mode():
        for stage in ("stage2", "stage4"):
            expected = backbone.eval()(clip, stage).mean(dim=(2, 3, 4))[0].numpy()
            assert arrays[f"features_{stage}"].dtype == np.float32
            np.testing.assert_allclose(arrays[f"features_{stage}"][chosen], expected, atol=1e-6)


def test_the_mean_over_clips_is_what_a_probe_takes(backbone, few, quick, tmp_path):
    quick = replace(quick, num_clips=2, pool="avgmax", stages="stage1,stage3")
    probed = extract_features(backbone, few, few.rows, quick)
    embed_videos(backbone, few, EmbedProtocol(quick), tmp_path / "f.npz")
    arrays = read_arrays(tmp_path / "f.npz")
    joined = np.concatenate([arrays["features_stage1"], arrays["features_stage3"]], axis=1)
    np.testing.assert_allclose(joined.reshape(7, 2, -1).mean(axis=1), probed.values_ND, atol=1e-6)


def test_neither_workers_nor_batches_nor_portions_change_a_row(backbone, few, protocol, tmp_path, monkeypatch):
    embed_videos(backbone, few, protocol, tmp_path / "one.npz")
    one = read_arrays(tmp_path / "one.npz")
    for name, batch_size, workers, read_bytes in (("a", 1, 1, 2**20), ("b", 64, 2, 2**20), ("c", 2, 0, 1)):
        monkeypatch.setattr(reading, "_READ_BYTES", read_bytes)
        changed = replace(protocol, features=replace(protocol.features, batch_size=batch_size, workers=workers))
        embed_videos(backbone, few, changed, tmp_path / f"{name}.npz")
        other = read_arrays(tmp_path / f"{name}.npz")
        for column, values in one.items():
            if column.startswith("features_"):
                np.testing.assert_allclose(other[column], values, atol=1e-6)
            else:
                np.testing.assert_array_equal(other[column], values)


def test_every_so_many_seconds_a_clip_starts_as_long_as_it_fits(backbone, tmp_path):
    """25 fps: every 0.1 s is every 2.5 frames, rounded to even as numpy does; 8 frames of 14 fit up to frame 6."""
    row = make_row(tmp_path, "a.mp4", "red", "", 0)
    short = make_row(tmp_path, "short.mp4", "red", "", 1, num_frames=5)
    features = replace(EmbedProtocol().features, num_frames=8, crop_px=24, resize_px=28, workers=0)
    embed_videos(backbone, Manifest(tmp_path, (row, short)), EmbedProtocol(features, 0.1), tmp_path / "f.npz")
    arrays = read_arrays(tmp_path / "f.npz")
    assert arrays["start_frame"].tolist() == [0, 2, 5, 0]
    assert arrays["end_frame"].tolist() == [8, 10, 13, 5]
    assert read_metadata(tmp_path / "f.npz")["padded"] == ["short.mp4"]
    assert EmbedProtocol(features, 1e-9).starts(row).tolist() == list(range(7))


def test_a_window_counts_frames_of_the_file(backbone, manifest, quick, tmp_path):
    row = replace(manifest.rows[0], start_frame=2, end_frame=12)
    one = EmbedProtocol(replace(quick, num_clips=1))
    embed_videos(backbone, manifest.with_rows([row]), one, tmp_path / "f.npz")
    arrays = read_arrays(tmp_path / "f.npz")
    assert (arrays["start_frame"][0], arrays["end_frame"][0]) == (3, 11)


def test_the_file_tells_what_its_features_depend_on_and_no_path_of_the_machine(backbone, few, protocol, tmp_path):
    report = embed_videos(backbone, few, protocol, tmp_path / "f.npz")
    told = read_metadata(tmp_path / "f.npz")
    assert told["weights_sha256"] == report.weights_sha256
    assert told["backbone"]["name"] == "tiny3d"
    assert told["stages"] == {"stage2": 8, "stage4": 32}
    assert told["protocol"]["resize_px"] == 28
    assert (told["num_videos"], told["num_clips"]) == (7, 21)
    assert str(few.root) not in json.dumps(told)


def test_parquet_holds_the_same_table(backbone, few, protocol, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(file, "_ROWS_AT_ONCE", 4)
    embed_videos(backbone, few, protocol, tmp_path / "f.npz")
    embed_videos(backbone, few, protocol, tmp_path / "f.parquet")
    one, other = read_arrays(tmp_path / "f.npz"), read_arrays(tmp_path / "f.parquet")
    assert list(one) == list(other)
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values)
    assert read_metadata(tmp_path / "f.parquet") == read_metadata(tmp_path / "f.npz")


def test_parquet_without_pyarrow_names_the_extra(backbone, few, protocol, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pip install 'ssvid\[parquet\]', or write \.npz"):
        embed_videos(backbone, few, protocol, tmp_path / "f.parquet")


# ---- what cannot be read


def test_an_unreadable_video_is_listed_and_has_no_row(backbone, few, protocol, tmp_path):
    rows = list(few.rows)
    rows[1] = replace(rows[1], status="unreadable: cut off")
    rows[2] = replace(rows[2], path="train/away.mp4")
    report = embed_videos(backbone, few.with_rows(rows), protocol, tmp_path / "f.npz")
    assert list(report.unreadable) == [rows[1].path, "train/away.mp4"]
    assert "there is no such file" in report.unreadable["train/away.mp4"]
    assert report.num_videos == 5
    arrays = read_arrays(tmp_path / "f.npz")
    assert set(arrays["path"].tolist()) == {row.path for i, row in enumerate(rows) if i not in (1, 2)}
    assert np.isfinite(arrays["features_stage4"]).all()
    listed = read_metadata(tmp_path / "f.npz")["unreadable"]
    assert listed[0] == [rows[1].path, "unreadable: cut off"]
    assert listed[1][0] == "train/away.mp4"


def test_nothing_readable_is_an_error_and_leaves_nothing(backbone, few, protocol, tmp_path):
    rows = [replace(row, path=f"away/{row.path}") for row in few.rows]
    with pytest.raises(DataError, match=r"none of the 7 videos could be read .*there is no such file"):
        embed_videos(backbone, few.with_rows(rows), protocol, tmp_path / "f.npz")
    assert not list(tmp_path.iterdir())


def test_a_broken_network_is_no_unreadable_video(few, protocol, tmp_path):
    network = initialize_backbone("tiny3d", {"width": 4}, seed=0)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(SsvidError, match="features that are not finite"):
        embed_videos(network, few, protocol, tmp_path / "f.npz")


# ---- going on


class Killed(Exception):
    """Stands for a kill: nothing behind it is run."""


def killed_after(clips: int):
    def progress(done, total):
        if done >= clips:
            raise Killed

    return progress


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("clips", [3, 12])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    backbone, few, protocol, tmp_path, monkeypatch, clips, suffix
):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    protocol = replace(protocol, features=replace(protocol.features, batch_size=7))  # two videos of 3 clips a block
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    embed_videos(backbone, few, protocol, whole)
    with pytest.raises(Killed):
        embed_videos(backbone, few, protocol, broken, progress=killed_after(clips))
    assert not broken.exists()
    seen = counting(monkeypatch)
    report = embed_videos(backbone, few, protocol, broken)
    kept = 6 * -(-clips // 6)
    assert sum(seen) == 21 - kept
    assert report.reused_videos == kept // 3
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([whole.name, broken.name])


def test_a_damaged_or_half_written_block_is_computed_again(backbone, few, protocol, tmp_path, monkeypatch):
    """Of five blocks one is damaged, and the last is cut short as by a kill."""
    out = tmp_path / "f.npz"
    embed_videos(backbone, few, protocol, tmp_path / "whole.npz")
    with pytest.raises(Killed):
        embed_videos(backbone, few, protocol, out, progress=killed_after(15))
    (part,) = (tmp_path / "f.npz.parts").glob("*.vectors")
    content = bytearray(part.read_bytes()[:-4])
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    seen = counting(monkeypatch)
    embed_videos(backbone, few, protocol, out)
    assert sum(seen) == 21 - 9
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_files_weights_and_protocol_that_changed_are_computed_again(backbone, protocol, tmp_path, monkeypatch):
    root, out = tmp_path / "videos", tmp_path / "f.npz"
    rows = [make_row(root, f"{i}.mp4", "red", "", i) for i in range(3)]
    seen = counting(monkeypatch)

    def clips_computed(network=backbone, rows=rows, protocol=protocol):
        before = sum(seen)
        embed_videos(network, Manifest(root, tuple(rows)), protocol, out, keep_parts=True)
        return sum(seen) - before

    assert clips_computed() == 9
    assert clips_computed() == 0
    rows.append(make_row(root, "3.mp4", "red", "", 3))
    assert clips_computed() == 3 * 1
    rows[1] = make_row(root, "1.mp4", "blue", "", 9)
    assert clips_computed() == 3
    moved = shutil.copy(root / "0.mp4", root / "zero.mp4")
    rows[0] = replace(rows[0], path=moved.name)  # another name, the same content
    assert clips_computed() == 0
    assert read_arrays(out)["path"][0] == "zero.mp4"
    other = replace(protocol, features=replace(protocol.features, pool="avgmax"))
    assert clips_computed(protocol=other) == 12
    assert clips_computed(network=initialize_backbone("tiny3d", {"width": 4}, seed=1)) == 12
    slower = replace(protocol, features=replace(protocol.features, batch_size=2, workers=1))
    assert clips_computed(protocol=slower) == 0  # they change how fast, not what


def test_a_manifest_that_is_out_of_date_is_refused(backbone, protocol, tmp_path):
    row = make_row(tmp_path, "a.mp4", "red", "", 0)
    make_row(tmp_path, "a.mp4", "blue", "", 1)
    with pytest.raises(DataError, match=r"1 of 1 files are not those of the manifest, the first is 'a\.mp4'"):
        embed_videos(backbone, Manifest(tmp_path, (row,)), protocol, tmp_path / "f.npz")


def test_nothing_of_others_is_overwritten(backbone, few, protocol, tmp_path):
    out = tmp_path / "f.npz"
    embed_videos(backbone, few, protocol, out)
    before = out.read_bytes()
    with pytest.raises(DataError, match=r"f\.npz exists and would be replaced"):
        embed_videos(backbone, few, protocol, out)
    (tmp_path / "g.npz.parts").mkdir()
    (tmp_path / "g.npz.parts" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"g\.npz\.parts exists and holds no embed\.json"):
        embed_videos(backbone, few, protocol, tmp_path / "g.npz")
    older = tmp_path / "i.npz.parts"
    older.mkdir()
    (older / "embed.json").write_text('{"format": 1, "ssvid": "0.1.0", "output": ""}')
    (older / f"{'a' * 40}.part").write_bytes(b"vectors")
    with pytest.raises(DataError, match=r"i\.npz\.parts was begun by an earlier version of ssvid.*Remove that folder"):
        embed_videos(backbone, few, protocol, tmp_path / "i.npz")
    kept = tmp_path / "h.npz"
    embed_videos(backbone, few, protocol, kept, keep_parts=True)
    kept.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is not the file that the run in .* wrote"):
        embed_videos(backbone, few, protocol, kept)
    assert out.read_bytes() == before
    assert kept.read_bytes() == b"something else"


def test_two_processes_do_not_share_a_folder_of_parts(backbone, few, protocol, tmp_path):
    import fcntl

    parts = tmp_path / "f.npz.parts"
    with pytest.raises(Killed):
        embed_videos(backbone, few, protocol, tmp_path / "f.npz", progress=killed_after(3))
    with open(parts / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is in use by another process"):
            embed_videos(backbone, few, protocol, tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("f.csv", {}, r"out \(.*f\.csv\) must end in \.npz or \.parquet"),
        ("f.npz", {"every_seconds": -1.0}, r"every_seconds \(-1\.0\) must be at least 0"),
        ("f.npz", {"every_seconds": 2.0}, r"num_clips \(3\) and every_seconds \(2\) exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused(backbone, few, protocol, tmp_path, name, changes, words):
    with pytest.raises((DataError, RecipeError), match=words):
        embed_videos(backbone, few, replace(protocol, **changes), tmp_path / name)


def test_every_so_many_seconds_needs_a_frame_rate(backbone, few, quick, tmp_path):
    rows = [replace(few.rows[0], fps=0.0)]
    with pytest.raises(DataError, match="needs the frame rate of each video"):
        embed_videos(backbone, few.with_rows(rows), EmbedProtocol(replace(quick, num_clips=1), 1.0), tmp_path / "f.npz")
