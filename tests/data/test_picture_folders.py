"""Folders of pictures in the table, in lists, in the cache and in runs: as video files, and with their numbers to the bit."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ssvid
from ssvid.cli import main
from ssvid.data.collection import load_manifest
from ssvid.data.config import DataConfig
from ssvid.data.index import building
from ssvid.data.index.building import build_manifest
from ssvid.data.index.scan_cache import ScanCache, changed_files, file_state
from ssvid.data.manifest import Manifest
from ssvid.data.readers import Entry, list_videos
from ssvid.errors import DataError
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.reading import check_contents, check_decoder
from ssvid.train.waiting import look_at
from ssvid.video.decoders.choice import decoder_status
from tests.video.decoders.test_pictures import lossless

SIZE = (20, 24)
CLASSES = {"cat": (220, 40, 30), "dog": (40, 210, 50)}


def frames(label: str, seed: int, num_frames: int = 8) -> list[np.ndarray]:
    """A patch of the class's color that moves over noise."""
    rng = np.random.default_rng([seed, *CLASSES[label]])
    ground = rng.integers(0, 160, (*SIZE, 3), dtype=np.uint8)
    made = []
    for t in range(num_frames):
        frame = ground.copy()
        frame[4:14, 2 + t : 12 + t] = CLASSES[label]
        made.append(frame)
    return made


def save(folder: Path, pictures: list[np.ndarray], name: str = "{:05d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(number))
    return folder


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def index(root: Path, name: str = "folder", *, fps: float = 25.0, **options: object) -> Manifest:
    return build_manifest(root, list_videos(name, root).at_rate(fps), **{"workers": 1, **options})  # type: ignore[arg-type]


# ---- numbers


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same labeled set twice: as files without loss, and as folders of the frames of these."""
    root = tmp_path_factory.mktemp("twins")
    for label in CLASSES:
        for split, seeds in {"train": range(4), "test": range(4, 6)}.items():
            for seed in seeds:
                place = f"{split}/{label}/{seed}"
                (root / "files" / place).parent.mkdir(parents=True, exist_ok=True)
                lossless(root / "files" / f"{place}.mkv", frames(label, seed), "rgb24")
                save(root / "folders" / place, frames(label, seed))
    return root / "files", root / "folders"


def test_probe_and_retrieval_give_the_numbers_of_the_lossless_files(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    quick = {
        "features": {"num_frames": 4, "num_clips": 2, "crop_px": 16, "resize_px": 18, "workers": 0},
        "probe": {"regularization": [0.1, 1.0], "num_holdouts": 2, "holdout_fraction": 0.5, "knn_ks": [3]},
        "backbone": {"name": "tiny3d", "options": {"width": 4}},
    }
    found = []
    for root in twins:
        data = {"name": "class_folder", "root": str(root), "index_workers": 1}
        out = tmp_path / root.name
        outcome = ssvid.probe(
            {"kind": "probe", "data": data, **quick}, backbone="random", out=out, device="cpu", show_progress=False
        )
        found.append([(row.name, row.metric, row.value, row.interval) for row in outcome.rows])
    assert found[0] == found[1]
    assert {metric for _, metric, *_ in found[0]} >= {"probe_top1", "knn3_top1"}


def test_pretraining_runs_on_folders_and_measures_others_out_of_domain(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    outside = save(tmp_path / "outside" / "clip", frames("cat", 99, 12)).parent
    words = [
        *("data.name=class_folder", f"data.root={twins[1]}", "data.fps=12", f"data.out_of_domain.root={outside}"),
        *("task.options.num_frames=3", "optim.epochs=1", "loader.global_batch=4"),
        *("task.options.min_px=32", "task.options.max_px=32", "task.options.eval_px=32", "task.options.frame_px=40"),
        *("loader.workers_per_device=0", "loader.clips_per_video=1", "data.index_workers=1", "trainer.accelerator=cpu"),
        "data.val_fraction=0.25",
    ]
    run = ssvid.pretrain("pretrain/speediness_tiny", *words, run_dir=tmp_path / "run", show_progress=False)
    table = Manifest.load(run.run_dir / "manifest.csv", allow_outside=True)
    assert {row.fps for row in table.rows} == {12.0}
    assert {row.split for row in table.rows} == {"train", "test"}
    assert run.out_of_domain["accuracy"] >= 0
    with pytest.raises(DataError, match="are also trained on"):
        ssvid.pretrain(
            *("pretrain/speediness_tiny", *words, f"data.out_of_domain.root={twins[1] / 'train'}"),
            run_dir=tmp_path / "leak", show_progress=False,
        )  # fmt: skip


def test_one_folder_and_folders_below_one_are_embedded(
    twins: tuple[Path, Path], tmp_path: Path, cached: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--backbone", "random", "--backbone-name", "tiny3d", "--device", "cpu", "--workers", "0"]
    quick += ["--num-frames", "4", "--crop-px", "16", "--resize-px", "18"]
    clip = twins[1] / "test/cat/4"
    for name, videos in {"one": clip, "file": twins[0] / "test/cat/4.mkv", "all": twins[1]}.items():
        words = [*quick, "-o", str(tmp_path / f"{name}.npz"), "--fps", "8", "--every-seconds", "0.5"]
        assert main(["embed", str(videos), *words]) == 0
    capsys.readouterr()
    one, file, all_ = (np.load(tmp_path / f"{name}.npz") for name in ("one", "file", "all"))
    assert one["path"].tolist() == ["4", "4"]
    assert one["start_frame"].tolist() == [0, 4], "every half second at 8 frames a second"
    np.testing.assert_allclose(one["features_stage4"][0], file["features_stage4"][0], atol=1e-6)  # in another batch
    assert len(set(all_["path"].tolist())) == 12
    assert set(all_["label"].tolist()) == set(CLASSES)
    capsys.readouterr()


# ---- listing


def test_folders_of_pictures_are_listed_as_videos_are(tmp_path: Path) -> None:
    for place in ("a/cat/1", "a/cat/2.5", "a/dog/x.avi"):
        save(tmp_path / place, frames("cat", 1, 2))
    (tmp_path / "a/cat/1/Thumbs.db").write_bytes(b"x")
    (tmp_path / "a/cat/.hidden").mkdir()
    listing = list_videos("folder", tmp_path / "a")
    assert [entry.path for entry in listing] == ["cat/1", "cat/2.5", "dog/x.avi"]
    assert (listing.notes(), listing.folders) == ([], ("cat/1", "cat/2.5", "dog/x.avi"))
    by_class = list_videos("class_folder", tmp_path / "a")
    assert [(entry.path, entry.label) for entry in by_class] == [
        ("cat/1", "cat"),
        ("cat/2.5", "cat"),
        ("dog/x.avi", "dog"),
    ]
    photos = save(tmp_path / "photos" / "cat", frames("cat", 1)).parent
    with pytest.raises(
        DataError, match=r"path \('cat'\) must lie in a class folder.*folder of pictures, and so one video"
    ):
        list_videos("class_folder", photos)


def test_mixtures_are_told(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "a.jpg", "b.jpg"):  # pictures beside a video file are previews
        (tmp_path / "videos" / name).touch()
    save(tmp_path / "masks" / "a", frames("cat", 1, 3))
    save(tmp_path / "single", frames("cat", 1, 1))
    listing = list_videos("folder", tmp_path)
    assert [entry.path for entry in listing] == ["masks/a", "videos/a.mp4"]
    assert listing.passed_over == {".jpg": 2, ".png": 1}
    told = " ".join(listing.notes())
    assert "3 files are passed over" in told
    assert "1 of 2 videos are folders of pictures beside video files: masks/a." in told


def test_the_root_itself_is_no_video_and_the_way_out_is_told(tmp_path: Path) -> None:
    save(tmp_path, frames("cat", 1))
    with pytest.raises(DataError, match=r"Found instead: 8 \.png.*set data\.root to the folder above it"):
        list_videos("folder", tmp_path)


def test_an_official_list_takes_the_file_and_not_the_pictures_cut_from_it(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n")
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 1\nArchery/v_Archery_g09_c01.avi 1\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    for group in ("08", "01"):
        (tmp_path / "UCF-101" / "Archery").mkdir(parents=True, exist_ok=True)
        (tmp_path / "UCF-101" / "Archery" / f"v_Archery_g{group}_c01.avi").touch()
    for group in ("08", "09"):
        save(tmp_path / "jpegs" / f"v_Archery_g{group}_c01", frames("cat", 1, 2))
    found = {entry.path: entry.split for entry in list_videos("ucf101", tmp_path)}
    assert found == {
        "UCF-101/Archery/v_Archery_g08_c01.avi": "train",
        "jpegs/v_Archery_g09_c01": "train",
        "UCF-101/Archery/v_Archery_g01_c01.avi": "test",
    }


def test_lists_name_folders_with_windows_in_seconds(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "clips/my clip", frames("cat", 1))
    lossless(tmp_path / "clips/a.mkv", frames("dog", 1), "rgb24")
    (tmp_path / "list.csv").write_text("path,label,start,end\nclips/my clip,cat,0.5,1.5\nclips/a.mkv,dog,,\n")
    entries = list_videos("list", tmp_path, tmp_path / "list.csv")
    table = build_manifest(tmp_path, entries.at_rate(4), workers=1)
    assert [(row.path, row.start_frame, row.end_frame, row.fps) for row in table.rows] == [
        ("clips/my clip", 2, 6, 4.0),
        ("clips/a.mkv", 0, -1, 25.0),
    ]
    (tmp_path / "list.csv").write_text("path,label\nclips,cat\n")
    with pytest.raises(DataError, match=r"path \('clips'\) must name a file"):
        list_videos("list", tmp_path, tmp_path / "list.csv")


# ---- the table


def test_a_folder_is_a_row_that_survives_and_is_opened(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "set/a", frames("cat", 1))
    table = index(tmp_path / "set", fps=24)
    [row] = table.rows
    assert (row.num_frames, row.fps, row.height, row.width, row.decoders_ok) == (8, 24.0, *SIZE, ("pictures",))
    assert row.notes == "fps: pictures tell no rate, 24 is taken"
    table.save(tmp_path / "set/manifest.csv")
    config = DataConfig(name="manifest", root=str(tmp_path / "set"))
    again = load_manifest(config)
    assert again == table
    assert again.sha256() != table.with_rows([replace(row, fps=25.0)]).sha256(), "the rate is part of the identity"
    with row.open(tmp_path / "set") as reader:
        np.testing.assert_array_equal(reader.frames_at(np.array([3]))[0].permute(1, 2, 0), frames("cat", 1)[3])
    for name in ("torchcodec", "decord"):
        if decoder_status(name).works:
            check_decoder(again.rows, FeatureProtocol(decoder=name))  # a folder needs none
    check_contents(again, again.rows)
    Image.fromarray(frames("dog", 1)[0]).save(tmp_path / "set/a/00003.png")
    with pytest.raises(DataError, match="1 of 1 files are not those of the manifest, the first is 'a'"):
        check_contents(again, again.rows)
    for picture in (tmp_path / "set/a").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match="1 of 1 are missing, the first is 'a'"):
        load_manifest(config)
    shutil.rmtree(tmp_path / "set/a")
    assert changed_files(tmp_path / "set", {"a": row.content_id}) == [], "what is gone is told elsewhere"


def test_what_is_wrong_with_a_folder_stands_in_its_row(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "good", frames("cat", 1))
    save(tmp_path / "sizes", [*frames("cat", 1), np.zeros((10, 10, 3), np.uint8)])
    (save(tmp_path / "broken", frames("cat", 1)) / "00004.png").write_bytes(b"x")
    (save(tmp_path / "gaps", frames("cat", 1)) / "00004.png").unlink()
    (save(tmp_path / "link", frames("cat", 1)) / "00008.png").symlink_to(tmp_path / "nowhere.png")
    rows = {row.path: row for row in index(tmp_path).rows}
    assert rows["good"].is_readable and rows["gaps"].is_readable
    assert "pictures: the numbers in the names leave gaps, the first after 00003.png" in rows["gaps"].notes
    assert rows["sizes"].status.startswith("unreadable: picture 00008.png has 10 x 10 pixels and 00000.png 24 x 20")
    assert rows["broken"].status.startswith("unreadable: 1 of 8 pictures cannot be read, the first is 00004.png")
    assert rows["link"].status == "unreadable: picture 00008.png cannot be read (No such file or directory)"
    with pytest.raises(DataError, match=r"fps \(0\) of pictures must be above 0"):
        index(tmp_path, fps=0)


def test_the_same_content_in_two_splits_is_a_leak_whatever_the_names(
    tmp_path: Path, cached: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "train/cat/a", frames("cat", 1), "{:05d}.png")
    save(tmp_path / "test/cat/b", frames("cat", 1), "frame_{}.png")
    save(tmp_path / "test/cat/c", frames("cat", 2))
    assert main(["data", "index", str(tmp_path), "--reader", "class_folder", "--fps", "24", "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert "warning: 2 videos have the same content in more than one split" in told
    assert "1 exact duplicate" in told
    assert "3 without time stamps" in told
    rows = Manifest.load(tmp_path / "manifest.csv").rows
    assert {row.fps for row in rows} == {24.0}


def test_a_picture_that_hangs_or_is_a_pipe_costs_its_video_alone(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "set/good", frames("cat", 1))
    os.mkfifo(tmp_path / "pipe")
    (save(tmp_path / "set/hangs", frames("cat", 1)) / "00003.png").unlink()
    (tmp_path / "set/hangs/00003.png").symlink_to(tmp_path / "pipe")  # who opens it waits for a writer for ever
    os.mkfifo(save(tmp_path / "set/pipe", frames("cat", 1)) / "00009.png")  # no file, and so no frame
    rows = {row.path: row for row in index(tmp_path / "set", timeout_seconds=4).rows}
    assert rows["good"].is_readable
    assert rows["hangs"].status == "unreadable: the decoder hung: no progress within 4 s"
    assert (rows["pipe"].status, rows["pipe"].num_frames) == ("ok", 8)


def test_every_picture_is_a_key_frame_where_a_slow_run_is_explained(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "a", frames("cat", 1))
    table = index(tmp_path)
    footage = look_at(SimpleNamespace(manifest=table, rows=table.rows))  # type: ignore[arg-type]
    assert (footage.height, footage.width, footage.key_frames_apart, footage.unindexed) == (*SIZE, 1.0, "")


# ---- the cache


def test_any_change_of_any_picture_is_another_state(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", frames("cat", 1))
    states = [file_state(folder).stamp]
    os.utime(folder / "00004.png", ns=(1, 1))
    states.append(file_state(folder).stamp)
    (folder / "00005.png").rename(folder / "00011.png")
    states.append(file_state(folder).stamp)
    (folder / "00002.png").write_bytes(b"x")
    states.append(file_state(folder).stamp)
    (folder / "00001.png").unlink()
    states.append(file_state(folder).stamp)
    assert len(set(states)) == 5
    (folder / "notes.txt").write_text("no frame")
    assert file_state(folder).stamp == states[-1]
    assert file_state(folder).size_bytes == sum(path.stat().st_size for path in folder.glob("*.png"))


def test_a_folder_is_scanned_once_until_it_changes_and_for_each_rate(
    tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "set/a", frames("cat", 1))
    scanned: list[str] = []
    really = building.scan_files

    def counting(jobs, workers=0):  # type: ignore[no-untyped-def]
        scanned.extend(job.path for job in jobs)
        return really(jobs, workers)

    monkeypatch.setattr(building, "scan_files", counting)
    first = index(tmp_path / "set")
    assert index(tmp_path / "set") == first and scanned == ["a"]
    assert index(tmp_path / "set", fps=50).rows[0].fps == 50.0 and len(scanned) == 2
    Image.fromarray(frames("dog", 5)[0]).save(tmp_path / "set/a/00002.png")
    changed = index(tmp_path / "set").rows[0]
    assert len(scanned) == 3
    assert changed.content_id != first.rows[0].content_id
    with ScanCache("") as cache:
        assert cache.content_id(str(tmp_path / "set/a")) == changed.content_id


def test_an_entry_of_another_folder_is_not_believed(tmp_path: Path, cached: Path) -> None:
    save(tmp_path / "a", frames("cat", 1))
    (tmp_path / "empty").mkdir()
    table = build_manifest(tmp_path, [Entry("a"), Entry("empty"), Entry("gone")], workers=1)
    assert [row.is_readable for row in table.rows] == [True, False, False]
    assert "two pictures of one kind or more" in table.rows[1].status
    assert table.rows[2].status == "unreadable: No such file or directory"
