"""A tiny labeled data set of encoded videos, and features that were never a video."""

from pathlib import Path

import numpy as np
import pytest

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.evals.contract import LabeledData, Subject, Tools, evaluations
from ssvid.evals.measuring import measure, see
from ssvid.features.protocol import FeatureProtocol, ProbeProtocol
from ssvid.features.store import Features
from ssvid.programs.evaluate import score
from ssvid.video import content_id, write_video

HEIGHT, WIDTH, NUM_FRAMES = 36, 44, 14
COLORS = {"blue": (30, 40, 220), "green": (40, 210, 50), "red": (220, 40, 30)}


def make_frames(label: str, seed: int, num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    """A patch of the label's color that slides over noise."""
    rng = np.random.default_rng([seed, *label.encode()])
    ground = rng.integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames = []
    for t in range(num_frames):
        frame = ground.copy()
        frame[8:28, 4 + t : 24 + t] = COLORS[label]
        frames.append(frame)
    return frames


def make_row(root: Path, path: str, label: str, split: str, seed: int, num_frames: int = NUM_FRAMES) -> VideoRow:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    write_video(file, make_frames(label, seed, num_frames), fps=25)
    return VideoRow(
        path,
        num_frames,
        25.0,
        HEIGHT,
        WIDTH,
        label=label,
        split=split,
        decoders_ok=("pyav",),
        content_id=content_id(file),
    )


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Manifest:
    """3 classes, 6 training and 3 test videos each. Read only."""
    root = tmp_path_factory.mktemp("labeled")
    rows = [
        make_row(root, f"{split}/{label}/{i}.mp4", label, split, seed=i + 100 * (split == "test"))
        for split, count in (("train", 6), ("test", 3))
        for label in COLORS
        for i in range(count)
    ]
    return Manifest(root, tuple(rows))


def labeled(manifest: Manifest, *, train=None, test=None) -> LabeledData:
    """Both sides of a table, or the rows that are given."""
    own = ([row for row in manifest.rows if row.split == split] for split in ("train", "test"))
    sides = (given if given is not None else rows for given, rows in zip((train, test), own, strict=True))
    return LabeledData.checked(manifest, *sides)


def ask(
    evaluation: str, network: Backbone, data: LabeledData, options, features=None, *, tools=None, name="pretrained"
):
    """The rows of one network, as the loop makes them."""
    tools, asked = tools or Tools(), evaluations.get(evaluation)()
    features, options = asked.prepare(features or FeatureProtocol(), options, network, tools)
    asked.check(options, data.num_train)
    asked.check_data(network, data, options, tools)
    subject = Subject(name, network, features)
    seen = see([subject], data, tools)[name] if asked.needs == "vectors" else None
    return list(measure({asked: options}, subject, seen, data, tools))


def beside(recipe, network: Backbone, data: LabeledData, *, tools=None, metrics=(), **networks: Backbone):
    """The rows of the baselines of a recipe, and of the networks that are named."""
    return score(recipe, networks, network, data, tools or Tools(), metrics=metrics).rows


@pytest.fixture
def backbone():
    return initialize_backbone("tiny3d", {"width": 4}, seed=0)


@pytest.fixture
def quick():
    """A feature protocol that costs next to nothing."""
    return FeatureProtocol(num_frames=8, num_clips=2, crop_px=24, resize_px=28, batch_size=4, workers=0)


@pytest.fixture
def probe():
    return ProbeProtocol(regularization=(0.01, 0.1, 1.0), knn_ks=(3,))


def toy_features(
    num_per_class: int, *, num_classes: int = 4, noise: float = 0.1, seed: int = 0, width: int = 16
) -> Features:
    """Classes around random centers that depend on nothing but the class."""
    centers = np.random.default_rng(1234).normal(size=(num_classes, width))
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(num_classes), num_per_class)
    values = centers[codes] + noise * rng.normal(size=(len(codes), width))
    return Features.from_arrays(values, [f"class{c}" for c in codes])
