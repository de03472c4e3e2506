"""What every registered evaluation keeps, ours as a stranger's: it is found by itself, and answers on the same data alike."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from ssvid.backbones import initialize_backbone
from ssvid.data.config import LoaderConfig
from ssvid.evals.contract import NEEDS, Evaluation, Tools, evaluations
from ssvid.evals.histograms import Histograms, as_histograms
from ssvid.evals.trajectories import Trajectories
from ssvid.features.protocol import FeatureProtocol
from ssvid.recipe.check import build_defaults
from ssvid.recipe.options import make_evaluation_config
from ssvid.train.config import TrainerConfig
from tests.evals.alignment.footage import make_actions
from tests.evals.label_propagation.footage import data_of, make_tracked
from tests.frozen import ask, labeled

NAMES = evaluations.names()
SHELF = Path(__file__).resolve().parents[2] / "ssvid" / "evals"
# What makes an evaluation quick, or fit for 18 training videos, by the names of options.
QUICK = {
    "num_holdouts": 1, "knn_ks": [3], "ks": [1, 3], "label_fractions": [0.5], "regularization": [0.1, 1.0],
    "epochs": 1, "batch_size": 7, "num_frames": 4, "num_clips": 1, "crop_px": 16, "resize_px": 20, "holdout_fraction": 0.2,
    "size_rule": "native", "stride_px": 8,
}  # fmt: skip
FEATURES = FeatureProtocol(num_frames=4, num_clips=1, crop_px=16, resize_px=20, batch_size=4, workers=0)


def test_every_file_that_registers_one_was_found():
    registered = re.compile(r'^@register_evaluation\("(\w+)"\)$', re.MULTILINE)
    ours = [name for path in SHELF.rglob("*.py") for name in registered.findall(path.read_text(encoding="utf-8"))]
    assert len(ours) >= 4, "k-NN, probe, retrieval and fine-tuning at least"
    assert sorted(ours) == [name for name in NAMES if evaluations.get(name).__module__.startswith("ssvid.")]
    assert evaluations.broken == []


def options_of(name: str):
    config = evaluations.get(name).Config
    known = {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    return make_evaluation_config(name, {key: value for key, value in QUICK.items() if key in known})


KNOWN = ("alignment", "label_propagation")  # asked of videos of whose frames something is known
LEARNS = [name for name in NAMES if name not in KNOWN]


@pytest.fixture(scope="session")
def tracked(tmp_path_factory):
    """Videos whose masks are known, for evaluations that need no labels. Read only."""
    return make_tracked(tmp_path_factory.mktemp("tracked"))


@pytest.fixture(scope="session")
def acted(tmp_path_factory):
    """Videos of whose frames the phase is known. Read only."""
    return make_actions(tmp_path_factory.mktemp("acted"))


@pytest.fixture
def data_for(manifest, tracked, acted):
    """The videos that an evaluation is asked of."""
    known = {"alignment": lambda: labeled(acted), "label_propagation": lambda: data_of(tracked)}
    return lambda name: known.get(name, lambda: labeled(manifest))()


@pytest.fixture
def tools(tmp_path):
    trainer = TrainerConfig("cpu", "1", precision="32", threads=1, pictures=False)
    return Tools(loader=LoaderConfig(workers_per_device=0), trainer=trainer, folder=tmp_path, recipe={"kind": "any"})


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_evaluation_with_options_of_its_own(name):
    evaluation = evaluations.get(name)
    assert issubclass(evaluation, Evaluation) and evaluation.__doc__
    assert evaluation.needs in NEEDS
    if dataclasses.is_dataclass(evaluation.Config):
        assert evaluation.Config.__dataclass_params__.frozen
        build_defaults(evaluation.Config)  # a recipe can hold them
    evaluation().check(options_of(name), 18)


@pytest.mark.parametrize("name", NAMES)
def test_it_scores_every_test_video_once_and_the_same_again(name, data_for, tools, tmp_path):
    data = data_for(name)
    network = initialize_backbone("tiny3d", {"width": 2, "stride_time": 1}, seed=0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rows = ask(name, network, data, options_of(name), FEATURES, tools=tools)
    assert rows and len({row.metric for row in rows}) == len(rows)
    for row in rows:
        assert row.metric.startswith(evaluations.get(name).metrics)
        units = row.context.get("units")
        assert units or row.ids == tuple(video.path for video in data.test)
        assert -1 <= row.value <= 1 and -1 <= row.chance <= 1 and (units or min(row.value, row.chance) >= 0)
        assert not set(row.context) & {"correct_N"} and row.context["data"]["train"]["num_videos"] == len(data.train)
    again = ask(
        name, network, data, options_of(name), FEATURES, tools=dataclasses.replace(tools, folder=tmp_path / "again")
    )
    for row, other in zip(rows, again, strict=True):
        np.testing.assert_array_equal(row.correct_N, other.correct_N)
    assert all(bool((before[key] == value).all()) for key, value in network.state_dict().items()), "left as it was"


@pytest.mark.parametrize("name", LEARNS)
def test_test_labels_decide_nothing(name, manifest, tools, tmp_path):
    """With the labels of test turned round, what is predicted stays."""
    data, turned = labeled(manifest), {"blue": "red", "red": "green", "green": "blue"}
    other = labeled(manifest, test=[dataclasses.replace(row, label=turned[row.label]) for row in data.test])
    network = initialize_backbone("tiny3d", {"width": 2, "stride_time": 1}, seed=0)
    found = [
        ask(name, network, one, options_of(name), FEATURES, tools=dataclasses.replace(tools, folder=tmp_path / str(i)))
        for i, one in enumerate((data, other))
    ]
    for row, same in zip(*found, strict=True):
        assert row.context.get("predictions") == same.context.get("predictions")


@pytest.mark.parametrize("made", [Histograms, Trajectories])
@pytest.mark.parametrize("name", LEARNS)
def test_it_says_what_histograms_and_trajectories_score_or_nothing(name, made, manifest, tools):
    features = as_histograms(FEATURES)
    for row in ask(name, made(), labeled(manifest), options_of(name), features, tools=tools):
        assert 0 <= row.value <= 1
