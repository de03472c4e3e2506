"""The row of trajectories: descriptors of videos once, a codebook of train alone, a linear SVM; beside any evaluation."""

import dataclasses

import numpy as np
import pytest

from ssvid.backbones import initialize_backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.errors import DataError, SsvidError
from ssvid.evals.contract import Subject, Tools
from ssvid.evals.trajectories import Trajectories, num_gaussians, trajectory_subject
from ssvid.features import descriptors
from ssvid.features.descriptors import stretches
from ssvid.features.protocol import BaselineProtocol, FeatureProtocol, ProbeProtocol, RetrievalProtocol
from ssvid.programs import lineup as lineup_file
from ssvid.recipe.schema import ProbeRecipe
from ssvid.video import content_id, write_video
from tests.features.test_trajectories import sliding
from tests.frozen import ask, beside, labeled

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'ssvid[motion]'")
SIDE_PX = 40  # one scale
SMALL = FeatureProtocol(num_frames=8, num_clips=1, crop_px=32, resize_px=SIDE_PX, workers=0)
PROBE = ProbeProtocol(num_holdouts=1, regularization=(0.1, 1.0), knn_ks=(3,))
ALONE = BaselineProtocol(random=False, histograms=False, trajectories=True, single_frame=False, shuffled_frames=False)


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> Manifest:
    """Planes that slide to the left and to the right, 4 training and 2 test videos each; how they look tells nothing. Read only."""
    root, rows = tmp_path_factory.mktemp("moving"), []
    for split, count in (("train", 4), ("test", 2)):
        for label, step in (("left", -2), ("right", 2)):
            for i in range(count):
                file = root / f"{split}-{label}-{i}.mp4"
                frames = sliding(step, 0, 17 + i, side_px=SIDE_PX, seed=len(rows))
                write_video(file, [np.repeat(frame[..., None], 3, axis=2) for frame in frames], fps=25)
                facts = (file.name, 17 + i, 25.0, SIDE_PX, SIDE_PX)
                more = {"label": label, "split": split, "decoders_ok": ("pyav",), "content_id": content_id(file)}
                rows.append(VideoRow(*facts, **more))
    return Manifest(root, tuple(rows))


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """With a cache that all tests share, so that a video is measured once."""
    return Tools(cache_dir=tmp_path_factory.mktemp("kept"))


@pytest.fixture
def subject():
    return trajectory_subject(SMALL)


def test_motion_alone_is_told_by_every_evaluation(moving, subject, tools):
    for name, options in {"linear_probe": PROBE, "knn": PROBE, "retrieval": RetrievalProtocol(ks=(1,))}.items():
        rows = ask(name, Trajectories(), labeled(moving), options, subject.protocol, tools=tools, name="trajectories")
        assert {row.value for row in rows} == {1.0} and rows[0].name == "trajectories", name
        assert rows[0].context["trajectories"]["num_gaussians"] >= 1
        assert rows[0].context["feature_protocol"] == {"decoder": "auto"}


def test_it_stands_beside_a_network_where_it_is_asked_for(moving, tools):
    network = initialize_backbone("tiny3d", {"width": 2}, seed=0)
    recipe = ProbeRecipe(features=SMALL, probe=PROBE, baselines=ALONE)
    rows = beside(recipe, network, labeled(moving), tools=tools, pretrained=network)
    assert list(dict.fromkeys(row.name for row in rows)) == ["pretrained", "trajectories"]
    head = next(row for row in rows if (row.name, row.metric) == ("trajectories", "probe_top1")).context["head"]
    assert set(head["heldout_top1"]) == {"1", "10", "100", "1000"} and head["cost"] in Trajectories.costs
    without = dataclasses.replace(ALONE, trajectories=BaselineProtocol().trajectories)
    rows = beside(
        dataclasses.replace(recipe, baselines=without), network, labeled(moving), tools=tools, pretrained=network
    )
    assert {row.name for row in rows} == {"pretrained"}, "some seconds for each video are not spent unasked"


def test_without_opencv_the_row_is_left_out_and_the_table_says_so(moving, tools, monkeypatch):
    def missing():
        raise SsvidError("optical flow needs OpenCV. Install it with: pip install 'ssvid[motion]'")

    monkeypatch.setattr(lineup_file, "require_opencv", missing)
    network = initialize_backbone("tiny3d", {"width": 2}, seed=0)
    rows = beside(
        ProbeRecipe(features=SMALL, probe=PROBE, baselines=ALONE), network, labeled(moving), pretrained=network
    )
    assert {row.name for row in rows} == {"pretrained"}
    assert "no row of trajectories: optical flow needs OpenCV" in rows[0].context["notes"][-1]
    assert "pip install 'ssvid[motion]'" in rows[0].context["notes"][-1]


def test_what_was_measured_is_not_measured_again(moving, subject, tmp_path, monkeypatch):
    tools = Tools(cache_dir=tmp_path)
    seen = subject.network.see(subject, labeled(moving), tools)

    def measured(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(descriptors, "video_descriptors", measured)
    again, data = subject.network.see(subject, labeled(moving), tools), labeled(moving)
    np.testing.assert_array_equal(again.train.values_ND, seen.train.values_ND)
    other_fold = subject.network.see(subject, labeled(moving, train=data.test, test=data.train), tools)
    assert other_fold.train.ids == seen.test.ids
    monkeypatch.setattr(descriptors, "VERSION", descriptors.VERSION + 1)
    with pytest.raises(AssertionError, match="measured again"):
        subject.network.see(subject, labeled(moving), tools)


def test_no_test_video_touches_the_codebook(moving, subject, tools):
    whole = subject.network.see(subject, labeled(moving), tools)
    test = [row for row in moving.rows if row.split == "test"]
    for few in (test[:1], test[-1:]):
        seen = subject.network.see(subject, labeled(moving, test=few), tools)
        np.testing.assert_array_equal(seen.train.values_ND, whole.train.values_ND)


def test_two_readers_and_none_find_the_same(moving, subject, tools):
    by_two = Subject(subject.name, subject.network, dataclasses.replace(subject.protocol, workers=2))
    anew, kept = (
        by_two.network.see(by_two, labeled(moving), Tools()),
        subject.network.see(subject, labeled(moving), tools),
    )
    np.testing.assert_array_equal(anew.test.values_ND, kept.test.values_ND)


def test_a_video_without_motion_has_a_vector_of_zeros_and_is_told(manifest, moving, subject, tools):
    """The videos of ``manifest`` have 14 frames, and a trajectory 16."""
    still = next(row for row in manifest.rows if row.split == "test")
    file = moving.root / "still.mp4"
    file.write_bytes((manifest.root / still.path).read_bytes())
    data = labeled(moving)
    data = dataclasses.replace(data, test=(*data.test, dataclasses.replace(still, path=file.name, label="left")))
    seen = subject.network.see(subject, data, tools)
    assert not seen.test.values_ND[-1].any() and seen.test.readable.all()
    assert seen.notes == ("test videos without a trajectory, whose vector is zero: 1 (still.mp4)",)
    (row,) = ask("linear_probe", Trajectories(), data, PROBE, subject.protocol, tools=tools)
    assert seen.notes[0] in row.context["notes"]


def test_where_nothing_moves_in_train_there_is_still_an_answer(manifest, subject):
    few = labeled(manifest, train=[row for row in manifest.rows if row.split == "train"][::3])
    (row,) = ask("linear_probe", Trajectories(), few, PROBE, subject.protocol)
    assert row.context["trajectories"]["num_gaussians"] == 0
    assert "training videos without a trajectory, whose vector is zero: 6" in " ".join(row.context["notes"])


def test_a_video_that_cannot_be_read_is_listed(moving, subject, tools):
    data = labeled(moving)
    gone = dataclasses.replace(data.test[0], path="gone.mp4", content_id="")
    seen = subject.network.see(subject, dataclasses.replace(data, test=(gone, *data.test[1:])), tools)
    assert [listed.id for listed in seen.test.unreadable] == ["gone.mp4"]
    assert seen.test.readable.tolist() == [False] + [True] * (len(data.test) - 1)
    with pytest.raises(DataError, match="none of the 1 videos could be read"):
        subject.network.see(subject, dataclasses.replace(data, test=(gone,)), tools)


def test_a_cache_that_cannot_be_written_is_told_and_costs_nothing_else(moving, subject, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="trajectories are not kept for the next time"):
        seen = subject.network.see(subject, labeled(moving), Tools(cache_dir=tmp_path / "file"))
    assert seen.train.readable.all()


def test_synthetic_videos_are_scored_end_to_end(tmp_path, subject, tools):
    """All ten motions; every video in its place, and the same again."""
    synthesize(tmp_path / "videos", SyntheticVideos(num_train=20, num_test=10, seconds=0.72, size_px=32), workers=1)
    data = labeled(Manifest.load(tmp_path / "videos" / "manifest.csv"))
    rows, again = (ask("linear_probe", Trajectories(), data, PROBE, subject.protocol, tools=tools) for _ in range(2))
    assert rows[0].ids == tuple(row.path for row in data.test) and rows[0].chance == pytest.approx(0.1)
    assert rows[0].context["predictions"] == again[0].context["predictions"]


def test_how_many_gaussians_there_are():
    assert [num_gaussians(n) for n in (0, 999, 2000, 3999, 63_999, 64_000, 10**7)] == [1, 1, 2, 2, 32, 64, 64]


def test_of_a_long_video_stretches_are_followed():
    assert [len(stretch) for stretch in stretches(320)] == [320]
    long = stretches(1000)
    assert [len(stretch) for stretch in long] == [80] * 4
    assert (long[0][0], long[-1][-1]) == (0, 999)
