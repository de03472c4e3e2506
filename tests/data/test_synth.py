"""The data set on disk: the same for any number of workers, balanced, disjoint, decodable."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvid.data.manifest import Manifest
from ssvid.data.synth import CRF, GOP, PRESET, SPLITS, SyntheticVideos, layers_of, scene_of, synthesize, truth_path
from ssvid.data.truth import read_truth
from ssvid.errors import DataError
from ssvid.video import open_video, scan_video, write_video
from ssvid.video.synthetic import actor_path, render, scene_progress
from ssvid.video.synthetic_actions import ACTIONS
from ssvid.video.synthetic_motions import DIRECTIONS, IRREVERSIBLE, MOTIONS
from ssvid.video.synthetic_scenes import SCENES
from tests.benchmarks.bench_tracking import load_truth

SMALL = {"num_train": 12, "num_test": 10, "seconds": 0.4, "size_px": 32, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return synthesize(tmp_path_factory.mktemp("synth"), workers=1, videos=SyntheticVideos(**SMALL))


def file_bytes(manifest: Manifest) -> dict[str, bytes]:
    return {row.path: manifest.path_of(row).read_bytes() for row in manifest.rows}


@pytest.mark.slow
def test_files_are_the_same_for_any_number_of_workers(made: Manifest, tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    again = synthesize(tmp_path, workers=2, videos=SyntheticVideos(**SMALL), progress=lambda *tick: ticks.append(tick))
    assert file_bytes(again) == file_bytes(made)
    assert again.rows == made.rows
    assert ticks == [(i, 22) for i in range(1, 23)]


def test_a_video_does_not_depend_on_how_many_there_are(made: Manifest, tmp_path: Path) -> None:
    fewer = synthesize(tmp_path, workers=1, videos=SyntheticVideos(**{**SMALL, "num_train": 2, "num_test": 1}))
    assert file_bytes(fewer).items() <= file_bytes(made).items()


def test_another_seed_gives_other_videos(made: Manifest, tmp_path: Path) -> None:
    other = synthesize(
        tmp_path, workers=1, videos=SyntheticVideos(**{**SMALL, "num_train": 2, "num_test": 0, "seed": 4})
    )
    assert not {row.content_id for row in other.rows} & {row.content_id for row in made.rows}


def test_the_manifest_on_disk_is_the_one_returned(made: Manifest) -> None:
    loaded = Manifest.load(made.root / "manifest.csv")
    assert loaded.rows == made.rows
    assert loaded.labels() == tuple(sorted(MOTIONS))


def test_classes_are_balanced_within_each_split(made: Manifest) -> None:
    for split in SPLITS:
        counts = Counter(row.label for row in made.rows if row.split == split)
        assert set(counts) == set(MOTIONS)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_manifest_agrees_with_a_scan_of_every_file(made: Manifest) -> None:
    for row in made.rows:
        scan = scan_video(made.path_of(row))
        assert (row.num_frames, row.height, row.width) == (scan.info.num_frames, scan.info.height, scan.info.width)
        assert row.fps == pytest.approx(scan.info.fps)
        assert row.decoders_ok == scan.decoders_ok
        assert not row.variable_fps
        assert not scan.has_b_frames


def test_train_and_test_share_no_scene(made: Manifest) -> None:
    seeds = {split: {scene_of(3, split, i).seed for i in range(500)} for split in SPLITS}
    assert not seeds["train"] & seeds["test"]
    assert len({row.content_id for row in made.rows}) == len(made.rows)
    train, test = (render(scene_of(3, split, 0, 32), [0.0]).frames_THWC for split in SPLITS)
    assert (train != test).mean() > 0.9


def test_decoded_frames_are_near_the_rendered_ones(tmp_path: Path) -> None:
    manifest = synthesize(tmp_path, SyntheticVideos(num_train=4, num_test=0, seconds=1.0, seed=1), workers=1)
    for i, row in enumerate(manifest.rows):
        rendered = render(scene_of(1, "train", i), np.arange(25) / 25).frames_THWC
        with open_video(manifest.path_of(row), "pyav", info=row.video_info(manifest.root)) as reader:
            decoded = reader.frames_at(np.arange(25)).permute(0, 2, 3, 1).numpy()
        assert np.abs(decoded.astype(float) - rendered).mean() < 5.0  # grey levels


def test_the_truth_is_that_of_the_scene(made: Manifest) -> None:
    row = made.rows[3]
    truth = load_truth(made.root / truth_path(row.path))
    rendering = render(scene_of(3, "train", 3, 32), truth["times"])
    assert str(truth["motion"]) == row.label == MOTIONS[3]
    np.testing.assert_array_equal(truth["masks"], rendering.masks_STHW)
    np.testing.assert_allclose(truth["tracks"], rendering.tracks_TP2, atol=1e-4)
    np.testing.assert_array_equal(truth["x"], rendering.poses.x)
    assert truth["affine"].shape == (2, row.num_frames, 2, 3)
    assert truth["visible"].shape == truth["tracks"].shape[:2]


def test_speed_and_direction_do_not_depend_on_the_class() -> None:
    """Between-class share of the variance over 2,000 scenes is what chance gives (9 / 1999 = 0.0045)."""
    scenes = [scene_of(0, "train", i) for i in range(2000)]
    motion = np.array([MOTIONS.index(s.motion) for s in scenes])
    for values in ([s.speed for s in scenes], [np.cos(s.direction) for s in scenes], [s.turn for s in scenes]):
        x = np.asarray(values, dtype=float)
        between = sum((motion == k).sum() * (x[motion == k].mean() - x.mean()) ** 2 for k in range(len(MOTIONS)))
        assert between / ((x - x.mean()) ** 2).sum() < 0.0125  # F(9, 1990) stays below this in 999 of 1,000 data sets


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="exists and is not an empty folder"):
        synthesize(tmp_path, SyntheticVideos(**SMALL))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="exists and is not an empty folder"):
        synthesize(tmp_path / "mine.txt", SyntheticVideos(**SMALL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": -1}, "num_train \\(-1\\) must be 0 or more"),
        ({"num_train": 0, "num_test": 0}, "must not both be 0"),
        ({"seconds": 0.0}, "seconds \\(0.0\\) must be a finite length that gives at least 2 frames at 25.0 fps"),
        ({"seconds": float("nan")}, "seconds \\(nan\\) must be"),
        ({"fps": 0.0}, "fps \\(0.0\\) must be above 0"),
        ({"size_px": 33}, "size_px \\(33\\) must be even"),
        ({"size_px": 16}, "at least 32"),
        ({"seed": -1}, "seed \\(-1\\) must be 0 or more"),
        ({"workers": -1}, "workers \\(-1\\) must be 0 or more"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, change: dict[str, float], message: str) -> None:
    workers = int(change.get("workers", 0))
    change = {key: value for key, value in change.items() if key != "workers"}
    with pytest.raises(DataError, match=message):
        synthesize(tmp_path / "out", SyntheticVideos(**{**SMALL, **change}), workers=workers)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_what_was_written_is_removed_when_the_work_fails(tmp_path: Path) -> None:
    calls = itertools.count()

    def interrupt(done: int, total: int) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path, workers=1, progress=interrupt, videos=SyntheticVideos(**SMALL))
    assert not list(tmp_path.iterdir())


def test_the_encoder_keeps_no_clock(tmp_path: Path) -> None:
    """A still scene stays still after encoding, so that compression cannot tell the playback speed."""
    frame = render(scene_of(0, "train", 0, 64), [0.5]).frames_THWC[0]
    write_video(tmp_path / "still.mp4", [frame] * 40, 25.0, crf=CRF, preset=PRESET, gop=GOP)
    with open_video(tmp_path / "still.mp4", "pyav") as reader:
        frames = reader.frames_at(np.arange(1, 40))  # the rate control needs one frame to settle
    assert (frames == frames[:1]).all()


def test_directions_are_classes_of_their_own_and_a_tempo_changes_the_speed_alone(tmp_path):
    made = SyntheticVideos(num_train=8, num_test=0, seconds=1.0, size_px=32, motions="directions")
    manifest = synthesize(tmp_path / "usual", made, workers=1)
    assert manifest.labels() == tuple(sorted(DIRECTIONS))
    losing = dataclasses.replace(made, num_train=6, motions="irreversible")
    assert synthesize(tmp_path / "losing", losing, workers=1).labels() == tuple(sorted(IRREVERSIBLE))
    slow = synthesize(tmp_path / "slow", dataclasses.replace(made, tempo=0.25), workers=1)
    for row, other in zip(manifest.rows, slow.rows, strict=True):
        usual, slower = (np.load(m.root / truth_path(r.path)) for m, r in ((manifest, row), (slow, other)))
        assert slower["speed"] == pytest.approx(0.25 * usual["speed"])
        assert np.array_equal(usual["seed"], slower["seed"])


def test_actions_are_done_once_and_the_phase_of_every_frame_is_known(tmp_path):
    """The parts come in their order, a quarter of the progress each, and last as their shares of the 3 seconds say."""
    made = SyntheticVideos(num_train=4, num_test=0, seconds=3.0, fps=20.0, size_px=32, motions="actions")
    manifest = synthesize(tmp_path, made, workers=1)
    assert manifest.labels() == tuple(sorted(ACTIONS))
    for number, row in enumerate(manifest.rows):
        truth, scene = np.load(tmp_path / truth_path(row.path)), scene_of(0, "train", number, 32, "actions")
        phase, progress = truth["phase"], truth["progress"]
        np.testing.assert_array_equal(phase, np.minimum(progress * 4, 3).astype(int))
        assert progress[0] == 0 and (np.diff(progress) > 0).all() and set(phase) == {0, 1, 2, 3}
        shares = np.array([scene.natural[f"part{part}"] for part in range(4)])
        np.testing.assert_allclose(np.bincount(phase) / 60, shares / shares.sum(), atol=1.01 / 60)
        known = read_truth(tmp_path, row)
        np.testing.assert_array_equal(known.phases.number_T, phase)
        assert known.tracks is not None and known.masks is not None
        np.testing.assert_array_equal(known.cut(5, 9).phases.number_T, phase[5:9])


def test_scenes_come_with_their_layers_and_with_truth_that_evaluations_read(tmp_path):
    made = SyntheticVideos(num_train=5, num_test=1, seconds=0.24, size_px=32, seed=4, motions="layers")
    manifest = synthesize(tmp_path, made, workers=1)
    assert manifest.labels() == tuple(sorted(SCENES)) and {row.split for row in manifest.rows} == set(SPLITS)
    for number, row in enumerate(manifest.rows[:5]):
        scene, truth = layers_of(4, "train", number, 6, 32), read_truth(tmp_path, row)
        assert (row.label, row.num_frames, row.height) == (SCENES[number], 6, 32)
        folder = tmp_path / "layers" / Path(row.path).with_suffix("")
        pictures = {one.name: load_pictures(one) for one in folder.iterdir()}
        without = {f"without_{name}" for name in scene.names}
        assert set(pictures) == {"background", "masks", *scene.names, *without}
        assert np.array_equal(pictures["masks"], scene.ids())
        assert np.array_equal(np.stack([truth.masks.at(t) for t in range(6)]), scene.ids())
        np.testing.assert_allclose(truth.tracks.points_TQ2, scene.points.xy_TP2, atol=1e-5)
        assert np.array_equal(truth.tracks.visible_TQ, scene.points.visible_TP)
        assert np.array_equal(pictures[scene.names[0]], np.rint(255 * scene.layers_NTHW4[0]).astype(np.uint8))
        front, behind = pictures[scene.names[0]].astype(float), pictures[f"without_{scene.names[0]}"]
        alpha = front[..., 3:] / 255
        with open_video(manifest.path_of(row), "pyav") as reader:
            decoded = reader.frames_at(np.arange(6)).permute(0, 2, 3, 1).numpy()
        shown = alpha * front[..., :3] + (1 - alpha) * behind
        error = np.abs((shown - decoded).mean(axis=-1))  # of light: H.264 keeps a quarter of the colors
        assert error.mean() < 6.0 < np.abs((shown[::-1] - decoded).mean(axis=-1)).mean()
    train, test = (layers_of(4, split, 0, 2, 32).frames_THWC for split in SPLITS)
    assert (train != test).mean() > 0.9


def load_pictures(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def test_an_action_takes_other_times_in_other_videos_and_passes_the_same_poses():
    """At equal progress the actor of two scenes is in the same place, but for where the action as a whole takes place."""
    times, found = np.linspace(0, 3, 61), []
    for number in (1, 5):
        scene = scene_of(0, "train", number, 64, "actions")
        assert scene.motion == "pour"
        progress = scene_progress(scene, times)
        x, y, angle, scale = actor_path(scene, np.interp([0.1, 0.4, 0.6, 0.9], progress, times))
        found.append(np.stack([x - scene.center_px[0], y - scene.center_px[1], angle, scale]))
        assert np.abs(progress - times / 3).max() > 0.03
    np.testing.assert_allclose(*found, atol=0.5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"motions": "direction"}, r"motions \('direction'\) is unknown. Did you mean 'directions'"),
        ({"tempo": 0.0}, r"tempo \(0.0\) must be above 0 and finite"),
        ({"tempo": 2.0, "motions": "layers"}, r"tempo \(2.0\) must be 1 of scenes of layers.*by seconds"),
    ],
)
def test_unknown_motions_and_a_tempo_of_nothing_are_refused(wrong, words, tmp_path):
    with pytest.raises(DataError, match=words):
        synthesize(tmp_path / "out", SyntheticVideos(**wrong))
    assert not (tmp_path / "out").exists()
