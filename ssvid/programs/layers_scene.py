"""``layers scene``: a scene whose layers are known, as frames, masks and the truth of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.errors import RecipeError, did_you_mean
from ssvid.evals.label_propagation.saving import write_labels
from ssvid.files import folder_appearing_whole, require_empty_folder, takes_paths
from ssvid.programs.layers_folder import ids_of_masks, write_pictures
from ssvid.video.synthetic_effects import EffectScene, to_bytes, walkers

SCENES = ("walkers", "walker", "panning")
FPS = 12.0
_PAN_PX = 44.0


@dataclass(frozen=True)
class WrittenScene:
    """A scene that was written. names: of its objects, that in front first."""

    folder: Path
    names: tuple[str, ...]
    num_frames: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"folder": str(self.folder), "names": list(self.names), "num_frames": self.num_frames}

    def __str__(self) -> str:
        folder, names = self.folder, " ".join(self.names)
        return (
            f"{self.num_frames} frames of {', '.join(self.names)}: {folder}\n"
            f"take it apart: ssvid layers fit {folder / 'video'} --masks {folder / 'masks'} --names {names} --frames {self.num_frames}"
        )


def draw_layer_scene(kind: str, num_frames: int, seed: int) -> EffectScene:
    """One of the ``SCENES``.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind not in SCENES:
        raise RecipeError(f"kind ({kind!r}) is no scene. {did_you_mean(kind, SCENES)}")
    count = 2 if kind == "walkers" else 1
    return walkers(seed, num_objects=count, num_frames=num_frames, pan_px=_PAN_PX if kind == "panning" else 0.0)


@takes_paths("out")
def write_scene(out: str | Path, kind: str = "walkers", *, num_frames: int = 20, seed: int = 0) -> WrittenScene:
    """Render a scene into a new folder.

    ``video/`` holds its frames and ``masks/`` the numbers of its objects, both as ``ssvid layers fit`` takes them; ``truth/background/`` what stands
    behind, ``truth/without_NAME/`` the scene without an object and its shadow, ``truth/NAME/`` its layer with alpha.

    Raises:
        RecipeError: there is no such kind. DataError: the folder is not empty.
    """
    folder = Path(out)
    require_empty_folder(folder)
    scene = draw_layer_scene(kind, num_frames, seed)
    with folder_appearing_whole(folder) as staged:
        write_pictures(staged / "video", scene.frames())
        (staged / "masks").mkdir()
        for t, masks_NHW in enumerate(np.moveaxis(scene.masks(), 1, 0)):
            write_labels(staged / "masks" / f"{t:05d}.png", ids_of_masks(masks_NHW))
        write_pictures(staged / "truth" / "background", to_bytes(scene.background()))
        for actor in scene.actors:
            others = {other.name: range(num_frames) for other in scene.actors if other is not actor}
            write_pictures(staged / "truth" / f"without_{actor.name}", to_bytes(scene.shown(others)))
            layer = np.stack([scene.layer(actor, t, t) for t in range(num_frames)])
            write_pictures(staged / "truth" / actor.name, to_bytes(layer))
    return WrittenScene(folder, scene.names, num_frames)
