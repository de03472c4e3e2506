"""The random row: exactly the network of the seed, its statistics estimated right, the better form chosen without test."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.backbones import initialize_backbone
from ssvid.errors import DataError
from ssvid.evals.baselines import calibrate_batch_norm
from ssvid.features.extracting import extract_features
from ssvid.features.protocol import BaselineProtocol, resolve_feature_protocol
from ssvid.features.reading import clips_of, read_videos
from ssvid.recipe.schema import ProbeRecipe
from ssvid.weights.checkpoints import weights_sha256
from tests.frozen import ask, beside, labeled

OPTIONS = {"width": 4}


@pytest.fixture
def split(manifest):
    return {"train_rows": manifest.select("train").rows, "test_rows": manifest.select("test").rows}


def random_rows(seed, data, quick, probe):
    """Both forms, the better one first."""
    network = initialize_backbone("tiny3d", OPTIONS, seed=99)
    network.provenance = {"seed": seed}
    only = BaselineProtocol(histograms=False, single_frame=False, shuffled_frames=False)
    return beside(ProbeRecipe(features=quick, probe=probe, baselines=only), network, data)


def test_the_random_row_is_the_network_of_the_seed(manifest, quick, probe):
    """Whatever torch drew before; and its numbers are those of that network evaluated by itself."""
    torch.randn(17)
    data = labeled(manifest)
    rows = random_rows(5, data, quick, probe)
    by_form = {r.context["weights"]["random"]["form"]: r for r in rows if r.metric == "probe_top1"}
    network = initialize_backbone("tiny3d", OPTIONS, seed=5)
    row = by_form["initial"]
    assert row.context["weights_sha256"] == weights_sha256(network.state_dict())
    assert row.context["weights_sha256"] != weights_sha256(initialize_backbone("tiny3d", OPTIONS, seed=6).state_dict())
    alone = ask("linear_probe", network, data, probe, quick)[0]
    np.testing.assert_array_equal(row.correct_N, alone.correct_N)


def test_the_better_form_is_chosen_on_train_and_both_are_reported(manifest, split, quick, probe):
    rows = random_rows(0, labeled(manifest), quick, probe)
    better, other = rows[:3], rows[3:]
    assert {row.name for row in better} == {"random"}
    assert len(other) == len(better) == 3
    choice = better[0].context["better_form"]
    assert choice["heldout_top1"][choice["form"]] == max(choice["heldout_top1"].values())
    assert better[0].context["weights"]["random"] == {"seed": 0, "form": choice["form"]}
    (name,) = {row.name for row in other}
    assert name in ("random, initial", "random, calibrated")
    swapped = labeled(manifest, test=_with_turned_labels(split["test_rows"]))
    again = random_rows(0, swapped, quick, probe)
    assert again[0].context["better_form"] == choice  # test has no say


def _with_turned_labels(rows):
    labels = [row.label for row in rows]
    return [replace(row, label=label) for row, label in zip(rows, labels[3:] + labels[:3], strict=True)]


def test_the_first_layer_gets_the_statistics_of_its_input(manifest, split, quick, backbone):
    """Mean and variance of the first convolution's output over the same clips, batch by batch, computed directly."""
    quick = replace(quick, batch_size=6)
    calibrated = calibrate_batch_norm(backbone, manifest, split["train_rows"], quick)
    convolution, norm = _first(calibrated, torch.nn.Conv3d), _first(calibrated, torch.nn.BatchNorm3d)
    order = np.random.default_rng(0).permutation(18)
    means, variances = [], []
    resolved = resolve_feature_protocol(quick, backbone.info)
    for batch in order.reshape(3, 6):
        items = list(read_videos(manifest, [split["train_rows"][i] for i in batch], resolved))
        with torch.no_grad():
            out = convolution(backbone.normalize(clips_of(items, torch.device("cpu"))))
        means.append(out.mean(dim=(0, 2, 3, 4)))
        variances.append(out.var(dim=(0, 2, 3, 4)))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), atol=1e-5, rtol=1e-4)


def _first(network, kind):
    return next(module for module in network.modules() if isinstance(module, kind))


def test_calibration_changes_a_copy_and_statistics_only(manifest, split, quick, backbone):
    before = weights_sha256(backbone.state_dict())
    calibrated = calibrate_batch_norm(backbone, manifest, split["train_rows"], quick)
    assert weights_sha256(backbone.state_dict()) == before
    for (name, old), new in zip(backbone.named_parameters(), calibrated.parameters(), strict=True):
        assert torch.equal(old, new), name
    norm = _first(calibrated, torch.nn.BatchNorm3d)
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked == 4  # 18 videos in batches of 4: the last two videos are left out
    assert not torch.equal(norm.running_mean, _first(backbone, torch.nn.BatchNorm3d).running_mean)
    features = extract_features(calibrated, manifest, split["train_rows"][:2], quick)
    assert weights_sha256(calibrated.state_dict()) == features.weights_sha256  # evaluation leaves the estimate alone


def test_fewer_videos_than_a_batch_still_calibrate(manifest, split, quick, backbone):
    calibrated = calibrate_batch_norm(backbone, manifest, split["train_rows"], replace(quick, batch_size=64))
    assert _first(calibrated, torch.nn.BatchNorm3d).num_batches_tracked == 1


def test_nothing_to_calibrate_on(manifest, quick, backbone):
    rows = [replace(manifest.rows[0], path="gone.mp4")]
    with pytest.raises(DataError, match="none of the 1 videos could be read"):
        calibrate_batch_norm(backbone, manifest, rows, quick)


def test_a_network_without_batch_norm_has_one_form(manifest, quick, probe, monkeypatch):
    from ssvid.evals import baselines

    def without_norm(name, options=None, *, seed=0):
        network = initialize_backbone(name, options, seed=seed)
        for stage in network.info.stage_names:
            network.get_submodule(stage)[1] = torch.nn.Identity()
        return network

    monkeypatch.setattr(baselines, "initialize_backbone", without_norm)
    found = random_rows(0, labeled(manifest), quick, probe)
    assert [row.name for row in found] == ["random"] * 3


def test_a_network_of_differences_is_shown_no_single_frames():
    """All clips of one frame are black to it, so that a score on them is that of the class that comes first."""
    from ssvid.evals.baselines import sees_stills
    from ssvid.programs.lineup import frame_baselines, stills_note

    rgb, difference = (initialize_backbone("tiny3d", {"width": 2, "input": i}, seed=0) for i in ("rgb", "difference"))
    assert (sees_stills(rgb), sees_stills(difference)) == (True, False)
    assert frame_baselines(BaselineProtocol(), rgb) == {"single frame": "single_frame", "shuffled frames": "shuffled"}
    assert frame_baselines(BaselineProtocol(), difference) == {"shuffled frames": "shuffled"}
    assert stills_note(BaselineProtocol(), rgb) == ""
    assert "no row of single frames: tiny3d sees differences" in stills_note(BaselineProtocol(), difference)
