"""``ssvid data synth | index``: tables are written, mistakes are told, nothing is overwritten."""

import json
import sys

import pytest

from ssvid.cli import main
from ssvid.data.manifest import Manifest

from .test_cli import told


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A tiny synthetic data set, made by the command."""
    out = tmp_path_factory.mktemp("synth") / "made"
    argv = [
        "data",
        "synth",
        str(out),
        "--train",
        "8",
        "--test",
        "2",
        "--seconds",
        "0.5",
        "--size",
        "32",
        "--workers",
        "1",
    ]
    assert main(argv) == 0
    return out


def test_synth_writes_videos_truth_and_a_table(synthetic):
    manifest = Manifest.load(synthetic / "manifest.csv")
    assert len(manifest.select("train")) == 8
    assert len(manifest.select("test")) == 2
    assert len(list((synthetic / "truth").iterdir())) >= 1


def test_synth_takes_its_options_and_prints_json(tmp_path, capsys):
    argv = ["data", "synth", str(tmp_path / "o"), "--train", "2", "--test", "0", "--seconds", "0.4", "--size", "48"]
    assert main([*argv, "--seed", "5", "--workers", "1", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["num_videos"] == 2
    assert found["num_unreadable"] == 0
    rows = Manifest.load(found["manifest"]).rows
    assert {(row.height, row.width, row.num_frames) for row in rows} == {(48, 48, 10)}
    assert "videos: 2/2" in captured.err


def test_synth_overwrites_nothing(synthetic, capsys, tmp_path):
    before = sorted(synthetic.rglob("*"))
    message = told(capsys, "data", "synth", str(synthetic))
    assert f"{synthetic} exists and is not an empty folder. Nothing is overwritten" in message
    assert sorted(synthetic.rglob("*")) == before
    (tmp_path / "file").write_text("mine")
    assert "exists and is not an empty folder" in told(capsys, "data", "synth", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_synth_of_nothing_is_refused(tmp_path, capsys):
    message = told(capsys, "data", "synth", str(tmp_path / "o"), "--train", "0", "--test", "0")
    assert "--train (0) and --test (0) must not both be 0" in message
    assert not (tmp_path / "o").exists()


def test_index_reads_folders_and_lists_and_replaces_nothing(synthetic, tmp_path, capsys):
    table = tmp_path / "t.csv"
    argv = ["data", "index", str(synthetic), "-o", str(table), "--workers", "1"]
    assert main([*argv, "--reader", "class_folder", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_videos"] == 10
    assert found["splits"] == ["test", "train"]
    manifest = Manifest.load(table, synthetic)
    assert found["sha256"] == manifest.sha256()

    (tmp_path / "list.txt").write_text(f"{manifest.rows[0].path} swing\n")
    argv += ["--reader", "list", "--list", str(tmp_path / "list.txt")]
    before = table.read_bytes()
    message = told(capsys, *argv)
    assert f"{table} exists and would be replaced. Add --overwrite, or write elsewhere with -o FILE." in message
    assert table.read_bytes() == before

    assert main([*argv, "--overwrite"]) == 0
    text = capsys.readouterr().out
    assert "1 video" in text
    assert f"written: {table}" in text
    assert Manifest.load(table, synthetic).labels() == ("swing",)


def test_index_names_the_unreadable_and_keeps_them_in_the_table(video_folder, tmp_path, capsys):
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_bytes((video_folder / "00.mp4").read_bytes())
    bad.write_bytes(b"this is no video" * 100)
    argv = ["data", "index", str(tmp_path), "--workers", "1"]
    assert main(argv) == 0
    assert "bad.mp4" in capsys.readouterr().out
    rows = Manifest.load(tmp_path / "manifest.csv").rows
    assert [(row.path, row.is_readable) for row in rows] == [("bad.mp4", False), ("good.mp4", True)]

    good.unlink()
    (tmp_path / "manifest.csv").unlink()
    assert "bad.mp4" in told(capsys, *argv)  # nothing readable is left
    assert not (tmp_path / "manifest.csv").exists()


def test_index_mistakes(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no video")
    cases = {
        ("data", "index", str(empty)): [str(empty), "at least one video", "1 .txt", "Set data.root"],
        ("data", "index", str(tmp_path / "nowhere")): ["nowhere", "must be a folder", "does not exist"],
        ("data", "index", str(empty), "--reader", "list"): ["list must name a file", "Set data.list"],
        ("data", "index", str(empty), "--reader", "list", "--list", "x"): ["list (x)", "must be a readable file"],
        ("data", "index", str(empty), "-o", str(empty)): [f"-o ({empty}) is a folder", "Name a file"],
    }
    for argv, parts in cases.items():
        message = told(capsys, *argv)
        for part in parts:
            assert part in message
    assert sorted(p.name for p in empty.iterdir()) == ["notes.txt"]


def test_the_first_bad_line_of_a_list_is_named(video_folder, tmp_path, capsys):
    listing = tmp_path / "list.txt"
    listing.write_text("00.mp4 a\n01.mp4\nnowhere.mp4 b\n")
    table = tmp_path / "t.csv"
    message = told(
        capsys, "data", "index", str(video_folder), "--reader", "list", "--list", str(listing), "-o", str(table)
    )
    assert f"{listing}, line 2" in message
    assert "must have a label" in message
    assert not table.exists()


def test_index_measures_motion_and_keeps_an_existing_table(synthetic, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    before = (synthetic / "manifest.csv").read_bytes()
    argv = ["data", "index", str(synthetic), "--motion", "--workers", "1"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["motion"] == {"num_measured": 10, "num_remembered": 0, "failed": {}}
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 20
    assert (synthetic / "manifest.csv").read_bytes() == before

    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "motion: measured in 0 files, remembered of 10" in text
    assert f"kept: {synthetic / 'manifest.csv'}" in text


def test_index_writes_a_table_and_lists_what_has_no_motion(video_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "videos"
    root.mkdir()
    (root / "good.mp4").write_bytes((video_folder / "00.mp4").read_bytes())
    (root / "bad.mp4").write_bytes(b"this is no video" * 100)
    argv = ["data", "index", str(root), "--motion", "--workers", "1"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "1 unreadable" in text
    assert "motion: measured in 1 files, remembered of 0" in text
    assert f"written: {root / 'manifest.csv'}" in text


def test_motion_without_opencv_is_told_before_anything_is_scanned(synthetic, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    message = told(capsys, "data", "index", str(synthetic), "--motion")
    assert "optical flow needs OpenCV" in message
    assert "pip install 'ssvid[motion]'" in message
