"""What tests of several programs share."""

import pytest

import ssvid
from tests.audits import planted


@pytest.fixture(scope="session")
def speediness_run(tmp_path_factory):
    """A network of two steps of speediness."""
    folder = tmp_path_factory.mktemp("speediness")
    manifest = planted.write_videos(folder / "videos", planted.moving, count=12)
    recipe = planted.recipe(manifest.root, epochs=2) | {"trainer": {"accelerator": "cpu", "max_steps": 2}}
    ssvid.pretrain(recipe, run_dir=folder / "run", show_progress=False)
    return folder / "run"
