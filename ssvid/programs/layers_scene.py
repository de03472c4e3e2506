"""``layers scene``: a scene whose layers are known, as frames, masks and the truth of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.data.synth_layers import truth_arrays, write_layers
from ssvid.evals.label_propagation.saving import write_labels
from ssvid.files import folder_appearing_whole, require_empty_folder, takes_paths, write_pictures
from ssvid.video.synthetic_scenes import KnownScene, draw_known_scene

FPS = 12.0


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


@takes_paths("out")
def write_scene(out: str | Path, kind: str = "walkers", *, num_frames: int = 20, seed: int = 0) -> WrittenScene:
    """Render a scene into a new folder.

    ``video/`` holds its frames and ``masks/`` the numbers of its objects, both as ``ssvid layers fit`` takes them; ``truth/background/`` what stands
    behind, ``truth/without_NAME/`` the scene without an object and its effects, ``truth/NAME/`` its layer with alpha; ``truth/points.npz``, as
    ``ssvid.data.truth`` reads it, points that stick to what is seen.

    Args:
        kind: one of ``ssvid.video.synthetic_scenes.SCENES``.

    Raises:
        DataError: there is no such kind, or the folder is not empty.
    """
    folder = Path(out)
    require_empty_folder(folder)
    scene = draw_known_scene(kind, seed, num_frames=num_frames)
    with folder_appearing_whole(folder) as staged:
        _write(staged, scene)
    return WrittenScene(folder, scene.names, num_frames)


def _write(folder: Path, scene: KnownScene) -> None:
    write_pictures(folder / "video", scene.frames_THWC)
    (folder / "masks").mkdir()
    for t, ids_HW in enumerate(scene.ids()):
        write_labels(folder / "masks" / f"{t:05d}.png", ids_HW)
    write_layers(folder / "truth", scene)
    np.savez_compressed(folder / "truth" / "points.npz", **truth_arrays(scene))
