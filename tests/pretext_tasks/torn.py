"""A run that ends whole, and one that is torn off and gone on with."""

import pytest

import ssvid
from ssvid.weights.checkpoints import read_checkpoint


def whole_and_torn(recipe, kind, folder, monkeypatch, *words):
    """The last checkpoints of both: nine steps, or as words say, of the golden recipe of a task, torn off after the seventh, kept after the fifth.

    recipe: its name. kind: class of the task. words: changes of the recipe.
    """
    from tests.golden.losses import OVERRIDES, RECIPES, make_videos  # here: it imports the trainer

    (folder / "videos").mkdir()
    videos = make_videos(folder / "videos")
    words = (*OVERRIDES, "trainer.max_steps=9", "trainer.save_every_steps=5", *words)

    def train(run, **more):
        given = RECIPES / f"{recipe}.yaml", f"data.root={videos}", *words
        return ssvid.pretrain(*given, run_dir=folder / run, show_progress=False, **more)

    class Stopped(Exception):
        pass

    def stop_after_the_seventh(self, backbone, global_step):
        follow(self, backbone, global_step)
        if global_step == 7:
            raise Stopped

    train("whole")
    follow = kind.after_step
    with monkeypatch.context() as patched:
        patched.setattr(kind, "after_step", stop_after_the_seventh)
        with pytest.raises(Stopped):
            train("torn")
    train("torn", resume=True)
    return [read_checkpoint(folder / run / "checkpoints" / "last.ckpt") for run in ("whole", "torn")]
