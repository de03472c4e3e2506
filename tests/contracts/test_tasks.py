"""One body over every registered task, and proof that the body catches what it should."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pretext_tasks
from ssvid.backbones.contract import without_weights
from ssvid.tasks import ClipQuestion, PretextTask, pooled_answer, register_task, tasks
from ssvid.testing import check_task, refusal_of
from ssvid.types import ClipPlan, TaskOutput

NAMES = [name for name in tasks.names() if not name.startswith("broken_")]


def test_every_file_of_the_shelf_brings_a_task() -> None:
    files = {path.stem for path in Path(pretext_tasks.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    modules = {tasks.get(name).__module__ for name in NAMES}
    assert {m.removeprefix("pretext_tasks.") for m in modules if m.startswith("pretext_tasks.")} == files != set()
    assert not tasks.broken


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", ["", pytest.param("r3d_18", marks=pytest.mark.slow)])
def test_task_keeps_the_contract(name: str, backbone: str) -> None:
    if backbone and refusal_of(name, without_weights(backbone)):
        pytest.skip(f"{name} does not take {backbone} as it is, and says so")
    check_task(name, backbone)


class Frames:
    min_frames = 4

    def plan(self, video, rng, batch_rng):
        start = int(rng.integers(video.num_frames - 3))
        return ClipPlan((np.arange(start, start + 4),), {"label": np.array(start % 2)})

    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"clip": views_TCHW[0], "label": torch.from_numpy(plan.targets["label"])}


class Good(PretextTask):
    """Guesses whether the first frame's number is odd."""

    targets = ("label",)

    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        self.head = torch.nn.Linear(backbone.stage().channels, 2)

    def chance(self):
        return {"accuracy": 0.5}

    def clip_maker(self, training):
        return Frames()

    def forward(self, batch, backbone):
        logits = self.head(backbone.embed(batch["clip"].transpose(1, 2)))
        correct = (logits.argmax(1) == batch["label"]).float()
        return TaskOutput(torch.nn.functional.cross_entropy(logits, batch["label"]), {"accuracy": correct})


class OutsideTheVideo(Frames):
    def plan(self, video, rng, batch_rng):
        return ClipPlan((np.arange(4) + video.num_frames - 2,), {"label": np.array(0)})


class Streamed(Frames):
    def plan(self, video, rng, batch_rng):
        start = int(np.random.randint(video.num_frames - 3))
        return ClipPlan((np.arange(start, start + 4),), {"label": np.array(start % 2)})


class NoTarget(Frames):
    def transform(self, views_TCHW, plan, rng, batch_rng):
        return {"clip": views_TCHW[0], "y": torch.from_numpy(plan.targets["label"])}


def shuffle(self, batch, rng):
    """As a placebo must not be: one answer in a batch stays with its sample, on average."""
    return {**batch, "label": batch["label"][torch.from_numpy(rng.permutation(len(batch["label"])))]}


def of_the_next_video(self, batch, rng):
    """Right, but for a batch of one video alone."""
    videos = batch["video_numbers"].flatten()
    return {**batch, "label": batch["label"].roll(2 if len(videos.unique()) < len(videos) else 1)}


def lost_bias(self, clips_BCTHW, backbone):
    """An answer whose parts leave out the bias."""
    found = pooled_answer(backbone(clips_BCTHW), self.head.weight[0], self.head.bias[0])
    return found._replace(bias=found.bias + 1.0)


ASKED = {"clip_question": lambda self: ClipQuestion("odd", "even", 4, 16)}


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({**ASKED, "answer": lost_bias}, "plus bias, must be the logit"),
        ({"clip_maker": lambda self, training: OutsideTheVideo()}, "leaves the video"),
        ({"clip_maker": lambda self, training: Streamed()}, "not a function of its generators|global generator"),
        ({"clip_maker": lambda self, training: NoTarget()}, "are not in the sample"),
        ({"chance": lambda self: {"accuracy": 0.5, "f1": 0.5}}, "names {'f1'}, which are measured nowhere"),
        ({"augment": lambda self, batch, rng: batch}, "leaves uint8 pixels"),
        ({"placebo": lambda self, batch, rng: batch}, "changes nothing"),
        ({"placebo": shuffle}, "'label' is right in 6.* and by chance it would be in 50"),
        ({"placebo": of_the_next_video}, "takes a batch of 1, all of one video"),
        ({"visualize": lambda self, batch, output: {"x": np.zeros((2, 2))}}, "must be uint8 HWC"),
    ],
)
def test_the_check_names_what_is_broken(members, complaint):
    name = f"broken_{abs(hash(complaint))}"
    register_task(name)(type(name, (Good,), {**members, "__doc__": "Broken on purpose."}))
    try:
        with pytest.raises(AssertionError, match=complaint):
            check_task(name)
    finally:
        tasks._entries.pop(name)


def test_a_sound_task_passes():
    register_task("broken_not")(Good)
    try:
        check_task("broken_not")
    finally:
        tasks._entries.pop("broken_not")
