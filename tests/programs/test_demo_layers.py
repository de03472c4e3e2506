"""``ssvid demo layers``, with few steps: what it leaves, and that its anchors are those of the truth."""

import json

import numpy as np
import pytest

import ssvid
from ssvid.programs import demo_layers
from ssvid.video.synthetic_effects import to_bytes, walkers


def test_it_leaves_layers_films_and_what_removal_is_worth(tmp_path, monkeypatch):
    for name, value in (("NUM_FRAMES", 8), ("STEPS", 2)):
        monkeypatch.setattr(demo_layers, name, value)
    result = ssvid.demo(tmp_path / "demo", what="layers", show_progress=False)
    names = {"scene", "scene.mp4", "layers", "without_walker.mp4", "retimed.mp4", "trail.mp4", "results.json"}
    assert {path.name for path in result.folder.iterdir()} == names
    assert json.loads((result.folder / "results.json").read_text())["removed_db"] == result.removed
    scene = walkers(0, num_frames=8)
    truth = to_bytes(scene.shown({"other": range(8)})).astype(float)
    walker = next(actor for actor in scene.actors if actor.name == "walker")
    region = np.stack([scene.layer(walker, t, t)[..., 3] > 0.25 for t in range(8)])
    error = ((scene.frames() - truth)[region] ** 2).mean()
    assert result.removed["walker"]["untouched"] == pytest.approx(10 * np.log10(255**2 / error))
    assert result.removed["walker"]["untouched"] < result.removed["walker"]["mask_only"]
    assert result.fitted.page.is_file() and "video untouched" in str(result)
