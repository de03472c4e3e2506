"""Alignment as an evaluation: who stands in the table, what is refused, and the page."""

import dataclasses

import numpy as np
import pytest

from ssvid.backbones import initialize_backbone
from ssvid.errors import DataError, RecipeError
from ssvid.evals.alignment.evaluation import Alignment, AlignmentConfig
from ssvid.evals.alignment.measures import Moments
from ssvid.evals.alignment.page import Aligned, transferred
from ssvid.evals.alignment.reading import POSITION, PositionOnly, moment_frames
from ssvid.evals.contract import Tools
from ssvid.features.protocol import FeatureProtocol
from ssvid.programs.evaluate import evaluate
from ssvid.programs.probe import probe
from ssvid.recipe.load import load_recipe
from tests.evals.alignment.footage import make_actions
from tests.frozen import ask, labeled

FEATURES = FeatureProtocol(num_frames=3, num_clips=1, crop_px=16, resize_px=16, batch_size=4, workers=0)
RECIPE = {
    "kind": "probe",
    "data": {"name": "manifest"},
    "features": {"num_frames": 3, "num_clips": 1, "crop_px": 16, "resize_px": 16, "workers": 0, "stages": "trained"},
    "evaluation": {"name": "alignment", "options": {"label_fractions": [0.5, 1.0], "ks": [3], "num_shown": 2}},
}


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    return make_actions(tmp_path_factory.mktemp("actions"))


@pytest.fixture(scope="module")
def outcome(actions, tmp_path_factory):
    """The whole table of an untrained network."""
    return probe(
        RECIPE, f"data.root={actions.root}", backbone="random", backbone_name="tiny3d", device="cpu",
        out=tmp_path_factory.mktemp("out"), show_progress=False,
    )  # fmt: skip


def rows_of(network, data, **options):
    return {row.metric: row for row in ask("alignment", network, data, AlignmentConfig(**options), FEATURES)}


def test_the_place_in_the_video_stands_beside_every_network(outcome):
    names = {row.name for row in outcome.rows}
    assert {"random", POSITION, "histograms"} < names and len(names) == 4, "and the other form of the random one"
    of = {row.metric: row.value for row in outcome.rows if row.name == POSITION}
    assert set(of) == {
        "alignment_tau", "alignment_phase", "alignment_phase_of_50%", "alignment_progress", "alignment_ap@3",
    }  # fmt: skip
    assert of["alignment_tau"] == pytest.approx(1), "as many moments in all of them"


def test_the_moments_are_those_that_have_their_clip_before_them(actions):
    row = actions.rows[0]
    assert moment_frames(row, dataclasses.replace(FEATURES, num_frames=3, stride_frames=2), 5).tolist() == [4, 9, 14]
    window = dataclasses.replace(row, start_frame=5, end_frame=12)
    assert moment_frames(window, FEATURES, 2).tolist() == [2, 4, 6]


def test_a_number_is_the_mean_of_what_the_measures_say(actions):
    """Of the place alone the neighbors are known: the phases of the other video at the same time, or next to it."""
    data = labeled(actions)
    found = rows_of(PositionOnly(), data, step_frames=1, ks=(1,))["alignment_ap@1"]
    frames = np.arange(2, 15)
    phases = {row.path: np.load(actions.root / row.truth)["phase"][frames] for row in data.test}
    wanted = []
    for row in data.test:
        (other,) = [one.path for one in data.test if one.label == row.label and one is not row]
        wanted.append((phases[row.path] == phases[other]).mean())
    assert found.value == pytest.approx(np.mean(wanted))
    assert found.chance == pytest.approx(
        np.mean([(phases[a.path][:, None] == phases[b.path]).mean() for a in data.test for b in data.test
                 if a.label == b.label and a is not b])
    )  # fmt: skip


def test_classes_are_scored_by_themselves(actions):
    """Taking one class out of test leaves the numbers of the videos of the others."""
    data = labeled(actions)
    few = labeled(actions, test=[row for row in data.test if row.label != "carry"])
    network = initialize_backbone("tiny3d", {"width": 2}, seed=0)
    whole, part = (rows_of(network, one) for one in (data, few))
    kept = [i for i, row in enumerate(data.test) if row.label != "carry"]
    for metric in ("alignment_tau", "alignment_phase", "alignment_ap@5"):
        np.testing.assert_allclose(whole[metric].correct_N[kept], part[metric].correct_N, atol=1e-6)


def test_vectors_can_be_normalized_by_train(actions):
    data, network = labeled(actions), initialize_backbone("tiny3d", {"width": 2}, seed=0)
    values = {
        how: rows_of(network, data, normalization=how)["alignment_tau"].value for how in ("none", "l2", "standard")
    }
    assert len(set(values.values())) > 1


def test_videos_of_unknown_phase_are_refused_with_a_way_out(manifest):
    with pytest.raises(
        DataError, match=r"the phases of 27 of 27 videos are not known .*--motions actions.*array phase"
    ):
        Alignment().check_data(initialize_backbone("tiny3d"), labeled(manifest), AlignmentConfig(), Tools())


def test_one_video_of_each_class_cannot_be_aligned(actions):
    data = labeled(actions)
    alone = labeled(actions, test=list({row.label: row for row in data.test}.values()))
    with pytest.raises(DataError, match="each of the 4 test videos has a class of its own"):
        Alignment().check_data(initialize_backbone("tiny3d"), alone, AlignmentConfig(), Tools())


def test_a_video_that_is_alone_in_its_class_is_not_counted_and_is_named(actions):
    data = labeled(actions)
    rows = [row for row in data.test if row.label != "carry"] + [next(row for row in data.test if row.label == "carry")]
    found = rows_of(PositionOnly(), labeled(actions, test=rows))
    assert len(found["alignment_tau"].ids) == 6 and len(found["alignment_phase"].ids) == 7
    assert any("alone in their class" in note for note in found["alignment_tau"].context["notes"])


def test_videos_without_two_moments_are_refused(actions):
    features = dataclasses.replace(FEATURES, num_frames=15)
    with pytest.raises(DataError, match=r"8 of 8 videos are too short for 2 moments.*features.num_frames"):
        ask("alignment", PositionOnly(), labeled(actions), AlignmentConfig(), features)


def test_several_clips_are_refused():
    with pytest.raises(RecipeError, match=r"features.num_clips \(4\) must be 1"):
        Alignment().prepare(
            dataclasses.replace(FEATURES, num_clips=4), AlignmentConfig(), initialize_backbone("tiny3d"), Tools()
        )


def test_an_unreadable_video_counts_as_nothing(actions, tmp_path):
    data = labeled(actions)
    lost = [dataclasses.replace(row, status="unreadable: gone") if i == 0 else row for i, row in enumerate(data.test)]
    found = rows_of(PositionOnly(), labeled(actions, test=lost))
    assert found["alignment_phase"].correct_N[0] == 0 and found["alignment_tau"].correct_N[0] == 0
    assert any("unreadable test videos" in note for note in found["alignment_tau"].context["notes"])


# ---- the page


def test_the_page_plays_pairs_of_one_class_and_says_how_often_the_label_was_right(outcome):
    page, picture = outcome.pictures
    text = page.read_text()
    assert (page.name, picture.name) == ("alignment.html", "alignment.png")
    assert text.count('<video src="data:video/mp4;base64,') == 2 and "<script" not in text
    assert text.count("Right along the alignment:") == 2
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_label_goes_to_the_nearest_moment(actions):
    times = np.array([0.1, 0.5, 0.9])
    labeled_ = Moments(np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 2]), times)
    played = Moments(np.array([[2.1], [0.1], [0.9]]), np.array([2, 0, 1]), times)
    row, frames = actions.rows[0], np.array([1, 7, 13])
    of = transferred(Aligned(actions, row, row, frames, frames, labeled_, played))
    assert of.nearest_M.tolist() == [2, 0, 1] and of.same_time_M.tolist() == [0, 1, 2]


# ---- the recipe


def test_the_recipe_is_a_probe_that_asks_another_question():
    loaded = load_recipe("alignment/synthetic", ["data.root=x"], kind="probe")
    assert set(loaded.recipe.asks()) == {"alignment"}
    with pytest.raises(RecipeError, match=r"probe\.knn_ks .*evaluation\.name"):
        load_recipe("alignment/synthetic", ["data.root=x", "probe.knn_ks=[3]"], kind="probe")


def test_other_verbs_are_named(actions):
    recipe = RECIPE | {"kind": "evaluate"}
    with pytest.raises(
        RecipeError, match=r"evaluation.name \(alignment\) has a verb of its own. Run it with: ssvid probe"
    ):
        evaluate(recipe, f"data.root={actions.root}", backbone="random", backbone_name="tiny3d", device="cpu")
    with pytest.raises(
        RecipeError, match=r"evaluation.name \(knn\) has a verb of its own. Run it with: ssvid evaluate"
    ):
        probe(RECIPE | {"evaluation": {"name": "knn"}}, f"data.root={actions.root}", backbone="random", device="cpu")
