"""``demo layers``: a rendered scene is taken apart, and what comes out is set beside what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.files import write_json
from ssvid.layers.composing import composite, dropped
from ssvid.layers.omnimatte.measures import OBJECT_ALPHA, removal_psnr
from ssvid.programs.layers_compose import Composition, compose_layers
from ssvid.programs.layers_fit import LayerSettings, LayersResult, fit_layers
from ssvid.programs.layers_folder import LayersFolder
from ssvid.programs.layers_footage import LayerFootage
from ssvid.programs.layers_scene import FPS, write_scene
from ssvid.progress import Say
from ssvid.video.synthetic_effects import EffectScene, to_bytes, walkers
from ssvid.video.writer import write_video

KIND, NUM_FRAMES, STEPS = "walkers", 20, 200


@dataclass(frozen=True)
class LayersDemoResult:
    """What the demo leaves. removed: name -> PSNR of its removal where it and its shadow were, beside the video untouched and the mask alone
    replaced by the true background.
    """

    folder: Path
    removed: dict[str, dict[str, float]]
    fitted: LayersResult
    films: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "folder": str(self.folder),
            "removed_db": self.removed,
            "layers": self.fitted.as_dict(),
            "films": [str(path) for path in self.films],
        }

    def __str__(self) -> str:
        told = [
            f"  {name}: {one['removal']:.1f} dB (video untouched {one['untouched']:.1f}, object alone replaced by the truth {one['mask_only']:.1f})"
            for name, one in self.removed.items()
        ]
        return "\n".join(
            [
                f"A scene of {NUM_FRAMES} frames was taken apart in {self.fitted.seconds:.0f} s. Removed, where the object and its shadow were, beside the truth:",
                *told,
                "One scene and one seed.",
                "",
                f"the page   {self.fitted.page}   open it in a browser",
                *(f"a film     {path}" for path in self.films),
                f"Your own:  ssvid layers fit my.mp4 --mask painted.png; ssvid layers compose {self.fitted.folder} --help",
            ]
        )


def run_layers_demo(folder: Path, seed: int, say: Say, show_progress: bool) -> LayersDemoResult:
    """All of it, in a folder that is empty or not there."""
    say("1/3 rendering a scene of two walkers with shadows")
    scene = walkers(seed, num_frames=NUM_FRAMES)
    write_scene(folder / "scene", KIND, num_frames=NUM_FRAMES, seed=seed)
    write_video(folder / "scene.mp4", scene.frames(), FPS, crf=12)
    say("2/3 taking it apart")
    footage = LayerFootage(
        folder / "scene" / "video", masks_folder=folder / "scene" / "masks", names=scene.names, num_frames=NUM_FRAMES
    )
    settings = LayerSettings(iterations=STEPS, short_side_px=scene.height, seed=seed)
    fitted = fit_layers(footage, settings=settings, out=folder / "layers", show_progress=show_progress)
    say("3/3 putting it together again: without an object, retimed, with a trail")
    films = _films(folder, fitted, scene.names)
    removed = {name: _removed(fitted, scene, name) for name in scene.names}
    result = LayersDemoResult(folder, removed, fitted, films)
    write_json(folder / "results.json", result.as_dict())
    return result


def _films(folder: Path, fitted: LayersResult, names: tuple[str, ...]) -> tuple[Path, ...]:
    first, second = names
    last = NUM_FRAMES - 1
    compositions = {
        f"without_{first}": Composition(drop=[first]),
        "retimed": Composition(
            times={first: f"0..{last}x2", second: f"{last}..0,hold:{NUM_FRAMES}", "background": "all"}
        ),
        "trail": Composition(gray_background=True, trails=[(first, 3, 3)]),
    }
    return tuple(compose_layers(fitted.folder, one, folder / f"{name}.mp4").path for name, one in compositions.items())


def _removed(fitted: LayersResult, scene: EffectScene, name: str) -> dict[str, float]:
    """PSNR where the object and its shadow truly are, of what stands in its place."""
    folder, all_frames = LayersFolder.open(fitted.folder), range(scene.num_frames)
    found_THWC = composite(folder.background(), dropped(folder.layers(), name))
    truth_THWC = to_bytes(scene.shown({other: all_frames for other in scene.names if other != name}))
    actor = next(actor for actor in scene.actors if actor.name == name)
    region_THW = np.stack([scene.layer(actor, t, t)[..., 3] > OBJECT_ALPHA for t in all_frames])
    mask_THW = scene.masks()[scene.names.index(name)]
    return removal_psnr(found_THWC, truth_THWC, scene.frames(), mask_THW, region_THW)
