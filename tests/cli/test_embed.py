"""``ssvid embed``: what VIDEOS may be, what is printed, and a run that is really killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ssvid.cli import main
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, RecipeError
from ssvid.features.kept import Kept
from ssvid.programs.embed import embed
from ssvid.video import content_id

from .test_cli import told

QUICK = ["--backbone", "random", "--backbone-name", "tiny3d", "--crop-px", "24", "--num-frames", "8", "--workers", "0"]
QUICK += ["--device", "cpu"]


@pytest.fixture(scope="module")
def videos(video_folder, tmp_path_factory):
    """Four videos of 40 to 42 frames in nested folders, one file that is no video, a table and a list of them."""
    root = tmp_path_factory.mktemp("embed") / "videos"
    rows = []
    for i in range(4):
        file = root / f"{'ab'[i % 2]}" / f"{i}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video_folder / f"{i:02d}.mp4", file)
        path = file.relative_to(root).as_posix()
        rows.append(VideoRow(path, 40 + i % 3, 25.0, 48, 64, False, file.parent.name, "train", decoders_ok=("pyav",)))
        rows[-1] = VideoRow(**{**vars(rows[-1]), "content_id": content_id(file)})
    (root / "broken.mp4").write_bytes(b"no video at all" * 100)
    tables = root.parent / "tables"
    tables.mkdir()
    Manifest(root, tuple(rows)).save(tables / "train.csv")
    (tables / "list.txt").write_text("".join(f"{row.path}\n" for row in rows[:2]))
    return root


def embedded(videos, tmp_path, capsys, *words: str) -> dict:
    out = tmp_path / "f.npz"
    assert main(["embed", str(videos), *QUICK, "-o", str(out), "--json", *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    with np.load(out, allow_pickle=False) as file:
        summary["arrays"] = {name: file[name] for name in file.files}
    return summary


def test_a_folder_gives_every_video_below_it_and_lists_what_is_broken(videos, tmp_path, capsys):
    summary = embedded(videos, tmp_path, capsys)
    assert summary["arrays"]["path"].tolist() == ["a/0.mp4", "a/2.mp4", "b/1.mp4", "b/3.mp4"]
    assert summary["arrays"]["start_frame"].tolist() == [16, 17, 16, 16]  # central: (40, 42, 41, 40 frames - 8) / 2
    assert summary["arrays"]["features_stage4"].shape == (4, 128)
    assert list(summary["unreadable"]) == ["broken.mp4"]
    assert (summary["num_videos"], summary["num_clips"], summary["stages"]) == (4, 4, {"stage4": 128})


def test_one_video_a_table_and_a_list(videos, tmp_path, capsys):
    tables = videos.parent / "tables"
    one = embedded(videos / "b" / "1.mp4", tmp_path / "1", capsys, "--every-seconds", "0.4")
    assert one["arrays"]["path"].tolist() == ["1.mp4"] * 4
    assert one["arrays"]["start_frame"].tolist() == [0, 10, 20, 30]
    table = embedded(tables / "train.csv", tmp_path / "2", capsys, "--root", str(videos), "--num-clips", "2")
    assert table["arrays"]["label"].tolist() == ["a", "a", "b", "b", "a", "a", "b", "b"]
    assert table["arrays"]["split"].tolist() == ["train"] * 8
    listed = embedded(tables / "list.txt", tmp_path / "3", capsys, "--root", str(videos), "--stages", "stage1,stage2")
    assert listed["arrays"]["path"].tolist() == ["a/0.mp4", "b/1.mp4"]
    assert listed["stages"] == {"stage1": 16, "stage2": 32}


def test_what_is_printed_without_json(videos, tmp_path, capsys):
    assert main(["embed", str(videos), *QUICK, "-o", str(tmp_path / "f.npz")]) == 0
    captured = capsys.readouterr()
    assert "4 clips of 4 videos in" in captured.out
    assert "1 videos could not be read and have no row:\n  broken.mp4:" in captured.out
    assert "clips: 4/4" in captured.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere"], ["VIDEOS (nowhere) does not exist", "Name a folder"]),
        (["{a}", "--root", "x"], ["root (x) is for tables and lists"]),
        (["{a}", "--stages", "stage9"], ["stages: backbone tiny3d has no stage 'stage9'", "Did you mean"]),
        (
            ["{a}", "--pool", "max"],
            ["pool ('max') must be one of avg, avgmax, max1x2x2, frames (did you mean 'avgmax'?). Set pool=avg."],
        ),
        (["{a}", "--crop-px", "90", "--resize-px", "80"], ["resize_px (80) must be at least the crop, 90"]),
        (["{a}", "--decoder", "ffmpeg"], ["decoder ('ffmpeg') is not known"]),
        (["{a}", "--every-seconds", "0"], ["'0' must be a number above 0"]),
        (["{broken}"], ["all 1 files failed", "broken.mp4"]),
    ],
)
def test_mistakes(videos, tmp_path, capsys, words, parts):
    words = [word.format(a=videos / "a", broken=videos / "broken.mp4") for word in words]
    message = told(capsys, "embed", *[words[0], *QUICK, *words[1:]], "-o", str(tmp_path / "f.npz")).split("ssvid: ")[-1]
    for part in parts:
        assert part in message
    assert "features." not in message
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.slow
def test_a_killed_process_goes_on_and_ends_with_the_same_bytes(videos, tmp_path):
    """SIGKILL, as a cluster does it: nothing is cleaned up, and the next run needs no help."""
    table = videos.parent / "tables" / "train.csv"
    options = {"backbone": "random", "backbone_name": "tiny3d", "crop_px": 24, "num_frames": 8, "workers": 0}
    options |= {"every_seconds": 0.05, "batch_size": 2, "device": "cpu", "root": videos, "show_progress": False}
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    embed(table, out=whole, **options)
    slow = (
        "import time, ssvid.features.passes as p, ssvid\n"
        "real = p._embedded\n"
        "p._embedded = lambda *a: (time.sleep(0.1), real(*a))[1]\n"
        f"ssvid.embed({str(table)!r}, out={str(broken)!r}, **{ ({**options, 'root': str(videos)})!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], env=os.environ | {"OMP_NUM_THREADS": "1"})
    parts = tmp_path / "broken.npz.parts"
    deadline = time.monotonic() + 120
    while len(list(Kept(parts).records())) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not broken.exists()
    result = embed(table, out=broken, **options)
    assert 2 <= result.reused_videos < 4
    assert broken.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_an_interrupted_call_says_how_to_go_on(videos, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssvid.features.passes._embedded", interrupt)
    out = tmp_path / "f.npz"
    words = ["embed", str(videos / "a"), *QUICK, "-o", str(out)]
    assert main(words) == 130
    err = " ".join(capsys.readouterr().err.split())
    assert f"Run the same command again to go on; what is done is in {out}.parts." in err


@pytest.mark.parametrize(
    ("layout", "words"), [("train/run", []), ("test/run", []), ("run", ["--reader", "class_folder"])]
)
def test_class_folders_fill_label_and_split(videos, tmp_path, capsys, layout, words):
    root = tmp_path / "labeled"
    for folder in dict.fromkeys((layout, layout.replace("test", "train"), layout.replace("run", "sit"))):
        (root / folder).mkdir(parents=True)
        shutil.copy(videos / "a" / "0.mp4", root / folder / "x.mp4")
    arrays = embedded(root, tmp_path, capsys, *words)["arrays"]
    for path, label, split in zip(arrays["path"], arrays["label"], arrays["split"], strict=True):
        assert path.split("/")[-2] == label
        assert split == (path.split("/")[0] if "/run" in layout else "")


def test_folders_that_are_no_splits_give_no_labels_unasked(videos, tmp_path, capsys):
    arrays = embedded(videos, tmp_path, capsys)["arrays"]
    assert set(arrays["label"]) == set(arrays["split"]) == {""}


def test_a_file_that_is_no_text_is_a_video_whatever_its_ending(videos, tmp_path, capsys):
    for name in ("noending", "x.lrv"):
        shutil.copy(videos / "a" / "0.mp4", tmp_path / name)
        assert embedded(tmp_path / name, tmp_path, capsys)["arrays"]["path"].tolist() == [name]
        (tmp_path / "f.npz").unlink()


def test_the_words_of_a_message_stay_as_they_were_typed(tmp_path):
    """A file whose name holds the name of a group of options is named as it is."""
    listed = tmp_path / "my_features.txt"
    listed.write_text("absent.mp4\n")
    with pytest.raises(DataError, match=r"my_features\.txt"):
        embed(listed, backbone="random", backbone_name="tiny3d", out=tmp_path / "optim.features.npz", device="cpu")
    with pytest.raises(RecipeError, match=r"^pool \('max'\) must be one of .* Set pool=avg\.$"):
        embed(listed, backbone="random", backbone_name="tiny3d", out=tmp_path / "f.npz", device="cpu", pool="max")
