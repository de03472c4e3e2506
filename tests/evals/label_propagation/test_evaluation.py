"""Label propagation as an evaluation: labels that do not move against sums done by hand, what beats them, what is told."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.data.manifest import Manifest
from ssvid.errors import DataError, RecipeError, SsvidError
from ssvid.evals.contract import Subject, Tools
from ssvid.evals.label_propagation import evaluation as evaluations_file
from ssvid.evals.label_propagation import following as following_file
from ssvid.evals.label_propagation.baselines import CopiedLabels, FlowChain, PixelPatches
from ssvid.evals.label_propagation.evaluation import LabelPropagation
from ssvid.evals.measuring import measure
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.features.protocol import FeatureProtocol, TrackingBaselines
from ssvid.recipe.schema import TrackRecipe
from ssvid.results.rows import read_results, write_results
from tests.evals.label_propagation.footage import data_of, make_tracked, mask_at, tracks_of
from tests.frozen import beside

NATIVE = PropagationProtocol(size_rule="native", num_previous=3, radius_cells=3, point_min_cosine=0.2)
# A square of 16 px that has gone 3 t to the side still covers (16 - 3 t) of the (16 + 3 t) columns of both.
STILL_J = np.mean([(16 - 3 * t) / (16 + 3 * t) for t in range(1, 5)])  # the first and the last frame are left out


def rows_of(network, data, config=NATIVE, name="pretrained", tools=None, draws=True):
    evaluation = LabelPropagation(draws=draws)
    _, config = evaluation.prepare(FeatureProtocol(), config, initialize_backbone("resnet18"), tools or Tools())
    return {
        row.metric: row
        for row in measure(
            {evaluation: config}, Subject(name, network, FeatureProtocol()), None, data, tools or Tools()
        )
    }


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return make_tracked(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return make_tracked(tmp_path_factory.mktemp("points"), points=True)


def test_labels_that_do_not_move_come_to_what_is_counted_by_hand(masks, tmp_path):
    rows = rows_of(CopiedLabels(), data_of(masks))
    j = rows["davis_j"]
    assert j.ids == ("a/1", "a/2", "b/1") and j.groups == ("a", "a", "b")
    np.testing.assert_allclose(j.correct_N, STILL_J, rtol=1e-12)
    assert rows["davis_j_recall"].value == pytest.approx(0.25), "13 of 19 columns alone are more than half"
    assert rows["davis_j_decay"].value == pytest.approx(np.mean([13 / 19, 10 / 22]) - np.mean([7 / 25, 4 / 28]))
    assert rows["davis_jf"].value == pytest.approx((j.value + rows["davis_f"].value) / 2)
    assert all(row.chance == row.value for row in rows.values()), "what does not move is the chance of the others"
    assert j.context["per_sequence"] == pytest.approx({"a": STILL_J, "b": STILL_J})
    assert j.context["units"] == ["objects", "videos"] and j.context["title"] == "J"
    again = read_results(write_results(tmp_path, rows.values()))
    assert [row.value for row in again] == [row.value for row in rows.values()]
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"][0]["truth_sha256"]) == 64


def test_united_objects_are_one_mask_of_each_sequence(masks):
    rows = rows_of(CopiedLabels(), data_of(masks), dataclasses.replace(NATIVE, convention="davis2016"))
    assert {metric.partition("_")[0] for metric in rows} == {"davis2016"}
    assert rows["davis2016_j"].ids == ("a", "b") and rows["davis2016_j"].value == pytest.approx(STILL_J)


def test_points_that_do_not_move_come_to_what_is_counted_by_hand(points):
    """A point goes 3 px of 64 in a frame: 12 of 256. Within 16 after one frame alone: one frame of five, one threshold of five."""
    rows = rows_of(CopiedLabels(), data_of(points))
    assert rows["tapvid_delta"].value == pytest.approx(1 / 25)
    assert rows["tapvid_oa"].value == 1.0
    assert rows["tapvid_aj"].value == pytest.approx((1 / 9) / 5), "of 5 points one is right, 4 are false: 1 / (5 + 4)"
    assert {metric for metric in rows if "strided" in metric} == {f"tapvid_strided_{m}" for m in ("delta", "oa", "aj")}


def test_flow_and_pixels_follow_what_moves(masks, points):
    for network in (FlowChain(), PixelPatches(8)):
        assert rows_of(network, data_of(masks))["davis_j"].value > STILL_J + 0.1, network.info.name
    assert rows_of(FlowChain(), data_of(points))["tapvid_delta"].value > 0.5


def test_pixel_patches_are_the_pixels():
    frames = torch.rand(2, 3, 3, 10, 12)
    maps = PixelPatches(4)(frames)
    assert maps.shape == (2, 48, 3, 3, 3)
    patch = (frames[1, :, 2, 4:8, 8:12] - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    torch.testing.assert_close(maps[1, :, 2, 1, 2].unflatten(0, (3, 4, 4)), patch)


def test_flow_of_points_goes_both_ways(points):
    from ssvid.evals.label_propagation.evaluation import videos_of
    from ssvid.evals.label_propagation.measures import TruthVideo

    video: TruthVideo = videos_of(data_of(points))[0]
    truth = video.truth.tracks.points_TQ2
    queries = np.column_stack([[3, 3], truth[3]])
    found, seen = FlowChain.carrier.points(video.frames(), video.size_px, queries, both_ways=True)
    assert np.abs(found - truth).max() < 2 and seen.all()
    found, seen = FlowChain.carrier.points(video.frames(), video.size_px, queries)
    assert seen[3:].all() and not seen[:3].any()


def test_what_stands_beside_a_network(masks):
    recipe = TrackRecipe(track=NATIVE)
    network = initialize_backbone("resnet18", seed=0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rows = beside(recipe, network, data_of(masks), pretrained=network)
    assert list(dict.fromkeys(row.name for row in rows)) == [
        "pretrained", "random", "identity", "raw pixels", "optical flow"
    ]  # fmt: skip
    assert rows[0].context["maps"] == {"stage": "layer4", "stride_px": 8}
    assert all(bool((before[key] == value).all()) for key, value in network.state_dict().items()), "left as it was"
    same = {row.metric: row.value for row in rows if row.name == "pretrained"}
    assert same == {row.metric: row.value for row in rows if row.name == "random"}, "of the same seed"
    off = TrackRecipe(track=NATIVE, baselines=TrackingBaselines(random=False, identity=False, pixels=False, flow=False))
    assert {row.name for row in beside(off, network, data_of(masks), pretrained=network)} == {"pretrained"}


def masks_and_points(tmp_path):
    """The same video with masks and tracks of points in one file."""
    manifest = make_tracked(tmp_path, num_objects=(1,))
    tracks, visible = tracks_of(1)
    bits = np.packbits(np.stack([mask_at(1, t) for t in range(len(tracks))])[None] > 0, axis=-1)
    np.savez(tmp_path / "truth" / "both.npz", tracks=tracks, visible=visible, masks=bits)
    return manifest.with_rows([dataclasses.replace(manifest.rows[0], truth="truth/both.npz")])


@pytest.mark.parametrize("room", [2**28, 100])
def test_a_network_sees_each_frame_once_whatever_is_followed_while_its_maps_have_room(tmp_path, monkeypatch, room):
    data = data_of(masks_and_points(tmp_path))
    monkeypatch.setattr(following_file, "_MOST_KEPT_BYTES", room)
    network = PixelPatches(8)
    seen, run_stage = [], network.run_stage
    network.run_stage = lambda name, x_BCTHW: (seen.append(len(x_BCTHW)), run_stage(name, x_BCTHW))[1]
    both = rows_of(network, data)
    assert sum(seen) == (6 if room == 2**28 else 12), "6 frames, for masks and for points"
    for kind, metric in (("objects", "davis_j"), ("points", "tapvid_delta")):
        alone = rows_of(network, data, dataclasses.replace(NATIVE, measure=kind))
        np.testing.assert_array_equal(alone[metric].correct_N, both[metric].correct_N)


def test_what_no_seed_changes_is_followed_once_in_a_command(masks, monkeypatch):
    followed, follow = [], LabelPropagation._follow
    monkeypatch.setattr(
        LabelPropagation, "_follow", lambda self, name, *rest: followed.append(name) or follow(self, name, *rest)
    )
    tools, data = Tools(), data_of(masks)
    networks = [("random", initialize_backbone("resnet18", seed=seed)) for seed in (0, 1)]
    for of_seed in networks:
        for name, network in (of_seed, ("raw pixels", PixelPatches(8))):
            rows = rows_of(network, data, name=name, tools=tools, draws=False)
            assert rows["davis_j"].name == name
    assert followed == ["random", "labels that do not move", "raw pixels", "random"]
    rows_of(PixelPatches(8), data, dataclasses.replace(NATIVE, top_k=3), name="raw pixels", tools=tools, draws=False)
    assert followed[4:] == ["raw pixels", "labels that do not move"], "other settings, other numbers"


def test_flow_that_cannot_be_computed_is_told(masks, monkeypatch):
    def missing():
        raise SsvidError("optical flow needs OpenCV. Install it with: pip install 'ssvid[motion]'")

    monkeypatch.setattr(evaluations_file, "require_opencv", missing)
    network = initialize_backbone("resnet18", seed=0)
    flow_alone = TrackingBaselines(random=False, identity=False, pixels=False)
    rows = beside(TrackRecipe(track=NATIVE, baselines=flow_alone), network, data_of(masks), pretrained=network)
    assert "optical flow" not in {row.name for row in rows}
    assert "no row of optical flow: optical flow needs OpenCV" in rows[0].context["notes"][-1]


def test_a_video_that_cannot_be_read_is_wrong_and_listed(masks, points):
    for manifest, metric in ((masks, "davis_j"), (points, "tapvid_delta")):
        gone = manifest.with_rows([manifest.rows[0], dataclasses.replace(manifest.rows[1], path="gone.mp4")])
        row = rows_of(CopiedLabels(), data_of(gone))[metric]
        assert row.correct_N[-1] == 0 < row.correct_N[0]
        assert row.context["data"]["test"]["unreadable"][0][0] == "gone.mp4"


def test_an_older_place_of_the_pixels_counts_where_masks_are_scored_in_another_size(masks):
    """Scored at the size that the network sees: twice as large, the same areas."""
    config = dataclasses.replace(NATIVE, size_rule="exact", size_px=96, width_px=128, score_size="frame")
    row = rows_of(CopiedLabels(), data_of(masks), config)["davis_j"]
    np.testing.assert_allclose(row.correct_N, STILL_J, rtol=1e-12)


def test_mistakes_are_told(masks, points):
    bare = data_of(Manifest(masks.root, tuple(dataclasses.replace(row, truth="") for row in masks.rows)))
    with pytest.raises(DataError, match=r"nothing is known of the frames of 2 of 2 videos \(a.mp4.*column truth"):
        rows_of(CopiedLabels(), bare)
    with pytest.raises(
        DataError, match=r"track.measure \(joints\) cannot be measured.*tracks are known.*measure=points"
    ):
        rows_of(CopiedLabels(), data_of(points), dataclasses.replace(NATIVE, measure="joints"))
    trained = initialize_backbone("resnet18")
    trained.provenance = {"stage": "layer2"}
    deeper = dataclasses.replace(NATIVE, stage="layer3")
    with pytest.raises(RecipeError, match=r"track.stages \(layer3\) must not be deeper than the deepest trained stage"):
        LabelPropagation().prepare(FeatureProtocol(), deeper, trained, Tools())
    allowed = dataclasses.replace(deeper, untrained_stage=True)
    assert LabelPropagation().prepare(FeatureProtocol(), allowed, trained, Tools())[1].stage == "layer3"
    assert LabelPropagation().prepare(FeatureProtocol(), NATIVE, trained, Tools())[1].stage == "layer2"
