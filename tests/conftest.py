"""Videos that the tests make and encode themselves, and the way to the real ones."""

import operator
import os
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssvid.video import write_video, writer
from tests.frozen import backbone, manifest, probe, quick  # noqa: F401  (fixtures of several folders)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The tests never read or write the user's own cache."""
    before = os.environ.get("SSVID_CACHE")
    os.environ["SSVID_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        os.environ.pop("SSVID_CACHE")
    else:
        os.environ["SSVID_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def other_encoder():
    """With SSVID_TESTS_ENCODER=other, videos have other bytes and slightly other pixels, as from another version of libx264."""
    if os.environ.get("SSVID_TESTS_ENCODER") != "other":
        yield
        return
    plain = writer._codec_options

    def other(codec: str, crf: int, preset: str, *rest: int) -> dict[str, str]:
        options = plain(codec, max(crf - 1, 0), preset, *rest)
        return options | {"aq-mode": "0"} if codec == "libx264" else options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_codec_options", other)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos; tests that use it are marked ``real``."""
    path = os.environ.get("SSVID_REAL_DATA")
    if not path:
        pytest.skip("SSVID_REAL_DATA is not set")
    return Path(path)


def moving_square(num_frames: int, height: int = 48, width: int = 64, *, seed: int = 0) -> list[np.ndarray]:
    """Frames HWC of a bright square that slides over a textured ground, one pixel a frame."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 120, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    top, left = (int(v) for v in rng.integers(0, (height - 12, width - 12)))
    frames = []
    for t in range(num_frames):
        frame = ground.copy()
        x = (left + t) % (width - 12)
        frame[top : top + 12, x : x + 12] = (250, 240, 90)
        frames.append(frame)
    return frames


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory) -> Path:
    """A bare folder of 26 short H.264 videos. Read only: copy it before changing it."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(26):
        write_video(folder / f"{i:02d}.mp4", moving_square(40 + i % 3, seed=i), fps=25)
    return folder


def held_out_by_name(videos: Path, table: Path, num_val: int) -> list[str]:
    """Overrides that train on a bare folder but for its last ``num_val`` videos, which are held out; writes the table.

    By ``data.val_fraction`` the held-out videos follow from their bytes, and so does their number: another version of the
    encoder makes others.
    """
    names = sorted(path.name for path in videos.iterdir())
    splits = ["train"] * (len(names) - num_val) + ["val"] * num_val
    lines = [f"{name},{split}" for name, split in zip(names, splits, strict=True)]
    table.write_text("\n".join(["path,split", *lines]), encoding="utf-8")
    return ["data.name=list", f"data.root={videos}", f"data.list={table}"]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], dict[str, Any]]:
    """Puts fresh weights of a builder of torchvision where torch.hub would have downloaded those of that name."""
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)

    def put(builder: str, name: str) -> dict[str, Any]:
        make = operator.attrgetter(builder)(torchvision.models)
        with torch.random.fork_rng():
            torch.manual_seed(11)
            state = make(weights=None).state_dict()
        url = torchvision.models.get_model_weights(make)[name].url
        folder = tmp_path / "torch" / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / url.rpartition("/")[2])
        return dict(state)

    return put
