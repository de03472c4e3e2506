"""A network that ``finetune`` has trained, taken out of its run folder and asked again: of other frames, of other videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssvid.backbones import Backbone
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import clip_reading, resolve_finetune_protocol
from ssvid.classifiers.scoring import VideoScores, score_videos
from ssvid.data.config import LoaderConfig
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import RecipeError, RunFolderError, did_you_mean
from ssvid.features.protocol import FRAMES, FeatureProtocol
from ssvid.files import takes_paths
from ssvid.programs.scored_videos import scored_rows
from ssvid.recipe.load import load_recipe
from ssvid.train.run_folder import RunFolder
from ssvid.weights.checkpoints import read_checkpoint
from ssvid.weights.loading import load_backbone


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network with its head, in evaluation mode.

    manifest, test: the table of its run, and the rows that it was scored on. reading: how their clips are read.
    """

    backbone: Backbone
    task: Classification
    manifest: Manifest
    test: tuple[VideoRow, ...]
    reading: FeatureProtocol

    def score(
        self, frames: str = "video", *, manifest: Manifest | None = None, rows: Sequence[VideoRow] | None = None
    ) -> VideoScores:
        """The scores of videos whose clips are shown in another way than in training. Nothing is trained.

        With the frames as they are, and no other videos, these are the scores of the run itself.

        Args:
            frames: "video", as they are; "single_frame", the middle frame of each clip, repeated; "shuffled", in a random
                order, the same in every call.
            manifest, rows: other videos of the same classes; all rows of a table where they alone are not named.

        Raises:
            RecipeError: there are no such frames. DataError: a video cannot be read, or is not the one of the table.
        """
        if frames not in FRAMES:
            raise RecipeError(f"frames ({frames!r}) is unknown. {did_you_mean(str(frames), FRAMES)}")
        if rows is None:
            rows = self.test if manifest is None else manifest.rows
        reading = replace(self.reading, frames=frames)
        num_crops = self.task.protocol.num_crops
        return score_videos(self.backbone, self.task, manifest or self.manifest, rows, reading, num_crops=num_crops)


@takes_paths("run_dir")
def load_tuned(run_dir: str | Path, network: str = "") -> Tuned:
    """The network that a run of ``finetune`` has chosen.

    Args:
        run_dir: the run folder; of several folds or seeds, the folder of one. network: folder of a network in it; "" is
            the one that the run was made for, "pretrained", or "random" where it started from nothing.

    Raises:
        RunFolderError: nothing was trained there. CheckpointError: its checkpoint is damaged.
    """
    run = RunFolder(run_dir)
    if not network:
        network = "pretrained" if (run.path / "pretrained").is_dir() else "random"
    own = RunFolder(run.path / network)
    again = RunFolder(
        own.path / "refit"
    )  # with finetune.refit the network that was scored is the one trained once more
    candidates = (again.last_checkpoint, own.checkpoints / "best.ckpt", own.last_checkpoint)
    paths = [path for path in candidates if path.is_file()]
    if not paths or not run.manifest.is_file() or not own.results.is_file():
        raise RunFolderError(
            f"{run_dir} holds no network {network!r} that was trained to its end. Name the folder of a run that ssvid finetune "
            "has finished, of several folds or seeds the folder of one. A baseline whose results were taken from "
            "$SSVID_CACHE/finetuned left no weights: train it with another SSVID_CACHE."
        )
    config = load_recipe(run.resolved, kind="finetune").recipe
    manifest = Manifest.load(run.manifest, config.data.root, allow_outside=True)
    train, test = scored_rows(manifest, config.data)
    backbone, checkpoint = load_backbone(paths[0]), read_checkpoint(paths[0])
    ((_, settings),) = config.asks().items()  # type: ignore[union-attr]
    protocol = resolve_finetune_protocol(
        settings, backbone.info, checkpoint.meta.get("stage"), per_frame=backbone.per_frame
    )
    classes = sorted({row.label for row in train if row.is_readable})
    task = Classification(protocol, backbone.info, classes=classes, chance=1 / len(classes), seed=config.seed)
    task.load_state_dict(checkpoint.task_state)
    return Tuned(backbone.eval(), task.eval(), manifest, tuple(test), clip_reading(protocol, LoaderConfig()))
